"""How well did a client measure, and at what cost? Its own records against the truth server's log."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
import urllib.request
from collections.abc import Iterable, Sequence

from benchmarks.peers.tree import Usage
from benchmarks.truth import log
from benchmarks.truth.server import Truth
from pytest_kitt.measure.stats import percentile

PROMPT_WORDS = 64
_QUIET_S = 30.0
_STATS = {"p50": 0.5, "p99": 0.99}


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """What a client is asked to send.

    Attributes:
        streams: requests in flight at once; only in a closed loop.
        requests: how many in all.
        tokens: of each answer.
        rate_rps: above 0, the loop is open: Poisson arrivals at this mean rate, in requests per second.

    """

    streams: int
    requests: int
    tokens: int
    rate_rps: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """One finished request as its client reports it.

    Attributes:
        id: what it was sent with as X-Request-Id, or the serial number in the response's id.
        ttft_us: from its sending to its first token.
        gaps_us: between its tokens, in order; empty when the client does not tell.

    """

    id: str | int
    ttft_us: float
    gaps_us: Sequence[float] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """One client under one load. Its process tree is every process of the session that it was started in.

    Attributes:
        name: of the client.
        version: of its package or of its compiler.
        chunks: tokens that the server sent in the requests that count: finished, and reported by the client.
        wall_s: from the arrival of the first such request to the last token, by the server's log.
        cpu_s: of the whole process tree, from start to exit: the larger of what wait4 says and what
            was seen of it meanwhile.
        start_cpu_s: the part of it before the first request arrived: imports, tokenizers, prompts.
        load_cpu_s: the part of it within ``wall_s``.
        rss_bytes: largest sum of the tree's proportional set sizes, looked at twice a second or so; what processes
            share counts once.
        failed: requests asked for that are not among those that count.
        ttft_error_us: p50 and p99 of the distance between the client's TTFT and the server's, request by request.
        itl_error_us: the same of each gap between two tokens; empty when the client reports no single gaps.
        reached_rps: rate of arrivals at the server.
        arrival_cv: standard deviation of the time between arrivals over its mean; 1 for a Poisson process.

    """

    name: str
    version: str
    chunks: int
    wall_s: float
    cpu_s: float
    start_cpu_s: float
    load_cpu_s: float
    rss_bytes: int
    failed: int
    ttft_error_us: dict[str, float]
    itl_error_us: dict[str, float]
    reached_rps: float
    arrival_cv: float

    @property
    def chunk_cpu_us(self) -> float:
        """CPU time per token while the load ran, in microseconds."""
        return self.load_cpu_s / self.chunks * 1e6


def judge(name: str, version: str, server: Truth, load: Load, seen: Iterable[Seen], usage: Usage) -> Outcome:
    """Compares a client's records with the server's; RuntimeError when no request is in both."""
    pairs = _matched(seen, _complete(server))
    if len(pairs) < 2:
        raise RuntimeError(f"{name} finished {len(pairs)} of {load.requests} requests that the server knows of")
    ttft, gaps = [], []
    for ours, true in pairs:
        ttft.append(abs(ours.ttft_us - (true.sent_ns[0] - true.arrive_ns) / 1e3))
        if ours.gaps_us:
            waits = ((b - a) / 1e3 for a, b in itertools.pairwise(true.sent_ns))
            gaps += [abs(a - b) for a, b in zip(ours.gaps_us, waits, strict=True)]
    arrivals = sorted(true.arrive_ns for _, true in pairs)
    between = [(b - a) / 1e9 for a, b in itertools.pairwise(arrivals)]
    first, last = arrivals[0], max(true.sent_ns[-1] for _, true in pairs)
    return Outcome(
        name=name,
        version=version,
        chunks=sum(len(true.sent_ns) for _, true in pairs),
        wall_s=(last - first) / 1e9,
        cpu_s=usage.cpu_s,
        start_cpu_s=usage.cpu_until(first),
        load_cpu_s=usage.cpu_until(last) - usage.cpu_until(first),
        rss_bytes=usage.rss_bytes,
        failed=load.requests - len(pairs),
        ttft_error_us=_summary(ttft),
        itl_error_us=_summary(gaps),
        reached_rps=len(between) / sum(between),
        arrival_cv=statistics.pstdev(between) / statistics.fmean(between),
    )


def _matched(seen: Iterable[Seen], served: Iterable[log.Served]) -> list[tuple[Seen, log.Served]]:
    """Each request that both sides call finished, with as many gaps as the server made."""
    good = [s for s in served if s.sent_ns and not s.aborted and s.status == 200]
    known: dict[str | int, log.Served] = {s.serial: s for s in good} | {s.id: s for s in good}
    pairs = [(ours, known[ours.id]) for ours in seen if ours.id in known]
    return [(ours, true) for ours, true in pairs if len(ours.gaps_us) in {0, len(true.sent_ns) - 1}]


def _complete(server: Truth) -> list[log.Served]:
    """The log, once no request is active: only then all of it is written."""
    deadline = time.monotonic() + _QUIET_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=_QUIET_S) as answer:
            lines = answer.read().decode().splitlines()
        if any(line.startswith("vllm:num_requests_running") and line.endswith(" 0") for line in lines):
            return log.read(server.log)
        time.sleep(0.05)
    raise RuntimeError(f"requests are still active at {server.url} {_QUIET_S:g} s after their client has ended")


def _summary(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {stat: percentile(ordered, q) for stat, q in _STATS.items()} if ordered else {}
