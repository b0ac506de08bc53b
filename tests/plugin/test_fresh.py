"""Does a benchmark that needs a fresh engine get one, first in its cell, and is the restart known afterwards?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=5", "--kitt-engine-arg=itl_ms=1")
WARMUP = str(Path(__file__).resolve().parents[2] / "suites" / "performance" / "test_performance_warmup.py")
CONFTEST = """
import os
from pathlib import Path
import pytest

@pytest.fixture
def note(request, kitt_engine):
    def write():
        words = (request.node.originalname, str(kitt_engine.pid), kitt_engine.cell.id)
        with (Path(__file__).parent / "notes.txt").open("a") as notes:
            notes.write(" ".join((*words, os.environ.get("PYTEST_XDIST_WORKER", "-"))) + "\\n")
    return write
"""
ONE = """
import pytest
def test_a(note): note()
@pytest.mark.kitt(fresh=True)
def test_b(note): note()
def test_c(note): note()
"""
TWO = """
import pytest
@pytest.fixture(scope="module", params=[1, 2])
def level(request): return request.param
def test_d(note): note()
@pytest.mark.kitt(fresh=True)
def test_e(note, level): note()
"""
FRESH_OR_NOT = """
import os
import pytest
def test_plain(note): note()
@pytest.mark.kitt(fresh=True)
def test_fresh(note): note()
@pytest.mark.kitt(fresh=True)
def test_again(note):
    note()
    assert os.path.exists("good")
"""


def run(pytester: pytest.Pytester, *args: str, **files: str) -> pytest.RunResult:
    """A session in a process of its own, on some files."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(**files)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args, *(f"{name}.py" for name in files))


def notes(pytester: pytest.Pytester) -> list[tuple[str, str, str, str]]:
    """Item, pid of its engine, cell and worker of what ran, in order."""
    lines = (pytester.path / "notes.txt").read_text().splitlines()
    return [(item, pid, cell, worker) for item, pid, cell, worker in map(str.split, lines)]


def stored(*, every_attempt: bool = False) -> dict[str, Any]:
    """The last run."""
    with opened("") as engine, engine.connect() as connection:
        return reader.show_run(connection, "last", every_attempt=every_attempt)


def params(name: str) -> list[tuple[Any, Any]]:
    """``fresh_start`` and ``engine_starts`` of each attempt at a benchmark."""
    mine = [r["params"] for r in stored(every_attempt=True)["results"] if r["benchmark"] == name]
    return [(found.get("fresh_start"), found.get("engine_starts")) for found in mine]


def events() -> list[tuple[str, dict[str, Any]]]:
    """What happened to engines in the last run."""
    with opened("") as engine, engine.connect() as connection:
        found = reader.read_events(connection, stored()["run"]["id"])
    return [(e["kind"], e["payload"]) for e in found if e["kind"].startswith("engine_")]


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_fresh_ones_come_first_and_the_rest_keeps_its_order(pytester: pytest.Pytester, workers: str) -> None:
    """In each cell, over all files; each has an engine of its own, the others go on with that of the last one."""
    args = (*FAST, "--kitt-model=one,two", "--kitt-overlap=allowed", workers)
    run(pytester, *args, test_one=ONE, test_two=TWO).assert_outcomes(passed=12)
    cells = defaultdict(list)
    for item, pid, cell, worker in notes(pytester):
        cells[cell].append((item, pid, worker))
    assert sorted(cells) == ["simulated-one", "simulated-two"]
    for mine in cells.values():
        assert [item for item, _, _ in mine] == ["test_b", "test_e", "test_e", "test_a", "test_c", "test_d"]
        assert len({worker for _, _, worker in mine}) == 1
        pids = [pid for _, pid, _ in mine]
        assert len(set(pids[:3])) == 3
        assert set(pids[3:]) == {pids[2]}
    if workers == "-n0":
        assert [cell for _, _, cell, _ in notes(pytester)] == ["simulated-one"] * 6 + ["simulated-two"] * 6


