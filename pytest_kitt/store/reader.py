"""What is in the store? Plain functions that give JSON-ready records; the command line and the reports use them."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import sqlalchemy as sa

from pytest_kitt.errors import UserError
from pytest_kitt.hardware import identity
from pytest_kitt.measure.records import CODEC
from pytest_kitt.measure.repeats import MEASURED, aggregates, repeats
from pytest_kitt.measure.results import NOT_FINISHED, Block, Result, RunStatus
from pytest_kitt.store import schema

_LATEST = ("last", "latest")
_BLOCKS_AT_ONCE = 4  # of about a megabyte each
_MAX_NAMED = 5
_MAX_PAST = 1000
_RUNNING = "running"
STATUSES: tuple[str, ...] = get_args(RunStatus)


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs to list; what is empty says nothing.

    Attributes:
        engine: name of an engine among its cells.
        model: name of a model among its cells; ``*`` stands for anything.
        suite: one of its suites.
        status: as it is now.
        since: ISO-8601 in UTC, as the store writes it.

    """

    engine: str = ""
    model: str = ""
    suite: str = ""
    status: str = ""
    since: str = ""

    def takes(self, run: Mapping[str, Any]) -> bool:
        """Whether a run is among them."""
        return (
            (not self.engine or self.engine in run["engines"])
            and (not self.model or any(fnmatch.fnmatchcase(name, self.model) for name in run["models"]))
            and (not self.suite or self.suite in run["suite"].split(","))
            and self.status in ("", run["status"])
            and self.since <= run["started_at"]
        )


_ALL = Wanted()


@dataclasses.dataclass(frozen=True, slots=True)
class Past:
    """What a benchmark cost when it passed.

    Attributes:
        cell_key: where; empty for one without an engine.
        synthetic: that was not a real engine.
        toy: that was the tiny model.
        params: of the item and of its loads.
        duration_s: of the whole item; the first one of a cell waited for the engine's start.
        requests: how many were sent, warm-up included; None when none was recorded.

    """

    cell_key: str
    synthetic: bool
    toy: bool
    params: Mapping[str, Any]
    duration_s: float
    requests: int | None


def list_runs(
    connection: sa.Connection, wanted: Wanted = _ALL, *, synthetic: bool = False, limit: int | None = None
) -> list[dict[str, Any]]:
    """Runs, newest first; those on simulated engines only if asked for."""
    query = sa.select(schema.runs).order_by(schema.runs.c.started_at.desc(), schema.runs.c.id.desc())
    if not synthetic:
        query = query.where(schema.runs.c.synthetic.is_(False))
    return list(itertools.islice(_wanted(connection, query, wanted), limit))


def count_synthetic(connection: sa.Connection, wanted: Wanted = _ALL) -> int:
    """How many runs were on simulated engines."""
    synthetic = schema.runs.c.synthetic.is_(True)
    if wanted == _ALL:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(schema.runs).where(synthetic)) or 0)
    return sum(1 for _ in _wanted(connection, sa.select(schema.runs).where(synthetic), wanted))


def _wanted(connection: sa.Connection, query: sa.Select[Any], wanted: Wanted) -> Iterator[dict[str, Any]]:
    query = query.where(schema.runs.c.started_at >= wanted.since)
    runs = (_run(connection, row) for row in connection.execute(query).mappings().all())
    return (run for run in runs if wanted.takes(run))


def find_runs(connection: sa.Connection, refs: Sequence[str]) -> list[dict[str, Any]]:
    """The runs that references mean, each once; UserError when one of them is not clear."""
    ids = list(dict.fromkeys(find_run(connection, ref) for ref in refs))
    rows = (
        connection.execute(sa.select(schema.runs).where(schema.runs.c.id == run_id)).mappings().one() for run_id in ids
    )
    return [_run(connection, row) for row in rows]


