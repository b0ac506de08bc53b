"""How long does a heap of work take? All requests at once, and nobody waits for a single one of them."""

from __future__ import annotations

import pytest

from pytest_kitt.fixtures import Load, Measure

REQUESTS = 128


@pytest.mark.kitt(name="batch", version="1", category="performance", requests=REQUESTS, seconds=20)
def test_batch(kitt_load: Load, kitt_measure: Measure) -> None:
    """The time from the first request to the last token of 128 requests that are all sent at once.

    How: as many requests under way as there are, 128; prompts of 128 tokens, answers of 64; no warm-up, nothing
    behind. The engine is up and may have served earlier items of the session.
    Metrics: `makespan_s`: from the first send to the last token. `batch_tps`: tokens of all prompts and answers over
    the makespan, where the server counts prompts. `output_tps`: tokens of the answers alone over it.
    Passes: when every request is answered.
    Reading: `throughput` measures a steady state, as full at the end as at the start. Here the end counts too, when
    the last answers run with free slots beside them, and so does the start, when every prompt is read at once: this is
    what a nightly job sees. `ttft_ms` is time in the queue, mostly.
    """
    result = kitt_load(f"closed:{REQUESTS}", "synthetic:128:64", f"requests:{REQUESTS}", warmup=0, hold=False)
    assert result.failed == 0, result.failure_text
    makespan_s = result.n / result.request_rps
    kitt_measure("makespan_s", makespan_s, unit="s", better="lower", n=result.n)
    if result.isl.n == result.n:
        tokens = result.n * (result.isl.mean + result.osl.mean)
        kitt_measure("batch_tps", tokens / makespan_s, unit="tokens/s", better="higher", n=result.n)
