"""THE table of metrics: name, unit, direction, formula and the function that computes it.

Only measured requests that succeeded enter the distributions; failed ones are counted apart. Requests of the warm-up
and of the cool-down never enter, but their tokens that arrive inside the window count for ``output_tps``: they were
produced then, by the same load.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable, Collection
from operator import sub
from typing import Literal

from pytest_kitt.measure.records import Failure, Phase, Records, Request
from pytest_kitt.measure.stats import Distribution, Tally

Better = Literal["lower", "higher", "none"]
_MS = 1e-6
_S = 1e-9
_ENDED_WELL = (Failure.NONE, Failure.CANCELLED)
_MEASURED, _GOOD = Phase.MEASURED, Failure.NONE


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table.

    Attributes:
        name: how it is spelt everywhere, unit as suffix.
        unit: ms, tokens/s, requests/s, tokens, requests or share.
        better: which direction is an improvement.
        formula: as docs/terms.md prints it.
        value: for a distribution over requests, the value of one good request; None when it has none.
        gaps: a distribution over the gaps between the events of good requests.
        scalar: for a single number, the number of a whole load; None when it does not exist.

    """

    name: str
    unit: str
    better: Better
    formula: str
    value: Callable[[Request], float | None] | None = None
    gaps: bool = False
    scalar: Callable[[Records], float | None] | None = None


def _ttft(r: Request) -> float:
    return (r.event_ns[0] - r.send_ns) * _MS


def _ttfo(r: Request) -> float | None:
    return (r.event_ns[r.answer_event] - r.send_ns) * _MS if r.answer_event >= 0 else None


def _tpot(r: Request) -> float | None:
    if r.osl < 2 or len(r.event_ns) < 2:
        return None
    return (r.event_ns[-1] - r.event_ns[0]) * _MS / (r.osl - 1)


def _e2e(r: Request) -> float:
    return (r.event_ns[-1] - r.send_ns) * _MS


def _ntpot(r: Request) -> float | None:
    return _e2e(r) / r.osl if r.osl > 0 else None


def _e2e_from_schedule(r: Request) -> float:
    return (r.event_ns[-1] - r.planned_ns) * _MS


def _connect(r: Request) -> float | None:
    return r.connect_ns * _MS if r.connect_ns > 0 else None


def _isl(r: Request) -> float | None:
    return r.isl if r.isl >= 0 else None


def _osl(r: Request) -> float | None:
    return r.osl if r.osl >= 0 else None


def _tokens_per_event(r: Request) -> float | None:
    return r.osl / len(r.event_ns) if r.osl > 0 else None


def _prefill(r: Request) -> float | None:
    return r.prefill_ns * _MS if r.prefill_ns >= 0 else None


def _decode(r: Request) -> float | None:
    return r.decode_ns * _MS if r.decode_ns >= 0 else None


def is_good(phase: int, failure: int, events: int) -> bool:
    """Measured, successful, with at least one token."""
    return phase == _MEASURED and failure == _GOOD and events > 0


def good(records: Records) -> int:
    """Number of good requests."""
    return sum(map(is_good, records["phase"], records["failure"], records["events"]))


def window_ns(records: Records) -> tuple[int, int] | None:
    """From the first measured send to the last token of a good measured request; None when there is none."""
    columns = zip(*(records[name] for name in ("phase", "failure", "events", "send_ns", "last_ns")), strict=True)
    spans = [(send, last) for phase, failure, events, send, last in columns if is_good(phase, failure, events)]
    return (min(send for send, _ in spans), max(last for _, last in spans)) if spans else None


def _output_tps(records: Records) -> float | None:
    window = window_ns(records)
    if window is None or window[1] <= window[0]:
        return None
    return _tokens_inside(records, window) / ((window[1] - window[0]) * _S)


def _tokens_inside(records: Records, window: tuple[int, int]) -> float:
    """Tokens that arrived inside a window; an event is given osl / events of them."""
    tokens = 0.0
    names = ("phase", "failure", "osl", "events", "first_ns", "last_ns")
    straddles = False
    for phase, failure, osl, events, first, last in zip(*(records[name] for name in names), strict=True):
        if not _counts(phase, failure, events) or last < window[0] or first > window[1]:
            continue
        if first >= window[0] and last <= window[1]:
            tokens += osl if osl > 0 else events
        else:
            straddles = True
    if straddles:  # a look at their single events
        for r in records.rows():
            if _counts(r.phase, r.failure, len(r.event_ns)) and _straddles(r, window):
                inside = sum(window[0] <= at <= window[1] for at in r.event_ns)
                tokens += inside * (r.osl / len(r.event_ns) if r.osl > 0 else 1.0)
    return tokens


