"""Which files does a session leave? They are written from the store when the run has ended, and say what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_kitt.errors import UserError
from pytest_kitt.report import document, files
from pytest_kitt.report.atomic import replaced
from pytest_kitt.session import KittSession

if TYPE_CHECKING:
    import sqlalchemy as sa


class Reports:
    """Registered where results arrive, when a file is asked for."""

    def __init__(self, kitt: KittSession) -> None:
        self._kitt = kitt
        self._finished = False
        self._written: list[str] = []
        self._trouble: list[str] = []
        settings = kitt.settings
        self._html = Path(settings.html).expanduser().absolute() if settings.html else None
        self._folder = files.place(settings.output, kitt.run.id) if settings.output else None
        if self._html:
            _require_writable(self._html, "--kitt-html")
        if self._folder:
            files.require_usable(self._folder, "--kitt-output")

    @pytest.hookimpl(trylast=True)
    def pytest_kitt_run_finished(self) -> None:
        """Writes what was asked for, the one without the other where it must be."""
        self._finished = True
        if self._html:
            self._attempt(self._html, "report", self._write_html)
        if self._folder:
            self._attempt(self._folder, "files", self._write_files)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A report that is asked for and missing is no success."""
        if self._trouble:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says where the files are."""
        for line in self._written if terminalreporter.verbosity >= 0 else ():
            terminalreporter.write_line(line)
        if not self._finished and not terminalreporter.config.option.collectonly:
            terminalreporter.write_line("no report: no benchmark ran")
        for line in self._trouble:
            terminalreporter.write_line(line, red=True)

    def _attempt(self, path: Path, word: str, write: Callable[[sa.Connection, Path], None]) -> None:
        from pytest_kitt.store.database import opened

        try:
            with opened(self._kitt.settings.db, create=False) as engine, engine.connect() as connection:
                write(connection, path)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not take the table of results with it
            self._trouble.append(f"kitt: {path} could not be written: {type(error).__name__}: {error}")
        else:
            self._written.append(f"{word}: {path}")

    def _write_html(self, connection: sa.Connection, path: Path) -> None:
        report = files.html(connection, document.read(connection, self._kitt.run.id))
        with replaced(path) as file:
            file.write(report)

    def _write_files(self, connection: sa.Connection, path: Path) -> None:
        kitt = self._kitt
        before = kitt.interrupts.signals
        if not files.write(
            path, connection, kitt.run.id, kitt.settings, hurried=lambda: kitt.interrupts.signals > before
        ):
            again = f"kitt results export {kitt.run.id} --samples"
            self._written.append(
                f"raw samples are not all in {path}, as a signal came while they were written: {again}"
            )


def _require_writable(path: Path, flag: str) -> None:
    """UserError, before anything is measured, when the file cannot be made."""
    import tempfile

    if path.is_dir():
        raise UserError(f"{flag}: {path} is a folder; name a file in it")
    there = next(folder for folder in path.parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{flag}: {path.parent} is no folder that can be written to: {error.strerror}") from error
