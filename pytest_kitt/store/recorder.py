"""How does the results hook reach the store? Its first implementer, registered under the name kitt-store."""

from __future__ import annotations

import contextlib
from typing import Self

from pytest_kitt.measure.results import Result, Run, RunStatus
from pytest_kitt.store.database import opened
from pytest_kitt.store.writer import StoreWriter


class StoreRecorder:
    """Writes each run and result as it comes; a context manager that holds the store open."""

    def __init__(self, db: str) -> None:
        self._db = db
        self._life = contextlib.ExitStack()
        self._writer: StoreWriter
        self._run_id = ""

    def __enter__(self) -> Self:
        self._writer = StoreWriter(self._life.enter_context(opened(self._db)))
        return self

    def __exit__(self, *_: object) -> None:
        self._life.close()

    def pytest_kitt_run_started(self, run: Run) -> None:
        """Writes the run."""
        self._run_id = run.id
        self._writer.start_run(run)

    def pytest_kitt_result(self, result: Result) -> None:
        """Writes the result."""
        self._writer.add_result(self._run_id, result)

    def pytest_kitt_run_finished(self, status: RunStatus, exit_status: int) -> None:
        """Writes the end."""
        self._writer.finish_run(self._run_id, status, exit_status)
