"""Is the warm-up found where it was put?"""

from __future__ import annotations

import pytest

from pytest_kitt.errors import InvalidMeasurement
from pytest_kitt.measure.records import Failure, Phase, Records, Request, RequestTable
from pytest_kitt.measure.warmup import ttfts_ms, warm_up

MS = 1_000_000


@pytest.mark.parametrize("slow", [0, 1, 3, 20])
def test_as_many_as_were_slow(slow: int) -> None:
    """The first steady request is the one behind the slow ones; ratio and median are those of the numbers."""
    found = warm_up([500.0] * slow + [100.0] * (40 - slow))
    assert found.requests == slow
    assert (found.cold, found.steady, found.steady_n) == (500.0 if slow else 100.0, 100.0, 20)
    assert found.ratio == (5.0 if slow else 1.0)


def test_a_slow_one_between_fast_ones_is_no_steady_state() -> None:
    """One fast request among slow ones does not count as warm; the tolerance is 25 % to both sides."""
    assert warm_up([900, 100, 900, 900, 100, 900] + [100.0] * 34).requests == 6
    assert warm_up([125.0, 75.0] + [100.0] * 38).requests == 0
    assert warm_up([125.1] + [100.0] * 39).requests == 1
    assert warm_up([74.9] + [100.0] * 39).requests == 1


def test_rare_hiccups_are_forgiven() -> None:
    """One in ten may be off later on; one in the first ten of a steady state postpones it."""
    late = [100.0] * 40
    late[9] = late[19] = late[39] = 300.0
    assert warm_up(late).requests == 0
    early = [100.0] * 40
    early[8] = 300.0
    assert warm_up(early).requests == 9


def test_never_steady() -> None:
    """No steady state that begins in the first half: none at all."""
    assert warm_up([float(n) for n in range(1, 41)]).requests is None
    assert warm_up([500.0] * 21 + [100.0] * 19).requests is None
    assert warm_up([100.0, 300.0] * 20).requests is None


def test_too_few_say_nothing() -> None:
    """Fewer than 20 requests, or times that cannot be, are invalid."""
    with pytest.raises(InvalidMeasurement, match="20 requests or more, and there are 19"):
        warm_up([1.0] * 19)
    with pytest.raises(InvalidMeasurement, match="no time at all"):
        warm_up([0.0] * 20)


def test_times_are_in_the_order_of_sending() -> None:
    """Of measured requests that are good, whatever the order in which they ended."""
    table = RequestTable()
    table.append(Request(2, Phase.MEASURED, send_ns=30 * MS, event_ns=[37 * MS, 40 * MS]))
    table.append(Request(0, Phase.WARMUP, send_ns=0, event_ns=[1 * MS]))
    table.append(Request(1, Phase.MEASURED, send_ns=10 * MS, event_ns=[60 * MS]))
    table.append(Request(3, Phase.MEASURED, failure=Failure.TIMEOUT, send_ns=40 * MS, event_ns=[50 * MS]))
    assert ttfts_ms(Records([table.to_bytes()])) == [50.0, 7.0]