def test_the_restart_is_stored(pytester: pytest.Pytester) -> None:
    """As fresh_start in the params and in the events; engine_starts, of engines that died, is not touched by it."""
    (pytester.path / "good").touch()
    assert run(pytester, *FAST, test_it=FRESH_OR_NOT).ret == 0
    assert params("fresh") == [(1, None)]
    assert params("again") == [(2, None)]
    assert params("plain") == [(None, None)]
    happened = events()
    life = ["engine_starts", "engine_ready", "engine_stopped"]
    assert [kind for kind, _ in happened] == life * 2
    assert [about.get("fresh_start") for _, about in happened] == [None] * 3 + [2] * 3
    assert all(about["start_s"] > 0 for kind, about in happened if kind == "engine_ready")


def test_a_fresh_engine_has_generated_nothing(pytester: pytest.Pytester) -> None:
    """Neither before its item, nor while its load is made ready: the engine's counters know of the load alone."""
    pytester.makepyfile(
        test_it="""
        import re, urllib.request
        import pytest

        def count(engine, name):
            text = urllib.request.urlopen(engine.url + "/metrics").read().decode()
            return float(re.search(rf"^vllm:{name}_tokens_total\\S* (\\S+)$", text, re.M)[1])

        def check(kitt_engine, kitt_load):
            assert count(kitt_engine, "generation") == count(kitt_engine, "prompt") == 0
            result = kitt_load("closed:1", "synthetic:16:4", "requests:3", warmup=0)
            assert count(kitt_engine, "generation") == 12
            assert count(kitt_engine, "prompt") == sum(row.isl for row in result.records.rows())

        @pytest.mark.kitt(fresh=True)
        def test_first(kitt_engine, kitt_load): check(kitt_engine, kitt_load)
        @pytest.mark.kitt(fresh=True)
        def test_second(kitt_engine, kitt_load): check(kitt_engine, kitt_load)
        """
    )
    pytester.runpytest_subprocess(*FAST, "test_it.py").assert_outcomes(passed=2)


def test_fixtures_of_a_fresh_item_meet_its_engine(pytester: pytest.Pytester) -> None:
    """What a fixture asks for before the item is set up is the new engine already; a skipped item starts none."""
    pytester.makepyfile(
        test_it="""
        import pytest
        PIDS = []

        @pytest.fixture
        def greeted(kitt_engine):
            kitt_engine.chat("hello", max_tokens=1)
            return kitt_engine.pid

        @pytest.mark.kitt(fresh=True)
        def test_first(kitt_engine): PIDS.append(kitt_engine.pid)
        @pytest.mark.skip(reason="not now")
        @pytest.mark.kitt(fresh=True)
        def test_skipped(kitt_engine): pass
        @pytest.mark.kitt(fresh=True)
        def test_second(greeted, kitt_engine):
            assert greeted == kitt_engine.pid != PIDS[0]
        def test_third(greeted, kitt_engine): pass
        """
    )
    pytester.runpytest_subprocess(*FAST, "test_it.py").assert_outcomes(passed=3, skipped=1)
    assert [kind for kind, _ in events()].count("engine_starts") == 2


def test_a_further_attempt_restarts_again(pytester: pytest.Pytester) -> None:
    """With pytest-rerunfailures each attempt at a fresh item has an engine of its own."""
    pytest.importorskip("pytest_rerunfailures")
    result = run(pytester, *FAST, "--reruns=2", test_it=FRESH_OR_NOT)
    assert result.parseoutcomes() == {"passed": 2, "failed": 1, "rerun": 2}
    pids = [pid for item, pid, _, _ in notes(pytester) if item != "test_plain"]
    assert len(set(pids)) == len(pids) == 4
    assert params("again") == [(2, None), (3, None), (4, None)]


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_what_is_resumed_uses_the_first_start(pytester: pytest.Pytester, workers: str) -> None:
    """A fresh item that is the first of what is left of its cell needs no restart."""
    run(pytester, *FAST, workers, test_it=FRESH_OR_NOT).assert_outcomes(passed=2, failed=1)
    (pytester.path / "good").touch()
    assert run(pytester, *FAST, workers, "--kitt-resume=last", test_it=FRESH_OR_NOT).ret == 0
    assert [item for item, _, _, _ in notes(pytester)] == ["test_fresh", "test_again", "test_plain", "test_again"]
    assert params("again") == [(2, None), (1, None)]
    assert stored()["run"]["status"] == "passed"


