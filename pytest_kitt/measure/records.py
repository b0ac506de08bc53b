"""What is known about each request of a load? Columns of numbers, one row per request.

Times are nanoseconds on the client's monotonic clock since the load began; -1 means "did not happen". The times of a
request's token-bearing events lie one after the other in ``event_ns``, ``events`` of them per request.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol

CODEC = "kitt-columns-1"
MAX_BLOCK_BYTES = 1 << 20


class Phase(enum.IntEnum):
    """Whether a request counts."""

    WARMUP = 0
    MEASURED = 1
    COOLDOWN = 2  # keeps the load up until the last measured request has ended


class Failure(enum.IntEnum):
    """Why a request failed; NONE for a good one."""

    NONE = 0
    CONNECT = 1  # the connection was refused, or its TLS handshake failed
    RESET = 2  # the peer reset the connection
    CLOSED = 3  # the peer closed the connection before the response was complete
    TIMEOUT = 4  # not complete within the request's time limit
    HTTP_STATUS = 5  # the status was not 2xx; the column ``status`` says which
    BAD_HTTP = 6  # not HTTP/1.1 as this client knows it
    BAD_STREAM = 7  # the body was not the event stream that the dialect expects
    ERROR_EVENT = 8  # the stream carried an error object
    NO_TOKENS = 9  # a well-formed answer without a single token
    CANCELLED = 10  # the load was stopped while the request was under way


class CountedBy(enum.IntEnum):
    """Who counted the tokens of a request."""

    NOBODY = 0
    USAGE = 1  # the server's usage object
    CHUNKS = 2  # one token per token-bearing event: a lower bound
    TOKENIZER = 3
    ESTIMATED = 4


_COLUMNS: dict[str, str] = {
    "index": "q",
    "phase": "b",
    "failure": "b",
    "status": "h",
    "counted_by": "b",
    "resent": "b",
    "retried": "b",
    "length_finish": "b",
    "planned_ns": "q",
    "connect_ns": "q",
    "send_ns": "q",
    "end_ns": "q",
    "isl": "i",
    "osl": "i",
    "answer_event": "i",
    "prefill_ns": "q",
    "decode_ns": "q",
    "events": "i",
}

_PHASES, _FAILURES, _COUNTERS = tuple(Phase), tuple(Failure), tuple(CountedBy)
_EVENT_BYTES = array("q").itemsize
_ROW_BYTES = sum(array(code).itemsize for code in _COLUMNS.values())
_ROW = tuple(name for name in _COLUMNS if name != "events")


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One row: what happened to one request.

    Attributes:
        index: which request of the load it was, from 0.
        phase: warm-up, measured or cool-down.
        failure: why it failed, if it did.
        status: HTTP status, 0 when none came.
        counted_by: who counted ``osl``.
        resent: 1 when a reused connection was reset before any response byte and the request was sent again.
        retried: how often the request had been sent before and not been taken; all else is of the last time.
        length_finish: 1 when the server says that it stopped at the length limit.
        planned_ns: when it should have been sent.
        connect_ns: how long connecting took, 0 on a reused connection.
        send_ns: the clock just before the send() that carried its last byte.
        end_ns: when its last byte arrived.
        isl: input tokens, -1 unknown.
        osl: output tokens, -1 unknown.
        answer_event: index of the first event that carries answer text (not reasoning, not a tool call), -1 none.
        prefill_ns: how long the server says that it read the prompt, -1 when it does not say.
        decode_ns: how long the server says that it wrote the answer, likewise.
        event_ns: arrival of each token-bearing event.

    """

    index: int
    phase: int
    failure: int = Failure.NONE
    status: int = 0
    counted_by: int = CountedBy.NOBODY
    resent: int = 0
    retried: int = 0
    length_finish: int = 0
    planned_ns: int = -1
    connect_ns: int = 0
    send_ns: int = -1
    end_ns: int = -1
    isl: int = -1
    osl: int = -1
    answer_event: int = -1
    prefill_ns: int = -1
    decode_ns: int = -1
    event_ns: Sequence[int] = ()


