"""How is a file a lock for all users of a machine? flock(2): the kernel lets go of it, however its holder ends.

The text of the file says who holds it, to those who wait and to the next holder; only the lock decides. The folder is
writable for all and sticky, so what lies there may be anybody's: nothing is followed, and nothing but a plain file of
one name is opened. Lock files stay where they are, as one that is removed could be locked twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pytest_kitt.errors import UserError

_FOR_ALL = 0o666
_SAFELY = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_PATIENCE_S = 1.0
_PAUSE_S = 0.01
_MAX_TEXT_BYTES = 65536


class Lock:
    """A lock that this process holds, never a child of it; a context manager.

    Attributes:
        path: its file.
        shared: whether others may hold it too.

    """

    def __init__(self, path: Path, fd: int, *, shared: bool) -> None:
        self.path, self.shared = path, shared
        self._fd = fd
        self._written = False
        _all.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def read(self) -> dict[str, Any]:
        """What the last holder wrote and, as it was killed, did not take back; empty when there is nothing."""
        return _record(self._fd)

    def write(self, record: Mapping[str, Any]) -> None:
        """Says who holds it; taken back on release. UserError when the disk does not take it."""
        text = json.dumps(record).encode()
        self._written = True
        try:
            # not emptied first: who reads meanwhile finds one or the other
            os.pwrite(self._fd, text, 0)
            os.ftruncate(self._fd, len(text))
        except OSError as error:
            raise _unusable(self.path, error) from error

    def empty(self) -> None:
        """Takes back what is written."""
        os.ftruncate(self._fd, 0)

    def release(self) -> None:
        """Lets go; a second time does nothing."""
        if self._fd < 0:
            return
        try:
            if self._written:
                self.empty()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Closes the file and leaves the text: in a forked child, whose parent keeps the lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def is_in_place(self) -> bool:
        """Whether the path still leads to this file."""
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.stat(follow_symlinks=False))
        except FileNotFoundError:
            return False


_all: weakref.WeakSet[Lock] = weakref.WeakSet()


def _abandon_all() -> None:
    for lock in list(_all):
        lock.abandon()


# a child made by fork alone would keep our locks after our death
os.register_at_fork(after_in_child=_abandon_all)


def take(path: Path, *, shared: bool = False) -> Lock | None:
    """The lock of a file, which is made if need be; None when another holds it. UserError when the file is unusable."""
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        with contextlib.ExitStack() as undo:
            fd = _opened(path)
            lock = undo.enter_context(Lock(path, fd, shared=shared))
            try:
                fcntl.flock(fd, how | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            except OSError as error:
                raise _unusable(path, error) from error
            if lock.is_in_place():  # else it was removed before it was locked
                undo.pop_all()
                return lock


def wait_for(path: Path) -> Lock:
    """A lock that is held for moments only."""
    while (lock := take(path)) is None:
        time.sleep(_PAUSE_S)
    return lock


def text(path: Path) -> dict[str, Any]:
    """What stands in a lock file, held or not; empty when nothing can be read there."""
    try:
        fd = os.open(path, os.O_RDONLY | _SAFELY)
    except OSError:
        return {}
    try:
        return _record(fd)
    finally:
        os.close(fd)


def is_held(path: Path) -> bool:
    """Whether anybody holds a lock exclusively."""
    try:
        fd = os.open(path, os.O_RDONLY | _SAFELY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def _opened(path: Path) -> int:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return _checked(path, _existing_or_new(path))
        except (FileExistsError, PermissionError) as error:
            # one that another user makes right now is closed to us until its mode is set
            if time.monotonic() > deadline:
                raise _unusable(path, error) from error
            time.sleep(_PAUSE_S)
        except OSError as error:
            raise _unusable(path, error) from error


def _existing_or_new(path: Path) -> int:
    # O_CREAT on another user's file in a sticky folder is refused where fs.protected_regular is on
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR | _SAFELY)
    return os.open(path, os.O_RDWR | _SAFELY | os.O_CREAT | os.O_EXCL, _FOR_ALL)


def _checked(path: Path, fd: int) -> int:
    """Passes a descriptor on if it is of a plain file of one name; our own are opened to all."""
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise UserError(f"{path} is no lock file: remove it, or name another folder with KITT_LEASES")
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != _FOR_ALL:
            os.fchmod(fd, _FOR_ALL)  # the umask took its part
        undo.pop_all()
    return fd


def _record(fd: int) -> dict[str, Any]:
    try:
        record = json.loads(os.pread(fd, _MAX_TEXT_BYTES, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _unusable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be used: {error.strerror}; leases need a folder on a local disk where every user of this "
        "machine may write: name one with KITT_LEASES"
    )
