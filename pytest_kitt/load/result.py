"""What did a load yield? Each metric by its name, with the statistics that the number of samples supports."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

from pytest_kitt.errors import InvalidMeasurement, UnknownName, nearest
from pytest_kitt.load.certificate import Certificate
from pytest_kitt.load.spec import Ending
from pytest_kitt.measure import metrics
from pytest_kitt.measure.records import Failure, Phase, Records
from pytest_kitt.measure.results import Measurement
from pytest_kitt.measure.stats import Distribution, Statistic


class LoadResult:
    """The outcome of one load.

    ``result.ttft_ms.p99`` and its like are the table of metrics in docs/terms.md: distributions have ``mean``, ``std``,
    ``min``, ``max``, ``p50``, ``p90``, ``p95``, ``p99``, ``p999`` and ``n``; single numbers (``output_tps``,
    ``request_rps``, ...) are numbers. A statistic that too few samples support raises InvalidMeasurement.

    Attributes:
        records: all requests, of all phases; ``records.rows()`` gives one ``Request`` each.
        ending: what the clients say of themselves.
        certificate: whether they applied the load that was asked for.
        params: load, workload, stop and API, as stored.
        bundled: tokens that came together were accepted: there is no ``itl_ms``.
        whole: answers came in one piece, and were asked for something else than their tokens: there are no metrics of
            output tokens.
        began_ns: what ``time.perf_counter_ns()`` was when the clock of the records was 0.

    """

    def __init__(
        self,
        records: Records,
        ending: Ending,
        certificate: Certificate,
        params: dict[str, Any],
        *,
        bundled: bool = False,
        whole: bool = False,
        began_ns: int = 0,
    ) -> None:
        self.records, self.ending, self.certificate, self.params = records, ending, certificate, params
        self.bundled, self.whole, self.began_ns = bundled, whole, began_ns

    def __getattr__(self, name: str) -> Any:
        metric = metrics.BY_NAME.get(name)
        if metric is None:
            if name.startswith("_"):
                raise AttributeError(name)
            raise UnknownName(f"a load has no metric {name!r}; {nearest(name, metrics.BY_NAME)}")
        if self.whole and name in metrics.OF_OUTPUT:
            raise InvalidMeasurement(f"{name}: the answers came in one piece; compare e2e_ms instead")
        if metric.scalar is not None:
            return self._scalar(name)
        if metric.gaps and self.bundled:
            raise InvalidMeasurement(f"{name}: the server sends tokens together; compare tpot_ms instead")
        return self._distributions[name]

    def __repr__(self) -> str:
        return f"<LoadResult {self.params.get('load', '')} n={self.n} failed={self.failed}>"

    @functools.cached_property
    def n(self) -> int:
        """Good measured requests."""
        return metrics.good(self.records)

    @property
    def failed(self) -> int:
        """Measured requests that failed; those that the end of the load cancelled did not."""
        return sum(self.failures.values())

    @functools.cached_property
    def failures(self) -> dict[str, int]:
        """Number of failed measured requests by reason, e.g. ``{"TIMEOUT": 3}``."""
        pairs = zip(self.records["phase"], self.records["failure"], strict=True)
        found = Counter(f for phase, f in pairs if phase == Phase.MEASURED)
        return {Failure(f).name: n for f, n in found.items() if f not in (Failure.NONE, Failure.CANCELLED)}

    @property
    def failure_text(self) -> str:
        """How many of the measured requests failed, with what, and the first explanation of each kind."""
        kinds = ", ".join(f"{count} of {name}" for name, count in self.failures.items()) or "none"
        details = "".join(f"; {name}: {text}" for name, text in self.ending.details.items())
        return f"{self.failed} of {self.failed + self.n} requests failed ({kinds}){details}"

    def ended_ns(self) -> list[int]:
        """When each request ended, of all phases, as ``time.perf_counter_ns()`` of this process counts."""
        return sorted(self.began_ns + end for end in self.records["end_ns"] if end >= 0)

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
            if self.whole and metric.name in metrics.OF_OUTPUT:
                continue
            if metric.scalar is not None:
                number = self._scalar(metric.name)
                if number is not None:
                    found.append(Measurement(metric.name, "value", float(number), metric.unit, metric.better, number.n))
            elif not (metric.gaps and self.bundled):
                values = self._distributions[metric.name]
                for stat, value in values.summary().items():
                    found.append(Measurement(metric.name, stat, value, metric.unit, metric.better, values.n))
        return tuple(found)

    @functools.cached_property
    def _distributions(self) -> dict[str, Distribution]:
        return metrics.distributions(self.records)

    @functools.cache  # noqa: B019 - results live as long as their test
    def _scalar(self, name: str) -> Statistic | None:
        compute = metrics.BY_NAME[name].scalar
        value = compute(self.records) if compute else None
        return None if value is None else Statistic(value, name=name, n=max(1, self.n))
