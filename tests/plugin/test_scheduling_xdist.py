"""Does a cell stay on one worker in real sessions of pytest-xdist, whichever worker is killed, and when?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("xdist")

CONFTEST = """
import os, re, signal, time
from pathlib import Path
import pytest

CELLS = ["a1", "b3", "c2", "d2"]
HERE, WORKER = Path(__file__).parent, os.environ.get("PYTEST_XDIST_WORKER", "")


def note(*words):
    with (HERE / "notes.txt").open("a") as notes:
        notes.write(" ".join((*words, WORKER)) + "\\n")


def dies(where):
    if where in os.environ.get("DIES", "").split():
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from pytest_kitt.scheduling import cells_to_workers

    cell = re.compile(r"cell=(\\w+)")
    return cells_to_workers(
        config, log,
        cell_of=lambda nodeid: found[1] if (found := cell.search(nodeid)) else None,
        demand=lambda cell: int(cell[1:]),
    )


def pytest_sessionstart(session):
    dies(f"start:{WORKER}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_finish(session):
    dies(f"collect:{WORKER}")
    yield  # xdist tells the controller
    dies(f"collected:{WORKER}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    mark = HERE / f"{item.name}.died"
    if f"before:{item.name}" in os.environ.get("DIES", "").split() and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return (yield)


def pytest_sessionfinish(session):
    note("finish")


def pytest_generate_tests(metafunc):
    if "engine" in metafunc.fixturenames:
        cells = CELLS[: int(os.environ.get("NUMBER", 4))]
        odd = WORKER if WORKER == os.environ.get("ODD") else ""
        ids = [f"cell={cell}{odd}" for cell in cells]
        metafunc.parametrize("engine", cells, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def engine(request):
    note("engine", request.param)


@pytest.fixture(autouse=True)
def item(request):
    note("begin", request.node.name)
    deadline = time.monotonic() + 30
    while request.node.name in os.environ.get("WAITS", "") and time.monotonic() < deadline:
        if "finish" in (HERE / "notes.txt").read_text():
            break
        time.sleep(0.02)
    dies(request.node.name)
    assert request.node.name not in os.environ.get("FAILS", "").split()
"""
TESTS = """
def test_first(engine): pass
def test_middle(engine): pass
def test_last(engine): pass
"""
PLAIN = """
def test_plain(): pass
def test_simple(): pass
"""
ITEMS = 3 * 4 + 2


class Notes:
    """What the workers wrote, in the order of time."""

    def __init__(self, path: Path) -> None:
        lines = (path / "notes.txt").read_text().splitlines() if (path / "notes.txt").exists() else []
        words = [line.split() for line in lines]
        self.engines = Counter(line[1] for line in words if line[0] == "engine")
        self.begun = [(line[1], line[2]) for line in words if line[0] == "begin"]

    def of(self, worker: str) -> list[str]:
        """The items of a worker."""
        return [name for name, on in self.begun if on == worker]

    def workers(self, cell: str) -> list[str]:
        """Who ran items of a cell."""
        return list(dict.fromkeys(on for name, on in self.begun if f"cell={cell}]" in name))


def run(pytester: pytest.Pytester, *args: str, **variables: str) -> tuple[pytest.RunResult, Notes]:
    """A session with four cells of three items each and a file of two items."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_cells=TESTS, test_plain=PLAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_XDIST_WORKER", raising=False)  # if these tests run on workers themselves
        for name, value in variables.items():
            patch.setenv(name, value)
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *args, timeout=100)
    notes = Notes(pytester.path)
    assert len(notes.begun) == len(dict(notes.begun)), "something ran twice"
    return result, notes


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_one_start_per_cell(pytester: pytest.Pytester, workers: int) -> None:
    """For any -n; the biggest cell is the first of all."""
    result, notes = run(pytester, f"-n{workers}")
    result.assert_outcomes(passed=ITEMS)
    assert notes.engines == Counter(["a1", "b3", "c2", "d2"])
    assert notes.of(notes.workers("b3")[0])[:3] == [f"test_{name}[cell=b3]" for name in ("first", "middle", "last")]
    assert {len(notes.workers(cell)) for cell in notes.engines} == {1}


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_worker_is_killed_in_an_item(pytester: pytest.Pytester, where: str) -> None:
    """The item is reported and not repeated; the rest of its cell is the first thing that the replacement does."""
    result, notes = run(pytester, "-n2", DIES=f"test_{where}[cell=c2]")
    result.assert_outcomes(passed=ITEMS - 1, failed=1)
    result.stdout.fnmatch_lines([f"worker 'gw?' crashed while running '*::test_{where}?cell=c2?'"])
    assert len(notes.begun) == ITEMS
    assert notes.engines == Counter(["a1", "b3", "c2", "d2", *(["c2"] if where != "last" else [])])
    if where != "last":
        assert notes.workers("c2")[1] == "gw2"
        assert "c2" in notes.of("gw2")[0]


def test_the_replacement_is_killed_too(pytester: pytest.Pytester) -> None:
    """Two items are reported, all others end."""
    result, notes = run(pytester, "-n2", DIES="test_first[cell=b3] test_middle[cell=b3]")
    result.assert_outcomes(passed=ITEMS - 2, failed=2)
    assert notes.engines == Counter({"b3": 3, "a1": 1, "c2": 1, "d2": 1})
    assert notes.workers("b3")[1:] == ["gw2", "gw3"]


def test_the_only_worker_is_killed(pytester: pytest.Pytester) -> None:
    """With -n1 the replacement runs everything that is left."""
    result, notes = run(pytester, "-n1", DIES="test_middle[cell=c2]")
    result.assert_outcomes(passed=ITEMS - 1, failed=1)
    assert notes.of("gw1")[0] == "test_last[cell=c2]"


def test_a_worker_is_killed_when_the_others_have_ended(pytester: pytest.Pytester) -> None:
    """The replacement runs the rest of the cell."""
    name = "test_first[cell=b3]"
    result, notes = run(pytester, "-n2", "test_cells.py", NUMBER="2", WAITS=name, DIES=name)
    result.assert_outcomes(passed=5, failed=1)
    assert notes.of("gw2") == ["test_middle[cell=b3]", "test_last[cell=b3]"]


@pytest.mark.parametrize("where", ["start:gw1", "start:gw0 start:gw1", "collect:gw0 collect:gw2", "collected:gw1"])
def test_a_worker_is_killed_before_it_has_work(pytester: pytest.Pytester, where: str) -> None:
    """Its replacement does what it would have done."""
    result, notes = run(pytester, "-n2", DIES=where)
    result.assert_outcomes(passed=ITEMS)
    assert set(notes.engines.values()) == {1}


def test_a_worker_is_killed_between_items(pytester: pytest.Pytester) -> None:
    """No item had begun, so none is reported, and none is lost."""
    result, notes = run(pytester, "-n2", DIES="before:test_middle[cell=c2] before:test_first[cell=a1]")
    result.assert_outcomes(passed=ITEMS)
    assert notes.engines == Counter({"c2": 2, "a1": 1, "b3": 1, "d2": 1})


def test_maxfail(pytester: pytest.Pytester) -> None:
    """The first failure ends the session: no further cell begins."""
    result, notes = run(pytester, "-n1", "--maxfail=1", FAILS="test_middle[cell=b3]")
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])
    result.assert_outcomes(passed=1, errors=1)
    assert set(notes.engines) == {"b3"}


