"""Does a session survive an engine that dies, one that hangs, and an item that never ends?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=20", "--kitt-engine-arg=itl_ms=2")
LONG = 'kitt_load("closed:4", "synthetic:8:8", "requests:1000000")'
SHORT = 'kitt_load("closed:1", "synthetic:8:4", "requests:3", warmup=0)'
TWO = f"""
def test_first(kitt_load):
    {LONG}
def test_second(kitt_load):
    {SHORT}
def test_third(kitt_load):
    {SHORT}
"""
KILLED_BETWEEN = f"""
import os, time
def test_first(kitt_engine, kitt_load):
    {SHORT}
    os.kill(kitt_engine.pid, 9)
def test_second(kitt_load):
    {SHORT}
def test_third(kitt_load):
    {SHORT}
"""
SLEEPS = """
import time
def test_sleeps(kitt_engine):
    time.sleep(300)
"""


def run(pytester: pytest.Pytester, test: str, *args: str) -> pytest.RunResult:
    """A session in a process of its own, on one file."""
    pytester.makepyfile(test_it=test)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args, "test_it.py")


def stored() -> list[dict[str, Any]]:
    """The results of the last run, in order."""
    with opened("") as engine, engine.connect() as connection:
        return list(reader.show_run(connection, "last")["results"])


def outcomes() -> list[str]:
    """Of the last run, in order."""
    return [result["outcome"] for result in stored()]


def kept(result: dict[str, Any]) -> int:
    """Good requests that a result holds."""
    return next((int(m["n"]) for m in result["metrics"] if m["name"] == "ttft_ms"), 0)


def test_killed_under_load(pytester: pytest.Pytester) -> None:
    """The item is an error with the log's end and what was measured; the cell's other items skip and name it."""
    result = run(pytester, TWO, *FAST, "--kitt-engine-arg=die_at=40", "--junitxml=j.xml")
    assert result.ret == 1
    result.assert_outcomes(errors=1, skipped=2)
    result.stdout.fnmatch_lines(
        ["EngineDiedError: simulated was killed by signal 9 (SIGKILL) after it had been ready*", "*request 40: SIGKILL"]
    )
    first, second, third = stored()
    assert (first["outcome"], second["outcome"], third["outcome"]) == ("error", "skipped", "skipped")
    assert "killed by signal 9" in first["reason"]
    assert kept(first) > 10
    assert first["samples"]
    assert first["params"]["load"] == "closed:4"
    assert second["reason"] == f"the engine of simulated-simulated died in {first['nodeid']}, see there"
    assert 'errors="1"' in (pytester.path / "j.xml").read_text()


def test_stopped_under_load_and_started_again(pytester: pytest.Pytester) -> None:
    """An engine that hangs is noticed; with --kitt-restart=1 the next item has a new one, which is said and stored."""
    result = run(pytester, TWO, *FAST, "--kitt-engine-arg=hang_at=40", "--kitt-restart=1")
    result.assert_outcomes(errors=1, passed=2)
    result.stdout.fnmatch_lines(
        [
            "EngineDiedError: simulated does not answer any more: its process * runs, but */health failed 3 times*",
            "*request 40: SIGSTOP",
            "*second: on start 2 of the engine: simulated does not answer any more*",
        ]
    )
    first, second, third = stored()
    assert kept(first) > 10
    assert "engine_starts" not in first["params"]
    assert second["params"]["engine_starts"] == third["params"]["engine_starts"] == 2


def test_restarts_are_counted(pytester: pytest.Pytester) -> None:
    """A second death is not followed by a third start when one restart was asked for."""
    loads = "\n".join(f"def test_{number}(kitt_load):\n    {LONG}" for number in range(4))
    result = run(pytester, loads, *FAST, "--kitt-engine-arg=die_at=20", "--kitt-restart=1")
    result.assert_outcomes(errors=2, skipped=2)
    assert outcomes() == ["error", "error", "skipped", "skipped"]
    assert "test_1" in stored()[3]["reason"]


@pytest.mark.parametrize("restart", [0, 1])
def test_dead_between_two_items(pytester: pytest.Pytester, restart: int) -> None:
    """The item before has passed; the one after is an error at set-up, or has a new engine."""
    result = run(pytester, KILLED_BETWEEN, *FAST, f"--kitt-restart={restart}")
    if restart:
        result.assert_outcomes(passed=3)
        assert [found["params"].get("engine_starts") for found in stored()] == [None, 2, 2]
        return
    result.assert_outcomes(passed=1, errors=1, skipped=1)
    result.stdout.fnmatch_lines(["*ERROR at setup of test_second*", "EngineDiedError: *killed by signal 9*"])
    assert "test_second" in stored()[2]["reason"]


def test_the_other_cells_go_on(pytester: pytest.Pytester) -> None:
    """Of two cells one dies."""
    test = f"""
import os, threading
def test_dies(kitt_engine, kitt_load):
    if kitt_engine.cell.model.name == "one":
        threading.Timer(1, os.kill, (kitt_engine.pid, 9)).start()
        {LONG}
    {SHORT}
def test_other(kitt_load):
    {SHORT}
