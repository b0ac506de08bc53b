"""Did the client apply the load that it claims, and see what came back in time? The bounds are all here.

A broken bound makes the measurement invalid: the numbers would be about the client, or about nothing.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence
from typing import Any

from pytest_kitt.load.spec import Arrivals, Closed, Ending, Load
from pytest_kitt.measure.metrics import good, window_ns
from pytest_kitt.measure.records import Failure, Phase, Records
from pytest_kitt.measure.stats import percentile

MAX_LAG_P99_MS = 10.0
"""Between when a request was due and when it was sent: engines answer in tens of milliseconds."""
MAX_LAG_MS = 1000.0
"""Likewise, of the worst single request."""
MAX_RATE_ERROR = 0.02
"""Of an open loop: how far the pace of the sending may be from that of the schedule."""
MIN_IN_FLIGHT = 0.9
"""Of a closed loop: requests under way over requests asked for, on average while it measured."""
MAX_CPU = 0.95
"""CPU seconds of the busiest client over seconds: beyond it the client is what was measured."""
BUSY_CPU = 0.8
"""Beyond it the client's own work is taken for the cause of what else is wrong."""
MAX_LATE_READS = 0.05
"""Reads whose bytes had waited for more than 5 ms in the socket, by the kernel's stamps."""
MAX_MERGED = 0.005
"""Gaps between tokens that are 0 because one read brought both: beyond it percentiles of the ITL are wrong."""
SHORT_ITL_MS = 2.0
"""A merged token is off by about one gap: where gaps are shorter than this on average, by little ..."""
MAX_MERGED_SHORT = 0.1
"""... and more of them may be."""
MAX_BUNDLED = 0.05
"""Gaps that are 0 because the server sent both tokens in one chunk: beyond it the ITL says little."""
MAX_DRIFT_MS = 1.0
"""Change of the wall clock, which the kernel stamps with, against the steady one between two readings."""
MAX_COUNT_DISAGREEMENT = 0.05
"""Tokens by the server's usage against token-bearing events."""
MAX_TOKENIZER_DISAGREEMENT = 0.3
"""Tokens by usage against the engine's tokenizer over the same text: a text has more than one way into tokens."""
MAX_PROMPT_SHORTFALL = 0.1
"""Prompt tokens that the server did not count."""
MIN_REQUESTS = 10
"""Fewer say nothing about a rate or a share."""
MIN_SPAN_S = 0.2
"""Neither does a shorter time."""

_BUNDLED = "--kitt-bundled (kitt_load(..., bundled=True) in a test of your own)"
_MEASURED, _GOOD = Phase.MEASURED, Failure.NONE


@dataclasses.dataclass(frozen=True, slots=True)
class Certificate:
    """What a load's clients can prove of themselves.

    Attributes:
        clock: kernel or user: who read the time of arrival.
        lag_p50_ms: median time between when a request was due and when it was sent, connecting not counted.
        lag_p99_ms: its 99th percentile.
        lag_max_ms: its maximum.
        rate_asked_rps: pace of the schedule between its first and last measured request; 0 for any closed loop.
        rate_sent_rps: pace at which they were sent.
        in_flight_target: requests under way that were asked for; 0 for an open loop and an adaptive one.
        in_flight_mean: requests under way on average while it was measured.
        cpu_share: CPU seconds over seconds of the busiest client.
        stall_ms: longest time without a look at the sockets.
        late_reads_share: reads whose bytes had waited for more than 5 ms.
        merged_share: gaps that are 0 because one read brought two tokens in chunks of their own.
        bundled_share: gaps that are 0 because two tokens came in one chunk.
        connections_failed: requests whose connection failed.
        local_errors: of those and of the first ones, how many for want of something on this machine.
        resent: requests that were sent again on a new connection.
        retried: requests that were sent again because the server did not take them.
        clock_drift_ms: largest change of the wall clock.
        broken: which bounds do not hold, one sentence each.
        cure: what to do about it, empty when all of them hold.

    """

    clock: str
    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    rate_asked_rps: float
    rate_sent_rps: float
    in_flight_target: int
    in_flight_mean: float
    cpu_share: float
    stall_ms: float
    late_reads_share: float
    merged_share: float
    bundled_share: float
    connections_failed: int
    local_errors: int
    resent: int
    clock_drift_ms: float
    retried: int = 0
    broken: tuple[str, ...] = ()
    cure: str = ""

    @property
    def holds(self) -> bool:
        """Whether every bound holds."""
        return not self.broken

    def as_params(self) -> dict[str, Any]:
        """Plain values for the store, rounded to what they mean."""
        fields = dataclasses.asdict(self)
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in fields.items()} | {
            "broken": list(self.broken)
        }


