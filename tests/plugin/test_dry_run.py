"""Does a dry run say what a session would do and cost, and start nothing?"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.made_models import put, safetensors

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=5", "--kitt-engine-arg=itl_ms=1")
BENCHMARKS = """
import pytest

@pytest.mark.kitt(name="short", requests=5)
@pytest.mark.parametrize("level", [1, pytest.param(2, marks=pytest.mark.kitt(seconds=61))], ids=lambda n: f"c{n}")
def test_short(kitt_load, level):
    kitt_load(f"closed:{level}", "synthetic:8:4", "requests:4")

def test_undeclared(kitt_engine):
    open("started", "w").close()

@pytest.mark.skip(reason="not now")
def test_skipped(kitt_engine):
    pass

def test_plain():
    open("started", "w").close()
"""


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


def plan(result: pytest.RunResult) -> list[str]:
    """What stands below the plan's title, spaces made single."""
    lines = [" ".join(line.split()) for line in result.stdout.lines]
    begin = next(n for n, line in enumerate(lines) if "kitt plan" in line)
    end = next(n for n, line in enumerate(lines) if n > begin and line.startswith("==="))
    return [line for line in lines[begin + 1 : end] if line]


@pytest.mark.parametrize("workers", [(), ("-n", "2"), ("-n", "2", "--dist", "loadfile")], ids=["n0", "n2", "loadfile"])
def test_a_plan_and_nothing_else(pytester: pytest.Pytester, private_home: Path, workers: tuple[str, ...]) -> None:
    """Items with their costs by cell; no test runs, no engine, no worker, no store, exit code 0."""
    if workers:
        pytest.importorskip("xdist")
    pytester.makepyfile(test_mine=BENCHMARKS)
    result = run(pytester, "--kitt-dry-run", *FAST, *workers, "test_mine.py")
    assert result.ret == 0
    head, *rows = plan(result)
    assert head.startswith("simulated-simulated process ")
    assert rows == [
        "benchmark requests time source",
        "short[c1] 5 - declared",
        "short[c2] 5 1 min 01 s declared",
        "undeclared - - unknown",
        "in all: 3 items, 10 requests, about 1 min 01 s; not known: requests of 1 item, time of 2 items",
        "2 more collected: no benchmarks, or skipped by their own marks.",
        f"Earlier runs are not known: there is no store at {private_home / 'kitt.db'} yet.",
        "Nothing was started. Of engine starts only those are counted that an item of an earlier run waited for.",
    ]
    result.stdout.no_fnmatch_line("*<Function*")
    assert not (pytester.path / "started").exists()
    assert list(private_home.iterdir()) == []


def test_estimates_come_from_earlier_runs(pytester: pytest.Pytester, private_home: Path) -> None:
    """The last run on the same cell, or one on another cell; the store is left as it was."""
    pytester.makepyfile(test_mine=BENCHMARKS)
    assert run(pytester, *FAST, "test_mine.py", "-k", "short and c2").ret == 0
    (pytester.path / "started").unlink(missing_ok=True)
    before = (private_home / "kitt.db").read_bytes()
    same, other = (run(pytester, "--kitt-dry-run", "test_mine.py", *more) for more in (FAST, FAST[:1]))
    assert (same.ret, other.ret) == (0, 0)
    for result, source in ((same, "last run"), (other, "other cell")):
        rows = plan(result)
        assert "short[c1] 5 - declared" in rows
        (row,) = (row for row in rows if row.startswith("short[c2]"))
        assert row.endswith(source)
        assert int(row.split()[1]) >= 4 + 2  # measured and warm-up
    assert [file.name for file in private_home.iterdir()] == ["kitt.db"]
    assert (private_home / "kitt.db").read_bytes() == before
    assert not (pytester.path / "started").exists()


