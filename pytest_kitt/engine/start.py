"""How does a cell become a running engine? A context manager: started, probed, yielded, stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from pytest_kitt import composefile
from pytest_kitt.cards import EngineCard, RuntimeCard
from pytest_kitt.engine import command, dockerd, installed, lease, listening, pull, reaper, request, sibling, stack
from pytest_kitt.engine.base import Access, RunningEngine
from pytest_kitt.engine.compose import absent as compose_absent
from pytest_kitt.engine.daemon import answering, connected
from pytest_kitt.engine.dockerd import Docker
from pytest_kitt.engine.health import Health
from pytest_kitt.engine.image import Image, chosen_here
from pytest_kitt.engine.prepare import prepared
from pytest_kitt.engine.pull import LocalImage
from pytest_kitt.engine.ready import answers_200, wait_ready
from pytest_kitt.engine.request import Owner
from pytest_kitt.engine.runtime import compose, container, endpoint
from pytest_kitt.engine.runtime.container import EngineContainer
from pytest_kitt.engine.runtime.process import EngineProcess, running
from pytest_kitt.engine.survey import lacks_disk
from pytest_kitt.engine.watchdog import carries, marked
from pytest_kitt.errors import EngineStartError
from pytest_kitt.hardware.gpus import ALL
from pytest_kitt.matrix import Cell
from pytest_kitt.model import local, reference
from pytest_kitt.model.hub import Tell
from pytest_kitt.settings import Settings

_HOST = "127.0.0.1"
_MAX_VERSION = 80
_UNKNOWN = "unknown"  # llama.cpp's, where it is built outside of its repository: b0-unknown


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine runs and leaves its traces.

    Attributes:
        folder: of its log.
        mark: what its processes and its container carry.
        run: id of the run.
        gpus: ids of its GPUs, for CUDA_VISIBLE_DEVICES; none for an engine that runs on the CPU.
        leases: folder of the locks.
        on_docker: is told the daemon before anything is asked of it.
        on_process: is told the id of its process as soon as there is one.
        on_step: is told, again and again, what is done before it starts, e.g. that its image is built.
        on_fetch: is told how far a download is: its name, bytes that are here, bytes of all, bytes here from before.
        waiting: is entered while its image is fetched.
        on_poll: is called again and again until it is ready.

    """

    folder: Path
    mark: str
    run: str = ""
    gpus: tuple[str, ...] = ()
    leases: Path | None = None
    on_docker: Callable[[Docker], None] = lambda _: None
    on_process: Callable[[int], None] = lambda _: None
    on_step: Callable[[str], None] = lambda _: None
    on_fetch: Tell = lambda *_: None
    waiting: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    on_poll: Callable[[], None] = lambda: None

    @property
    def locks(self) -> Path:
        """Folder of the locks, the usual one if none is given."""
        return self.leases or lease.folder()


@dataclass(frozen=True, slots=True)
class _Up:
    """What was just started.

    Attributes:
        process: it, or the container that it is in.
        began: when that was asked for.
        url: where it will answer; empty when it announces that itself.
        image: of the container.
        port: where it listens itself, if its sockets can be seen from here; 0 if not.

    """

    process: EngineProcess | EngineContainer
    began: float
    url: str = ""
    image: LocalImage | None = None
    port: int = 0


def bring(cell: Cell, card: EngineCard, settings: Settings, place: Place) -> None:
    """Gets the images that a cell needs, while it holds no device; EngineStartError says why they cannot be had."""
    if cell.runtime not in ("container", "compose"):
        return
    if absent := missing(cell, card):
        raise EngineStartError(absent, kind="missing")
    docker = dockerd.address()
    place.on_docker(docker)
    if cell.runtime == "container":
        _image(docker, card, settings, place)
    else:
        _images(docker, stack.read(docker, composefile.chosen(settings)), settings, place)


