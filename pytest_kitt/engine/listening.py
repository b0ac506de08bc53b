"""Whose server listens on a port? Another's may, when it took the port while ours was still starting."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_LISTEN = "0A"  # the state in /proc/net/tcp


def is_foreign(port: int, pids: Iterable[int]) -> bool:
    """Whether a TCP port is listened on, and by none of these processes.

    Read from Linux's /proc; False where that does not say.
    """
    sockets = set(_listening(port))
    return bool(sockets) and not any(sockets & set(_sockets(pid)) for pid in pids)


def _listening(port: int) -> Iterator[str]:
    """The inodes of the sockets that listen on a port, as ``/proc/PID/fd`` names them."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{fields[9]}]"


def _sockets(pid: int) -> Iterator[str]:
    folder = Path("/proc") / str(pid) / "fd"
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(entry)  # noqa: PTH115 - "socket:[...]" is no path
