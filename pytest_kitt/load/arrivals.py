"""When is each request of an open loop due? The same times for the same seed, made as they are needed.

Gaps between arrivals are constant, exponential (a Poisson process: independent users), or gamma-distributed with a
given coefficient of variation (1 is Poisson, above it bursts, below it more even). Several clients share one schedule:
client k of m takes arrivals k, k + m, ...
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from pytest_kitt.load.spec import Arrivals

_NS = 1e9


def due_ns(arrivals: Arrivals, *, seed: str) -> Iterator[int]:
    """Nanoseconds after the start at which requests 0, 1, 2, ... are due: ascending, without end."""
    draw = random.Random(f"arrivals:{seed}")
    scale = _NS / arrivals.rate_rps
    if arrivals.process == "constant":
        index = 0
        while True:
            yield round(index * scale)
            index += 1
    at = 0.0
    shape = 1.0 / arrivals.cv**2
    while True:
        yield round(at)
        at += (
            draw.expovariate(1.0) * scale if arrivals.process == "poisson" else draw.gammavariate(shape, scale / shape)
        )


def share(dues: Iterator[int], *, client: int, clients: int) -> Iterator[int]:
    """Every ``clients``-th arrival, beginning with number ``client``."""
    for index, due in enumerate(dues):
        if index % clients == client:
            yield due
