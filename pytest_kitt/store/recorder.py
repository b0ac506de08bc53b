"""How do the hooks reach the store? Their first implementer, registered under the name kitt-store.

What cannot be written, because the disk is full or the database is away, waits in memory and is tried again with each
further record and at the end; nothing that was measured is lost without a word.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Self

from sqlalchemy.exc import DBAPIError

from pytest_kitt.measure.results import Block, Result, Run, RunStatus, Samples
from pytest_kitt.store.database import location, opened
from pytest_kitt.store.writer import StoreWriter

_MAX_WAITING_BYTES = 256 << 20
_LAST_TRIES, _BETWEEN_TRIES_S = 4, 0.5


class StoreRecorder:
    """Writes each run, block and result as it comes; a context manager that holds the store open.

    Attributes:
        trouble: why the store does not take what was measured, empty while it does.
        dropped: blocks of raw samples that were given up because too many waited.

    """

    def __init__(self, db: str) -> None:
        self._db = db
        self._life = contextlib.ExitStack()
        self._writer: StoreWriter
        self._run_id = ""
        self._open: dict[str, tuple[int, int]] = {}  # node id -> id of its result, blocks so far
        self._waiting: deque[Callable[[], None]] = deque()
        self._waiting_bytes = 0
        self.trouble = ""
        self.dropped = 0

    def __enter__(self) -> Self:
        self._writer = StoreWriter(self._life.enter_context(opened(self._db)))
        return self

    def __exit__(self, *_: object) -> None:
        self._life.close()

    def pytest_kitt_run_started(self, run: Run, resumed: bool) -> None:
        """Writes the run; one that is resumed is there."""
        self._run_id = run.id
        if resumed:
            self._writer.resume_run(run.id)
        else:
            self._writer.start_run(run)

    def pytest_kitt_item_started(self, result: Result) -> None:
        """Writes what is known of a result."""
        self._write(functools.partial(self._start, result))

    def pytest_kitt_samples(self, nodeid: str, samples: Samples) -> None:
        """Writes a block."""
        if not self._waiting:
            self._write(functools.partial(self._add, nodeid, samples))
            return
        if self._waiting_bytes > _MAX_WAITING_BYTES:
            self.dropped += 1
            return
        kept = Block(samples.codec, samples.n, samples.data)  # a spool may be gone by then
        self._waiting_bytes += len(kept.data)
        self._write(functools.partial(self._add, nodeid, kept))

    def pytest_kitt_event(self, kind: str, at: float, about: Mapping[str, Any]) -> None:
        """Writes something that happened."""
        self._write(functools.partial(self._writer.add_event, self._run_id, kind, about, at))

    def pytest_kitt_result(self, result: Result) -> None:
        """Writes the result."""
        self._write(functools.partial(self._finish, result))

    def pytest_kitt_run_finished(self, status: RunStatus, exit_status: int) -> None:
        """Writes the end; by then everything has to be written."""
        self._write(functools.partial(self._writer.finish_run, self._run_id, status, exit_status))
        for _ in range(_LAST_TRIES):
            if not self._waiting:
                return
            time.sleep(_BETWEEN_TRIES_S)
            self._write_waiting()

    @property
    def where(self) -> str:
        """The store, as it may be shown."""
        return location(self._db).render_as_string(hide_password=True).removeprefix("sqlite:///")

    @property
    def waiting(self) -> int:
        """How many records have not been written."""
        return len(self._waiting)

    def _start(self, result: Result) -> None:
        self._open[result.nodeid] = self._writer.start_result(self._run_id, result), 0

    def _add(self, nodeid: str, samples: Samples) -> None:
        result_id, seq = self._open[nodeid]
        self._writer.add_samples(result_id, seq, samples)
        self._open[nodeid] = result_id, seq + 1

    def _finish(self, result: Result) -> None:
        result_id, _ = self._open.get(result.nodeid, (None, 0))
        self._writer.finish_result(self._run_id, result, result_id)
        self._open.pop(result.nodeid, None)

    def _write(self, record: Callable[[], None]) -> None:
        self._waiting.append(record)
        self._write_waiting()

    def _write_waiting(self) -> None:
        """Writes in order, as far as it goes."""
        try:
            while self._waiting:
                self._waiting[0]()
                self._waiting.popleft()
        except DBAPIError as error:
            self.trouble = str(error.orig).splitlines()[0]
        else:
            self.trouble, self._waiting_bytes = "", 0
