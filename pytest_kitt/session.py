"""What does one pytest session of ours know and hold? Settings, cells, the run, and the engine that is up."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fnmatch
import functools
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import pytest_kitt
from pytest_kitt import cards, matrix, resume
from pytest_kitt.cards import EngineCard
from pytest_kitt.engine import dockerd, lease, preflight, reaper
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.engine.dockerd import Docker
from pytest_kitt.engine.fits import lacks_memory, memory_for
from pytest_kitt.engine.kept import Kept, record
from pytest_kitt.engine.lives import Lives
from pytest_kitt.engine.runtime import endpoint
from pytest_kitt.engine.runtime.compose import EngineService
from pytest_kitt.engine.runtime.container import EngineContainer
from pytest_kitt.engine.start import Place, bring, missing, started
from pytest_kitt.engine.watchdog import Watchdog, end_with_parent, kill_marked
from pytest_kitt.errors import EngineDiedError, EngineStartError, UserError, why
from pytest_kitt.hardware import fingerprint, gpus
from pytest_kitt.interrupts import Interrupts
from pytest_kitt.load.run import address
from pytest_kitt.matrix import Cell
from pytest_kitt.measure.results import CellFacts, Run
from pytest_kitt.model import local
from pytest_kitt.model.hub import Tell
from pytest_kitt.resume import Resumed
from pytest_kitt.settings import Settings, masked_argv, masked_pairs, masked_words

KEY = pytest.StashKey["KittSession"]()


class KittSession:
    """Everything of ours that lives as long as the pytest session.

    Attributes:
        settings: what the user asked for.
        cards: engine cards by name.
        cells: the matrix.
        resumed: what the run has already, nothing for a new one.
        run: this run's record.
        engines: the engine that is up, if any.
        interrupts: what signals do.
        kept: the engine that goes on running, if it was asked for.
        planned: keys of all results that this session is to have, those of a resumed run that are done among them.

    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        told = _told_by_controller(config)
        self.cards = cards.load_engines()
        self.settings, self._simulated = settings, False
        if not config.option.collectonly:
            self.settings, self._simulated = _resolved(settings, told, self.cards)
        built = _with_enough_gpus(matrix.build(self.settings, self.cards), self.settings)
        if self._simulated:
            built = tuple(dataclasses.replace(cell, synthetic=True) for cell in built)
        built = preflight.checked(built, self.cards, self.settings)
        self.cells = _with_enough_memory(built, self.cards, self.settings)
        if not config.option.collectonly:
            _require_installed(self.cells, self.cards, self.settings)
        self.resumed = _resumed(self.settings, told)
        if told is None and self.resumed.images:
            images = preflight.images(self.cells, self.cards, self.settings)
            self.resumed.require_same_images(self.cells, {name: image.ref for name, image in images.items()})
        self.run = _run(config, self.settings, self.cells, self.resumed)
        self.engines = Engines(self.settings, self.cards, self.run.id if told is None else told["run"])
        self.interrupts = Interrupts(echoes=told is not None)
        self.interrupts.hurry.append(self.engines.kill)
        self.kept: Kept | None = None
        self.planned: frozenset[str] = frozenset()
        if told is not None:
            end_with_parent()

    @property
    def mark(self) -> str:
        """What every process of this session carries in its environment."""
        return self.engines.mark

    @property
    def identity(self) -> dict[str, Any]:
        """What beside cell and benchmark makes two results answers to the same question."""
        cold = {"warmup": 0} if self.settings.skip_warmup else {}  # another question than with the test's own
        some = {"limit": self.settings.limit} if self.settings.limit else {}
        where = {"offline": True} if self.settings.offline else {}
        asked = {"api": self.settings.api, "seed": self.settings.seed, "questions": self._questions_digest}
        return {**asked, **cold, **some, **where}

    @functools.cached_property
    def _questions_digest(self) -> str:
        if not self.settings.prompts:
            return ""
        try:
            content = Path(self.settings.prompts).expanduser().read_bytes()
        except OSError as error:
            path = self.settings.prompts
            raise UserError(f"--kitt-prompts: {path} cannot be read: {why(error)}; check the path") from error
        return hashlib.sha256(content).hexdigest()[:12]

    def for_workers(self) -> str:
        """What only the controller finds out, as text: the server's model, who it is, and what a resumed run has."""
        found = {"model": self.settings.model, "simulated": self._simulated, "resumed": self.resumed.to_json()}
        return json.dumps({"run": self.run.id, **found})

    def demand(self, cell_id: str) -> float:
        """How much of the machine a cell needs: the biggest come first."""
        return next(float(cell.gpus) for cell in self.cells if cell.id == cell_id)

    def cell_id_of(self, nodeid: str) -> str | None:
        """The cell of an item, from its node id alone: the cell's id is its first parameter."""
        _, _, inside = nodeid.rpartition("[")
        fitting = (cell.id for cell in self.cells if inside.startswith((f"{cell.id}-", f"{cell.id}]")))
        return max(fitting, key=len, default=None)


