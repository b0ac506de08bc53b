"""Does the pace find how many requests a server takes? Scripted servers on a scripted clock, no time passes."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from itertools import pairwise

import pytest

from pytest_kitt.load.client.pace import MIN_ANSWERS, PATIENT, REST_NS, Pace

Service = Callable[[int, random.Random], float]
S = 1_000_000_000
WAIT_S = 0.5  # until what was refused is sent again


class Script:
    """A closed loop on a server, both made up.

    Attributes:
        levels: (seconds, answers that had ended, slots) at each change of the slots.
        refused: how many requests were.
        most_at_once: requests that the server had at a time.

    """

    def __init__(self, pace: Pace, service: Service, *, workers: int = 0, takes: int = 0, seed: int = 1) -> None:
        """``service`` says how long an answer takes beside so many others; ``workers`` answer at a time, 0 for all.

        More than it ``takes`` at a time are refused, 0 for none.
        """
        self.pace, self._service, self._workers, self._takes = pace, service, workers, takes
        self._draw = random.Random(seed)
        self._ends: list[float] = []
        self._waiting: list[float] = []
        self._queue: deque[float] = deque()
        self._now, self._sent = 0.0, 0
        self.ended = self.refused = self.most_at_once = 0
        self.levels = [(0.0, 0, pace.slots)]

    @property
    def under_way(self) -> int:
        """Requests that the server has."""
        return len(self._ends) + len(self._queue)

    @property
    def now_ns(self) -> int:
        """The time."""
        return round(self._now * S)

    def until(self, *, answers: int = 0, seconds: float = float("inf")) -> Script:
        """Goes on until so many have ended, or for so long."""
        while self._now < seconds and (not answers or self.ended < answers):
            while self.under_way + len(self._waiting) < self.pace.slots:
                self._send()
            self._next()
            self.pace.look(self.now_ns, self.ended, full=not self._waiting)
            self._note()
        return self

    def _next(self) -> None:
        due = self._waiting[0] if self._waiting and self.under_way < self.pace.slots else float("inf")
        if self._ends and self._ends[0] <= due:
            self._now = heapq.heappop(self._ends)
            self.ended += 1
            if self._queue:
                self._queue.popleft()
                self._start()
        else:
            self._now = max(self._now, heapq.heappop(self._waiting))
            self._send()

    def _send(self) -> None:
        if self._takes and self.under_way >= self._takes:
            self.refused += 1
            heapq.heappush(self._waiting, self._now + WAIT_S)
            self.pace.refuse(self.now_ns, self.now_ns)
            self._note()
        elif self._workers and len(self._ends) >= self._workers:
            self._queue.append(self._now)
        else:
            self._start()
        self.most_at_once = max(self.most_at_once, self.under_way)

    def _start(self) -> None:
        heapq.heappush(self._ends, self._now + self._service(len(self._ends) + 1, self._draw))

    def _note(self) -> None:
        if self.levels[-1][2] != self.pace.slots:
            self.levels.append((self._now, self.ended, self.pace.slots))


def constant(seconds: float) -> Service:
    """Each answer takes as long."""
    return lambda _, __: seconds


def noisy(seconds: float) -> Service:
    """As random as they come: exponential."""
    return lambda _, draw: draw.expovariate(1 / seconds)


def paced(first: int = 8, most: int = 256, limit_s: float = 120.0) -> Pace:
    """As evaluations have it."""
    return Pace(first, most, limit_s=limit_s, begun_ns=0)


@pytest.mark.parametrize("seconds", [0.005, 0.02, 1.0, 30.0])
def test_a_server_without_a_bound_gets_the_most_soon(seconds: float) -> None:
    """Of 10,000 questions few are asked before it does; the time until then is that of some answers."""
    script = Script(paced(), constant(seconds)).until(answers=10_000)
    assert [slots for _, _, slots in script.levels] == [8, 16, 32, 64, 128, 256]
    at_s, ended, _ = script.levels[-1]
    assert at_s <= max(0.65, 6.5 * seconds)
    assert ended <= max(1500, 250 * 0.1 / seconds)


@pytest.mark.parametrize("first, most", [(1, 1), (1, 7), (5, 100), (256, 256), (8, 9)])
def test_any_first_and_most(first: int, most: int) -> None:
    """Never more than the most, which is reached; never fewer than the first."""
    script = Script(paced(first, most), constant(0.02)).until(answers=5000)
    slots = [slots for _, _, slots in script.levels]
    assert (slots[0], slots[-1], max(slots)) == (first, most, most)
    assert slots == sorted(slots)


@pytest.mark.parametrize("workers", [1, 3, 8, 10, 15, 16, 40, 100, 200])
@pytest.mark.parametrize("service", [constant(0.02), noisy(0.02)], ids=["constant", "noisy"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_server_with_a_bound(workers: int, service: Service, seed: int) -> None:
    """Enough slots for all of its workers, or nearly, and no more than two steps beyond; from eight on one."""
    script = Script(paced(), service, workers=workers, seed=seed).until(answers=10_000, seconds=25)
    assert 0.7 * min(workers, 256) <= script.pace.found <= max(16, 4 * workers)
    assert len(script.levels) <= 10


def test_a_server_that_batches() -> None:
    """Each answer takes longer beside others: slots grow as long as all together end faster."""

    def service(beside: int, draw: random.Random) -> float:
        return 0.02 * (1 + beside / 20) * draw.uniform(0.8, 1.2)

    # answers per second with n slots: 50 n / (1 + n / 20); 64 give 1.31 times what 32 give less 7 %, 256 hardly more
    script = Script(paced(), service).until(answers=10_000)
    assert script.pace.found in (64, 128)


def test_a_server_that_collapses() -> None:
    """Beyond 20 requests it becomes slower than it was: the step is taken back."""

    def service(beside: int, draw: random.Random) -> float:
        return 0.02 * max(1.0, (beside / 20) ** 2) * draw.uniform(0.8, 1.2)

    script = Script(paced(), service).until(answers=5000)
    assert script.pace.found == 16
    tried, back = script.levels[-2:]
    assert (tried[2], back[2]) == (32, 16)
    assert back[1] - tried[1] <= PATIENT * 32


def test_a_cold_server_is_not_taken_for_a_slow_one() -> None:
    """The first answers take 5 s, all others 20 ms."""
    begun = iter(range(10**9))
    script = Script(paced(), lambda _, __: 5.0 if next(begun) < 8 else 0.02).until(answers=10_000)
    assert script.pace.found == 256


def test_what_brought_nothing_is_tried_again_ever_more_rarely() -> None:
    """No oscillation: over an hour few of the requests go out with slots that bring nothing."""
    script = Script(paced(), constant(0.05), workers=8).until(seconds=3600)
    tries = [at for at, _, slots in script.levels if slots == 16]
    assert tries[0] < 1
    assert 4 <= len(tries) <= 8
    gaps = [b - a for a, b in pairwise(tries)]
    assert all(b > 1.8 * a for a, b in pairwise(gaps))
    assert gaps[0] >= REST_NS / S
    levels = [*script.levels, (3600.0, 0, 0)]
    above = sum(b[0] - a[0] for a, b in pairwise(levels) if a[2] > 8)
    assert above < 5


def test_a_server_that_has_got_room_is_found_out_later() -> None:
    """Others had its workers at first."""
    script = Script(paced(), constant(0.02), workers=8).until(seconds=10)
    assert script.pace.found <= 16
    script._workers = 64
    script.until(seconds=60)
    assert 64 <= script.pace.found <= 128


@pytest.mark.parametrize("takes", [1, 2, 5, 8, 10, 12, 15, 16, 50, 100, 255])
def test_a_server_that_refuses(takes: int) -> None:
    """The slots settle at or below what it takes, above half of it, after few refusals."""
    script = Script(paced(), constant(0.05), takes=takes).until(seconds=20)
    assert takes / 2 < script.pace.slots <= takes
    assert script.pace.slots == script.pace.found
    assert script.most_at_once <= takes
    assert script.refused <= 2 * max(8, takes) + 8
    assert script.levels[-1][0] < 8


def test_refusals_of_one_moment_halve_once() -> None:
    """And those of requests that were sent before the slots were fewer say nothing new."""
    pace = paced(64)
    assert pace.refuse(2 * S, 1 * S) == 32
    assert {pace.refuse(2 * S + 5, 1 * S + n) for n in range(30)} == {32}
    assert pace.refuse(3 * S, 2 * S + 1) == 16
    for n in range(10):
        pace.refuse((4 + n) * S, (4 + n) * S)
    assert (pace.slots, pace.found) == (1, 1)


def test_what_was_refused_is_tried_again_after_a_rest() -> None:
    """It may have been somebody else's load."""
    script = Script(paced(), constant(0.05), takes=8).until(seconds=20)
    script._takes = 0
    assert script.pace.slots == 8
    script.until(seconds=120)
    assert script.pace.slots == 256


