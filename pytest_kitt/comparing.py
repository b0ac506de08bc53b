"""Do the cells of a session answer alike, as --kitt-consistency demands? Looked at when its results are stored."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_kitt.measure.consistency import Matrix
from pytest_kitt.measure.results import Result
from pytest_kitt.report import agreement, document
from pytest_kitt.report.terminal import printable, table
from pytest_kitt.session import KittSession


class Consistency:
    """What the end of a session finds.

    Attributes:
        missed: a sentence for each demand that was not met; empty when none was made.

    """

    def __init__(self, kitt: KittSession) -> None:
        self._kitt = kitt
        self._matrices: list[Matrix] = []
        self._trouble = ""
        self.missed: list[str] = []

    def look(self, results: Sequence[Result]) -> None:
        """Reads the answers from the store, where there may be any to compare."""
        least = self._kitt.settings.consistency
        if not least and not any(result.category == "quality" for result in results):
            return
        try:
            self._matrices = self._read()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not take the table of results with it
            self._trouble = f"the answers could not be compared: {type(error).__name__}: {error}"
        if least:
            self.missed = [sentence for matrix in self._matrices for sentence in matrix.too_different(least)]
            if not self._matrices:
                self.missed = [self._trouble or "there are no two sets of answers to the same questions"]

    def show(self, reporter: pytest.TerminalReporter) -> None:
        """The matrices, and what was missed."""
        shown = self._matrices if reporter.verbosity >= 0 else []
        if shown:
            reporter.section("kitt consistency")
        for matrix in shown:
            for line in table(agreement.rows(matrix)):
                reporter.write_line(printable(line).rstrip())
            if left := agreement.left_out(matrix):
                reporter.write_line(f"and {left} more")
        for sentence in self.missed:
            reporter.write_line(printable(f"kitt: --kitt-consistency: {sentence}"), red=True)
        if self._trouble and not self.missed:
            reporter.write_line(printable(f"kitt: {self._trouble}"), yellow=True)

    def _read(self) -> list[Matrix]:
        from pytest_kitt.store.database import opened

        with opened(self._kitt.settings.db, create=False) as engine, engine.connect() as connection:
            return document.agreements(connection, self._kitt.run.id)