class Engines:
    """At most one engine at a time; failed starts and deaths are remembered, so that each is told once per cell.

    Attributes:
        mark: what every process of this session carries in its environment.
        gpus: ids of the GPUs that the engine which is up has to itself.
        say: is told who is waited for.
        busy: is told, again and again, what is waited for until an engine is up; then the empty text.
        fetching: is told how far a download is: file, bytes that are here, bytes of all, bytes that were here before.
        waiting: is entered while devices are waited for.
        tell: is told when an engine is up, and when it is stopped: a word and what belongs to it.

    """

    def __init__(self, settings: Settings, cards: Mapping[str, EngineCard], run_id: str) -> None:
        self.mark = uuid.uuid4().hex
        self.gpus: tuple[str, ...] = ()
        self.say: Callable[[str], None] = lambda _: None
        self.busy: Callable[[str], None] = lambda _: None
        self.fetching: Tell = lambda *_: None
        self.waiting: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        self.tell: Callable[[str, Mapping[str, Any]], None] = lambda *_: None
        self._settings, self._cards, self._run_id = settings, cards, run_id
        self._failed: dict[str, EngineStartError] = {}
        self._lives: defaultdict[str, Lives] = defaultdict(lambda: Lives(settings.restart))
        self._fresh_starts: Counter[str] = Counter()  # by cell key: how often an engine made room for a fresh one
        self._used = False  # an earlier item has had the engine that is up, and this one needs a fresh one
        self._facts: dict[str, RunningEngine] = {}
        self._cell: Cell | None = None
        self._engine: RunningEngine | None = None
        self._stack = contextlib.ExitStack()
        self._life = contextlib.ExitStack()
        self._place: Place | None = None
        self._watchdog: Watchdog
        self._docker: Docker | None = None
        self._swept = False
        self._kept: Kept | None = None

    @property
    def cell(self) -> Cell | None:
        """The cell whose engine is up."""
        return self._cell

    def failure(self, cell: Cell) -> EngineStartError | None:
        """Why the engine of a cell did not start, if that was tried."""
        return self._failed.get(cell.key)

    def lives(self, cell: Cell) -> Lives:
        """The starts and deaths of a cell's engine so far."""
        return self._lives[cell.key]

    def lost(self, cell: Cell, death: EngineDiedError, nodeid: str) -> None:
        """Remembers that the engine of a cell died, and whose error that is."""
        self._lives[cell.key].end(death, nodeid)

    def bury(self, cell: Cell) -> None:
        """Puts the engine of a cell away if it is dead, noticed or not; who asks next starts it again, or is told."""
        if self._cell != cell or self._engine is None:
            return
        lives = self._lives[cell.key]
        if not lives.lost and (death := self._engine.health.diagnosis()):
            lives.end(death)
        if lives.lost:
            self.stop()

    def item_begins(self, *, fresh: bool) -> None:
        """Another item is about to ask for its engine; a fresh one is not given what an earlier item has used."""
        self._used = fresh and self._engine is not None

    def fresh_start(self, cell: Cell) -> int:
        """Which start of a cell's engine it is, when deaths are not counted: one more for each fresh engine."""
        return self._fresh_starts[cell.key] + 1

    def last(self, cell: Cell) -> RunningEngine | None:
        """The engine that last served a cell, up or not: for its version and command line."""
        return self._facts.get(cell.key)

    def ensure(self, cell: Cell) -> RunningEngine:
        """The running engine of a cell, started if need be, after the one of any other cell was stopped."""
        if self._cell == cell and self._engine is not None and not self._used:
            return self._engine
        if self._cell == cell:
            self._fresh_starts[cell.key] += 1
        self.stop()
        if failed := self.failure(cell):
            raise failed
        self._lives[cell.key].begin()
        try:
            engine = self._start(cell)
        except EngineStartError as error:
            self._failed[cell.key] = error
            self.stop()
            raise
        except BaseException:
            self.stop()
            raise
        finally:
            self.busy("")
        self._cell, self._engine, self._facts[cell.key] = cell, engine, engine
        return engine

    def _start(self, cell: Cell) -> RunningEngine:
        cell = self._with_files(cell)
        card = self._cards[cell.engine]
        place = dataclasses.replace(
            self._somewhere(cell),
            run=self._run_id,
            on_docker=self._mind,
            on_step=lambda step: self.busy(f"{cell.id}: {step}"),
            on_fetch=self.fetching,
            waiting=self.waiting,
        )
        self._sweep()
        bring(cell, card, self._settings, place)
        wanted = lease.held(
            self._need(cell),
            inventory=gpus.inventory(self._settings.gpus, os.environ) if cell.gpus else (),
            folder=place.leases or lease.folder(),
            holder=lease.Holder(self._run_id, cell.id, place.mark),
            on_wait=self.say,
            on_poll=functools.partial(self.busy, f"{cell.id} waits for its device"),
        )
        with self.waiting():
            leased = self._stack.enter_context(wanted)
        self.gpus = leased.gpus
        about: dict[str, Any] = {"cell": cell.id, "key": cell.key, "gpus": list(leased.gpus)}
        if (start := self.fresh_start(cell)) > 1:
            about["fresh_start"] = start
        self.tell("engine_starts", about)
        self._stack.callback(lambda: self.tell("engine_stopped", about))  # to whom, is known only then
        starts = functools.partial(self.busy, f"{cell.id} starts")
        starts()
        place = dataclasses.replace(place, gpus=leased.gpus, on_process=leased.note, on_poll=starts)
        engine = self._stack.enter_context(started(cell, card, self._settings, place))
        self.tell("engine_ready", about if engine.start_s is None else {**about, "start_s": round(engine.start_s, 3)})
        return engine

    def _sweep(self) -> None:
        """Removes the containers that dead sessions have left, once, before anything of this session starts."""
        if self._swept:
            return
        self._swept = True
        if docker := dockerd.nearby():
            for name in reaper.sweep(docker):
                self.say(f"removed container {name}, which a session that was killed had left")

    def _with_files(self, cell: Cell) -> Cell:
        """The cell with its model on this machine, fetched before any device is taken; no clock of an item runs."""
        card, force = self._cards[cell.engine], self._settings.force
        if cell.runtime not in card.runtimes or not card.formats or cell.model.path:
            return cell
        with self.waiting():
            model = local.files(
                cell.model,
                formats=card.formats,
                force=force,
                say=lambda text: self.say(f"{cell.id} {text}"),
                tell=self.fetching,
                lacks=lambda weights, shape: "" if force else lacks_memory(cell, card, weights, shape, memory_for),
            )
        self.busy("")
        return dataclasses.replace(cell, model=model)

    def _need(self, cell: Cell) -> lease.Need:
        """What a cell has to itself, so that no two timed loads ever share a device."""
        if cell.gpus:
            everything = gpus.inventory(self._settings.gpus, os.environ) == gpus.ALL
            return lease.Need(gpus=1 if everything else cell.gpus)
        if self._settings.overlap == "allowed":
            return lease.Need()
        if cell.runtime == "endpoint":
            host, port, _, _ = address(cell.url)
            return lease.Need(server=f"{host}:{port}")
        return lease.Need(machine=True)

    def stop(self) -> None:
        """Stops the engine that is up, and lets go of its devices."""
        self._cell = self._engine = None
        self._used = False
        stack, self._stack = self._stack, contextlib.ExitStack()
        stack.close()
        self.gpus = ()

    def guard(self) -> None:
        """Sees to it that somebody watches: a watchdog that was killed is replaced."""
        if self._place is not None and not self._watchdog.alive:
            self._watchdog = self._life.enter_context(Watchdog(self.mark, self._place.folder))
            if self._docker is not None:
                self._watchdog.mind(self._docker)

    def kill(self) -> None:
        """Ends every process and container of this session at once; stopping the engine is quick then."""
        kill_marked(self.mark)
        if self._docker is not None:
            reaper.remove_marked(self._docker, self.mark)

    def _mind(self, docker: Docker) -> None:
        """There will be containers: the watchdog is to know where."""
        self._docker = docker
        self._watchdog.mind(docker)

    def keep(self) -> Kept | None:
        """Leaves the engine that is up, and the logs, as they are when all is closed; None when none of ours is up."""
        engine, place = self._engine, self._place
        if engine is None or place is None or engine.process is None or not engine.process.keep():
            return None
        mark = place.mark if self._cell is None else _mark(place, self._cell)
        self._watchdog.spare(mark)
        process = engine.process
        name = process.name if isinstance(process, EngineContainer) else ""
        down = process.down if isinstance(process, EngineService) else ""
        self._kept = Kept(engine.cell.id, engine.url, engine.pid, str(process.log), mark, name, down)
        with contextlib.suppress(OSError):  # later sessions will not know of it; this one says all that there is to say
            record(self._kept)
        return self._kept

    def close(self) -> None:
        """Stops the engine and the watchdog, and removes the logs."""
        try:
            self.stop()
        finally:
            life, self._life = self._life, contextlib.ExitStack()
            self._place = None
            life.close()

    def _remove(self, folder: Path) -> None:
        if self._kept is None:
            shutil.rmtree(folder, ignore_errors=True)

    def _somewhere(self, cell: Cell) -> Place:
        """Where a cell's engine may leave traces; the watchdog starts with the first engine."""
        if self._place is None:
            folder = Path(tempfile.mkdtemp(prefix="kitt-"))
            self._life.callback(self._remove, folder)
            self._watchdog = self._life.enter_context(Watchdog(self.mark, folder))
            self._place = Place(folder, self.mark, leases=lease.folder())
        return dataclasses.replace(self._place, mark=_mark(self._place, cell))


