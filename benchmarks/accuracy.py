"""How far are our stored numbers from what the server really did?

    python -m benchmarks.accuracy

Runs a pytest session of ours against the truth server (TTFT 50 ms, ITL 10 ms), reads the percentiles back from the
store, and compares them with the same percentiles over the same requests in the server's own log. Exit code 0 when
every difference is within 0.2 ms, 1 when one is not, 3 when the server itself was too late to judge by.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.truth import log
from benchmarks.truth.server import Truth, running
from pytest_kitt.measure.stats import percentile

LIMIT_MS = 0.2
SERVER_LATE_MS = 5.0
STATS = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
LEVELS = {1: (2, 20), 64: (64, 512)}  # streams: (warm-up, measured) requests
_TEST = """
def test_truth(kitt_load):
    result = kitt_load("closed:{streams}", "synthetic:32:128", "requests:{requests}", warmup={warmup}, hold=False)
    assert result.failed == 0
"""
_RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Runs all levels, prints one table, keeps the raw numbers."""
    rows: list[dict[str, Any]] = []
    for streams, (warmup, requests) in LEVELS.items():
        with running("--ttft-ms", "50", "--itl-ms", "10") as server, tempfile.TemporaryDirectory() as folder:
            stored = _session(server, Path(folder), streams, warmup, requests)
            time.sleep(0.5)  # the log is flushed when no request is active
            rows += _compare(streams, stored, _measured(log.read(server.log), warmup))
    _print(rows)
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "accuracy.json").write_text(json.dumps(rows, indent=1))
    verdicts = {row["verdict"] for row in rows}
    return 1 if "FAIL" in verdicts else 3 if "not judged" in verdicts else 0


def _session(server: Truth, folder: Path, streams: int, warmup: int, requests: int) -> dict[tuple[str, str], float]:
    """Measures with pytest, and reads (metric, statistic) -> value back from the store."""
    (folder / "test_truth.py").write_text(_TEST.format(streams=streams, warmup=warmup, requests=requests))
    env = {**os.environ, "KITT_HOME": str(folder / "home")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--kitt-url={server.url}",
        "test_truth.py",
    ]
    subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
    show = [sys.executable, "-m", "pytest_kitt.cli", "results", "show", "last", "--json"]
    shown = json.loads(subprocess.run(show, env=env, check=True, capture_output=True).stdout)
    return {(m["name"], m["stat"]): m["value"] for m in shown["results"][0]["metrics"]}


def _measured(served: Sequence[log.Served], warmup: int) -> list[log.Served]:
    """The server's side of the measured requests: their ids are kitt-0, kitt-1, ... in the order of sending."""
    ours = [s for s in served if s.id.startswith("kitt-") and int(s.id.removeprefix("kitt-")) >= warmup]
    return [s for s in ours if s.sent_ns and not s.aborted]


def _compare(streams: int, stored: dict[tuple[str, str], float], served: list[log.Served]) -> list[dict[str, Any]]:
    truth = {
        "ttft_ms": sorted((s.sent_ns[0] - s.arrive_ns) / 1e6 for s in served),
        "itl_ms": sorted((b - a) / 1e6 for s in served for a, b in zip(s.sent_ns, s.sent_ns[1:], strict=False)),
    }
    late = sorted((sent - due) / 1e6 for s in served for sent, due in zip(s.sent_ns, s.due_ns, strict=True))
    judged = percentile(late, 0.99) <= SERVER_LATE_MS
    rows = []
    for name, values in truth.items():
        for stat, q in STATS.items():
            ours = stored.get((name, stat))
            if ours is None:
                continue  # too few samples for this percentile: it is not reported, so there is nothing to compare
            true = percentile(values, q)
            verdict = "not judged" if not judged else "pass" if abs(ours - true) <= LIMIT_MS else "FAIL"
            rows.append(
                {"streams": streams, "metric": name, "stat": stat, "n": len(values), "ours": ours, "server": true}
                | {"difference_ms": ours - true, "verdict": verdict}
            )
    return rows


def _print(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'streams':>7}  {'metric':8} {'stat':4} {'n':>6}  {'ours':>9}  {'server':>9}  {'difference':>10}  verdict")
    for row in rows:
        print(
            f"{row['streams']:>7}  {row['metric']:8} {row['stat']:4} {row['n']:>6}  {row['ours']:>6.3f} ms  "
            f"{row['server']:>6.3f} ms  {row['difference_ms']:>+7.3f} ms  {row['verdict']}"
        )


if __name__ == "__main__":
    sys.exit(main())
