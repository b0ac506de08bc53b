"""Does a session leave its files, however it ends?"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from pytest_kitt import shipped
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

SPEED = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=5", "--kitt-engine-arg=itl_ms=1")
BROWSER = """
from pytest_kitt.report import html

html.render = lambda found, blocks: found["run"]["id"]  # it has tests of its own
"""
CARD = """
name: mine
description: The simulated engine behind a flag of its own
default_model: whatever
runtimes:
  process:
    command: ["{python}", mine.py, --model, "{model_name}", --host, "{host}", --port, "0"]
    announces: true
arguments:
  api_key: {flag: --api-key, default: none, help: Key}
health: /health
synthetic: true
"""
SHIM = """
import runpy
import sys

at = sys.argv.index("--api-key")
del sys.argv[at : at + 2]
runpy.run_module("pytest_kitt.engine.simulated", run_name="__main__", alter_sys=True)
"""
SIGNAL = """
import os, signal
from pytest_kitt.report import outputs

lines = outputs.lines

def interrupted(blocks):
    os.kill(os.getpid(), signal.SIGINT)
    yield from lines(blocks)

outputs.lines = interrupted
"""
EVERY_OUTCOME = """
import os

import pytest
from pytest_kitt import Inconclusive, InvalidMeasurement

def test_good(kitt_load, kitt_measure):
    kitt_load("closed:1", "synthetic:8:4", "requests:4")

def test_bad(kitt_load):
    kitt_load("closed:1", "synthetic:8:4", "requests:12")
    assert os.path.exists("good"), "too slow: <&> \\x1b[31m\\x01"

def test_invalid(kitt_engine):
    raise InvalidMeasurement("it cannot be trusted")

def test_unsure(kitt_engine):
    raise Inconclusive("too few")

def test_skipped(kitt_engine):
    pytest.skip("not here")
"""
LONG = """
def test_long(kitt_load):
    kitt_load("closed:1", "synthetic:8:4", "requests:6")
    kitt_load("closed:1", "synthetic:8:8", "requests:100000", label="long")
"""
FILES = ["config.json", "hardware.json", "junit.xml", "metrics.json", "outputs", "report.html", "summary.md"]


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    pytester.makeconftest(BROWSER)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *SPEED, *args)


def read(folder: Path) -> dict[str, Any]:
    """What lies in a folder: every JSON file, and every line, fits its schema."""
    assert sorted(path.name for path in folder.iterdir()) == FILES
    found = {}
    for name in ("metrics", "hardware", "config"):
        found[name] = json.loads((folder / f"{name}.json").read_bytes())
        jsonschema.validate(found[name], schema(name), cls=jsonschema.Draft202012Validator)
    line_schema = jsonschema.Draft202012Validator(schema("output-line"))
    found["outputs"] = {}
    for path in sorted((folder / "outputs").iterdir()):
        with gzip.open(path) as lines:
            found["outputs"][f"outputs/{path.name}"] = [json.loads(line) for line in lines]
        for row in found["outputs"][f"outputs/{path.name}"]:
            line_schema.validate(row)
    assert {result["outputs"] for result in found["metrics"]["results"]} - {None} == set(found["outputs"])
    return found


def schema(name: str) -> Any:
    """A shipped schema."""
    return json.loads((shipped.SCHEMAS / f"{name}.schema.json").read_bytes())


def stored() -> dict[str, Any]:
    """The last run."""
    with opened("") as engine, engine.connect() as connection:
        return reader.show_run(connection, "last")


def cases(path: Path) -> dict[tuple[str | None, str | None], tuple[str, dict[str | None, str | None]]]:
    """The cases of a JUnit file: what became of each, and its properties."""
    return {
        (case.get("classname"), case.get("name")): (
            next((f"{e.tag} {e.get('type')}" for e in case if e.tag in ("failure", "error", "skipped")), ""),
            {p.get("name"): p.get("value") for p in case.iter("property")},
        )
        for case in ElementTree.parse(path).iter("testcase")
    }


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_the_quick_suite_leaves_its_files(pytester: pytest.Pytester, workers: str) -> None:
    """All files are there, say what the store says, and JUnit says what pytest's own says."""
    result = run(pytester, "--kitt-suite=quick", "--kitt-output=out", "--junitxml=own.xml", workers)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines([f"files: {pytester.path / 'out'}"])
    found, known = read(pytester.path / "out"), stored()
    for mine, theirs in zip(found["metrics"]["results"], known["results"], strict=True):
        assert mine["nodeid"] == theirs["nodeid"]
        assert mine["metrics"] == theirs["metrics"]
        assert mine["metrics"]
        requests = [row for row in found["outputs"][mine["outputs"]] if "index" in row]
        assert len(requests) == sum(s["n"] for s in theirs["samples"] if s["codec"] != "jsonl")
        good = [row for row in requests if row["phase"] == "measured" and row["failure"] is None]
        (mean,) = [m for m in mine["metrics"] if (m["name"], m["stat"]) == ("e2e_ms", "mean")]
        times = [(row["event_ns"][-1] - row["send_ns"]) / 1e6 for row in good]
        assert sum(times) / len(times) == pytest.approx(mean["value"])
    assert found["config"]["settings"]["engine"] == {"value": ["simulated"], "origin": "cli"}
    assert found["config"]["cells"][0]["argv"][1:4] == ["-P", "-m", "pytest_kitt.engine.simulated"]
    assert found["hardware"]["machine"] == known["run"]["fingerprint"]
    assert known["run"]["id"] in (pytester.path / "out" / "summary.md").read_text().replace("\\", "")
    assert cases(pytester.path / "out" / "junit.xml") == cases(pytester.path / "own.xml")


