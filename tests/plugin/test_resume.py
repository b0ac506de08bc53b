"""Is a run gone on with, and nothing measured twice?"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

SPEED = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=5", "--kitt-engine-arg=itl_ms=1")
ITEMS = """
import os
import pytest

@pytest.mark.parametrize("level", [1, 2])
def test_load(kitt_load, level):
    result = kitt_load(f"closed:{level}", "synthetic:8:4", "requests:6")
    assert level == 1 or os.path.exists("good")

def test_plain(kitt_measure):
    kitt_measure("answers", 3, unit="count", better="higher")
"""


def run(pytester: pytest.Pytester, *args: str, file: str = "test_items.py") -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *SPEED, file, *args)


def shown(*, every_attempt: bool = False) -> dict[str, Any]:
    """The last run."""
    with opened("") as engine, engine.connect() as connection:
        return reader.show_run(connection, "last", every_attempt=every_attempt)


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_what_failed_is_measured_again(pytester: pytest.Pytester, workers: str) -> None:
    """The rest is not; all of it is one run, with the attempts counted; with nothing left the exit code is 0."""
    pytester.makepyfile(test_items=ITEMS)
    assert run(pytester, workers).ret == 1
    first = shown()
    (pytester.path / "good").touch()
    again = run(pytester, "--kitt-resume", workers)
    assert again.ret == 0
    again.assert_outcomes(passed=1, deselected=0 if workers == "-n2" else 2)
    again.stdout.fnmatch_lines([f"resumed run {first['run']['id']}, which had 2 good results already"])
    second = shown()
    assert second["run"]["id"] == first["run"]["id"]
    assert second["run"]["status"] == "passed"
    by_key = {r["key"]: (r["outcome"], r["attempt"]) for r in second["results"]}
    assert by_key == {r["key"]: ("passed", 1 if r["outcome"] == "passed" else 2) for r in first["results"]}
    assert len(shown(every_attempt=True)["results"]) == 4
    nothing = run(pytester, "--kitt-resume", workers)
    assert nothing.ret == 0
    assert len(shown(every_attempt=True)["results"]) == 4


def test_another_question_is_not_done(pytester: pytest.Pytester) -> None:
    """Another version of a benchmark, another engine argument: measured anew; nothing in common: refused."""
    pytester.makepyfile(test_items=ITEMS)
    (pytester.path / "good").touch()
    assert run(pytester).ret == 0
    other = run(pytester, "--kitt-resume", "--kitt-seed=7")
    assert other.ret == pytest.ExitCode.USAGE_ERROR
    other.stderr.fnmatch_lines(
        ["*nothing of what you name belongs to run *, which was: pytest *give its options again*"]
    )
    pytester.makepyfile(test_items=ITEMS.replace("def test_plain", "@pytest.mark.kitt(version='2')\ndef test_plain"))
    run(pytester, "--kitt-resume").assert_outcomes(passed=1, deselected=2)
    run(pytester, "--kitt-resume", "--kitt-engine-arg=tokens=9").assert_outcomes(passed=2, deselected=1)
    assert len(shown()["results"]) == 6


def test_questions_that_were_answered_are_not_asked_again(pytester: pytest.Pytester) -> None:
    """Kill -9 in the middle of an evaluation: the resumed item asks the rest, and scores all."""
    pytester.makepyfile(test_items="def test_questions(kitt_evaluate):\n    kitt_evaluate(concurrency=1, limit=50)\n")
    slow = ["--kitt-engine-arg=ttft_ms=120"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *SPEED[:1], *slow, "test_items.py"]
    with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        while answered() < 10:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = answered()
    done = subprocess.run([*command, "--kitt-resume"], cwd=pytester.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (found,) = shown()["results"]
    assert found["params"]["questions"] == 50, done.stdout
    assert found["params"]["questions_resumed"] == before
    (accuracy,) = [m for m in found["metrics"] if m["name"] == "accuracy"]
    assert (accuracy["n"], accuracy["value"]) == (50, 1.0)
    assert sum(s["n"] for s in found["samples"] if s["codec"] == "kitt-columns-1") == 50 - before
    assert sum(s["n"] for s in found["samples"] if s["codec"] == "jsonl") == 50


def answered() -> int:
    """How many answers are in the store."""
    path = Path(os.environ["KITT_HOME"]) / "kitt.db"
    if not path.exists():
        return 0
    with opened(str(path)) as engine, engine.connect() as connection:
        if not reader.list_runs(connection, synthetic=True):
            return 0
        rows = [row for r in shown()["results"] for row in reader.read_rows(connection, r["id"])]
    return len(json.loads(json.dumps(rows)))


def test_what_was_never_begun_is_missing(pytester: pytest.Pytester) -> None:
    """A run is interrupted until all that was ever planned has its result, whatever part of it is resumed."""
    pytester.makepyfile(test_items=ITEMS)
    pytester.makeconftest(
        "import os, pytest\ndef pytest_runtest_call(item):\n"
        "    if 'load' in item.name and not os.path.exists('good'):\n        pytest.exit('enough', returncode=2)\n"
    )
    cut = run(pytester)
    assert cut.ret == pytest.ExitCode.INTERRUPTED
    run_id = shown()["run"]["id"]
    cut.stdout.fnmatch_lines([f"3 of 3 results are missing or not good: pytest *--kitt-resume={run_id}"])
    (pytester.path / "good").touch()
    assert run(pytester, "--kitt-resume", "-k", "plain").ret == 0
    assert shown()["run"]["status"] == "interrupted"
    assert run(pytester, "--kitt-resume").ret == 0
    assert shown()["run"]["status"] == "passed"


def test_a_run_that_cannot_be_gone_on_with(pytester: pytest.Pytester) -> None:
    """One sentence each."""
    pytester.makepyfile(test_items=ITEMS)
    (pytester.path / "good").touch()
    assert run(pytester).ret == 0
    unknown = run(pytester, "--kitt-resume=nonsense")
    assert unknown.ret == pytest.ExitCode.USAGE_ERROR
    unknown.stderr.fnmatch_lines(["*there is no run 'nonsense'; the latest are: *"])
    with opened("") as engine, engine.begin() as connection:
        connection.exec_driver_sql("UPDATE fingerprints SET facts = json_set(facts, '$.key', 'elsewhere')")
    other = run(pytester, "--kitt-resume")
    assert other.ret == pytest.ExitCode.USAGE_ERROR
    other.stderr.fnmatch_lines(["*was measured on another machine (elsewhere, this is *"])


def test_two_images_are_not_mixed(pytester: pytest.Pytester) -> None:
    """Refused where what was measured ran in another image; not where the image is named again, nor with no numbers."""
    pytester.makepyfile(test_items=ITEMS)
    (pytester.path / "good").touch()
    assert run(pytester).ret == 0
    contained = ("--kitt-engine=llama_cpp", "--kitt-runtime=container", "--kitt-model=tiny", "--collect-only")

    def resumed(image: str, *args: str) -> pytest.RunResult:
        words = (*contained, f"--kitt-image=llama_cpp={image}", "test_items.py", *args)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *words)

    (key,) = re.findall(r"llama_cpp-tiny  container  (\w{12})  ", resumed("some:1").stdout.str())
    with opened("") as engine, engine.begin() as connection:
        cell = f"key = '{key}', engine = 'llama_cpp', runtime = 'container', image = 'some:1'"
        connection.exec_driver_sql(f"UPDATE cells SET {cell}")  # no Docker is needed for this
        run_id = reader.find_run(connection, "last")
        assert reader.measured_images(connection, run_id) == {key: ["some:1"]}
    other = resumed("some:2", "--kitt-resume")
    assert other.ret == pytest.ExitCode.USAGE_ERROR
    refused = f"*run {run_id} measured llama_cpp-tiny with image some:1, and this session would with some:2: "
    other.stderr.fnmatch_lines([f"{refused}say --kitt-image=llama_cpp=some:1, or begin a new run"])
    assert resumed("some:1", "--kitt-resume").ret == 0
    with opened("") as engine, engine.begin() as connection:
        connection.exec_driver_sql("UPDATE results SET outcome = 'error'")
    assert resumed("some:2", "--kitt-resume").ret == 0
