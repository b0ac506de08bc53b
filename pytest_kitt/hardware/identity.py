"""Which process is that, and does it still live? A pid alone is used again; with its start and the boot it is one."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STATE, _SESSION, _START_TIME = 0, 3, 19  # fields of /proc/PID/stat after the name, which may hold anything
_ENDED = ("Z", "X", "")


def of_this_process() -> dict[str, Any]:
    """Host, boot, pid and start: enough to tell later whether this process still lives."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot_id": boot_id(), "pid": pid, "start_time": start_time(pid)}


def is_of_this_host(process: Mapping[str, Any]) -> bool:
    """Whether an identity is of this machine, in this boot or an earlier one."""
    return process.get("host") == socket.gethostname()


def is_of_this_boot(process: Mapping[str, Any]) -> bool:
    """Whether an identity is of this machine since it was last booted."""
    return is_of_this_host(process) and process.get("boot_id") == boot_id()


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether the process of an identity of this machine still runs; one that only waits to be reaped does not."""
    pid = process.get("pid")
    if not isinstance(pid, int) or process.get("boot_id") != boot_id():
        return False
    return start_time(pid) == process.get("start_time") and _stat(pid, _STATE) not in _ENDED


def boot_id() -> str:
    """Changes with every boot of the machine; empty where it is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def start_time(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty when there is none."""
    return _stat(pid, _START_TIME)


def session_members(leader: Mapping[str, Any]) -> list[int]:
    """The living processes of a session, by the pid and the start of its leader, who may be gone; of any user."""
    pid = leader.get("pid")
    if not isinstance(pid, int) or start_time(pid) not in ("", leader.get("start_time")):
        return []  # the number is another's by now
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [member for member in pids if _stat(member, _SESSION) == str(pid) and _stat(member, _STATE) not in _ENDED]


def user() -> str:
    """The name of this process's user; the number where it has none, as in some containers."""
    uid = os.geteuid()
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _stat(pid: int, field: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[field]
