"""What is in the store? Plain functions that give JSON-ready records; the command line and the reports use them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from pytest_kitt.errors import UserError
from pytest_kitt.measure.results import Block
from pytest_kitt.store import schema
from pytest_kitt.store.writer import boot_id, start_time

_LATEST = ("last", "latest")
_MAX_NAMED = 5


def list_runs(connection: sa.Connection, *, synthetic: bool = False, limit: int | None = None) -> list[dict[str, Any]]:
    """Runs, newest first; those on simulated engines only if asked for."""
    query = sa.select(schema.runs).order_by(schema.runs.c.started_at.desc(), schema.runs.c.id.desc()).limit(limit)
    if not synthetic:
        query = query.where(schema.runs.c.synthetic.is_(False))
    return [_run(connection, row) for row in connection.execute(query).mappings()]


def show_run(connection: sa.Connection, ref: str) -> dict[str, Any]:
    """One run with its results; ``ref`` is an id, the beginning of one, or ``last``. UserError when it is not clear."""
    run_id = find_run(connection, ref)
    row = connection.execute(sa.select(schema.runs).where(schema.runs.c.id == run_id)).mappings().one()
    machine = sa.select(schema.fingerprints.c.facts).where(schema.fingerprints.c.key == row["fingerprint_key"])
    run = {**_run(connection, row), "fingerprint": connection.execute(machine).scalar()}
    query = sa.select(schema.results).where(schema.results.c.run_id == run_id).order_by(schema.results.c.id)
    return {"run": run, "results": [_result(connection, r) for r in connection.execute(query).mappings()]}


def find_run(connection: sa.Connection, ref: str) -> str:
    """The id that a reference means."""
    ids = [row[0] for row in connection.execute(sa.select(schema.runs.c.id).order_by(schema.runs.c.started_at.desc()))]
    if not ids:
        raise UserError("the store holds no run yet; run a benchmark first")
    if ref in _LATEST:
        return str(ids[0])
    matching = [run_id for run_id in ids if run_id.startswith(ref)] if ref else []
    if len(matching) == 1 or ref in matching:
        return ref if ref in matching else str(matching[0])
    if matching:
        raise UserError(f"run {ref!r} is not clear: {', '.join(matching[:_MAX_NAMED])} begin so; give more of the id")
    raise UserError(f"there is no run {ref!r}; the latest are: {', '.join(ids[:_MAX_NAMED])} (kitt results list)")


def read_samples(connection: sa.Connection, result_id: int) -> Iterator[Block]:
    """The raw blocks of a result, in order."""
    table = schema.samples
    query = sa.select(table).where(table.c.result_id == result_id).order_by(table.c.seq)
    for row in connection.execute(query).mappings():
        yield Block(row["codec"], row["n"], row["bytes"])


def delete_run(connection: sa.Connection, ref: str) -> str:
    """Deletes a run and all that hangs on it; returns its id."""
    run_id = find_run(connection, ref)
    connection.execute(schema.runs.delete().where(schema.runs.c.id == run_id))
    return run_id


def _run(connection: sa.Connection, row: sa.RowMapping) -> dict[str, Any]:
    table = schema.results
    counts = (
        sa.select(table.c.outcome, sa.func.count().label("n"))
        .where(table.c.run_id == row["id"])
        .group_by(table.c.outcome)
    )
    cells = connection.execute(sa.select(schema.cells).where(schema.cells.c.run_id == row["id"])).mappings().all()
    return {
        "id": row["id"],
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
        "status": _status(row),
        "exit_status": row["exit_status"],
        "suite": row["suite"],
        "synthetic": row["synthetic"],
        "toy": row["toy"],
        "results": {row.outcome: row.n for row in connection.execute(counts)},
        "engines": sorted({cell["engine"] for cell in cells}),
        "models": sorted({cell["model"]["name"] for cell in cells}),
        "argv": row["argv"],
        "kitt_version": row["kitt_version"],
    }


def _status(row: sa.RowMapping) -> str:
    """A run that says running, though its process on this machine is gone, was interrupted."""
    if row["status"] != "running" or row["owner"].get("host") != socket.gethostname():
        return str(row["status"])
    owner = row["owner"]
    alive = owner.get("boot_id") == boot_id() and start_time(owner.get("pid", 0)) == owner.get("start_time")
    return "running" if alive else "interrupted"


def _result(connection: sa.Connection, row: sa.RowMapping) -> dict[str, Any]:
    m, s = schema.metrics, schema.samples
    stats = sa.select(m).where(m.c.result_id == row["id"]).order_by(m.c.name, m.c.stat)
    sizes = sa.select(s.c.seq, s.c.codec, s.c.n, sa.func.length(s.c.bytes)).where(s.c.result_id == row["id"])
    return {
        "id": row["id"],
        "cell": _cell(connection, row["cell_id"]),
        **{name: row[name] for name in ("benchmark", "version", "category", "outcome", "reason", "params")},
        "metrics": [
            {str(key): value for key, value in found.items() if key != "result_id"}
            for found in connection.execute(stats).mappings()
        ],
        "samples": [
            {"seq": seq, "codec": codec, "n": n, "bytes": size}
            for seq, codec, n, size in connection.execute(sizes.order_by(s.c.seq))
        ],
        **{name: row[name] for name in ("nodeid", "started_at", "duration_s", "attempt")},
    }


def _cell(connection: sa.Connection, cell_id: int | None) -> dict[str, Any] | None:
    if cell_id is None:
        return None
    row = connection.execute(sa.select(schema.cells).where(schema.cells.c.id == cell_id)).mappings().one()
    shown = ("key", "engine", "engine_version", "runtime", "model", "api", "overrides", "argv", "synthetic", "toy")
    return {"id": row["name"], **{name: row[name] for name in shown}}