def _mark(place: Place, cell: Cell) -> str:
    return f"{place.mark}.{cell.key}"


class EngineHandle:
    """What ``kitt_engine`` gives to tests: asks for the cell's engine whenever it is used."""

    def __init__(self, engines: Engines, cell: Cell) -> None:
        self.cell = cell
        self._engines = engines

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engines.ensure(self.cell), name)

    def __repr__(self) -> str:
        return f"<engine {self.cell.id}>"


def active(config: pytest.Config) -> KittSession | None:
    """The session of ours, if anything of ours was asked for."""
    return config.stash.get(KEY, None)


def facts(session: KittSession, cell: Cell) -> CellFacts:
    """A cell as it ran."""
    engine = session.engines.last(cell)
    model = engine.cell.model if engine else cell.model  # of one of the hub more is known when its files are here
    return CellFacts(
        key=cell.key,
        id=cell.id,
        engine=cell.engine,
        engine_version=engine.version if engine else "",
        runtime=cell.runtime,
        model=model.facts(),
        api=session.settings.api,
        overrides=masked_pairs(dict(cell.overrides)),
        argv=tuple(masked_words(engine.argv)) if engine else (),
        synthetic=cell.synthetic,
        toy=model.toy,
        image=engine.image.reference if engine and engine.image else "",
        image_digest=engine.image.digest if engine and engine.image else "",
    )


