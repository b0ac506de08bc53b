"""Does --kitt-keep-engine leave one engine to look at, and only when the session ends in order?"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=5", "--kitt-engine-arg=itl_ms=1", "--kitt-keep-engine")
BENCHMARK = """
def test_mine(kitt_engine, kitt_load):
    print("PID", kitt_engine.pid, flush=True)
    kitt_load("closed:2", "synthetic:8:4", "requests:4")
"""


@pytest.fixture(autouse=True)
def nothing_kept(private_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logs go where the test's files go, and a test that fails leaves no engine to the next one."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield
    for file in private_home.glob("kept/*.json"):
        pid = re.search(r'"pid": (\d+)', file.read_text())
        assert pid is not None
        subprocess.run(["kill", "-9", "--", f"-{pid[1]}"], check=False, capture_output=True)


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


def said(result: pytest.RunResult, pattern: str) -> str:
    """What a line of the session says."""
    return next(found[1] for line in result.stdout.lines if (found := re.fullmatch(pattern, line)))


def ends(pid: int) -> bool:
    """Whether a process ends within seconds."""
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}/exe").exists()


def test_the_engine_answers_until_it_is_stopped_as_printed(pytester: pytest.Pytester, private_home: Path) -> None:
    """The engine of the last cell is up, those before are not; later sessions say so until the printed command ran."""
    pytester.makepyfile(test_mine=BENCHMARK)
    result = run(pytester, *FAST, "--kitt-model=one,two", "-s", "test_mine.py")
    assert result.ret == 0
    first, second = (int(line.split()[-1]) for line in result.stdout.lines if "PID" in line)
    url, pid = said(result, r"simulated-two still runs at (\S+)"), int(said(result, r"  pid:  (\d+)"))
    log, command = Path(said(result, r"  log:  (.+)")), said(result, r"  stop: (.+)")
    assert pid == second
    assert ends(first)
    with urllib.request.urlopen(f"{url}/health", timeout=10) as response:
        assert response.status == 200
    assert "url" in log.read_text()
    listed = run(pytester, "--collect-only", *FAST[:-1], "test_mine.py")
    assert said(listed, r"kitt: simulated-two of an earlier session still runs at .*; to stop it: (.+)") == command
    subprocess.run(command, shell=True, check=True)
    assert ends(pid)
    run(pytester, "--collect-only", *FAST, "test_mine.py").stdout.no_fnmatch_line("*still runs*")
    again = run(pytester, *FAST, "test_mine.py")
    subprocess.run(said(again, r"  stop: (.+)"), shell=True, check=True)
    assert ends(int(said(again, r"  pid:  (\d+)")))
    assert len(list(private_home.glob("kept/*.json"))) == 1  # of the first one nothing is known any more


def test_the_engine_of_a_failure_is_kept(pytester: pytest.Pytester) -> None:
    """With -x the session ends in the cell that failed, and its engine is the one to look at."""
    pytester.makepyfile(
        test_mine="def test_mine(kitt_engine):\n    assert kitt_engine.chat('hello', max_tokens=2) is None"
    )
    result = run(pytester, *FAST, "--kitt-model=one,two", "-x", "test_mine.py")
    assert result.ret == 1
    said(result, r"simulated-one still runs at (\S+)")
    subprocess.run(said(result, r"  stop: (.+)"), shell=True, check=True)
    assert ends(int(said(result, r"  pid:  (\d+)")))


def test_an_engine_that_died_is_not_kept(pytester: pytest.Pytester) -> None:
    """Nothing is said of it."""
    pytester.makepyfile(test_mine="import os\ndef test_mine(kitt_engine):\n    os.kill(kitt_engine.pid, 9)")
    result = run(pytester, *FAST, "test_mine.py")
    result.stdout.no_fnmatch_line("*still runs*")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_session_keeps_nothing(
    pytester: pytest.Pytester, private_home: Path, number: signal.Signals
) -> None:
    """Whoever stops the session means the engine too."""
    pytester.makepyfile(test_mine=BENCHMARK.replace("requests:4", "seconds:300"))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", *FAST, "test_mine.py"]
    with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = next(int(line.split()[-1]) for line in process.stdout if "PID" in line)
        time.sleep(0.5)
        process.send_signal(number)
        assert "still runs" not in process.stdout.read()
        assert process.wait(30) in (2, -signal.SIGKILL)
    assert ends(pid)
    assert not list(private_home.glob("kept/*"))
