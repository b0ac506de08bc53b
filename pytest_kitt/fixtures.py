"""Which fixtures do tests take? A ladder of small rungs, each of which a conftest may replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest

if TYPE_CHECKING:
    from pytest_kitt.dialect.openai import Api
    from pytest_kitt.engine.base import RunningEngine
    from pytest_kitt.load.result import LoadResult
    from pytest_kitt.load.spec import Closed, Stop, Workload
    from pytest_kitt.matrix import Cell
    from pytest_kitt.measure.metrics import Better


class Load(Protocol):
    """What ``kitt_load`` is."""

    def __call__(
        self,
        load: Closed | str = "closed:1",
        workload: Workload | str = "synthetic:128:64",
        stop: Stop | str = "requests:20",
        *,
        label: str = "",
        api: Api | None = None,
        warmup: int | None = None,
        hold: bool = True,
        keep_text: bool = False,
    ) -> LoadResult:
        """Applies a load to the cell's engine and records its standard metrics for this test."""
        ...


class Measure(Protocol):
    """What ``kitt_measure`` is."""

    def __call__(
        self,
        name: str,
        value: float,
        *,
        unit: str,
        better: Better,
        stat: str = "value",
        n: int = 1,
        ci: tuple[float, float] | None = None,
        method: str | None = None,
    ) -> None:
        """Records one number for this test."""
        ...


@pytest.fixture(scope="session")
def kitt_engine(request: pytest.FixtureRequest) -> RunningEngine:
    """The engine of this cell, one start per cell: url, version, generate, chat, stream, tokenize, capabilities."""
    from pytest_kitt import session

    kitt = session.active(request.config)
    cell = getattr(request, "param", None)
    if kitt is None or cell is None:
        raise pytest.UsageError("kitt_engine: no cell was made for this test; is its fixture requested dynamically?")
    return cast("RunningEngine", session.EngineHandle(kitt.engines, cell))


@pytest.fixture(scope="session")
def kitt_cell(kitt_engine: RunningEngine) -> Cell:
    """The cell under test: engine, model, runtime, key, id."""
    return kitt_engine.cell


@pytest.fixture
def kitt_load(request: pytest.FixtureRequest, kitt_engine: RunningEngine) -> Load:
    """Applies a load: ``kitt_load("closed:8", "synthetic:200:128", "requests:100") -> LoadResult``."""

    def load(
        load: Closed | str = "closed:1",
        workload: Workload | str = "synthetic:128:64",
        stop: Stop | str = "requests:20",
        *,
        label: str = "",
        api: Api | None = None,
        warmup: int | None = None,
        hold: bool = True,
        keep_text: bool = False,
    ) -> LoadResult:
        from pytest_kitt import loading

        options: dict[str, Any] = {"warmup": warmup, "hold": hold, "keep_text": keep_text}
        return loading.apply(request.node, kitt_engine, (load, workload, stop), label=label, api=api, **options)

    return load


@pytest.fixture
def kitt_measure(request: pytest.FixtureRequest) -> Measure:
    """Records a number: ``kitt_measure("accuracy", 0.9, unit="share", better="higher", n=50)``."""

    def measure(
        name: str,
        value: float,
        *,
        unit: str,
        better: Better,
        stat: str = "value",
        n: int = 1,
        ci: tuple[float, float] | None = None,
        method: str | None = None,
    ) -> None:
        from pytest_kitt import recording
        from pytest_kitt.measure.results import Measurement

        low, high = ci or (None, None)
        recording.of(request.node).add(
            [Measurement(name, stat, float(value), unit, better, n, ci_low=low, ci_high=high, method=method)]
        )

    return measure


@pytest.fixture
def kitt_evaluate(request: pytest.FixtureRequest, kitt_engine: RunningEngine) -> Any:
    """Asks questions and scores the answers: ``kitt_evaluate(concurrency=4, limit=50) -> Evaluation``."""

    def evaluate(*, concurrency: int = 4, limit: int = 50, max_tokens: int = 24) -> Any:
        from pytest_kitt import loading

        return loading.evaluate(request.node, kitt_engine, concurrency=concurrency, limit=limit, max_tokens=max_tokens)

    return evaluate
