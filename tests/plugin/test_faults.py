"""Does nothing survive a session, and is nothing lost, however it is ended? A table of faults, each with real engines.

Each row ends a session by one signal in one phase, with and without workers. Afterwards nothing of it may be alive
after two seconds, the store opens, holds what was recorded before, and the exit code says what happened.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

GONE_WITHIN_S = 2.0
PATIENCE_S = 60.0
# an engine that can take its time to start and to stop; it tells by a file where it is
ENGINE = """
import os, signal, sys, threading, time
from pathlib import Path
from pytest_kitt.engine.simulated import __main__ as simulated
where, start_s, stop_s = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
(where / "starting").write_text(str(os.getpid()))
time.sleep(start_s)
if stop_s:
    def stubborn():
        signal.sigwait({signal.SIGTERM})
        (where / "stopping").touch()
        time.sleep(stop_s)
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=stubborn, daemon=True).start()
sys.exit(simulated.main(sys.argv[4:]))
"""
CARD = """
name: slow
description: A simulated engine that can be slow to start and to stop
default_model: m
runtimes:
  process:
    command: ["{{python}}", {script}, {where}, "{start_s}", "{stop_s}", --model, "{{model_name}}", --port, "0",
              --ttft-ms, "5", --itl-ms, "2"]
    announces: true
health: /health
tokenize: {{path: /tokenize, text: prompt}}
force_length: {{ignore_eos: true}}
synthetic: true
"""
ITEMS = """
import os, time
from pathlib import Path
WHERE = Path(os.environ["WHERE"])

def test_recorded(kitt_measure):
    kitt_measure("answers", 3, unit="count", better="higher")
    (WHERE / "recorded").touch()

def test_phase(kitt_engine, kitt_load):
    while not (WHERE / "recorded").exists():
        time.sleep(0.01)
    (WHERE / "engine").write_text(str(kitt_engine.pid))
    if os.environ["PHASE"] == "idle":
        (WHERE / "idle").touch()
        while not (WHERE / "go").exists():
            time.sleep(0.01)
    if os.environ["PHASE"] == "load":
        (WHERE / "load").touch()
        kitt_load("closed:4", "synthetic:8:16", "seconds:120", label="long")
    if os.environ["PHASE"] == "stopping":
        kitt_load("closed:1", "synthetic:8:4", "requests:3")

def test_second(kitt_engine):
    (WHERE / "second").touch()
    time.sleep(120)
"""


@contextlib.contextmanager
def session(folder: Path, phase: str, workers: int, *, engine: str = ENGINE) -> Iterator[subprocess.Popen[str]]:
    """A session that has come to a phase; it leads a process group, as it would in a terminal."""
    script, home = folder / "engine.py", Path(os.environ["KITT_HOME"])
    script.write_text(engine)
    (home / "engines").mkdir(exist_ok=True)
    slow = {"start_s": 120 if phase == "starting" else 0, "stop_s": 3 if phase == "stopping" else 0}
    (home / "engines" / "slow.yaml").write_text(CARD.format(script=script, where=folder, **slow))
    (folder / "test_items.py").write_text(ITEMS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--kitt-engine=slow"]
    command += [f"-n{workers}"] if workers else ["-p", "no:xdist"]
    command += [] if phase == "idle" else ["--deselect", "test_items.py::test_second"]
    env = {**os.environ, "WHERE": str(folder), "PHASE": phase}
    with (
        (folder / "output").open("w") as output,
        subprocess.Popen(
            [*command, "test_items.py"],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        ) as process,
    ):
        try:
            until((folder / phase).exists, lambda: process.poll() is None, folder)
            until((folder / "recorded").exists, lambda: process.poll() is None, folder)
            time.sleep(0.7 if phase == "load" else 0.2)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def until(reached: Callable[[], bool], alive: Callable[[], bool], folder: Path) -> None:
    """Waits for something to become true; fails with the session's output when it does not."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert alive(), (folder / "output").read_text()
        assert time.monotonic() < deadline, (folder / "output").read_text()
        time.sleep(0.02)


