"""How long does one user wait? One request at a time, so nothing queues."""

from __future__ import annotations

import pytest

from pytest_kitt.fixtures import Load


@pytest.mark.kitt(name="latency", version="1", category="performance")
def test_latency(kitt_load: Load) -> None:
    """TTFT, ITL and end-to-end time of a single stream; passes when every request is answered."""
    result = kitt_load("closed:1", "synthetic:128:64", "requests:20", warmup=2)
    assert result.failed == 0, f"{result.failed} of {result.failed + result.n} requests failed: {result.ending.details}"
