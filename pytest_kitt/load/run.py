"""How is a load run? The timed clients are child processes: one spec in each, columnar blocks out.

Several clients share nothing: each has its own connections, its own requests and prompts of the same schedule. They
begin at one time, and keep the load up until the last of them has measured all of its requests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO
from urllib.parse import urlsplit

import orjson

from pytest_kitt.engine.watchdog import MARK
from pytest_kitt.errors import ClientError, InvalidMeasurement
from pytest_kitt.load.client import frames
from pytest_kitt.load.spec import ClientSpec, Ending, Look, joined
from pytest_kitt.load.spool import Spool, SpooledBlock
from pytest_kitt.measure.bins import Bins
from pytest_kitt.measure.records import Phase, Records, RequestTable

_STOP_S = 2.0
_READ_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031  # fcntl(2), Linux: a client never waits until a block has been taken
_WATCH_S = 0.25
_LEAD_NS = 20_000_000  # from the word to the start: all clients must have heard it


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a load is, over all of its clients.

    Attributes:
        done: measured requests that ended.
        failed: those of them that failed.
        tokens: of all requests, those under way included.
        in_flight: requests under way.
        reads: how often something came from the server: a sign of life before any request has ended.
        warmed: warm-up requests that ended.
        phase: of what is sent now; None before anything is.
        measured_s: since the first measured request was due.
        ttft_p50_ms: about, of the measured requests whose first token is here; None as long as they are too few.
        ttft_p99_ms: likewise.
        itl_p50_ms: likewise, of one gap in sixteen.

    """

    done: int = 0
    failed: int = 0
    tokens: int = 0
    in_flight: int = 0
    reads: int = 0
    warmed: int = 0
    phase: Phase | None = None
    measured_s: float = 0.0
    ttft_p50_ms: float | None = None
    ttft_p99_ms: float | None = None
    itl_p50_ms: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Raw:
    """What a load left: its blocks, the records they make, the clients' own accounts, and when its clock was 0."""

    blocks: tuple[SpooledBlock, ...]
    records: Records
    ending: Ending
    clients: tuple[Ending, ...]
    began_ns: int


class Interrupted(BaseException):
    """A load that was ended from outside; carries what was measured until then.

    Attributes:
        cause: Ctrl-C, a limit of time, what the watch found.
        raw: what the load left so far.

    """

    def __init__(self, cause: BaseException, raw: Raw) -> None:
        super().__init__(cause)
        self.cause, self.raw = cause, raw


def run(
    spec: ClientSpec,
    *,
    mark: str,
    clients: int = 1,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_block: Callable[[SpooledBlock, RequestTable], None] = lambda *_: None,
    watch: Callable[[Progress], None] = lambda _: None,
    spool_texts: bool = True,
) -> Raw:
    """Runs a load to its end in child processes; each block is told as it comes.

    Without ``spool_texts`` the answers' texts are in the tables that are told, and nowhere else.

    ``watch`` is called four times a second, and may raise to end the load. Whatever ends it in between (the watch,
    Ctrl-C, a ClientError when a child dies, an InvalidMeasurement when one cannot begin) is raised as Interrupted, or
    as it is when no child has anything to say any more.
    """
    with contextlib.ExitStack() as life:
        children = [life.enter_context(_child(share, mark)) for share in spec.split(clients)]
        return _Conversation(children, on_progress, on_block, watch, spool_texts=spool_texts).until_the_end()


def address(url: str) -> tuple[str, int, bool, str]:
    """Host, port, whether TLS, and the path in front of the API's own, of a base address."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return parts.hostname or "", parts.port or (443 if tls else 80), tls, parts.path.rstrip("/")


class _Child:
    """One client process."""

    def __init__(self, process: subprocess.Popen[bytes], errors: BinaryIO) -> None:
        assert process.stdout is not None
        self.process, self.errors = process, errors
        self.stdout = process.stdout.fileno()
        self.incoming = frames.Incoming()
        self.ready = self.done = False
        self.look: Look | None = None
        self.ending: Ending | None = None

    def tell(self, line: str) -> None:
        """Writes a line to it; one that dies at once says why itself."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def died(self) -> ClientError:
        """What to say of one that is gone without an ending."""
        self.process.wait()
        self.errors.seek(0)
        said = self.errors.read()[-2000:].decode("utf-8", "replace").strip()
        return ClientError(f"a load client ended with exit code {self.process.returncode} in mid-run\n{said}")