def left_over() -> dict[int, str]:
    """What is still alive of all that this test has started."""
    variable = f"TEST_OF_KITT={os.environ['TEST_OF_KITT']}".encode()
    found = {}
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and variable in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    return found


def require_nothing_left() -> None:
    """Fails when something lives for longer than it may."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := left_over()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left


def stored() -> tuple[str, dict[str, str]]:
    """The status of the run, and the outcome of each item in it."""
    with opened("") as engine, engine.connect() as connection:
        shown = reader.show_run(connection, "last")
    return shown["run"]["status"], {r["benchmark"]: r["outcome"] for r in shown["results"]}


def hit(process: subprocess.Popen[str], how: str) -> None:
    """Ends a session."""
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
    elif how == "ctrl-c twice":
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(1.2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.Signals[how])


ENDS = ("ctrl-c", "ctrl-c twice", "SIGTERM", "SIGHUP", "SIGKILL")
PHASES = ("starting", "idle", "load", "stopping")


@pytest.mark.parametrize("how, phase, workers", list(itertools.product(ENDS, PHASES, (0, 2))))
def test_ended_by_a_signal(tmp_path: Path, how: str, phase: str, workers: int) -> None:
    """Nothing is left, and nothing is lost."""
    with session(tmp_path, phase, workers) as process:
        hit(process, how)
        code = process.wait(PATIENCE_S)
        require_nothing_left()
    output = (tmp_path / "output").read_text()
    assert code == (-signal.SIGKILL if how == "SIGKILL" else pytest.ExitCode.INTERRUPTED), output
    status, outcomes = stored()
    assert status == "interrupted", output
    assert outcomes["recorded"] == "passed", output
    if how != "SIGKILL":
        assert "kitt results" in output, output
    if phase == "load":
        assert outcomes["phase"] == "error"


def pid_of(part: str, mark: str = "") -> int:
    """The process of this test whose command line has a part in it."""
    return next(pid for pid, line in left_over().items() if part in line and mark in line)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("who", ["engine", "client", "watchdog", "worker"])
def test_a_part_is_killed_under_load(tmp_path: Path, who: str, workers: int) -> None:
    """Kill -9 of one of its processes: the session ends in order, the item is an error, all else is kept."""
    if who == "worker" and not workers:
        pytest.skip("there is no worker without -n")
    with session(tmp_path, "load", workers) as process:
        os.kill(_victim(who, tmp_path), signal.SIGKILL)
        if who == "watchdog":
            time.sleep(0.5)
            hit(process, "SIGTERM")
        code = process.wait(PATIENCE_S)
        require_nothing_left()
    output = (tmp_path / "output").read_text()
    expected = pytest.ExitCode.INTERRUPTED if who == "watchdog" else pytest.ExitCode.TESTS_FAILED
    assert code == expected, output
    status, outcomes = stored()
    assert status == ("interrupted" if who == "watchdog" else "error"), output
    assert outcomes == {"recorded": "passed", "phase": "error"}, output


def _victim(who: str, folder: Path) -> int:
    if who == "engine":
        return int((folder / "engine").read_text())
    if who == "client":
        return pid_of("pytest_kitt.load.client")
    if who == "watchdog":
        return pid_of("watchdog.py")
    status = Path(f"/proc/{pid_of('pytest_kitt.load.client')}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])


def test_a_dead_watchdog_is_replaced(tmp_path: Path) -> None:
    """The next item has one again, so that a kill after that still leaves nothing."""
    with session(tmp_path, "idle", 0) as process:
        first = pid_of("watchdog.py")
        os.kill(first, signal.SIGKILL)
        until(lambda: first not in left_over(), lambda: process.poll() is None, tmp_path)
        (tmp_path / "go").touch()
        until((tmp_path / "second").exists, lambda: process.poll() is None, tmp_path)
        assert pid_of("watchdog.py") != first
        process.kill()
        require_nothing_left()


def test_output_that_nobody_reads(tmp_path: Path) -> None:
    """``pytest | head -1``: the pipe breaks; engines are stopped, and what was measured is stored."""
    (tmp_path / "test_items.py").write_text(ITEMS)
    env = {**os.environ, "WHERE": str(tmp_path), "PHASE": "stopping", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--kitt-engine=simulated"]
    with subprocess.Popen(
        [*command, "test_items.py"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        while b"test_recorded" not in process.stdout.readline():
            pass
        process.stdout.close()
        process.wait(PATIENCE_S)
        require_nothing_left()
    assert stored()[1]["recorded"] == "passed"


def test_an_engine_that_floods_its_log(tmp_path: Path) -> None:
    """Its output goes to a file, not into a pipe that could be full."""
    noise = "import sys; sys.stderr.write('x' * 400_000 + '\\n')\n"
    with session(tmp_path, "load", 0, engine=noise + ENGINE) as process:
        hit(process, "ctrl-c")
        assert process.wait(PATIENCE_S) == pytest.ExitCode.INTERRUPTED
        require_nothing_left()


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own; skips where one may not be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


MANY = """
def test_many(kitt_engine, kitt_load):
    for n in range(12):
        kitt_load("closed:8", "synthetic:8:64", "requests:64", label=f"l{n}")