def _counts(phase: int, failure: int, events: int) -> bool:
    if phase == _MEASURED:
        return failure == _GOOD and events > 0
    return failure in _ENDED_WELL and events > 0


def _straddles(r: Request, window: tuple[int, int]) -> bool:
    first, last = r.event_ns[0], r.event_ns[-1]
    return first <= window[1] and last >= window[0] and not (first >= window[0] and last <= window[1])


def _input_tps(records: Records) -> float | None:
    window = window_ns(records)
    if window is None or window[1] <= window[0]:
        return None
    names = ("phase", "failure", "events", "isl")
    columns = zip(*(records[name] for name in names), strict=True)
    lengths = [isl for phase, failure, events, isl in columns if is_good(phase, failure, events)]
    return sum(lengths) / ((window[1] - window[0]) * _S) if min(lengths) >= 0 else None


def _request_rps(records: Records) -> float | None:
    window = window_ns(records)
    if window is None or window[1] <= window[0]:
        return None
    return good(records) / ((window[1] - window[0]) * _S)


def _requests_failed(records: Records) -> float | None:
    pairs = zip(records["phase"], records["failure"], strict=True)
    return sum(phase == _MEASURED and failure not in _ENDED_WELL for phase, failure in pairs)


def _length_finish(records: Records) -> float | None:
    columns = zip(*(records[name] for name in ("phase", "failure", "events", "length_finish")), strict=True)
    finishes = [length for phase, failure, events, length in columns if is_good(phase, failure, events)]
    return sum(finishes) / len(finishes) if finishes else None


METRICS: tuple[Metric, ...] = (
    Metric("ttft_ms", "ms", "lower", "first event with content, reasoning or tool-call text - send", value=_ttft),
    Metric("ttfo_ms", "ms", "lower", "first event with answer text - send", value=_ttfo),
    Metric("itl_ms", "ms", "lower", "gaps between successive token-bearing events (chunk-weighted)", gaps=True),
    Metric("tpot_ms", "ms", "lower", "(last event - first event) / (osl - 1), per request", value=_tpot),
    Metric("ntpot_ms", "ms", "lower", "e2e / osl, per request", value=_ntpot),
    Metric("e2e_ms", "ms", "lower", "last event - send", value=_e2e),
    Metric("e2e_from_schedule_ms", "ms", "lower", "last event - planned send", value=_e2e_from_schedule),
    Metric("connect_ms", "ms", "lower", "TCP and TLS set-up, of requests on a new connection", value=_connect),
    Metric("isl", "tokens", "none", "input tokens per request", value=_isl),
    Metric("osl", "tokens", "none", "output tokens per request", value=_osl),
    Metric("tokens_per_event", "tokens", "none", "osl / token-bearing events, per request", value=_tokens_per_event),
    Metric("engine_prefill_ms", "ms", "lower", "reading the prompt, as the engine itself says", value=_prefill),
    Metric("engine_decode_ms", "ms", "lower", "writing the answer, as the engine itself says", value=_decode),
    Metric("output_tps", "tokens/s", "higher", "tokens of all events inside the window / window", scalar=_output_tps),
    Metric("input_tps", "tokens/s", "higher", "input tokens of good requests / window", scalar=_input_tps),
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
OF_OUTPUT = frozenset(
    {
        *("ttft_ms", "ttfo_ms", "itl_ms", "tpot_ms", "ntpot_ms", "osl", "tokens_per_event"),
        *("engine_decode_ms", "output_tps", "length_finish_share"),
    }
)
"""Those that say something of the tokens of an answer."""


def distributions(records: Records, only: Collection[str] = BY_NAME) -> dict[str, Distribution]:
    """Every distribution over the good requests of a load, by the name of its metric; one pass over the records."""
    asked = [metric for metric in METRICS if metric.name in only]
    per_request = [(metric.value, array("d")) for metric in asked if metric.value]
    gaps = Tally()
    for r in records.rows():
        if not is_good(r.phase, r.failure, len(r.event_ns)):
            continue
        for compute, values in per_request:
            if (value := compute(r)) is not None:
                values.append(value)
        gaps.extend(map(sub, r.event_ns[1:], r.event_ns))
    names = [metric.name for metric in asked if metric.value]
    found = {
        name: Distribution(name, array("d", sorted(values)))
        for name, (_, values) in zip(names, per_request, strict=True)
    }
    return found | {metric.name: gaps.distribution(metric.name) for metric in asked if metric.gaps}
