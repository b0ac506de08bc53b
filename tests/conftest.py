"""What does every test get? A home of its own, an environment without kitt's variables, and a look for what it left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_MARK = b"KITT_MARK="


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
def nothing_left() -> Iterator[None]:
    """No process that carries a mark of ours may outlive the test that started it."""
    before = _marked()
    yield
    left = _marked() - before
    assert not left, f"processes left behind: {sorted(left)}"


def _marked() -> set[int]:
    found = set()
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and _MARK in (process / "environ").read_bytes():
                found.add(int(process.name))
        except OSError:
            continue
    return found
