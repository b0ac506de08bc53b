"""What did the truth server really do? Reads its binary log; times are nanoseconds of CLOCK_MONOTONIC."""

from __future__ import annotations

import dataclasses
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

from pytest_kitt.measure.stats import percentile

_MAGIC = 0x31525453
_HEAD = struct.Struct("<II5QII64sQ")


@dataclasses.dataclass(frozen=True, slots=True)
class Served:
    """One request as the server saw it.

    Attributes:
        id: value of X-Request-Id.
        serial: number of the request at this server, from 0; a response's id is ``cmpl-SERIAL...``.
        arrive_ns: when the kernel had received all of it.
        status: HTTP status.
        aborted: the client left early.
        sent_ns: when each token was handed to the kernel.
        due_ns: when each token was due.

    """

    id: str
    serial: int
    arrive_ns: int
    status: int
    aborted: bool
    sent_ns: array[int]
    due_ns: array[int]


def read(path: Path) -> list[Served]:
    """All requests of a log, in the order of their ends."""
    data = path.read_bytes()
    found, offset = [], 0
    while offset + _HEAD.size <= len(data):
        magic, n, serial, _, _, arrive, _, status, flags, name, _ = _HEAD.unpack_from(data, offset)
        if magic != _MAGIC:
            raise ValueError(f"{path} is no log of the truth server")
        sent, due = array("Q"), array("Q")
        start = offset + _HEAD.size
        sent.frombytes(data[start : start + 8 * n])
        due.frombytes(data[start + 8 * n : start + 16 * n])
        offset = start + 16 * n
        found.append(Served(name.rstrip(b"\0").decode(), serial, arrive, status, bool(flags & 1), sent, due))
    return found


def late_p99_ms(served: Sequence[Served]) -> float:
    """How late the server was against its own timetable, in milliseconds; 0 where it has none."""
    late = sorted((sent - due) / 1e6 for s in served for sent, due in zip(s.sent_ns, s.due_ns, strict=True) if due)
    return percentile(late, 0.99) if late else 0.0
