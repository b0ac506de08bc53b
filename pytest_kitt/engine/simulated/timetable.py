"""When each token is due, and which request is served next. Pure: every time is a number handed in."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Timetable:
    """The due times of one request: absolute, so that a late wake-up delays one token and never the ones after it.

    Attributes:
        start: when its service starts, in seconds of the server's clock.
        ttft_s: from the start to the first token.
        itl_s: from each token to the next.

    """

    start: float
    ttft_s: float
    itl_s: float

    def due(self, index: int) -> float:
        """When token `index`, counted from 0, is due."""
        return self.start + self.ttft_s + index * self.itl_s


class Pacer:
    """Hands out the tokens of one request, each once and none before it is due."""

    def __init__(self, timetable: Timetable, count: int) -> None:
        self.timetable = timetable
        self.count = count
        self.taken = 0

    @property
    def done(self) -> bool:
        """Whether every token was taken."""
        return self.taken == self.count

    @property
    def next_due(self) -> float:
        """When the next token is due."""
        return self.timetable.due(self.taken)

    def take(self, now: float) -> range:
        """The tokens that are due by `now` and were not taken yet."""
        first = self.taken
        while not self.done and self.next_due <= now:
            self.taken += 1
        return range(first, self.taken)


class Job(Protocol):
    """What the queue needs of a request: to know when it arrived, and to be told when its service starts."""

    @property
    def arrival(self) -> float:
        """When the request was there."""

    def begin(self, start: float) -> None:
        """Be served from `start` on."""


class Queue:
    """First come, first served: at most `limit` jobs run and the others wait; 0 is no limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: set[Job] = set()
        self._waiting: deque[Job] = deque()

    @property
    def running(self) -> int:
        """How many are in service."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    def join(self, job: Job) -> None:
        """Start the job at its arrival, or let it wait."""
        if self._limit and self.running >= self._limit:
            self._waiting.append(job)
            return
        self._start(job, job.arrival)

    def leave(self, job: Job, now: float) -> None:
        """Forget the job, finished or given up at `now`; the slot it held goes to the first that waits."""
        if job not in self._running:
            self._waiting.remove(job)
            return
        self._running.remove(job)
        if self._waiting:
            successor = self._waiting.popleft()
            self._start(successor, max(now, successor.arrival))

    def _start(self, job: Job, start: float) -> None:
        self._running.add(job)
        job.begin(start)
