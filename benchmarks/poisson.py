"""Do requests arrive at the server as a Poisson process should? Kolmogorov and Smirnov on what the server saw.

    python -m benchmarks.poisson

At 10, 100 and 1000 requests/s: pass when the test at the 1 % level sees no difference between the gaps in the server's
own log and an exponential distribution of that rate, over 1000 gaps (400 at 10/s). To send a request takes some 50 us,
so that at 1000/s one gap in 20 cannot be as short as it should: over 10,000 gaps the test sees that, as the last line
shows. Exit code 0 or 1.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.kolmogorov import p_value, statistic
from benchmarks.peers.outcome import Load
from benchmarks.truth import log
from benchmarks.truth.server import running

LEVEL = 0.01
LOADS = ((10, 401), (100, 1001), (1000, 1001), (1000, 10_001))  # requests/s, requests
_COMPARED = 10_001
_RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Runs the rates, prints one table, keeps the numbers."""
    rows = []
    print(f"{'requests/s':>10} {'gaps':>6} {'reached':>9} {'CV':>6} {'distance':>9} {'p':>7}  verdict")
    for rate, requests in LOADS:
        row = _row(rate, requests)
        rows.append(row)
        shown = f"{row['reached']:>9.2f} {row['cv']:>6.3f} {row['distance']:>9.4f} {row['p']:>7.3f}  {row['verdict']}"
        print(f"{rate:>10} {row['gaps']:>6} {shown}", flush=True)
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "poisson.json").write_text(json.dumps(rows, indent=1))
    return 1 if any(row["verdict"] == "FAIL" for row in rows) else 0


def _row(rate: int, requests: int) -> dict[str, Any]:
    with running("--ttft-ms", "20", "--itl-ms", "5") as server:
        found = ours.measure(server, Load(1, requests, 4, rate_rps=rate))
        names = {f"kitt-{r.index}" for r in found.requests}
        last = {s.id: s.arrive_ns for s in log.read(server.log) if s.id in names}  # of each id, without the load before
    gaps = [(b - a) / 1e9 for a, b in itertools.pairwise(sorted(last.values()))]
    distance = statistic(gaps, rate=rate)
    p = p_value(distance, len(gaps))
    return {
        "rate": rate,
        "gaps": len(gaps),
        "reached": found.outcome.reached_rps,
        "cv": found.outcome.arrival_cv,
        "distance": distance,
        "p": p,
        "verdict": "for comparison" if requests == _COMPARED else "pass" if p >= LEVEL else "FAIL",
    }


if __name__ == "__main__":
    sys.exit(main())