@contextlib.contextmanager
def started(cell: Cell, card: EngineCard, settings: Settings, place: Place) -> Iterator[RunningEngine]:
    """The engine of a cell, ready to answer; EngineStartError says why it is not."""
    if cell.runtime == "endpoint":
        with endpoint.reached(cell, card, settings, ask_version=version) as engine:
            yield engine
        return
    if absent := missing(cell, card):
        raise EngineStartError(absent, kind="missing")
    begin = {"container": _contained, "compose": _composed}.get(cell.runtime, _spawned)
    with begin(cell, card, settings, place) as up:
        process = up.process
        if process.pid:
            place.on_process(process.pid)
        wait = functools.partial(_wait, process, card, settings, place.on_poll)
        headers = endpoint.headers(settings) if cell.is_given else ()
        access = Access(up.url or _announced(process, wait), headers, timeout_s=settings.request_timeout)
        with access.client() as http:
            wait(lambda: answers_200(http, card.health))
            if up.port and listening.is_foreign(up.port, marked(place.mark)):
                sentence = f"{card.name}: another program took its port {up.port} while it started"
                raise EngineStartError(sentence, kind="port")
            preparation = prepared(
                cell,
                card,
                http,
                timeout_s=settings.start_timeout,
                log=process.log,
                say=place.on_step,
                tell=place.on_fetch,
            )
            with preparation:
                wait(lambda: answers_200(http, card.ready or card.health))
                process.start_s = time.monotonic() - up.began
                yield RunningEngine(
                    _with_model(cell, settings, http),
                    card,
                    access,
                    http=http,
                    version=_version(cell, card, http, up.image),
                    health=Health(card, http, process),
                    process=process,
                    image=up.image,
                )


@contextlib.contextmanager
def _spawned(cell: Cell, card: EngineCard, settings: Settings, place: Place) -> Iterator[_Up]:
    """As a process here."""
    del settings
    runtime = card.runtimes[cell.runtime]  # type: ignore[index]  # the matrix has checked it
    with contextlib.ExitStack() as life:
        ports = {"port": 0} if runtime.announces else life.enter_context(request.ports(runtime, place.locks))
        where = command.places(cell, model=cell.model.path or cell.model.ref, host=_HOST, ports=ports)
        argv = command.argv(cell, card, runtime, where)
        env = {**command.env(cell, card, runtime, where), **_visible(place.gpus)}
        began = time.monotonic()
        log = place.folder / f"{cell.id}.log"
        process = life.enter_context(running(argv, env=env, log=log, mark=place.mark))
        url = "" if runtime.announces else f"http://{_HOST}:{ports['port']}"
        yield _Up(process, began, url, port=ports["port"])


@contextlib.contextmanager
def _contained(cell: Cell, card: EngineCard, settings: Settings, place: Place) -> Iterator[_Up]:
    """In a container; what comes before that is created is no part of the engine's start."""
    runtime = card.runtimes["container"]
    docker = dockerd.address()
    place.on_docker(docker)
    chosen, image = _image(docker, card, settings, place)
    ours = sibling.find(docker)
    reached = request.network(settings.network, ours)
    seen, model = request.model(cell, runtime)
    if chosen.entrypoint:
        runtime = runtime.model_copy(update={"entrypoint": list(chosen.entrypoint)})
    with request.ports(runtime, place.locks) as ports:
        where = command.places(cell, model=model, host=reached.bind, ports=ports)
        asked = request.request(
            cell,
            runtime,
            image,
            argv=tuple(command.argv(cell, card, runtime, where)),
            env=command.env(cell, card, runtime, where),
            seen=seen,
            reached=reached,
            port=ports["port"],
            owner=Owner(place.run, place.mark, place.gpus, ours),
        )
        began = time.monotonic()
        with container.running(docker, asked, log=place.folder / f"{cell.id}.log") as process:
            beside = reached.bind != _HOST and not reached.published
            seen_here = not (beside or reached.published) and carries(process.pid, place.mark)
            url = f"http://{process.address if beside else _HOST}:{ports['port']}"
            yield _Up(process, began, url, image, port=ports["port"] if seen_here else 0)


@contextlib.contextmanager
def _composed(cell: Cell, card: EngineCard, settings: Settings, place: Place) -> Iterator[_Up]:
    """As a service of a compose file."""
    docker = dockerd.address()
    place.on_docker(docker)
    beside = sibling.find(docker)
    found = stack.read(docker, composefile.chosen(settings))
    port = stack.own_port(card)
    if unfit := found.trouble(port, beside=beside is not None):
        raise EngineStartError(unfit, kind="compose")
    _images(docker, found, settings, place)
    began = time.monotonic()
    with compose.running(
        docker,
        found,
        labels=reaper.labels(place.run, cell.id, place.mark, beside.id if beside else ""),
        folder=place.folder,
        log=place.folder / f"{cell.id}.log",
        beside=beside,
        timeout_s=settings.start_timeout,
        on_poll=place.on_poll,
    ) as (process, image):
        url = ""

        def answers_somewhere() -> bool:
            nonlocal url
            url = process.url(found, port, beside)
            return bool(url)

        _wait(process, card, settings, place.on_poll, answers_somewhere)
        yield _Up(process, began, url, image)


