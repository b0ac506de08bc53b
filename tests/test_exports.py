"""Is the public surface what it says, and does loading the plugin stay cheap?"""

from __future__ import annotations

import subprocess
import sys

import pytest_kitt
from pytest_kitt import _HOMES

HEAVY = (
    "pydantic",
    "httpx",
    "sqlalchemy",
    "yaml",
    "orjson",
    "rich",
    "numpy",
    "alembic",
    "typer",
    "testcontainers",
    "pynvml",
)


def test_every_public_name_is_there() -> None:
    """__all__ is sorted, complete and true."""
    assert pytest_kitt.__all__ == sorted(pytest_kitt.__all__)
    assert set(pytest_kitt.__all__) == {*_HOMES, "__version__"}
    for name in pytest_kitt.__all__:
        assert getattr(pytest_kitt, name) is not None


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    """Only the standard library and pytest: a session without benchmarks pays nothing for them."""
    program = "import sys, pytest_kitt.plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not set(HEAVY) & set(done.stdout.split())


def test_the_client_child_imports_nothing_heavy() -> None:
    """What is timed carries no ballast."""
    program = "import sys, pytest_kitt.load.client.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not set(HEAVY) - {"orjson"} & set(done.stdout.split())
    assert "pytest" not in done.stdout.split()
