"""How long do users wait when the engine is part of the way to its limit? Arrivals at a share of what it can do."""

from __future__ import annotations

import pytest

from pytest_kitt.fixtures import Load, Measure

WORKLOAD = "synthetic:128:64"
MIN_PACE_KEPT = 0.8


@pytest.mark.kitt(name="latency_under_load", version="1", category="performance", requests=450, seconds=60)
@pytest.mark.parametrize("percent", [50, 80], ids=lambda percent: f"u{percent}")
def test_latency_under_load(kitt_load: Load, kitt_measure: Measure, percent: int) -> None:
    """The waiting times of independent users who come at `percent` of the rate that the engine can answer.

    How: two loads, both with prompts of 128 tokens and answers of 64. `capacity`: a closed loop of 32, 128 requests.
    Then 200 Poisson arrivals at `percent` % of what that load showed the engine can do, however long the answers take.
    Metrics: those of the arrivals have no label, `capacity.*` are those of the closed loop. `capacity_rps`: its
    `output_tps` over the tokens of an answer. `pace_kept_share`: the time within which the requests came over the time
    until the last of them was answered.
    Passes: when every request of both loads is answered, and the answers keep pace: `pace_kept_share` is 80 % at
    least. What is under way when the last request comes counts against it, so it is less than 100 % on a good engine
    too; far less, and the queue was growing: then the waiting times depend on how long one measures.
    Reading: TTFT here is what users feel, p99 the unlucky one of a hundred. `rate_rps` of the result says which rate
    it was: two engines are compared at the same percentage, not at the same rate. An engine that can do more with more
    than 32 requests under way is less busy here than the percentage says.
    """
    capacity = kitt_load("closed:32", WORKLOAD, "requests:128", label="capacity")
    assert capacity.failed == 0, capacity.failure_text
    capacity_rps = capacity.output_tps / capacity.osl.mean
    kitt_measure("capacity_rps", capacity_rps, unit="requests/s", better="higher", n=capacity.n)
    result = kitt_load(f"poisson:{capacity_rps * percent / 100:.4g}/s", WORKLOAD, "requests:200")
    assert result.failed == 0, result.failure_text
    came_s = (result.n - 1) / result.certificate.rate_asked_rps
    took_s = result.n / result.request_rps
    kitt_measure("pace_kept_share", came_s / took_s, unit="share", better="higher", n=result.n)
    assert came_s / took_s >= MIN_PACE_KEPT, (
        f"{result.n} requests came within {came_s:.3g} s and were answered within {took_s:.3g} s "
        f"({came_s / took_s:.0%}, bound {MIN_PACE_KEPT:.0%}): "
        f"at {percent} % of {capacity_rps:.3g} requests/s the queue grows"
    )