def _image(docker: Docker, card: EngineCard, settings: Settings, place: Place) -> tuple[Image, LocalImage]:
    """The image of an engine's container, pulled or built where it is not here yet; no clock of an item runs."""
    chosen = chosen_here(card, settings)
    with connected(docker) as client, answering(), place.waiting():
        return chosen, pull.ensured(
            client,
            chosen.ref,
            engine=card.name,
            dockerfile=chosen.dockerfile,
            auto_pull=settings.auto_pull,
            force=settings.force,
            say=place.on_step,
            tell=place.on_fetch,
        )


def _images(docker: Docker, found: stack.Stack, settings: Settings, place: Place) -> None:
    """The same of all services that a service needs."""
    with place.waiting():
        stack.bring_images(docker, found, auto_pull=settings.auto_pull, say=place.on_step, tell=place.on_fetch)


def _with_model(cell: Cell, settings: Settings, http: httpx.Client) -> Cell:
    """The cell as it is served: only a service that is up says which model it has."""
    if not cell.is_given:
        return cell
    served = endpoint.model_of(http, settings.model[0] if settings.model else "")
    return dataclasses.replace(cell, model=reference.served(served))


def _visible(gpus: tuple[str, ...]) -> dict[str, str]:
    """The GPUs that an engine may see, counted as the driver counts them."""
    if not gpus or gpus == ALL:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _version(cell: Cell, card: EngineCard, http: httpx.Client, image: LocalImage | None) -> str:
    """The version of an engine that was started: its own word if that says anything, else its image's label."""
    said = version(card, http, card.runtimes.get(cell.runtime))  # type: ignore[call-overload]  # the matrix has checked
    label = image.version[:_MAX_VERSION] if image else ""
    return label if label and (not said or _UNKNOWN in said.lower()) else said


def version(card: EngineCard, http: httpx.Client, runtime: RuntimeCard | None = None) -> str:
    """The engine's version: the installed distribution's that runs, or what it says; empty when neither is known."""
    if runtime is not None and runtime.distribution:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(runtime.distribution)
    if not card.version.path:
        return ""
    try:
        said = http.get(card.version.path).json()
        return str(said[card.version.field])[:_MAX_VERSION]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return ""


def missing(cell: Cell, card: EngineCard, settings: Settings | None = None) -> str:
    """What is not there and would be needed, in one sentence with the cure; empty when nothing is.

    With settings, the image of a container is looked for too, unless it may be pulled.
    """
    if cell.runtime == "endpoint":
        return ""
    if cell.runtime == "compose":
        docker = dockerd.address()
        absent = compose_absent(dockerd.trouble(docker)) or _out_of_reach(docker, None)
        return absent or (stack.missing(docker, card, settings) if settings else "")
    if cell.runtime == "container":
        docker = dockerd.address()
        if absent := dockerd.trouble(docker) or _out_of_reach(docker, settings):
            return absent
        if settings and (absent := _without_image(docker, card, settings)):
            return absent
    else:
        runtime = card.runtimes[cell.runtime]  # type: ignore[index]  # the matrix has checked it
        if absent := installed.absent(card, runtime):
            return absent
    return local.absent(cell.model, card.formats) if card.formats else ""


def _out_of_reach(docker: Docker, settings: Settings | None) -> str:
    """Why an engine in a container of this daemon could not be reached from here, or not in that network."""
    if sibling.find(docker) is not None:
        return ""
    if not docker.is_here:
        return (
            f"Docker at {docker.host} is on another machine, which sees no model of this one: run pytest there, or "
            "start the engine there and measure it with --kitt-url"
        )
    if settings and settings.network == "host" and dockerd.is_rootless(docker):
        return "this Docker is rootless, and its host network is not that of this machine: use --kitt-network=bridge"
    return ""


def _without_image(docker: Docker, card: EngineCard, settings: Settings) -> str:
    chosen = chosen_here(card, settings)
    with contextlib.suppress(OSError):
        if docker.ask("GET", f"/images/{chosen.ref}/json")[0] == httpx.codes.NOT_FOUND:
            by_hand = pull.absent(chosen.ref, card.name, chosen.dockerfile)
            return by_hand if not settings.auto_pull else "" if settings.force else lacks_disk(chosen, docker)
    return ""


def _announced(process: EngineProcess | EngineContainer, wait: Callable[[Callable[[], bool]], None]) -> str:
    assert isinstance(process, EngineProcess)
    wait(lambda: bool(process.announced_url()))
    return process.announced_url()


def _wait(
    process: EngineProcess | EngineContainer,
    card: EngineCard,
    settings: Settings,
    on_poll: Callable[[], None],
    probe: Callable[[], bool],
) -> None:
    wait_ready(
        probe,
        alive=process.exit_code,
        log=process.log,
        timeout_s=settings.start_timeout,
        failures=card.failures,
        name=card.name,
        on_poll=on_poll,
        killed_for_memory=process.killed_for_memory,
    )
