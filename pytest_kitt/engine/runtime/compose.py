"""How is an engine run as a service of a compose file? Brought up and down by compose, through pytest-docker.

The file stays as its user wrote it: a second file, made here, puts our labels and mark on all that is created, so that
it is found again. https://docs.docker.com/reference/compose-file/; both Docker's plugin and the older docker-compose.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kitt.composefile import Service
from pytest_kitt.engine import pull, reaper
from pytest_kitt.engine.compose import Project
from pytest_kitt.engine.daemon import answering, connected
from pytest_kitt.engine.dockerd import Docker
from pytest_kitt.engine.pull import LocalImage
from pytest_kitt.engine.runtime.container import EngineContainer, refusal
from pytest_kitt.engine.sibling import Sibling
from pytest_kitt.engine.stack import Stack, exposed, mapping
from pytest_kitt.engine.watchdog import MARK
from pytest_kitt.errors import EngineStartError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_GRACE_S = 5
_LATE_S = 3.0  # within which Docker has carried out what an interrupted compose had asked for
_POLL_S = 0.1
_LOOPBACK = "127.0.0.1"
_ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - as Docker says where a port is published
_SERVICE = "com.docker.compose.service"


class EngineService(EngineContainer):
    """The container of the engine, with the rest of its project.

    Attributes:
        down: the command that ends all of it.

    """

    def __init__(self, container: Container, log: Path, project: Project, mark: str) -> None:
        attrs = container.attrs
        super().__init__(container, [str(attrs["Path"]), *map(str, attrs["Args"])], log)
        self.down = project.down_command
        self._project, self._mark_of_all = project, mark

    def keep(self) -> bool:
        """Leaves the project running, each container under a name that says so; False when the engine has ended."""
        if not super().keep():
            return False
        for other in marked(self._container.client, self._mark_of_all):
            if not str(other.name).startswith(reaper.KEPT):
                other.rename(reaper.KEPT + str(other.name).removeprefix("kitt-"))
        return True

    def url(self, stack: Stack, port: int, beside: Sibling | None) -> str:
        """Where it answers; empty while Docker does not say, EngineStartError (port) when that is nowhere."""
        self._container.reload()
        attrs = self._container.attrs
        if not attrs["State"]["Running"]:
            return ""
        where = f"{stack.service.file}: service {stack.service.name!r}"
        if attrs["HostConfig"]["NetworkMode"] == "host":
            return f"http://{_LOOPBACK}:{_one(where, [port] if port else exposed(stack.engine), port)}"
        if beside is not None and beside.network != "host":
            inside = [_number(name) for name in attrs["Config"].get("ExposedPorts") or {} if name.endswith("/tcp")]
            address = _address(attrs)
            return address and f"http://{address}:{_one(where, inside or [port], port)}"
        published = _published(attrs["NetworkSettings"].get("Ports") or {})
        return f"http://{published[_one(where, list(published), port)]}"


@contextlib.contextmanager
def running(
    docker: Docker,
    stack: Stack,
    *,
    labels: Mapping[str, str],
    folder: Path,
    log: Path,
    beside: Sibling | None,
    timeout_s: float,
    on_poll: Callable[[], None],
) -> Iterator[tuple[EngineService, LocalImage]]:
    """Brings the service up with what it depends on, and all of it down again, whatever happens."""
    mark = labels[reaper.MARK]
    override = folder / f"compose-{secrets.token_hex(3)}.yaml"
    project = Project(docker, stack.service, mark=mark, override=override)
    override.write_text(json.dumps(overriding(stack, project.name, labels)), encoding="utf-8")
    service: EngineService | None = None
    with connected(docker) as client:
        try:
            _up(project, timeout_s=timeout_s, on_poll=on_poll)
            with answering():
                container = _container_of(client, mark, stack.service)
                service = EngineService(container, log, project, mark)
                image = _image_of(client, container)
            service.begin_following()
            with _joined(client, container, beside):
                yield service, image
            if not service.kept:
                with contextlib.suppress(EngineStartError):  # it is removed anyway
                    project.ask(f"stop -t {_GRACE_S}")
        finally:
            if service is None or not service.kept:
                _remove(project, mark, late=service is None)
            if service is not None:
                service.end_following()


def overriding(stack: Stack, project: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """What the second file says: the labels of all that the project makes for itself, and the mark of its processes.

    The engine is not started again when it ends, so that this is noticed.
    """
    written = {name: value.replace("$", "$$") for name, value in labels.items()}
    marked_ = {"labels": written, "environment": {MARK: written[reaper.MARK]}}
    services: dict[str, Any] = {str(name): marked_ for name in mapping(stack.config.get("services"))}
    services[stack.service.name] = {**marked_, "restart": "no"}
    networks = {"default": None, **mapping(stack.config.get("networks"))}
    volumes = mapping(stack.config.get("volumes"))
    own = {"labels": written}
    made: dict[str, Any] = {
        "services": services,
        "networks": {name: own for name, said in networks.items() if _is_own(name, said, project)},
        "volumes": {name: own for name, said in volumes.items() if _is_own(name, said, project)},
    }
    return {**({"version": stack.service.version} if stack.service.version else {}), **made}


def marked(client: DockerClient, mark: str) -> list[Container]:
    """The containers that carry a mark."""
    return list(client.containers.list(all=True, filters={"label": f"{reaper.MARK}={mark}"}, ignore_removed=True))


def _up(project: Project, *, timeout_s: float, on_poll: Callable[[], None]) -> None:
    service = project.service
    try:
        project.run(f"up -d --no-build {shlex.quote(service.name)}", timeout_s=timeout_s, on_poll=on_poll)
    except EngineStartError as error:
        if error.kind != "compose":
            raise
        raise refusal(f"service {service.name!r} of {service.file}", str(error)) from error


def _remove(project: Project, mark: str, *, late: bool) -> None:
    """Removes all that carries the mark, with its anonymous volumes, then what else compose made; no named volume."""
    quiet_at = time.monotonic() + (_LATE_S if late else 0.0)
    while reaper.remove_marked(project.docker, mark) or time.monotonic() < quiet_at:
        time.sleep(_POLL_S)
    with contextlib.suppress(EngineStartError):
        project.ask(f"down -t {_GRACE_S}")


def _container_of(client: DockerClient, mark: str, service: Service) -> Container:
    for container in marked(client, mark):
        if container.labels.get(_SERVICE) == service.name:
            return container
    raise EngineStartError(f"{service.file}: compose has started no container of {service.name!r}", kind="compose")


def _image_of(client: DockerClient, container: Container) -> LocalImage:
    """The image that the container runs, by its name where that still means the same."""
    reference, id_ = str(container.attrs["Config"]["Image"]), str(container.attrs["Image"])
    image = pull.found(client, reference)
    return image if image is not None and image.id == id_ else LocalImage(reference, id_, id_, "")


@contextlib.contextmanager
def _joined(client: DockerClient, container: Container, beside: Sibling | None) -> Iterator[None]:
    """With the container that pytest runs in, if any, in the network of the engine."""
    networks = [name for name in container.attrs["NetworkSettings"]["Networks"] if name != "host"]
    if beside is None or beside.network == "host" or not networks or set(networks) & set(beside.networks):
        yield
        return
    network = client.networks.get(networks[0])
    network.connect(beside.id)
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # who removes the network does it too
            network.disconnect(beside.id, force=True)


def _is_own(name: str, said: Any, project: str) -> bool:
    """Whether a network or a volume is made for this project alone."""
    described = mapping(said)
    return not described.get("external") and described.get("name", f"{project}_{name}") == f"{project}_{name}"


def _published(ports: Mapping[str, Any]) -> dict[int, str]:
    """Address on this machine by the port inside, of what Docker says is published."""
    found = {}
    for inside, bindings in ports.items():
        if inside.endswith("/tcp") and bindings:
            host = bindings[0].get("HostIp", "")
            found[_number(inside)] = f"{_LOOPBACK if host in _ANYWHERE else host}:{bindings[0]['HostPort']}"
    return found


def _one(where: str, ports: Sequence[int], preferred: int) -> int:
    """The port that is the engine's: the one of its kind, else the only one."""
    if preferred in ports:
        return preferred
    if len(ports) == 1:
        return ports[0]
    there = ", ".join(map(str, sorted(ports))) or "none"
    raise EngineStartError(
        f"{where}: which of its ports is the engine's? there are: {there}; name it with --kitt-engine, or publish one",
        kind="port",
    )


def _address(attrs: Mapping[str, Any]) -> str:
    networks = attrs["NetworkSettings"].get("Networks") or {}
    return next((str(network["IPAddress"]) for network in networks.values() if network.get("IPAddress")), "")


def _number(port: str) -> int:
    return int(port.partition("/")[0])
