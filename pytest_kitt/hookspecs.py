"""Which hooks can plugins and conftest files implement?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_kitt.measure.results import Result, Run, RunStatus


@pytest.hookspec
def pytest_kitt_suites(config: pytest.Config) -> Path | Sequence[Path]:  # type: ignore[empty-body]
    """Returns folders that hold a ``suites.yaml`` and the test modules of the benchmarks it names."""


@pytest.hookspec
def pytest_kitt_run_started(config: pytest.Config, run: Run) -> None:
    """Fired once on the controller, before the first item of a run that has benchmarks."""


@pytest.hookspec
def pytest_kitt_result(config: pytest.Config, result: Result) -> None:
    """Fired once on the controller for each result, when its item has ended."""


@pytest.hookspec
def pytest_kitt_run_finished(config: pytest.Config, run: Run, status: RunStatus, exit_status: int) -> None:
    """Fired once on the controller, after the last item of a run that was started."""