def show_run(connection: sa.Connection, ref: str, *, every_attempt: bool = False) -> dict[str, Any]:
    """One run with its results; ``ref`` is an id, the beginning of one, or ``last``. UserError when it is not clear.

    Of what was tried several times only the last attempt, unless every one is asked for. The item that a living
    session is at has the outcome "running".
    """
    run_id = find_run(connection, ref)
    row = connection.execute(sa.select(schema.runs).where(schema.runs.c.id == run_id)).mappings().one()
    machine = sa.select(schema.fingerprints.c.facts).where(schema.fingerprints.c.key == row["fingerprint_key"])
    run = {**_run(connection, row), "fingerprint": connection.execute(machine).scalar()}
    table = schema.results
    query = sa.select(table).where(table.c.run_id == run_id).order_by(table.c.id)
    if not every_attempt:
        query = query.where(table.c.id.not_in(_superseded(run_id)))
    alive = run["status"] == _RUNNING
    found = [_result(connection, r, alive) for r in connection.execute(query).mappings()]
    return {
        "run": run,
        "results": found,
        "aggregates": [a.to_json() for a in aggregates(repeats(map(Result.from_fields, found)))],
    }


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


def read_samples(connection: sa.Connection, result_id: int, seqs: Sequence[int] | None = None) -> Iterator[Block]:
    """The raw blocks of a result, in order: all, or those of these numbers, one at a time in memory."""
    table = schema.samples
    mine = sa.select(table).where(table.c.result_id == result_id)
    wanted = [mine.order_by(table.c.seq)] if seqs is None else [mine.where(table.c.seq == seq) for seq in seqs]
    for query in wanted:
        for row in connection.execute(query, execution_options={"yield_per": _BLOCKS_AT_ONCE}).mappings():
            yield Block(row["codec"], row["n"], row["bytes"])


def read_rows(connection: sa.Connection, result_id: int) -> list[dict[str, Any]]:
    """The rows of a result's JSON lines, in order."""
    blocks = (block for block in read_samples(connection, result_id) if block.codec == "jsonl")
    return [json.loads(line) for block in blocks for line in block.data.splitlines()]


def latest_results(connection: sa.Connection, run_id: str) -> dict[str, dict[str, Any]]:
    """Id, outcome and attempt of the last result of each key of a run; results of before there were keys are none."""
    table = schema.results
    columns = (table.c.id, table.c.key, table.c.outcome, table.c.attempt)
    query = sa.select(*columns).where(table.c.run_id == run_id, table.c.key != "").order_by(table.c.id)
    return {row["key"]: dict(row) for row in connection.execute(query).mappings()}


def measured_images(connection: sa.Connection, run_id: str) -> dict[str, list[str]]:
    """The images, as they were asked for, whose numbers a run has, by key of the cell; nothing without a container."""
    cells, results = schema.cells, schema.results
    query = (
        sa.select(cells.c.key, cells.c.image)
        .join(results, results.c.cell_id == cells.c.id)
        .where(cells.c.run_id == run_id, cells.c.image != "", results.c.outcome.in_(MEASURED))
        .where(results.c.id.not_in(_superseded(run_id)))
        .group_by(cells.c.id, cells.c.key, cells.c.image)
        .order_by(cells.c.id)
    )
    found: dict[str, list[str]] = {}
    for row in connection.execute(query):
        found.setdefault(row.key, []).append(row.image)
    return found


def read_events(connection: sa.Connection, run_id: str) -> list[dict[str, Any]]:
    """What happened in a run, in order: ``at``, ``kind``, ``payload``."""
    table = schema.events
    query = sa.select(table.c.at, table.c.kind, table.c.payload).where(table.c.run_id == run_id)
    return [dict(row) for row in connection.execute(query.order_by(table.c.at, table.c.id)).mappings()]


def passed_before(connection: sa.Connection, benchmark: str, version: str) -> list[Past]:
    """What a benchmark cost whenever it passed, newest first, at most a thousand."""
    r, c, s = schema.results, schema.cells, schema.samples
    sent = sa.select(sa.func.sum(s.c.n)).where(s.c.result_id == r.c.id, s.c.codec == CODEC).scalar_subquery()
    query = (
        sa.select(c.c.key, c.c.synthetic, c.c.toy, r.c.params, r.c.duration_s, sent.label("requests"))
        .select_from(r.outerjoin(c, r.c.cell_id == c.c.id))
        .where(r.c.benchmark == benchmark, r.c.version == version, r.c.outcome == "passed")
        .order_by(r.c.started_at.desc(), r.c.id.desc())
        .limit(_MAX_PAST)
    )
    return [
        Past(
            cell_key=row.key or "",
            synthetic=bool(row.synthetic),
            toy=bool(row.toy),
            params=row.params,
            duration_s=row.duration_s,
            requests=None if row.requests is None else int(row.requests),
        )
        for row in connection.execute(query)
    ]


