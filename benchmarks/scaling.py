"""Do two clients send more than one, where one core is not enough?

    python -m benchmarks.scaling

One-token requests as fast as they can be sent, by one client and by two: pass when two reach 1.7 times the requests of
one. The server needs a core of its own and so does each client; with fewer than four cores they take them from each
other: the ratio is shown and not judged. Exit code 0, 1 or 3.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
from pathlib import Path

from benchmarks.trials import MARK, load_spec
from benchmarks.truth.server import running
from pytest_kitt.load.run import run
from pytest_kitt.load.spec import Closed

ROUNDS = 5
LIMIT = 1.7
CORES_NEEDED = 4
_REQUESTS = 20_000
_RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Runs the rounds in turn, prints one table, keeps the numbers."""
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for clients, rounds in found.items():
            with running("--burst") as server:
                spec = load_spec(server.url, Closed(64), tokens=1)
                asked = dataclasses.replace(spec, requests=_REQUESTS, warmup=0, hold=False)
                raw = run(asked, mark=MARK, clients=clients)
            busiest = max(ending.cpu_s / ending.wall_s for ending in raw.clients)
            rounds.append((_REQUESTS / raw.ending.wall_s, busiest))
    cores = len(os.sched_getaffinity(0))
    print(f"{'clients':>7} {'requests/s':>10} {'busiest core':>12}   {cores} cores")
    for clients, rounds in found.items():
        rate, busiest = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{clients:>7} {rate:>10.0f} {busiest:>12.0%}")
    ratio = statistics.median(r for r, _ in found[2]) / statistics.median(r for r, _ in found[1])
    judged = cores >= CORES_NEEDED
    verdict = "not judged" if not judged else "pass" if ratio >= LIMIT else "FAIL"
    print(f"{verdict}: two clients send {ratio:.2f} times what one does (limit {LIMIT:g} with {CORES_NEEDED} cores)")
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "scaling.json").write_text(json.dumps({"cores": cores, "ratio": ratio, "rounds": found}, indent=1))
    return 3 if not judged else 0 if ratio >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
