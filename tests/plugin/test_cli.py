"""Does the kitt command say what it should, as a table and as JSON?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FAST = (
    "--",
    "-q",
    "-p",
    "no:cacheprovider",
    "--kitt-engine-arg=ttft_ms=1",
    "--kitt-engine-arg=itl_ms=0.1",
    "-k",
    "latency",
)


def kitt(*args: str) -> subprocess.CompletedProcess[str]:
    """Runs the command."""
    command = [sys.executable, "-m", "pytest_kitt.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_run_passes_on_pytests_exit_code_and_arguments(pytester: pytest.Pytester) -> None:
    """Kitt run is pytest with other names for its options."""
    assert pytester.path
    good = kitt("run", "-e", "simulated", "-m", "anything", "-s", "quick", *FAST)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "1 passed" in good.stdout
    bad = kitt("run", "-s", "nothere")
    assert bad.returncode == 4
    assert "'nothere' is unknown" in bad.stderr
    listed = json.loads(kitt("results", "list", "--synthetic", "--json").stdout)
    assert listed["schema"] == 1
    (run,) = listed["runs"]
    assert run["suite"] == "quick"
    shown = kitt("results", "show", run["id"][:15])
    assert "latency on simulated-anything" in shown.stdout
    assert "synthetic: these numbers say nothing" in shown.stdout
    assert run["id"] in kitt("results", "list", "--synthetic").stdout


def test_nothing_yet(private_home: Path) -> None:
    """Without a store there is no result, and no store is made by asking."""
    listed = kitt("results", "list", "--json")
    assert (listed.returncode, json.loads(listed.stdout)) == (0, {"schema": 1, "runs": []})
    empty = kitt("results", "show", "last")
    assert empty.returncode == 4
    assert "run a benchmark first" in empty.stderr
    assert list(private_home.iterdir()) == []


def test_lists() -> None:
    """Engines and suites are listed, for people and for programs."""
    engines = json.loads(kitt("engines", "list", "--json").stdout)["engines"]
    assert {"llama_cpp", "openai", "simulated"} <= {engine["name"] for engine in engines}
    assert "llama.cpp's own HTTP server" in kitt("engines", "list").stdout
    suites = json.loads(kitt("test", "list", "--json").stdout)["suites"]
    assert [suite["name"] for suite in suites] == ["quick"]
    assert "exact_match" in kitt("test", "list").stdout
    assert kitt("--version").stdout.startswith("kitt 0.")
