"""How are many values summarised, and how sure are we?

Percentiles use linear interpolation between closest ranks (numpy's default). A percentile ``q`` exists only when
``n * (1 - q) >= 1``, and a comparison with it needs ``n * (1 - q) >= 5``: fewer samples say nothing about that tail.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from statistics import NormalDist
from typing import Self

from pytest_kitt.errors import InvalidMeasurement, UnknownName, nearest

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
MIN_TAIL_TO_REPORT = 1
MIN_TAIL_TO_JUDGE = 5
EXACT_VALUES = 1_000_000
_SUMMED_DEGREES = 2000
_ROUNDING = 1e-9  # 100 * (1 - 0.99) is a hair above or below 1 in binary


def percentile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile (0..1) of values in ascending order, linearly interpolated."""
    if not ordered:
        raise ValueError("no values")
    position = (len(ordered) - 1) * q
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


class Statistic(float):
    """A number that knows how many samples it rests on, and refuses to be judged on too few."""

    name: str
    n: int
    q: float | None

    def __new__(cls, value: float, *, name: str, n: int, q: float | None = None) -> Self:
        """A float with its name, sample count and, for a percentile, its rank."""
        self = super().__new__(cls, value)
        self.name, self.n, self.q = name, n, q
        return self

    def __repr__(self) -> str:
        """Value, name and n: what an assertion shows when it fails."""
        return f"{float(self):.6g} ({self.name}, n={self.n})"

    def _judged(self) -> float:
        if not enough(self.n, self.q, MIN_TAIL_TO_JUDGE):
            need = math.ceil(MIN_TAIL_TO_JUDGE / (1 - (self.q or 0)) - _ROUNDING)
            raise InvalidMeasurement(
                f"{self.name} rests on n={self.n} samples; a comparison with it needs {need}: send more requests"
            )
        return float(self)

    def __lt__(self, other: float) -> bool:
        return self._judged() < other

    def __le__(self, other: float) -> bool:
        return self._judged() <= other

    def __gt__(self, other: float) -> bool:
        return self._judged() > other

    def __ge__(self, other: float) -> bool:
        return self._judged() >= other


