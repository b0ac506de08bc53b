"""What does --kitt-dry-run do? It makes the session collect and no more, and says what the items would cost."""

from __future__ import annotations

from collections.abc import Container, Generator, Iterable, Mapping, Sequence
from typing import Any

import pytest

from pytest_kitt.benchmark import benchmark_of
from pytest_kitt.engine.start import missing
from pytest_kitt.errors import UserError
from pytest_kitt.matrix import Cell
from pytest_kitt.measure.results import label
from pytest_kitt.report import plan
from pytest_kitt.session import KittSession
from pytest_kitt.settings import Settings
from pytest_kitt.store import reader
from pytest_kitt.store.database import read_only

Absent = Mapping[Cell, str]
_STARTS = "Nothing was started. Of engine starts only those are counted that an item of an earlier run waited for."


def make_inert(config: pytest.Config) -> None:
    """Makes the session one of --collect-only in this process, so that every plugin knows that nothing will run.

    Before pytest-xdist is configured; UserError in a worker, where it is too late.
    """
    if hasattr(config, "workerinput"):
        raise UserError("--kitt-dry-run: pytest-xdist has started workers already: say it on the command line, or -n0")
    config.option.collectonly = True
    if hasattr(config.option, "numprocesses"):
        config.option.numprocesses, config.option.dist, config.option.tx = 0, "no", []


class DryRun:
    """Registered in a dry run: shows the plan, and ends with the exit code that is known to await the session."""

    def __init__(self, kitt: KittSession) -> None:
        self._kitt = kitt
        self._foreseen = pytest.ExitCode.OK

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_finish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Leaves out the tree of items that pytest shows when it only collects."""
        option = session.config.option
        option.collectonly = False
        try:
            return (yield)
        finally:
            option.collectonly = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Shows the plan, if collecting went well; nothing runs then, for that is pytest's answer to --collect-only."""
        if session.testsfailed:
            return
        planned = _planned(session.items)
        absent = self._absent()
        self._foreseen = _foreseen(self._kitt.cells, absent, {item.cell for item in planned})
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None:
            return
        reporter.section("kitt plan")
        for line in self._lines(planned, absent, others=len(session.items) - len(planned)):
            reporter.write_line(line)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """A plan of what cannot start is no success."""
        if exitstatus == pytest.ExitCode.OK:
            session.exitstatus = self._foreseen

    def _absent(self) -> Absent:
        """What the cells that may work lack here, so that they cannot start."""
        kitt = self._kitt
        needs = ((cell, missing(cell, kitt.cards[cell.engine], kitt.settings)) for cell in kitt.cells if not cell.skip)
        return {cell: why for cell, why in needs if why}

    def _lines(self, planned: Sequence[plan.Planned], absent: Absent, *, others: int) -> list[str]:
        history, unread = _history(self._kitt.settings, planned)
        left_out = f"{others} more collected: no benchmarks, or skipped by their own marks." if others else ""
        idle = f"Cannot start: {', '.join(cell.id for cell in absent)}; see there." if absent else ""
        notes = [note for note in (idle, left_out, unread, _STARTS) if note]
        return plan.lines(self._kitt.cells, planned, history, absent=absent, notes=notes)


def _foreseen(cells: Sequence[Cell], absent: Absent, used: Container[Cell | None]) -> pytest.ExitCode:
    """How the session would end, as far as that is known: refused where no cell can start, else with errors of some."""
    if absent and all(cell in absent for cell in cells if not cell.skip):
        return pytest.ExitCode.USAGE_ERROR
    return pytest.ExitCode.TESTS_FAILED if any(cell in used for cell in absent) else pytest.ExitCode.OK


def _planned(items: Iterable[pytest.Item]) -> list[plan.Planned]:
    """The benchmarks among the items; those of a cell that cannot work too, but none that its author skips."""
    planned = []
    for item in items:
        found, cell = benchmark_of(item), _cell(item)
        impossible = cell is not None and bool(cell.skip)
        if found is None or (item.get_closest_marker("skip") is not None and not impossible):
            continue
        name = label(found.name, item.nodeid, cell.id if cell else None)
        planned.append(plan.Planned(cell, name, found.name, found.version, found.params, found.requests, found.seconds))
    return planned


def _history(settings: Settings, items: Iterable[plan.Planned]) -> tuple[plan.History, str]:
    """What the benchmarks cost before, and why that is not known."""
    wanted = {(item.benchmark, item.version) for item in items}
    try:
        with read_only(settings.db) as connection:
            past = {pair: reader.passed_before(connection, *pair) for pair in wanted}
    except UserError as error:
        return {}, f"Earlier runs are not known: {error}."
    alike = {pair: [one for one in found if _same_questions(one.params, settings)] for pair, found in past.items()}
    return alike, ""


def _same_questions(params: Mapping[str, Any], settings: Settings) -> bool:
    """Whether an evaluation of earlier would ask as many now: a few say nothing about the cost of all."""
    asked, there = params.get("questions"), params.get("questions_of")
    if not isinstance(asked, int) or not isinstance(there, int):
        return True
    sample = params.get("data") == "sample"
    return asked == min(settings.limit or there, there) and sample <= settings.offline


def _cell(item: pytest.Item) -> Cell | None:
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("kitt_engine") if callspec else None
    return found if isinstance(found, Cell) else None
