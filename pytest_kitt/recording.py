"""What did one item measure? Collected while it runs, handed over when it ends."""

from __future__ import annotations

import dataclasses
import datetime
import math
import time
from collections.abc import Iterable
from typing import Any

import pytest

from pytest_kitt.errors import UserError
from pytest_kitt.measure.results import Block, Measurement

KEY = pytest.StashKey["Recording"]()


def now_utc() -> str:
    """The time as ISO-8601 in UTC, to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclasses.dataclass(slots=True)
class Recording:
    """The numbers and samples of one item so far.

    Attributes:
        metrics: in order.
        blocks: raw samples.
        params: load level, workload and the like.
        loads: labels of the loads so far; the first has none.

    """

    metrics: list[Measurement] = dataclasses.field(default_factory=list)
    blocks: list[Block] = dataclasses.field(default_factory=list)
    params: dict[str, Any] = dataclasses.field(default_factory=dict)
    loads: list[str] = dataclasses.field(default_factory=list)
    started_at: str = dataclasses.field(default_factory=now_utc)
    _begun: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def duration_s(self) -> float:
        """Seconds since the item began."""
        return time.monotonic() - self._begun

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


def of(item: pytest.Item) -> Recording:
    """The recording of an item, new when it has none."""
    return item.stash.setdefault(KEY, Recording())
