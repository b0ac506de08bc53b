"""How does what an item measures reach the controller? In reports, so that it crosses pytest-xdist like any other.

Records travel live, between an item's start and the report of its teardown, which carries the result. In a session
without workers they take the same way, within the process. The controller takes them out of their reports at once:
pytest keeps every report to the end.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, cast

import pytest

from pytest_kitt.measure.results import Block, Result, Samples
from pytest_kitt.report.progress import Step

LIVE = "kitt-live"  # the plugin that shows it
_RECORD, _RESULT = "kitt_record", "kitt_result"
_MAX_QUEUED_BYTES = 32 << 20
_MAX_WAIT_S = 5.0


def send(item: pytest.Item, kind: str, **content: Any) -> None:
    """Sends a record of an item under way: texts, numbers, bytes, and lists and mappings of them."""
    report = pytest.TestReport(item.nodeid, item.location, {}, "passed", None, cast("Any", "kitt"))
    setattr(report, _RECORD, {"kind": kind, **content})
    item.ihook.pytest_runtest_logreport(report=report)


def send_step(item: pytest.Item, label: str, step: Step | None) -> None:
    """Sends what an item is busy with, or that this is over; ``label`` tells its steps apart.

    Without workers no report carries it: it comes several times a second, and some plugins write down every report.
    """
    record = {"label": label, "step": None if step is None else step.to_record()}
    if (live := item.config.pluginmanager.get_plugin(LIVE)) is not None:
        live.take(item.nodeid, "", record)
    else:
        send(item, "progress", **record)


def send_samples(item: pytest.Item, samples: Samples) -> None:
    """Sends a block."""
    send(item, "samples", codec=samples.codec, n=samples.n, data=samples.data)


def attach(report: pytest.TestReport, result: Result) -> None:
    """Lets a report carry the result of its item."""
    setattr(report, _RESULT, result.to_json())


def taken_record(report: pytest.TestReport) -> Mapping[str, Any] | None:
    """The record that a report brought; the report keeps nothing of it."""
    return cast("Mapping[str, Any] | None", report.__dict__.pop(_RECORD, None))


def taken_result(report: pytest.TestReport) -> Result | None:
    """The result that a report brought."""
    text = report.__dict__.pop(_RESULT, None)
    return None if text is None else Result.from_json(text)


def is_record(report: Any) -> bool:
    """Whether a report is one of ours, and says nothing of an outcome."""
    return getattr(report, "when", "") == "kitt"


def block(record: Mapping[str, Any]) -> Block:
    """The block in a record."""
    return Block(record["codec"], record["n"], record["data"])


class Valve:
    """Holds the workers back while too much of what they sent waits here, so that memory stays bounded.

    What a worker sends is read by a thread of its own and put into a queue; that thread waits here for the store to
    follow. It never waits longer than some seconds: the controller may be ending, and then nobody follows.
    """

    def __init__(self) -> None:
        self._queued = 0
        self._room = threading.Condition()

    def enter(self, size: int) -> None:
        """Takes room for so many bytes, as soon as there is some."""
        with self._room:
            self._room.wait_for(lambda: self._queued < _MAX_QUEUED_BYTES, timeout=_MAX_WAIT_S)
            self._queued += size

    def leave(self, size: int) -> None:
        """Gives it back."""
        with self._room:
            self._queued -= size
            self._room.notify_all()


def size_of(data: Mapping[str, Any]) -> int:
    """How large the block in a report, or in its serialised form, is; 0 without one."""
    record = data.get(_RECORD)
    return len(record.get("data", b"")) if isinstance(record, dict) else 0
