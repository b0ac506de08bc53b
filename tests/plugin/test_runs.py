"""Does --kitt-runs measure each benchmark so often, on one engine, each time with another seed?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_kitt.report import html
from pytest_kitt.report.terminal import scaled
from pytest_kitt.store import reader
from pytest_kitt.store.database import read_only

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=5", "--kitt-engine-arg=itl_ms=1", "--kitt-certify=record")
BENCHMARK = """
import pytest

@pytest.mark.parametrize("level", [1, 2], ids=lambda level: f"c{level}")
def test_mine(kitt_engine, kitt_load, level, kitt_run):
    print("PID", kitt_engine.pid, "RUN", kitt_run)
    kitt_load(f"closed:{level}", "synthetic:8:4", "requests:4")
"""


def stored() -> dict[str, Any]:
    """The last run."""
    with read_only("") as connection:
        return reader.show_run(connection, "last")


def test_each_run_is_a_result(pytester: pytest.Pytester) -> None:
    """Two levels, three runs: six items of one engine; their ids end in the run, their seeds count up."""
    pytester.makepyfile(test_mine=BENCHMARK)
    result = pytester.runpytest_subprocess("-v", "-s", *FAST, "--kitt-runs=3", "--kitt-seed=7", "test_mine.py")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["*test_mine.py::test_mine[[]simulated-simulated-c1-run1[]]*"])
    assert len({line.partition("PID ")[2].split()[0] for line in result.stdout.lines if "PID " in line}) == 1
    found = stored()
    assert [r["params"]["kitt_run"] for r in found["results"]] == [1, 2, 3, 1, 2, 3]
    assert [r["params"]["seed"] for r in found["results"]] == [7, 8, 9, 7, 8, 9]
    assert len({r["key"] for r in found["results"]}) == 6


def test_the_aggregate_is_shown_and_told(pytester: pytest.Pytester) -> None:
    """Mean and interval stand in the table and in the JSON of the run, with how many runs they rest on."""
    pytester.makepyfile(test_mine=BENCHMARK)
    result = pytester.runpytest_subprocess(*FAST, "--kitt-runs=3", "test_mine.py")
    result.stdout.fnmatch_lines(["*mine[[]c1-run1[]]*PASSED", "*mine[[]c1[]] mean *ms *3 passed", "*± (95 %)*ms*"])
    found = stored()
    first, second = found["aggregates"]
    assert (first["name"], first["runs"], first["outcomes"]) == ("mine[c1]", 3, {"passed": 3})
    assert second["name"] == "mine[c2]"
    values = [
        metric["value"]
        for r in found["results"][:3]
        for metric in r["metrics"]
        if (metric["name"], metric["stat"]) == ("output_tps", "value")
    ]
    spread = next(s for s in first["spreads"] if s["name"] == "output_tps")
    assert spread["mean"] == pytest.approx(sum(values) / 3)
    assert spread["ci_low"] < spread["mean"] < spread["ci_high"]
    json.dumps(found, allow_nan=False)
    page = html.render(found, lambda *_: [])
    assert '<bdi>mine[c1]</bdi></th><td class="l">3 passed</td>' in page
    assert f"{scaled(spread['mean'], 'tokens/s')} ± {scaled(spread['ci_high'] - spread['mean'], 'tokens/s')}" in page


def test_one_run_is_no_parameter(pytester: pytest.Pytester) -> None:
    """Without the option ids, keys and tables are as ever; the fixture says run 1."""
    pytester.makepyfile(test_mine=BENCHMARK)
    result = pytester.runpytest_subprocess("-s", *FAST, "test_mine.py")
    result.stdout.fnmatch_lines(["*RUN 1*"])
    result.stdout.no_fnmatch_line("* mean *")
    assert stored()["aggregates"] == []
    assert all("kitt_run" not in r["params"] for r in stored()["results"])


def test_runs_under_xdist(pytester: pytest.Pytester) -> None:
    """All runs of a cell stay on one worker, so on one engine, and are aggregated on the controller."""
    pytester.makepyfile(test_mine=BENCHMARK)
    result = pytester.runpytest_subprocess(*FAST, "--kitt-runs=2", "-n2", "test_mine.py")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*mine[[]c2[]] mean *2 passed"])


def test_an_attempt_that_was_repeated_counts_once(pytester: pytest.Pytester) -> None:
    """Of an item that was run again only the last attempt is a sample, also where every attempt is shown."""
    pytester.makepyfile(
        test_mine="""
        tried = []
        def test_mine(kitt_engine, kitt_measure, kitt_run):
            tried.append(kitt_run)
            kitt_measure("width", 10.0 * len(tried), unit="mm", better="lower")
            assert len(tried) > 1
        """
    )
    pytester.runpytest_subprocess(*FAST, "--kitt-runs=2", "--reruns=1", "test_mine.py").assert_outcomes(passed=2)
    with read_only("") as connection:
        found = reader.show_run(connection, "last", every_attempt=True)
    assert len(found["results"]) == 3
    [aggregate] = found["aggregates"]
    assert (aggregate["runs"], aggregate["outcomes"]) == (2, {"passed": 2})
    assert aggregate["spreads"][0]["mean"] == 25.0


@pytest.mark.parametrize("wrong", ["0", "many", "1001"])
def test_a_wrong_number_of_runs(pytester: pytest.Pytester, wrong: str) -> None:
    """One sentence, exit code 4."""
    result = pytester.runpytest_subprocess(f"--kitt-runs={wrong}", *FAST)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*kitt: --kitt-runs: *{wrong}*"])