def test_impossible_cells_and_servers_that_are_not_there(pytester: pytest.Pytester) -> None:
    """Skips have their reason, a server is not asked, and a database neither."""
    put(pytester.path / "w", {"config.json": {}, "model.safetensors": safetensors()})
    matrix = run(
        pytester, "--kitt-dry-run", "--kitt-suite=quick", "--kitt-engine=llama_cpp,simulated", "--kitt-model=w"
    )
    matrix.stdout.fnmatch_lines(
        ["llama_cpp-w *SKIP: llama_cpp loads gguf*", "simulated-w *4 items", "*latency*22*declared", "in all: 4 items*"]
    )
    away = ("--kitt-url=http://127.0.0.1:1", "--kitt-db=postgresql://me:hush@127.0.0.1:1/x")
    unreachable = run(pytester, "--kitt-dry-run", "--kitt-suite=quick", *away)
    assert unreachable.ret == 0
    unreachable.stdout.fnmatch_lines(["openai-*4 items", "Earlier runs are not known: *is on a server*"])
    unreachable.stdout.no_fnmatch_line("*hush*")  # nor does the header show it


@pytest.mark.parametrize(
    "engines, code, idle",
    [("mine", 4, "mine-any"), ("mine,simulated", 1, "mine-any"), ("mine,other,simulated", 1, "mine-any, other-any")],
)
@pytest.mark.parametrize("shown", [(), ("-p", "no:terminal")], ids=["terminal", "silent"])
def test_what_cannot_start_is_no_success(
    pytester: pytest.Pytester, private_home: Path, engines: str, code: int, idle: str, shown: tuple[str, ...]
) -> None:
    """The cells are named, each with its cure, and the exit code is that of the session: refused, or errors of some."""
    folder = private_home / "engines"
    folder.mkdir()
    for name in ("mine", "other"):
        runtimes = {"process": {"command": [name], "program": f"no-{name}", "install": "get it"}}
        card = {"name": name, "description": "not here", "runtimes": runtimes}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(card))
    pytester.makepyfile(test_mine=BENCHMARKS)
    args = (f"--kitt-engine={engines}", "--kitt-model=any", "test_mine.py")
    result = run(pytester, "--kitt-dry-run", *shown, *args)
    assert result.ret == code
    if not shown:
        assert f"Cannot start: {idle}; see there." in plan(result)
        assert any(line.startswith("mine-any process ") and "no-mine" in line for line in plan(result))
    assert run(pytester, *args).ret == code
    kept_out = run(pytester, "--kitt-dry-run", *args, "-k", "test_plain or simulated")
    assert kept_out.ret == (4 if engines == "mine" else 0)


def test_the_environment_says_so_too(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """KITT_DRY_RUN=1 holds for a session that a fixture alone makes one of ours; a word that is none is exit code 4."""
    pytester.makepyfile(test_mine=BENCHMARKS)
    monkeypatch.setenv("KITT_ENGINE", "simulated")
    monkeypatch.setenv("KITT_DRY_RUN", "1")
    assert len(plan(run(pytester, "test_mine.py"))) > 5
    assert not (pytester.path / "started").exists()
    monkeypatch.setenv("KITT_DRY_RUN", "maybe")
    result = run(pytester, "test_mine.py")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*KITT_DRY_RUN: 'maybe' is neither yes nor no*"])


def test_errors_of_collecting_are_errors(pytester: pytest.Pytester) -> None:
    """A plan of a session that could not begin is no success."""
    pytester.makepyfile(test_mine=BENCHMARKS, test_broken="1 / 0")
    result = run(pytester, "--kitt-dry-run", *FAST, ".")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*ZeroDivisionError*"])


@pytest.mark.parametrize("value", ["'many'", "-1", "True", "1.5"])
def test_a_declaration_is_a_number(pytester: pytest.Pytester, value: str) -> None:
    """Anything else is a sentence that names the test."""
    pytester.makepyfile(
        test_mine=f"import pytest\n@pytest.mark.kitt(requests={value})\ndef test_a(kitt_engine):\n    pass"
    )
    result = run(pytester, "--kitt-dry-run", *FAST, "test_mine.py")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*test_mine.py::test_a*requests=* is no number of requests*"])


def test_a_compose_file_is_read_and_docker_is_not_asked(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cell is known from the file alone."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    pytester.makefile(".yaml", stack="services: {llama: {image: x}}")
    pytester.makepyfile(test_mine="def test_mine(kitt_engine): ...")
    for inert, code in (("--collect-only", 0), ("--kitt-dry-run", 4)):
        result = pytester.runpytest_inprocess(
            "-p", "no:cacheprovider", inert, "--kitt-compose=stack.yaml", "test_mine.py"
        )
        assert result.ret == code
        result.stdout.fnmatch_lines(["*openai-llama (compose)*"])
