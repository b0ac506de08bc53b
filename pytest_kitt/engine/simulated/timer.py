"""When does what is due really happen? The scheduler on the clock of the event loop, woken by one timer."""

import asyncio
import math

from pytest_kitt.engine.simulated.scheduler import Batch, Scheduler, Sequence


class Timer:
    """Hands the clock to the scheduler whenever something is due, and before anything arrives.

    Attributes:
        scheduler: what it drives.

    """

    def __init__(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        self.scheduler = Scheduler(batch)
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf

    def now(self) -> float:
        """In seconds of the server's clock."""
        return self._loop.time()

    def submit(self, sequence: Sequence, arrival: float) -> None:
        """Let a request in."""
        self.scheduler.submit(sequence, arrival)
        self.advance(arrival)

    def cancel(self, sequence: Sequence) -> None:
        """Give a request up, now."""
        try:
            self.scheduler.cancel(sequence, self.now())
        finally:
            self._arm()

    def advance(self, now: float) -> None:
        """Let happen what is due by then."""
        try:
            self.scheduler.advance(now)
        finally:
            self._arm()

    def _arm(self) -> None:
        due = self.scheduler.next_due
        if due >= self._wakes_at:  # to be woken too early costs less than to move the timer
            return
        if self._handle is not None:
            self._handle.cancel()
        self._wakes_at = due
        self._handle = self._loop.call_at(due, self._wake)

    def _wake(self) -> None:
        self._handle, self._wakes_at = None, math.inf
        self.advance(self.now())
