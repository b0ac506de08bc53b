"""How long does one user wait? One request at a time, so nothing queues."""

from __future__ import annotations

import pytest

from pytest_kitt.fixtures import Load


@pytest.mark.kitt(name="latency", version="1", category="performance", requests=22, seconds=30)
def test_latency(kitt_load: Load) -> None:
    """The time to the first token, between tokens, and to the end of an answer, for a single stream.

    How: a closed loop of 1; prompts of 128 tokens, answers of 64; 20 requests after 2 of warm-up.
    Passes: when every request is answered.
    Reading: this is the best that a user can get. Under load it gets worse: see `latency_under_load`. For other
    prompts: `latency_by_prompt`.
    """
    result = kitt_load("closed:1", "synthetic:128:64", "requests:20", warmup=2, clients=1)
    assert result.failed == 0, result.failure_text
