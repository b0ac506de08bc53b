"""Are these gaps exponential? The one-sample test of Kolmogorov and Smirnov."""

from __future__ import annotations

import math
from collections.abc import Sequence


def statistic(gaps: Sequence[float], *, rate: float) -> float:
    """Largest distance between the gaps' distribution and the exponential one of a rate."""
    ordered, n = sorted(gaps), len(gaps)
    exact = [1 - math.exp(-rate * gap) for gap in ordered]
    return max(max((i + 1) / n - p, p - i / n) for i, p in enumerate(exact))


def p_value(distance: float, n: int) -> float:
    """Probability of such a distance or a larger one by chance (asymptotic, with Stephens' correction for n)."""
    x = distance * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    if x < 0.2:  # the series converges badly where the answer is 1
        return 1.0
    terms = ((2.0 if k % 2 else -2.0) * math.exp(-2 * k * k * x * x) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))
