"""Are the GPUs of a machine kept busy, and never given twice? Eight cells on four made-up GPUs, with a crash.

    python -m benchmarks.schedule [--workers 4]

Cells of one and of two GPUs run on simulated engines, four workers at a time; in the middle one worker is killed. From
the events in the store: a line per GPU over time, the largest number of cells that one GPU had at a time, and the share
of the time in which GPUs were leased. Every cell must start once, but for the one that was killed, which starts twice.
Exit code 0 or 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

GPUS = 4
MODELS = ("a1", "b2", "c1", "d1", "e2", "f1", "g2", "h1")  # the digit is the number of GPUs
_ITEMS = """
import os, time
import pytest

@pytest.mark.parametrize("level", [1, 2, 3])
def test_load(kitt_engine, kitt_load, level):
    if level == 2 and kitt_engine.cell.model.name == "c1" and not os.path.exists("killed"):
        open("killed", "w").write(str(os.getpid()))
        time.sleep(60)
    kitt_load(f"closed:{level}", "synthetic:16:32", "seconds:1")
"""
_WIDTH = 100
_RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Runs the session, reads its events, prints the schedule."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedule")
    parser.add_argument("--workers", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="schedule-") as name:
        folder = Path(name)
        code = _session(folder, asked.workers)
        with opened(str(folder / "kitt.db")) as engine, engine.connect() as connection:
            run_id = reader.find_run(connection, "last")
            events = reader.read_events(connection, run_id)
            outcomes = Counter(r["outcome"] for r in reader.show_run(connection, run_id)["results"])
    spans = _spans(events)
    faults = _print(spans, outcomes, code)
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "schedule.json").write_text(json.dumps({"spans": spans, "faults": faults}, indent=1))
    return 1 if faults else 0


def _session(folder: Path, workers: int) -> int:
    (folder / "test_items.py").write_text(_ITEMS)
    needs = [f"--kitt-cell-gpus=simulated-{model}={model[1:]}" for model in MODELS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"-n{workers}", f"--kitt-gpus={GPUS}"]
    command += [
        "test_items.py",
        "--kitt-engine=simulated",
        f"--kitt-model={','.join(MODELS)}",
        f"--kitt-db={folder / 'kitt.db'}",
        *needs,
    ]
    env = {**os.environ, "KITT_LEASES": str(folder / "leases"), "KITT_CERTIFY": "record"}
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while process.poll() is None and not (folder / "killed").exists():
            time.sleep(0.05)
        if process.poll() is None:
            time.sleep(0.2)
            os.kill(int((folder / "killed").read_text()), signal.SIGKILL)
        output, _ = process.communicate()
    if process.returncode != 1:
        print(output.decode())
    return process.returncode


def _spans(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Who had which GPUs from when to when, in seconds; a killed worker's lease ends with the next one's start."""
    begun: dict[tuple[str, str], dict[str, Any]] = {}
    spans = []
    zero = _seconds(events[0]["at"])
    for event in events:
        at, about = _seconds(event["at"]) - zero, event["payload"]
        key = (about["worker"], about["cell"])
        if event["kind"] == "engine_starts":
            begun[key] = {"cell": about["cell"], "worker": about["worker"], "gpus": about["gpus"], "from": at}
        elif event["kind"] == "engine_stopped":
            spans.append({**begun.pop(key), "to": at})
    for lost in begun.values():
        again = [s["from"] for s in spans if s["cell"] == lost["cell"] and s["from"] > lost["from"]]
        spans.append({**lost, "to": min(again, default=lost["from"]), "killed": True})
    return sorted(spans, key=lambda span: span["from"])


def _print(spans: list[dict[str, Any]], outcomes: Counter[str], code: int) -> list[str]:
    end = max(span["to"] for span in spans)
    for gpu in map(str, range(GPUS)):
        line = [" "] * (_WIDTH + 1)
        for span in spans:
            if gpu in span["gpus"]:
                letter = span["cell"].removeprefix("simulated-")[0]
                first, last = (int(_WIDTH * span[side] / end) for side in ("from", "to"))
                line[first : last + 1] = [letter.upper() if span.get("killed") else letter] * (last - first + 1)
        print(f"GPU {gpu} |{''.join(line)}|")
    print(f"0 to {end:.1f} s; capitals: killed with its worker")
    edges = sorted(edge for s in spans for gpu in s["gpus"] for edge in ((s["from"], 1, gpu), (s["to"], -1, gpu)))
    now: Counter[str] = Counter()
    most = 0
    for _, step, gpu in sorted(edges, key=lambda edge: (edge[0], edge[1])):
        now[gpu] += step
        most = max(most, now[gpu])
    leased = sum(len(s["gpus"]) * (s["to"] - s["from"]) for s in spans)
    starts = Counter(s["cell"] for s in spans)
    print(f"cells on one GPU at a time: at most {most}; GPUs leased {leased / (GPUS * end):.0%} of the time")
    print(f"starts: {dict(starts)}; outcomes: {dict(outcomes)}; exit code {code}")
    faults = [] if most == 1 else [f"{most} cells on one GPU"]
    faults += [f"{cell} started {n} times" for cell, n in starts.items() if n != (2 if cell.endswith("c1") else 1)]
    faults += [] if outcomes == {"passed": 3 * len(MODELS) - 1, "error": 1} else [f"outcomes: {dict(outcomes)}"]
    print("FAIL: " + "; ".join(faults) if faults else "pass")
    return faults


def _seconds(at: str) -> float:
    return datetime.datetime.fromisoformat(at).timestamp()


if __name__ == "__main__":
    sys.exit(main())
