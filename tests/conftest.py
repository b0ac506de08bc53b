"""What does every test get? A home of its own, an environment without kitt's variables, and a look for what it left."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import shipped
from pytest_kitt.engine import lease, lock
from tests import containers

_TEST = "TEST_OF_KITT"
_GRACE_S = 5.0
_USUAL_PORTS = (5000, 8000, 8080, 11434, 30000)  # of the cards


# whoever runs the tests in the background lets them, and all that they start, ignore these
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A KITT_HOME of its own for each test, no other variable of ours or GitHub's; how busy it is decides nothing."""
    for name in os.environ:
        if name.startswith(("KITT_", "GITHUB_")):  # on GitHub a session annotates the job's page
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("KITT_HOME", str(home))
    monkeypatch.setenv(
        "KITT_LEASES", str(tmp_path_factory.mktemp("leases"))
    )  # tests side by side do not wait for each other
    monkeypatch.setenv("KITT_CERTIFY", "record")
    return home


@pytest.fixture(autouse=True)
def unusual_ports(private_home: Path) -> Iterator[None]:  # noqa: ARG001 - which names the folder of the locks
    """Engines listen where no other test's do: tests side by side share no locks, and would meet at the usual ports."""
    folder = lease.folder()
    locks = [lock.take(folder / f"port-{number}.lock") for number in _USUAL_PORTS]
    yield
    for held in locks:
        assert held is not None
        held.release()


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process may outlive the test that started it, however many times removed: all inherit the test's variable."""
    name = uuid.uuid4().hex
    monkeypatch.setenv(_TEST, name)
    yield
    deadline = time.monotonic() + _GRACE_S
    while (left := _inheritors(f"{_TEST}={name}".encode())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, f"processes left behind: {left}"


@pytest.fixture(scope="session")
def docker_client() -> Iterator[Any]:
    """A client of the Docker engine; where none answers the test is skipped."""
    with _or_skipped():
        client = containers.docker_client()
    with contextlib.closing(client):
        yield client


@pytest.fixture(scope="session")
def llama_image(docker_client: Any) -> str:
    """An image whose entry point is llama.cpp's server, built from our Dockerfile; all workers have the same."""
    with _or_skipped():
        return containers.llama_image(docker_client)


@pytest.fixture
def llama_server(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command llama-server on the PATH, as whoever has built llama.cpp has it."""
    program = tmp_path_factory.mktemp("bin") / "llama-server"
    ours = shipped.ENGINES / "llama_cpp" / "llama_server.py"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -P '{ours}' \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return program


@contextlib.contextmanager
def _or_skipped() -> Iterator[None]:
    try:
        yield
    except containers.NoImage as error:
        pytest.skip(str(error))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Names what failed for tools/run_tests.py, which runs a few once more alone."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    file = os.environ.get("TEST_FAILURES_FILE")
    if file and reporter and not hasattr(session.config, "workerinput"):
        failed = [*reporter.stats.get("failed", ()), *reporter.stats.get("error", ())]
        Path(file).write_text("".join(f"{nodeid}\n" for nodeid in dict.fromkeys(r.nodeid for r in failed)))


def _inheritors(variable: bytes) -> dict[int, str]:
    found = {}
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and variable in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        except OSError:
            continue
    return found
