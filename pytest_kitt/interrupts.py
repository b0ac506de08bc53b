"""When may a signal end a session? At once, but never in the middle of writing what was measured.

SIGTERM and SIGHUP mean the same as Ctrl-C: pytest would otherwise run no teardown at all. The first one ends the
session in order; the second one hurries it, without cutting its report off; the third one cuts.
"""

from __future__ import annotations

import atexit
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ECHO_S = 5.0
_ENDING_S = 5.0
_UNHEARD_S = 8.0
_OURS = 2  # references: the attribute, and the argument of the function that counts
_HURRY = 2  # the second signal


class Interrupts:
    """Turns signals into KeyboardInterrupt while it is entered; a context manager for the main thread.

    Attributes:
        signals: how many have come.
        hurry: what to do when a second one comes.

    """

    def __init__(self, *, echoes: bool = False) -> None:
        """``echoes``: one that follows soon says the same again: the terminal's and then the controller's."""
        self.signals = 0
        self.hurry: list[Callable[[], None]] = []
        self._echoes = echoes
        self._shields = 0
        self._pending = False
        self._last_at = float("-inf")
        self._before: dict[int, Any] = {}
        self._ended_at = 0.0
        self._heard = threading.Event()
        self._raised: KeyboardInterrupt | None = None
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                    self._before[number] = signal.signal(number, self._on_signal)
            self._unraisable, sys.unraisablehook = sys.unraisablehook, self._dropped
        return self

    def __exit__(self, *_: object) -> None:
        self.heard()
        if sys.unraisablehook == self._dropped:
            sys.unraisablehook = self._unraisable
        if not self.signals:
            self._restore()
            return
        # pytest still has some tidying to do, which a further signal would only make look like a crash; and the
        # interpreter takes our handlers away before it ends
        self._ended_at = time.monotonic()
        atexit.register(_ignore, tuple(self._before))

    def heard(self) -> None:
        """The session is ending."""
        self._heard.set()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What is done in here is done to its end; a signal that came meanwhile follows."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._pending and not self._shields:
            self._pending = False
            raise self._exception("a signal")

    def _on_signal(self, number: int, _: object) -> None:
        now = time.monotonic()
        if self._ended_at:
            if now - self._ended_at > _ENDING_S:
                self._restore()
                signal.raise_signal(number)
            return
        echo = self._echoes and now - self._last_at < _ECHO_S
        self._last_at = now
        if echo:
            return
        self.signals += 1
        if self.signals == 1:
            threading.Thread(target=self._insist, args=(number,), name="kitt-interrupt", daemon=True).start()
        if self.signals == _HURRY:
            for act in self.hurry:
                act()
        elif self._shields:
            self._pending = True
        else:
            raise self._exception(signal.Signals(number).name)

    def _exception(self, what: str) -> KeyboardInterrupt:
        self._raised = KeyboardInterrupt(what)
        return self._raised

    def _insist(self, number: int) -> None:
        """An exception may come where Python drops it, in a finaliser say: then the signal is sent once more."""
        main = threading.main_thread().ident
        while main is not None and not self._heard.wait(_UNHEARD_S):
            if not self._under_way():
                self.signals, self._last_at = 0, float("-inf")
                signal.pthread_kill(main, number)
                return

    def _dropped(self, what: sys.UnraisableHookArgs) -> None:
        """Python dropped an exception; ours is not reported, as it comes again, and not kept by who would report it."""
        if self._raised is None or what.exc_value is not self._raised:
            self._unraisable(what)

    def _under_way(self) -> bool:
        """Whether somebody else still has the exception: what stops an engine on its way may take its time."""
        return self._pending or (self._raised is not None and sys.getrefcount(self._raised) > _OURS)


def _ignore(numbers: tuple[int, ...]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
