"""What does --kitt-dry-run do? It makes the session collect and no more, and says what the items would cost."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence

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
    """Registered in a dry run: shows the plan."""

    def __init__(self, kitt: KittSession) -> None:
        self._kitt = kitt

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
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or session.testsfailed:
            return
        reporter.section("kitt plan")
        for line in self._lines(session.items):
            reporter.write_line(line)

    def _lines(self, items: Sequence[pytest.Item]) -> list[str]:
        kitt = self._kitt
        planned = _planned(items)
        history, unread = _history(kitt.settings, planned)
        absent = {
            cell: why
            for cell in kitt.cells
            if not cell.skip and (why := missing(cell, kitt.cards[cell.engine], kitt.settings))
        }
        others = len(items) - len(planned)
        left_out = f"{others} more collected: no benchmarks, or skipped by their own marks." if others else ""
        notes = [note for note in (left_out, unread, _STARTS) if note]
        return plan.lines(kitt.cells, planned, history, absent=absent, notes=notes)


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
            return {pair: reader.passed_before(connection, *pair) for pair in wanted}, ""
    except UserError as error:
        return {}, f"Earlier runs are not known: {error}."


def _cell(item: pytest.Item) -> Cell | None:
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("kitt_engine") if callspec else None
    return found if isinstance(found, Cell) else None
