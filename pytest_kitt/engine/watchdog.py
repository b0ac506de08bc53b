"""Who cleans up when the session is killed? A small process of its own that outlives it by a moment.

It holds the read end of a pipe whose other end only the session holds. When the session dies, however it dies, the
pipe ends, and every process that carries the session's mark in its environment is killed (grandchildren inherit a mark,
and it survives setsid). It is started with the first engine, in a process group of its own, and uses the standard
library alone: ``python -I -S watchdog.py MARK FOLDER``.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

MARK = "KITT_MARK"
_POLL_S = 0.5
_SWEEP_S = 2.0


class Watchdog:
    """The session's side: starts the process and lets it go; a context manager."""

    def __init__(self, mark: str, folder: Path) -> None:
        command = [sys.executable, "-I", "-S", __file__, mark, str(folder)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch; what still carries the mark is killed, and the folder removed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=2 * _SWEEP_S + 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def marked(mark: str) -> list[int]:
    """Ids of all processes of this user whose environment says KITT_MARK=mark or KITT_MARK=mark.<something>."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word == wanted or word.startswith(wanted + b".") for word in environment):
            found.append(int(process.name))
    return found


def kill_marked(mark: str, within_s: float = _SWEEP_S) -> None:
    """Kills every marked process, again until none is left: a process may fork while it is being looked for."""
    deadline = time.monotonic() + within_s
    while (pids := marked(mark)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _watch(mark: str, folder: str) -> None:
    owner = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == owner:
        readable, _, _ = select.select([0], [], [], _POLL_S)
        if readable and not os.read(0, 4096):
            break
    kill_marked(mark)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _watch(*sys.argv[1:3])