class RequestTable:
    """All requests of one load, column by column; texts only where a quality item asked for them."""

    def __init__(self) -> None:
        self._columns: dict[str, array[int]] = {name: array(code) for name, code in _COLUMNS.items()}
        self._rows: list[tuple[int, ...]] = []
        self.event_ns: array[int] = array("q")
        self.texts: dict[int, str] = {}
        self._text_chars = 0

    def __len__(self) -> int:
        return len(self._columns["index"]) + len(self._rows)

    @property
    def columns(self) -> dict[str, array[int]]:
        """All columns by name."""
        if self._rows:
            self._settle()
        return self._columns

    def __getitem__(self, name: str) -> array[int]:
        return self.columns[name]

    def append(self, request: Request, text: str | None = None) -> None:
        """Adds one row."""
        self.append_row([getattr(request, name) for name in _ROW], request.event_ns)
        if text is not None:
            self.keep_text(request.index, text)

    def keep_text(self, index: int, text: str) -> None:
        """Keeps the text of a request's answer."""
        self.texts[index] = text
        self._text_chars += len(text)

    def append_row(self, values: Sequence[int], event_ns: Sequence[int]) -> None:
        """Adds one row: all columns but ``events``, in their order."""
        self._rows.append((*values, len(event_ns)))
        self.event_ns.extend(event_ns)

    def _settle(self) -> None:
        """Moves new rows into the columns: many at a time is far cheaper than one by one."""
        rows, self._rows = self._rows, []
        for column, values in zip(self._columns.values(), zip(*rows, strict=True), strict=False):
            column.extend(values)

    def extend(self, other: RequestTable) -> None:
        """Adds all rows of another table."""
        for name, column in self.columns.items():
            column.extend(other.columns[name])
        self.event_ns.extend(other.event_ns)
        self.texts.update(other.texts)

    def rows(self) -> Iterator[Request]:
        """Each request as a record, in the order of arrival."""
        enums = {"phase": _PHASES, "failure": _FAILURES, "counted_by": _COUNTERS}
        columns = zip(*(_named(self.columns[name], enums.get(name)) for name in _ROW), strict=True)
        for values, (start, stop) in zip(columns, self.spans(), strict=True):
            yield Request(*values, event_ns=self.event_ns[start:stop])  # type: ignore[misc]  # one value per name of _ROW

    def spans(self) -> Iterator[tuple[int, int]]:
        """Where each request's events begin and end in ``event_ns``."""
        ends = accumulate(self.columns["events"])
        start = 0
        for stop in ends:
            yield start, stop
            start = stop

    @property
    def nbytes(self) -> int:
        """Size of the numbers, and about that of the texts."""
        rows = len(self._columns["index"]) + len(self._rows)
        return rows * _ROW_BYTES + len(self.event_ns) * _EVENT_BYTES + self._text_chars

    def to_bytes(self) -> bytes:
        """One block: a JSON header behind its length, then each column little-endian."""
        arrays = {**self.columns, "event_ns": self.event_ns}
        head = json.dumps(
            {
                "codec": CODEC,
                "columns": [[name, values.typecode, len(values)] for name, values in arrays.items()],
                "texts": [[index, text] for index, text in self.texts.items()],
            }
        ).encode()
        return b"".join([struct.pack("<I", len(head)), head, *(_little(values) for values in arrays.values())])

    @classmethod
    def from_bytes(cls, block: bytes) -> RequestTable:
        """The table that ``to_bytes`` wrote, now or before ``retried`` was known; ValueError when it is not one."""
        (head_size,) = struct.unpack_from("<I", block)
        head = json.loads(block[4 : 4 + head_size])
        if head.get("codec") != CODEC:
            raise ValueError(f"not a block of {CODEC}")
        table = cls()
        offset = 4 + head_size
        for name, code, count in head["columns"]:
            values = array(code)
            size = count * values.itemsize
            values.frombytes(block[offset : offset + size])
            if sys.byteorder == "big":
                values.byteswap()
            offset += size
            if name == "event_ns":
                table.event_ns = values
            else:
                table.columns[name] = values
        _fill(table.columns)
        table.texts = {int(index): text for index, text in head["texts"]}
        return table


class Records:
    """All requests of one load: a column of numbers each in memory, the times of their events in blocks.

    Columns are those of ``Request``, and ``events``, ``first_ns`` and ``last_ns``: number of token-bearing events and
    the times of the first and the last one, -1 without. A million requests of 200 tokens so take 100 MB.

    Attributes:
        texts: the answers' texts by request index, where they were asked for.

    """

    def __init__(self, blocks: Iterable[bytes] = ()) -> None:
        self._columns: dict[str, array[int]] = {name: array(code) for name, code in _COLUMNS.items()}
        self._columns |= {"first_ns": array("q"), "last_ns": array("q")}
        self._blocks: list[HasData] = []
        self.texts: dict[int, str] = {}
        for block in blocks:
            self.take(RequestTable.from_bytes(block), _InMemory(block))

    def take(self, table: RequestTable, block: HasData) -> None:
        """Adds the requests of a table; its block is read again when their events are asked for."""
        for name, column in table.columns.items():
            self._columns[name].extend(column)
        for start, stop in table.spans():
            self._columns["first_ns"].append(table.event_ns[start] if stop > start else -1)
            self._columns["last_ns"].append(table.event_ns[stop - 1] if stop > start else -1)
        self.texts.update(table.texts)
        self._blocks.append(block)

    def __len__(self) -> int:
        return len(self._columns["index"])

    def __getitem__(self, name: str) -> array[int]:
        return self._columns[name]

    def rows(self) -> Iterator[Request]:
        """Each request as a record, in the order of their ends."""
        for block in self._blocks:
            yield from RequestTable.from_bytes(block.data).rows()


class HasData(Protocol):
    """Something that holds the bytes of a block, in memory or elsewhere."""

    @property
    def data(self) -> bytes:
        """The bytes."""


@dataclasses.dataclass(frozen=True, slots=True)
class _InMemory:
    data: bytes


def _named(column: Sequence[int], names: Sequence[int] | None) -> Iterable[int]:
    return column if names is None else map(names.__getitem__, column)


def _fill(columns: dict[str, array[int]]) -> None:
    """Zeros for the column that older blocks lack: nothing was sent again then."""
    if len(columns["retried"]) != len(columns["index"]):
        columns["retried"] = array(_COLUMNS["retried"], bytes(len(columns["index"])))


def _little(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        values = array(values.typecode, values)
        values.byteswap()
    return values.tobytes()
