"""How do the tests of real engines run sessions, and how do they know that nothing is left of one?"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

PATIENCE_S = 300.0
INSIDE = Path(__file__).parent / "inside"
_UNDER_WAY = re.compile(r"^kitt: .*::test_long.* requests, ", re.MULTILINE)  # a session says so every few seconds


@dataclass(frozen=True)
class Session:
    """A session that runs in a folder of its own."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def output(self) -> str:
        """All that it has printed."""
        return (self.folder / "output").read_text(errors="replace")

    def ends(self) -> int:
        """Its exit code, when it has ended."""
        return self.process.wait(PATIENCE_S)

    def engine(self) -> int:
        """The id of the engine's process, once a load is under way on it."""
        waits_until(lambda: bool(_UNDER_WAY.search(self.output)) or self.process.poll() is not None)
        assert self.process.poll() is None, self.output
        return int((self.folder / "engine").read_text())


@contextlib.contextmanager
def session(folder: Path, *args: str, inside: str = "", env: Mapping[str, str] | None = None) -> Iterator[Session]:
    """A session of ours over a test file of ``inside/``, or over a suite; it is ended, if it is not yet."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args]
    if inside:
        (folder / "test_inside.py").write_text((INSIDE / inside).read_text())
        command.append("test_inside.py")
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Session(process, folder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE_S)


def ran(folder: Path, *args: str, inside: str = "", env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit code and output of a session that ran to its end."""
    with session(folder, *args, inside=inside, env=env) as running:
        return running.ends(), running.output


def stored() -> dict[str, Any]:
    """The last run, as the store shows it."""
    with opened("") as engine, engine.connect() as connection:
        return dict(reader.show_run(connection, "last"))


def metrics(shown: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Of each result its numbers, by name and statistic."""
    return {
        result["nodeid"].rpartition("::")[2]: {f"{m['name']}.{m['stat']}": m["value"] for m in result["metrics"]}
        for result in shown["results"]
    }


def family(pid: int) -> list[int]:
    """A process and all that it started, down to the last grandchild."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def waits_until(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Returns when it is so; fails when it never is."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether its health path says that it is ready."""
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def cut_short(model: Path, folder: Path) -> Path:
    """A copy of a model whose weights end too early."""
    shutil.copytree(model, folder)
    os.truncate(folder / "model.safetensors", 500_000)
    return folder


def unheard_of(model: Path, folder: Path) -> Path:
    """A copy of a model that says it is of an architecture that nobody knows."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["NoSuchModel"], "model_type": "nosuch"}))
    return folder


def without_bos(model: Path, folder: Path) -> Path:
    """A copy of a model whose chat template writes no BOS."""
    shutil.copytree(model, folder)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    said["chat_template"] = said["chat_template"].replace("{{- bos_token }}", "")
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


@contextlib.contextmanager
def serving(argv: list[str], url: str, log: Path, env: Mapping[str, str]) -> Iterator[str]:
    """A server started as its own documentation says, by no code of ours; nothing of it is left after."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            argv, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **env}, start_new_session=True
        )
    members = [server.pid]
    try:
        waits_until(lambda: answers(url) or server.poll() is not None)
        assert server.poll() is None, log.read_text(errors="replace")[-3000:]
        members = family(server.pid)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(60)
        finally:
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