def test_no_replacements(pytester: pytest.Pytester) -> None:
    """The other worker finishes what it has."""
    result, notes = run(pytester, "-n2", "--max-worker-restart=0", DIES="test_first[cell=b3]")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*worker restarting disabled*"])
    assert result.parseoutcomes()["failed"] == 1
    assert notes.engines["b3"] == 1
    assert {f"test_{name}[cell=c2]" for name in ("first", "middle", "last")} <= dict(notes.begun).keys()


def test_different_collections(pytester: pytest.Pytester) -> None:
    """Nothing runs, and the difference is shown."""
    result, notes = run(pytester, "-n2", ODD="gw1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["Different tests were collected between gw? and gw?*", "*cell=a1gw1*"])
    assert not notes.begun


def test_a_replacement_collects_something_else(pytester: pytest.Pytester) -> None:
    """The session ends with that error."""
    result, notes = run(pytester, "-n1", ODD="gw1", DIES="test_first[cell=b3]")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["Different tests were collected between gw0 and gw1*"])
    assert len(notes.begun) == 1


def test_more_workers_than_cells(pytester: pytest.Pytester) -> None:
    """Idle workers end."""
    result, notes = run(pytester, "-n3", "test_cells.py", NUMBER="1")
    result.assert_outcomes(passed=3)
    assert notes.engines == Counter({"a1": 1})


def test_nothing_to_do(pytester: pytest.Pytester) -> None:
    """No items: pytest's own exit code."""
    result, _ = run(pytester, "-n2", "-k", "nothing")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_other_modes_are_left_to_xdist(pytester: pytest.Pytester) -> None:
    """The hook answers for -n alone."""
    result, _ = run(pytester, "-n2", "--dist=loadfile", "test_plain.py")
    result.assert_outcomes(passed=2)


def test_a_mistake_that_only_workers_see(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence is the one of a session without workers, and so is the exit code."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makepyfile(test_mine="def test_mine(kitt_engine):\n    pass\n")
    typo = ("-p", "no:cacheprovider", "--kitt-engine=simulated", "--kitt-benchmark=mime", "test_mine.py", "-n2")
    refused = pytester.runpytest_subprocess(*typo)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stdout.fnmatch_lines(["*kitt: --kitt-benchmark: 'mime' is unknown; did you mean 'mine'*"])
    fixture = pytester.runpytest_subprocess("-p", "no:cacheprovider", "test_mine.py", "-n2")
    assert fixture.ret == pytest.ExitCode.USAGE_ERROR
    fixture.stdout.fnmatch_lines(["*kitt: under pytest-xdist say on the command line what to measure*"])
    for result in (refused, fixture):
        result.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_workers_without_xdist(pytester: pytest.Pytester) -> None:
    """The sentence names the pip command."""
    pytester.makepyfile(
        sitecustomize="import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'xdist' else find(name, *a)\n"
    )
    pytester.makepyfile(test_mine="def test_mine():\n    pass\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(pytester.path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-n2", "test_mine.py"]
    done = subprocess.run(command, cwd=pytester.path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "-n needs pytest-xdist: pip install 'pytest-kitt[xdist]'" in done.stderr
