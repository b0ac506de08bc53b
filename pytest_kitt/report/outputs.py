"""How do raw samples become lines of JSON? One object a request, one a question."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from pytest_kitt.measure.records import CODEC, CountedBy, Failure, Phase, Request, RequestTable
from pytest_kitt.measure.results import Block

_TIMES = ("planned_ns", "send_ns", "end_ns", "prefill_ns", "decode_ns")
_COUNTS = ("isl", "osl", "answer_event")
_NO_BLOCK = (ValueError, KeyError, TypeError, AttributeError, struct.error)
_PHASES = {phase: phase.name.lower() for phase in Phase}
_FAILURES = {failure: failure.name.lower() if failure else None for failure in Failure}
_COUNTERS = {by: by.name.lower() if by else None for by in CountedBy}


def lines(blocks: Iterable[Block]) -> Iterator[bytes]:
    """The samples of one result, block by block: at no time is more than one of them in memory.

    A request carries the number of its block (``block``, from 0): a block belongs to one load. Rows of questions stay
    as they are. A block that cannot be read is a line of its own, with its bytes in base64: nothing is left out.
    """
    for number, block in enumerate(blocks):
        try:
            yield _block(number, block)
        except _NO_BLOCK:
            as_text = base64.b64encode(block.data).decode()
            yield orjson.dumps({"block": number, "codec": block.codec, "n": block.n, "base64": as_text}) + b"\n"


def _block(number: int, block: Block) -> bytes:
    if block.codec == CODEC:
        table = RequestTable.from_bytes(block.data)
        return b"".join(orjson.dumps(_request(number, r, table.texts)) + b"\n" for r in table.rows())
    if block.codec == "jsonl":
        rows = block.data.splitlines()
        if not all(isinstance(orjson.loads(row), dict) for row in rows):
            raise ValueError("a row is no object")
        return b"".join(row + b"\n" for row in rows)
    raise ValueError(block.codec)


def _request(block: int, r: Request, texts: dict[int, str]) -> dict[str, Any]:
    return {
        "block": block,
        "index": r.index,
        "phase": _PHASES[Phase(r.phase)],
        "failure": _FAILURES[Failure(r.failure)],
        "status": r.status or None,
        "counted_by": _COUNTERS[CountedBy(r.counted_by)],
        "resent": bool(r.resent),
        "retried": r.retried,
        "length_finish": bool(r.length_finish),
        "connect_ns": r.connect_ns,
        **{name: value if (value := getattr(r, name)) >= 0 else None for name in (*_TIMES, *_COUNTS)},
        "event_ns": list(r.event_ns),
        "text": texts.get(r.index),
    }
