"""How is a closed loop of requests sent and timed? One thread, one epoll, nothing else in the timed path.

A read is stamped and framed at once; streams and JSON are parsed when nothing is waiting. The clock starts when all
connections stand. Warm-up requests hand their slots over without draining, and when the last measured request has been
sent, uncounted ones keep the load up until the last measured one has ended.
"""

from __future__ import annotations

import gc
import select
import ssl
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from pytest_kitt.dialect import openai
from pytest_kitt.load.client.bodies import Bodies
from pytest_kitt.load.client.clock import Clock, monotonic_ns
from pytest_kitt.load.client.connection import Connection, Target
from pytest_kitt.load.client.http import BadHttp, Response
from pytest_kitt.load.spec import ClientSpec
from pytest_kitt.measure.records import MAX_BLOCK_BYTES, Failure, Phase, Request, RequestTable

_TICK_S = 0.05
_PROGRESS_NS = 200_000_000
_OPENING_NS = 10_000_000_000
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_FLUSH_BYTES = MAX_BLOCK_BYTES * 3 // 4
_MAX_BACKLOG_BYTES = 64 << 20
_FAILED_CONNECTS_LIMIT = 20
_RESENDS_LIMIT = 3  # a server that closes what it promised to keep gets a new connection for each request


@dataclass(slots=True)
class Slot:
    """One place of the closed loop: its connection and the request under way on it."""

    connection: Connection | None = None
    response: Response = field(default_factory=Response)
    payload: bytes = b""
    index: int = -1
    phase: Phase = Phase.WARMUP
    planned_ns: int = -1
    send_ns: int = -1
    connect_ns: int = 0
    resent: int = 0
    watched: int = 0
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """A request that ended, still unparsed."""

    request: Request
    response: Response
    failure: Failure
    detail: str