def test_nothing_is_learnt_while_slots_are_not_in_use() -> None:
    """A window in which requests waited, or none was left to be sent, is none."""
    pace = paced()
    for n in range(1, 100):
        assert pace.look(n * S, 100 * n, full=False) == 8
    assert pace.look(200 * S, 9900) == 8  # all slots are in use again: the window begins with the next answer
    assert pace.look(300 * S, 9901) == 8
    assert pace.look(301 * S, 9909) == 8
    assert pace.look(302 * S, 9917) == 16


def test_a_window_holds_enough_answers_and_takes_some_time() -> None:
    """Neither a burst nor a single answer is a rate."""
    pace = paced(8)
    assert pace.look(1_000_000, 1000) == 8  # a millisecond
    fresh = paced(8)
    assert fresh.look(1 * S, MIN_ANSWERS - 1) == 8
    assert fresh.look(2 * S, MIN_ANSWERS) == 16


def test_slow_answers_get_no_more_slots_than_their_limit_allows() -> None:
    """Eight workers that take 50 s each: sixteen at a time would take 100 s of the 120 that a request has."""
    script = Script(paced(limit_s=120), constant(50), workers=8).until(answers=200)
    assert script.most_at_once == 8
    quicker = Script(paced(limit_s=400), constant(50), workers=8).until(answers=200)
    assert quicker.most_at_once == 16
