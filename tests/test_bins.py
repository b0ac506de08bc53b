"""About where do the percentiles lie, by bins?"""

from __future__ import annotations

import random

import pytest

from pytest_kitt.measure.bins import Bins
from pytest_kitt.measure.stats import percentile


@pytest.mark.parametrize("seed", range(5))
def test_bins_are_within_their_width(seed: int) -> None:
    """Of durations from nanoseconds to minutes every percentile is within 3.2 % of the exact one at its rank."""
    rng = random.Random(seed)
    values = sorted(int(10 ** rng.uniform(0, 11)) for _ in range(5000))
    bins = Bins()
    bins.extend(values[::2])
    bins.extend(values[1::2])
    assert bins.n == 5000
    for q in (0.1, 0.5, 0.9, 0.99):
        exact = values[int((len(values) - 1) * q)]
        found = bins.percentile_ms(q)
        assert found is not None
        assert found * 1e6 == pytest.approx(exact, rel=0.032)
        assert found * 1e6 == pytest.approx(percentile(values, q), rel=0.04)


def test_small_and_impossible_values() -> None:
    """Below 32 ns each value is itself; less than nothing counts as nothing."""
    bins = Bins()
    bins.extend([-5, 0, 7, 31, 31])
    assert bins.percentile_ms(0.5) == 7e-6
    bins.extend([-5] * 10)
    assert bins.percentile_ms(0.5) == 0


def test_too_few_say_nothing() -> None:
    """A p50 needs two values, a p99 a hundred: as everywhere."""
    bins = Bins()
    bins.extend([1000])
    assert bins.percentile_ms(0.5) is None
    bins.extend([1000] * 98)
    assert bins.percentile_ms(0.5) == pytest.approx(1e-3, rel=0.04)
    assert bins.percentile_ms(0.99) is None
    bins.extend([1000])
    assert bins.percentile_ms(0.99) == pytest.approx(1e-3, rel=0.04)