def delete_run(connection: sa.Connection, ref: str) -> str:
    """Deletes a run and all that hangs on it; returns its id."""
    run_id = find_run(connection, ref)
    connection.execute(schema.runs.delete().where(schema.runs.c.id == run_id))
    return run_id


def _superseded(run_id: str) -> sa.Select[tuple[int]]:
    """Ids of results that were tried again later in the same run."""
    table, later = schema.results, schema.results.alias("later")
    again = (later.c.run_id == table.c.run_id, later.c.key == table.c.key, later.c.id > table.c.id)
    return sa.select(table.c.id).where(table.c.run_id == run_id, table.c.key != "", sa.exists().where(*again))


def _run(connection: sa.Connection, row: sa.RowMapping) -> dict[str, Any]:
    table, status = schema.results, _status(row)
    under_way = sa.and_(table.c.reason == NOT_FINISHED, sa.literal(status == _RUNNING))
    outcome = sa.case((under_way, _RUNNING), else_=table.c.outcome).label("outcome")
    counts = (
        sa.select(outcome, sa.func.count().label("n"))
        .where(table.c.run_id == row["id"], table.c.id.not_in(_superseded(row["id"])))
        .group_by(outcome)
    )
    cells = connection.execute(sa.select(schema.cells).where(schema.cells.c.run_id == row["id"])).mappings().all()
    return {
        "id": row["id"],
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
        "status": status,
        "exit_status": row["exit_status"],
        "suite": row["suite"],
        "synthetic": row["synthetic"],
        "toy": row["toy"],
        "results": {row.outcome: row.n for row in connection.execute(counts)},
        "engines": sorted({cell["engine"] for cell in cells}),
        "engine_versions": _versions(cells),
        "models": sorted({cell["model"]["name"] for cell in cells}),
        "argv": row["argv"],
        "kitt_version": row["kitt_version"],
    }


def _versions(cells: Sequence[sa.RowMapping]) -> dict[str, list[str]]:
    """The versions that each engine said it has; none of one that never answered."""
    said: dict[str, set[str]] = {cell["engine"]: set() for cell in cells}
    for cell in cells:
        said[cell["engine"]] |= {cell["engine_version"]} - {""}
    return {engine: sorted(versions) for engine, versions in sorted(said.items())}


def _status(row: sa.RowMapping) -> str:
    """A run that says running, though its process on this machine is gone, was interrupted."""
    if row["status"] != _RUNNING or not identity.is_of_this_host(row["owner"]):
        return str(row["status"])
    return _RUNNING if identity.is_alive(row["owner"]) else "interrupted"


def _result(connection: sa.Connection, row: sa.RowMapping, alive: bool) -> dict[str, Any]:
    under_way = {"outcome": _RUNNING, "reason": ""} if alive and row["reason"] == NOT_FINISHED else {}
    m, s = schema.metrics, schema.samples
    stats = sa.select(m).where(m.c.result_id == row["id"]).order_by(m.c.name, m.c.stat)
    sizes = sa.select(s.c.seq, s.c.codec, s.c.n, sa.func.length(s.c.bytes)).where(s.c.result_id == row["id"])
    return {
        "id": row["id"],
        "cell": _cell(connection, row["cell_id"]),
        **{name: row[name] for name in ("benchmark", "version", "category", "outcome", "reason", "params")},
        **under_way,
        "metrics": [
            {str(key): value for key, value in found.items() if key != "result_id"}
            for found in connection.execute(stats).mappings()
        ],
        "samples": [
            {"seq": seq, "codec": codec, "n": n, "bytes": size}
            for seq, codec, n, size in connection.execute(sizes.order_by(s.c.seq))
        ],
        **{name: row[name] for name in ("key", "nodeid", "started_at", "duration_s", "attempt")},
    }


def _cell(connection: sa.Connection, cell_id: int | None) -> dict[str, Any] | None:
    if cell_id is None:
        return None
    row = connection.execute(sa.select(schema.cells).where(schema.cells.c.id == cell_id)).mappings().one()
    shown = (
        *("key", "engine", "engine_version", "runtime", "image", "image_digest"),
        *("model", "api", "overrides", "argv", "synthetic", "toy"),
    )
    return {"id": row["name"], **{name: row[name] for name in shown}}
