"""Do other plugins and pytest's own switches get along with benchmarks? One real session each."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=2", "--kitt-engine-arg=itl_ms=1")
PASSES = """
def test_good(kitt_engine, kitt_load):
    assert kitt_load("closed:2", "synthetic:8:4", "requests:10").failed == 0
"""
# one of each outcome
OUTCOMES = """
import pytest
from pytest_kitt import Inconclusive, InvalidMeasurement

def test_good(kitt_load):
    kitt_load("closed:1", "synthetic:8:4", "requests:4")

def test_slow(kitt_load):
    assert kitt_load("closed:1", "synthetic:8:4", "requests:12").ttft_ms.p50 < 0.001

def test_invalid(kitt_engine):
    raise InvalidMeasurement("cannot be trusted")

def test_maybe(kitt_engine):
    raise Inconclusive("between 1 and 3")
"""
# fails at first, passes at the second attempt; both measure
FLAKY = """
from pathlib import Path

def test_flaky(kitt_load, kitt_measure):
    first = not Path("been-here").exists()
    Path("been-here").touch()
    kitt_load("closed:1", "synthetic:8:4", "requests:5")
    kitt_measure("attempts", 1 if first else 2, unit="count", better="none")
    assert not first, "not yet"
"""


@pytest.fixture(autouse=True)
def lean_sessions() -> None:
    """Here all plugins are loaded."""


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess(*FAST, *args)


def stored() -> list[dict[str, Any]]:
    """The results of the last run."""
    with opened("") as engine, engine.connect() as connection:
        return list(reader.show_run(connection, "last", every_attempt=True)["results"])


def outcomes() -> dict[str, str]:
    """The stored outcome of each benchmark."""
    return {result["benchmark"]: result["outcome"] for result in stored()}


ALL = {"good": "passed", "slow": "failed", "invalid": "invalid", "maybe": "inconclusive"}


def test_pytest_cov(pytester: pytest.Pytester) -> None:
    """The user's own code is measured; the client child is not, and its numbers are there."""
    pytest.importorskip("pytest_cov")
    pytester.makepyfile(mine="def asked():\n    return 10\n\ndef unused():\n    return 0", test_mine=PASSES)
    pytester.makepyfile(
        test_mine="""
        import mine
        def test_good(kitt_load):
            result = kitt_load("closed:2", "synthetic:8:4", f"requests:{mine.asked()}")
            assert result.ttft_ms.p50 < 1000
        """
    )
    result = run(pytester, "--cov=mine", "--cov=pytest_kitt", "--cov-report=term-missing", "test_mine.py")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["mine.py * 75%*5"])
    (client,) = (line for line in result.stdout.lines if "load/client/loop.py" in line)
    assert " 0%" in client
    (found,) = stored()
    assert found["outcome"] == "passed"
    assert {"ttft_ms", "output_tps"} <= {metric["name"] for metric in found["metrics"]}


def test_pytest_rerunfailures(pytester: pytest.Pytester) -> None:
    """Each attempt is a result of its own, with its own numbers; pytest's verdict is that of the last one."""
    pytest.importorskip("pytest_rerunfailures")
    pytester.makepyfile(test_mine=FLAKY)
    result = run(pytester, "--reruns=2", "--junitxml=j.xml", "test_mine.py")
    assert result.ret == 0
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}
    result.stdout.fnmatch_lines(["*flaky *FAILED", "*flaky (attempt 2) *PASSED"])
    first, second = stored()
    assert [(r["attempt"], r["outcome"]) for r in (first, second)] == [(1, "failed"), (2, "passed")]
    assert "not yet" in first["reason"]
    for number, found in enumerate((first, second), start=1):
        assert [m["value"] for m in found["metrics"] if m["name"] == "attempts"] == [number]
        assert sum(block["n"] for block in found["samples"]) >= 5
    for case in ElementTree.parse(pytester.path / "j.xml").iter("testcase"):
        assert [p.get("name") for p in case.iter("property")].count("kitt.ttft_ms.p50") == 1


def test_pytest_rerunfailures_and_an_item_that_stays_invalid(pytester: pytest.Pytester) -> None:
    """The last attempt's outcome is the item's; an error is no failure."""
    pytest.importorskip("pytest_rerunfailures")
    pytester.makepyfile(test_mine=OUTCOMES)
    result = run(pytester, "--reruns=1", "-k", "invalid or good", "test_mine.py")
    assert result.ret == 1
    found = [(r["benchmark"], r["attempt"], r["outcome"]) for r in stored()]
    assert found == [("good", 1, "passed"), ("invalid", 1, "invalid"), ("invalid", 2, "invalid")]