def test_after(kitt_measure):
    kitt_measure("answers", 3, unit="count", better="higher")
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_the_disk_is_full(tmp_path: Path, workers: int) -> None:
    """What cannot be stored is said, with what to do; the store is not spoilt, the numbers are shown, exit code 3."""
    (tmp_path / "test_items.py").write_text(MANY)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--kitt-engine=simulated", f"-n{workers}"]
    with small_disk(tmp_path / "disk", 320 << 10) as disk:
        db = disk / "kitt.db"
        speed = ["--kitt-engine-arg=ttft_ms=1", "--kitt-engine-arg=itl_ms=0.2"]
        done = subprocess.run(
            [*command, *speed, f"--kitt-db={db}", "test_items.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == pytest.ExitCode.INTERNAL_ERROR, done.stdout
        assert f"could not be stored in {db}: database or disk is full" in done.stdout
        assert f"kitt: {db} takes no more: database or disk is full" in done.stdout
        assert "--kitt-resume" in done.stdout
        assert "kitt results" in done.stdout
        with opened(str(db)) as engine, engine.connect() as connection:
            assert reader.list_runs(connection, synthetic=True)
    require_nothing_left()


def test_a_disk_that_has_room_again(tmp_path: Path) -> None:
    """What waited is written as soon as it can be: nothing is lost."""
    (tmp_path / "test_items.py").write_text(
        MANY + "def test_room():\n    import os, pathlib\n    pathlib.Path(os.environ['BALLAST']).unlink()\n"
    )
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes((8 << 20) - (400 << 10)))
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--kitt-engine=simulated"]
        speed = ["--kitt-engine-arg=ttft_ms=1", "--kitt-engine-arg=itl_ms=0.2"]
        env = {**os.environ, "BALLAST": str(ballast)}
        db = disk / "kitt.db"
        done = subprocess.run(
            [*command, *speed, f"--kitt-db={db}", "test_items.py"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == pytest.ExitCode.OK, done.stdout
        with opened(str(db)) as engine, engine.connect() as connection:
            shown = reader.show_run(connection, "last")
            rows = sum(s["n"] for r in shown["results"] for s in r["samples"])
    assert [r["outcome"] for r in shown["results"]] == ["passed", "passed"]
    assert rows >= 12 * 64


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    """One sentence before anything starts."""
    (tmp_path / "test_items.py").write_text(ITEMS)
    env = {**os.environ, "KITT_HOME": "/proc/none", "WHERE": str(tmp_path), "PHASE": ""}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--kitt-engine=simulated"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "name another place" in done.stderr + done.stdout
    assert not (tmp_path / "recorded").exists()
