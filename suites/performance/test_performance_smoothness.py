"""How evenly do the tokens of an answer come? The gaps between them, against the gap in the middle."""

from __future__ import annotations

import pytest

from pytest_kitt import InvalidMeasurement
from pytest_kitt.fixtures import Load, Measure

STALL_MEDIANS = 5
STALL_MS = 100
MAX_TOKENS_PER_EVENT = 1.05
MAX_BUNDLED_SHARE = 0.05
LEVELS = [
    pytest.param(1, marks=pytest.mark.kitt(requests=25, seconds=60)),
    pytest.param(8, marks=pytest.mark.kitt(requests=64, seconds=30)),
]


@pytest.mark.kitt(name="smoothness", version="1", category="performance")
@pytest.mark.parametrize("concurrency", LEVELS, ids=lambda level: f"c{level}")
def test_smoothness(kitt_load: Load, kitt_measure: Measure, concurrency: int) -> None:
    """How even the gaps between the tokens of an answer are, for one stream and where others come and go.

    How: a closed loop of `concurrency`; prompts of 128 tokens, answers of 256; 24 requests, 48 at level 8.
    Metrics: `itl_p99_ratio`: `itl_ms.p99` / `itl_ms.p50`. `longest_gap_ms`: the longest one of all. `stall_share`:
    share of the gaps that are stalls, which is longer than 5 medians and than 100 ms. `merged_share`: share of the gaps
    that are 0 because one read brought both tokens; `bundled_share`: because the server sent both in one chunk.
    Passes: when every request is answered and at most 1 % of the gaps are stalls: `itl_ms.p99` is 100 ms at most, or
    5 medians at most. A reader does not notice a pause of less than 100 ms, nor one that is like all the others.
    Invalid: when the server sends several tokens together: there are no gaps between them then. It says how many.
    Reading: 1 is perfectly even. At level 8 a prompt that is read holds up the answers of the others: an engine
    that reads prompts in pieces has a lower ratio there. In a closed loop of equal answers many prompts come together.
    """
    clients = 1 if concurrency == 1 else None  # several cannot share one slot
    requests = max(24, 6 * concurrency)
    result = kitt_load(f"closed:{concurrency}", "synthetic:128:256", f"requests:{requests}", clients=clients)
    assert result.failed == 0, result.failure_text
    gaps, sent = result.itl_ms, result.certificate
    kitt_measure("merged_share", sent.merged_share, unit="share", better="lower", n=max(1, gaps.n))
    kitt_measure("bundled_share", sent.bundled_share, unit="share", better="lower", n=max(1, gaps.n))
    bundled = sent.bundled_share > MAX_BUNDLED_SHARE or result.tokens_per_event.mean > MAX_TOKENS_PER_EVENT
    if bundled or not gaps.p50:
        raise InvalidMeasurement(
            f"the server sends tokens together ({result.tokens_per_event.mean:.3g} per event, {sent.bundled_share:.0%} "
            f"of the events in one chunk and {sent.merged_share:.0%} in one read with the one before): "
            "there is no time between them to look at"
        )
    stall_ms = max(STALL_MS, STALL_MEDIANS * gaps.p50)
    kitt_measure("itl_p99_ratio", gaps.p99 / gaps.p50, unit="ratio", better="lower", n=gaps.n)
    kitt_measure("longest_gap_ms", gaps.max, unit="ms", better="lower", n=gaps.n)
    kitt_measure("stall_share", gaps.share_above(stall_ms), unit="share", better="lower", n=gaps.n)
    assert gaps.p99 <= stall_ms, (
        f"{gaps.share_above(stall_ms):.1%} of {gaps.n} gaps are longer than {stall_ms:.3g} ms (bound 1%): "
        f"p50 {gaps.p50:.3g} ms, p99 {gaps.p99:.3g} ms, longest {gaps.max:.3g} ms"
    )
