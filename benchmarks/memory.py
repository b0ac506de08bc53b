"""Does a long load fit in memory? A million requests of 200 tokens, within 1 GiB, client and session together.

    python -m benchmarks.memory [--requests 1000000]

What a client writes for so many requests goes through the session's own path: blocks into the spool, columns into the
records, every metric out of them. The client's own memory does not depend on how many requests there are: it is taken
from two real loads, one five times the other, and may grow by less than 2 MB per 100,000 tokens. Exit code 0 or 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import time
from array import array
from pathlib import Path

from benchmarks.trials import MARK, load_spec
from benchmarks.truth.server import running
from pytest_kitt.load.run import run
from pytest_kitt.load.spec import Closed
from pytest_kitt.load.spool import Spool
from pytest_kitt.measure import metrics
from pytest_kitt.measure.records import MAX_BLOCK_BYTES, CountedBy, Failure, Phase, Records, RequestTable

LIMIT_BYTES = 1 << 30
MAX_GROWTH_MB = 2.0
TOKENS = 200
_RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Measures both, prints one table, keeps the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--session-only", action="store_true", help="prints the peak of the session's side in bytes")
    asked = parser.parse_args()
    if asked.session_only:
        print(_session(asked.requests))
        return 0
    small, large = _client(4_000), _client(20_000)
    growth = max(0, large - small) / 1e6 / (16_000 * TOKENS / 100_000)
    command = [sys.executable, "-m", "benchmarks.memory", "--session-only", "--requests", str(asked.requests)]
    began = time.monotonic()
    session = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    took_s = time.monotonic() - began
    whole = session + large
    print(f"session: {session / 1e6:.0f} MB for {asked.requests} requests of {TOKENS} tokens, {took_s:.0f} s")
    print(f"client:  {small / 1e6:.0f} MB for 4000, {large / 1e6:.0f} MB for 20000 requests of {TOKENS} tokens")
    within, steady = whole <= LIMIT_BYTES, growth < MAX_GROWTH_MB
    print(f"{'pass' if within else 'FAIL'}: together {whole / (1 << 20):.0f} MiB (limit {LIMIT_BYTES >> 20})")
    grows = f"the client grows by {growth:.2f} MB per 100,000 tokens (limit {MAX_GROWTH_MB})"
    print(f"{'pass' if steady else 'FAIL'}: {grows}")
    _RESULTS.mkdir(exist_ok=True)
    kept = {"requests": asked.requests, "session": session, "client": [small, large], "growth_mb": growth}
    (_RESULTS / "memory.json").write_text(json.dumps(kept, indent=1))
    return 0 if within and steady else 1


def _client(requests: int) -> int:
    """Peak memory of a real client, in bytes."""
    with running("--burst") as server:
        spec = load_spec(server.url, Closed(64), tokens=TOKENS)
        return run(dataclasses.replace(spec, requests=requests, hold=False), mark=MARK).ending.max_rss_bytes


def _session(requests: int) -> int:
    """Peak memory of the session's side in bytes: made-up blocks in, every metric out."""
    spool, records, draw = Spool(), Records(), random.Random(1)
    table, rest = RequestTable(), requests
    while rest:
        begin = (requests - rest) * 1_000_000
        events = array("q", (begin + 50_000_000 + i * 10_000_000 + int(draw.random() * 1e6) for i in range(TOKENS)))
        for _ in range(min(rest, 100)):  # the same times for some: they are random enough
            row = (requests - rest, Phase.MEASURED, Failure.NONE, 200, CountedBy.USAGE, 0, 0, 1, begin, 0, begin)
            table.append_row((*row, events[-1], 64, TOKENS, 0, -1, -1), events)
            rest -= 1
            if table.nbytes >= MAX_BLOCK_BYTES * 3 // 4:
                records.take(table, spool.add(table.to_bytes(), len(table)))
                table = RequestTable()
    records.take(table, spool.add(table.to_bytes(), len(table)))
    found = metrics.distributions(records)
    assert found["itl_ms"].n == requests * (TOKENS - 1)
    assert all(metric.scalar(records) is not None for metric in metrics.METRICS if metric.scalar)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(main())
