"""How does a chart become geometry? Scales, ticks and paths; the templates draw them as SVG."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from pytest_kitt.measure.stats import Distribution
from pytest_kitt.report.raw import Timed

SERIES = 8
"""Series that a chart tells apart; a ninth colour would be none."""
_LEVELS = (*(i / 50 for i in range(50)), 0.985, 0.99, 0.995, 0.999, 1.0)
_VISIBLE = 0.12
"""Pixels by which a line may be off; rounding alone is less."""
_FAR = 2.5
"""A tail longer than this many times the 99th percentile is cut off, and said so."""


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """A scale from values to pixels.

    Attributes:
        low: value at the first pixel.
        high: value at the last pixel.
        start: the first pixel.
        stop: the last pixel.
        ticks: values to write at the axis.
        log: logarithmic, to base 2.

    """

    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value, at most the ends'."""
        low, high, v = (
            (math.log2(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        share = 0.5 if high <= low else min(1.0, max(0.0, (v - low) / (high - low)))
        return self.start + share * (self.stop - self.start)


@dataclasses.dataclass(frozen=True, slots=True)
class Curve:
    """The distribution of one metric: which share lies within how many milliseconds.

    Attributes:
        x: milliseconds.
        y: share, 0 to 1.
        points: of the line, as SVG writes them.
        marks: percentile, its stored value, and its place, where it was measured.
        beyond: largest value, where it lies far behind the end of the axis; else 0.
        n: how many values the line is drawn from.

    """

    x: Axis
    y: Axis
    points: str
    marks: tuple[tuple[str, float, float, float], ...]
    beyond: float
    n: int


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """One measured level of a series."""

    x: float
    y: float
    at: tuple[float, float]
    text: str
    sound: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind, joined in order of x; where several lie at one x, the line goes through their mean."""

    name: str
    points: tuple[Point, ...]
    line: str


@dataclasses.dataclass(frozen=True, slots=True)
class Lines:
    """Some series over one pair of axes."""

    x: Axis
    y: Axis
    series: tuple[Series, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One request in a timeline: ``path`` has a vertex per event, of which ``shown`` are told apart."""

    of: Timed
    y: int
    path: str
    first: int
    last: int
    shown: int


@dataclasses.dataclass(frozen=True, slots=True)
class Timeline:
    """When the tokens of some requests came."""

    x: Axis
    rows: tuple[Row, ...]
    height: int
    shown: int
    events: int


def ticks(low: float, high: float, about: int) -> tuple[float, ...]:
    """Round values from low to high, about so many: steps are 1, 2 or 5 times a power of ten."""
    if not high > low:
        return (low,)
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return tuple(round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1))


def curve(values: Distribution, stored: Mapping[str, float]) -> Curve:
    """The line through the quantiles; the marks are at what was stored, which rests on all requests."""
    low, top, p99 = values.quantile(0.0), values.quantile(1.0), values.quantile(0.99)
    marked = [stored[stat] for stat in ("p50", "p90", "p99") if stat in stored]
    high = max([p99 * 1.1 if top > _FAR * p99 > 0 else top, *marked])
    low = min([low, *marked])
    if high <= low:
        low, high = low * 0.9, high * 1.1 or 1.0
    x = Axis(low, high, 34, 312, ticks(low, high, 4))
    y = Axis(0, 1, 136, 10, (0, 0.5, 0.9, 1))
    line = [(x.at(v), y.at(q)) for q in _LEVELS if (v := values.quantile(q)) <= high * (1 + 1e-9)]
    quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    marks = tuple(
        (stat, stored[stat], round(x.at(stored[stat]), 1), round(y.at(q), 1))
        for stat, q in quantiles.items()
        if stat in stored
    )
    return Curve(x, y, _polyline(line), marks, top if top > high * (1 + 1e-9) else 0.0, values.n)


def lines(found: Mapping[str, Sequence[tuple[float, float, str, bool]]]) -> Lines:
    """Series of (x, y, text, sound), some of them not empty, over one pair of axes; the y axis begins at zero."""
    xs = sorted({x for points in found.values() for x, *_ in points})
    log = len(xs) > 1 and xs[0] > 0 and xs[-1] / xs[0] >= 4
    top = max(y for points in found.values() for _, y, *_ in points) or 1.0
    marks = ticks(0, top * 1.02, 4)
    step = marks[1] - marks[0] if len(marks) > 1 else top
    high = math.ceil(top * 1.02 / step) * step
    pad = 0 if log else (xs[-1] - xs[0]) * 0.04
    x = Axis(xs[0] - pad, xs[-1] + pad, 58, 460, _levels(xs), log=log)
    y = Axis(0, high, 224, 14, ticks(0, high, 4))
    return Lines(x, y, tuple(_series(name, points, x, y) for name, points in found.items()))


def timeline(timed: Sequence[Timed], marks: int) -> Timeline | None:
    """A row per request with a mark per event; at most about so many marks, those that fall together are one."""
    rows = [t for t in timed if t.events_ms]
    if not rows:
        return None
    high = max(t.events_ms[-1] for t in rows) or 1.0
    x = Axis(0, high, 112, 912, ticks(0, high, 8))
    grain = max(1.0, (x.stop - x.start) * len(rows) / max(1, marks))
    if sum(len(t.events_ms) for t in rows) <= marks:
        grain = 1.0
    drawn = tuple(_row(t, 18 + 16 * number, x, grain) for number, t in enumerate(rows))
    height = 18 + 16 * len(rows)
    return Timeline(x, drawn, height, sum(row.shown for row in drawn), sum(len(t.events_ms) for t in rows))


def _levels(xs: Sequence[float]) -> tuple[float, ...]:
    """The measured levels themselves, thinned where they are many."""
    stride = -(-len(xs) // 9)
    return tuple(xs[::stride])


def _series(name: str, points: Sequence[tuple[float, float, str, bool]], x: Axis, y: Axis) -> Series:
    placed = [Point(px, py, (round(x.at(px), 1), round(y.at(py), 1)), text, sound) for px, py, text, sound in points]
    placed.sort(key=lambda point: point.x)
    levels = {point.x: [other.y for other in placed if other.x == point.x] for point in placed}
    means = [(x.at(level), y.at(sum(ys) / len(ys))) for level, ys in levels.items()]
    return Series(name, tuple(placed), _polyline(means))


def _row(t: Timed, y: int, x: Axis, grain: float) -> Row:
    places = [round(place * grain) for place in dict.fromkeys(round(x.at(at) / grain) for at in t.events_ms)]
    steps = "".join(f"h{b - a}" for a, b in itertools.pairwise(places))
    return Row(t, y, f"M{places[0]} {y}{steps}", places[0], places[-1], len(places))


def _polyline(points: Iterable[tuple[float, float]]) -> str:
    rounded = list(dict.fromkeys((round(x, 1), round(y, 1)) for x, y in points))
    return " ".join(f"{_short(x)},{_short(y)}" for x, y in _bends(rounded))


def _bends(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of a line that cannot be left out without a visible difference."""
    kept: list[tuple[float, float]] = []
    for point in points:
        while len(kept) > 1 and _off(kept[-2], kept[-1], point) < _VISIBLE:
            kept.pop()
        kept.append(point)
    return kept


def _off(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    """How far b is from the line between a and c."""
    length = math.dist(a, c) or 1.0
    return abs((c[0] - a[0]) * (a[1] - b[1]) - (a[0] - b[0]) * (c[1] - a[1])) / length


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
