"""How does a run look in a spreadsheet? A row per number, with the verdict of its result; RFC 4180."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_kitt.measure.results import Measurement
from pytest_kitt.report import document, scores

_RUN = ("id", "status", "started_at")
_RESULT = ("benchmark", "version", "category", "outcome", "attempt", "nodeid", "key")
_CELL = ("id", "key", "engine", "engine_version", "runtime", "image", "image_digest", "api", "synthetic", "toy")
_MODEL = (
    *("name", "format", "quantization", "parameters", "digest"),
    *("ref", "size_bytes", "architecture", "context", "revision"),
)
_METRIC = ("name", "stat", "value", "unit", "better", "n", "ci_low", "ci_high", "method")
_HEAD = (
    *(f"run_{name}" if name != "id" else "run" for name in _RUN),
    *("result_key" if name == "key" else name for name in _RESULT),
    *("cell" if name == "id" else "cell_key" if name == "key" else name for name in _CELL),
    *("model" if name == "name" else f"model_{name}" for name in _MODEL),
    "certified",
    "data",
    *("metric" if name == "name" else name for name in _METRIC),
)
_WIDE = ("\uff1d", "\uff0b", "\uff0d", "\uff20")  # which some spreadsheets take for the same
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", *_WIDE)


def lines(found: Mapping[str, Any]) -> Iterator[bytes]:
    """The head, then the rows: ``found`` as ``document.read`` gives it.

    A result without numbers has one row that ends after its model. A text that a spreadsheet would take for a formula
    begins with an apostrophe; numbers are as they are.
    """
    yield _line(_HEAD)
    run = [found["run"][name] for name in _RUN]
    for result in found["results"]:
        cell = result["cell"] or {}
        model = cell.get("model", {})
        lead = [
            *run,
            *(result[name] for name in _RESULT),
            *(cell.get(name) for name in _CELL),
            *(model.get(name) for name in _MODEL),
        ]
        told = scores.of(result["params"], [Measurement(**metric) for metric in result["metrics"]]).names
        origin = scores.data(result["params"]) or None
        for metric in result["metrics"] or [{}]:
            label = metric.get("name", "").rpartition(".")[0]
            facts = (document.certified(result, label), origin if metric.get("name") in told else None)
            yield _line((*lead, *facts, *(metric.get(name) for name in _METRIC)))


def _line(values: tuple[Any, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([_field(value) for value in values])
    return text.getvalue().encode("utf-8", "replace")


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return repr(value)
