"""Is a leak told from a step, from noise and from nothing?"""

from __future__ import annotations

import random

import pytest

from pytest_kitt.errors import Inconclusive
from pytest_kitt.measure.growth import MAX_POINTS, growth_per_request, slope
from pytest_kitt.report.terminal import scaled

ENDED = [100 * n for n in range(1, 201)]  # a request every 100 ns
TIMES = range(0, 20_001, 25)


def test_a_straight_line_is_found() -> None:
    """Exact points give the exact slope, and an interval of nothing."""
    found = slope([(x, 7 + 3 * x) for x in range(10)])
    assert (found.value, found.low, found.high, found.n) == (3, 3, 3, 10)


def test_the_interval_by_hand() -> None:
    """Sen's ranks for 8 points: the 6th and the 23rd of the 28 slopes."""
    points = [(float(x), y) for x, y in enumerate([0.0, 3, 1, 4, 9, 6, 5, 8])]
    slopes = sorted((y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(points) for x2, y2 in points[i + 1 :])
    found = slope(points)
    assert (found.low, found.high) == (slopes[5], slopes[22])
    assert found.value == (slopes[13] + slopes[14]) / 2


def test_the_interval_covers_the_truth() -> None:
    """In about 95 of 100 seeded series with noise, for a leak and for none."""
    rng = random.Random(1)
    for truth in (0.0, 2.0):
        covered = 0
        for _ in range(400):
            found = slope([(x, truth * x + rng.gauss(0, 20)) for x in range(20)])
            covered += found.low <= truth <= found.high
        assert 0.92 <= covered / 400 <= 0.98


def test_one_step_is_no_leak() -> None:
    """A step in the middle leaves the lower end at nothing; a leak of the same size in all does not."""
    step = growth_per_request([(t, 1e6 + 1e6 * (t > 15_000)) for t in TIMES], ENDED)
    leak = growth_per_request([(t, 1e6 + 1e6 * t / 15_000) for t in TIMES], ENDED)
    assert step.low == 0
    assert step.high > 0
    assert leak.low == pytest.approx(1e6 / 150, rel=0.05)


def test_what_is_filled_in_the_first_half_does_not_count() -> None:
    """Only looks between the end of the request in the middle and the end of the last one do."""
    looks = [(t, min(t, 10_000) * 1e3) for t in TIMES] + [(30_000, 9e9)]
    found = growth_per_request(looks, ENDED)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert found.n <= MAX_POINTS


def test_growth_is_per_request_and_not_per_second() -> None:
    """Requests that end in bursts: what counts is how many have ended."""
    ended = [at for at in range(500, 20_001, 500) for _ in range(4)]
    looks = [(t, 100.0 * 4 * (t // 500)) for t in TIMES]
    assert growth_per_request(looks, ended).value == pytest.approx(100)


@pytest.mark.parametrize("times, ended", [(range(0, 20_001, 2500), ENDED), (TIMES, ENDED[::20]), (TIMES, [])])
def test_too_little_is_inconclusive(times: range, ended: list[int]) -> None:
    """Too few looks, too few requests, none at all: said in one sentence with what to do."""
    with pytest.raises(Inconclusive, match="needs 8: let the load take longer"):
        growth_per_request([(t, 1.0) for t in times], ended)


def test_bytes_are_shown_in_their_size() -> None:
    """Units of 1000, negative ones too, per request too."""
    shown = [scaled(value, "bytes") for value in (0, 999, 1234, 1_234_567, 23_456_789_000, -45_600)]
    assert shown == ["0 B", "999 B", "1.23 kB", "1.23 MB", "23.5 GB", "-45.6 kB"]
    assert scaled(1500.0, "bytes/request") == "1.50 kB/request"