def enough(n: int, q: float | None, tail: int) -> bool:
    """Whether n samples hold at least ``tail`` beyond the q-quantile; without a q, whether there is any sample."""
    return n >= 1 if q is None else n * (1 - q) >= tail - _ROUNDING


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The values of one metric, in ascending order, and their summary.

    Attributes:
        name: the metric's name, with its unit as suffix.
        values: ascending; one per request or per gap, as the metric says.
        counts: how often each value occurred; empty when each stands for itself.

    """

    name: str
    values: Sequence[float] = dataclasses.field(repr=False)
    counts: Sequence[int] = dataclasses.field(default=(), repr=False)

    def __getattr__(self, stat: str) -> Statistic:
        if stat.startswith("_"):
            raise AttributeError(stat)
        known = ["mean", "std", "min", "max", "n", *PERCENTILES]
        raise UnknownName(f"{self.name} has no statistic {stat!r}; {nearest(stat, known)}")

    def __repr__(self) -> str:
        """Number of values and what is known of them."""
        shown = ", ".join(f"{stat}={value:.6g}" for stat, value in self.summary().items())
        return f"<{self.name} n={self.n}{' ' if shown else ''}{shown}>"

    @functools.cached_property
    def _ends(self) -> list[int]:
        """Behind each value, how many there are up to and with it."""
        return list(accumulate(self.counts))

    @property
    def n(self) -> int:
        """Number of values."""
        return self._ends[-1] if self.counts else len(self.values)

    def _at(self, rank: int) -> float:
        return self.values[bisect_right(self._ends, rank)] if self.counts else self.values[rank]

    def _sum(self, of: Iterable[float]) -> float:
        return math.fsum(map(operator.mul, of, self.counts)) if self.counts else math.fsum(of)

    @property
    def mean(self) -> Statistic:
        """Arithmetic mean."""
        self._require(1, "mean")
        return Statistic(self._sum(self.values) / self.n, name=f"{self.name}.mean", n=self.n)

    @property
    def std(self) -> Statistic:
        """Sample standard deviation (n - 1)."""
        self._require(2, "std")
        mean = self._sum(self.values) / self.n
        variance = self._sum((value - mean) ** 2 for value in self.values) / (self.n - 1)
        return Statistic(math.sqrt(variance), name=f"{self.name}.std", n=self.n)

    @property
    def min(self) -> Statistic:
        """Smallest value."""
        self._require(1, "min")
        return Statistic(self.values[0], name=f"{self.name}.min", n=self.n)

    @property
    def max(self) -> Statistic:
        """Largest value."""
        self._require(1, "max")
        return Statistic(self.values[-1], name=f"{self.name}.max", n=self.n)

    p50 = property(lambda self: self.percentile("p50"))
    p90 = property(lambda self: self.percentile("p90"))
    p95 = property(lambda self: self.percentile("p95"))
    p99 = property(lambda self: self.percentile("p99"))
    p999 = property(lambda self: self.percentile("p999"))

    def quantile(self, q: float) -> float:
        """The q-quantile (0..1), linearly interpolated: to draw with; ``percentile`` knows what may be reported."""
        self._require(1, "quantile")
        position = (self.n - 1) * q
        low = self._at(math.floor(position))
        return low + (self._at(min(math.floor(position) + 1, self.n - 1)) - low) * (position - math.floor(position))

    def percentile(self, stat: str) -> Statistic:
        """One of p50, p90, p95, p99, p999; InvalidMeasurement when there are too few values to say."""
        q = PERCENTILES[stat]
        if not enough(self.n, q, MIN_TAIL_TO_REPORT):
            need, judge = (math.ceil(tail / (1 - q) - _ROUNDING) for tail in (MIN_TAIL_TO_REPORT, MIN_TAIL_TO_JUDGE))
            raise InvalidMeasurement(
                f"{self.name}.{stat} needs {need} samples, {judge} to be compared with, and there are {self.n}: "
                "send more requests"
            )
        return Statistic(self.quantile(q), name=f"{self.name}.{stat}", n=self.n, q=q)

    def share_above(self, limit: float) -> float:
        """Share of the values that lie above a limit; InvalidMeasurement when there are none."""
        self._require(1, "share_above")
        first = bisect_right(self.values, limit)
        below = self._ends[first - 1] if self.counts and first else first
        return 1 - below / self.n

    def summary(self) -> dict[str, float]:
        """Every statistic that this many values support, by name; empty when there are none."""
        if not self.n:
            return {}
        stats = {"mean": self.mean, "min": self.min, "max": self.max}
        if self.n > 1:
            stats["std"] = self.std
        for stat, q in PERCENTILES.items():
            if enough(self.n, q, MIN_TAIL_TO_REPORT):
                stats[stat] = self.percentile(stat)
        return {stat: float(value) for stat, value in stats.items()}

    def _require(self, need: int, stat: str) -> None:
        if self.n < need:
            raise InvalidMeasurement(f"{self.name}.{stat} needs {need} samples and there are {self.n}")


class Tally:
    """Collects durations in nanoseconds: each one up to a million of them, from then on counted by microseconds.

    A distribution of 200 million gaps so takes megabytes, and no value is off by more than half a microsecond.
    """

    def __init__(self) -> None:
        self._exact = array("q")
        self._counts: Counter[int] | None = None

    def extend(self, values_ns: Iterable[int]) -> None:
        """Takes values."""
        if self._counts is not None:
            self._counts.update([(value + 500) // 1000 for value in values_ns])
            return
        self._exact.extend(values_ns)
        if len(self._exact) > EXACT_VALUES:
            self._counts = Counter((value + 500) // 1000 for value in self._exact)
            self._exact = array("q")

    def distribution(self, name: str) -> Distribution:
        """What was collected, in milliseconds."""
        if self._counts is None:
            return Distribution(name, array("d", [value / 1e6 for value in sorted(self._exact)]))
        keys = sorted(self._counts)
        return Distribution(name, array("d", [key / 1e3 for key in keys]), array("q", map(self._counts.get, keys)))  # type: ignore[arg-type]  # every key has its count


def wilson(successes: float, n: float, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927), 95 % by default; n may be an effective sample size."""
    if n <= 0:
        raise ValueError("no samples")
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@functools.cache
def student_t(degrees: int, within: float = 0.95) -> float:
    """The t below which, in absolute value, Student's distribution lies with the given probability.

    Its integral is a finite sum for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4); where that is
    long, its expansion by the normal distribution (26.7.5) is the same to nine digits.
    """
    if degrees < 1:
        raise ValueError("no degrees of freedom")
    if degrees > _SUMMED_DEGREES:
        z = NormalDist().inv_cdf((1 + within) / 2)
        return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    low, high = 0.0, 1.0
    while _within_t(high, degrees) < within:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within_t(middle, degrees) < within else (low, middle)
    return (low + high) / 2


def _within_t(t: float, degrees: int) -> float:
    """The probability of an absolute value below t."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(degrees // 2):
        total += term
        term *= square * ((2 * k + 2) / (2 * k + 3) if odd else (2 * k + 1) / (2 * k + 2))
    return (angle + sine * total) * 2 / math.pi if odd else sine * total
