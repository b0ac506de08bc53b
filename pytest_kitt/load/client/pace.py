"""How many requests at a time does the server take? Found while they are sent, by how fast answers end.

Twice as many slots are tried as long as each step brings more answers per second. A step that brings too little is
taken back, and tried again much later, each time after twice the wait, as the engine may have been cold or have had
others to serve. A server that refuses a request has too many: the step is taken back, or, where there was none, the
slots are halved; what lies between is found by halving the distance.

Answers are counted over windows that begin with a change, or else with the end of an answer, and hold as many of them
as there are slots. In a closed loop that is the time in which all that was under way has ended: what was sent before
the change and what was sent after it both count as they should. Where answers come in bursts, a window may end within
one and look too poor by the rest of it, so a step is only given up after four times as many.
"""

from __future__ import annotations

MIN_GAIN = 0.15
"""Of what a step brings at best: twice the slots must give 1.15 times the answers per second."""
MIN_ANSWERS = 16
"""In a window: fewer say nothing about a rate."""
MIN_WINDOW_NS = 100_000_000
"""Likewise."""
PATIENT = 4
"""So many times the answers before a step is given up."""
REST_NS = 30_000_000_000
"""The shortest time after which a step is tried again, ..."""
REST_WINDOWS = 16
"""... and so many times what it took to see that it brings nothing."""


class Pace:
    """The slots of an adaptive loop.

    Attributes:
        slots: requests that may be under way now.
        found: the most of which is known that they bring something; those in the beginning before anything is known.

    """

    def __init__(self, first: int, most: int, *, limit_s: float, begun_ns: int) -> None:
        """From ``first`` slots, on which requests are sent at ``begun_ns``, to ``most``.

        ``limit_s`` is how long a request may take: a step is not tried where it would make answers take half of that,
        if it brought nothing.
        """
        self.slots = self.found = first
        self._most, self._limit_s = most, limit_s
        self._refused = most + 1  # least number of slots at which a request was
        self._rate = 0.0  # answers per second with ``found`` slots
        self._changed_ns = begun_ns
        self._enough = max(first, MIN_ANSWERS)  # answers until the window is looked at
        self._since_ns, self._since = begun_ns, 0  # the window: its begin, how many had ended; -1 for none
        self._seen = 0  # answers that had ended at the last look
        self._rests_until = self._rests = 0

    def look(self, now_ns: int, ended: int, *, full: bool = True) -> int:
        """Takes how many answers have ended so far; how many slots there are from now on.

        ``full`` says whether all slots are in use: without, nothing can be learnt of them.
        """
        seen, self._seen = self._seen, ended
        if not full:
            self._since = -1
        elif self._since < 0 and ended > seen:
            self._since_ns, self._since = now_ns, ended
        if self._since < 0:
            return self.slots
        answers, span_ns = ended - self._since, now_ns - self._since_ns
        if answers < self._enough or span_ns < MIN_WINDOW_NS:
            return self.slots
        rate = answers * 1e9 / span_ns
        if self.slots <= self.found:
            self._learn(now_ns, ended, rate)
        elif rate >= self._rate * (1 + MIN_GAIN * (self.slots / self.found - 1)):
            self.found = self.slots
            self._learn(now_ns, ended, rate)
        elif self._enough < self._patient:
            self._enough = self._patient
        else:
            self._rest(now_ns, span_ns)
            self._change(self.found, now_ns, ended)
        return self.slots

    def refuse(self, now_ns: int, sent_ns: int) -> int:
        """Takes that a request was refused that was sent at a time; how many slots there are from now on.

        Several are refused at once when there are too many: those that were sent before the last change say nothing.
        """
        if sent_ns >= self._changed_ns:
            self._refused = min(self._refused, self.slots)
            if self.slots <= self.found:
                self.found = max(1, self.slots // 2)
            self._change(self.found, now_ns, -1)
        return self.slots

    @property
    def _patient(self) -> int:
        return PATIENT * max(self.slots, MIN_ANSWERS)

    def _learn(self, now_ns: int, ended: int, rate: float) -> None:
        """Takes the rate of the slots that were found, and goes on from there where it is time to."""
        self._rate = rate
        self._since_ns, self._since, self._enough = now_ns, ended, max(self.found, MIN_ANSWERS)
        if now_ns < self._rests_until:
            return
        refused = self._refused <= self._most
        further = (self.found + self._refused) // 2 if refused else 2 * self.found
        step = min(further, self._most, int(rate * self._limit_s / 2))
        if step >= self.found + max(1, self.found // 4) or step == self._most > self.found:
            self._change(step, now_ns, ended)
        elif refused:
            self._rest(now_ns, 0)

    def _rest(self, now_ns: int, span_ns: int) -> None:
        """Stays for long, and forgets then what was refused: it may have been somebody else's load."""
        self._rests_until = now_ns + max(REST_NS, REST_WINDOWS * span_ns) * 2**self._rests
        self._rests += 1
        self._refused = self._most + 1

    def _change(self, slots: int, now_ns: int, ended: int) -> None:
        self.slots, self._changed_ns = slots, now_ns
        self._enough = max(slots, MIN_ANSWERS)
        self._since_ns, self._since = now_ns, ended