def _with_enough_gpus(cells: tuple[Cell, ...], settings: Settings) -> tuple[Cell, ...]:
    """The cells, those that need more GPUs than there are with their reason; UserError when that is all of them."""
    for pattern, _ in settings.cell_gpus:
        if not any(fnmatch.fnmatchcase(cell.label, pattern) for cell in cells):
            raise UserError(f"--kitt-cell-gpus: {pattern!r} fits no cell; there are: {', '.join(c.id for c in cells)}")
    if not any(cell.gpus for cell in cells):
        return cells
    there = gpus.inventory(settings.gpus, os.environ)
    hint = " (--kitt-gpus=0 means none; GPU 0 alone is '0,')" if settings.gpus.strip() == "0" else ""
    short = f"and there are {len(there)}{hint}: name more with --kitt-gpus or CUDA_VISIBLE_DEVICES, or ask for fewer"
    checked = tuple(
        dataclasses.replace(cell, skip=cell.skip or f"{cell.id} needs {cell.gpus} GPUs, {short}")
        if cell.gpus > len(there) and there != gpus.ALL
        else cell
        for cell in cells
    )
    if all(cell.skip for cell in checked):
        raise UserError("; ".join(dict.fromkeys(cell.skip for cell in checked)))
    return checked


def _with_enough_memory(
    cells: tuple[Cell, ...], engine_cards: Mapping[str, EngineCard], settings: Settings
) -> tuple[Cell, ...]:
    """The cells, those whose model surely does not fit with their reason; UserError when that is all of them."""
    if settings.force:
        return cells
    checked = tuple(
        dataclasses.replace(cell, skip=cell.skip or _too_large(cell, engine_cards[cell.engine])) for cell in cells
    )
    if all(cell.skip for cell in checked):
        raise UserError("; ".join(dict.fromkeys(cell.skip for cell in checked)))
    return checked


