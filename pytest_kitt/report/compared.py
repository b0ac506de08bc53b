"""Which loads of a run stand side by side? Closed loops of all cells, over how many requests were under way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from pytest_kitt.report import charts
from pytest_kitt.report.told import Load, Number, Told, cell_name


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """One load at one level of concurrency."""

    told: Told
    load: Load
    concurrency: int
    output: Number
    ttft: Number | None

    @property
    def good(self) -> bool:
        """Passed, by a load that is certified."""
        return self.told.outcome == "passed" and not self.load.broken

    @property
    def sustained(self) -> bool:
        """Whether each slot was used again: a batch that is sent at once is another question."""
        return self.output.n >= 2 * self.concurrency

    @property
    def workload(self) -> str:
        """What was asked, and by which API."""
        return f"{self.load.spec.get('workload', '')} ({self.load.spec.get('api', '')})"


@dataclasses.dataclass(frozen=True, slots=True)
class Compared:
    """What the charts of all loads show.

    Attributes:
        levels: every load that may be compared.
        left_out: how many may not, being invalid or of an error.
        not_drawn: series for which there is no colour left.
        output: tokens per second; None when there is nothing to draw.
        first: milliseconds to the first token, median.

    """

    levels: Sequence[Level]
    left_out: int
    not_drawn: int
    output: charts.Lines | None
    first: charts.Lines | None

    @property
    def hollow(self) -> bool:
        """Whether some of them are drawn apart."""
        return not all(level.good for level in self.levels)


def compared(results: Iterable[Told]) -> Compared:
    """Throughput and first tokens of closed loops; quality items ask for answers, not for speed."""
    found = [level for one in results if one.result["category"] != "quality" for level in _levels(one)]
    levels = [level for level in found if level.told.sound and level.sustained]
    series: dict[str, list[Level]] = {}
    for level in levels:
        series.setdefault(_name(level, levels), []).append(level)
    most = sorted(series, key=lambda name: -len(series[name]))[: charts.SERIES]
    drawn = {name: _certain(mine) for name, mine in series.items() if name in most}
    return Compared(
        levels,
        sum(not level.told.sound for level in found),
        len(series) - len(drawn),
        _lines(drawn, lambda level: level.output),
        _lines(drawn, lambda level: level.ttft),
    )


def _certain(levels: Sequence[Level]) -> list[Level]:
    """Of several loads at one level those that are good, if any are."""
    good = {level.concurrency for level in levels if level.good}
    return [level for level in levels if level.good or level.concurrency not in good]


def _levels(one: Told) -> Iterable[Level]:
    for load in one.loads:
        concurrency, output = load.params.get("concurrency"), load.get("output_tps", "value")
        if load.spec and isinstance(concurrency, int) and concurrency > 0 and output is not None:
            yield Level(one, load, concurrency, output, load.get("ttft_ms", "p50"))


def _name(level: Level, levels: Sequence[Level]) -> str:
    """The cell, and the workload where there are several."""
    workloads = {other.workload for other in levels}
    return cell_name(level.told.cell) + (f", {level.workload}" if len(workloads) > 1 else "")


def _lines(series: dict[str, list[Level]], number: Callable[[Level], Number | None]) -> charts.Lines | None:
    points = {
        name: [(level.concurrency, n.value, _text(level, n), level.good) for level in mine if (n := number(level))]
        for name, mine in series.items()
    }
    return charts.lines(points) if any(points.values()) else None


def _text(level: Level, number: Number) -> str:
    name = f"{level.told.name} {level.load.label}".strip()
    return f"{name}: {level.concurrency} at a time, {number.text}"
