"""What became of an item? From pytest's reports to one of the six outcomes, with the reason."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, cast

import pytest

from pytest_kitt.errors import (
    ClientError,
    EngineDiedError,
    EngineStartError,
    Inconclusive,
    InvalidMeasurement,
    ItemTimeoutError,
    UserError,
)
from pytest_kitt.measure.results import Outcome

_REASON_CHARS = 2000
MEASUREMENT = "measurement"  # the phase that invalid measurements are reported for
_FLAG = "kitt_outcome"
_WORD = "inconclusive: "  # in front of the reason that pytest shows; a result has it as its outcome
_RERUN = "rerun"  # of an attempt that failed, by pytest-rerunfailures: another one follows


def mark(report: pytest.TestReport, error: BaseException | None, inconclusive: str) -> None:
    """Gives a report of a failed phase the outcome that its error means."""
    if isinstance(error, InvalidMeasurement):
        _as_error(report, "invalid")
    elif isinstance(error, EngineStartError | EngineDiedError | ClientError | ItemTimeoutError | UserError):
        _as_error(report, "error")
    elif isinstance(error, Inconclusive):
        setattr(report, _FLAG, "inconclusive")
        if inconclusive != "fail":
            report.outcome = "skipped"
            report.longrepr = (str(report.location[0]), report.location[1] or 0, f"{_WORD}{error}")
        if inconclusive == "xfail":
            report.wasxfail = f"{_WORD}{error}"


def status(report: Any) -> tuple[str, str, str] | None:
    """Category, letter and word for reports that carry an outcome of ours; None leaves it to pytest."""
    flag = getattr(report, _FLAG, None)
    if _runs_again(report):
        return None
    if flag == "invalid":
        return "error", "E", "INVALID"
    if flag == "error" and report.when != "setup":
        return "error", "E", "ERROR"
    if flag == "inconclusive" and report.outcome == "skipped":
        return "xfailed", "i", "INCONCLUSIVE"
    return None


@dataclasses.dataclass(slots=True)
class Verdict:
    """Outcome and reason of an item as far as its reports say; a later phase never makes it better."""

    outcome: Outcome = "error"
    reason: str = "the item did not finish"

    def take(self, report: pytest.TestReport) -> None:
        """Takes one phase's report."""
        flag = cast("Outcome | None", getattr(report, _FLAG, None))
        if flag:
            self.outcome, self.reason = flag, _reason(report)
        elif report.failed or _runs_again(report):
            self.outcome, self.reason = ("failed" if report.when == "call" else "error"), _reason(report)
        elif report.skipped:
            self.outcome, self.reason = "skipped", _reason(report)
        elif report.when == "call":
            self.outcome, self.reason = "passed", ""


def _runs_again(report: Any) -> bool:
    return bool(report.outcome == _RERUN)


def _as_error(report: pytest.TestReport, flag: Literal["invalid", "error"]) -> None:
    setattr(report, _FLAG, flag)
    if report.when == "call":
        # pytest, JUnit XML and --lf call a failure outside of the call phase an error; the word shows in the headline
        report.when = cast("Any", MEASUREMENT)


def _reason(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail).removeprefix(_WORD)[:_REASON_CHARS]
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ").removeprefix(_WORD)[:_REASON_CHARS]
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr or "")
    return str(text)[:_REASON_CHARS]
