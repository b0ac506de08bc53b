"""What does JUnit XML say of a result? One property per number: ``kitt.ttft_ms.p99`` with a plain decimal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pytest_kitt.measure.results import CellFacts, Measurement
from pytest_kitt.report import scores

DATA = "kitt.data"


def properties(measurements: Iterable[Measurement]) -> list[tuple[str, object]]:
    """The numbers as (name, decimal)."""
    return [(f"kitt.{m.key}", decimal(m.value)) for m in measurements]


def data_properties(params: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Where the questions of the scores are from, so that a sample is not taken for the dataset."""
    return [(DATA, origin)] if (origin := scores.data(params)) else []


def cell_properties(cell: CellFacts) -> list[tuple[str, object]]:
    """Where they were measured."""
    facts = {
        "cell": cell.key,
        "engine": cell.engine,
        "engine_version": cell.engine_version,
        "runtime": cell.runtime,
        **({"image": cell.image, "image_digest": cell.image_digest} if cell.image else {}),
        "model": cell.model["name"],
        "toy": str(cell.toy).lower(),
        "synthetic": str(cell.synthetic).lower(),
    }
    return [(f"kitt.{name}", value) for name, value in facts.items()]


def decimal(value: float) -> str:
    """A number without exponent and trailing zeros."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return text if text not in ("-0", "") else "0"
