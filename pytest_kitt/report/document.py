"""What is a run, as data? One form that every file and every export is made from.

What is missing is null, times are ISO-8601 in UTC, numbers are finite. What looks like a secret is masked here again:
a file travels further than the store.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_kitt.measure.consistency import Matrix
from pytest_kitt.settings import masked_pairs, masked_words

if TYPE_CHECKING:
    import sqlalchemy as sa

SCHEMA = 1
AGREEMENTS = "agreements"  # the kind of event that keeps them for a run that was imported without its answers
_MAX_WHOLE = 1 << 63
_RUN = ("id", "started_at", "finished_at", "status", "exit_status", "suite", "synthetic", "toy", "kitt_version")
_CELL = (
    *("id", "key", "engine", "engine_version", "runtime", "image", "image_digest", "model", "api"),
    *("overrides", "argv", "synthetic", "toy"),
)
_RESULT = (
    *("nodeid", "key", "benchmark", "version", "category", "outcome", "reason", "params"),
    *("started_at", "duration_s", "attempt", "metrics"),
)
_EMPTY_IS_MISSING = ("suite", "engine_version", "image", "image_digest", "reason", "key")


def read(connection: sa.Connection, ref: str, *, every_attempt: bool = False) -> dict[str, Any]:
    """A run with its results as ``reader.show_run`` gives it, with masked command lines."""
    from pytest_kitt.store import reader

    found: dict[str, Any] = clean(reader.show_run(connection, ref, every_attempt=every_attempt))
    found["run"]["argv"] = masked_words(found["run"]["argv"])
    for result in found["results"]:
        if cell := result["cell"]:
            cell["argv"] = masked_words(cell["argv"])
            cell["overrides"] = masked_pairs(cell["overrides"])
    return found


def events(connection: sa.Connection, run_id: str) -> list[dict[str, Any]]:
    """What happened in a run, in order."""
    from pytest_kitt.store import reader

    found: list[dict[str, Any]] = clean(reader.read_events(connection, run_id))
    return [event for event in found if event["kind"] != AGREEMENTS]


def agreements(connection: sa.Connection, run_id: str) -> list[Matrix]:
    """Do the answers of a run agree? By its stored answers, or where it was imported without them as was said then."""
    from pytest_kitt.report import agreement
    from pytest_kitt.store import reader

    found = reader.show_run(connection, run_id)
    matrices = agreement.read(clean(found["results"]), functools.partial(reader.read_samples, connection))
    said = [event["payload"] for event in reader.read_events(connection, run_id) if event["kind"] == AGREEMENTS]
    return matrices or [Matrix.from_json(one) for payload in said for one in payload["agreements"]]


def clean(value: Any) -> Any:
    """What a hostile server's JSON may hold and a file may not, replaced: halves of characters, endless numbers."""
    if isinstance(value, dict):
        return {clean(key): clean(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [clean(inside) for inside in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not -_MAX_WHOLE <= value < _MAX_WHOLE:
        return str(value)
    return value


def run(found: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of the run itself."""
    return _only(_RUN, found["run"])


def result(one: Mapping[str, Any]) -> dict[str, Any]:
    """A result with all of its numbers, but without its cell and without the ids of a store."""
    return _only(_RESULT, one)


def cell(one: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A cell as it ran; None for a result that has none."""
    return None if one is None else _only(_CELL, one)


def cells(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every cell of the results once, in the order of its first result."""
    every: list[dict[str, Any]] = []
    for one in found["results"]:
        if (known := cell(one["cell"])) is not None and known not in every:
            every.append(known)
    return every


def certified(one: Mapping[str, Any], label: str) -> bool | None:
    """Whether the client proved that it applied the load of a label; None where there was no load."""
    certificate = one["params"].get(f"{label}.certificate" if label else "certificate")
    return not certificate.get("broken") if isinstance(certificate, dict) else None


def _only(names: tuple[str, ...], one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: (one[name] or None) if name in _EMPTY_IS_MISSING else one[name] for name in names}
