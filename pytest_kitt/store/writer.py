"""How do results get into the store? One writer, one transaction per result: what was acknowledged survives a kill."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pytest_kitt.measure.results import CellFacts, Measurement, Result, Run, RunStatus
from pytest_kitt.store import schema


class StoreWriter:
    """Writes the runs of this process into an open store."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def start_run(self, run: Run) -> None:
        """Writes a run with status running."""
        fingerprint = {"key": run.fingerprint["key"], "facts": dict(run.fingerprint)}
        with self._engine.begin() as connection:
            known = sa.select(schema.fingerprints.c.key).where(schema.fingerprints.c.key == fingerprint["key"])
            if connection.execute(known).first() is None:
                connection.execute(schema.fingerprints.insert().values(fingerprint))
            row = {
                "id": run.id,
                "started_at": run.started_at,
                "status": "running",
                "suite": run.suite,
                "argv": list(run.argv),
                "kitt_version": run.kitt_version,
                "synthetic": run.synthetic,
                "toy": run.toy,
                "owner": owner(),
                "fingerprint_key": fingerprint["key"],
            }
            connection.execute(schema.runs.insert().values(row))

    def add_result(self, run_id: str, result: Result) -> int:
        """Writes one result with cell, numbers and samples; returns its id. ValueError for a number that is none."""
        for m in result.metrics:
            _require_finite(m)
        with self._engine.begin() as connection:
            cell_id = None if result.cell is None else _cell_id(connection, run_id, result.cell)
            values = {
                "run_id": run_id,
                "cell_id": cell_id,
                "nodeid": result.nodeid,
                "benchmark": result.benchmark,
                "version": result.version,
                "category": result.category,
                "outcome": result.outcome,
                "reason": result.reason,
                "params": dict(result.params),
                "started_at": result.started_at,
                "duration_s": result.duration_s,
            }
            inserted = connection.execute(schema.results.insert().values(values)).inserted_primary_key
            result_id = int(inserted[0]) if inserted else 0
            if result.metrics:
                rows = [{"result_id": result_id, **dataclasses.asdict(m)} for m in result.metrics]
                connection.execute(schema.metrics.insert(), rows)
            for seq, block in enumerate(result.samples):
                row = {"result_id": result_id, "seq": seq, "codec": block.codec, "n": block.n, "bytes": block.data}
                connection.execute(schema.samples.insert().values(row))
        return result_id

    def add_event(self, run_id: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Writes something that happened."""
        row = {"run_id": run_id, "at": _now(), "kind": kind, "payload": dict(payload)}
        with self._engine.begin() as connection:
            connection.execute(schema.events.insert().values(row))

    def finish_run(self, run_id: str, status: RunStatus, exit_status: int) -> None:
        """Writes how a run ended."""
        values = {"status": status, "exit_status": exit_status, "finished_at": _now()}
        with self._engine.begin() as connection:
            connection.execute(schema.runs.update().where(schema.runs.c.id == run_id).values(values))


def owner() -> dict[str, Any]:
    """Which process writes: enough to tell later whether it still lives."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot_id": boot_id(), "pid": pid, "start_time": start_time(pid)}


def boot_id() -> str:
    """Changes with every boot of the machine; empty where it is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def start_time(pid: int) -> str:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _cell_id(connection: sa.Connection, run_id: str, cell: CellFacts) -> int:
    table = schema.cells
    same = (table.c.run_id == run_id, table.c.key == cell.key, table.c.engine_version == cell.engine_version)
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


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