def test_every_outcome_is_what_pytests_own_junit_makes_of_it(pytester: pytest.Pytester) -> None:
    """A failure, an error, two skips: the same elements, the same counts, and the reasons are well-formed XML."""
    pytester.makepyfile(test_all=EVERY_OUTCOME)
    result = run(pytester, "--kitt-output=out", "--junitxml=own.xml", "test_all.py")
    assert result.ret == 1
    ours, own = cases(pytester.path / "out" / "junit.xml"), cases(pytester.path / "own.xml")
    assert {key: element for key, (element, _) in ours.items()} == {key: element for key, (element, _) in own.items()}
    assert sorted(element for element, _ in ours.values()) == [
        "",
        "error None",
        "failure None",
        "skipped pytest.skip",
        "skipped pytest.xfail",
    ]
    assert ours == own
    counts = [
        {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
        for path in ("out/junit.xml", "own.xml")
        for suite in ElementTree.parse(pytester.path / path).iter("testsuite")
    ]
    assert counts[0] == counts[1]
    reasons = {r["benchmark"]: r["reason"] for r in read(pytester.path / "out")["metrics"]["results"]}
    assert "too slow" in reasons["bad"]


def test_a_resumed_run_replaces_its_files(pytester: pytest.Pytester) -> None:
    """Going on with a run leaves one folder with all of it; {run} is the same as before."""
    pytester.makepyfile(test_all=EVERY_OUTCOME)
    assert run(pytester, "--kitt-output=out/{run}", "test_all.py", "-k", "good or bad").ret == 1
    (folder,) = (pytester.path / "out").iterdir()
    assert folder.name == stored()["run"]["id"]
    first = read(folder)
    assert {r["benchmark"]: r["outcome"] for r in first["metrics"]["results"]} == {"good": "passed", "bad": "failed"}
    (pytester.path / "good").touch()
    again = run(pytester, "--kitt-output=out/{run}", "--kitt-resume=last", "test_all.py", "-k", "good or bad")
    assert again.ret == 0
    assert list((pytester.path / "out").iterdir()) == [folder]
    second = read(folder)
    assert {r["benchmark"]: r["outcome"] for r in second["metrics"]["results"]} == {"good": "passed", "bad": "passed"}
    assert second["metrics"]["run"]["status"] == "passed"
    assert len(second["outputs"]) == 2
    assert second["config"]["reproduce"] == first["config"]["reproduce"]


def test_an_interrupted_session_leaves_its_files(pytester: pytest.Pytester) -> None:
    """Ctrl-C in mid-load: what was measured until then is in the files, and the run says that it was interrupted."""
    pytester.makepyfile(test_it=LONG)
    pytester.makeconftest(BROWSER)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *SPEED, "--kitt-output=out", "test_it.py"]
    session = subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True)
    assert session.stdout is not None
    store = Path(os.environ["KITT_HOME"]) / "kitt.db"
    deadline = time.monotonic() + 60
    while not (store.exists() and _has_samples()) and time.monotonic() < deadline:
        time.sleep(0.05)
    session.send_signal(signal.SIGINT)
    said = session.communicate(timeout=60)[0]
    assert session.returncode == 2, said
    found = read(pytester.path / "out")
    assert found["metrics"]["run"]["status"] == "interrupted"
    (result,) = found["metrics"]["results"]
    assert (result["outcome"], result["benchmark"]) == ("error", "long")
    measured = [row for row in found["outputs"][result["outputs"]] if row["phase"] == "measured"]
    assert len([row for row in measured if row["block"] == 0]) == 6
    assert "files: " in said


