"""What does one pytest session of ours know and hold? Settings, cells, the run, and the engine that is up."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import secrets
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import pytest_kitt
from pytest_kitt import cards, matrix
from pytest_kitt.cards import EngineCard
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.engine.runtime import endpoint
from pytest_kitt.engine.start import Place, missing, started
from pytest_kitt.engine.watchdog import Watchdog
from pytest_kitt.errors import EngineStartError, UserError
from pytest_kitt.hardware import fingerprint
from pytest_kitt.matrix import Cell
from pytest_kitt.measure.results import CellFacts, Run
from pytest_kitt.settings import Settings, masked_argv

KEY = pytest.StashKey["KittSession"]()


class KittSession:
    """Everything of ours that lives as long as the pytest session.

    Attributes:
        settings: what the user asked for.
        cards: engine cards by name.
        cells: the matrix.
        run: this run's record.
        engines: the engine that is up, if any.

    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.cards = cards.load_engines()
        self.settings = settings if config.option.collectonly else _resolved(settings)
        self.cells = matrix.build(self.settings, self.cards)
        if not config.option.collectonly:
            _require_installed(self.cells, self.cards)
        self.run = _new_run(config, self.settings, self.cells)
        self.engines = Engines(self.settings, self.cards)

    @property
    def mark(self) -> str:
        """What every process of this session carries in its environment."""
        return self.engines.mark


class Engines:
    """At most one engine at a time; a failed start is remembered, so that it is tried once per cell."""

    def __init__(self, settings: Settings, cards: Mapping[str, EngineCard]) -> None:
        self.mark = uuid.uuid4().hex
        self._settings, self._cards = settings, cards
        self._failed: dict[str, EngineStartError] = {}
        self._facts: dict[str, RunningEngine] = {}
        self._cell: Cell | None = None
        self._engine: RunningEngine | None = None
        self._stack = contextlib.ExitStack()
        self._life = contextlib.ExitStack()
        self._place: Place | None = None

    @property
    def cell(self) -> Cell | None:
        """The cell whose engine is up."""
        return self._cell

    def failure(self, cell: Cell) -> EngineStartError | None:
        """Why the engine of a cell did not start, if that was tried."""
        return self._failed.get(cell.key)

    def last(self, cell: Cell) -> RunningEngine | None:
        """The engine that last served a cell, up or not: for its version and command line."""
        return self._facts.get(cell.key)

    def ensure(self, cell: Cell) -> RunningEngine:
        """The running engine of a cell, started if need be, after the one of any other cell was stopped."""
        if self._cell == cell and self._engine is not None:
            return self._engine
        self.stop()
        if failed := self.failure(cell):
            raise failed
        try:
            engine = self._stack.enter_context(
                started(cell, self._cards[cell.engine], self._settings, self._somewhere(cell))
            )
        except EngineStartError as error:
            self._failed[cell.key] = error
            raise
        self._cell, self._engine, self._facts[cell.key] = cell, engine, engine
        return engine

    def stop(self) -> None:
        """Stops the engine that is up."""
        self._cell = self._engine = None
        stack, self._stack = self._stack, contextlib.ExitStack()
        stack.close()

    def close(self) -> None:
        """Stops the engine and the watchdog, and removes the logs."""
        self.stop()
        self._life.close()
        self._place = None

    def _somewhere(self, cell: Cell) -> Place:
        """Where a cell's engine may leave traces; the watchdog starts with the first engine."""
        if self._place is None:
            folder = Path(
                self._life.enter_context(tempfile.TemporaryDirectory(prefix="kitt-", ignore_cleanup_errors=True))
            )
            self._life.enter_context(Watchdog(self.mark, folder))
            self._place = Place(folder, self.mark)
        return Place(self._place.folder, f"{self.mark}.{cell.key}")


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
    return CellFacts(
        key=cell.key,
        id=cell.id,
        engine=cell.engine,
        engine_version=engine.version if engine else "",
        runtime=cell.runtime,
        model=cell.model.facts(),
        api=session.settings.api,
        overrides=dict(cell.overrides),
        argv=engine.argv if engine else (),
        synthetic=cell.synthetic,
        toy=cell.model.toy,
    )


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """While kitt is active a SIGTERM is a Ctrl-C: pytest would otherwise run no teardown at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("SIGTERM")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _resolved(settings: Settings) -> Settings:
    if not settings.url:
        return settings
    return dataclasses.replace(settings, model=(endpoint.served_model(settings),))


def _require_installed(cells: tuple[Cell, ...], engine_cards: Mapping[str, EngineCard]) -> None:
    absent = {cell: missing(cell, engine_cards[cell.engine]) for cell in cells if not cell.skip}
    if absent and all(absent.values()):
        raise UserError("; ".join(dict.fromkeys(absent.values())))


def _new_run(config: pytest.Config, settings: Settings, cells: tuple[Cell, ...]) -> Run:
    now = datetime.datetime.now(datetime.UTC)
    return Run(
        id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        started_at=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        suite=",".join(settings.suite),
        argv=("pytest", *masked_argv([str(arg) for arg in config.invocation_params.args])),
        kitt_version=pytest_kitt.__version__,
        synthetic=any(cell.synthetic for cell in cells),
        toy=any(cell.model.toy for cell in cells),
        fingerprint=fingerprint.read(),
    )
