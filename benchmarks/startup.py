"""How long from ``pytest`` to the first request, and how much of that is the engine's own?

    python -m benchmarks.startup [--rounds 10] [--image IMAGE]

Each round runs, in turn, a bare pytest session with one test, and a session of ours with one load for each runtime that
this machine has. The engine's own time is from the start of its process or container to its first healthy answer, as
stored; what is left, less the bare session, is our overhead: settings, cards, matrix, leases, store, watchdog, probes
and the client's process. Exit code 0 when that is at most one second in the median for each, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

LIMIT_MS = 1000.0
_CONFTEST = """
import json, os, time
import pytest

def note(what, at):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps([what, at]) + "\\n")

@pytest.hookimpl(optionalhook=True)
def pytest_kitt_event(kind, at, about):
    if kind == "engine_ready":
        note("engine_s", about.get("start_s") or 0.0)
"""
_BARE = """
import time
from conftest import note

def test_one():
    note("first_ns", time.perf_counter_ns())
"""
_OURS = """
from conftest import note

def test_one(kitt_load):
    load = kitt_load("closed:1", "synthetic:8:1", "requests:1", warmup=0, certify=False)
    note("first_ns", load.began_ns + load.records["send_ns"][0])
"""


class Start(NamedTuple):
    """One session: milliseconds from its process to the first request or test, and the engine's own."""

    first_ms: float
    engine_ms: float


def main() -> int:
    """Measures in interleaved rounds and prints the medians."""
    asked = _asked()
    ways = _ways(asked.image)
    rounds = [_round(ways) for _ in range(asked.rounds + 1)][1:]
    bare = statistics.median(r["bare pytest"].first_ms for r in rounds)
    print(f"{'session':32} {'first request':>14} {'engine':>10} {'bare pytest':>12} {'ours':>10} {'ours / rest':>12}")
    worst = 0.0
    for name in ways:
        overheads = [r[name].first_ms - r[name].engine_ms - r["bare pytest"].first_ms for r in rounds]
        first, engine = (statistics.median(values) for values in zip(*(r[name] for r in rounds), strict=True))
        ours = statistics.median(overheads)
        worst = max(worst, ours)
        row = f"{name:32} {first:>11.0f} ms {engine:>7.0f} ms {bare:>9.0f} ms {ours:>7.0f} ms"
        print(f"{row} {ours / (engine + bare):>12.2f}")
    verdict = "pass" if worst <= LIMIT_MS else "FAIL"
    print(f"medians of {len(rounds)} rounds; overhead {worst:.0f} ms at most, limit {LIMIT_MS:g} ms: {verdict}")
    return 0 if worst <= LIMIT_MS else 1


def _round(ways: dict[str, list[str]]) -> dict[str, Start]:
    found = {"bare pytest": _session(_BARE, ["-p", "no:kitt"])}
    return found | {name: _session(_OURS, options) for name, options in ways.items()}


def _ways(image: str) -> dict[str, list[str]]:
    """Options by name; a container only with an image that is there."""
    ways = {
        "simulated, process": ["--kitt-engine=simulated"],
        "llama.cpp, embedded": ["--kitt-engine=llama_cpp", "--kitt-runtime=embedded"],
    }
    if image:
        ways["llama.cpp, container"] = ["--kitt-engine=llama_cpp", "--kitt-runtime=container", f"--kitt-image={image}"]
    return ways


def _session(test: str, options: list[str]) -> Start:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "conftest.py").write_text(_CONFTEST)
        Path(folder, "test_one.py").write_text(test)
        notes = Path(folder, "notes")
        env = {**os.environ, "NOTES": str(notes), "KITT_HOME": str(Path(folder, "home"))}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py", *options]
        began = time.perf_counter_ns()
        ended = subprocess.run(command, cwd=folder, env=env, check=False, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(ended.stdout + ended.stderr)
        said = dict(json.loads(line) for line in notes.read_text().splitlines())
    return Start((said["first_ns"] - began) / 1e6, said.get("engine_s", 0.0) * 1e3)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--image", default="", help="of llama.cpp's server, for the container")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
