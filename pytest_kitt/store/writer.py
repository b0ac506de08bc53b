"""How do results get into the store? One writer, one transaction per block and result.

What was acknowledged survives a kill.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pytest_kitt.hardware import identity
from pytest_kitt.measure.results import CellFacts, Measurement, Result, Run, RunStatus, Samples
from pytest_kitt.store import schema


class StoreWriter:
    """Writes the runs of this process into an open store."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def start_run(self, run: Run) -> None:
        """Writes a run with status running."""
        fingerprint = {"key": run.fingerprint["key"], "facts": dict(run.fingerprint)}
        with self._engine.begin() as connection:
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            connection.execute(insert(schema.fingerprints).values(fingerprint).on_conflict_do_nothing())
            row = {
                "id": run.id,
                "started_at": run.started_at,
                "status": "running",
                "suite": run.suite,
                "argv": list(run.argv),
                "kitt_version": run.kitt_version,
                "synthetic": run.synthetic,
                "toy": run.toy,
                "owner": identity.of_this_process(),
                "fingerprint_key": fingerprint["key"],
            }
            connection.execute(schema.runs.insert().values(row))

    def resume_run(self, run_id: str) -> None:
        """Marks a run as running again, now owned by this process."""
        values = {"status": "running", "exit_status": None, "finished_at": None, "owner": identity.of_this_process()}
        with self._engine.begin() as connection:
            connection.execute(schema.runs.update().where(schema.runs.c.id == run_id).values(values))

    def start_result(self, run_id: str, result: Result) -> int:
        """Writes what is known of a result before anything is measured; returns its id."""
        with self._engine.begin() as connection:
            return _insert(connection, run_id, result)

    def add_samples(self, result_id: int, seq: int, samples: Samples) -> None:
        """Writes block number ``seq`` of a result."""
        row = {"result_id": result_id, "seq": seq, "codec": samples.codec, "n": samples.n, "bytes": samples.data}
        with self._engine.begin() as connection:
            connection.execute(schema.samples.insert().values(row))

    def finish_result(self, run_id: str, result: Result, result_id: int | None = None) -> int:
        """Writes a result with cell and numbers, over what was known of it before; returns its id.

        ValueError for a number that is none.
        """
        for m in result.metrics:
            _require_finite(m)
        with self._engine.begin() as connection:
            if result_id is None:
                result_id = _insert(connection, run_id, result)
            else:
                values = _row(connection, run_id, result)
                connection.execute(schema.results.update().where(schema.results.c.id == result_id).values(values))
            if result.metrics:
                rows = [{"result_id": result_id, **dataclasses.asdict(m)} for m in result.metrics]
                connection.execute(schema.metrics.insert(), rows)
        return result_id

    def add_event(self, run_id: str, kind: str, payload: Mapping[str, Any], at: float | None = None) -> None:
        """Writes something that happened, now or at a time in seconds since the epoch."""
        row = {"run_id": run_id, "at": _iso(at), "kind": kind, "payload": dict(payload)}
        with self._engine.begin() as connection:
            connection.execute(schema.events.insert().values(row))

    def finish_run(self, run_id: str, status: RunStatus, exit_status: int) -> None:
        """Writes how a run ended."""
        values = {"status": status, "exit_status": exit_status, "finished_at": _iso()}
        with self._engine.begin() as connection:
            connection.execute(schema.runs.update().where(schema.runs.c.id == run_id).values(values))


def _insert(connection: sa.Connection, run_id: str, result: Result) -> int:
    inserted = connection.execute(schema.results.insert().values(_row(connection, run_id, result))).inserted_primary_key
    return int(inserted[0]) if inserted else 0


def _row(connection: sa.Connection, run_id: str, result: Result) -> dict[str, Any]:
    plain = ("nodeid", "key", "benchmark", "version", "category", "outcome", "reason", "started_at", "duration_s")
    return {
        "run_id": run_id,
        "cell_id": None if result.cell is None else _cell_id(connection, run_id, result.cell),
        "params": dict(result.params),
        "attempt": result.attempt,
        **{name: getattr(result, name) for name in plain},
    }


def _cell_id(connection: sa.Connection, run_id: str, cell: CellFacts) -> int:
    table = schema.cells
    telling = ("key", "engine_version", "image_digest")
    same = (table.c.run_id == run_id, *(table.c[name] == getattr(cell, name) for name in telling))
    found = connection.execute(sa.select(table.c.id).where(*same)).scalar()
    if found is not None:
        return int(found)
    values = dataclasses.asdict(cell)
    row = {**values, "name": values.pop("id"), "argv": list(cell.argv), "run_id": run_id}
    row.pop("id", None)
    inserted = connection.execute(table.insert().values(row)).inserted_primary_key
    return int(inserted[0]) if inserted else 0


def _require_finite(m: Measurement) -> None:
    for value in (m.value, m.ci_low, m.ci_high):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"metric {m.key}: {value} is no number")


def _iso(at: float | None = None) -> str:
    now = datetime.datetime.now(datetime.UTC) if at is None else datetime.datetime.fromtimestamp(at, datetime.UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