def _too_large(cell: Cell, card: EngineCard) -> str:
    model = cell.model
    if not model.path or cell.runtime not in card.runtimes:
        return ""
    problem = lacks_memory(cell, card, model.size_bytes, model.shape, memory_for)
    return f"{cell.id} {problem}" if problem else ""


def _told_by_controller(config: pytest.Config) -> dict[str, Any] | None:
    """What the controller says to this worker of its own; None where this is no worker."""
    told = getattr(config, "workerinput", None)
    if told is None:
        return None
    if "kitt" not in told:
        raise UserError(
            "under pytest-xdist say on the command line what to measure, for example --kitt-engine=llama_cpp: "
            "its controller sees no fixtures"
        )
    return dict(json.loads(told["kitt"]))


def _resumed(settings: Settings, told: Mapping[str, Any] | None) -> Resumed:
    if told is not None:
        return Resumed.from_json(told["resumed"])
    if not settings.resume:
        return Resumed()
    return resume.read(settings.db, settings.resume, fingerprint.read()["key"])


def _resolved(
    settings: Settings, told: Mapping[str, Any] | None, known: Mapping[str, EngineCard]
) -> tuple[Settings, bool]:
    """The settings with the server's model, and whether that server is the simulated engine."""
    if told is not None:
        return dataclasses.replace(settings, model=tuple(told["model"])), told["simulated"]
    if not settings.url:
        return settings, False
    matrix.build(settings, known)  # what is wrong with the words alone is told without asking the server
    served = endpoint.served(settings)
    return dataclasses.replace(settings, model=(served.model,)), served.synthetic


def _require_installed(cells: tuple[Cell, ...], engine_cards: Mapping[str, EngineCard], settings: Settings) -> None:
    absent = {cell: missing(cell, engine_cards[cell.engine], settings) for cell in cells if not cell.skip}
    if absent and all(absent.values()):
        raise UserError("; ".join(dict.fromkeys(absent.values())))


def _run(config: pytest.Config, settings: Settings, cells: tuple[Cell, ...], resumed: Resumed) -> Run:
    now = datetime.datetime.now(datetime.UTC)
    return Run(
        id=resumed.run_id or f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        started_at=resumed.started_at or now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        suite=",".join(settings.suite),
        argv=("pytest", *masked_argv([str(arg) for arg in config.invocation_params.args])),
        kitt_version=pytest_kitt.__version__,
        synthetic=any(cell.synthetic for cell in cells),
        toy=any(cell.model.toy for cell in cells),
        fingerprint=fingerprint.read(),
    )
