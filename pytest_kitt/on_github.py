"""What does a session leave on GitHub? A summary on the job's page, and an annotation for what did not pass."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pytest_kitt.errors import UserError
from pytest_kitt.measure.results import Result
from pytest_kitt.report.live import uncaptured
from pytest_kitt.session import KittSession

_SUMMARY_BYTES = 1 << 20  # of all that the steps of a job write into one file


class OnGitHub:
    """Registered where results arrive, when a variable of GitHub's is set."""

    def __init__(self, kitt: KittSession) -> None:
        self._kitt = kitt
        self._warnings: list[str] = []
        self._results: dict[str, Result] = {}  # by key, the last attempt at each
        self._places: dict[str, tuple[Path, int]] = {}  # file and line of each item, by node id

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remembers where a test stands."""
        if report.nodeid not in self._places:
            path, line, _ = report.location
            self._places[report.nodeid] = self._kitt.config.rootpath / path, (line or 0) + 1

    def pytest_kitt_result(self, result: Result) -> None:
        """Remembers what there is to report."""
        self._results[result.key] = result

    @pytest.hookimpl(trylast=True)
    def pytest_kitt_run_finished(self) -> None:
        """Writes the summary; without it the session is no worse."""
        from sqlalchemy.exc import SQLAlchemyError

        if self._results and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
            try:
                self._append_summary(Path(summary))
            except (OSError, UserError, ValueError, SQLAlchemyError) as error:
                self._warnings.append(f"kitt: the summary for GitHub could not be written: {error}")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says why there is no summary."""
        for line in self._warnings:
            terminalreporter.write_line(line, yellow=True)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Annotates the run's page; behind all that pytest writes, as each stands on a line of its own."""
        if os.environ.get("GITHUB_ACTIONS") != "true" or not self._results:
            return
        from pytest_kitt.report import github

        workspace = os.environ.get("GITHUB_WORKSPACE")
        lines = github.commands([*self._results.values()], self._places, Path(workspace) if workspace else None)
        text = "".join(f"{line}\n" for line in lines)
        with uncaptured(config):
            encoding = sys.stdout.encoding or "utf-8"
            sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
            sys.stdout.flush()

    def _append_summary(self, path: Path) -> None:
        from pytest_kitt.report import document, markdown
        from pytest_kitt.store.database import opened

        with opened(self._kitt.settings.db, create=False) as engine, engine.connect() as connection:
            found = document.read(connection, self._kitt.run.id)
            found["agreements"] = document.agreements(connection, self._kitt.run.id)
        with path.open("a", encoding="utf-8") as file:
            room = _SUMMARY_BYTES - file.tell() - 1
            file.write(f"{markdown.render(found, min(room, markdown.MAX_BYTES))}\n")