def test_a_death_is_no_fresh_start(pytester: pytest.Pytester) -> None:
    """An engine that died is started again by --kitt-restart and counted there, and the fresh item has a fresh one."""
    killed = FRESH_OR_NOT.replace("def test_fresh(note): note()", "def test_fresh(note, kitt_engine): KILL").replace(
        "KILL", "note(); os.kill(kitt_engine.pid, 9)"
    )
    (pytester.path / "good").touch()
    run(pytester, *FAST, "--kitt-restart=1", test_it=killed).assert_outcomes(passed=3)
    assert params("fresh") == [(1, None)]
    assert params("again") == [(1, 2)]
    assert params("plain") == [(None, 2)]
    run(pytester, *FAST, test_it=killed).assert_outcomes(passed=1, errors=1, skipped=1)


def test_a_server_that_runs_already(pytester: pytest.Pytester) -> None:
    """A fresh item skips and says why; nothing is missing then."""
    command = [sys.executable, "-m", "pytest_kitt.engine.simulated", "--port", "0", "--ttft-ms", "5", "--itl-ms", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            result = run(pytester, f"--kitt-url={url}", "-rs", test_it=ONE)
            plan = run(pytester, f"--kitt-url={url}", "--kitt-dry-run", test_it=ONE)
        finally:
            process.kill()
    assert result.ret == 0
    result.assert_outcomes(passed=2, skipped=1)
    why = "needs a fresh engine, and a server that runs already cannot be started anew from here"
    result.stdout.fnmatch_lines([f"SKIPPED*{why}"])
    result.stdout.no_fnmatch_line("*missing or not good*")
    assert {r["benchmark"]: r["outcome"] for r in stored()["results"]} == {"a": "passed", "b": "skipped", "c": "passed"}
    plan.stdout.no_fnmatch_line("* b *")


def test_fresh_is_yes_or_no(pytester: pytest.Pytester) -> None:
    """Anything else is a usage error."""
    result = run(pytester, *FAST, test_it=ONE.replace("fresh=True", "fresh='yes'"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_b*: @pytest.mark.kitt: fresh='yes' is neither True nor False"])


def test_warm_up_is_found_as_it_was_made(pytester: pytest.Pytester) -> None:
    """Three cold requests of 2200 ms and then 200 ms each: the benchmark says so, and how long the start took."""
    cold = ("--kitt-engine-arg=--cold-ms=2000", "--kitt-engine-arg=--cold-requests=3")
    speed = ("--kitt-engine-arg=ttft_ms=200", "--kitt-engine-arg=itl_ms=1", "--kitt-engine-arg=--load-ms=400")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--kitt-engine=simulated", *cold, *speed, WARMUP)
    assert result.ret == 0
    (found,) = stored()["results"]
    values = {m["name"]: m["value"] for m in found["metrics"] if m["stat"] == "value"}
    assert (found["outcome"], found["params"]["fresh_start"]) == ("passed", 1)
    assert values["requests_until_steady"] >= 3  # a hiccup of a busy machine postpones it
    assert values["ttft_cold_ms"] >= 2200
    assert values["ttft_steady_ms"] == pytest.approx(200, rel=0.2)
    assert values["cold_over_steady"] == values["ttft_cold_ms"] / values["ttft_steady_ms"]
    assert values["engine_start_s"] >= 0.4


def test_never_warm_is_inconclusive(pytester: pytest.Pytester) -> None:
    """30 cold requests of 40: the steady half is none; the numbers are there all the same."""
    cold = ("--kitt-engine-arg=--cold-ms=100", "--kitt-engine-arg=--cold-requests=30")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *FAST, *cold, WARMUP)
    result.assert_outcomes(xfailed=1)
    (found,) = stored()["results"]
    assert found["outcome"] == "inconclusive"
    assert "no steady state in 40 requests" in found["reason"]
    assert "ttft_cold_ms" in {m["name"] for m in found["metrics"]}


def test_warm_up_of_a_real_engine(pytester: pytest.Pytester) -> None:
    """The embedded engine with the tiny model: its start and its first request are measured."""
    pytest.importorskip("xllamacpp")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--kitt-runtime=embedded", WARMUP)
    assert result.ret == 0
    (found,) = stored()["results"]
    values = {m["name"]: m["value"] for m in found["metrics"] if m["stat"] == "value"}
    assert found["outcome"] in {"passed", "inconclusive"}  # this machine may be busy
    assert found["cell"]["toy"]
    assert values["engine_start_s"] > 0
    assert values["ttft_cold_ms"] > 0