def certify(
    records: Records, load: Load, endings: Sequence[Ending], *, held: bool, bundled: bool = False
) -> Certificate:
    """Looks at a load that has ended; ``bundled`` accepts tokens that come together."""
    lags = _lags_ms(records)
    asked, sent, span_s = _pace(records) if isinstance(load, Arrivals) else (0.0, 0.0, 0.0)
    target = load.concurrency if isinstance(load, Closed) else 0
    reads, gaps = sum(ending.reads for ending in endings), _gaps(records)
    found = Certificate(
        clock="kernel" if all(ending.clock == "kernel" for ending in endings) else "user",
        lag_p50_ms=percentile(lags, 0.5) if lags else 0.0,
        lag_p99_ms=percentile(lags, 0.99) if lags else 0.0,
        lag_max_ms=lags[-1] if lags else 0.0,
        rate_asked_rps=asked,
        rate_sent_rps=sent,
        in_flight_target=target,
        in_flight_mean=_in_flight(records, target, held=held),
        cpu_share=max(ending.cpu_s / max(ending.wall_s, 1e-9) for ending in endings),
        stall_ms=max(ending.stall_ms for ending in endings),
        late_reads_share=sum(ending.late_reads for ending in endings) / max(1, reads),
        merged_share=sum(ending.merged for ending in endings) / max(1, gaps),
        bundled_share=sum(ending.bundled for ending in endings) / max(1, gaps),
        connections_failed=sum(failure == Failure.CONNECT for failure in records["failure"]),
        local_errors=sum(ending.local_errors for ending in endings),
        resent=sum(records["resent"]),
        retried=sum(map(bool, records["retried"])),
        clock_drift_ms=max(ending.clock_drift_ns for ending in endings) / 1e6,
    )
    wall_s = max(ending.wall_s for ending in endings)
    unfit = _about_the_end(good(records), endings)
    broken: list[str] = [
        *unfit,
        *_about_sending(found, len(lags), span_s),
        *_about_client(found, wall_s),
        *_about_tokens(found, gaps, _mean_itl_ms(records, gaps), bundled=bundled),
    ]
    return dataclasses.replace(found, broken=tuple(broken), cure=_cure(found, broken, unfit=bool(unfit)))


def _about_the_end(n: int, endings: Sequence[Ending]) -> list[str]:
    said = [] if n else ["not one measured request had a good answer"]
    if stopped := next((ending.stopped for ending in endings if ending.stopped), ""):
        said.append(f"the load was ended before its stop: {stopped}")
    return said


def _about_sending(c: Certificate, n: int, span_s: float) -> list[str]:
    said = []
    if c.lag_p99_ms > MAX_LAG_P99_MS and n >= MIN_REQUESTS:
        said.append(f"requests were sent up to {c.lag_p99_ms:.3g} ms late (p99; bound {MAX_LAG_P99_MS:g} ms)")
    elif c.lag_max_ms > MAX_LAG_MS:
        said.append(f"a request was sent {c.lag_max_ms:.3g} ms late (bound {MAX_LAG_MS:g} ms)")
    if span_s >= MIN_SPAN_S and n >= MIN_REQUESTS and abs(c.rate_sent_rps / c.rate_asked_rps - 1) > MAX_RATE_ERROR:
        said.append(
            f"{c.rate_sent_rps:.4g} requests/s were sent of {c.rate_asked_rps:.4g} due (bound {MAX_RATE_ERROR:.0%})"
        )
    empty = c.in_flight_mean < MIN_IN_FLIGHT * c.in_flight_target
    if c.in_flight_mean and n >= MIN_REQUESTS and empty:
        said.append(
            f"{c.in_flight_mean:.3g} requests were under way of {c.in_flight_target} asked for "
            f"(bound {MIN_IN_FLIGHT:.0%})"
        )
    return said


def _about_client(c: Certificate, wall_s: float) -> list[str]:
    said = []
    if c.cpu_share > MAX_CPU and wall_s >= MIN_SPAN_S:
        said.append(f"the client used {c.cpu_share:.0%} of its core (bound {MAX_CPU:.0%})")
    if c.late_reads_share > MAX_LATE_READS:
        said.append(
            f"{c.late_reads_share:.0%} of the answers' bytes waited for the client for more than 5 ms "
            f"(bound {MAX_LATE_READS:.0%})"
        )
    if c.local_errors:
        said.append(f"{c.local_errors} connections failed for want of files, ports or memory on this machine")
    if c.clock_drift_ms > MAX_DRIFT_MS:
        said.append(f"the machine's wall clock was set by {c.clock_drift_ms:.3g} ms during the load")
    return said