class _Conversation:
    """What is said between this process and its clients from the spec to the end."""

    def __init__(
        self,
        children: Sequence[_Child],
        on_progress: Callable[[Progress], None],
        on_block: Callable[[SpooledBlock, RequestTable], None],
        watch: Callable[[Progress], None],
        *,
        spool_texts: bool,
    ) -> None:
        self._children, self._on_progress = children, on_progress
        self._on_block, self._watch = on_block, watch
        self._spool_texts = spool_texts
        self._spool = Spool()
        self._records = Records()
        self._blocks: list[SpooledBlock] = []
        self._began_ns = 0
        self._ttft, self._gaps = Bins(), Bins()

    def until_the_end(self) -> Raw:
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(child.stdout, selectors.EVENT_READ, child)
            try:
                self._listen(selector, timeout_s=None)
            except BaseException as cause:
                self._stop_all()
                self._listen(selector, timeout_s=_STOP_S)
                if (raw := self._raw()) is None:
                    raise
                raise Interrupted(cause, raw) from None
        raw = self._raw()
        assert raw is not None
        return raw

    def _raw(self) -> Raw | None:
        endings = tuple(child.ending for child in self._children if child.ending)
        if not endings:
            return None
        return Raw(tuple(self._blocks), self._records, joined(endings), endings, self._began_ns)

    def _listen(self, selector: selectors.BaseSelector, *, timeout_s: float | None) -> None:
        """Until all have ended, watched; or for so long, in which one that is gone changes nothing."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while any(child.ending is None for child in self._children):
            if deadline is None:
                self._watch(self._progress())
            elif time.monotonic() >= deadline or not selector.get_map():
                return
            for key, _ in selector.select(_WATCH_S):
                child: _Child = key.data
                data = os.read(child.stdout, _READ_BYTES)
                if not data:
                    if child.ending is None and deadline is None:
                        raise child.died()
                    selector.unregister(child.stdout)
                for kind, payload in child.incoming.feed(data):
                    self._hear(child, kind, payload)

    def _progress(self) -> Progress:
        looks = [child.look for child in self._children if child.look]
        if not looks:
            return Progress()
        phases = {look.phase for look in looks}
        return Progress(
            done=sum(look.done for look in looks),
            failed=sum(look.failed for look in looks),
            tokens=sum(look.tokens for look in looks),
            in_flight=sum(look.in_flight for look in looks),
            reads=sum(look.reads for look in looks),
            warmed=sum(look.warmed for look in looks),
            phase=Phase(phases.pop()) if len(phases) == 1 else Phase.MEASURED,
            measured_s=max(look.measured_ns for look in looks) / 1e9,
            ttft_p50_ms=self._ttft.percentile_ms(0.5),
            ttft_p99_ms=self._ttft.percentile_ms(0.99),
            itl_p50_ms=self._gaps.percentile_ms(0.5),
        )

    def _hear(self, child: _Child, kind: bytes, payload: bytes) -> None:
        if kind == frames.BLOCK:
            self._hear_block(payload)
        elif kind == frames.PROGRESS:
            child.look = look = Look(**orjson.loads(payload))
            self._ttft.extend(look.ttft_ns)
            self._gaps.extend(look.gaps_ns)
            self._on_progress(self._progress())
        elif kind == frames.READY:
            child.ready = True
            if all(child.ready for child in self._children):
                self._began_ns = time.perf_counter_ns() + _LEAD_NS
                self._tell_all(str(self._began_ns))
        elif kind == frames.DONE:
            child.done = True
            if all(child.done for child in self._children):
                self._tell_all("release")
        elif kind == frames.ENDING:
            child.ending = Ending(**orjson.loads(payload))
            if child.ending.stopped:  # half a load is none
                self._stop_all()
        elif kind == frames.FATAL:
            raise InvalidMeasurement(f"the load client could not begin: {payload.decode('utf-8', 'replace')}")

    def _hear_block(self, payload: bytes) -> None:
        table = RequestTable.from_bytes(payload)
        texts = table.texts
        if not self._spool_texts:
            table.texts = {}
            payload = table.to_bytes()
        block = self._spool.add(payload, len(table))
        self._records.take(table, block)
        self._blocks.append(block)
        table.texts = texts
        self._on_block(block, table)

    def _tell_all(self, line: str) -> None:
        for child in self._children:
            child.tell(line)

    def _stop_all(self) -> None:
        for child in self._children:
            if child.ending is None:
                child.process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def _child(spec: ClientSpec, mark: str) -> Iterator[_Child]:
    command = [sys.executable, "-P", "-m", "pytest_kitt.load.client"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, MARK: mark},
            start_new_session=True,
            pass_fds=(spec.bodies_fd,) if spec.bodies_fd >= 0 else (),
        )
        try:
            child = _Child(process, errors)
            with contextlib.suppress(OSError):
                fcntl.fcntl(child.stdout, _F_SETPIPE_SZ, _READ_BYTES)
            child.tell(orjson.dumps(dataclasses.asdict(spec)).decode())
            yield child
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    process.stdout.close()
    process.terminate()  # it stops cleanly; when its load has ended this changes nothing
    try:
        process.wait(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
