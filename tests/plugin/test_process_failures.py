"""What does one see of an engine that is a process and does not start, or does not stay? The table of failures."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import cards, shipped
from pytest_kitt.engine.start import Place, started
from pytest_kitt.engine.watchdog import marked
from pytest_kitt.errors import EngineStartError, UserError
from pytest_kitt.matrix import build
from pytest_kitt.settings import Settings
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened
from tests.doubles.installed import install
from tests.made_models import gguf, put, safetensors

FOREIGN = b"\x7fELF\2\1\1".ljust(16, b"\0") + b"\2\0\0\xf0".ljust(48, b"\0")  # of a machine that there is not
SMALL = (("context", "512"), ("parallel", "1"), ("threads", "1"))
HUGE = (("context", "3000000"), ("parallel", "1"), ("threads", "1"))


def refused(folder: Path, engine: str, model: str, **settings: Any) -> EngineStartError:
    """Why a process did not become an engine; nothing of it is left when that is told, and time was not up."""
    asked = Settings(engine=(engine,), runtime="process", model=(model,), **settings)
    known = cards.load_engines()
    (cell,) = build(asked, known)
    mark = uuid.uuid4().hex
    with pytest.raises(EngineStartError) as caught, started(cell, known[engine], asked, Place(folder, mark)):
        pass
    assert marked(mark) == []
    return caught.value


def preceded(program: Path, *lines: str) -> None:
    """Lets a program of a shell do something before it begins."""
    first, _, rest = program.read_text().partition("\n")
    program.write_text("\n".join((first, *lines, rest)))


def models(folder: Path) -> dict[str, str]:
    """Models that cannot be served, and one that can."""
    put(folder, {"hollow.gguf": gguf(), "good.gguf": shipped.TINY_MODEL.read_bytes()})
    put(folder, {"cut.gguf": shipped.TINY_MODEL.read_bytes()[:200_000]})
    put(folder, {"other/model.safetensors": safetensors(), "other/config.json": {"architectures": ["A"]}})
    return {path.stem: str(path) for path in folder.iterdir()}


# -- before it is ready


def test_a_program_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refused(tmp_path, "llama_cpp", "tiny")
    assert error.kind == "missing"
    assert "needs the program llama-server on the PATH: take a release of https://" in str(error)


def test_a_program_for_another_machine(tmp_path: Path, llama_server: Path) -> None:
    """The kernel does not run it."""
    llama_server.write_bytes(FOREIGN)
    error = refused(tmp_path, "llama_cpp", "tiny")
    assert error.kind == "architecture"
    assert str(error) == "llama-server cannot be run: it is for another architecture, or no program"


def test_one_that_ends_at_once(tmp_path: Path, llama_server: Path) -> None:
    """With what it said last."""
    llama_server.write_text("#!/bin/sh\necho 'not today'\nexit 3\n")
    error = refused(tmp_path, "llama_cpp", "tiny")
    assert (error.kind, error.log_tail) == ("died", "not today")
    assert str(error).splitlines()[0] == "llama_cpp ended with exit code 3 before it was ready"


def test_memory_that_it_may_not_have(tmp_path: Path, llama_server: Path) -> None:
    """The real server says what it could not allocate."""
    preceded(llama_server, "ulimit -v 2000000")
    error = refused(tmp_path, "llama_cpp", "tiny", engine_arg=HUGE)
    assert error.kind == "memory"
    assert str(error).splitlines()[0].endswith("before it was ready: there is not enough memory")
    assert "failed to allocate" in error.log_tail


def test_a_model_of_another_format(tmp_path: Path, llama_server: Path) -> None:
    """Told before anything starts; by force the engine refuses it."""
    assert llama_server.exists()
    model = models(tmp_path / "models")["other"]
    with pytest.raises(UserError, match="llama_cpp loads gguf and other is safetensors"):
        refused(tmp_path, "llama_cpp", model)
    error = refused(tmp_path, "llama_cpp", model, force=True, engine_arg=SMALL)
    assert error.kind == "model"
    assert "failed to load model" in error.log_tail


def test_weights_that_are_broken(tmp_path: Path, llama_server: Path) -> None:
    """What is cut off is told before anything starts; what is whole and holds no model, by the engine."""
    assert llama_server.exists()
    found = models(tmp_path / "models")
    with pytest.raises(UserError, match=r"cut.gguf is cut off: it has 200000 bytes of at least \d+; fetch it again"):
        refused(tmp_path, "llama_cpp", found["cut"])
    error = refused(tmp_path, "llama_cpp", found["hollow"], engine_arg=SMALL)
    assert error.kind == "model"
    assert (
        str(error).splitlines()[0] == "llama_cpp ended with exit code 1 before it was ready: it cannot load the model"
    )
    assert "error loading model" in error.log_tail


def test_a_port_that_is_taken(tmp_path: Path, llama_server: Path) -> None:
    """By somebody who came between our look and its own."""
    assert llama_server.exists()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        error = refused(tmp_path, "llama_cpp", "tiny", engine_arg=(*SMALL, ("--port", str(taken.getsockname()[1]))))
    assert error.kind == "port"
    assert "couldn't bind" in error.log_tail


def test_a_flag_that_it_does_not_know(tmp_path: Path, llama_server: Path) -> None:
    """Named by the end of its log."""
    assert llama_server.exists()
    error = refused(tmp_path, "llama_cpp", "tiny", engine_arg=(*SMALL, ("--no-such-flag", "")))
    assert (error.kind, error.log_tail) == ("arguments", "error: invalid argument: --no-such-flag")


def test_one_that_is_never_healthy(tmp_path: Path, llama_server: Path) -> None:
    """It stands still before it listens; time ends, and it is killed although it cannot hear."""
    preceded(llama_server, "echo 'stands still'", "kill -STOP $$")
    error = refused(tmp_path, "llama_cpp", "tiny", start_timeout=1.0)
    assert (error.kind, error.log_tail) == ("timeout", "stands still")
    assert "was not ready after 1 s; give it more with --kitt-start-timeout" in str(error)


@contextlib.contextmanager
def limited(limit_bytes: int) -> Iterator[Path]:
    """A control group with a limit of memory; skips where none may be made."""
    mount, name = Path("/sys/fs/cgroup"), f"kitt-test-{uuid.uuid4().hex[:8]}"
    old = (mount / "memory").is_dir()
    group = (mount / "memory" if old else mount) / name
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group may be made here: {error}")
    try:
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit_bytes))
        yield group
    except FileNotFoundError:
        pytest.skip("control groups here do not limit memory")
    finally:
        group.rmdir()


def test_one_that_the_kernel_kills_for_want_of_memory(tmp_path: Path, llama_server: Path) -> None:
    """It says nothing; the kernel's count of its control group does."""
    assert llama_server.exists()
    (tmp_path / "test_it.py").write_text("def test_it(kitt_engine):\n    assert kitt_engine.url\n")
    session = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--kitt-engine=llama_cpp", "test_it.py"]
    args = [f"--kitt-engine-arg={name}={value}" for name, value in HUGE]
    with limited(700 << 20) as group:
        enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        done = subprocess.run(
            ["sh", "-c", enter, "sh", *session, "--kitt-runtime=process", "--kitt-force", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    sentence = "llama_cpp was killed by signal 9 (SIGKILL) before it was ready: there is not enough memory"
    assert f"EngineStartError: {sentence}" in done.stdout
    assert "loading model" in done.stdout


# -- engines that cannot be had here


@pytest.fixture
def doubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The doubles in their engines' places; a model that all but Ollama would load."""
    install(tmp_path / "installed")
    monkeypatch.setenv("PATH", str(tmp_path / "installed" / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed" / "lib"), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(tmp_path / "installed" / "lib"))
    monkeypatch.setenv("KITT_DOUBLE_LOAD_S", "0")
    return Path(models(tmp_path / "models")["other"])


TABLE = [
    ("vllm", "gpu", "gpu", "Failed to infer device type", "ended with exit code 1"),
    (
        "vllm",
        "memory",
        "memory",
        "No available memory for the cache blocks",
        "exit code 1*: there is not enough memory",
    ),
    ("vllm", "model", "model", "does not appear to have a file named config.json", ": it cannot load the model"),
    ("vllm", "port", "port", "Address already in use", ": its port is taken"),
    ("vllm", "exit", "died", "Engine core initialization failed", "ended with exit code 1"),
    ("vllm", "never-healthy", "timeout", "Starting to load model", "was not ready after 2 s"),
    ("sglang", "gpu", "gpu", "No accelerator (CUDA, XPU, HPU, NPU, MUSA, MPS)", "ended with exit code 1"),
    ("sglang", "memory", "memory", "Not enough memory", "killed by signal 9*: there is not enough memory"),
    ("sglang", "model", "model", "does not appear to have a file named config.json", ": it cannot load the model"),
    ("sglang", "port", "port", "address already in use", ": its port is taken"),
    ("sglang", "exit", "died", "device-side assert triggered", "killed by signal 9"),
    ("sglang", "never-healthy", "timeout", "Uvicorn running on", "was not ready after 2 s"),
    ("ollama", "port", "port", "address already in use", ": its port is taken"),
    ("ollama", "exit", "died", "permission denied", "ended with exit code 1"),
    ("ollama", "never-healthy", "timeout", "", "was not ready after 2 s"),
    ("ollama", "memory", "memory", "Listening on 127.0.0.1", "reported out-of-memory during startup"),
    ("ollama", "model", "model", "Listening on 127.0.0.1", "unknown model architecture"),
]


@pytest.mark.parametrize("engine, fails, kind, tail, said", TABLE, ids=[f"{row[0]}-{row[1]}" for row in TABLE])
def test_an_engine_that_cannot_be_had_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    doubles: Path,
    engine: str,
    fails: str,
    kind: str,
    tail: str,
    said: str,
) -> None:
    """Its double fails as its source says it would: the card knows the class, and the sentence says what happened."""
    monkeypatch.setenv("KITT_DOUBLE_FAIL", fails)
    model = "tiny" if engine == "ollama" else str(doubles)
    error = refused(tmp_path, engine, model, start_timeout=2.0 if fails == "never-healthy" else 60.0)
    assert error.kind == kind, str(error)
    assert tail in error.log_tail
    assert fnmatch.fnmatchcase(str(error).splitlines()[0], f"{engine} *{said}*")


@pytest.mark.parametrize("engine", ["vllm", "sglang", "ollama"])
def test_a_flag_that_it_does_not_know_either(tmp_path: Path, doubles: Path, engine: str) -> None:
    """In its own words."""
    model = "tiny" if engine == "ollama" else str(doubles)
    error = refused(tmp_path, engine, model, engine_arg=(("--no-such-flag", ""),))
    assert error.kind == "arguments"
    assert "no-such-flag" in error.log_tail


# -- a session


def stored() -> dict[str, list[tuple[str, str]]]:
    """Outcome and reason of each result of the last run, by its model."""
    with opened("") as engine, engine.connect() as connection:
        results = reader.show_run(connection, "last")["results"]
    found: dict[str, list[tuple[str, str]]] = {}
    for result in results:
        found.setdefault(result["cell"]["model"]["name"], []).append((result["outcome"], result["reason"]))
    return found


def session(pytester: pytest.Pytester, test: str, *args: str) -> pytest.RunResult:
    """A session on real servers."""
    pytester.makepyfile(test_it=test)
    small = (f"--kitt-engine-arg={name}={value}" for name, value in SMALL)
    flags = ("--kitt-engine=llama_cpp", "--kitt-runtime=process", *small, "-p", "no:cacheprovider")
    return pytester.runpytest_subprocess(*flags, *args, "test_it.py")


SHORT = 'kitt_load("closed:1", "synthetic:8:4", "requests:3", warmup=0)'
LONG = 'kitt_load("closed:2", "synthetic:8:8", "requests:1000000", label="long")'
TWO = f"def test_first(kitt_load):\n    {SHORT}\ndef test_second(kitt_load):\n    {SHORT}\n"


@pytest.mark.usefixtures("llama_server")
def test_a_cell_that_does_not_start_is_one_error(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """With the sentence and the end of the log; its other items skip, what does not fit skips, and others go on."""
    found = models(tmp_path / "models")
    result = session(pytester, TWO, f"--kitt-model={found['hollow']},{found['other']},{found['good']}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(errors=1, skipped=3, passed=2)
    result.stdout.fnmatch_lines(
        [
            "EngineStartError: llama_cpp ended with exit code 1 before it was ready: it cannot load the model",
            "--- end of the engine's log ---",
            "*error loading model*",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    told = stored()
    assert [outcome for outcome, _ in told["hollow"]] == ["error", "skipped"]
    assert [outcome for outcome, _ in told["good"]] == ["passed", "passed"]
    assert "it cannot load the model" in told["hollow"][0][1]


@pytest.mark.usefixtures("llama_server")
def test_cells_that_do_not_stay_are_one_error_each(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """The real server is killed in mid-load, and stands still in mid-load; the third cell is served."""
    folder = tmp_path / "models"
    content = shipped.TINY_MODEL.read_bytes()  # the same bytes under two names would be one cell
    put(
        folder,
        {
            f"{name}.gguf": content.replace(b"kitt-tiny", name.encode())
            for name in ("dies-once", "hangs-now", "no-faults")
        },
    )
    test = f"""
import os, signal, threading
SIGNALS = {{"dies-once": signal.SIGKILL, "hangs-now": signal.SIGSTOP}}
def test_first(kitt_engine, kitt_load):
    {SHORT}
    if number := SIGNALS.get(kitt_engine.cell.model.name):
        threading.Timer(1, os.kill, (kitt_engine.pid, number)).start()
        {LONG}
def test_second(kitt_load):
    {SHORT}
"""
    result = session(pytester, test, f"--kitt-model={','.join(str(path) for path in sorted(folder.iterdir()))}")
    result.assert_outcomes(errors=2, skipped=2, passed=2)
    result.stdout.fnmatch_lines(
        [
            "EngineDiedError: llama_cpp was killed by signal 9 (SIGKILL) after it had been ready*",
            "--- end of the engine's log ---",
            "EngineDiedError: llama_cpp does not answer any more: its process * runs, but */health failed 3 times*",
            "--- end of the engine's log ---",
        ]
    )
    told = stored()
    assert {name: [outcome for outcome, _ in both] for name, both in told.items()} == {
        "dies-once": ["error", "skipped"],
        "hangs-now": ["error", "skipped"],
        "no-faults": ["passed", "passed"],
    }
