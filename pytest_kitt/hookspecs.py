"""Which hooks can plugins and conftest files implement?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_kitt.measure.results import Result, Run, RunStatus, Samples


@pytest.hookspec
def pytest_kitt_suites(config: pytest.Config) -> Path | Sequence[Path]:  # type: ignore[empty-body]
    """Returns folders that hold a ``suites.yaml`` and the test modules of the benchmarks it names."""


@pytest.hookspec
def pytest_kitt_run_started(config: pytest.Config, run: Run, resumed: bool) -> None:
    """Fired once on the controller, before the first item of a run that has benchmarks, or goes on with one."""


@pytest.hookspec
def pytest_kitt_item_started(config: pytest.Config, result: Result) -> None:
    """Fired on the controller when an item is about to measure; the result holds what is known of it by then."""


@pytest.hookspec
def pytest_kitt_samples(config: pytest.Config, nodeid: str, samples: Samples) -> None:
    """Fired on the controller for each block of raw samples as it comes, between the item's start and its result."""


@pytest.hookspec
def pytest_kitt_event(config: pytest.Config, kind: str, at: float, about: Mapping[str, Any]) -> None:
    """Fired on the controller when an engine starts, is ready or was stopped; ``at`` is seconds since the epoch."""


@pytest.hookspec
def pytest_kitt_result(config: pytest.Config, result: Result) -> None:
    """Fired once on the controller for each result, when its item has ended."""


@pytest.hookspec
def pytest_kitt_run_finished(config: pytest.Config, run: Run, status: RunStatus, exit_status: int) -> None:
    """Fired once on the controller, after the last item of a run that was started."""
