"""THE table of metrics: name, unit, direction, formula and the function that computes it.

Only measured requests that succeeded enter the distributions; failed ones are counted apart. Requests of the warm-up
and of the cool-down never enter, but their tokens that arrive inside the window count for ``output_tps``: they were
produced then, by the same load.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

from pytest_kitt.measure.records import Failure, Phase, Request, RequestTable
from pytest_kitt.measure.stats import Distribution

Better = Literal["lower", "higher", "none"]
_MS = 1e-6
_S = 1e-9
_ENDED_WELL = (Failure.NONE, Failure.CANCELLED)


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table.

    Attributes:
        name: how it is spelt everywhere, unit as suffix.
        unit: ms, tokens/s, requests/s, tokens, requests or share.
        better: which direction is an improvement.
        formula: as docs/terms.md prints it.
        values: for a distribution, the values of one good request.
        scalar: for a single number, the number of a whole load; None when it does not exist.

    """

    name: str
    unit: str
    better: Better
    formula: str
    values: Callable[[Request], Iterator[float]] | None = None
    scalar: Callable[[RequestTable], float | None] | None = None


def _ttft(r: Request) -> Iterator[float]:
    if r.event_ns:
        yield (r.event_ns[0] - r.send_ns) * _MS


def _ttfo(r: Request) -> Iterator[float]:
    if r.answer_event >= 0:
        yield (r.event_ns[r.answer_event] - r.send_ns) * _MS


def _itl(r: Request) -> Iterator[float]:
    for before, after in zip(r.event_ns, r.event_ns[1:], strict=False):
        yield (after - before) * _MS


def _tpot(r: Request) -> Iterator[float]:
    if r.osl > 1 and len(r.event_ns) > 1:
        yield (r.event_ns[-1] - r.event_ns[0]) * _MS / (r.osl - 1)


def _e2e(r: Request) -> Iterator[float]:
    if r.event_ns:
        yield (r.event_ns[-1] - r.send_ns) * _MS


def _ntpot(r: Request) -> Iterator[float]:
    if r.osl > 0 and r.event_ns:
        yield (r.event_ns[-1] - r.send_ns) * _MS / r.osl


def _e2e_from_schedule(r: Request) -> Iterator[float]:
    if r.event_ns:
        yield (r.event_ns[-1] - r.planned_ns) * _MS


def _connect(r: Request) -> Iterator[float]:
    if r.connect_ns > 0:
        yield r.connect_ns * _MS


def _isl(r: Request) -> Iterator[float]:
    if r.isl >= 0:
        yield r.isl


def _osl(r: Request) -> Iterator[float]:
    if r.osl >= 0:
        yield r.osl


def window_ns(table: RequestTable) -> tuple[int, int] | None:
    """From the first measured send to the last token of a good measured request; None when there is none."""
    sends, lasts = [], []
    for r in table.rows():
        if is_good(r):
            sends.append(r.send_ns)
            lasts.append(r.event_ns[-1])
    return (min(sends), max(lasts)) if sends else None


def is_good(r: Request) -> bool:
    """Measured, successful, with at least one token."""
    return r.phase == Phase.MEASURED and r.failure == Failure.NONE and len(r.event_ns) > 0


def _output_tps(table: RequestTable) -> float | None:
    window = window_ns(table)
    if window is None or window[1] <= window[0]:
        return None
    tokens = 0.0
    for r in table.rows():
        if not r.event_ns or not (is_good(r) or (r.phase != Phase.MEASURED and r.failure in _ENDED_WELL)):
            continue
        inside = sum(window[0] <= at <= window[1] for at in r.event_ns)
        per_event = r.osl / len(r.event_ns) if r.osl > 0 else 1.0
        tokens += inside * per_event
    return tokens / ((window[1] - window[0]) * _S)


def _request_rps(table: RequestTable) -> float | None:
    window = window_ns(table)
    if window is None or window[1] <= window[0]:
        return None
    return sum(is_good(r) for r in table.rows()) / ((window[1] - window[0]) * _S)


def _requests_failed(table: RequestTable) -> float | None:
    return sum(r.phase == Phase.MEASURED and r.failure != Failure.NONE for r in table.rows())


def _length_finish(table: RequestTable) -> float | None:
    good = [r for r in table.rows() if is_good(r)]
    return sum(r.length_finish for r in good) / len(good) if good else None


METRICS: tuple[Metric, ...] = (
    Metric("ttft_ms", "ms", "lower", "first event with content, reasoning or tool-call text - send", values=_ttft),
    Metric("ttfo_ms", "ms", "lower", "first event with answer text - send", values=_ttfo),
    Metric("itl_ms", "ms", "lower", "gaps between successive token-bearing events (chunk-weighted)", values=_itl),
    Metric("tpot_ms", "ms", "lower", "(last event - first event) / (osl - 1), per request", values=_tpot),
    Metric("ntpot_ms", "ms", "lower", "e2e / osl, per request", values=_ntpot),
    Metric("e2e_ms", "ms", "lower", "last event - send", values=_e2e),
    Metric("e2e_from_schedule_ms", "ms", "lower", "last event - planned send", values=_e2e_from_schedule),
    Metric("connect_ms", "ms", "lower", "TCP and TLS set-up, of requests on a new connection", values=_connect),
    Metric("isl", "tokens", "none", "input tokens per request", values=_isl),
    Metric("osl", "tokens", "none", "output tokens per request", values=_osl),
    Metric("output_tps", "tokens/s", "higher", "tokens of all events inside the window / window", scalar=_output_tps),
    Metric("request_rps", "requests/s", "higher", "good requests / window", scalar=_request_rps),
    Metric("requests_failed", "requests", "lower", "measured requests that failed", scalar=_requests_failed),
    Metric(
        "length_finish_share",
        "share",
        "none",
        "good requests that stopped at the length limit / good requests",
        scalar=_length_finish,
    ),
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


def distribution(metric: Metric, table: RequestTable) -> Distribution:
    """The values of a metric over the good requests of a load."""
    assert metric.values is not None
    values = (value for r in table.rows() if is_good(r) for value in metric.values(r))
    return Distribution(metric.name, sorted(values))
