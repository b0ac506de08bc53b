"""How is an engine run in a container? Created, started and removed through Docker's API; its output in a file."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kitt.engine import reaper
from pytest_kitt.engine.daemon import answering, connected
from pytest_kitt.engine.dockerd import Docker
from pytest_kitt.errors import EngineStartError
from pytest_kitt.hardware.gpus import ALL

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_GRACE_S = 5
_LATE_S = 10.0  # within which an interrupted request for a container has been carried out
_RETRY_S = 0.5
_SAID_CHARS = 500
_SIGNALLED = 128  # exit codes above are those of a process that a signal has ended

_REFUSALS = (
    # what Docker says, class of the failure, what it means
    (r"no such image", "missing", "the image is not there any more"),
    (
        r"select device driver|nvidia-container-cli|runtime name: nvidia|CDI device|gathering device information",
        "gpu",
        "this Docker cannot give GPUs to a container: install the NVIDIA Container Toolkit and configure Docker for it",
    ),
    (r"is unhealthy|dependency failed|didn't complete", "dependency", "a service that it depends on is not well"),
    (r"port is already allocated|address already in use|failed to bind", "port", "its port is taken"),
    (r"exec format error", "architecture", "the image is for another architecture"),
    (r"no space left", "disk", "the disk is full"),
    (r"executable file not found|no such file or directory", "command", "the image does not have that program"),
    (r"bind source path does not exist|mounts denied|not shared from", "mount", "Docker does not see a folder"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Mount:
    """A folder or a file of the host in a container.

    Attributes:
        host: its path as Docker's host sees it.
        inside: its path in the container.
        writable: whether the container may change it.

    """

    host: str
    inside: str
    writable: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A container as it is to be.

    Attributes:
        image: reference or id; it is there already.
        command: what the image's entry point gets.
        labels: as ``reaper.labels`` makes them.
        entrypoint: in place of the image's own, if any.
        env: environment variables.
        mounts: what it sees of the host.
        network: ``host``, ``bridge``, another network's name, or ``container:ID``.
        publish: port that is published on 127.0.0.1 of the host, under the same number; 0 for none.
        gpus: ids of its GPUs, or ``all``; none for an engine that runs on the CPU.
        amd: they are AMD's, which containers get as devices of the kernel.
        shm: size of /dev/shm.
        ipc: ``host``, else its own.
        memory: limit, e.g. ``16g``.

    """

    image: str
    command: tuple[str, ...]
    labels: Mapping[str, str]
    entrypoint: tuple[str, ...] = ()
    env: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    network: str = "host"
    publish: int = 0
    gpus: tuple[str, ...] = ()
    amd: bool = False
    shm: str = ""
    ipc: str = ""
    memory: str = ""


class EngineContainer:
    """A running container.

    Attributes:
        name: in Docker.
        pid: of its first process as this machine counts, 0 where that cannot be seen.
        log: file with all that it prints.
        argv: what runs in it, without the image's entry point.
        address: in its network; empty in the host's.
        kept: it outlives its context.
        start_s: seconds until the engine in it was ready; None before.

    """

    def __init__(self, container: Container, argv: Sequence[str], log: Path) -> None:
        self._container = container
        self.name = str(container.name)
        self.log = log
        self.argv = tuple(argv)
        self.kept = False
        self.start_s: float | None = None
        self._code: int | None = None
        self._memory: bool | None = None
        self._follower = threading.Thread(target=self._follow, name="kitt-container", daemon=True)
        self._output: Any = None
        container.reload()
        self.pid = _visible_pid(int(container.attrs["State"]["Pid"]), str(container.id))
        self.address = _address(container.attrs["NetworkSettings"].get("Networks") or {})

    @property
    def what(self) -> str:
        """How sentences call it."""
        return f"container {self.name}"

    @property
    def stop(self) -> str:
        """The command that ends it."""
        return f"docker rm -f {self.name}"

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._code

    def killed_for_memory(self) -> bool | None:
        """Whether the kernel killed something in it for want of memory; None while that is not known."""
        return self._memory

    def keep(self) -> bool:
        """Leaves it running when its context ends, under a name that says so; False when it has ended already."""
        if self._code is not None:
            return False
        self.kept = True
        name = reaper.KEPT + self.name.removeprefix("kitt-")
        self._container.rename(name)
        self.name = name
        return True

    def begin_following(self) -> None:
        """Its output goes to the log from here on, from the first byte to the last."""
        self._follower.start()

    def end_following(self) -> None:
        """Lets go of it, whether it has ended or not."""
        if self._output is not None:
            self._output.close()
        self._follower.join(timeout=_LATE_S)

    def _follow(self) -> None:
        # whatever breaks the stream, what has become of the container tells
        with self.log.open("wb", buffering=0) as file, contextlib.suppress(Exception):
            self._output = self._container.logs(stream=True, follow=True)
            for piece in self._output:
                file.write(piece)
        if not self.kept:
            self._note_end()

    def _note_end(self) -> None:
        import docker.errors
        import requests

        while True:
            try:
                self._container.wait(timeout=None)
                self._container.reload()
            except docker.errors.NotFound:
                self._memory, self._code = False, -9  # somebody removed it, as nothing but a kill can
                return
            except (docker.errors.APIError, requests.RequestException):
                if self.kept:
                    return
                time.sleep(_RETRY_S)  # a daemon that restarts
                continue
            state = self._container.attrs["State"]
            self._memory = bool(state.get("OOMKilled"))
            code = int(state["ExitCode"])
            self._code = _SIGNALLED - code if _SIGNALLED < code < _SIGNALLED + 65 else code
            return


