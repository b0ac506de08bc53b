"""How much longer does one user wait for a longer prompt? One request at a time, one item per length."""

from __future__ import annotations

import pytest

from pytest_kitt import RunningEngine
from pytest_kitt.fixtures import Load

OUTPUT_TOKENS = 64
LENGTHS = (128, 512, 2048)


@pytest.mark.kitt(name="latency_by_prompt", version="1", category="performance", requests=22, seconds=30)
@pytest.mark.parametrize("prompt_tokens", LENGTHS, ids=lambda length: f"p{length}")
def test_latency_by_prompt(kitt_engine: RunningEngine, kitt_load: Load, prompt_tokens: int) -> None:
    """The time to the first token, between tokens, and to the end, for a single stream and a prompt of some length.

    How: a closed loop of 1; prompts of `prompt_tokens` tokens, answers of 64; 20 requests after 2 of warm-up. No two
    prompts begin alike, so a prefix cache is of no help.
    Passes: when every request is answered.
    Skips: when prompt and answer are longer than the engine's context.
    Reading: TTFT grows with the prompt, ITL hardly. The lengths are those of a question, a page, and a few pages;
    `long_context` goes on from there.
    """
    if lacking := kitt_engine.lacks_room(prompt_tokens + OUTPUT_TOKENS):
        pytest.skip(lacking)
    result = kitt_load("closed:1", f"synthetic:{prompt_tokens}:{OUTPUT_TOKENS}", "requests:20", warmup=2, clients=1)
    assert result.failed == 0, result.failure_text