def test_a_signal_cuts_only_the_raw_samples_short(pytester: pytest.Pytester) -> None:
    """Ctrl-C while they are written: no half file, everything else is there, and the session says what is not."""
    pytester.makepyfile(test_all=EVERY_OUTCOME)
    pytester.makeconftest(BROWSER + SIGNAL)
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", *SPEED, "--kitt-output=out", "test_all.py", "-k", "good"
    )
    result.stdout.fnmatch_lines(["raw samples are not all in */out, as a signal came*", "files: */out"])
    (found,) = read(pytester.path / "out")["metrics"]["results"]
    assert (found["outcome"], found["outputs"]) == ("passed", None)


def _has_samples() -> bool:
    """Whether something that the last run measured is in the store."""
    with opened("") as engine, engine.connect() as connection:
        if not reader.list_runs(connection, synthetic=True):
            return False
        return any(result["samples"] for result in reader.show_run(connection, "last")["results"])


def test_a_key_on_a_command_line_is_stored_nowhere(pytester: pytest.Pytester) -> None:
    """What is named like a secret is masked in the header, the store and every file; the engine still gets it."""
    secret = "sk-4711"
    pytester.makepyfile(
        test_it="def test_it(kitt_engine):\n    assert '--api-key sk-4711' in ' '.join(kitt_engine.argv)\n"
    )
    home = Path(os.environ["KITT_HOME"])
    (home / "engines").mkdir()
    (home / "engines" / "mine.yaml").write_text(CARD.replace("mine.py", str(pytester.path / "mine.py")))
    (pytester.path / "mine.py").write_text(SHIM)
    pytester.makeconftest(BROWSER)
    result = pytester.runpytest_subprocess(
        *("-p", "no:cacheprovider", "--kitt-engine=mine", "--kitt-output=out", "test_it.py"),
        f"--kitt-engine-arg=api_key={secret}",
    )
    result.assert_outcomes(passed=1)
    assert secret not in result.stdout.str()
    read(pytester.path / "out")
    for path in [*home.rglob("kitt.db*"), *(path for path in (pytester.path / "out").rglob("*") if path.is_file())]:
        assert secret.encode() not in path.read_bytes(), path.name


def test_a_folder_that_cannot_be_used_ends_the_session_before_it_starts(pytester: pytest.Pytester) -> None:
    """Files of others are refused with exit code 4; nothing is started, stored or changed."""
    (pytester.path / "out").mkdir()
    (pytester.path / "out" / "metrics.json").write_text("mine")
    result = run(pytester, "--kitt-output=out")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: kitt: --kitt-output: */out holds metrics.json, which pytest-kitt did not write*"]
    )
    assert (pytester.path / "out" / "metrics.json").read_text() == "mine"
    assert not (Path(os.environ["KITT_HOME"]) / "kitt.db").exists()


def test_files_that_are_asked_for_and_missing_are_no_success(pytester: pytest.Pytester) -> None:
    """When the folder cannot be written in the end, the session says so and its exit code is that of an error."""
    pytester.makepyfile(test_it="def test_it(kitt_engine):\n    open('out', 'w').close()\n")
    result = run(pytester, "--kitt-output=out", "test_it.py")
    assert result.ret == 3
    result.stdout.fnmatch_lines(["kitt: */out could not be written: *"])


def test_nothing_is_left_where_nothing_ran(pytester: pytest.Pytester) -> None:
    """Collection and dry runs leave no folder."""
    for args in (["--collect-only"], ["--kitt-dry-run"], ["-k", "nothing_is_called_so"]):
        run(pytester, "--kitt-output=out", *args)
        assert not (pytester.path / "out").exists()
