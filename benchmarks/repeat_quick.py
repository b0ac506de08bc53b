"""Does the quick suite give the same answers every time, and leave nothing behind?

    python -m benchmarks.repeat_quick [TIMES]

Runs ``pytest --kitt-suite=quick`` ten times in a row from an empty folder; prints a line per run and exits with 1 when
a run fails, an accuracy differs, or a process of ours is left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TIMES = 10


def main() -> int:
    """Runs the suite and compares the answers."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else TIMES
    seen: set[tuple[tuple[str, float], ...]] = set()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "KITT_HOME": str(Path(folder) / "home")}
        for number in range(1, times + 1):
            began = time.monotonic()
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--kitt-suite=quick"]
            code = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, check=False).returncode
            seconds, left = time.monotonic() - began, _left()
            answers = _answers(env)
            seen.add(answers)
            good = good and code == 0 and not left and len(seen) == 1
            print(f"run {number}: exit {code}, {seconds:.1f} s, {len(left)} processes left, {dict(answers)}")
    print("same answers, nothing left: pass" if good else "FAIL")
    return 0 if good else 1


def _answers(env: dict[str, str]) -> tuple[tuple[str, float], ...]:
    show = [sys.executable, "-m", "pytest_kitt.cli", "results", "show", "last", "--json"]
    shown: dict[str, Any] = json.loads(subprocess.run(show, env=env, check=True, capture_output=True).stdout)
    metrics = (m for result in shown["results"] for m in result["metrics"])
    return tuple((m["name"], m["value"]) for m in metrics if m["name"].startswith("accuracy"))


def _left() -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and b"KITT_MARK=" in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
