"""How much memory does the engine take, and does it give it back?

Counted are all processes of the engine together, each resident page once; where the kernel does not tell what they
share, the sum of their RSS, and the metrics say so in their names. Memory of GPUs is not in it.
"""

from __future__ import annotations

import pytest

from pytest_kitt import Inconclusive
from pytest_kitt.engine.memory import MemoryWatch, median_bytes, peak_bytes
from pytest_kitt.fixtures import Load, Measure
from pytest_kitt.measure.growth import METHOD

REST_S = 2.0
MAX_GROWTH_BYTES = 16_000
"""Per request: 14 GB a day at 10 requests a second."""


@pytest.mark.kitt(name="memory", version="1", category="performance", requests=150, seconds=75, fresh=True)
def test_memory(kitt_load: Load, kitt_memory: MemoryWatch, kitt_measure: Measure) -> None:
    """Memory of a fresh engine at rest, under load and after it, and how much of it each request leaves behind.

    How: two seconds of rest, 30 seconds of 4 requests at a time (128 tokens for 64), two seconds of rest. All the time
    the memory is looked at 10 times a second, less often where a look takes more than 10 ms; a shorter peak may be
    missed. The growth per request is Theil's slope of the anonymous memory (that no file stands behind, swapped out or
    not) over the requests that have ended, in their second half, with Sen's 95 % interval: the first half is for the
    engine to fill its buffers and caches.
    Metrics: `engine_resident_idle_bytes`: median of the first rest. `engine_resident_peak_bytes`: maximum under load.
    `engine_resident_after_bytes`: median of the second rest. `engine_growth_bytes_per_request`. Where shared pages
    count for each process, `rss_sum` stands in place of `resident`: never compare the two. The usual numbers of the
    load are recorded whether the client's certificate holds or not: memory does not depend on its clock.
    Passes: when every request is answered and the whole interval of the growth lies below 16 kB per request. It fails
    when all of it lies above, and is inconclusive when it straddles the bound or too few requests ended to tell.
    Skips: for a server that already runs, and where there is no /proc.
    Reading: a cache that is still filling grows too: let a failed engine run longer before you call it a leak.
    """
    kind = kitt_memory.kind
    idle = kitt_memory.rest(REST_S)
    kitt_measure(f"engine_{kind}_idle_bytes", median_bytes(idle), unit="bytes", better="lower", n=len(idle))
    result = kitt_load("closed:4", "synthetic:128:64", "seconds:30", certify=False)
    loaded = kitt_memory.between(result.began_ns, max(result.ended_ns()))
    after = kitt_memory.rest(REST_S)
    kitt_measure(f"engine_{kind}_peak_bytes", peak_bytes(loaded), unit="bytes", better="lower", n=len(loaded))
    kitt_measure(f"engine_{kind}_after_bytes", median_bytes(after), unit="bytes", better="lower", n=len(after))
    assert result.failed == 0, result.failure_text
    growth = kitt_memory.growth(result.ended_ns())
    kitt_measure(
        "engine_growth_bytes_per_request",
        growth.value,
        unit="bytes/request",
        better="lower",
        n=growth.n,
        ci=(growth.low, growth.high),
        method=METHOD,
    )
    said = f"each request leaves {growth.low:.0f} to {growth.high:.0f} bytes behind (95 %)"
    assert growth.low <= MAX_GROWTH_BYTES, f"{said}; the bound is {MAX_GROWTH_BYTES} bytes: a leak?"
    if growth.high >= MAX_GROWTH_BYTES:
        raise Inconclusive(f"{said}, on both sides of the bound of {MAX_GROWTH_BYTES} bytes: load it for longer")
