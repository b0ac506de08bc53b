"""What did one item measure? Collected while it runs, handed over when it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from pytest_kitt.errors import UserError
from pytest_kitt.measure.results import Measurement

KEY = pytest.StashKey["Recording"]()


def now_utc() -> str:
    """The time as ISO-8601 in UTC, to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclasses.dataclass(slots=True)
class Recording:
    """The numbers of one item so far; its raw samples are on their way.

    Attributes:
        key: of the result that it becomes.
        metrics: in order.
        params: load level, workload and the like.
        loads: labels of the loads so far; the first has none.
        blocks: how many blocks of request records the loads have sent so far: each load says which are its own.
        attempt: more than 1 when the item is run again.

    """

    key: str = ""
    metrics: list[Measurement] = dataclasses.field(default_factory=list)
    params: dict[str, Any] = dataclasses.field(default_factory=dict)
    loads: list[str] = dataclasses.field(default_factory=list)
    blocks: int = 0
    attempt: int = 1
    started_at: str = dataclasses.field(default_factory=now_utc)
    _begun: float = dataclasses.field(default_factory=time.monotonic)
    _ended: float | None = None

    @property
    def duration_s(self) -> float:
        """Seconds from the beginning of the item to its end, or until now."""
        return (self._ended or time.monotonic()) - self._begun

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is waited in here, for a device that another has, is no part of the item's time."""
        since = time.monotonic()
        try:
            yield
        finally:
            self._begun += time.monotonic() - since

    def end(self) -> None:
        """Stops the clock: what a plugin waits before it runs the item again is no part of it."""
        self._ended = time.monotonic()

    def add(self, measurements: Iterable[Measurement]) -> None:
        """Records numbers; UserError for one that is no number, rests on nothing, or has the name of an earlier one."""
        for new in measurements:
            if not math.isfinite(new.value):
                raise UserError(f"metric {new.key}: {new.value} is no number")
            if new.n < 1:
                raise UserError(f"metric {new.key}: n={new.n}: a number rests on at least one sample")
            if any(new.key == old.key for old in self.metrics):
                raise UserError(f"metric {new.key} was recorded before in this test; give it another name or stat")
            self.metrics.append(new)


def begin(item: pytest.Item, key: str, attempt: int) -> Recording:
    """A new recording for an attempt at an item; what an earlier one told JUnit is forgotten."""
    item.user_properties[:] = [pair for pair in item.user_properties if not pair[0].startswith("kitt.")]
    item.stash[KEY] = Recording(key, attempt=attempt)
    return item.stash[KEY]


def of(item: pytest.Item) -> Recording:
    """The recording of an item, new when it has none."""
    return item.stash.setdefault(KEY, Recording())
