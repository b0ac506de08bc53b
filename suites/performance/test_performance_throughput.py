"""How much does the engine deliver when it is kept busy? A closed loop, one item per level."""

from __future__ import annotations

import pytest

from pytest_kitt.fixtures import Load


def _requests(concurrency: int) -> int:
    """Measured requests: eight per slot, so that no slot's luck decides."""
    return max(24, 8 * concurrency)


LEVELS = [
    pytest.param(level, marks=pytest.mark.kitt(requests=_requests(level) + 2 * level))
    for level in (1, 2, 4, 8, 16, 32, 64)
]


@pytest.mark.kitt(name="throughput", version="1", category="performance", seconds=20)
@pytest.mark.parametrize("concurrency", LEVELS, ids=lambda level: f"c{level}")
def test_throughput(kitt_load: Load, concurrency: int) -> None:
    """Output tokens and requests per second while a number of requests is under way at any time.

    How: a closed loop of `concurrency`; prompts of 128 tokens, answers of 64; 8 requests per slot, 24 at least. The
    first request of each slot is warm-up, and uncounted requests keep the load up until the last one that counts ends.
    Passes: when every request is answered.
    Reading: `output_tps` rises with the level until the engine is full. From there on requests only queue: the
    throughput stays and TTFT grows. The level where that begins is the one to compare engines at. `request_rps` counts
    the measured requests alone, and so is a little less than `output_tps` over the tokens of an answer.
    """
    clients = 1 if concurrency == 1 else None  # several cannot share one slot
    result = kitt_load(
        f"closed:{concurrency}", "synthetic:128:64", f"requests:{_requests(concurrency)}", clients=clients
    )
    assert result.failed == 0, result.failure_text
