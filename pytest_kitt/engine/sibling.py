"""Does pytest itself run in a container, and how does Docker's host see its files and its network then?"""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pytest_kitt.engine.dockerd import Docker
from pytest_kitt.errors import EngineStartError

_ID = re.compile(r"[0-9a-f]{64}")
_GIVEN = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")  # files that Docker and Podman mount into each container
_SHORT_ID = re.compile(r"[0-9a-f]{12}")


@dataclasses.dataclass(frozen=True, slots=True)
class Sibling:
    """The container that this process runs in; the engines' stand beside it.

    Attributes:
        id: Docker's.
        network: its network mode.
        networks: names of the networks that it is in.
        mounts: path inside -> path on Docker's host.

    """

    id: str
    network: str
    networks: tuple[str, ...]
    mounts: Mapping[str, str]

    def host_path(self, path: str) -> str:
        """A path of ours as Docker's host sees it; EngineStartError (mount) for one that is not on a mount."""
        pure = PurePosixPath(path)
        for inside in sorted(self.mounts, key=len, reverse=True):
            if pure.is_relative_to(inside):
                return str(PurePosixPath(self.mounts[inside]) / pure.relative_to(inside))
        there = ", ".join(sorted(self.mounts)) or "none"
        raise EngineStartError(
            f"pytest runs in container {self.id[:12]}, and Docker's host does not see {path} there: give that "
            f"container a mount with it (docker run -v FOLDER:FOLDER); it has: {there}",
            kind="mount",
        )


def find(docker: Docker) -> Sibling | None:
    """The container of this process, if it is one of this daemon's; None on a host, and in a daemon of its own."""
    for candidate in _candidates():
        try:
            status, said = docker.ask("GET", f"/containers/{candidate}/json")
        except OSError:
            return None
        if status == 200 and said["State"]["Running"]:
            return _read(said)
    return None


def _read(said: Mapping[str, Any]) -> Sibling:
    return Sibling(
        id=said["Id"],
        network=said["HostConfig"]["NetworkMode"],
        networks=tuple(said["NetworkSettings"].get("Networks") or ()),
        mounts={m["Destination"]: m["Source"] for m in said.get("Mounts", ()) if m.get("Source")},
    )


def _candidates(proc: Path = Path("/proc/self")) -> list[str]:
    """What may be the id of our container: from the files that it was given, its control group, and its name."""
    found: list[str] = []
    for fields in (line.split() for line in _lines(proc / "mountinfo")):
        if len(fields) > 4 and fields[4] in _GIVEN:
            found += _ID.findall(fields[3])
    for line in _lines(proc / "cgroup"):
        found += _ID.findall(line)
    hostname = socket.gethostname()
    if _SHORT_ID.fullmatch(hostname):
        found.append(hostname)
    return list(dict.fromkeys(found))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
