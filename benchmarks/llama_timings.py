"""Do our numbers agree with llama.cpp's own? The same requests, its ``timings`` beside what we saw.

    python -m benchmarks.llama_timings

Runs the tiny model in the embedded llama.cpp through the product's fixtures. The engine says of each answer how long it
read the prompt and how long it wrote. What we see includes the way there and back and any wait for a slot, so it can
only be longer, and at one stream not by much. Pass when our median TTFT is 0 to 5 ms above its median prefill, and our
time from first to last token within 5 % or 2 ms of its decoding. Exit code 0, 1, or 3 without the embedded engine.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pytest_kitt.measure.records import Failure, Phase, Records
from pytest_kitt.measure.stats import percentile
from pytest_kitt.store.database import opened
from pytest_kitt.store.reader import read_samples

MAX_TTFT_ABOVE_MS = 5.0
MAX_DECODE_SHARE, MAX_DECODE_MS = 0.05, 2.0
_TEST = """
def test_timings(kitt_load):
    kitt_load("closed:1", "synthetic:200:64", "requests:40", warmup=5)
"""
_RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Runs the session, prints one table, keeps the numbers."""
    if importlib.util.find_spec("xllamacpp") is None:
        print("not judged: the embedded engine is not installed: pip install 'pytest-kitt[embedded]'")
        return 3
    rows = _rows()
    print(f"{len(rows)} requests   {'engine p50':>11} {'ours p50':>11} {'difference':>11}")
    prefill, ttft = (percentile(sorted(row[i] for row in rows), 0.5) for i in (0, 1))
    decode, seen = (percentile(sorted(row[i] for row in rows), 0.5) for i in (2, 3))
    good = 0 <= ttft - prefill <= MAX_TTFT_ABOVE_MS
    near = abs(seen - decode) <= max(MAX_DECODE_MS, MAX_DECODE_SHARE * decode)
    _line("prefill / TTFT", prefill, ttft, good=good)
    _line("decode / first to last", decode, seen, good=near)
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "llama_timings.json").write_text(json.dumps(rows, indent=1))
    return 0 if good and near else 1


def _line(name: str, theirs: float, ours: float, *, good: bool) -> None:
    print(f"{name:24} {theirs:>8.3f} ms {ours:>8.3f} ms {ours - theirs:>+8.3f} ms  {'pass' if good else 'FAIL'}")


def _rows() -> list[tuple[float, float, float, float]]:
    """(engine's prefill, our TTFT, engine's decode, our time from first to last token) in ms, one per request."""
    with tempfile.TemporaryDirectory(prefix="timings-") as name:
        folder = Path(name)
        (folder / "test_timings.py").write_text(_TEST)
        env = {**os.environ, "KITT_HOME": str(folder / "home")}
        session = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--kitt-runtime=embedded"]
        subprocess.run([*session, "test_timings.py"], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        show = [sys.executable, "-m", "pytest_kitt.cli", "results", "show", "last", "--json"]
        shown = json.loads(subprocess.run(show, env=env, check=True, capture_output=True).stdout)
        with opened(f"sqlite:///{folder}/home/kitt.db") as store, store.connect() as connection:
            records = Records(block.data for block in read_samples(connection, shown["results"][0]["id"]))
    return [
        (
            r.prefill_ns / 1e6,
            (r.event_ns[0] - r.send_ns) / 1e6,
            r.decode_ns / 1e6,
            (r.event_ns[-1] - r.event_ns[0]) / 1e6,
        )
        for r in records.rows()
        if r.phase == Phase.MEASURED and r.failure == Failure.NONE and r.prefill_ns >= 0
    ]


if __name__ == "__main__":
    sys.exit(main())