class ClosedLoop:
    """Runs one ClientSpec; ``emit`` gets full tables, ``progress`` gets (done, failed, tokens, in flight)."""

    def __init__(
        self,
        spec: ClientSpec,
        target: Target,
        *,
        emit: Callable[[RequestTable], None],
        progress: Callable[[int, int, int, int], None],
    ) -> None:
        self._spec, self._target, self._emit, self._progress = spec, target, emit, progress
        self._bodies = Bodies(spec)
        self._clock = Clock()
        self._epoll = select.epoll()
        self._slots = [Slot() for _ in range(spec.concurrency)]
        self._by_fd: dict[int, Slot] = {}
        self._table = RequestTable()
        self._finished: deque[Finished] = deque()
        self._backlog_bytes = 0
        self._next = self._busy = 0
        self._free: deque[Slot] = deque()
        self._sent = Counter[Phase]()
        self._ended = Counter[Phase]()
        self._failed = self._tokens = self._failed_connects = self._resends = 0
        self._zero = self._measuring_since = 0
        self._progress_at = self._looked_at = 0
        self.stop_requested = False
        self.stopped = ""
        self.details: dict[str, str] = {}
        self.merged_reads = 0
        self.stall_ns = 0
        self.wall_ns = 0

    @property
    def clock(self) -> Clock:
        """The clock that stamped the reads."""
        return self._clock

    def run(self) -> None:
        """Opens the connections, sends the load, and emits every record."""
        self._open_all()
        gc.collect()
        gc.freeze()
        gc.disable()
        self._zero = self._looked_at = self._progress_at = monotonic_ns()
        for slot in self._slots:
            self._begin(slot)
        while not self._over():
            self._look()
        self.wall_ns = monotonic_ns() - self._zero
        self._cancel_rest()
        self._clock.read_again()
        gc.enable()
        while self._finished:
            self._parse_one()
        self._emit(self._table)

    # -- the loop

    def _look(self) -> None:
        while self._free:
            self._begin(self._free.popleft())
        self.stall_ns = max(self.stall_ns, monotonic_ns() - self._looked_at)
        events = self._epoll.poll(0 if self._finished else _TICK_S, 4096)
        self._looked_at = now = monotonic_ns()
        if not events and self._finished:
            self._parse_one()
        for fd, flags in events:
            if fd in self._by_fd:  # an earlier event of this batch may have closed it
                self._on_event(self._by_fd[fd], flags)
        while self._backlog_bytes > _MAX_BACKLOG_BYTES:
            self._parse_one()
        if now - self._progress_at >= _PROGRESS_NS:
            self._on_tick(now)

    def _on_tick(self, now: int) -> None:
        self._progress_at = now
        self._clock.refresh(now)
        limit = int(self._spec.timeout_s * 1e9)
        for slot in self._slots:
            if slot.busy and now - slot.planned_ns > limit:
                self._fail(slot, Failure.TIMEOUT, f"no complete answer within {self._spec.timeout_s:g} s")
        self._progress(self._ended[Phase.MEASURED], self._failed, self._tokens, self._busy)

    def _over(self) -> bool:
        if self.stop_requested or self.stopped:
            self.stopped = self.stopped or "cancelled"
            return True
        if not self._busy and not self._free:
            return True
        return self._measured_all_sent() and self._ended[Phase.MEASURED] == self._sent[Phase.MEASURED] > 0

    # -- requests

    def _measured_all_sent(self) -> bool:
        if self._spec.requests:
            return self._sent[Phase.MEASURED] >= self._spec.requests
        started = self._measuring_since
        return started > 0 and monotonic_ns() - started >= self._spec.seconds * 1e9

    def _phase_of_next(self) -> Phase | None:
        if self._next < self._spec.warmup:
            return Phase.WARMUP
        if not self._measured_all_sent():
            return Phase.MEASURED
        return Phase.COOLDOWN if self._spec.hold else None

    def _begin(self, slot: Slot) -> None:
        phase = self._phase_of_next()
        if phase is None or self.stopped or (phase is Phase.COOLDOWN and self._all_measured_ended()):
            return
        now = monotonic_ns()
        if phase is Phase.MEASURED and not self._measuring_since:
            self._measuring_since = now
        slot.index, slot.phase, slot.planned_ns = self._next, phase, now
        slot.send_ns, slot.connect_ns, slot.resent, slot.busy = -1, 0, 0, True
        self._busy += 1
        slot.payload = self._bodies.payload(self._next)
        self._next += 1
        self._sent[phase] += 1
        self._dispatch(slot)

    def _all_measured_ended(self) -> bool:
        return self._ended[Phase.MEASURED] == self._sent[Phase.MEASURED]

    def _dispatch(self, slot: Slot) -> None:
        slot.response = Response()
        try:
            if slot.connection is None:
                self._open(slot)
            elif slot.connection.ready:
                self._send(slot, slot.connection)
        except OSError as error:
            self._on_broken(slot, error)

    def _send(self, slot: Slot, connection: Connection) -> None:
        if not connection.used:
            slot.connect_ns = connection.connect_ns
        slot.send_ns = connection.send(slot.payload)
        self._watch(slot, connection)

    # -- sockets

    def _open_all(self) -> None:
        for slot in self._slots:
            try:
                self._open(slot)
            except OSError:
                self._drop(slot)
        deadline = monotonic_ns() + _OPENING_NS
        while (
            not self.stop_requested
            and monotonic_ns() < deadline
            and any(s.connection and not s.connection.ready for s in self._slots)
        ):
            for fd, flags in self._epoll.poll(_TICK_S, 4096):
                slot = self._by_fd[fd]
                try:
                    self._advance(slot, flags)
                except (OSError, ssl.SSLError) as error:
                    self._explain(Failure.CONNECT, error)
                    self._drop(slot)

    def _open(self, slot: Slot) -> None:
        slot.connection = connection = Connection(self._target, self._clock)
        fd = connection.sock.fileno()
        self._by_fd[fd] = slot
        self._epoll.register(fd, _IN | _OUT)
        slot.watched = _IN | _OUT

    def _drop(self, slot: Slot) -> None:
        if slot.connection is None:
            return
        fd = slot.connection.sock.fileno()
        if self._by_fd.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        slot.connection.close()
        slot.connection = None

    def _watch(self, slot: Slot, connection: Connection) -> None:
        wanted = _IN | (_OUT if connection.wants_write else 0)
        if wanted != slot.watched:
            self._epoll.modify(connection.sock.fileno(), wanted)
            slot.watched = wanted

    def _advance(self, slot: Slot, flags: int) -> None:
        """Brings a connection that is not ready one step further."""
        connection = slot.connection
        assert connection is not None
        if flags & _OUT and not connection.opened:
            connection.on_connected()
        elif flags & ~_OUT and (got := connection.receive()) and not got[1]:
            raise ConnectionError("the server closed the connection before anything was asked")
        connection.flush()
        self._watch(slot, connection)

    def _on_event(self, slot: Slot, flags: int) -> None:
        connection = slot.connection
        assert connection is not None
        try:
            if not connection.ready:
                self._advance(slot, flags)
                if connection.ready and slot.busy:
                    self._send(slot, connection)
                return
            if flags & _OUT and connection.wants_write:
                at = connection.flush()
                if not slot.response.started:
                    slot.send_ns = at
                self._watch(slot, connection)
            if flags & ~_OUT:
                self._read(slot, connection)
        except (OSError, ssl.SSLError) as error:
            self._on_broken(slot, error)
        except BadHttp as error:
            self._fail(slot, Failure.BAD_HTTP, str(error))

    def _read(self, slot: Slot, connection: Connection) -> None:
        got = connection.receive()
        if got is None:
            return
        at, data = got
        if not slot.busy:
            self._drop(slot)  # the peer closed an idle connection, or spoke unasked
        elif not data:
            self._on_eof(slot, at)
        elif slot.response.feed(at, data):
            self._end(slot, at)

    # -- ends

    def _on_eof(self, slot: Slot, at: int) -> None:
        if slot.response.at_eof():
            self._drop(slot)
            self._end(slot, at)
        elif not slot.response.started and self._resend(slot):
            return
        else:
            self._fail(slot, Failure.CLOSED, "the server closed the connection before the answer was complete")

    def _on_broken(self, slot: Slot, error: OSError) -> None:
        ready = slot.connection is not None and slot.connection.ready
        if not slot.busy:
            self._drop(slot)
        elif not ready:
            self._failed_connects += 1
            self._fail(slot, Failure.CONNECT, str(error))
            if self._failed_connects >= max(_FAILED_CONNECTS_LIMIT, self._spec.concurrency):
                self.stopped = "the server cannot be reached any more"
        elif slot.response.started or not self._resend(slot):
            self._fail(slot, Failure.RESET, str(error))

    def _resend(self, slot: Slot) -> bool:
        """Sends again on a new connection, once, if the old one had carried a request before this one."""
        connection = slot.connection
        if connection is None or slot.resent or slot.connect_ns > 0:
            return False
        self._drop(slot)
        self._resends += 1
        slot.resent = 1
        self._dispatch(slot)
        return True

    def _end(self, slot: Slot, at: int) -> None:
        self._failed_connects = 0
        response = slot.response
        reusable = response.keep_alive and not response.leftover and self._resends < _RESENDS_LIMIT
        if slot.connection is not None and not reusable:
            self._drop(slot)
        failure = Failure.NONE if 200 <= response.status < 300 else Failure.HTTP_STATUS
        self._finish(slot, at, failure, "")
        self._begin(slot)

    def _fail(self, slot: Slot, failure: Failure, detail: str) -> None:
        self._drop(slot)
        self._finish(slot, monotonic_ns(), failure, detail)
        self._free.append(slot)  # not begun at once: a server that refuses at once would be a recursion

    def _finish(self, slot: Slot, at: int, failure: Failure, detail: str) -> None:
        zero = self._zero
        request = Request(
            index=slot.index,
            phase=slot.phase,
            status=slot.response.status,
            resent=slot.resent,
            planned_ns=slot.planned_ns - zero,
            connect_ns=slot.connect_ns,
            send_ns=slot.send_ns - zero if slot.send_ns >= 0 else -1,
            end_ns=at - zero,
        )
        slot.busy = False
        self._busy -= 1
        self._ended[slot.phase] += 1
        if failure is not Failure.NONE and slot.phase is Phase.MEASURED:
            self._failed += 1
        self._backlog_bytes += sum(len(data) for _, data in slot.response.pieces)
        self._finished.append(Finished(request, slot.response, failure, detail))

    def _cancel_rest(self) -> None:
        for slot in self._slots:
            if slot.busy:
                self._finish(slot, monotonic_ns(), Failure.CANCELLED, "")
            self._drop(slot)
        self._epoll.close()

    # -- parsing, when nothing is waiting

    def _parse_one(self) -> None:
        ended = self._finished.popleft()
        self._backlog_bytes -= sum(len(data) for _, data in ended.response.pieces)
        answer = _answer(ended, self._zero)
        failure = ended.failure or answer.failure
        if failure not in (Failure.NONE, Failure.CANCELLED):
            self._explain(failure, ended.detail or answer.detail, ended.request.status)
        if failure is not Failure.NONE and not ended.failure and ended.request.phase == Phase.MEASURED:
            self._failed += 1
        if failure is Failure.NONE and ended.request.phase == Phase.MEASURED:
            self.merged_reads += sum(a == b for a, b in pairwise(answer.event_ns))
        self._tokens += max(answer.osl, len(answer.event_ns))
        self._table.append(
            _row(ended.request, answer, failure), text=answer.text if self._spec.keep_text and not failure else None
        )
        if self._table.nbytes >= _FLUSH_BYTES:
            self._emit(self._table)
            self._table = RequestTable()

    def _explain(self, failure: Failure, detail: object, status: int = 0) -> None:
        name = f"{failure.name} {status}" if failure is Failure.HTTP_STATUS else failure.name
        if len(self.details) < 16:
            self.details.setdefault(name, openai.bounded(str(detail)))


def _row(request: Request, answer: openai.Answer, failure: Failure) -> Request:
    return Request(
        index=request.index,
        phase=request.phase,
        failure=failure,
        status=request.status,
        counted_by=answer.counted_by,
        resent=request.resent,
        length_finish=int(answer.finish_reason == "length"),
        planned_ns=request.planned_ns,
        connect_ns=request.connect_ns,
        send_ns=request.send_ns,
        end_ns=request.end_ns,
        isl=answer.isl,
        osl=answer.osl,
        answer_event=answer.answer_event,
        event_ns=answer.event_ns,
    )


def _answer(ended: Finished, zero: int) -> openai.Answer:
    response = ended.response
    pieces = [(at - zero, data) for at, data in response.pieces]
    if ended.failure is Failure.HTTP_STATUS:
        return openai.Answer(detail=openai.error_detail(response.body()))
    if response.headers.get(b"content-type", b"").lower().startswith(b"application/json"):
        return openai.read_document(pieces[-1][0] if pieces else ended.request.end_ns, response.body())
    return openai.read_stream(pieces)