def test_pytest_rerunfailures_and_an_engine_that_does_not_start(pytester: pytest.Pytester) -> None:
    """Another attempt at the item is no second start, and no skip that would look like a success."""
    pytest.importorskip("pytest_rerunfailures")
    pytester.makepyfile(test_mine=PASSES + PASSES.replace("good", "next"))
    result = run(pytester, "--reruns=1", "--kitt-engine-arg=--no-such-flag=1", "test_mine.py")
    assert result.ret == 1
    found = [(r["benchmark"], r["attempt"], r["outcome"]) for r in stored()]
    assert found == [("good", 1, "error"), ("good", 2, "error"), ("next", 1, "skipped")]


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_pytest_timeout(pytester: pytest.Pytester, method: str) -> None:
    """An item that takes too long is stopped, its engine and client too; the thread method ends pytest at once."""
    pytest.importorskip("pytest_timeout")
    pytester.makepyfile(
        test_mine="""
        def test_good(kitt_load):
            kitt_load("closed:1", "synthetic:8:4", "requests:4")
        def test_endless(kitt_load):
            kitt_load("closed:1", "synthetic:8:4", "seconds:300")
        def test_next(kitt_load):
            kitt_load("closed:1", "synthetic:8:4", "requests:4")
        """
    )
    result = run(pytester, "--timeout=5", f"--timeout-method={method}", "test_mine.py")
    assert result.ret == 1
    if method == "thread":
        assert outcomes() == {"good": "passed", "endless": "error"}, "what had not ended is an error"
        return
    assert outcomes() == {"good": "passed", "endless": "failed", "next": "passed"}
    assert "Timeout" in next(r["reason"] for r in stored() if r["outcome"] == "failed")


def test_pytest_html(pytester: pytest.Pytester) -> None:
    """The page shows every item with an outcome."""
    pytest.importorskip("pytest_html")
    pytester.makepyfile(test_mine=OUTCOMES)
    result = run(pytester, "--html=page.html", "--self-contained-html", "test_mine.py")
    assert result.ret == 1
    assert outcomes() == ALL
    page = (pytester.path / "page.html").read_text()
    for name in ALL:
        assert f"test_{name}[simulated-simulated]" in page
    assert "cannot be trusted" in page
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


SWITCHES = [
    ("-p", "no:terminal"),
    ("-p", "no:cacheprovider"),
    ("-p", "no:logging"),
    ("-p", "no:junitxml"),
    ("-p", "no:capture"),
    ("-s",),
    ("--capture=sys",),
    ("-p", "xdist", "-n0"),
    ("-n0",),
]


@pytest.mark.parametrize("switches", SWITCHES, ids=" ".join)
def test_switches_of_pytest(pytester: pytest.Pytester, switches: tuple[str, ...]) -> None:
    """Every outcome is what it is without them."""
    if "-n0" in switches:
        pytest.importorskip("xdist")
    pytester.makepyfile(test_mine=OUTCOMES)
    result = run(pytester, *switches, "test_mine.py")
    assert result.ret == 1
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert outcomes() == ALL


@pytest.mark.parametrize("mode", ["--collect-only", "--kitt-dry-run"])
def test_a_matrix_without_a_terminal(pytester: pytest.Pytester, mode: str) -> None:
    """There is nobody to show it to, and that is no error."""
    pytester.makepyfile(test_mine=OUTCOMES)
    assert run(pytester, "-p", "no:terminal", mode, "test_mine.py").ret == 0


def test_last_failed(pytester: pytest.Pytester) -> None:
    """--lf runs what failed and what was invalid again, and nothing else."""
    pytester.makepyfile(test_mine=OUTCOMES)
    assert run(pytester, "test_mine.py").ret == 1
    assert run(pytester, "--lf", "test_mine.py").ret == 1
    assert outcomes() == {"slow": "failed", "invalid": "invalid"}


def test_stepwise(pytester: pytest.Pytester) -> None:
    """--sw stops at a failure and goes on from there."""
    pytester.makepyfile(test_mine=OUTCOMES)
    assert run(pytester, "--sw", "test_mine.py").ret == 2
    assert outcomes() == {"good": "passed", "slow": "failed"}
    assert run(pytester, "--sw", "--sw-skip", "test_mine.py").ret == 2
    assert outcomes() == {"slow": "failed", "invalid": "invalid"}


def test_exit_first(pytester: pytest.Pytester) -> None:
    """-x stops at the first failure: the run is there, with what there was until then."""
    pytester.makepyfile(test_mine=OUTCOMES)
    assert run(pytester, "-x", "test_mine.py").ret == 1
    assert outcomes() == {"good": "passed", "slow": "failed"}
