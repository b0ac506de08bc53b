"""Does anything that a server may send upset the load client's parsers, or mean something else when cut elsewhere?

    python -m benchmarks.fuzz [--streams 1000000] [--seed 1] [--seconds N]

Reads generated responses as the load loop does, each of them cut into reads in two ways. What is promised of each:

- Nothing is raised but BadHttp, and nothing by a reader; each stream takes less than 2 s of processor time.
- Both cuts give the same: how the response ended and where, its head, and what it says, with the text before a fault,
  and beside the text thoughts, calls of tools, ids and log-probabilities. Only *when* a fault is found is free: a read
  later, or at the end of the connection.
- Each event has the time of the read that brought its last byte; the end of a response has that as well, and is seen at
  once where nothing follows it.
- A reader that learns nothing about its stream gives the same answer to the last field.
- What is refused as too large is large. The limits are low here, so that they are met; how far beyond a limit it is
  noticed depends on the cuts, so these streams are compared no further.
- Memory does not grow, and no reference cycle is left, for the load runs without a collector.

Exit code 0 when all of it holds; 1 when something does not, with the shortest bytes found that show it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

from benchmarks.hostile import Hostile, Reads
from pytest_kitt.dialect import apis, events
from pytest_kitt.dialect.answer import Answer, Reader, cut_by, error_detail
from pytest_kitt.load.client import http
from pytest_kitt.load.client.http import BadHttp, Response
from pytest_kitt.measure.records import Failure

MAX_CPU_S = 2.0
MAX_GROWTH_BYTES = 64 << 20
MAX_HEAD_BYTES, MAX_EVENT_BYTES, MAX_BODY_BYTES = 1 << 10, 2 << 10, 3 << 10
_WARM = 1000  # streams before the first look at memory, and between two looks for cycles
_SHORTEN_S = 20.0  # for finding a shorter case
_CUT_OFF = "cut off"
_BESIDE = ("reasoning", "tool_calls", "logprobs", "token_ids")
_OF_READS = ("event_ns", "merged", "bundled")  # fields of an answer that say how it arrived


class Difference(Exception):
    """A promise does not hold."""


class Case(NamedTuple):
    """A response to an API, and two ways in which it may arrive."""

    api: str
    data: bytes
    first: Reads
    second: Reads


class Unlearned(Reader):
    """A reader that parses every event, and takes all that is beside the text."""

    def _learn(self, *_: object) -> None:
        """Learns nothing."""


_UNLEARNED: dict[type[Reader], type[Reader]] = {
    spoken.reader: type(f"Unlearned{spoken.reader.__name__}", (Unlearned, spoken.reader), {})
    for spoken in apis.DIALECTS.values()
}


class Heard:
    """One response, read as the load loop reads it.

    Attributes:
        response: its frame. Times are offsets: of the byte behind the read.
        fault: what BadHttp said, "cut off", or empty.
        answer: what the response says.
        beside: what it says beside its text.
        refusal: what it says where its status is no 2xx.

    """

    def __init__(self, api: str, data: bytes, reads: Reads) -> None:
        """Reads all of it; Difference when a promise is broken that one reading can break."""
        self.response = Response()
        self.fault = ""
        self._api = api
        self._readers: tuple[Reader, Reader] | None = None  # one that learns, and one that does not and takes all
        self._size = 0
        self._refusal = b""
        self._begins = dict(zip(reads.ends, [0, *reads.ends], strict=False))
        fed = 0
        try:
            fed = self._feed(data, reads)
        except BadHttp as fault:
            self.fault = str(fault)
        self._digest()  # what stood before a fault, or is left
        learned, unlearned = self._readers or (apis.reader(api), _unlearned(api, b""))
        self.answer = learned.finish()
        _require_same("of what was learned", _fields(self.answer), _fields(unlearned.finish()))
        self.beside = {name: getattr(unlearned.details, name) for name in _BESIDE}
        self.refusal = error_detail(self._refusal)
        self.end = self._end_of(fed)
        if not self.too_large and self._size > MAX_BODY_BYTES:
            raise Difference("beyond the limit: a body larger than allowed was read")

    @property
    def too_large(self) -> bool:
        """Whether it was refused for its size."""
        return "larger than" in self.fault or (
            self.answer.failure is Failure.BAD_STREAM and self.answer.detail.startswith("an event is larger")
        )

    @property
    def kind(self) -> str:
        """The outcome in a word or two."""
        if self.fault:
            return self.fault if self.fault == _CUT_OFF else "bad HTTP"
        if not 200 <= self.response.status < 300:
            return "HTTP status"
        return self.answer.failure.name.replace("_", " ").lower() if self.answer.failure else "good"

    def said(self) -> dict[str, Any]:
        """All that may not depend on the reads."""
        response, answer = self.response, _fields(self.answer)
        arrived = [answer.pop(name) for name in _OF_READS]
        frame = {"fault": self.fault, "status": response.status, "headers": response.headers, "end": self.end}
        last = {"keep_alive": response.keep_alive, "refusal": self.refusal, "events": len(arrived[0])}
        return frame | last | answer | self.beside

    def spans(self) -> list[tuple[int, int]]:
        """For each event the read that brought its last byte, as offsets: it stands in (begin, end]."""
        return [(self._begins[at], at) for at in self.answer.event_ns]

    def _feed(self, data: bytes, reads: Reads) -> int:
        """Gives the response its bytes until it has ended; how many of them."""
        response, begin = self.response, 0
        for index, end in enumerate(reads.ends):
            complete = response.feed(end, data[begin:end])
            begin = end
            if complete:
                return end
            if reads.takes >> (index & 31) & 1 and self._digest():
                break
        else:
            if not response.at_eof():
                self.fault = _CUT_OFF
        if response.end_ns and not response.leftover:
            raise Difference("overlooked: the end came last in its read and was not seen")
        return begin

    def _digest(self) -> bool:
        response = self.response
        times, pieces, complete = response.take()
        self._size += sum(map(len, pieces))
        if not 200 <= response.status < 300:
            self._refusal += b"".join(pieces)
            return complete
        if not self._readers:
            kind = response.headers.get(b"content-type", b"")
            self._readers = apis.reader(self._api, kind), _unlearned(self._api, kind)
        for reader in self._readers or ():
            reader.feed(times, pieces)
        return complete

    def _end_of(self, fed: int) -> int:
        """The offset at which the response ended, -1 where it did not or its own bytes do not say it."""
        at = self.response.end_ns
        if not at or self.fault:
            return -1
        end = fed - len(self.response.leftover)
        if not self._begins[at] < end <= at:
            raise Difference(f"end_ns: the response ended at {end}, not in the read from {self._begins[at]} to {at}")
        return end


def check(api: str, data: bytes, first: Reads, second: Reads) -> str:
    """What has become of a response, in a word; Difference when a promise does not hold."""
    one, other = Heard(api, data, first), Heard(api, data, second)
    if one.too_large or other.too_large:
        if len(data) <= MAX_HEAD_BYTES:
            raise Difference(f"no such size: {len(data)} bytes were refused as too large")
        return "too large"
    _require_same("of two cuts", one.said(), other.said())
    for number, (a, b) in enumerate(zip(one.spans(), other.spans(), strict=True)):
        if a[0] >= b[1] or b[0] >= a[1]:
            raise Difference(f"time: event {number} ended in the read {a}, or else in {b}")
    return one.kind


@dataclasses.dataclass
class Report:
    """What a run has found.

    Attributes:
        kinds: streams by outcome.
        seconds: how long it took.
        peak_bytes: the largest resident set of this process.
        growth_bytes: by how much it grew since the first thousand streams.
        failure: what does not hold and a line of Python that shows it; empty when all does.

    """

    kinds: Counter[str] = dataclasses.field(default_factory=Counter)
    seconds: float = 0.0
    peak_bytes: int = 0
    growth_bytes: int = 0
    failure: str = ""


def fuzz(streams: int, *, seed: int, seconds: float = float("inf")) -> Report:
    """Checks a number of streams, or as many as can be had in some seconds; ends with the first failure."""
    report, hostile = Report(), Hostile(seed)
    began, warm_bytes = time.monotonic(), 0
    with lowered_limits(), _without_collector():
        for number in range(1, streams + 1):
            api, data = hostile.stream()
            case = Case(api, data, hostile.reads(data), hostile.reads(data))
            try:
                report.kinds[_timed(case)] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not be
                report.failure = _reproducer(case, error)
                break
            if number % _WARM == 0 or number == streams:
                warm_bytes = warm_bytes or _peak_bytes()
                if cycles := gc.collect():
                    report.failure = f"{cycles} objects in reference cycles within {_WARM} streams up to {number}"
                    break
                if time.monotonic() - began > seconds:
                    break
    report.seconds, report.peak_bytes = time.monotonic() - began, _peak_bytes()
    report.growth_bytes = report.peak_bytes - (warm_bytes or report.peak_bytes)
    if report.growth_bytes > MAX_GROWTH_BYTES and not report.failure:
        report.failure = f"memory grew by {report.growth_bytes >> 20} MiB"
    return report


@contextlib.contextmanager
def lowered_limits() -> Iterator[None]:
    """Sizes that generated streams do reach."""
    with (
        patch.object(http, "MAX_HEAD_BYTES", MAX_HEAD_BYTES),
        patch.object(http, "MAX_BODY_BYTES", MAX_BODY_BYTES),
        patch.object(events, "MAX_EVENT_BYTES", MAX_EVENT_BYTES),
    ):
        yield


def main() -> int:
    """Runs as the command line says, and prints the account."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz")
    parser.add_argument("--streams", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    asked = parser.parse_args()
    report = fuzz(asked.streams, seed=asked.seed, seconds=asked.seconds)
    done = sum(report.kinds.values())
    print(f"{done} streams in {report.seconds:.0f} s, {done / report.seconds:.0f} streams/s, seed {asked.seed}")
    for kind, count in report.kinds.most_common():
        print(f"{kind:14} {count:>8}  {count / done:6.1%}")
    print(f"peak memory {report.peak_bytes / 2**20:.1f} MiB, grown by {report.growth_bytes / 2**20:.1f} MiB")
    print(f"FAIL: {report.failure}" if report.failure else "all promises hold: pass")
    return 1 if report.failure else 0


# -- failures


def _reproducer(case: Case, error: Exception) -> str:
    """What is wrong, and the shortest case found that is wrong in the same way."""
    found, deadline = case, time.monotonic() + _SHORTEN_S
    for size in [len(case.data) >> bits for bits in range(len(case.data).bit_length())] * 2:
        begin = 0
        while begin < len(found.data) and time.monotonic() < deadline:
            shorter = _better(found, _without(found, begin, begin + size), error)
            begin += size if shorter is found else 0
            found = shorter
    found = _better(found, found._replace(first=Reads(found.first.ends, 0)), error)
    found = _better(found, found._replace(second=Reads(found.second.ends, 0)), error)
    for end in {*found.first.ends, *found.second.ends} - {len(found.data)}:
        if time.monotonic() > deadline:
            break
        found = _better(found, found._replace(first=_joined(found.first, end)), error)
        found = _better(found, found._replace(second=_joined(found.second, end)), error)
    reads = f"Reads({found.first.ends}, {found.first.takes}), Reads({found.second.ends}, {found.second.takes})"
    call = f'check("{found.api}", bytes.fromhex("{found.data.hex()}"), {reads})'
    return f"{_named(error)}\nwith lowered_limits(): {call}\n{found.data[:1000]!r}"


def _better(found: Case, shorter: Case, error: Exception) -> Case:
    """The shorter case if it fails in the same way."""
    try:
        _timed(shorter)
    except Exception as other:  # noqa: BLE001 - it is compared
        return shorter if _named(other).split(":")[:2] == _named(error).split(":")[:2] else found
    return found


def _without(case: Case, begin: int, end: int) -> Case:
    data = case.data[:begin] + case.data[end:]
    gone = len(case.data) - len(data)

    def moved(reads: Reads) -> Reads:
        ends = {at if at <= begin else max(begin, at - gone) for at in reads.ends} - {0}
        return Reads(sorted(ends), reads.takes)

    return Case(case.api, data, moved(case.first), moved(case.second))


def _joined(reads: Reads, end: int) -> Reads:
    return Reads([other for other in reads.ends if other != end], reads.takes)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


# -- odds and ends


def _require_same(what: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    if one != other:
        name = next(name for name, value in one.items() if value != other[name])
        raise Difference(f"{name} {what}: {one[name]!r}, or else {other[name]!r}")


def _fields(answer: Answer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in Answer.__slots__}


def _unlearned(api: str, kind: bytes) -> Reader:
    spoken = apis.DIALECTS[api]
    cut = cut_by(kind, lines=spoken.lines)
    return _UNLEARNED[spoken.reader](cut() if cut else None, detailed=True)


def _timed(case: Case) -> str:
    """Checks a case; TimeoutError when it takes too much processor time, however busy the machine is."""
    signal.signal(signal.SIGVTALRM, _on_timeout)
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_S)
    try:
        return check(*case)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _on_timeout(*_: object) -> None:
    raise TimeoutError(f"a stream takes more than {MAX_CPU_S:g} s")


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _peak_bytes() -> int:
    kib = 1 if sys.platform == "darwin" else 1024  # getrusage(2) of the two systems
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kib


if __name__ == "__main__":
    sys.exit(main())
