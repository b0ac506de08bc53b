"""What do killed engines leave in /dev/shm? Segments of Python's shared memory that nobody can give back any more.

Whoever made one gives it back when it ends, and a tracker process of its own does when it was killed; here both are
killed. A file says which user made it, not which process. So it is ours to remove when a process of ours had it mapped,
and, once that is gone, no other process has. Standard library alone: the watchdog uses it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_FOLDER = Path("/dev/shm")  # noqa: S108 - where the kernel has it
_MAPPED = re.compile(rb"([0-9a-f]+):([0-9a-f]+) (\d+) +/dev/shm/(psm_[0-9a-f]{8})$", re.MULTILINE)

Segment = tuple[str, int, int]


def mapped(pids: Iterable[int]) -> set[Segment]:
    """The segments that processes have mapped: name, device and inode; a container's have another device."""
    return {segment for pid in pids for segment in _mapped(pid)}


def remove(segments: set[Segment]) -> None:
    """Removes what is left of them and what no living process has mapped."""
    if not segments:
        return
    everybody = (int(process.name) for process in Path("/proc").iterdir() if process.name.isdigit())
    for name, device, inode in segments - mapped(everybody):
        with contextlib.suppress(OSError):
            found = (_FOLDER / name).lstat()
            if (found.st_dev, found.st_ino, found.st_uid) == (device, inode, os.getuid()):
                (_FOLDER / name).unlink()


def _mapped(pid: int) -> Iterator[Segment]:
    try:
        maps = Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return
    for major, minor, inode, name in _MAPPED.findall(maps):
        yield name.decode(), os.makedev(int(major, 16), int(minor, 16)), int(inode)
