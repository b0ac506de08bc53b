"""How much does the first user wait for a cold engine, and how many requests does it take to be warm?

The engine is started for this benchmark: it has generated nothing before, as far as pytest-kitt has asked (health,
version and tokenizer calls only); what an engine does by itself while it starts, such as an empty run or the capture of
graphs, is part of its start. Not for a server that already runs: nobody knows what it has answered.
"""

from __future__ import annotations

import pytest

from pytest_kitt import Inconclusive, RunningEngine
from pytest_kitt.fixtures import Load, Measure
from pytest_kitt.measure.warmup import FORGIVEN, TOLERANCE, ttfts_ms, warm_up

REQUESTS = 40


@pytest.mark.kitt(name="warmup", version="1", category="performance", requests=REQUESTS, seconds=45, fresh=True)
def test_warmup(kitt_engine: RunningEngine, kitt_load: Load, kitt_measure: Measure) -> None:
    """The first request to a fresh engine against its steady state, and the requests and the start until then.

    How: 40 requests of 128 tokens for 16, one after the other, without warm-up; the time to the first token of each, in
    order. The steady state is the median of the last 20. The engine is warm from the first request on, counted from
    which at no point more than one in ten has been off by more than 25 % of that median.
    Metrics: `ttft_cold_ms`: of the first request. `ttft_steady_ms`. `cold_over_steady`: their ratio.
    `requests_until_steady`: 0 when the first was like all others. `engine_start_s`: from the start of the process until
    it answers its health path, to 0.05 s. The usual numbers of the load have the cold requests in them.
    Passes: when every request is answered and a steady state begins in the first half of them; without one it is
    inconclusive: the engine needs longer to be warm, or other work disturbs it.
    Skips: for a server that already runs.
    Reading: a large ratio with few requests means that users of a restarted engine wait once: send it some requests
    before it serves. `engine_start_s` is shorter when the model's files are in the page cache, as after an earlier
    start (`fresh_start` above 1).
    """
    if kitt_engine.start_s is not None:
        kitt_measure("engine_start_s", kitt_engine.start_s, unit="s", better="lower")
    result = kitt_load("closed:1", "synthetic:128:16", f"requests:{REQUESTS}", warmup=0)
    assert result.failed == 0, result.failure_text
    found = warm_up(ttfts_ms(result.records))
    kitt_measure("ttft_cold_ms", found.cold, unit="ms", better="lower")
    kitt_measure("ttft_steady_ms", found.steady, unit="ms", better="lower", n=found.steady_n)
    kitt_measure("cold_over_steady", found.ratio, unit="x", better="lower", n=found.steady_n)
    if found.requests is None:
        raise Inconclusive(
            f"no steady state in {REQUESTS} requests: more than {FORGIVEN:.0%} of them are off by more than "
            f"{TOLERANCE:.0%} of the median of the last {found.steady_n}, {found.steady:.3g} ms"
        )
    kitt_measure("requests_until_steady", found.requests, unit="requests", better="lower", n=REQUESTS)
