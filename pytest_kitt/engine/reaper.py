"""What in Docker is ours, and what of that has nobody any more? The standard library alone.

What a session creates carries labels: its run, its cell, the mark that its processes have too, and its owner. What has
no such labels is never touched. One whose owner is known to be dead is removed, and one whose owner cannot be judged
from here (another machine, another PID namespace) is left alone. Networks and volumes that a compose file made for a
session carry the same labels; Docker itself refuses to remove one that is in use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_kitt.engine.dockerd import Docker
from pytest_kitt.hardware import identity

RUN, CELL, MARK, OWNER = (f"pytest-kitt.{name}" for name in ("run", "cell", "mark", "owner"))
KEPT = "kitt-kept-"  # how the name of a container begins that is to outlive its session: labels cannot be changed
_REMOVE_S = 30.0
_REMOVED = 204
_IN_USE = 403  # Docker's answer to the removal of a network that containers are in


@dataclasses.dataclass(frozen=True, slots=True)
class Ours:
    """A container that a session of ours created, or a network or a volume.

    Attributes:
        id: Docker's; the name of a volume.
        name: without the slash.
        mark: as its processes carry it.
        owner: identity of the session's process.

    """

    id: str
    name: str
    mark: str
    owner: Mapping[str, Any]


def labels(run: str, cell: str, mark: str, container: str = "") -> dict[str, str]:
    """What a container of this process is labelled with; ``container`` is the one that this process runs in."""
    place = {"uid": os.geteuid(), "pid_namespace": _pid_namespace(), "container": container}
    owner = {**identity.of_this_process(), **place}
    return {RUN: run, CELL: cell, MARK: mark, OWNER: json.dumps(owner, sort_keys=True)}


def ours(docker: Docker, *, timeout_s: float = 10.0) -> list[Ours]:
    """All containers of ours, running or not, of any session; OSError when Docker does not say."""
    query = {"all": "1", "filters": {"label": [MARK, OWNER]}}
    status, said = docker.ask("GET", "/containers/json", query, timeout_s=timeout_s)
    if status != 200 or not isinstance(said, list):
        raise OSError(f"{docker.host} does not list its containers (status {status})")
    return [_read(one) for one in said if MARK in one["Labels"] and OWNER in one["Labels"]]


def remove_marked(docker: Docker, mark: str, *, spare: str = "") -> int:
    """Removes what has a mark, or a longer one, but not what carries ``spare``; how many things those were."""

    def doomed(one: Ours) -> bool:
        return _carries(one, mark) and not (spare and _carries(one, spare))

    removed = 0
    with contextlib.suppress(OSError):
        for one in filter(doomed, ours(docker)):
            remove(docker, one.id)
            removed += 1
        for one in filter(doomed, _networks(docker)):
            removed += _remove_network(docker, one.id)
        for one in filter(doomed, _volumes(docker)):
            removed += docker.ask("DELETE", f"/volumes/{one.id}")[0] == _REMOVED
    return removed


def sweep(docker: Docker) -> list[str]:
    """Removes what dead sessions have left behind, but what was kept on purpose; the names of what is gone."""
    gone = []
    with contextlib.suppress(OSError):
        for one in ours(docker, timeout_s=3.0):
            if not one.name.startswith(KEPT) and _is_orphan(docker, one.owner):
                remove(docker, one.id)
                gone.append(one.name)
        for kind, listed in (("networks", _networks(docker)), ("volumes", _volumes(docker))):
            for one in listed:
                if _is_orphan(docker, one.owner):
                    docker.ask("DELETE", f"/{kind}/{one.id}")
    return gone


def remove(docker: Docker, container: str) -> None:
    """Kills and removes a container with its anonymous volumes; one that is gone already is no error."""
    with contextlib.suppress(OSError):
        docker.ask("DELETE", f"/containers/{container}", {"force": "1", "v": "1"}, timeout_s=_REMOVE_S)


def _networks(docker: Docker) -> list[Ours]:
    """All networks of ours; none where Docker does not say."""
    status, said = docker.ask("GET", "/networks", {"filters": {"label": [MARK, OWNER]}})
    return [_read(one) for one in said] if status == 200 and isinstance(said, list) else []


def _volumes(docker: Docker) -> list[Ours]:
    """All volumes of ours; none where Docker does not say."""
    status, said = docker.ask("GET", "/volumes", {"filters": {"label": [MARK, OWNER]}})
    listed = (said.get("Volumes") or []) if status == 200 and isinstance(said, dict) else []
    return [_read({**one, "Id": one["Name"]}) for one in listed]


def _remove_network(docker: Docker, network: str) -> bool:
    """Removes a network, with the container out of it that pytest itself is in; whether it is gone."""
    path = f"/networks/{network}"
    status = docker.ask("DELETE", path)[0]
    if status == _IN_USE:
        for container in (docker.ask("GET", path)[1] or {}).get("Containers") or ():
            docker.ask("POST", f"{path}/disconnect", body={"Container": container, "Force": True})
        status = docker.ask("DELETE", path)[0]
    return status == _REMOVED


def is_up(docker: Docker, container: str) -> bool:
    """Whether a container exists and runs; OSError when Docker does not say."""
    status, said = docker.ask("GET", f"/containers/{container}/json")
    return status == 200 and bool(said["State"]["Running"])


def _read(said: Mapping[str, Any]) -> Ours:
    try:
        owner = json.loads(said["Labels"][OWNER])
    except ValueError:
        owner = None
    name = (said.get("Names") or [said.get("Name", "")])[0].removeprefix("/")
    return Ours(said["Id"], name, said["Labels"][MARK], owner if isinstance(owner, dict) else {})


def _carries(one: Ours, mark: str) -> bool:
    return one.mark == mark or one.mark.startswith(f"{mark}.")


def _is_orphan(docker: Docker, owner: Mapping[str, Any]) -> bool:
    if container := owner.get("container"):
        return not is_up(docker, str(container))
    if not docker.is_here or not identity.is_of_this_host(owner):
        return False
    if owner.get("boot_id") != identity.boot_id():
        return bool(owner.get("boot_id") and identity.boot_id())
    visible = os.geteuid() in (0, owner.get("uid"))  # /proc may hide the processes of others
    return visible and owner.get("pid_namespace") == _pid_namespace() and not identity.is_alive(owner)


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