def _about_tokens(c: Certificate, gaps: int, itl_ms: float, *, bundled: bool) -> list[str]:
    if bundled or gaps < MIN_REQUESTS:
        return []
    said = []
    bound = MAX_MERGED if itl_ms >= SHORT_ITL_MS else MAX_MERGED_SHORT
    if c.merged_share > bound:
        said.append(f"{c.merged_share:.1%} of the tokens came in one read with the one before (bound {bound:.1%})")
    if c.bundled_share > MAX_BUNDLED:
        said.append(
            f"the server sends {c.bundled_share:.0%} of its tokens in one chunk with the one before "
            f"(bound {MAX_BUNDLED:.0%}), and the time between tokens means little"
        )
    return said


def _cure(c: Certificate, broken: Sequence[str], *, unfit: bool) -> str:
    """The next step, from what seems to be the cause; empty when nothing is broken."""
    if not broken:
        return ""
    if c.bundled_share > MAX_BUNDLED:
        return f"{_BUNDLED} goes without the time between tokens"
    if c.local_errors or c.clock_drift_ms > MAX_DRIFT_MS:
        return "mend this machine and run again"
    if unfit:
        return "run it again, to its end and with good answers"
    if c.cpu_share > BUSY_CPU:
        return "one client is not enough: --kitt-clients=2, if the machine has the cores"
    if broken == [said for said in broken if "in one read" in said] and c.lag_p99_ms < 1:
        return f"the server seems to send them together: {_BUNDLED} accepts that"
    if c.late_reads_share <= MAX_LATE_READS and c.lag_p99_ms <= MAX_LAG_P99_MS and c.merged_share <= MAX_MERGED:
        return "the answers are too quick for this client: fewer slots with longer answers, or --kitt-clients=2"
    return "this machine had other work: run again when it has none, or --kitt-certify=record to see the numbers"


def _lags_ms(records: Records) -> list[float]:
    """How late each measured request was sent; to open a connection first is not lateness of the client."""
    names = ("phase", "planned_ns", "connect_ns", "send_ns", "resent")
    columns = zip(*(records[name] for name in names), strict=True)
    return sorted(
        (send - planned - (connect if connect <= send - planned else 0)) / 1e6  # or it was opened before
        for phase, planned, connect, send, resent in columns
        if phase == _MEASURED and send >= 0 and not resent
    )


def _pace(records: Records) -> tuple[float, float, float]:
    """Measured requests per second between the first and the last: as planned, as sent; and the seconds as planned."""
    columns = zip(records["phase"], records["planned_ns"], records["send_ns"], strict=True)
    pairs = [(planned, send) for phase, planned, send in columns if phase == _MEASURED and send >= 0]
    if len(pairs) < 2:
        return 0.0, 0.0, 0.0
    planned = max(p for p, _ in pairs) - min(p for p, _ in pairs)
    sent = max(s for _, s in pairs) - min(s for _, s in pairs)
    n = len(pairs) - 1
    return n * 1e9 / max(1, planned), n * 1e9 / max(1, sent), planned / 1e9


def _in_flight(records: Records, target: int, *, held: bool) -> float:
    """Mean number of requests under way while measured ones were; until the last was sent where nothing followed.

    Where there was no warm-up the slots fill up first: that is over when as many were sent as there are slots. If no
    more than these are sent at all, the number is that of the moment when the last one was.
    """
    window = window_ns(records)
    if window is None:
        return 0.0
    phases, sends = records["phase"], records["send_ns"]
    measured = [send for phase, send in zip(phases, sends, strict=True) if phase == _MEASURED]
    full_at = heapq.nsmallest(max(1, target), (send for send in sends if send >= 0))[-1]
    begin, end = max(window[0], full_at), window[1] if held else max(measured)
    pairs = zip(sends, records["end_ns"], strict=True)
    if end <= begin:
        return float(sum(0 <= start <= begin < stop for start, stop in pairs))
    busy = sum(max(0, min(stop, end) - max(start, begin)) for start, stop in pairs if start >= 0)
    return busy / (end - begin)


def _gaps(records: Records) -> int:
    columns = zip(records["phase"], records["failure"], records["events"], strict=True)
    return sum(max(0, events - 1) for phase, failure, events in columns if phase == _MEASURED and failure == _GOOD)


def _mean_itl_ms(records: Records, gaps: int) -> float:
    names = ("phase", "failure", "first_ns", "last_ns")
    columns = zip(*(records[name] for name in names), strict=True)
    total: int = sum(last - first for phase, failure, first, last in columns if phase == _MEASURED and failure == _GOOD)
    return total / max(1, gaps) / 1e6
