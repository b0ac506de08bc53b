"""What happens while benchmarks run? The hooks of an active session: engines, outcomes, results, reports."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

from pytest_kitt import __version__, options, outcome, recording
from pytest_kitt.benchmark import Benchmark, benchmark_of
from pytest_kitt.errors import KittError, UserError, nearest
from pytest_kitt.matrix import Cell
from pytest_kitt.measure.results import Result, RunStatus
from pytest_kitt.report import junit, terminal
from pytest_kitt.selection import select
from pytest_kitt.session import KEY, EngineHandle, KittSession, facts, sigterm_as_interrupt


class Conductor:
    """Registered when something of ours is asked for; without it the plugin does nothing."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        _refuse_xdist(config)
        settings = options.read(config)
        self.selection = select(config, settings)
        if self.selection.names and not settings.suite:
            settings = dataclasses.replace(settings, suite=self.selection.names)
        self.kitt = config.stash[KEY] = KittSession(config, settings)
        self._verdicts: dict[str, outcome.Verdict] = {}
        self._results: list[Result] = []
        self._begun = False
        self._life = contextlib.ExitStack()
        self._life.callback(self.kitt.engines.close)

    # -- collecting

    def parametrize(self, metafunc: pytest.Metafunc) -> None:
        """One variant of a test per cell, impossible cells as skips."""
        cells = [
            pytest.param(cell, id=cell.id, marks=[pytest.mark.skip(reason=cell.skip)] if cell.skip else [])
            for cell in self.kitt.cells
        ]
        metafunc.parametrize("kitt_engine", cells, indirect=True, scope="session")

    def keep_selected(self, items: list[pytest.Item]) -> None:
        """Drops what was not asked for; UserError for a benchmark that does not exist, or a marker with a typo."""
        names = {item: found.name if (found := benchmark_of(item)) else None for item in items}
        known = {name for name in names.values() if name}
        if unknown := self.selection.benchmarks - known:
            name = min(unknown)
            raise UserError(f"--kitt-benchmark: {name!r} is unknown; {nearest(name, known)}")
        items[:] = [item for item in items if self.selection.keeps(item.path, names[item])]

    def pytest_report_header(self) -> list[str]:
        """What is about to be measured, with which settings."""
        return terminal.header(__version__, self.kitt.run.id, self.kitt.cells, self.kitt.settings)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Under --collect-only: the matrix, with the reason of each skip."""
        if session.config.option.collectonly and session.config.option.verbose >= 0:
            counted = Counter(cell for item in session.items if (cell := _cell(item)))
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                terminal.matrix(reporter, self.kitt.cells, counted)

    # -- running

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Opens the run around the items, if there is a benchmark among them; SIGTERM ends it like Ctrl-C."""
        if session.config.option.collectonly or not any(benchmark_of(item) for item in session.items):
            return (yield)
        from pytest_kitt.store.recorder import StoreRecorder

        with options.usage_errors():
            recorder = self._life.enter_context(StoreRecorder(self.kitt.settings.db))
        self.config.pluginmanager.register(recorder, "kitt-store")
        self._life.callback(self.config.pluginmanager.unregister, recorder)
        self.config.hook.pytest_kitt_run_started(config=self.config, run=self.kitt.run)
        self._begun = True
        with sigterm_as_interrupt():
            return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Starts the cell's engine, so that a failure is an error at set-up: once per cell, the rest skips."""
        cell = _cell(item)
        if cell is None or not isinstance(getattr(item, "funcargs", {}).get("kitt_engine"), EngineHandle):
            return
        if failed := self.kitt.engines.failure(cell):
            pytest.skip(f"the engine of {cell.id} did not start ({failed.kind}), see the first error of this cell")
        recording.of(item)  # the clock of the item starts before the engine does
        self.kitt.engines.ensure(cell)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Gives errors of ours the outcome that they mean."""
        report = yield
        if call.excinfo is not None:
            outcome.mark(report, call.excinfo.value, self.kitt.settings.inconclusive)
            _shorten(report, call.excinfo.value)
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Stops the engine as soon as no further item of its cell follows."""
        if (cell := _cell(item)) is not None:
            item.user_properties += junit.cell_properties(facts(self.kitt, cell))
        running = self.kitt.engines.cell
        if running is not None and (nextitem is None or _cell(nextitem) != running):
            self.kitt.engines.stop()

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """INVALID and INCONCLUSIVE have words of their own."""
        return outcome.status(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Hands the result over when the item has ended."""
        found = benchmark_of(item)
        if found is None:
            return (yield)
        self._verdicts[item.nodeid] = outcome.Verdict()
        answer = yield
        self._hand_over(item, found, self._verdicts.pop(item.nodeid))
        return answer

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes what a phase says of the item's outcome."""
        if report.nodeid in self._verdicts:
            self._verdicts[report.nodeid].take(report)

    def _hand_over(self, item: pytest.Item, found: Benchmark, verdict: outcome.Verdict) -> None:
        record = recording.of(item)
        cell = _cell(item)
        result = Result(
            nodeid=item.nodeid,
            cell=facts(self.kitt, cell) if cell else None,
            benchmark=found.name,
            version=found.version,
            category=found.category,
            outcome=verdict.outcome,
            reason=verdict.reason,
            params={**found.params, **record.params},
            metrics=tuple(record.metrics),
            samples=tuple(record.blocks),
            started_at=record.started_at,
            duration_s=record.duration_s,
        )
        self.config.hook.pytest_kitt_result(config=self.config, result=result)
        del item.stash[recording.KEY]

    def pytest_kitt_result(self, result: Result) -> None:
        """Keeps what the summary shows; the samples are in the store by then."""
        self._results.append(dataclasses.replace(result, samples=()))

    # -- ending

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Closes the run and stops what is still up."""
        try:
            if self._begun:
                status = _run_status(int(exitstatus), self._results)
                self.config.hook.pytest_kitt_run_finished(
                    config=self.config, run=self.kitt.run, status=status, exit_status=int(exitstatus)
                )
        finally:
            self._life.close()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of results."""
        where = f"run {self.kitt.run.id}: kitt results show {self.kitt.run.id}"
        terminal.summary(terminalreporter, self.kitt.cells, self._results, where)

    def pytest_unconfigure(self) -> None:
        """Stops what is still up when the session ended before its finish."""
        self._life.close()


def _cell(item: pytest.Item) -> Cell | None:
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("kitt_engine") if callspec else None
    return found if isinstance(found, Cell) else None


def _run_status(exit_status: int, results: list[Result]) -> RunStatus:
    if exit_status == pytest.ExitCode.INTERRUPTED:
        return "interrupted"
    if exit_status == pytest.ExitCode.TESTS_FAILED:
        return "failed" if any(result.outcome == "failed" for result in results) else "error"
    return "passed" if exit_status == pytest.ExitCode.OK else "error"


def _shorten(report: pytest.TestReport, error: BaseException) -> None:
    """An engine that does not start, or a mistyped load, is no bug in the test: the sentence says it all."""
    if isinstance(error, KittError) and report.failed:
        report.longrepr = f"{type(error).__name__}: {error}"


def _refuse_xdist(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or getattr(config.option, "numprocesses", None):
        raise UserError(
            "benchmarks of one machine would disturb each other under pytest-xdist: leave out -n, or say -n0"
        )
