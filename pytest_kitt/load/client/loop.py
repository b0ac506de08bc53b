"""How is a load sent and timed? One thread, one poll, nothing else in the timed path.

A read is stamped and kept at once; framing, streams and JSON are undone when nothing is waiting. The clock starts when
all connections stand. In a closed loop a slot is handed over the moment its answer ends; in an open one requests go out
when they are due, each on a connection that is free. Warm-up requests come first and hand over without draining; when
the last measured request has been sent, uncounted ones keep the load up until the last measured one has ended.

The slots of an adaptive loop grow and shrink (pace.py). A request that the server did not take may wait and be sent
again: it keeps its slot meanwhile, so that a server that takes nothing is asked for little.
"""

from __future__ import annotations

import errno
import gc
import heapq
import resource
import ssl
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from operator import sub
from pathlib import Path
from typing import Any

from pytest_kitt.dialect import apis
from pytest_kitt.dialect.answer import Answer, Reader, bounded, error_detail
from pytest_kitt.dialect.finish import LENGTH
from pytest_kitt.load import arrivals
from pytest_kitt.load.client.bodies import Bodies
from pytest_kitt.load.client.clock import ANCILLARY_BYTES, Clock, monotonic_ns, unpack_stamp
from pytest_kitt.load.client.connection import READ_BYTES, Connection, Target
from pytest_kitt.load.client.http import BadHttp, Response
from pytest_kitt.load.client.pace import Pace
from pytest_kitt.load.client.poller import READ, WRITE, Poller
from pytest_kitt.load.client.retries import REFUSALS, Waits, said_s
from pytest_kitt.load.spec import ClientSpec, Ending, Look
from pytest_kitt.measure.records import MAX_BLOCK_BYTES, CountedBy, Failure, Phase, RequestTable

_MAX_TICK_NS, _MIN_TICK_NS = 200_000_000, 5_000_000
_OPENING_NS = 10_000_000_000
_OPENING_AT_ONCE = 256  # a listen queue is rarely longer
_FLUSH_BYTES = MAX_BLOCK_BYTES * 3 // 4
_TEXTS_WAIT_NS = 1_000_000_000  # answers are worth keeping even if all else is lost
_MAX_HELD_BYTES = 64 << 20
_MAX_ENDED = 128
_MAX_ERROR_BODY_BYTES = 64 << 10
_LATE_NS = 5_000_000
_MAX_NAP_NS, _MIN_NAP_NS = 2_000_000, 100_000
_NAPS_PER_GAP, _NAPS_PER_REQUEST = 5, 200
_FAILED_CONNECTS_LIMIT = 20
_SENDS_PER_LOOK = 16  # a millisecond's worth
_IDLE_MARGIN_S = 0.5  # from when a server may close an idle connection
_RESENDS_LIMIT = 3  # a server that closes what it promised to keep gets a new connection for each request
_MIN_ENDED_TO_GIVE_UP = 50
_SAMPLES = 8
_MAX_SAMPLE_CHARS = 20_000
_SEEN_EVERY, _SEEN_MAX = 16, 4096  # of the gaps between tokens, one in so many is told, and at most so many a tick
# looking a member up in its enumeration costs more than most lines of the timed path
_GOOD, _HTTP_STATUS, _CANCELLED = Failure.NONE, Failure.HTTP_STATUS, Failure.CANCELLED
_WARMUP, _MEASURED = Phase.WARMUP, Phase.MEASURED
_LOCAL_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})


class Flight:
    """One request under way, or ended and still unread."""

    __slots__ = (
        "connect_ns",
        "counted",
        "detail",
        "end_ns",
        "error_body",
        "failure",
        "index",
        "keep_text",
        "lane",
        "payload",
        "phase",
        "planned_ns",
        "reader",
        "refused_ns",
        "resent",
        "response",
        "retried",
        "send_ns",
    )

    def __init__(self, lane: Lane | None, index: int, phase: Phase, planned_ns: int, payload: bytes) -> None:
        self.lane = lane
        self.index, self.phase, self.planned_ns, self.payload = index, phase, planned_ns, payload
        self.send_ns = self.end_ns = -1
        self.connect_ns = self.resent = self.retried = 0
        self.refused_ns = 0  # when it was for the first time
        self.counted = 0  # its events that are among the tokens so far
        self.response = Response()
        self.reader: Reader | None = None
        self.keep_text = False
        self.failure = _GOOD
        self.detail = ""
        self.error_body = b""