@contextlib.contextmanager
def running(docker: Docker, request: Request, *, log: Path) -> Iterator[EngineContainer]:
    """Creates and starts a container and removes it, whatever happens; EngineStartError when Docker refuses."""
    name = f"kitt-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    with connected(docker) as client:
        container = _started(client, docker, request, name)
        engine: EngineContainer | None = None
        try:
            engine = EngineContainer(container, (*request.entrypoint, *request.command), log)
            engine.begin_following()
            yield engine
            if not engine.kept:
                with contextlib.suppress(Exception):  # it is removed anyway
                    container.stop(timeout=_GRACE_S)
        finally:
            if engine is None or not engine.kept:
                reaper.remove(docker, str(container.id))
            if engine is not None:
                engine.end_following()


def _started(client: DockerClient, docker: Docker, request: Request, name: str) -> Container:
    """A container that runs; none is left when that fails, or is interrupted."""
    try:
        with answering(), _refusals(request):
            container = client.containers.create(**options(request, name))
            container.start()
    except EngineStartError:
        reaper.remove(docker, name)
        raise
    except BaseException:
        _remove_what_appears(docker, name)
        raise
    return container


def options(request: Request, name: str) -> dict[str, Any]:
    """The request in docker-py's words."""
    from docker.types import DeviceRequest
    from docker.types import Mount as Bind

    asked: dict[str, Any] = {
        "image": request.image,
        "command": list(request.command),
        "name": name,
        "labels": dict(request.labels),
        "environment": dict(request.env),
        "mounts": [Bind(m.inside, m.host, type="bind", read_only=not m.writable) for m in request.mounts],
        "network_mode": request.network,
        "init": True,
        "security_opt": ["no-new-privileges"],
    }
    if request.entrypoint:
        asked["entrypoint"] = list(request.entrypoint)
    if request.publish:
        asked["ports"] = {f"{request.publish}/tcp": ("127.0.0.1", request.publish)}
    if request.gpus and request.amd:
        devices = _amd_devices(request.gpus)
        asked |= {**devices, "environment": {**request.env, **devices.get("environment", {})}}
    elif request.gpus:
        wanted = {"count": -1} if request.gpus == ALL else {"device_ids": list(request.gpus)}
        asked["device_requests"] = [DeviceRequest(capabilities=[["gpu"]], **wanted)]
    sizes = {"shm_size": request.shm, "ipc_mode": request.ipc, "mem_limit": request.memory}
    return asked | {key: value for key, value in sizes.items() if value}


def _amd_devices(gpus: Sequence[str]) -> dict[str, Any]:
    """The devices of ROCm, and the groups that may open them, by number: names are the host's own.

    All GPUs' devices are there; which of them are used is said to the runtime in the container.
    """
    devices = [Path("/dev/kfd"), *sorted(Path("/dev/dri").glob("renderD*"))]
    groups = sorted({device.stat().st_gid for device in devices if device.exists()})
    asked: dict[str, Any] = {"devices": ["/dev/kfd", "/dev/dri"], "group_add": [str(group) for group in groups]}
    return asked if tuple(gpus) == ALL else asked | {"environment": {"ROCR_VISIBLE_DEVICES": ",".join(gpus)}}


@contextlib.contextmanager
def _refusals(request: Request) -> Iterator[None]:
    """What Docker says when it does not create or start a container, as a class and a sentence."""
    import docker.errors

    try:
        yield
    except docker.errors.APIError as error:
        raise refusal(request.image, str(error.explanation or error)) from error


def refusal(what: str, said: str) -> EngineStartError:
    """Why a container does not start, from what Docker says."""
    said = " ".join(said.split())[-_SAID_CHARS:]
    for pattern, kind, meaning in _REFUSALS:
        if re.search(pattern, said, re.IGNORECASE):
            return EngineStartError(f"{what} does not start: {meaning} ({said})", kind=kind)
    return EngineStartError(f"{what} does not start; Docker says: {said}", kind="docker")


def _remove_what_appears(docker: Docker, name: str) -> None:
    """Removes a container by its name; Docker may be just about to create it."""
    deadline = time.monotonic() + _LATE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if docker.ask("GET", f"/containers/{name}/json")[0] == 200:
                reaper.remove(docker, name)
                return
        time.sleep(_RETRY_S)


def _visible_pid(pid: int, container: str) -> int:
    """The process as this machine counts, if it shows that one here as a process of this container; else 0."""
    try:
        return pid if pid and container in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8") else 0
    except (OSError, UnicodeDecodeError):
        return 0


def _address(networks: Mapping[str, Any]) -> str:
    return next((str(network["IPAddress"]) for network in networks.values() if network.get("IPAddress")), "")
