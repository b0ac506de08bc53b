"""How is a whole run one JSON document? Sorted keys, ordered lists, an element a line: the same run, the same bytes."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from pytest_kitt.report import document

if TYPE_CHECKING:
    import sqlalchemy as sa


def lines(connection: sa.Connection, ref: str, *, samples: bool = False) -> Iterator[bytes]:
    """The document, piece by piece; ``samples`` adds the raw blocks in base64, one at a time.

    Every attempt is a result of its own. ``cell`` of a result counts from 0 in ``cells``, ``result`` of a block in
    ``results``.
    """
    found = document.read(connection, ref, every_attempt=True)
    cells: list[dict[str, Any] | None] = [*document.cells(found)]
    parts: Mapping[str, Iterable[Any] | None] = {
        "agreements": [matrix.to_json() for matrix in document.agreements(connection, found["run"]["id"])],
        "cells": cells,
        "events": document.events(connection, found["run"]["id"]),
        "results": (
            {**document.result(one), "cell": None if one["cell"] is None else cells.index(document.cell(one["cell"]))}
            for one in found["results"]
        ),
        "samples": _blocks(connection, found["results"]) if samples else None,
    }
    about = {"argv": found["run"]["argv"], "machine": found["run"]["fingerprint"], "run": document.run(found)}
    whole: dict[str, Any] = {**parts, **about, "schema": document.SCHEMA}
    for number, name in enumerate(sorted(whole)):
        yield b"{" if not number else b",\n "
        yield _dumps(name) + b": "
        yield from _list(parts[name]) if parts.get(name) is not None else [_dumps(whole[name])]  # type: ignore[arg-type]  # is no None
    yield b"}\n"


def _list(elements: Iterable[Any]) -> Iterator[bytes]:
    lead = b"[\n  "
    for element in elements:
        yield lead + _dumps(element)
        lead = b",\n  "
    yield b"[]" if lead.startswith(b"[") else b"\n ]"


def _blocks(connection: sa.Connection, results: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    from pytest_kitt.store import reader

    for number, result in enumerate(results):
        for seq, block in enumerate(reader.read_samples(connection, result["id"])):
            as_text = base64.b64encode(block.data).decode()
            yield {"result": number, "seq": seq, "codec": block.codec, "n": block.n, "base64": as_text}


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
