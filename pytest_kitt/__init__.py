"""Benchmarks of LLM inference engines as pytest test cases.

Tests take the fixtures ``kitt_engine``, ``kitt_load`` and ``kitt_measure``; the names below are for type hints, for the
long forms of loads, and for saying that a number cannot be trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Adaptive",
    "Arrivals",
    "Cell",
    "Closed",
    "Failure",
    "GenerationResult",
    "Inconclusive",
    "InvalidMeasurement",
    "KittError",
    "LoadResult",
    "Measurement",
    "Phase",
    "Prompts",
    "Result",
    "Run",
    "RunningEngine",
    "Stop",
    "Synthetic",
    "TokenLogprob",
    "ToolCall",
    "UserError",
    "__version__",
]

if TYPE_CHECKING:
    from pytest_kitt.dialect.details import TokenLogprob, ToolCall
    from pytest_kitt.engine.base import GenerationResult, RunningEngine
    from pytest_kitt.errors import Inconclusive, InvalidMeasurement, KittError, UserError
    from pytest_kitt.load.result import LoadResult
    from pytest_kitt.load.spec import Adaptive, Arrivals, Closed, Prompts, Stop, Synthetic
    from pytest_kitt.matrix import Cell
    from pytest_kitt.measure.records import Failure, Phase
    from pytest_kitt.measure.results import Measurement, Result, Run

_HOMES = {
    "Cell": "matrix",
    "Adaptive": "load.spec",
    "Arrivals": "load.spec",
    "Closed": "load.spec",
    "Failure": "measure.records",
    "GenerationResult": "engine.base",
    "Inconclusive": "errors",
    "InvalidMeasurement": "errors",
    "KittError": "errors",
    "LoadResult": "load.result",
    "Measurement": "measure.results",
    "Phase": "measure.records",
    "Prompts": "load.spec",
    "Result": "measure.results",
    "Run": "measure.results",
    "RunningEngine": "engine.base",
    "Stop": "load.spec",
    "Synthetic": "load.spec",
    "TokenLogprob": "dialect.details",
    "ToolCall": "dialect.details",
    "UserError": "errors",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: loading the plugin must cost nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
