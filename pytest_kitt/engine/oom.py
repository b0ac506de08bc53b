"""Did the kernel kill a process for want of memory? Its control group counts such kills."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Self

# controllers as /proc/PID/cgroup lists them (none in version 2), then folder of the mount, file that counts
_PLACES = (("memory", "memory", "memory.oom_control"), ("", "", "memory.events"))


@dataclasses.dataclass(frozen=True, slots=True)
class KillCounter:
    """The count of one control group, as it was when it was first read.

    Attributes:
        path: the file that counts; None where there is none that can be read.
        before: what it said.

    """

    path: Path | None
    before: int = 0

    @classmethod
    def of(cls, pid: int, *, proc: Path = Path("/proc"), mount: Path = Path("/sys/fs/cgroup")) -> Self:
        """The counter of a running process, version 1 or 2 of control groups."""
        for controllers, folder in _groups(proc / str(pid) / "cgroup"):
            for wanted, root, name in _PLACES:
                # in a container the path may be that of the host, and the mount show the process's own group
                for path in (mount / root / folder / name, mount / root / name) if controllers == wanted else ():
                    if (count := _count(path)) is not None:
                        return cls(path, count)
        return cls(None)

    def risen(self) -> bool | None:
        """Whether a process of the group has been killed since; None when that cannot be known."""
        now = None if self.path is None else _count(self.path)
        return None if now is None else now > self.before


def _groups(file: Path) -> list[tuple[str, str]]:
    """Controllers and relative path of each group that a process is in."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    split = (line.split(":", 2) for line in lines)
    return [(parts[1], parts[2].lstrip("/")) for parts in split if len(parts) == 3]


def _count(path: Path) -> int | None:
    try:
        words = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return None
    found = dict(zip(words[::2], words[1::2], strict=False)).get("oom_kill", "")
    return int(found) if found.isdecimal() else None
