"""How large is the HTML report of 200 results, and how soon does it open?

    python -m benchmarks.report_page [--results 200] [--requests 1000] [--blocks 100] [--keep FILE]

Each result is of one load: ``--blocks`` blocks of ``--requests`` requests with 64 events. Opening lasts from the
navigation to the second frame after the page has loaded, in headless Chromium; the median of five. Exit code 0 when
the page has less than 3 MB and opens in less than 2 s, 1 when not, 3 where there is no Chromium or no Playwright.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pytest_kitt.measure.metrics import METRICS, distributions
from pytest_kitt.measure.records import CODEC, Phase, Records, Request, RequestTable
from pytest_kitt.measure.results import Block
from pytest_kitt.report import html

MAX_MB, MAX_S = 3.0, 2.0
ROUNDS = 5
CELLS, LEVELS = 8, (1, 2, 4, 8, 16)
_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"


def main() -> int:
    """Makes a page, opens it and prints the figures."""
    asked = _asked()
    found, blocks = _run(asked.results, asked.requests, asked.blocks)
    began = time.perf_counter()
    text = html.render(found, blocks)
    made_s, size_mb = time.perf_counter() - began, len(text.encode()) / 1e6
    print(f"{asked.results} results of {asked.requests * asked.blocks:,} requests: {size_mb:.2f} MB in {made_s:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(asked.keep or f"{folder}/page.html").absolute()
        path.write_text(text, encoding="utf-8")
        times = _open(path)
    if not times:
        return 3
    opened_s = statistics.median(times)
    good = size_mb < MAX_MB and opened_s < MAX_S
    print(f"opens in {opened_s:.2f} s (median of {ROUNDS}: {min(times):.2f} to {max(times):.2f})")
    print(f"limits {MAX_MB:g} MB and {MAX_S:g} s: {'pass' if good else 'FAIL'}")
    return 0 if good else 1


def _open(path: Path) -> list[float]:
    """Seconds until the page is drawn; none where there is no browser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("not opened: pip install playwright")
        return []
    if chromium is None:
        print("not opened: there is no chromium")
        return []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--disable-dev-shm-usage"])
        times = []
        for _ in range(ROUNDS):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(path.as_uri())
            times.append(float(page.evaluate(_FRAMES)) / 1e3)
            page.close()
        browser.close()
    return times


def _run(results: int, requests: int, blocks: int) -> tuple[dict[str, Any], Any]:
    """A made-up run as the reader gives it, and its blocks."""
    tables = [_table(requests, seed) for seed in range(CELLS)]
    stored = [Block(CODEC, len(table), table.to_bytes()) for table in tables]
    numbers = [_numbers(table) for table in tables]
    made = [_result(i, stored[i % CELLS], numbers[i % CELLS], blocks) for i in range(results)]
    run = {
        "id": "20260101-000000-aaaaaa", "started_at": "2026-01-01T00:00:00.000Z",
        "finished_at": "2026-01-01T02:00:00.000Z", "status": "failed", "exit_status": 1, "suite": "quick",
        "synthetic": True, "toy": False, "results": {}, "engines": [], "models": [], "argv": ["pytest"],
        "kitt_version": "0", "fingerprint": {"key": "f" * 12, "cpu": "made up"},
    }  # fmt: skip

    def read(result_id: int, seqs: Sequence[int]) -> Iterator[Block]:
        return (stored[result_id % CELLS] for _ in seqs)

    return {"run": run, "results": made}, read


def _table(requests: int, seed: int) -> RequestTable:
    draw, table, now = random.Random(seed), RequestTable(), 0
    for index in range(requests):
        now += 1_000_000
        at, times = now + int(draw.lognormvariate(3, 0.4) * 1e6), []
        for _ in range(64):
            times.append(at)
            at += int(draw.lognormvariate(1, 0.5) * 1e6)
        row = Request(index, Phase.MEASURED, planned_ns=now, send_ns=now, end_ns=at, isl=128, osl=64, event_ns=times)
        table.append(row)
    return table


def _numbers(table: RequestTable) -> list[dict[str, Any]]:
    found = distributions(Records([table.to_bytes()]))
    spread = [(m, stat, value) for m in METRICS if m.name in found for stat, value in found[m.name].summary().items()]
    single = [(m, "value", 1234.5) for m in METRICS if m.scalar]
    shared = {"n": len(table), "ci_low": None, "ci_high": None, "method": None}
    return [
        {"name": m.name, "stat": stat, "value": value, "unit": m.unit, "better": m.better, **shared}
        for m, stat, value in spread + single
    ]


def _result(number: int, block: Block, numbers: list[dict[str, Any]], blocks: int) -> dict[str, Any]:
    level = LEVELS[number // CELLS % len(LEVELS)]
    certificate = {"clock": "kernel", "lag_p99_ms": 0.4, "in_flight_target": level, "in_flight_mean": level * 0.99}
    failed = number % 10 == 0
    name = f"made_up-model_{number % CELLS}"
    return {
        "id": number, "benchmark": "throughput", "version": "1", "category": "performance", "key": "",
        "nodeid": f"test_it.py::test_throughput[{name}-c{level}-{number}]", "attempt": 1, "duration_s": 60.0,
        "started_at": "2026-01-01T00:00:00.000Z", "outcome": "failed" if failed else "passed",
        "reason": "AssertionError: the first token came too late\n" * 10 if failed else "", "metrics": numbers,
        "params": {"load": f"closed:{level}", "concurrency": level, "workload": "synthetic:128:64",
                   "stop": "requests:1000", "api": "chat", "certificate": certificate},
        "samples": [{"seq": i, "codec": CODEC, "n": block.n, "bytes": len(block.data)} for i in range(blocks)],
        "cell": {"id": name, "key": name, "engine": "made_up", "engine_version": "1", "runtime": "process",
                 "model": {"name": "model"}, "api": "chat", "overrides": {}, "argv": ["serve", name],
                 "synthetic": True, "toy": False},
    }  # fmt: skip


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_page")
    parser.add_argument("--results", type=int, default=200)
    parser.add_argument("--requests", type=int, default=1000, help="in each block")
    parser.add_argument("--blocks", type=int, default=100, help="of each result")
    parser.add_argument("--keep", metavar="FILE", help="where the page is left")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
