"""How does a cell become a running engine? A context manager: started, probed, yielded, stopped."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from pytest_kitt import shipped
from pytest_kitt.cards import EngineCard, RuntimeCard
from pytest_kitt.engine.base import Access, RunningEngine
from pytest_kitt.engine.ready import answers_200, wait_ready
from pytest_kitt.engine.runtime import endpoint
from pytest_kitt.engine.runtime.process import EngineProcess, running
from pytest_kitt.errors import EngineStartError
from pytest_kitt.matrix import Cell
from pytest_kitt.settings import Settings

_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine's traces go: its log's folder, and the mark that its processes carry."""

    folder: Path
    mark: str


@contextlib.contextmanager
def started(cell: Cell, card: EngineCard, settings: Settings, place: Place) -> Iterator[RunningEngine]:
    """The engine of a cell, ready to answer; EngineStartError says why it is not."""
    if cell.runtime == "endpoint":
        with endpoint.reached(cell, card, settings, ask_version=version) as engine:
            yield engine
        return
    runtime = card.runtimes[cell.runtime]  # type: ignore[index]  # the matrix has checked it
    if absent := missing(cell, card):
        raise EngineStartError(absent, kind="missing")
    port = 0 if runtime.announces else _free_port()
    argv = command(cell, card, runtime, port)
    log = place.folder / f"{cell.id}.log"
    with running(argv, env=runtime.env, log=log, mark=place.mark) as process:
        url = _announced(process, card, settings) if runtime.announces else f"http://{_HOST}:{port}"
        access = Access(url, timeout_s=settings.request_timeout)
        with access.client() as http:
            _wait(process, card, settings, lambda: answers_200(http, card.health))
            yield RunningEngine(
                cell, card, access, http=http, version=version(card, http), argv=process.argv, pid=process.pid
            )


def command(cell: Cell, card: EngineCard, runtime: RuntimeCard, port: int) -> list[str]:
    """The command line of a cell: the card's template, every argument with a default or an override, then raw flags."""
    values = {
        "python": sys.executable,
        "model": cell.model.path,
        "model_name": cell.model.name,
        "host": _HOST,
        "port": port,
        "datasets": shipped.DATASETS,
    }
    argv = [word.format_map(values) for word in runtime.command]
    overrides = dict(cell.overrides)
    for name, argument in card.arguments.items():
        default = None if argument.default is None else str(argument.default).format_map(values)
        value = overrides.pop(name, default)
        if value is not None:
            argv += [argument.flag, value]
    for flag, value in overrides.items():
        argv += [flag, value] if value else [flag]
    return argv


def version(card: EngineCard, http: httpx.Client) -> str:
    """The engine's version: what it says, or the installed distribution's; empty when neither is known."""
    if card.version.distribution:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(card.version.distribution)
    if not card.version.path:
        return ""
    try:
        said = http.get(card.version.path).json()
        return str(said[card.version.field])[:80]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return ""


def missing(cell: Cell, card: EngineCard) -> str:
    """What is not installed and would be needed, in one sentence with the cure; empty when nothing is."""
    if cell.runtime == "endpoint":
        return ""
    runtime = card.runtimes[cell.runtime]  # type: ignore[index]  # the matrix has checked it
    if not runtime.needs or importlib.util.find_spec(runtime.needs) is not None:
        return ""
    return f"engine {card.name} needs the package {runtime.needs}: pip install 'pytest-kitt[{runtime.extra}]'"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _announced(process: EngineProcess, card: EngineCard, settings: Settings) -> str:
    _wait(process, card, settings, lambda: bool(process.announced_url()))
    return process.announced_url()


def _wait(process: EngineProcess, card: EngineCard, settings: Settings, probe: Callable[[], bool]) -> None:
    wait_ready(
        probe,
        alive=process.exit_code,
        log=process.log,
        timeout_s=settings.start_timeout,
        failures=card.failures,
        name=card.name,
    )
