"""What do the tests of sessions and of the kitt command share? Lean sessions, a command, a store with runs in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pytest_kitt.cli import app
from pytest_kitt.measure.results import CellFacts, Measurement, Result, Run
from pytest_kitt.store.database import opened
from pytest_kitt.store.writer import StoreWriter

_NEIGHBOURS = ("anyio", "benchmark", "docker", "html", "metadata")


@pytest.fixture(autouse=True)
def lean_sessions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions within tests go without plugins that test_neighbours.py alone is about: a tenth of a session's start."""
    if "pytester" in request.fixturenames:
        request.getfixturevalue("pytester")  # which takes the variable away
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"-p no:{name}" for name in _NEIGHBOURS))


@pytest.fixture
def command() -> tuple[str, ...]:
    """How the command is run in a process of its own."""
    return (sys.executable, "-m", "pytest_kitt.cli")


@pytest.fixture
def kitt(command: tuple[str, ...]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command in a process of its own, into pipes."""

    def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *args], capture_output=True, text=True, check=False, **options)

    return run


@pytest.fixture
def stored() -> Callable[..., None]:
    """Puts a run with one result into the store; one that is running belongs to this process."""
    return _store


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: exit code, stdout, stderr."""

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.main(args)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def _store(
    run_id: str, *, status: str = "passed", engine: str = "llama_cpp", model: str = "tiny", suite: str = "quick"
) -> None:
    synthetic = engine == "simulated"
    started = f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}T00:00:00.000Z"
    argv = ("pytest", f"--kitt-suite={suite}", f"--kitt-engine={engine}", "-k", "not slow and not anything else at all")
    facts = CellFacts(
        key="0" * 12,
        id=f"{engine}-{model}",
        engine=engine,
        engine_version="1",
        runtime="process",
        model={"name": model},
        api="chat",
        overrides={},
        argv=(),
        synthetic=synthetic,
        toy=False,
    )
    result = Result(
        nodeid=f"t.py::test_latency[{engine}-{model}]",
        key="1" * 12,
        cell=facts,
        benchmark="latency",
        version="1",
        category="performance",
        outcome="failed",
        reason="\x1b[31massert 3 < 2\x1b[0m: " + "a reason that goes on and on, " * 9,
        params={"load": "closed:1", "workload": "synthetic:8:8", "stop": "requests:3", "api": "chat", "warmup": 0},
        metrics=(Measurement("ttft_ms", "p50", 12.3, "ms", "lower", 3),),
        started_at=started,
        duration_s=1.0,
    )
    with opened("") as store:
        writer = StoreWriter(store)
        writer.start_run(Run(run_id, started, suite, argv, "0", synthetic, False, {"key": "f"}))
        writer.finish_result(run_id, result)
        if status != "running":
            writer.finish_run(run_id, status, 0)  # type: ignore[arg-type]
