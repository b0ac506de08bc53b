"""Does an engine that was ready still live? Its process and its health path tell, within seconds."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import httpx

from pytest_kitt.cards import EngineCard
from pytest_kitt.engine.ready import classify, how_it_ended, log_tail
from pytest_kitt.errors import EngineDiedError

QUIET_S = 5.0  # without a byte, while requests are under way: then it is asked
ANSWER_S = 2.0  # to answer its health path
QUESTIONS = 3  # in a row without a good answer: then it hangs
_PAUSE_S = 1.0  # between two questions, where the first was refused at once


class Process(Protocol):
    """What is looked at of an engine that we started, in a container or without."""

    @property
    def log(self) -> Path:
        """File with all that it prints."""

    @property
    def what(self) -> str:
        """How sentences call it: ``process 123``."""

    def exit_code(self) -> int | None:
        """None while it runs."""

    def killed_for_memory(self) -> bool | None:
        """Whether the kernel killed something of it for want of memory; None when that cannot be known."""


class Health:
    """What can be found out about one running engine."""

    def __init__(
        self, card: EngineCard, http: httpx.Client, process: Process | None = None, *, usual_status: int = 200
    ) -> None:
        """``usual_status`` is what the health path answers when all is well; no process means a server of others."""
        self._card, self._http, self._process, self._usual = card, http, process, usual_status

    def ailment(self) -> EngineDiedError | None:
        """Why it is gone, if its process has ended; a server that we did not start is never known to be."""
        code = self._process.exit_code() if self._process else None
        if code is None:
            return None
        tail = self._log_tail()
        memory = self._killed_for_memory(code) or _says_memory(tail)
        sentence = f"{self._card.name} {how_it_ended(code)} after it had been ready{memory or _by_whom(code)}"
        return EngineDiedError(sentence, kind="memory" if memory else "died", log_tail=tail)

    def problem(self) -> str:
        """What is wrong with its health path, asked now; empty when all is well, and what is no server error is."""
        try:
            status = self._http.get(self._card.health, timeout=ANSWER_S).status_code
        except httpx.TransportError as error:
            return str(error) or type(error).__name__
        return f"status {status}" if status >= 500 and status != self._usual else ""

    def diagnosis(
        self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> EngineDiedError | None:
        """Why it cannot be used any more; None as soon as it gives a good answer. Takes some six seconds at most."""
        problem = ""
        for _ in range(QUESTIONS):
            asked_at = clock()
            if dead := self.ailment():
                return dead
            if not (problem := self.problem()):
                return None
            sleep(max(0.0, asked_at + _PAUSE_S - clock()))  # an engine that dies closes its port before it is gone
        return self.ailment() or self._hangs(problem)

    def _hangs(self, problem: str) -> EngineDiedError:
        process = f"its {self._process.what} runs, but " if self._process else ""
        path = f"{str(self._http.base_url).rstrip('/')}{self._card.health}"
        return EngineDiedError(
            f"{self._card.name} does not answer any more: {process}{path} failed {QUESTIONS} times in a row: {problem}",
            kind="hung",
            log_tail=self._log_tail(),
        )

    def _killed_for_memory(self, code: int) -> str:
        killed = self._process.killed_for_memory() if self._process else None
        if killed:
            return ": the kernel killed a process there for want of memory"
        if killed is None and code == -signal.SIGKILL:
            return ": most likely by the kernel, for want of memory"
        return ""

    def _log_tail(self) -> str:
        return log_tail(self._process.log) if self._process else ""


@dataclasses.dataclass(slots=True)
class Watch:
    """Looks at an engine while a load runs on it.

    Attributes:
        health: of the engine.
        clock: seconds.

    """

    health: Health
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _reads: int = -1
    _ask_at: float = 0.0

    def look(self, reads: int, in_flight: int) -> None:
        """Takes the counters of the load so far; EngineDiedError when the engine is gone or hangs."""
        if dead := self.health.ailment():
            raise dead
        now = self.clock()
        if reads != self._reads or not in_flight:
            self._reads, self._ask_at = reads, now + QUIET_S
        elif now >= self._ask_at:
            if hangs := self.health.diagnosis(clock=self.clock, sleep=self.sleep):
                raise hangs
            self._ask_at = self.clock() + QUIET_S  # it lives, and takes its time


def _says_memory(tail: str) -> str:
    return ": there is not enough memory" if classify(tail, {}) == "memory" else ""


def _by_whom(code: int) -> str:
    return ": somebody sent it, the kernel counts no kill for want of memory" if code == -signal.SIGKILL else ""
