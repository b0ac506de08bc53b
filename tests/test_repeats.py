"""Do the aggregates of repeated runs say what the runs say?"""

from __future__ import annotations

import dataclasses
import math

import pytest

from pytest_kitt.measure.repeats import Repeat, aggregates, unrepeated
from pytest_kitt.measure.results import Measurement
from pytest_kitt.measure.stats import student_t

# two-sided 95 %, from printed tables
T_TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 9: 2.2622, 10: 2.2281, 30: 2.0423, 120: 1.9799}


def repeat(run: int, value: float, outcome: str = "passed", cell: str = "c1") -> Repeat:
    """A run with one number."""
    metrics = (Measurement("ttft_ms", "p50", value, "ms", "lower", 100),)
    return Repeat(cell, "latency", run, outcome, metrics)


@pytest.mark.parametrize("degrees, t", T_TABLE.items())
def test_student_t_is_the_printed_one(degrees: int, t: float) -> None:
    """The quantile agrees with the tables to their last digit."""
    assert student_t(degrees) == pytest.approx(t, abs=5e-5)


def test_student_t_becomes_the_normal_one() -> None:
    """With many degrees of freedom nothing is left of the correction; none at all has no quantile."""
    assert student_t(100_000) == pytest.approx(1.959964, abs=1e-4)
    with pytest.raises(ValueError, match="degrees"):
        student_t(0)


def test_mean_spread_and_interval() -> None:
    """Four runs of 10, 12, 14, 16 ms: mean 13, s = 2.58, interval 13 ± 3.1824 s / 2."""
    [aggregate] = aggregates(repeat(run, value) for run, value in enumerate((10, 12, 14, 16), start=1))
    [spread] = aggregate.spreads
    assert (spread.name, spread.stat, spread.unit, spread.n) == ("ttft_ms", "p50", "ms", 4)
    assert spread.mean == 13
    assert spread.std == pytest.approx(math.sqrt(20 / 3))
    half = 3.182446305284263 * math.sqrt(20 / 3) / 2
    assert spread.ci_low == pytest.approx(13 - half)
    assert spread.ci_high == pytest.approx(13 + half)


def test_one_run_has_no_spread() -> None:
    """One sample says nothing about how far runs agree."""
    [aggregate] = aggregates([repeat(1, 10.0)])
    assert dataclasses.astuple(aggregate.spreads[0])[4:] == (10.0, None, None, None, 1)


def test_what_does_not_vary_has_no_interval() -> None:
    """The same answers to the same questions say nothing about how sure the share of right ones is."""
    [aggregate] = aggregates(repeat(run, 0.78) for run in (1, 2, 3))
    assert dataclasses.astuple(aggregate.spreads[0])[4:] == (0.78, 0.0, None, None, 3)


def test_what_cannot_be_trusted_does_not_count() -> None:
    """Failed verdicts rest on good numbers, invalid and broken runs do not; all are counted by outcome."""
    runs = [repeat(1, 10), repeat(2, 20, "failed"), repeat(3, 900, "invalid"), repeat(4, 800, "error")]
    [aggregate] = aggregates(runs)
    assert aggregate.runs == 4
    assert aggregate.outcomes == {"passed": 1, "failed": 1, "invalid": 1, "error": 1}
    assert (aggregate.spreads[0].mean, aggregate.spreads[0].n) == (15, 2)


def test_cells_are_kept_apart() -> None:
    """The same benchmark on two cells gives two aggregates."""
    found = aggregates([repeat(1, 10), repeat(1, 30, cell="c2"), repeat(2, 12), repeat(2, 32, cell="c2")])
    assert [(a.cell, a.spreads[0].mean) for a in found] == [("c1", 11), ("c2", 31)]


def test_the_variant_without_its_run() -> None:
    """The run is the last parameter, and only that is taken away."""
    assert unrepeated("throughput[c8-run2]", 2) == "throughput[c8]"
    assert unrepeated("latency[run12]", 12) == "latency"
    assert unrepeated("latency[run1-run2]", 2) == "latency[run1]"
