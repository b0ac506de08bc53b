"""Which requests run, which wait, and when is each token due? Pure: every time is a number handed in.

It lives in the time of its own events: what happens at 1.0 s is decided by what had happened until then, however late
the clock that hands the times in. So a late wake-up delays tokens on their way out and never the ones after them.

- Service is in order of arrival: the first that waits goes first, and who does not fit holds up those behind.
- With n requests running, counted when it starts, the way to the first token takes ``1 + ttft_slope * (n - 1)`` times
  as long, and each gap between tokens ``1 + itl_slope * (n - 1)`` times, with n counted at the token before it.
- The cache holds ``kv_tokens`` tokens of prompts and answers. Reserving, a request starts when its prompt and its
  longest answer fit; preempting, when its prompt and one token more do. When there is no room for another token, the
  request that started last gives all of its room back, waits before the others, and starts again with its whole TTFT.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from pytest_kitt.engine.simulated.timetable import Gap


@dataclass(frozen=True, slots=True)
class Batch:
    """What requests share, and how they slow each other down; 0 is no limit.

    Attributes:
        max_running: how many run at a time.
        kv_tokens: tokens that the cache holds.
        preempts: the cache is filled token by token, and who finds no room puts another out; else room is reserved.

    """

    max_running: int = 0
    kv_tokens: int = 0
    preempts: bool = False
    ttft_slope: float = 0.0
    itl_slope: float = 0.0


class Listener(Protocol):
    """Who is told what becomes of a request."""

    def started(self, at: float) -> None:
        """It runs, for the first time."""

    def made(self, index: int, due: float) -> None:
        """Token `index`, counted from 0, is due."""

    def ended(self, at: float) -> None:
        """It has all its tokens, and its place is free."""


class _State(Enum):
    ARRIVING = auto()
    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()
    CANCELLED = auto()


class Sequence:
    """One request, as the scheduler sees it."""

    def __init__(
        self,
        listener: Listener,
        *,
        prompt_tokens: int,
        max_tokens: int,
        tokens: int,
        prefill_s: float,
        gaps: Iterator[Gap],
    ) -> None:
        self.listener = listener
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.tokens = tokens
        self.prefill_s = prefill_s
        self.gaps = gaps
        self.state = _State.ARRIVING
        self.made = 0
        self.held = 0
        self.turn = 0  # what was planned for an earlier turn does not happen
        self.origin = self.since = 0.0  # apart, because gaps added to a clock of many days would be rounded
        self.has_started = False

    @property
    def ended(self) -> bool:
        """Whether it has made all its tokens."""
        return self.state is _State.ENDED


class Scheduler:
    """The batch and its queue.

    Attributes:
        held: tokens in the cache now.
        preemptions: how often a request was put out.

    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.held = 0
        self.preemptions = 0
        self._running: dict[Sequence, None] = {}
        self._waiting: deque[Sequence] = deque()
        self._plan: list[tuple[float, int, Sequence, int]] = []
        self._order = count()
        self._advancing = False

    @property
    def running(self) -> int:
        """How many are in service."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the cache that is taken; 0 where it has no limit."""
        return self.held / self.batch.kv_tokens if self.batch.kv_tokens else 0.0

    @property
    def next_due(self) -> float:
        """When the next thing happens; infinity when nothing will."""
        return self._plan[0][0] if self._plan else math.inf

    def submit(self, sequence: Sequence, arrival: float) -> None:
        """Take a request that arrives then; `advance` lets it in."""
        self._schedule(sequence, arrival)

    def advance(self, now: float) -> None:
        """Let everything happen that is due by then, in the order of its time."""
        if self._advancing:  # a listener that submits is served by the loop that called it
            return
        self._advancing = True
        try:
            plan = self._plan
            while plan and plan[0][0] <= now:
                at, _, sequence, turn = heappop(plan)
                if sequence.turn == turn:
                    self._happen(sequence, at)
        finally:
            self._advancing = False

    def cancel(self, sequence: Sequence, now: float) -> None:
        """Forget a request; nothing happens if it has ended."""
        self.advance(now)
        state = sequence.state
        if state in (_State.ENDED, _State.CANCELLED):
            return
        sequence.state = _State.CANCELLED
        sequence.turn += 1
        if state is _State.WAITING:
            self._waiting.remove(sequence)
        if state is _State.RUNNING:
            self._release(sequence)
        self._admit(now)

    def would_wait(self, prompt_tokens: int, max_tokens: int) -> bool:
        """Whether a request that arrived now would have to."""
        return bool(self._waiting) or not self._fits(self._need(prompt_tokens, max_tokens, min(1, max_tokens)))

    def _happen(self, sequence: Sequence, at: float) -> None:
        if sequence.state is _State.RUNNING:
            self._make(sequence, at)
            return
        sequence.state = _State.WAITING
        self._waiting.append(sequence)
        self._admit(at)

    def _admit(self, now: float) -> None:
        while self._waiting and self._fits(self._need_of(self._waiting[0])):
            self._start(self._waiting.popleft(), now)

    def _fits(self, need: int) -> bool:
        if self.batch.max_running and self.running >= self.batch.max_running:
            return False
        return not self.batch.kv_tokens or self.held + need <= self.batch.kv_tokens

    def _need_of(self, sequence: Sequence) -> int:
        soon = min(sequence.made + 1, sequence.tokens)
        return self._need(sequence.prompt_tokens, sequence.max_tokens, soon)

    def _need(self, prompt_tokens: int, max_tokens: int, soon: int) -> int:
        """What a request takes of the cache when it starts, with so many tokens made as soon as it does."""
        return prompt_tokens + (soon if self.batch.preempts else max_tokens)

    def _start(self, sequence: Sequence, now: float) -> None:
        self._running[sequence] = None
        sequence.state = _State.RUNNING
        sequence.held = self._need_of(sequence)
        self.held += sequence.held
        if not sequence.has_started:
            sequence.has_started = True
            sequence.listener.started(now)
        sequence.origin = now
        sequence.since = sequence.prefill_s * (1 + self.batch.ttft_slope * (self.running - 1))
        self._schedule(sequence, now + sequence.since)

    def _make(self, sequence: Sequence, due: float) -> None:
        if sequence.made < sequence.tokens:
            sequence.made += 1
            sequence.listener.made(sequence.made - 1, due)
        if sequence.made == sequence.tokens:
            self._end(sequence, due)
            return
        if self.batch.preempts and self.batch.kv_tokens and not self._grow(sequence):
            return
        gap = next(sequence.gaps)
        stretch = 1 + self.batch.itl_slope * (self.running - 1)
        sequence.since += gap.own_s * stretch + gap.stall_s
        self._schedule(sequence, sequence.origin + sequence.since)

    def _end(self, sequence: Sequence, at: float) -> None:
        sequence.state = _State.ENDED
        self._release(sequence)
        sequence.listener.ended(at)
        self._admit(at)

    def _grow(self, sequence: Sequence) -> bool:
        """Room for one token more, at the cost of whoever started last; False if that is the request itself."""
        while self.held >= self.batch.kv_tokens:
            last = next(reversed(self._running))
            self._preempt(last)
            if last is sequence:
                return False
        sequence.held += 1
        self.held += 1
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._release(sequence)
        sequence.state = _State.WAITING
        sequence.turn += 1
        self._waiting.appendleft(sequence)
        self.preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        del self._running[sequence]
        self.held -= sequence.held
        sequence.held = 0

    def _schedule(self, sequence: Sequence, at: float) -> None:
        heappush(self._plan, (at, next(self._order), sequence, sequence.turn))
