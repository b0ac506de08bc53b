"""How much does the engine deliver when it is kept busy? A closed loop, one item per level."""

from __future__ import annotations

import pytest

from pytest_kitt.fixtures import Load


@pytest.mark.kitt(name="throughput", version="1", category="performance")
@pytest.mark.parametrize("concurrency", [2, 8], ids=lambda level: f"c{level}")
def test_throughput(kitt_load: Load, concurrency: int) -> None:
    """Output tokens and requests per second at a level of concurrency; passes when every request is answered."""
    result = kitt_load(f"closed:{concurrency}", "synthetic:128:64", f"requests:{max(24, 8 * concurrency)}")
    assert result.failed == 0, f"{result.failed} of {result.failed + result.n} requests failed: {result.ending.details}"
