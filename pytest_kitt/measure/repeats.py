"""How much do the numbers of repeated runs agree? One aggregate per benchmark: mean, spread, interval."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_kitt.measure.metrics import Better
from pytest_kitt.measure.results import Measurement, Result, label
from pytest_kitt.measure.stats import student_t

RUN = "kitt_run"  # the parameter that says which of the repeated runs a result is
MEASURED = ("passed", "failed", "inconclusive")  # outcomes whose numbers can be trusted
METHOD = "student-t over runs"


@dataclasses.dataclass(frozen=True, slots=True)
class Repeat:
    """One result among several of the same benchmark.

    Attributes:
        cell: key of its cell; empty for none.
        name: of the benchmark and its variant, the same for all of its runs.
        run: 1, 2, ...
        outcome: one of the six outcomes.
        metrics: the numbers.

    """

    cell: str
    name: str
    run: int
    outcome: str
    metrics: Sequence[Measurement]


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """One number over several runs: each run counts as one sample, whatever it rests on itself.

    Attributes:
        name: metric.
        stat: its statistic within a run.
        unit: as in the table of metrics.
        better: lower, higher or none.
        mean: over the runs.
        std: sample standard deviation over the runs; None for one run.
        ci_low: lower end of the 95 % interval of the mean, by Student's t with n - 1 degrees of freedom; None for one
            run, and where all runs gave the same number: the same questions with the same answers are no new sample.
        ci_high: its upper end.
        n: number of runs.

    """

    name: str
    stat: str
    unit: str
    better: Better
    mean: float
    std: float | None
    ci_low: float | None
    ci_high: float | None
    n: int


@dataclasses.dataclass(frozen=True, slots=True)
class Aggregate:
    """All runs of one benchmark on one cell.

    Attributes:
        cell: key of the cell.
        name: of the benchmark and its variant.
        runs: how many there were.
        outcomes: how many of each outcome.
        spreads: the numbers; of runs alone whose numbers can be trusted.

    """

    cell: str
    name: str
    runs: int
    outcomes: Mapping[str, int]
    spreads: tuple[Spread, ...]

    def to_json(self) -> dict[str, Any]:
        """As the canonical JSON has it."""
        return {**dataclasses.asdict(self), "outcomes": dict(self.outcomes), "method": METHOD}


def repeats(results: Iterable[Result]) -> Iterator[Repeat]:
    """Those that are one of several runs, by the last attempt at each."""
    last = {result.key: result for result in results}
    for result in last.values():
        if (run := result.params.get(RUN)) is not None:
            cell, cell_id = (result.cell.key, result.cell.id) if result.cell else ("", None)
            name = unrepeated(label(result.benchmark, result.nodeid, cell_id), run)
            yield Repeat(cell, name, run, result.outcome, result.metrics)


def aggregates(found: Iterable[Repeat]) -> list[Aggregate]:
    """One aggregate per benchmark and cell, in the order in which they first appear."""
    groups: dict[tuple[str, str], list[Repeat]] = {}
    for repeat in found:
        groups.setdefault((repeat.cell, repeat.name), []).append(repeat)
    return [
        Aggregate(cell, name, len(runs), Counter(run.outcome for run in runs), _spreads(runs))
        for (cell, name), runs in groups.items()
    ]


def unrepeated(label: str, run: int) -> str:
    """What the runs of a variant have in common: ``throughput[c8]`` of ``throughput[c8-run2]``."""
    return label.replace(f"-run{run}]", "]").replace(f"[run{run}]", "")


def _spreads(runs: Sequence[Repeat]) -> tuple[Spread, ...]:
    values: dict[tuple[str, str], list[Measurement]] = {}
    for run in runs:
        for m in run.metrics if run.outcome in MEASURED else ():
            values.setdefault((m.name, m.stat), []).append(m)
    return tuple(_spread(found) for found in values.values())


def _spread(found: Sequence[Measurement]) -> Spread:
    n, first = len(found), found[0]
    mean = sum(m.value for m in found) / n
    if n == 1:
        return Spread(first.name, first.stat, first.unit, first.better, mean, None, None, None, n)
    std = (sum((m.value - mean) ** 2 for m in found) / (n - 1)) ** 0.5
    if all(m.value == first.value for m in found):  # not by chance: what is asked or answered has not varied at all
        return Spread(first.name, first.stat, first.unit, first.better, first.value, 0.0, None, None, n)
    half = student_t(n - 1) * std / n**0.5
    return Spread(first.name, first.stat, first.unit, first.better, mean, std, mean - half, mean + half, n)
