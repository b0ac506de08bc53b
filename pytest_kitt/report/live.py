"""How does one see that a long item is alive? Bars beneath pytest's own line on a terminal, else a line now and then.

On a terminal the cursor always stands where pytest left it, and the bars lie on the lines below: whatever pytest writes
next first erases all that is behind the cursor. Nothing here has a thread: the bars move when an item says something.
Nothing moves under -q.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import pytest

from pytest_kitt.report.progress import Line, Row, Step

LINE_EVERY_S = 15.0
_DRAW_EVERY_S = 0.1
_ERASE = "\x1b[J"  # from the cursor to the end of the screen
_DOWN, _SAVE, _BACK = "\x1bD", "\x1b7", "\x1b8"
_PLAIN = str.maketrans("━┄…·µ", "#-~.u")
_DUMB = ("", "dumb", "unknown")

Clock = Callable[[], float]
Rows = dict[tuple[str, str], Row]


class Sink(Protocol):
    """Where rows are shown."""

    def show(self, rows: Rows, at_s: float) -> None:
        """Shows them as they are now."""

    def close(self) -> None:
        """Leaves nothing behind."""


class Live:
    """What the items under way are busy with; registered where results arrive, so that it is found there."""

    def __init__(self, config: pytest.Config, clock: Clock = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._rows: Rows = {}
        self._sink: Sink | None = None
        self._closed = False

    def take(self, nodeid: str, worker: str, record: Mapping[str, Any]) -> None:
        """Takes what an item says of one of its steps, or that it is over."""
        at_s = self._clock()
        key = nodeid, record["label"]
        if record["step"] is None:
            self._rows.pop(key, None)
        else:
            row = self._rows.setdefault(key, Row(worker, nodeid, at_s))
            row.take(Step.from_record(record["step"]), at_s)
        self._show(at_s)

    def forget(self, *, nodeid: str = "", worker: str = "") -> None:
        """An item, or a worker, has ended, however it did."""
        gone = [key for key, row in self._rows.items() if row.nodeid == nodeid or (worker and row.worker == worker)]
        for key in gone:
            del self._rows[key]
        if gone:
            self._show(self._clock())

    def close(self) -> None:
        """Shows nothing any more."""
        self._closed = True
        self._rows.clear()
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def _show(self, at_s: float) -> None:
        if self._closed:
            return
        if self._sink is None and (reporter := _reporter(self._config)) is not None:
            self._sink = _sink(self._config, reporter)
        if self._sink is not None:
            self._sink.show(self._rows, at_s)


def _reporter(config: pytest.Config) -> pytest.TerminalReporter | None:
    """The terminal's, unless it is to be quiet."""
    found: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    return None if found is None or config.option.verbose < 0 else found


def _sink(config: pytest.Config, reporter: pytest.TerminalReporter) -> Sink:
    if reporter.isatty and os.environ.get("TERM", "") not in _DUMB:
        with uncaptured(config), contextlib.suppress(OSError, ValueError):
            fd = os.dup(sys.stdout.fileno())  # the terminal itself, also while a test's output is captured
            if os.isatty(fd):
                return Screen(config.get_terminal_writer(), fd, sys.stdout.encoding)
            os.close(fd)
    return Lines(lambda text: _write_line(config, reporter, text))


class Lines:
    """A line for each row, at most every so many seconds."""

    def __init__(self, write_line: Callable[[str], None], every_s: float | None = None) -> None:
        self._write_line, self._every_s = write_line, LINE_EVERY_S if every_s is None else every_s
        self._said_at: dict[tuple[str, str], float] = {}

    def show(self, rows: Rows, at_s: float) -> None:
        """Says what is due."""
        self._said_at = {key: self._said_at.get(key, at_s) for key in rows}
        for key, row in rows.items():
            if at_s - self._said_at[key] >= self._every_s:
                self._said_at[key] = at_s
                self._write_line(row.said(at_s))

    def close(self) -> None:
        """Leaves nothing behind."""


class Screen:
    """A bar for each row, on the lines below the one that pytest writes on."""

    def __init__(self, writer: Any, fd: int, encoding: str = "utf-8") -> None:
        self._writer, self._fd, self._encoding = writer, fd, encoding
        self._write = writer.write
        self._ready = select.poll()
        self._ready.register(fd, select.POLLOUT)
        self._drawn = 0
        self._drawn_at_s = float("-inf")
        writer.write = self._write_of_others

    def show(self, rows: Rows, at_s: float) -> None:
        """Draws the bars anew, not too often."""
        if not rows:
            self._erase()
        elif not self._drawn or len(rows) < self._drawn or at_s - self._drawn_at_s >= _DRAW_EVERY_S:
            self._drawn_at_s = at_s
            self._draw(rows, at_s)

    def close(self) -> None:
        """Gives the terminal back as it was."""
        self._erase()
        self._writer.write = self._write
        os.close(self._fd)

    def _write_of_others(self, text: str, *, flush: bool = False, **markup: bool) -> None:  # noqa: ARG002 - theirs
        self._erase()
        self._write(text, flush=True, **markup)  # nothing may wait in a buffer while a bar is drawn

    def _erase(self) -> None:
        if self._drawn:
            self._drawn = 0
            self._put(_ERASE)

    def _draw(self, rows: Rows, at_s: float) -> None:
        if not self._ready.poll(0):  # a terminal that is held must not hold the load
            return
        width, height = _size(self._fd)
        shown = [self._coloured(row.line(at_s, width - 1)) for row in rows.values()]
        if len(shown) > height - 1:
            room = max(1, height - 2)
            shown = [*shown[:room], f"and {len(shown) - room} more"]
        n = len(shown)
        self._drawn = len(rows)
        below = "".join(f"\r\n{line}" for line in shown)
        self._put(f"{_ERASE}{_DOWN * n}\x1b[{n}A{_SAVE}{below}{_BACK}")

    def _coloured(self, line: Line) -> str:
        if not line.full:
            return str(line)
        return str(Line(line.name, self._writer.markup(line.full, green=True), line.empty, line.rest))

    def _put(self, text: str) -> None:
        try:
            data = text.encode(self._encoding)
        except UnicodeEncodeError:
            data = text.translate(_PLAIN).encode(self._encoding, "replace")
        with contextlib.suppress(OSError):  # a terminal that is gone is nobody's loss here
            os.write(self._fd, data)


@contextlib.contextmanager
def uncaptured(config: pytest.Config) -> Iterator[None]:
    """What is written in here reaches the terminal, even in the middle of a test."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    if capture is None:
        yield
        return
    with capture.global_and_fixture_disabled():
        yield


def _write_line(config: pytest.Config, reporter: pytest.TerminalReporter, text: str) -> None:
    with uncaptured(config):
        reporter.ensure_newline()
        reporter.write_line(f"kitt: {text}")


def _size(fd: int) -> tuple[int, int]:
    """Columns and lines of a terminal: as the environment says, as the kernel says, or as usual."""
    try:
        columns, lines = os.get_terminal_size(fd)
    except OSError:
        columns, lines = 0, 0
    given = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    columns, lines = (
        int(text) if text.isdecimal() else found for text, found in zip(given, (columns, lines), strict=True)
    )
    return columns or 80, lines or 24