class Lane:
    """One place for a request: its connection and what is under way on it."""

    __slots__ = ("connection", "fd", "flight", "free_since", "recvmsg", "watches_write")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.flight: Flight | None = None
        self.fd = -1
        self.free_since = 0
        self.watches_write = False
        self.recvmsg: Callable[[int, int], tuple[bytes, list[Any], int, Any]] | None = None  # of a stamped connection


class LoadLoop:
    """Runs one ClientSpec.

    Attributes:
        stop_requested: set it to end the load now, with what there is.
        released: set when no other client still measures: the cool-down may end.

    """

    def __init__(
        self,
        spec: ClientSpec,
        target: Target,
        poller: Poller,
        *,
        emit: Callable[[RequestTable], None],
        progress: Callable[[Look], None],
        done: Callable[[], None],
        on_file: Callable[[int], None] = lambda _: None,
    ) -> None:
        """``emit`` gets full tables, ``progress`` a look at the load, at each tick.

        ``done`` is told the end of measuring; ``on_file`` gets each readable file that is no connection of the loop's.
        """
        self._spec, self._target, self._poller = spec, target, poller
        self._emit, self._progress, self._done, self._on_file = emit, progress, done, on_file
        self._bodies = Bodies(spec)
        self._clock = Clock(user=spec.user_clock)
        self._limit_ns = int(spec.timeout_s * 1e9)
        self._tick_ns = max(_MIN_TICK_NS, min(_MAX_TICK_NS, self._limit_ns // 10))
        self._lanes: list[Lane] = []
        self._by_fd: dict[int, Lane] = {}
        self._free: deque[Lane] = deque()
        self._table = RequestTable()
        self._emitted_at = 0
        self._ended: list[Flight] = []
        self._partial: deque[Flight] = deque()
        self._held_bytes = 0  # of ended flights
        self._dues: Iterator[int] = iter(())
        self._due = -1  # of the next request of an open loop
        self._next = spec.client
        self._in_flight = 0
        self._slots = spec.concurrency  # of a closed loop
        self._pace: Pace | None = None
        self._waits = Waits(f"{spec.seed}:{spec.client}")
        self._waiting: list[tuple[int, int, Flight]] = []  # a heap: when each is to be sent again, its number, and it
        self._answers = self._answered_ns = 0  # with a good status: how many, when the last one ended
        self._sent = [0] * len(Phase)  # by phase
        self._over = [0] * len(Phase)
        self._all_ended = self._all_failed = self._measured_failed = self._tokens = 0
        self._failed_connects = self._resends = self._local_errors = 0
        self._zero = self._measuring_since = self._tick_at = self._looked_at = 0
        self._done_said = False
        self._armed_ns = 0
        self._nap_s = 0.0
        self._together = 0  # tokens that came in one read with the one before, in all answers so far
        self._at_last_tick = (0, 0, 0)  # time, reads, requests that had ended
        self._goes_on = self._news = True
        self._reads = self._late_reads = self._merged = self._bundled = self._stall_ns = self._wall_ns = 0
        self._cpu_s = 0.0
        self._samples: list[tuple[int, int, str, str]] = []
        self._ttft_ns: list[int] = []  # since the last tick, for those who look on
        self._gaps_ns: list[int] = []
        self._details: dict[str, str] = {}
        self._stopped = ""
        self.stop_requested = False
        self.released = False

    # -- the course of a load

    def open(self) -> None:
        """Opens the connections, a good number at a time; one that fails is tried again when it is needed."""
        waiting = [self._new_lane() for _ in range(self._spec.concurrency or self._spec.connections)]
        waiting.reverse()
        deadline = monotonic_ns() + _OPENING_NS
        opening: set[int] = set()
        while (waiting or opening) and not self.stop_requested and monotonic_ns() < deadline:
            while waiting and len(opening) < _OPENING_AT_ONCE:
                lane = waiting.pop()
                try:
                    self._connect(lane)
                    opening.add(lane.fd)
                except OSError as error:
                    self._connect_failed(lane, error)
            self._poller.arm(deadline)
            for fd, flags in self._poller.poll(block=True):
                if fd not in self._by_fd:
                    self._on_file(fd)
                elif self._opens_further(self._by_fd[fd], flags):
                    opening.discard(fd)

    def run(self, zero_ns: int) -> None:
        """Sends the load from a point in time on, and emits every record."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._wait_until(zero_ns)
        self._clock.missing = 0  # what was read before is not timed
        cpu = time.process_time()
        self._zero = self._looked_at = zero_ns
        self._tick_at = zero_ns + self._tick_ns
        if self._spec.most:
            first, most = self._spec.concurrency, self._spec.most
            self._pace = Pace(first, most, limit_s=self._spec.timeout_s, begun_ns=zero_ns)
        if self._spec.arrivals is not None:
            dues = arrivals.due_ns(self._spec.arrivals, seed=self._spec.seed)
            self._dues = arrivals.share(dues, client=self._spec.client, clients=self._spec.clients)
            self._due = zero_ns + next(self._dues)
        self._free.extend(self._lanes)
        while self._goes_on:
            self._look()
        self._wall_ns = monotonic_ns() - self._zero
        self._cancel_rest()
        self._clock.read_again()
        self._clock.close()
        while self._ended:
            self._digest_ended()
        self._emit(self._table)
        gc.enable()
        self._cpu_s = time.process_time() - cpu

    def ending(self) -> Ending:
        """The client's own account."""
        return Ending(
            clock=self._clock.name,
            wall_s=self._wall_ns / 1e9,
            cpu_s=self._cpu_s,
            max_rss_bytes=_peak_bytes(),
            clock_drift_ns=self._clock.drift_ns,
            merged=self._merged,
            bundled=self._bundled,
            reads=self._reads,
            late_reads=self._late_reads,
            stall_ms=self._stall_ns / 1e6,
            local_errors=self._local_errors,
            samples=self._samples,
            details=self._details,
            stopped=self._stopped,
            slots=self._pace.found if self._pace else 0,
        )

    def _wait_until(self, zero_ns: int) -> None:
        self._poller.arm(zero_ns)
        while monotonic_ns() < zero_ns:
            for fd, flags in self._poller.poll(block=True):
                if fd in self._by_fd:
                    self._on_event(self._by_fd[fd], flags, monotonic_ns())
                else:
                    self._on_file(fd)

    def _look(self) -> None:
        wake_ns, waiting = self._tick_at, False
        if self._due >= 0:
            wake_ns = self._send_due()
        elif self._spec.arrivals is None:
            if self._waiting:
                wake_ns = self._send_again()
            if self._free:
                self._send_free()
                waiting = bool(self._free)
        if wake_ns != self._armed_ns:
            self._poller.arm(wake_ns)
            self._armed_ns = wake_ns
        work = self._ended or self._partial or waiting
        now = monotonic_ns()
        self._stall_ns = max(self._stall_ns, now - self._looked_at)
        if self._nap_s and not work:
            time.sleep(self._nap_s)
        events = self._poller.poll(block=not work)
        self._looked_at = now = monotonic_ns()
        if not events and work and not waiting:
            self._digest_one()
        by_fd = self._by_fd
        for fd, flags in events:
            lane = by_fd.get(fd)
            if lane is None:
                self._on_file(fd)
                self._news = True
            elif flags == READ and lane.recvmsg is not None and lane.flight is not None:
                self._read_stamped(lane, lane.flight, now)
            else:
                self._on_event(lane, flags, now)
        while self._held_bytes > _MAX_HELD_BYTES or len(self._ended) > _MAX_ENDED:
            self._digest_ended()
        if now >= self._tick_at:
            self._on_tick(now)
        if self._news or self.stop_requested:
            self._news = False
            self._goes_on = not self._is_over()
            if self._pace is not None:
                self._keep_pace(self._pace, now)

    def _on_tick(self, now: int) -> None:
        self._tick_at = now + self._tick_ns
        self._news = True
        self._nap_s = self._nap_ns(now) / 1e9
        self._clock.refresh(now)
        held = 0
        self._partial.clear()
        for lane in self._lanes:
            flight = lane.flight
            if flight is None:
                continue
            if now - flight.planned_ns > self._limit_ns:
                self._fail(lane, Failure.TIMEOUT, self._too_late())
            elif size := flight.response.held_bytes:
                held += size
                self._partial.append(flight)
        while held > _MAX_HELD_BYTES and self._partial:  # never idle: then at once
            held -= self._partial[0].response.held_bytes
            self._digest_partial()
        if self._table.texts and now - self._emitted_at > _TEXTS_WAIT_NS:
            self._emit_table()
        self._give_up_if_hopeless()
        self._progress(self._look_on(now))

    def _look_on(self, now: int) -> Look:
        """How far the load is."""
        phase = Phase.COOLDOWN if self._done_said else Phase.MEASURED if self._measuring_since else Phase.WARMUP
        look = Look(
            done=self._over[Phase.MEASURED],
            failed=self._measured_failed,
            tokens=self._tokens,
            in_flight=self._in_flight,
            reads=self._reads,
            warmed=self._over[Phase.WARMUP],
            phase=phase,
            measured_ns=max(0, now - self._measuring_since) if self._measuring_since else 0,
            ttft_ns=self._ttft_ns,
            gaps_ns=self._gaps_ns,
        )
        self._ttft_ns, self._gaps_ns = [], []
        return look

    def _nap_ns(self, now: int) -> int:
        """How long to rest before each look, so that one look finds what several would.

        The kernel knows when the bytes came, so nothing is lost but the time until a slot is handed over: kept under
        half a per cent of a request, and a fifth of the time between two reads of a stream. As soon as two tokens come
        in one read there is no rest any more, and none in an open loop.
        """
        then, reads, over = self._at_last_tick
        self._at_last_tick = (now, self._reads, sum(self._over))
        if self._spec.arrivals is not None or self._clock.name != "kernel" or self._together or not then:
            return 0
        slot_ns = (now - then) * self._in_flight
        gap_ns = slot_ns // max(1, self._reads - reads)
        request_ns = slot_ns // max(1, sum(self._over) - over)
        nap_ns = min(_MAX_NAP_NS, gap_ns // _NAPS_PER_GAP, request_ns // _NAPS_PER_REQUEST)
        return nap_ns if nap_ns >= _MIN_NAP_NS else 0

    def _give_up_if_hopeless(self) -> None:
        if self._all_ended < _MIN_ENDED_TO_GIVE_UP or self._stopped:
            return
        share = self._all_failed / self._all_ended
        if share >= self._spec.max_error_share:
            self._stopped = f"{self._all_failed} of {self._all_ended} requests failed"

    def _is_over(self) -> bool:
        if self.stop_requested or self._stopped:
            self._stopped = self._stopped or "cancelled"
            return True
        if not (self._measured_all_sent() and self._all_measured_over()):
            return False
        if not self._done_said:
            self._done_said = True
            self._done()
        return self.released or not self._spec.hold

    # -- what is sent when

    def _measured_all_sent(self) -> bool:
        if self._spec.requests:
            return self._sent[_MEASURED] >= self._spec.requests
        if not self._measuring_since:
            return False
        now = self._due if self._due >= 0 else monotonic_ns()
        return now - self._measuring_since >= self._spec.seconds * 1e9

    def _all_measured_over(self) -> bool:
        return self._over[_MEASURED] == self._sent[_MEASURED]

    def _phase_of_next(self) -> Phase | None:
        if self._sent[_WARMUP] < self._spec.warmup:
            return _WARMUP
        if not self._measured_all_sent():
            return _MEASURED
        return Phase.COOLDOWN if self._spec.hold else None

    def _send_due(self) -> int:
        """Sends what is due in an open loop; returns when to look again.

        What finds no connection free waits for one, and is late.
        """
        for _ in range(_SENDS_PER_LOOK):
            if self._due > monotonic_ns():
                break
            phase = self._phase_of_next()
            if phase is None:
                self._due = -1
                return self._tick_at
            if not self._free and len(self._lanes) >= self._spec.max_connections:
                return self._tick_at
            lane = self._free.pop() if self._free else self._new_lane()
            self._begin(lane, phase, self._due)
            self._due = self._zero + next(self._dues)
        return min(self._due, self._tick_at)

    def _send_free(self) -> None:
        """Begins on the slots of a closed loop that are free, a few at a time: what comes meanwhile has to be read."""
        for _ in range(min(_SENDS_PER_LOOK, len(self._free))):
            lane = self._free.popleft()
            if self._in_flight + len(self._waiting) >= self._slots:  # they were more, or its own request waits
                self._discard(lane)
                continue
            phase = self._phase_of_next()
            if phase is not None and not self._stopped:
                self._begin(lane, phase, lane.free_since or monotonic_ns())

    def _begin(self, lane: Lane, phase: Phase, planned_ns: int) -> None:
        if phase is _MEASURED and not self._measuring_since:
            self._measuring_since = planned_ns
        flight = lane.flight = Flight(lane, self._next, phase, planned_ns, self._bodies.payload(self._next))
        if phase is _MEASURED:
            flight.keep_text = self._spec.keep_text or self._sent[phase] < _SAMPLES
        self._next += self._spec.clients
        self._sent[phase] += 1
        self._in_flight += 1
        self._dispatch(lane, flight)

    def _send_again(self) -> int:
        """Sends what has waited for long enough, where there is a slot; returns when to look again."""
        now = monotonic_ns()
        for _ in range(_SENDS_PER_LOOK):
            if not self._waiting or self._in_flight >= self._slots:
                return self._tick_at  # or when an answer ends
            if self._waiting[0][0] > now:
                break
            _, _, flight = heapq.heappop(self._waiting)
            lane = self._free.popleft() if self._free else self._new_lane()
            lane.flight, flight.lane = flight, lane
            flight.planned_ns = max(flight.planned_ns, lane.free_since)
            flight.payload = self._bodies.payload(flight.index)
            self._in_flight += 1
            self._dispatch(lane, flight)
        return min(self._waiting[0][0], self._tick_at) if self._waiting else self._tick_at

    def _keep_pace(self, pace: Pace, now: int) -> None:
        """Takes what the pace makes of the answers so far; opens slots where it wants more."""
        if self._measured_all_sent():
            return
        self._slots = pace.look(now, self._answers, full=not self._waiting)
        while self._in_flight + len(self._waiting) + len(self._free) < self._slots:
            lane = self._new_lane()
            lane.free_since = now
            self._free.append(lane)

    def _dispatch(self, lane: Lane, flight: Flight) -> None:
        try:
            if lane.connection is not None and flight.planned_ns - lane.free_since > lane.connection.idle_limit_ns:
                self._drop(lane)  # the server is about to close it, or has
            if lane.connection is None:
                self._connect(lane)
            elif lane.connection.ready:
                self._send(lane, flight, lane.connection)
        except OSError as error:
            self._on_broken(lane, error)

    def _send(self, lane: Lane, flight: Flight, connection: Connection) -> None:
        if not connection.used:
            flight.connect_ns = connection.connect_ns
            lane.recvmsg = connection.sock.recvmsg if connection.stamped else None
        flight.send_ns = connection.send(flight.payload)
        if connection.wants_write != lane.watches_write:
            self._watch(lane, connection)

    # -- connections

    def _new_lane(self) -> Lane:
        lane = Lane()
        self._lanes.append(lane)
        return lane

    def _connect(self, lane: Lane) -> None:
        lane.connection = Connection(self._target, self._clock)
        lane.fd = lane.connection.sock.fileno()
        self._by_fd[lane.fd] = lane
        self._poller.register(lane.fd, write=True)
        lane.watches_write = True

    def _drop(self, lane: Lane) -> None:
        connection, lane.connection = lane.connection, None
        lane.recvmsg = None
        if connection is None:
            return
        if self._by_fd.pop(lane.fd, None) is not None:
            self._poller.unregister(lane.fd)
        connection.close()

    def _discard(self, lane: Lane) -> None:
        """Closes a slot, and its connection: where a thread serves each, an idle one takes another's place."""
        self._drop(lane)
        self._lanes.remove(lane)

    def _watch(self, lane: Lane, connection: Connection) -> None:
        if connection.wants_write != lane.watches_write:
            lane.watches_write = connection.wants_write
            self._poller.modify(lane.fd, write=lane.watches_write)

    def _opens_further(self, lane: Lane, flags: int) -> bool:
        """One step of opening; whether it has come to an end, good or bad."""
        try:
            self._advance(lane, flags)
        except (OSError, ssl.SSLError) as error:
            self._connect_failed(lane, error)
            return True
        return lane.connection is not None and lane.connection.ready

    def _connect_failed(self, lane: Lane, error: OSError) -> None:
        self._local_errors += error.errno in _LOCAL_ERRORS
        self._explain(Failure.CONNECT, error)
        self._drop(lane)

    def _advance(self, lane: Lane, flags: int) -> None:
        """Brings a connection that is not ready one step further."""
        connection = lane.connection
        assert connection is not None
        if flags & WRITE and not connection.opened:
            connection.on_connected()
        elif flags & ~WRITE and (got := connection.receive()) and not got[1]:
            raise ConnectionError("the server closed the connection before anything was asked")
        connection.flush()
        self._watch(lane, connection)

    # -- what comes back

    def _on_event(self, lane: Lane, flags: int, now: int) -> None:
        connection, flight = lane.connection, lane.flight
        assert connection is not None
        try:
            if flags == READ and connection.ready:
                self._read(lane, flight, connection, now)
            elif not connection.ready:
                self._advance(lane, flags)
                if connection.ready and flight is not None:
                    self._send(lane, flight, connection)
            else:
                self._on_writable(lane, flight, connection)
                if flags & ~WRITE:
                    self._read(lane, flight, connection, now)
        except (OSError, ssl.SSLError) as error:
            self._on_broken(lane, error)
        except BadHttp as error:
            self._fail(lane, Failure.BAD_HTTP, str(error))

    def _on_writable(self, lane: Lane, flight: Flight | None, connection: Connection) -> None:
        if connection.wants_write:
            at = connection.flush()
            if flight is not None and not flight.response.started:
                flight.send_ns = at
        self._watch(lane, connection)

    def _read_stamped(self, lane: Lane, flight: Flight, now: int) -> None:
        """What ``_on_event`` does, for nearly all events of a load, in one call instead of four."""
        assert lane.recvmsg is not None
        try:
            data, ancillary, _, _ = lane.recvmsg(READ_BYTES, ANCILLARY_BYTES)
            if not data:
                self._on_eof(lane, flight, monotonic_ns())
                return
            self._reads += 1
            if ancillary:
                seconds, nanoseconds = unpack_stamp(ancillary[0][2])
                at = seconds * 1_000_000_000 + nanoseconds - self._clock.offset_ns
                if now - at > _LATE_NS:
                    self._late_reads += 1
            else:
                at = self._clock.stamp(ancillary)
            response = flight.response
            if response.streaming and data[-4:] != b"\r\n\r\n" and len(data) >= 4:  # as http.may_be_last says
                response.raw.append(data)
                response.raw_at.append(at)
            elif response.feed(at, data):
                self._end(lane, flight)
        except BlockingIOError:
            pass
        except OSError as error:
            self._on_broken(lane, error)
        except BadHttp as error:
            self._fail(lane, Failure.BAD_HTTP, str(error))

    def _read(self, lane: Lane, flight: Flight | None, connection: Connection, now: int) -> None:
        got = connection.receive()
        if got is None:
            return
        at, data = got
        self._reads += 1
        if now - at > _LATE_NS:
            self._late_reads += 1
        if flight is None:
            self._drop(lane)  # the peer closed an idle connection, or spoke unasked
        elif not data:
            self._on_eof(lane, flight, at)
        elif flight.response.feed(at, data):
            self._end(lane, flight)

    def _on_eof(self, lane: Lane, flight: Flight, at: int) -> None:
        response = flight.response
        if response.at_eof():
            response.end_ns = response.end_ns or at
            self._drop(lane)
            self._end(lane, flight)
        elif response.started or not self._resend(lane, flight):
            self._lose(lane, flight, Failure.CLOSED, "the server closed the connection before the answer was complete")

    def _on_broken(self, lane: Lane, error: OSError) -> None:
        flight = lane.flight
        ready = lane.connection is not None and lane.connection.ready
        if flight is None:
            self._drop(lane)
        elif not ready:
            self._local_errors += error.errno in _LOCAL_ERRORS
            self._failed_connects += 1
            self._lose(lane, flight, Failure.CONNECT, str(error))
            if self._failed_connects >= max(_FAILED_CONNECTS_LIMIT, self._spec.concurrency) and not self._spec.retries:
                self._stopped = "the server cannot be reached any more"
        elif flight.response.started or not self._resend(lane, flight):
            self._lose(lane, flight, Failure.RESET, str(error))

    def _resend(self, lane: Lane, flight: Flight) -> bool:
        """Sends again on a new connection, once, if the old one had carried a request before this one."""
        if lane.connection is None or flight.resent or flight.connect_ns > 0:
            return False
        self._drop(lane)
        self._resends += 1
        flight.resent = 1
        self._dispatch(lane, flight)
        return True

    def _lose(self, lane: Lane, flight: Flight, failure: Failure, detail: str) -> None:
        """What becomes of a request whose connection broke."""
        self._drop(lane)
        if not self._put_back(lane, flight):
            self._fail(lane, failure, detail)

    def _put_back(self, lane: Lane, flight: Flight, said: bytes = b"") -> bool:
        """Keeps a request that the server did not take, to send it again later; False when it has been often enough.

        ``said`` is the server's word on when. Nothing of this time is recorded but that it was.
        """
        spec, now = self._spec, monotonic_ns()
        if self._pace is not None:
            sent_ns = flight.send_ns if flight.send_ns >= 0 else flight.planned_ns
            self._slots = self._pace.refuse(now, sent_ns)
        if not spec.retries or self._stopped:
            return False
        if flight.retried >= spec.retries:
            if self._answered_ns < flight.refused_ns:  # no other was taken since
                seconds = (now - flight.refused_ns) / 1e9
                self._stopped = f"the server took no request for {seconds:.1f} s; one was sent {spec.retries + 1} times"
            return False
        due = now + int(self._waits.wait_s(flight.retried, said_s(said)) * 1e9)
        again = Flight(None, flight.index, flight.phase, due, b"")
        again.refused_ns, again.retried = flight.refused_ns or now, flight.retried + 1
        again.keep_text = flight.keep_text
        heapq.heappush(self._waiting, (due, flight.index, again))
        lane.flight = flight.lane = None
        self._tokens -= flight.counted
        self._in_flight -= 1
        self._news = True
        self._discard(lane)
        return True

    def _end(self, lane: Lane, flight: Flight) -> None:
        self._failed_connects = 0
        response = flight.response
        if not self._reusable(lane, response):
            self._drop(lane)
        if 200 <= response.status < 300:
            failure = _GOOD
            self._answers += 1
            self._answered_ns = response.end_ns
        else:
            failure = _HTTP_STATUS
            said = response.headers.get(b"retry-after", b"")
            if response.status in REFUSALS and self._put_back(lane, flight, said):
                return
        if response.end_ns - flight.planned_ns > self._limit_ns:  # between two looks at the time
            failure, flight.detail = Failure.TIMEOUT, self._too_late()
        self._finish(lane, flight, response.end_ns, failure)
        self._free.append(lane)

    def _reusable(self, lane: Lane, response: Response) -> bool:
        connection = lane.connection
        if connection is None or not response.keep_alive or response.leftover or self._resends >= _RESENDS_LIMIT:
            return False
        connection.served += 1
        limits = response.limits()
        if limits is None:
            return True
        idle_s, requests = limits
        connection.idle_limit_ns = int(max(0.0, idle_s - _IDLE_MARGIN_S) * 1e9)
        return connection.served < requests

    def _too_late(self) -> str:
        return f"no complete answer within {self._spec.timeout_s:g} s"

    def _fail(self, lane: Lane, failure: Failure, detail: str) -> None:
        flight = lane.flight
        self._drop(lane)
        if flight is not None:
            flight.detail = detail
            self._finish(lane, flight, monotonic_ns(), failure)
            self._free.append(lane)

    def _finish(self, lane: Lane, flight: Flight, at: int, failure: Failure) -> None:
        lane.flight = flight.lane = None  # nothing collects cycles while a load runs
        lane.free_since = flight.end_ns = at
        flight.payload = b""
        flight.failure = failure
        self._in_flight -= 1
        self._over[flight.phase] += 1
        self._news = True
        self._held_bytes += flight.response.size
        self._ended.append(flight)

    def _cancel_rest(self) -> None:
        for lane in self._lanes:
            if lane.flight is not None:
                self._finish(lane, lane.flight, monotonic_ns(), _CANCELLED)
            self._drop(lane)
        for _, _, flight in self._waiting:
            flight.failure, flight.end_ns = _CANCELLED, monotonic_ns()
            self._ended.append(flight)

    # -- reading answers, when nothing is waiting

    def _digest_one(self) -> None:
        if self._ended:
            self._digest_ended()
        else:
            self._digest_partial()

    def _digest_partial(self) -> None:
        """Reads what has come of an answer that is still under way: its bytes are released."""
        flight = self._partial.popleft()
        lane = flight.lane
        if lane is None:
            return
        try:
            complete = self._digest(flight)
        except BadHttp as error:
            self._fail(lane, Failure.BAD_HTTP, str(error))
            return
        if complete:  # with something behind its end, so that it did not look like one
            self._end(lane, flight)

    def _digest_ended(self) -> None:
        flight = self._ended.pop()  # the newest: its bytes are still in the cache
        self._held_bytes -= flight.response.size
        try:
            self._digest(flight)
        except BadHttp as error:
            flight.failure, flight.detail = flight.failure or Failure.BAD_HTTP, flight.detail or str(error)
        if flight.failure is _HTTP_STATUS:
            self._record(flight, Answer(detail=_refusal(flight)))
        else:
            reader = flight.reader or apis.reader(self._spec.api)
            self._record(flight, reader.finish())

    def _digest(self, flight: Flight) -> bool:
        response = flight.response
        times, pieces, complete = response.take()
        if not 200 <= response.status < 300:
            flight.error_body = (flight.error_body + b"".join(pieces))[:_MAX_ERROR_BODY_BYTES]
            return complete
        reader = flight.reader
        if reader is None:
            kind = response.headers.get(b"content-type", b"")
            reader = flight.reader = apis.reader(self._spec.api, kind, keep_text=flight.keep_text)
        before = reader.answer.merged
        reader.feed(times, pieces)
        self._together += reader.answer.merged - before
        if len(reader.answer.event_ns) != flight.counted:
            self._count(flight, reader.answer.event_ns)
        return complete

    def _count(self, flight: Flight, events: array[int]) -> None:
        """Counts the new tokens of an answer, and keeps a few of their times for those who look on."""
        before, n = flight.counted, len(events)
        flight.counted = n
        self._tokens += n - before
        if flight.phase is not Phase.MEASURED or len(self._gaps_ns) > _SEEN_MAX:
            return
        if not before:
            self._ttft_ns.append(events[0] - flight.send_ns)
        first = before + (flight.index - before) % _SEEN_EVERY or _SEEN_EVERY
        if first < n:
            self._gaps_ns += map(sub, events[first:n:_SEEN_EVERY], events[first - 1 : n - 1 : _SEEN_EVERY])

    def _record(self, flight: Flight, answer: Answer) -> None:
        failure = flight.failure or answer.failure
        measured = flight.phase is _MEASURED
        if failure is not _CANCELLED:
            self._all_ended += 1
        if failure not in (_GOOD, _CANCELLED):
            self._all_failed += 1
            self._measured_failed += measured
            self._explain(failure, flight.detail or answer.detail, flight.response.status)
        elif failure is _GOOD and measured:
            self._merged += answer.merged
            self._bundled += answer.bundled
            if len(self._samples) < _SAMPLES:
                self._samples.append(_sample(answer))
        self._tokens += max(answer.osl, len(answer.event_ns)) - flight.counted
        zero = self._zero
        self._table.append_row(
            (
                flight.index,
                flight.phase,
                failure,
                flight.response.status,
                answer.counted_by,
                flight.resent,
                flight.retried,
                int(answer.finish == LENGTH),
                flight.planned_ns - zero,
                flight.connect_ns,
                flight.send_ns - zero if flight.send_ns >= 0 else -1,
                flight.end_ns - zero,
                answer.isl,
                answer.osl,
                answer.answer_event,
                answer.prefill_ns,
                answer.decode_ns,
            ),
            [at - zero for at in answer.event_ns],
        )
        if self._spec.keep_text and not failure:
            self._table.keep_text(flight.index, answer.text)
        if self._table.nbytes >= _FLUSH_BYTES:
            self._emit_table()

    def _emit_table(self) -> None:
        self._emit(self._table)
        self._table = RequestTable()
        self._emitted_at = monotonic_ns()

    def _explain(self, failure: Failure, detail: object, status: int = 0) -> None:
        name = f"{failure.name} {status}" if failure is _HTTP_STATUS else failure.name
        if len(self._details) < 16:
            self._details.setdefault(name, bounded(str(detail)))


def _peak_bytes() -> int:
    """Peak memory of this process. On Linux ru_maxrss would be that of the parent, where it was larger at the fork."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _refusal(flight: Flight) -> str:
    location = flight.response.headers.get(b"location")
    if 300 <= flight.response.status < 400 and location is not None:
        return f"redirected to {location.decode('latin-1')}, which is not followed: name the address itself"
    return error_detail(flight.error_body)


def _sample(answer: Answer) -> tuple[int, int, str, str]:
    by_usage = answer.osl if answer.counted_by is CountedBy.USAGE else -1
    return by_usage, len(answer.event_ns), answer.text[:_MAX_SAMPLE_CHARS], answer.reasoning[:_MAX_SAMPLE_CHARS]
