"""How are many values summarised, and how sure are we?

Percentiles use linear interpolation between closest ranks (numpy's default). A percentile ``q`` exists only when
``n * (1 - q) >= 1``, and a comparison with it needs ``n * (1 - q) >= 5``: fewer samples say nothing about that tail.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

from pytest_kitt.errors import InvalidMeasurement

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
MIN_TAIL_TO_REPORT = 1
MIN_TAIL_TO_JUDGE = 5
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

    """

    name: str
    values: Sequence[float] = dataclasses.field(repr=False)

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.values)

    @property
    def mean(self) -> Statistic:
        """Arithmetic mean."""
        self._require(1, "mean")
        return Statistic(math.fsum(self.values) / self.n, name=f"{self.name}.mean", n=self.n)

    @property
    def std(self) -> Statistic:
        """Sample standard deviation (n - 1)."""
        self._require(2, "std")
        mean = math.fsum(self.values) / self.n
        variance = math.fsum((value - mean) ** 2 for value in self.values) / (self.n - 1)
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

    def percentile(self, stat: str) -> Statistic:
        """One of p50, p90, p95, p99, p999; InvalidMeasurement when there are too few values to say."""
        q = PERCENTILES[stat]
        if not enough(self.n, q, MIN_TAIL_TO_REPORT):
            need = math.ceil(MIN_TAIL_TO_REPORT / (1 - q) - _ROUNDING)
            raise InvalidMeasurement(
                f"{self.name}.{stat} needs {need} samples and there are {self.n}: send more requests"
            )
        return Statistic(percentile(self.values, q), name=f"{self.name}.{stat}", n=self.n, q=q)

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


def wilson(successes: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927), 95 % by default."""
    if n < 1:
        raise ValueError("no samples")
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
