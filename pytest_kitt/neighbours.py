"""What do other plugins need, so that they show our outcomes? pytest-html draws the phases of pytest and no other."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_kitt.outcome import MEASUREMENT


class PytestHtml:
    """Registered beside pytest-html: a measurement that is invalid would be missing on its page.

    The page is written when the last phase of an item is reported, from the reports of the earlier ones. For that
    moment such a measurement is a failed set-up: an error, as in JUnit XML.
    """

    def __init__(self) -> None:
        self._held: dict[str, list[Any]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, object, object]:
        """Holds reports of measurements until the item's last one comes."""
        if report.when == MEASUREMENT:
            self._held.setdefault(report.nodeid, []).append(report)
        held = self._held.pop(report.nodeid, []) if report.when == "teardown" else []
        for one in held:
            one.when = "setup"
        try:
            return (yield)
        finally:
            for one in held:
                one.when = MEASUREMENT
