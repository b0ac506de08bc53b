"""What happens where items run? Cells become parameters, engines start and stop, outcomes and results leave.

That is in the one process of a plain session, and in each worker of pytest-xdist; there its controller has this too,
for the header and the words of the outcomes, but no item.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from pytest_kitt import __version__, options, outcome, recording, relay
from pytest_kitt.benchmark import Benchmark, benchmark_of
from pytest_kitt.engine import preflight
from pytest_kitt.engine.kept import living
from pytest_kitt.errors import EngineDiedError, KittError, UserError
from pytest_kitt.limit import ItemLimit
from pytest_kitt.load.run import Progress
from pytest_kitt.matrix import Cell
from pytest_kitt.measure.records import Phase
from pytest_kitt.measure.repeats import RUN, unrepeated
from pytest_kitt.measure.results import NOT_FINISHED, Result, label
from pytest_kitt.neighbours import PytestHtml
from pytest_kitt.report import junit, terminal
from pytest_kitt.report.progress import Step
from pytest_kitt.scheduling import conflict
from pytest_kitt.selection import select
from pytest_kitt.session import KEY, EngineHandle, KittSession, facts

_BUSY_EVERY_S = 0.5
_MB = 10**6
_ENGINE = "\0"  # the label of its start, as no load has it
_VERDICT = pytest.StashKey[outcome.Verdict]()
_INTERRUPTED = outcome.Verdict(reason="interrupted; what was measured until then is kept")
_NOT_BEGUN = outcome.Verdict(reason="interrupted before its engine was up")
_NOT_OURS = "needs a fresh engine, and a server that runs already cannot be started anew from here"


class Conductor:
    """Registered when something of ours is asked for; without it the plugin does nothing."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        settings = options.read(config)
        if settings.dry_run:
            from pytest_kitt import planning

            planning.make_inert(config)
        if sentence := conflict(config):
            raise UserError(sentence)
        if settings.keep_engine and getattr(config.option, "numprocesses", None):
            raise UserError("--kitt-keep-engine keeps one engine, and each worker has its own: leave out -n")
        self.selection = select(config, settings)
        if self.selection.names and not settings.suite:
            settings = dataclasses.replace(settings, suite=self.selection.names)
        self.kitt = config.stash[KEY] = KittSession(config, settings)
        if settings.dry_run:
            config.pluginmanager.register(planning.DryRun(self.kitt), "kitt-dry-run")
        self._attempts: Counter[str] = Counter()
        self._plan_told = False
        self._worker = getattr(config, "workerinput", {}).get("workerid", "")
        self._life = contextlib.ExitStack()
        self._life.callback(self.kitt.engines.close)
        self._limit = ItemLimit(settings.item_timeout) if settings.item_timeout else None
        if self._limit:
            config.pluginmanager.register(self._limit, "kitt-limit")
        if config.pluginmanager.hasplugin("html"):
            config.pluginmanager.register(PytestHtml(), "kitt-pytest-html")

    # -- collecting

    def parametrize(self, metafunc: pytest.Metafunc) -> None:
        """One variant of a test per cell, impossible cells as skips."""
        cells = [
            pytest.param(cell, id=cell.id, marks=[pytest.mark.skip(reason=cell.skip)] if cell.skip else [])
            for cell in self.kitt.cells
        ]
        metafunc.parametrize("kitt_engine", cells, indirect=True, scope="session")

    def repeat(self, metafunc: pytest.Metafunc) -> None:
        """One variant of a test per run, if there are to be several."""
        runs = range(1, self.kitt.settings.runs + 1)
        if len(runs) > 1:
            if RUN not in metafunc.fixturenames:
                metafunc.fixturenames.append(RUN)
            metafunc.parametrize(RUN, runs, ids=[f"run{run}" for run in runs], indirect=True)

    def keep_selected(self, items: list[pytest.Item]) -> None:
        """Drops what was not asked for, and what a resumed run has; UserError for a benchmark that does not exist."""
        benchmarks = {item: benchmark_of(item) for item in items}
        names = {item: _names(item, found) if found else () for item, found in benchmarks.items()}
        if not any(item.session.testsfailed for item in items[:1]):  # nobody knows what a broken module holds
            self.selection.require({name for both in names.values() for name in both})
        wanted = [item for item in items if self.selection.keeps(item.path, names[item])]
        keys = {i: self._key(i, found) for i in wanted if (found := benchmarks[i]) and not _skips(i, found)}
        for item in wanted:
            if _lacks_fresh(item, benchmarks[item]):
                item.add_marker(pytest.mark.skip(reason=_NOT_OURS))
        self.kitt.resumed.require_overlap(frozenset(keys.values()))
        done = self.kitt.resumed.done
        self.kitt.planned = done & frozenset(keys.values())
        kept = {item for item in wanted if keys.get(item) not in done}
        left_out = [item for item in items if item not in kept]
        items[:] = [item for item in items if item in kept]
        if left_out:
            self.config.hook.pytest_deselected(items=left_out)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, object, object]:
        """Behind all that others arrange: what needs a fresh engine comes first in its cell, and finds one."""
        result = yield
        places: dict[Cell, list[int]] = {}
        for place, item in enumerate(items):
            if (cell := cell_of(item)) is not None:
                places.setdefault(cell, []).append(place)
        for mine in places.values():
            fresh_first = sorted((items[place] for place in mine), key=lambda item: not _is_fresh(item))
            for place, item in zip(mine, fresh_first, strict=True):
                items[place] = item
        return result

    def pytest_report_header(self) -> list[str]:
        """What is about to be measured, with which settings."""
        kitt = self.kitt
        images = preflight.images(kitt.cells, kitt.cards, kitt.settings)
        lines = terminal.header(__version__, kitt.run.id, kitt.cells, kitt.settings, images)
        return lines + [terminal.still_up(kept) for kept in living()]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What is planned stands; under --collect-only the matrix is shown, with the reason of each skip."""
        with contextlib.suppress(UserError):  # which has ended the collection
            benchmarks = ((i, found) for i in session.items if (found := benchmark_of(i)) and not _skips(i, found))
            self.kitt.planned |= {self._key(item, found) for item, found in benchmarks}
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if session.config.option.collectonly and reporter is not None and reporter.verbosity >= 0:
            counted = Counter(cell for item in session.items if (cell := cell_of(item)))
            terminal.matrix(reporter, self.kitt.cells, counted)

    # -- running

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """From here to the end of the session SIGTERM and SIGHUP end it like Ctrl-C."""
        self._life.enter_context(self.kitt.interrupts)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Hands over what an interrupted item has measured."""
        try:
            return (yield)
        except (KeyboardInterrupt, pytest.exit.Exception):
            self.kitt.interrupts.heard()
            found = benchmark_of(item)
            if found is not None and _VERDICT in item.stash:
                cell = cell_of(item)
                verdict = _INTERRUPTED if cell is None or self.kitt.engines.last(cell) else _NOT_BEGUN
                relay.send(item, "result", result=self._result(item, found, verdict).to_json())
            raise
        finally:
            if _VERDICT in item.stash:
                del item.stash[_VERDICT], item.stash[recording.KEY]

    @pytest.hookimpl(tryfirst=True, specname="pytest_runtest_setup")
    def pytest_attempt_begins(self, item: pytest.Item) -> None:
        """The clock starts, before the engine does; when a plugin runs the item again, that is a further attempt."""
        if (found := benchmark_of(item)) is None:
            return
        self._speak_for(item)
        self.kitt.engines.guard()
        self._attempts[item.nodeid] += 1
        key = self._key(item, found)
        recording.begin(item, key, self._attempts[item.nodeid] + self.kitt.resumed.attempts.get(key, 0))
        item.stash[_VERDICT] = outcome.Verdict()
        known = self._result(item, found, outcome.Verdict(reason=NOT_FINISHED))
        relay.send(item, "begun", result=known.to_json(), planned=[] if self._plan_told else sorted(self.kitt.planned))
        self._plan_told = True
        self._skip_if_dead(item)
        self.kitt.engines.item_begins(fresh=found.fresh)

    def _skip_if_dead(self, item: pytest.Item) -> None:
        """Before a fixture asks for it, an engine that has died is put away; if it stays dead, the item skips."""
        if (cell := cell_of(item)) is None:
            return
        self.kitt.engines.bury(cell)
        lives = self.kitt.engines.lives(cell)
        if lives.over and lives.told_in and lives.told_in != item.nodeid:  # run again, it is an error again
            pytest.skip(f"the engine of {cell.id} died in {lives.told_in}, see there")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Starts the cell's engine, so that a failure is an error at set-up: once per cell, the rest skips."""
        cell = cell_of(item)
        if cell is None or not isinstance(getattr(item, "funcargs", {}).get("kitt_engine"), EngineHandle):
            return
        failed = self.kitt.engines.failure(cell)
        if failed and self._attempts[item.nodeid] == 1:  # an item that is run again fails again: a skip would hide it
            pytest.skip(f"the engine of {cell.id} did not start ({failed.kind}), see the first error of this cell")
        self.kitt.engines.ensure(cell)
        recording.of(item).params.update(self.kitt.engines.lives(cell).params())
        if (found := benchmark_of(item)) is not None:
            if found.fresh:
                recording.of(item).params["fresh_start"] = self.kitt.engines.fresh_start(cell)
            known = self._result(item, found, outcome.Verdict(reason=NOT_FINISHED))
            relay.send(item, "started", result=known.to_json())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Gives errors of ours the outcome that they mean; the last report of an item carries its result."""
        report = yield
        if call.excinfo is not None:
            outcome.mark(report, call.excinfo.value, self.kitt.settings.inconclusive)
            _shorten(report, call.excinfo.value)
            if isinstance(call.excinfo.value, EngineDiedError) and (cell := cell_of(item)) is not None:
                self.kitt.engines.lost(cell, call.excinfo.value, item.nodeid)
        if (verdict := item.stash.get(_VERDICT, None)) is not None:
            verdict.take(report)
            if call.when == "teardown" and (found := benchmark_of(item)):
                relay.attach(report, self._result(item, found, verdict))
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Stops the engine as soon as no further item of its cell follows."""
        if (record := item.stash.get(recording.KEY, None)) is not None:
            record.end()
        if (cell := cell_of(item)) is not None:
            item.user_properties += junit.cell_properties(facts(self.kitt, cell))
        running = self.kitt.engines.cell
        last = nextitem is None or cell_of(nextitem) != running
        if running is not None and last and not self.kitt.settings.keep_engine:
            self.kitt.engines.stop()

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """INVALID and INCONCLUSIVE have words of their own; a record has none."""
        return ("", "", "") if relay.is_record(report) else outcome.status(report)

    def _speak_for(self, item: pytest.Item) -> None:
        """What the engines have to say goes out in the name of an item."""
        engines = self.kitt.engines
        engines.waiting = lambda: self._waiting(item)
        engines.busy = self._busy(item)
        engines.fetching = self._fetching(item)
        engines.say = lambda text: relay.send(item, "note", text=text)
        engines.tell = lambda what, about: relay.send(
            item, "event", what=what, at=time.time(), about={**about, "worker": self._worker}
        )

    @staticmethod
    def _busy(item: pytest.Item) -> Callable[[str], None]:
        """Tells, twice a second, what is waited for before an engine is up; the empty word ends that."""
        told, told_at_s = "", 0.0

        def tell(word: str) -> None:
            nonlocal told, told_at_s
            now_s = time.monotonic()
            if word != told or now_s - told_at_s >= _BUSY_EVERY_S:
                told, told_at_s = word, now_s
                relay.send_step(item, _ENGINE, Step(word=word) if word else None)

        return tell

    @staticmethod
    def _fetching(item: pytest.Item) -> Callable[[str, int, int, int], None]:
        """Tells, twice a second, how far a download is; in MB, at the pace of what has come in this session."""
        began_s, told_at_s, last = 0.0, float("-inf"), 0

        def tell(name: str, done: int, total: int, before: int) -> None:
            nonlocal began_s, told_at_s, last
            now_s = time.monotonic()
            if told_at_s < 0 or done < last:  # the first, or another: after its model the image of an engine
                began_s = now_s
            last = done
            if done < total and now_s - told_at_s < _BUSY_EVERY_S:
                return
            told_at_s = now_s
            pace_s = (now_s - began_s) * done / (done - before) if done > before else 0.0
            now = Progress(done=done // _MB, phase=Phase.MEASURED, measured_s=pace_s)
            relay.send_step(item, _ENGINE, Step(label=name, unit="MB", total=max(1, total // _MB), now=now))

        return tell

    @contextlib.contextmanager
    def _waiting(self, item: pytest.Item) -> Iterator[None]:
        """No clock of an item runs while it waits for a device."""
        with recording.of(item).paused(), self._limit.paused() if self._limit else contextlib.nullcontext():
            yield

    def _result(self, item: pytest.Item, found: Benchmark, verdict: outcome.Verdict) -> Result:
        record = recording.of(item)
        cell = cell_of(item)
        return Result(
            nodeid=item.nodeid,
            key=record.key,
            cell=facts(self.kitt, cell) if cell else None,
            benchmark=found.name,
            version=found.version,
            category=found.category,
            outcome=verdict.outcome,
            reason=verdict.reason,
            params={
                **found.params,
                **record.params,
                **({"cell_number": self.kitt.cells.index(cell)} if cell in self.kitt.cells else {}),
                **({"gpus": list(gpus)} if (gpus := self.kitt.engines.gpus) else {}),
            },
            metrics=tuple(record.metrics),
            started_at=record.started_at,
            duration_s=record.duration_s,
            attempt=record.attempt,
        )

    def _key(self, item: pytest.Item, found: Benchmark) -> str:
        cell = cell_of(item)
        return found.key(cell.key if cell else "", self.kitt.identity)

    # -- ending

    def pytest_keyboard_interrupt(self) -> None:
        """The signal has come through."""
        self.kitt.interrupts.heard()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Stops what is still up; a further signal hurries it."""
        try:
            if self.kitt.settings.keep_engine and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                self.kitt.kept = self.kitt.engines.keep()
            self._life.close()
        except KeyboardInterrupt:
            self.kitt.engines.close()
            session.exitstatus = pytest.ExitCode.INTERRUPTED

    def pytest_unconfigure(self) -> None:
        """Stops what is still up when the session ended before its finish."""
        self._life.close()


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell that an item is run on."""
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("kitt_engine") if callspec else None
    return found if isinstance(found, Cell) else None


def _names(item: pytest.Item, found: Benchmark) -> tuple[str, str]:
    """What --kitt-benchmark and suites may call an item: its benchmark, and its variant as the table shows it."""
    cell = cell_of(item)
    variant = label(found.name, item.nodeid, cell.id if cell else None)
    return found.name, unrepeated(variant, int(found.params.get(RUN, 0)))


def _skips(item: pytest.Item, found: Benchmark) -> bool:
    """Whether its cell cannot work, or not for this item: then there will be no result to wait for."""
    cell = cell_of(item)
    return (cell is not None and bool(cell.skip)) or _lacks_fresh(item, found)


def _is_fresh(item: pytest.Item) -> bool:
    found = benchmark_of(item)
    return found is not None and found.fresh


def _lacks_fresh(item: pytest.Item, found: Benchmark | None) -> bool:
    """Whether it needs a fresh engine where none can be started."""
    cell = cell_of(item)
    return found is not None and found.fresh and cell is not None and cell.runtime == "endpoint"


def _shorten(report: pytest.TestReport, error: BaseException) -> None:
    """An engine that does not start, or a mistyped load, is no bug in the test: the sentence says it all."""
    if isinstance(error, KittError) and report.failed:
        report.longrepr = f"{type(error).__name__}: {error}"
