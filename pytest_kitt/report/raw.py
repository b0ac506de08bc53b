"""What do the raw samples of a result show? Its loads apart, of long ones a sample of blocks, and the questions."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pytest_kitt.measure import metrics
from pytest_kitt.measure.records import CODEC, Failure, Phase, Records, Request
from pytest_kitt.measure.results import Block
from pytest_kitt.measure.stats import Distribution

Blocks = Callable[[int, Sequence[int]], Iterable[Block]]
"""The raw blocks of a result: by its id, and the numbers (``seq``) of those that are wanted."""

DRAWN = ("ttft_ms", "itl_ms", "e2e_ms")
_UNREADABLE = (ValueError, KeyError, TypeError, struct.error)


@dataclasses.dataclass(frozen=True, slots=True)
class Timed:
    """One request in a timeline: when its tokens came, in milliseconds since it was sent.

    Attributes:
        place: slowest, median or fastest.
        index: which request of the load it was.
        events_ms: arrival of each token-bearing event.

    """

    place: str
    index: int
    events_ms: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Looked:
    """What the looked-at requests of one load show.

    Attributes:
        requests: how many were looked at, in all phases.
        of: how many are stored.
        distributions: of the good ones, by the names in ``DRAWN``.
        timed: some of them, slowest first.
        failures: number of measured ones by reason.
        trouble: why there is nothing to see, empty when there is.

    """

    requests: int = 0
    of: int = 0
    distributions: Mapping[str, Distribution] = dataclasses.field(default_factory=dict)
    timed: Sequence[Timed] = ()
    failures: Mapping[str, int] = dataclasses.field(default_factory=dict)
    trouble: str = ""

    @property
    def partly(self) -> bool:
        """Whether it is a sample."""
        return self.requests < self.of


@dataclasses.dataclass(frozen=True, slots=True)
class Questions:
    """Rows of a quality item, wrong ones first.

    Attributes:
        rows: as stored, at most as many as were asked for.
        looked: how many were looked at.
        of: how many are stored.
        wrong: how many of those looked at are wrong.

    """

    rows: Sequence[Mapping[str, Any]]
    looked: int
    of: int
    wrong: int


def look(
    result: Mapping[str, Any], blocks: Blocks, labels: Sequence[str], *, max_bytes: int, timed: int
) -> dict[str, Looked]:
    """Each load of a result by its label; at most so many bytes of blocks are read, ``timed`` requests are kept."""
    stored = [sample for sample in result["samples"] if sample["codec"] == CODEC]
    found = {}
    for label in labels:
        mine = _blocks_of(result["params"], label, stored, alone=len(labels) == 1)
        if mine is None:
            found[label] = Looked(trouble="its raw samples cannot be told from those of the other loads")
        elif mine:
            found[label] = _look(result["id"], mine, blocks, max_bytes // len(labels), timed)
    return found


def questions(result: Mapping[str, Any], blocks: Blocks, *, max_bytes: int, rows: int) -> Questions | None:
    """The questions of a result; None when it asked none."""
    stored = [sample for sample in result["samples"] if sample["codec"] == "jsonl"]
    if not stored:
        return None
    wrong: list[Mapping[str, Any]] = []
    right: list[Mapping[str, Any]] = []
    for block in blocks(result["id"], _thinned(stored, max_bytes)):
        for line in block.data.splitlines():
            row = _row(line)
            if row is not None:
                (right if row.get("correct") is True else wrong).append(row)
    looked = len(wrong) + len(right)
    return Questions((wrong + right)[:rows], looked, sum(sample["n"] for sample in stored), len(wrong))


def _row(line: bytes) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _blocks_of(
    params: Mapping[str, Any], label: str, stored: Sequence[Mapping[str, Any]], *, alone: bool
) -> Sequence[Mapping[str, Any]] | None:
    """The blocks of one load; an item says with each load which of its blocks are the load's."""
    span = params.get(f"{label}.blocks" if label else "blocks")
    if isinstance(span, list) and len(span) == 2 and all(isinstance(end, int) for end in span):
        return stored[span[0] : span[1]]
    return stored if alone else None


def _thinned(stored: Sequence[Mapping[str, Any]], max_bytes: int) -> list[int]:
    """Numbers of blocks, evenly over all of them, at most so many bytes; one at least."""
    size = sum(sample["bytes"] for sample in stored)
    stride = max(1, -(-size // max(1, max_bytes)))
    return [sample["seq"] for sample in stored[min(stride // 2, len(stored) - 1) :: stride]]


def _look(result_id: int, stored: Sequence[Mapping[str, Any]], blocks: Blocks, max_bytes: int, timed: int) -> Looked:
    try:
        records = Records(block.data for block in blocks(result_id, _thinned(stored, max_bytes)))
        return Looked(
            requests=len(records),
            of=sum(sample["n"] for sample in stored),
            distributions=_drawn(records),
            timed=_timed(records, timed),
            failures=_failures(records),
        )
    except _UNREADABLE as error:
        return Looked(trouble=f"its raw samples cannot be read: {type(error).__name__}")


def _drawn(records: Records) -> dict[str, Distribution]:
    found = metrics.distributions(records, DRAWN)
    return {name: found[name] for name in DRAWN}


def _failures(records: Records) -> dict[str, int]:
    pairs = zip(records["phase"], records["failure"], strict=True)
    found = Counter(Failure(f).name for phase, f in pairs if phase == Phase.MEASURED and f != Failure.NONE)
    return dict(found.most_common())


def _timed(records: Records, count: int) -> list[Timed]:
    """The slowest, those around the median and the fastest of the good requests, a third each."""
    names = ("phase", "failure", "events", "send_ns", "last_ns")
    columns = zip(*(records[name] for name in names), strict=True)
    order = sorted(
        ((last - send, row) for row, (p, f, n, send, last) in enumerate(columns) if metrics.is_good(p, f, n)),
        reverse=True,
    )
    places = _places(len(order), count)
    rows = {order[rank][1]: place for rank, place in places.items()}
    kept = {row: request for row, request in enumerate(records.rows()) if row in rows}
    return [_timed_one(rows[order[rank][1]], kept[order[rank][1]]) for rank in places]


def _places(n: int, count: int) -> dict[int, str]:
    """Ranks from the slowest (0) to the fastest, each with its place."""
    count = min(n, count)
    ends = -(-count // 3)
    fastest = min(ends, count - ends)
    middle = count - ends - fastest
    begin = max(ends, min((n - middle + 1) // 2, n - fastest - middle))
    return {
        **dict.fromkeys(range(ends), "slowest"),
        **dict.fromkeys(range(begin, begin + middle), "median"),
        **dict.fromkeys(range(n - fastest, n), "fastest"),
    }


def _timed_one(place: str, r: Request) -> Timed:
    return Timed(place, r.index, tuple((at - r.send_ns) / 1e6 for at in r.event_ns))
