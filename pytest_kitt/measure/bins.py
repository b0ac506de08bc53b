"""About where do the percentiles lie so far? Durations counted in bins, sixteen to an octave: a few hundred numbers.

For looking on while a load runs. A value is found to 3 % at worst; what is stored and judged comes from the samples
themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pytest_kitt.measure.stats import MIN_TAIL_TO_REPORT, enough

_BITS = 4  # 2 ** 4 bins an octave
_SHARP = 1 << (_BITS + 1)  # below this each whole number has a bin of its own


class Bins:
    """Counts durations in nanoseconds."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    @property
    def n(self) -> int:
        """How many there are."""
        return self._counts.total()

    def extend(self, values_ns: Iterable[int]) -> None:
        """Takes durations; what is less than nothing counts as nothing."""
        self._counts.update(map(_bin, values_ns))

    def percentile_ms(self, q: float) -> float | None:
        """The middle of the bin in which the q-quantile (0..1) lies, in ms; None where too few are there to say."""
        n = self.n
        if not enough(n, q, MIN_TAIL_TO_REPORT):
            return None
        rank = (n - 1) * q
        seen = 0
        for found in sorted(self._counts):
            seen += self._counts[found]
            if seen > rank:
                return _middle_ns(found) / 1e6
        raise AssertionError("the last bin holds the last rank")


def _bin(value_ns: int) -> int:
    if value_ns < _SHARP:
        return max(0, value_ns)
    shift = value_ns.bit_length() - _BITS - 1
    return (shift << _BITS) + (value_ns >> shift)


def _middle_ns(found: int) -> float:
    if found < _SHARP:
        return found
    shift = (found >> _BITS) - 1
    low = found - (shift << _BITS)
    return (low + 0.5) * (1 << shift)
