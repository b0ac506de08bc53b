"""Does a quantity grow with every request? The slope over the requests, with an interval that bears outliers and steps.

Theil's estimator with Sen's interval (Sen 1968): the median of the slopes between all pairs of points. One step of an
allocator leaves most pairs flat, and makes the interval wide instead of the slope steep; a leak lifts all of them.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import combinations, groupby

from pytest_kitt.errors import Inconclusive
from pytest_kitt.measure.stats import percentile

MIN_POINTS = 8
"""Fewer have no interval to speak of."""
MAX_POINTS = 40
"""More are averaged in groups: neighbours say nearly the same, and would make it look too certain."""
METHOD = "theil-sen"
_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True, slots=True)
class Slope:
    """A rise per request.

    Attributes:
        value: the estimate.
        low: lower end of its 95 % interval.
        high: upper end.
        n: points that it rests on.

    """

    value: float
    low: float
    high: float
    n: int


def growth_per_request(looks: Sequence[tuple[int, float]], ended_ns: Sequence[int]) -> Slope:
    """How much a quantity rises with each request, over the second half of the requests of a load.

    ``looks`` are (time, value) in the order of time, ``ended_ns`` when requests ended, on the same clock. The first
    half is for the engine to fill its buffers. Inconclusive when too little happened or was seen in the second.
    """
    ends = sorted(ended_ns)
    half = len(ends) // 2
    begin, end = (ends[half - 1], ends[-1]) if half else (0, -1)
    points = _thinned((bisect_right(ends, at), value) for at, value in looks if begin <= at <= end)
    if len(points) < MIN_POINTS:
        raise Inconclusive(
            f"growth per request rests on {len(points)} points of the second half of {len(ends)} requests, and needs "
            f"{MIN_POINTS}: let the load take longer"
        )
    return slope(points)


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """Theil's slope of y over x with Sen's 95 % interval; no two points have one x, and there are at least 8."""
    n = len(points)
    slopes = sorted((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2))
    spread = _Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)  # of Kendall's statistic when there is no trend
    below = math.floor((len(slopes) - spread) / 2) - 1
    return Slope(percentile(slopes, 0.5), slopes[below], slopes[-1 - below], n)


def _thinned(points: Iterable[tuple[int, float]]) -> list[tuple[float, float]]:
    """One point for each number of requests that was seen, and at most MAX_POINTS means of neighbours."""
    single = [_mean(list(same)) for _, same in groupby(points, key=lambda point: point[0])]
    size = math.ceil(len(single) / MAX_POINTS) or 1
    return [_mean(single[start : start + size]) for start in range(0, len(single), size)]


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
