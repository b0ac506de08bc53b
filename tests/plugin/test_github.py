"""What does a session leave on GitHub? The variables of a job are set, and read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=5", "--kitt-engine-arg=itl_ms=1")
TESTS = """
def test_good(kitt_load):
    assert kitt_load("closed:1", "synthetic:8:4", "requests:6").failed == 0

def test_bad(kitt_load):
    result = kitt_load("closed:1", "synthetic:8:4", "requests:6")
    raise AssertionError("50%, or <b>so</b>")  # pytest 8.2 cannot explain an assert without its terminal

def test_none(kitt_load):
    assert kitt_load("closed:1", "synthetic:8:4", "requests:6").ttft_ms.p99 < 1000
"""


@pytest.fixture
def github(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The summary of a job whose repository is the folder of the tests' folder."""
    folder = pytester.path / "bench"
    folder.mkdir()
    (folder / "test_a.py").write_text(TESTS)
    (pytester.path / "pytest.ini").write_text("[pytest]\n")
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    return summary


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


@pytest.mark.parametrize("extra", [(), ("-q",), ("-n2",), ("-p", "no:terminal")], ids=["plain", "quiet", "n2", "bare"])
def test_summary_and_annotations(pytester: pytest.Pytester, github: Path, extra: tuple[str, ...]) -> None:
    """The run's Markdown is appended to the summary, and what did not pass stands at its test's line; exit code 1."""
    github.write_text("before\n")
    result = run(pytester, *FAST, *extra, "bench")
    assert result.ret == 1
    said = github.read_text()
    assert said.startswith("before\n## kitt: 1 failed, 1 invalid, 1 passed\n")
    assert re.search(r"^\| `good` \|.*\| PASSED \|$", said, re.MULTILINE)
    assert re.search(r"^\| `bad` \|.*\| FAILED \|$", said, re.MULTILINE)
    assert "<b>so</b>" in re.search(r"^ *- \*\*FAILED\*\* `bad`[^#]*", said, re.MULTILINE)[0]  # type: ignore[index]
    commands = [line for line in result.outlines if line.startswith("::")]
    bad = "file=bench/test_a.py,line=5,title=FAILED%3A bad on simulated-simulated::AssertionError: 50%25, or <b>so</b>"
    none = "file=bench/test_a.py,line=9,title=INVALID%3A none on simulated-simulated::"
    assert len(commands) == 2
    assert any(line.startswith(f"::error {bad}") for line in commands)
    assert any(line.startswith(f"::error {none}") and "ttft_ms.p99" in line for line in commands)
    assert result.outlines[-2:] == commands


def test_a_step_of_several_sessions(pytester: pytest.Pytester, github: Path) -> None:
    """Each session appends its own; one that goes on with a run shows the whole of it, and annotates what it did."""
    good = "--kitt-benchmark=good"
    assert run(pytester, *FAST, good, "bench").ret == 0
    resumed = run(pytester, *FAST, "--kitt-resume=last", "bench")
    assert resumed.ret == 1
    assert re.findall(r"^## kitt: (.*)$", github.read_text(), re.MULTILINE) == [
        "1 passed",
        "1 failed, 1 invalid, 1 passed",
    ]
    assert len([line for line in resumed.outlines if line.startswith("::error")]) == 2


def test_without_results_nothing_is_written(pytester: pytest.Pytester, github: Path) -> None:
    """A collection, a dry run and a session without anything of ours leave no summary and no command."""
    (pytester.path / "bench" / "test_b.py").write_text("def test_plain():\n    assert False\n")
    sessions = (
        (*FAST, "--collect-only", "bench/test_a.py"),
        (*FAST, "--kitt-dry-run", "bench/test_a.py"),
        ("bench/test_b.py",),
    )
    for args in sessions:
        assert not [line for line in run(pytester, *args).outlines if line.startswith("::")]
        assert not github.exists()


def test_elsewhere_nothing_of_it(pytester: pytest.Pytester, github: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables set to nothing switch it off; either works without the other."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "")
    only_commands = run(pytester, *FAST, "bench")
    assert len([line for line in only_commands.outlines if line.startswith("::error")]) == 2
    assert not github.exists()
    monkeypatch.setenv("GITHUB_ACTIONS", "")
    assert not [line for line in run(pytester, *FAST, "bench").outlines if line.startswith("::")]


@pytest.mark.parametrize("how", ["folder", "full"])
def test_a_summary_that_cannot_be_written(pytester: pytest.Pytester, github: Path, how: str) -> None:
    """It is a warning, and changes no exit code; where the file is full already nothing is cut in half."""
    if how == "folder":
        github.mkdir()
    else:
        github.write_bytes(b"x" * (1 << 20))
    result = run(pytester, *FAST, "--kitt-benchmark=good", "bench")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["kitt: the summary for GitHub could not be written: *"])
    assert how == "folder" or github.stat().st_size == 1 << 20