"""
    result = run(pytester, test, *FAST, "--kitt-model=one,two")
    result.assert_outcomes(errors=1, skipped=1, passed=2)
    assert outcomes() == ["error", "skipped", "passed", "passed"]


def test_an_untimed_request_says_so_too(pytester: pytest.Pytester) -> None:
    """Not that the connection was reset, but why."""
    test = "def test_asks(kitt_engine):\n    kitt_engine.generate('hello', max_tokens=4)\n"
    result = run(pytester, test, *FAST, "--kitt-engine-arg=die_at=1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["EngineDiedError: simulated was killed by signal 9 (SIGKILL)*", "*request 1: SIGKILL"])


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """A simulated engine that already runs."""
    command = [sys.executable, "-m", "pytest_kitt.engine.simulated", "--ttft-ms", "20", "--itl-ms", "2", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.kill()


def test_a_server_of_others_dies(pytester: pytest.Pytester) -> None:
    """There is no process to look at and no log, but the health path."""
    with serving("--die-at", "40") as url:
        result = run(pytester, TWO, f"--kitt-url={url}")
    result.assert_outcomes(errors=1, skipped=2)
    result.stdout.fnmatch_lines([f"EngineDiedError: openai does not answer any more: {url}/v1/models failed 3 times*"])
    assert kept(stored()[0]) > 10


def test_an_item_of_too_long_a_load(pytester: pytest.Pytester) -> None:
    """It is an error with what was measured, and the engine serves the next item."""
    test = f"""
def test_pid(kitt_engine):
    global pid
    pid = kitt_engine.pid
def test_long(kitt_load):
    {LONG}
def test_next(kitt_engine, kitt_load):
    assert kitt_engine.pid == pid
    {SHORT}
"""
    result = run(pytester, test, *FAST, "--kitt-item-timeout=8")
    result.assert_outcomes(errors=1, passed=2)
    result.stdout.fnmatch_lines(
        ["ItemTimeoutError: the item took longer than 8 s (--kitt-item-timeout), at test_it.py:5"]
    )
    long = stored()[1]
    assert long["outcome"] == "error"
    assert kept(long) > 10


SLOW_SETUP = """
import time, pytest
@pytest.fixture
def slow():
    time.sleep(300)
def test_it(kitt_engine, slow):
    pass
"""
SLOW_TEARDOWN = """
import time, pytest
@pytest.fixture
def slow():
    yield
    time.sleep(300)
def test_it(kitt_engine, slow):
    pass
"""
SWALLOWS = """
import time
def test_it(kitt_engine):
    try:
        time.sleep(300)
    except Exception:
        time.sleep(300)
"""
PHASES = {
    "call": (SLEEPS, (), "ERROR at measurement of test_sleeps", "at test_it.py:3"),
    "engine": (SLEEPS, ("--kitt-engine-arg=--load-ms=300000",), "ERROR at setup of test_sleeps", ""),
    "set-up": (SLOW_SETUP, (), "ERROR at setup of test_it", "at test_it.py:4"),
    "tear-down": (SLOW_TEARDOWN, (), "ERROR at teardown of test_it", "at test_it.py:5"),
    "swallowed": (SWALLOWS, (), "ERROR at measurement of test_it", "at test_it.py:6"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_an_item_that_never_ends(pytester: pytest.Pytester, phase: str) -> None:
    """In each phase, in Python or while the engine starts; and again, if the test has swallowed the error."""
    test, args, headline, where = PHASES[phase]
    if phase == "swallowed":
        pytester.makeconftest("import pytest_kitt.limit\npytest_kitt.limit._AGAIN_S = 0.5\n")
    result = run(pytester, test, *FAST, *args, "--kitt-item-timeout=6")
    assert result.ret == 1
    assert result.parseoutcomes()["errors"] == 1
    result.stdout.fnmatch_lines([f"*{headline}*", f"ItemTimeoutError: *{where}"])
    assert outcomes() == ["error"]


def test_a_limit_is_no_business_of_other_tests(pytester: pytest.Pytester) -> None:
    """A test that uses nothing of ours may take its time; the handler of the signal is put back."""
    pytester.makeconftest(
        """
        import signal
        def pytest_sessionfinish():
            print("handler is default:", signal.getsignal(signal.SIGVTALRM) == signal.SIG_DFL)
        """
    )
    test = "import time\ndef test_engine(kitt_engine): pass\ndef test_plain(): time.sleep(7)\n"
    result = run(pytester, test, *FAST, "--kitt-item-timeout=6", "-s")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*handler is default: True*"])


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_ours_first_beside_pytest_timeout(pytester: pytest.Pytester, method: str) -> None:
    """Neither knows of the other."""
    pytest.importorskip("pytest_timeout")
    both = ("--timeout=100", f"--timeout-method={method}", "--kitt-item-timeout=6")
    result = run(pytester, f"{SLEEPS}\ndef test_next(kitt_load):\n    {SHORT}\n", *FAST, *both)
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["ItemTimeoutError: *"])


def test_pytest_timeout_first_by_its_signal(pytester: pytest.Pytester) -> None:
    """The item fails by pytest-timeout's word and keeps what was measured; the next one runs."""
    pytest.importorskip("pytest_timeout")
    both = ("--timeout=8", "--timeout-method=signal", "--kitt-item-timeout=100")
    test = f"def test_long(kitt_load):\n    {LONG}\ndef test_next(kitt_load):\n    {SHORT}\n"
    result = run(pytester, test, *FAST, *both)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*Timeout (>8.0s) from pytest-timeout*"])
    assert kept(stored()[0]) > 10


def test_pytest_timeout_first_by_its_thread(pytester: pytest.Pytester) -> None:
    """It ends the process on the spot: nothing of ours stays behind, and the store has what came before."""
    pytest.importorskip("pytest_timeout")
    both = ("--timeout=8", "--timeout-method=thread", "--kitt-item-timeout=100")
    test = f"def test_before(kitt_load):\n    {SHORT}\ndef test_long(kitt_load):\n    {LONG}\n"
    result = run(pytester, test, *FAST, *both)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*Timeout*"])
    assert outcomes() == ["passed", "error"], "what had not ended"
    assert (Path(os.environ["KITT_HOME"]) / "kitt.db").exists()
