"""How does an exported run get into another store? Checked to the last field, and whole or not at all.

The form is that of ``reports/schemas/run.schema.json``: exported, imported and exported again are the same bytes.
"""

from __future__ import annotations

import base64
import binascii
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import sqlalchemy as sa
from pydantic import ConfigDict, Field

from pytest_kitt.errors import UserError
from pytest_kitt.measure.metrics import Better
from pytest_kitt.measure.results import Outcome
from pytest_kitt.mistakes import in_words
from pytest_kitt.report.document import AGREEMENTS
from pytest_kitt.store import schema

Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", max_length=40)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Short = Annotated[str, Field(max_length=40)]
Index = Annotated[int, Field(ge=0)]


class _Strict(pydantic.BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Model(_Strict):
    ref: str
    name: str
    format: str | None
    quantization: str | None
    parameters: int | None
    digest: str | None
    size_bytes: Annotated[int, Field(ge=0)] | None = None  # these four are not in every export: what is not, stays out
    architecture: str | None = None
    context: Annotated[int, Field(ge=0)] | None = None
    revision: str | None = None


class _Cell(_Strict):
    id: str
    key: Key
    engine: str
    engine_version: str | None
    runtime: Annotated[str, Field(max_length=20)]
    image: str | None = None
    image_digest: str | None = None
    model: _Model
    api: Annotated[str, Field(max_length=20)]
    overrides: dict[str, str]
    argv: list[str]
    synthetic: bool
    toy: bool


class _Metric(_Strict):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    stat: Short
    value: float
    unit: Short
    better: Better
    n: Annotated[int, Field(ge=1)]
    ci_low: float | None
    ci_high: float | None
    method: Short | None


class _Result(_Strict):
    nodeid: str
    key: Key | None
    cell: Index | None
    benchmark: str
    version: Short
    category: str
    outcome: Outcome
    reason: str | None
    params: dict[str, Any]
    started_at: Time
    duration_s: Annotated[float, Field(ge=0)]
    attempt: Annotated[int, Field(ge=1)]
    metrics: list[_Metric]


class _Run(_Strict):
    id: Annotated[str, Field(pattern=r"^[\w.-]{1,40}$")]
    started_at: Time
    finished_at: Time | None
    status: Literal["running", "passed", "failed", "error", "interrupted"]
    exit_status: int | None
    suite: str | None
    synthetic: bool
    toy: bool
    kitt_version: Short


class _Event(_Strict):
    at: Time
    kind: Short
    payload: dict[str, Any]


class _Samples(_Strict):
    result: Index
    seq: Index
    codec: Short
    n: Index
    base64: str


class _Set(_Strict):
    name: str
    cell: str
    questions: Index
    right: Index
    score: float


class _Pair(_Strict):
    first: Index
    second: Index
    n: Index
    same: Index
    agreement: float | None
    lost: Index
    gained: Index
    p_value: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None


class _Agreement(_Strict):
    benchmark: str
    data: str | None
    sets: Annotated[list[_Set], Field(min_length=2)]
    pairs: list[_Pair]


class _Machine(pydantic.BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    key: Key


class _Document(_Strict):
    schema_: Literal[1] = Field(alias="schema")
    run: _Run
    argv: list[str]
    machine: _Machine
    cells: list[_Cell]
    results: list[_Result]
    events: list[_Event]
    agreements: list[_Agreement] = []  # not in every export
    samples: list[_Samples] | None


def read(path: Path) -> _Document:
    """A document from a file, checked; UserError says what is wrong with it and where."""
    try:
        document = _Document.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise UserError(
            f"{path} is no run as kitt results export --format json writes it: {where}: {in_words([first])}"
        ) from error
    _require_sound(document, path)
    return document


def store(engine: sa.Engine, document: _Document) -> str:
    """Writes a run with all that hangs on it in one transaction; its id. UserError when the store has it already."""
    run = document.run
    try:
        with engine.begin() as connection:
            known = sa.select(schema.runs.c.id).where(schema.runs.c.id == run.id)
            if connection.execute(known).first():
                raise UserError(f"run {run.id} is in this store already (kitt results show {run.id})")
            _insert(connection, document)
    except sa.exc.DBAPIError as error:
        raise UserError(f"run {run.id} cannot be stored: {str(error.orig).splitlines()[0]}") from error
    return run.id


def _require_sound(document: _Document, path: Path) -> None:
    """What refers to something refers to what is there."""
    if document.run.status == "running":
        raise UserError(f"{path}: run {document.run.id} was still running; export it again when it has ended")
    if any(result.cell is not None and result.cell >= len(document.cells) for result in document.results):
        raise UserError(f"{path}: a result names a cell that the document does not have")
    if any(block.result >= len(document.results) for block in document.samples or ()):
        raise UserError(f"{path}: raw samples name a result that the document does not have")
    if any(_lacks_pairs(matrix) for matrix in document.agreements):
        raise UserError(f"{path}: agreements do not have each two sets of answers once, with their numbers")
    try:
        for block in document.samples or ():
            base64.b64decode(block.base64, validate=True)
    except binascii.Error as error:
        raise UserError(f"{path}: raw samples are no base64: {error}") from error


def _lacks_pairs(matrix: _Agreement) -> bool:
    """Whether two of its sets are not compared, or a comparison of questions has no numbers."""
    found = [(pair.first, pair.second) for pair in matrix.pairs]
    numbers = (
        one for pair in matrix.pairs if pair.n for one in (pair.p_value, pair.difference, pair.ci_low, pair.ci_high)
    )
    return found != list(combinations(range(len(matrix.sets)), 2)) or None in numbers


def _insert(connection: sa.Connection, document: _Document) -> None:
    run, machine = document.run.model_dump(), document.machine
    table = schema.fingerprints
    if connection.execute(sa.select(table.c.key).where(table.c.key == machine.key)).first() is None:
        connection.execute(table.insert().values(key=machine.key, facts=machine.model_dump()))
    about: dict[str, Any] = {
        "argv": document.argv,
        "owner": {},
        "fingerprint_key": machine.key,
        "suite": run.pop("suite") or "",
    }
    connection.execute(schema.runs.insert().values({**run, **about}))
    cells = [_add(connection, schema.cells, _cell_row(cell), run["id"]) for cell in document.cells]
    results = []
    for result in document.results:
        results.append(_add(connection, schema.results, _result_row(result, cells), run["id"]))
        if result.metrics:
            rows = [{"result_id": results[-1], **metric.model_dump()} for metric in result.metrics]
            connection.execute(schema.metrics.insert(), rows)
    for block in document.samples or ():
        plain = {"seq": block.seq, "codec": block.codec, "n": block.n, "bytes": base64.b64decode(block.base64)}
        connection.execute(schema.samples.insert().values(result_id=results[block.result], **plain))
    for event in document.events:
        _add(connection, schema.events, event.model_dump(), run["id"])
    if document.samples is None and document.agreements:
        said = {"agreements": [matrix.model_dump() for matrix in document.agreements]}
        kept = {"at": run["finished_at"] or run["started_at"], "kind": AGREEMENTS, "payload": said}
        _add(connection, schema.events, kept, run["id"])


def _cell_row(cell: _Cell) -> dict[str, Any]:
    row = {**cell.model_dump(), "model": cell.model.model_dump(exclude_unset=True)}
    missing = {name: row[name] or "" for name in ("engine_version", "image", "image_digest")}
    return {**row, "name": row.pop("id"), **missing}


def _result_row(result: _Result, cells: list[int]) -> dict[str, Any]:
    row = result.model_dump(exclude={"metrics", "cell"})
    missing = {"key": result.key or "", "reason": result.reason or ""}
    return {**row, **missing, "cell_id": None if result.cell is None else cells[result.cell]}


def _add(connection: sa.Connection, table: sa.Table, row: dict[str, Any], run_id: str) -> int:
    row.pop("id", None)
    inserted = connection.execute(table.insert().values(run_id=run_id, **row)).inserted_primary_key
    return int(inserted[0]) if inserted else 0
