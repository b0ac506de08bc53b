"""What does every test get? A home of its own, an environment without kitt's variables, and a look for what it left."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

_TEST = "TEST_OF_KITT"
_GRACE_S = 5.0


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A KITT_HOME of its own for each test, and no other variable of ours."""
    for name in os.environ:
        if name.startswith("KITT_"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("KITT_HOME", str(home))
    return home


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


def _inheritors(variable: bytes) -> dict[int, str]:
    found = {}
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and variable in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        except OSError:
            continue
    return found
