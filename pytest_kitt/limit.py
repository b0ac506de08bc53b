"""How is an item ended that takes too long? A thread waits beside it, and a signal interrupts the main thread."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType

import pytest

from pytest_kitt.benchmark import benchmark_of
from pytest_kitt.errors import ItemTimeoutError

_SIGNAL = signal.SIGVTALRM  # SIGALRM and its timer are pytest-timeout's
_PAUSE_S = 0.5
_AGAIN_S = 10.0  # code that swallows the error gets it again; what unwinds cleanly has time for it

Phase = Generator[None, object, object]


class ItemLimit:
    """A plugin that ends a benchmark with an ItemTimeoutError when its time is over.

    Set-up (with the start of the engine) and call share the time; tear-down, which must run whatever came before, has
    as much again for itself. Where pytest does not run in the main thread there is no limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends_at = 0.0
        self._limited: pytest.Item | None = None
        self._paused = False

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is waited in here, for a device that another has, is no part of the item's time."""
        self._paused, since = True, time.monotonic()
        try:
            yield
        finally:
            self._ends_at += time.monotonic() - since
            self._paused = False

    @property
    def left_s(self) -> float:
        """Seconds until the end; while it is paused there is always some time left."""
        return _PAUSE_S if self._paused else self._ends_at - time.monotonic()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Phase:
        """Listens to the signal as long as items run."""
        if threading.current_thread() is not threading.main_thread():
            return (yield)
        before = signal.signal(_SIGNAL, self._interrupt)
        try:
            return (yield)
        finally:
            signal.signal(_SIGNAL, signal.SIG_IGN)  # so that one which is just being delivered does no harm
            signal.signal(_SIGNAL, before or signal.SIG_DFL)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Phase:
        """The time begins."""
        self._ends_at = time.monotonic() + self._seconds
        return (yield from self._phase(item))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Phase:
        """The time goes on."""
        return (yield from self._phase(item))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Phase:
        """The time begins anew."""
        self._ends_at = time.monotonic() + self._seconds
        return (yield from self._phase(item))

    def pytest_enter_pdb(self) -> None:
        """Nobody is hurried while debugging."""
        self._limited = None

    def _phase(self, item: pytest.Item) -> Phase:
        if threading.current_thread() is not threading.main_thread() or benchmark_of(item) is None:
            return (yield)
        over = threading.Event()
        thread = threading.Thread(target=_remind, args=(self, over), name="kitt-limit", daemon=True)
        try:
            try:
                self._limited = item
                thread.start()
                return (yield)
            finally:
                self._limited = None
        finally:  # twice, for the signal may come in between, though not a second time so soon
            self._limited = None
            over.set()
            thread.join()

    def _interrupt(self, _number: int, frame: FrameType | None) -> None:
        if self._limited is not None and not self._paused:
            where = _where(frame, self._limited.path)
            raise ItemTimeoutError(f"the item took longer than {self._seconds:g} s (--kitt-item-timeout){where}")


def _remind(limit: ItemLimit, over: threading.Event) -> None:
    main = threading.main_thread().ident
    wait_s = limit.left_s
    while main is not None and not over.wait(max(0.0, wait_s)):
        wait_s = limit.left_s
        if wait_s <= 0:
            signal.pthread_kill(main, _SIGNAL)
            wait_s = _AGAIN_S


def _where(frame: FrameType | None, path: Path) -> str:
    """The line of the test's file that was being executed, or whatever was."""
    innermost = frame
    while frame is not None and frame.f_code.co_filename != str(path):
        frame = frame.f_back
    found = frame or innermost
    return f", at {Path(found.f_code.co_filename).name}:{found.f_lineno}" if found else ""
