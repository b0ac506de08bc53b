"""Which benchmarks do the suites hold? Collected by pytest, one per function; no engine, no cell, nothing is run."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.benchmark import benchmark_of
from pytest_kitt.selection import SuiteCard, folders, load_suites, whole

# what a user has set for sessions says nothing about what there is
_NOT_FOR_US = ("PYTEST_ADDOPTS", "KITT_")
_KEPT = "KITT_HOME"


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One benchmark.

    Attributes:
        name: as in ``--kitt-benchmark``.
        category: performance, quality, or a word of its author.
        version: of what it measures.
        description: the first line of its docstring.
        suites: names of the suites that list it.
        file: where it is written.

    """

    name: str
    category: str
    version: str
    description: str
    suites: tuple[str, ...]
    file: Path


@dataclasses.dataclass(frozen=True, slots=True)
class Collection:
    """All suites and their benchmarks, and the modules that could not be read, each with its reason."""

    suites: Sequence[SuiteCard]
    benchmarks: Sequence[Found]
    broken: Mapping[str, str]


def collect() -> Collection:
    """Looks into the folders of all plugins, ours among them; UserError for a suites.yaml that is wrong."""
    collector = _Collector()
    with _undisturbed(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        options = ["-p", "kitt", "-p", "no:cacheprovider", "-c", os.devnull, "--capture=no", "--collect-only"]
        pytest.main(options, plugins=[collector])
    if collector.trouble is not None:
        raise collector.trouble
    if not collector.begun:
        raise RuntimeError(f"pytest did not begin to collect: {said.getvalue()}")
    cards = collector.cards
    found = [_found(item, cards) for item in collector.items if benchmark_of(item)]
    return Collection(list(cards.values()), sorted(found, key=lambda f: (f.category, f.name)), collector.broken)


class _Collector:
    """A plugin that makes pytest collect the suites' folders, and keeps the items."""

    def __init__(self) -> None:
        self.cards: dict[str, SuiteCard] = {}
        self.items: list[pytest.Function] = []
        self.broken: dict[str, str] = {}
        self.trouble: Exception | None = None
        self.begun = False

    def pytest_configure(self, config: pytest.Config) -> None:
        self.begun = True
        try:
            found = folders(config)
            self.cards = load_suites(found)
        except Exception as error:  # noqa: BLE001 - kept until pytest is over, which would show it as its own
            self.trouble = error
            found = []
        config.args = [str(folder) for folder in found]

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(self, collector: Any, name: str, obj: object) -> list[pytest.Function] | None:
        """A function is one item here, whatever its parameters."""
        if not isinstance(obj, types.FunctionType) or not collector.funcnamefilter(name):
            return None
        return [pytest.Function.from_parent(collector, name=name, callobj=obj)]

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        if isinstance(item, pytest.Function):
            self.items.append(item)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            lines = [line for line in str(report.longrepr).splitlines() if line.strip()]
            self.broken[report.nodeid] = lines[-1].removeprefix("E").strip() if lines else "it cannot be imported"


def _found(item: pytest.Function, cards: Mapping[str, SuiteCard]) -> Found:
    benchmark = benchmark_of(item)
    assert benchmark is not None
    described = (inspect.getdoc(item.obj) or "").split("\n")[0].rstrip(".")
    suites = tuple(card.name for card in cards.values() if benchmark.name in map(whole, card.benchmarks))
    return Found(benchmark.name, benchmark.category, benchmark.version, described, suites, item.path)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Without the variables that change a session."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_NOT_FOR_US) and name != _KEPT}
    try:
        yield
    finally:
        os.environ.update(kept)
