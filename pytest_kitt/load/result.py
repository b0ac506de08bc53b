"""What did a load yield? Each metric by its name, with the statistics that the number of samples supports."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

from pytest_kitt.errors import InvalidMeasurement
from pytest_kitt.load.spec import Ending
from pytest_kitt.measure import metrics
from pytest_kitt.measure.records import Failure, Phase, RequestTable
from pytest_kitt.measure.results import Measurement
from pytest_kitt.measure.stats import Distribution, Statistic


class LoadResult:
    """The outcome of one load.

    ``result.ttft_ms.p99`` and its like are the table of metrics in docs/terms.md: distributions have ``mean``, ``std``,
    ``min``, ``max``, ``p50``, ``p90``, ``p95``, ``p99``, ``p999`` and ``n``; single numbers (``output_tps``,
    ``request_rps``, ...) are numbers. A statistic that too few samples support raises InvalidMeasurement.

    Attributes:
        records: one row per request, all phases.
        ending: what the client says of itself.
        params: load, workload, stop and API, as stored.

    """

    def __init__(self, records: RequestTable, ending: Ending, params: dict[str, Any]) -> None:
        self.records, self.ending, self.params = records, ending, params

    def __getattr__(self, name: str) -> Any:
        metric = metrics.BY_NAME.get(name)
        if metric is None:
            raise AttributeError(f"a load has no metric {name!r}; docs/terms.md lists them")
        if metric.values is not None:
            return self._distribution(name)
        return self._scalar(name)

    def __repr__(self) -> str:
        return f"<LoadResult {self.params} n={self.n} failed={self.failed}>"

    @property
    def n(self) -> int:
        """Good measured requests."""
        return sum(metrics.is_good(r) for r in self.records.rows())

    @property
    def failed(self) -> int:
        """Measured requests that failed."""
        return sum(self.failures.values())

    @functools.cached_property
    def failures(self) -> dict[str, int]:
        """Number of failed measured requests by reason, e.g. ``{"TIMEOUT": 3}``."""
        failed = (
            Failure(r.failure).name
            for r in self.records.rows()
            if r.phase == Phase.MEASURED and r.failure != Failure.NONE
        )
        return dict(Counter(failed))

    def require_samples(self) -> None:
        """InvalidMeasurement when not one measured request succeeded: nothing passes on no data."""
        if self.n:
            return
        reasons = ", ".join(f"{count} of {name}" for name, count in self.failures.items()) or self.ending.stopped
        details = "; ".join(f"{name}: {text}" for name, text in self.ending.details.items())
        raise InvalidMeasurement(
            f"no request succeeded ({reasons or 'none was sent'}){'; ' if details else ''}{details}"
        )

    def measurements(self) -> tuple[Measurement, ...]:
        """Every number that this load supports, for the store and the reports."""
        found: list[Measurement] = []
        for metric in metrics.METRICS:
            if metric.values is not None:
                values = self._distribution(metric.name)
                for stat, value in values.summary().items():
                    found.append(Measurement(metric.name, stat, value, metric.unit, metric.better, values.n))
            elif (number := self._scalar(metric.name)) is not None:
                found.append(Measurement(metric.name, "value", float(number), metric.unit, metric.better, number.n))
        return tuple(found)

    @functools.cache  # noqa: B019 - results live as long as their test
    def _distribution(self, name: str) -> Distribution:
        return metrics.distribution(metrics.BY_NAME[name], self.records)

    @functools.cache  # noqa: B019 - results live as long as their test
    def _scalar(self, name: str) -> Statistic | None:
        compute = metrics.BY_NAME[name].scalar
        value = compute(self.records) if compute else None
        return None if value is None else Statistic(value, name=name, n=max(1, self.n))
