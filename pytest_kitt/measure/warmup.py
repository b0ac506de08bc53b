"""How much slower is a cold engine, and when is it warm? From the times of its first requests, in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pytest_kitt.errors import InvalidMeasurement
from pytest_kitt.measure.metrics import is_good
from pytest_kitt.measure.records import Records
from pytest_kitt.measure.stats import percentile

TOLERANCE = 0.25
"""A request is off when its time is further from the steady median than this share of it, above or below."""
FORGIVEN = 0.1
"""Share of requests that may be off in a steady state: every engine has its hiccups."""
MIN_REQUESTS = 20
"""The steady median rests on half of them."""


@dataclasses.dataclass(frozen=True, slots=True)
class WarmUp:
    """What the first requests to a fresh engine say.

    Attributes:
        cold: time of the first request.
        steady: median time of the second half of the requests.
        steady_n: how many that are.
        requests: how many came before the first steady one, 0 when the first was steady already; None when no steady
            state began in the first half.

    """

    cold: float
    steady: float
    steady_n: int
    requests: int | None

    @property
    def ratio(self) -> float:
        """Time of the first request over the steady median."""
        return self.cold / self.steady


def warm_up(times: Sequence[float]) -> WarmUp:
    """Looks at the times of all requests from the very first on, in their order, in any unit.

    The engine is steady from the first request in the first half of them from which on, counted from it, at no point
    more than one request in ten has been off (``FORGIVEN``, ``TOLERANCE``). So one slow request in the first ten of a
    steady state postpones it, and a rare one later does not. InvalidMeasurement for fewer times than ``MIN_REQUESTS``,
    or for times that are not positive.
    """
    if len(times) < MIN_REQUESTS:
        raise InvalidMeasurement(f"a warm-up shows in {MIN_REQUESTS} requests or more, and there are {len(times)}")
    if min(times) <= 0:
        raise InvalidMeasurement(f"a request took {min(times):g}: no time at all")
    half = len(times) // 2
    steady = percentile(sorted(times[half:]), 0.5)
    off = [abs(time - steady) > TOLERANCE * steady for time in times]
    first = next((start for start in range(half + 1) if _stays(off[start:])), None)
    return WarmUp(times[0], steady, len(times) - half, first)


def ttfts_ms(records: Records) -> list[float]:
    """Time to the first token of each good measured request of a load, in the order in which they were sent."""
    names = ("phase", "failure", "events", "send_ns", "first_ns")
    columns = zip(*(records[name] for name in names), strict=True)
    good = ((send, first) for phase, failure, events, send, first in columns if is_good(phase, failure, events))
    return [(first - send) / 1e6 for send, first in sorted(good)]


def _stays(off: Sequence[bool]) -> bool:
    """Whether of the first n, for any n, at most the forgiven share was off."""
    count = 0
    for n, is_off in enumerate(off, 1):
        count += is_off
        if count > FORGIVEN * n:
            return False
    return True
