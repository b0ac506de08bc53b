"""How long does one user wait when the prompt is a book? One request at a time, up to the engine's context."""

from __future__ import annotations

import pytest

from pytest_kitt import InvalidMeasurement, LoadResult, RunningEngine
from pytest_kitt.fixtures import Load, Measure

OUTPUT_TOKENS = 16
MAX_LENGTH_ERROR = 0.02
TEMPLATE_TOKENS = 256  # what a chat template may add
LENGTHS = [pytest.param(1 << power, marks=pytest.mark.kitt(seconds=10 + (1 << power) // 400)) for power in range(9, 18)]


def _prompt_tokens(result: LoadResult, asked: int) -> float:
    """The mean length of the prompts as the server counted them, else as its tokenizer did when they were made."""
    if result.isl.n == 0:
        if result.params.get("prompt_length_by") != "tokenizer":
            raise InvalidMeasurement("nobody counts the tokens of a prompt: there is neither usage nor a tokenizer")
        return asked
    low, high = asked * (1 - MAX_LENGTH_ERROR), asked * (1 + MAX_LENGTH_ERROR) + TEMPLATE_TOKENS
    if not low <= result.isl.min <= result.isl.max <= high:
        raise InvalidMeasurement(
            f"prompts of {asked} tokens were asked for and the server counts {result.isl.min:g} to {result.isl.max:g} "
            f"(bound {low:.0f} to {high:.0f})"
        )
    return float(result.isl.mean)


@pytest.mark.kitt(name="long_context", version="1", category="performance", requests=11)
@pytest.mark.parametrize("prompt_tokens", LENGTHS, ids=lambda length: f"p{length}")
def test_long_context(kitt_engine: RunningEngine, kitt_load: Load, kitt_measure: Measure, prompt_tokens: int) -> None:
    """The time to the first token for long prompts, and how many of their tokens the engine reads per second.

    How: a closed loop of 1; prompts of `prompt_tokens` tokens, each new from its first word on, answers of 16; 10
    requests after 1 of warm-up.
    Metrics: `prefill_tps`: tokens of a prompt as the server counts them / median TTFT. What the engine itself says of
    that time is `engine_prefill_ms`, where it says it.
    Passes: when every request is answered.
    Invalid: when the server counts less than 98 % or more than 102 % (and 256 for a chat template) of the tokens asked
    for, or nobody counts them.
    Skips: when prompt and answer are longer than the engine's context, so the largest length is less than it.
    Reading: twice the length takes twice the time as long as the engine's work per token is the same; attention makes
    it more, so `prefill_tps` falls with the length. A jump between two lengths shows where it begins to cut prompts in
    pieces, or runs out of memory for them.
    """
    if lacking := kitt_engine.lacks_room(prompt_tokens + OUTPUT_TOKENS):
        pytest.skip(lacking)
    result = kitt_load("closed:1", f"synthetic:{prompt_tokens}:{OUTPUT_TOKENS}", "requests:10", warmup=1, clients=1)
    assert result.failed == 0, result.failure_text
    length = _prompt_tokens(result, prompt_tokens)
    kitt_measure("prefill_tps", length / result.ttft_ms.p50 * 1000, unit="tokens/s", better="higher", n=result.n)
