"""What does the plugin cost a pytest session that uses nothing of ours?

    python -m benchmarks.plugin_cost

Runs a one-test session with the plugin and with ``-p no:kitt`` in turn, and compares the medians. Exit code 0 when the
difference is at most 15 ms, else 1.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 30
LIMIT_MS = 15.0


def main() -> int:
    """Measures in interleaved rounds and prints the medians."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_one.py").write_text("def test_one():\n    pass\n")
        pairs = [(_run(folder), _run(folder, "-p", "no:kitt")) for _ in range(ROUNDS + 1)][1:]
    with_plugin, without = (statistics.median(times) for times in zip(*pairs, strict=True))
    cost = statistics.median(a - b for a, b in pairs)
    verdict = "pass" if cost <= LIMIT_MS else "FAIL"
    print(f"with kitt {with_plugin:.1f} ms, without {without:.1f} ms (medians of {ROUNDS} pairs)")
    print(f"cost {cost:.1f} ms, limit {LIMIT_MS:g} ms: {verdict}")
    return 0 if cost <= LIMIT_MS else 1


def _run(folder: str, *args: str) -> float:
    # an installed package has its bytecode: a variable that forbids to write it must not count as the plugin's cost
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    sys.exit(main())
