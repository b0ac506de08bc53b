"""Do we measure closer to the truth than anyone, for less? Our client, the C client and the peers, in turn.

    python -m benchmarks.bars [--rounds 5] [--only B1 ...] [--released [NAME ...]]

Each bar is one load on the truth server. In every round each client gets a server of its own; a round in which the
server itself was late (p99 of 5 ms or more against its own timetable) is dropped and tried again, up to three times as
often in all; released clients, which take a minute each, are not. A limit is not judged where one of the two clients
that it compares has fewer than five good rounds. The limits are ratios of medians in the same run. ``--released`` adds
inference-perf, guidellm and aiperf, or those of them that are named; they are installed first (gigabytes). Raw rounds
lie in benchmarks/results/bars.json.
Exit code 0, 1 (a bar failed) or 3 (one was not judged).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.peers.clients import CLIENTS, prepare
from benchmarks.peers.outcome import Load, Outcome
from benchmarks.truth import log
from benchmarks.truth.server import running
from pytest_kitt.measure.stats import percentile

MIN_ROUNDS = 5
_TRIES = 3
SERVER_LATE_MS = 5.0
RELEASED = ("inference-perf", "guidellm", "aiperf")
_RESULTS = Path(__file__).with_name("results")


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One limit: what is compared, and with what.

    Attributes:
        what: shown.
        value: ours, from the good rounds.
        limit: the largest good value; None when there is nothing to compare with.
        beside: the client that the limit comes from; empty when it is a plain number.

    """

    what: str
    value: float
    limit: float | None
    beside: str = ""


Rounds = dict[str, list[dict[str, Any]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """A load, who runs it beside us, and the limits.

    Attributes:
        name: B1 to B7.
        load: what is sent.
        server: options of the truth server.
        beside: clients that always take part.
        released: whether the released ones may.
        checks: the limits, from the good rounds of every client.

    """

    name: str
    load: Load
    server: tuple[str, ...]
    beside: tuple[str, ...]
    released: bool
    checks: Callable[[Rounds], list[Check]]


def _median(rounds: Rounds, client: str, key: str) -> float | None:
    values = [value for r in rounds.get(client, []) if (value := r.get(key)) is not None]
    return statistics.median(values) if values else None


def _ratio(rounds: Rounds, key: str, client: str, times: float, what: str) -> list[Check]:
    theirs = _median(rounds, client, key)
    value = _median(rounds, "kitt", key) or 0.0
    return [Check(f"{what}, at most {times:g} x {client}", value, theirs and times * theirs, client)]


def _best(rounds: Rounds, key: str, clients: Sequence[str]) -> tuple[float | None, str]:
    found = [(value, client) for client in clients if (value := _median(rounds, client, key)) is not None]
    return min(found) if found else (None, "")


def _peers(rounds: Rounds) -> list[str]:
    return [name for name in rounds if name not in ("kitt", "c")]


def _truth(rounds: Rounds, share: float) -> list[Check]:
    checks = []
    for key, limit in (("ttft_error_p99_us", 100.0), ("itl_error_p99_us", 50.0)):
        value = _median(rounds, "kitt", key) or 0.0
        best, peer = _best(rounds, key, _peers(rounds))
        checks += [
            Check(f"{key}, at most {limit:g}", value, limit),
            Check(f"{key}, at most {share:g} of the best peer", value, best and share * best, peer),
        ]
    return checks


def _b1(rounds: Rounds) -> list[Check]:
    cost = "chunk_cpu_us"
    return [
        *_ratio(rounds, cost, "inference-perf", 1 / 5, "CPU per token, us"),
        *_ratio(rounds, cost, "aiohttp", 1 / 3, "CPU per token, us"),
        *_ratio(rounds, cost, "c", 2.5, "CPU per token, us"),
        *_truth(rounds, 1 / 50),
        *_memory(rounds, 1 / 5),
    ]


def _b2(rounds: Rounds) -> list[Check]:
    cost, ours_, c = "chunk_cpu_us", _median(rounds, "kitt", "chunks_per_s"), _median(rounds, "c", "chunks_per_s")
    return [
        *_ratio(rounds, cost, "inference-perf", 1 / 5, "CPU per token, us"),
        *_ratio(rounds, cost, "aiohttp", 1 / 2, "CPU per token, us"),
        Check("tokens/s of the C client over ours, at most 1/0.98", (c or 0) / (ours_ or 1), c and 1 / 0.98, "c"),
        *_truth(rounds, 1 / 500),
        *_memory(rounds, 1 / 4),
    ]


def _memory(rounds: Rounds, share: float) -> list[Check]:
    best, peer = _best(rounds, "rss_mb", [name for name in rounds if name in RELEASED])
    value = _median(rounds, "kitt", "rss_mb") or 0.0
    return [Check(f"memory, MB, at most {share:g} of the best released peer", value, best and share * best, peer)]


def _b4(rounds: Rounds) -> list[Check]:
    return [
        Check("itl_error_p99_us, below 1000", _median(rounds, "kitt", "itl_error_p99_us") or 0.0, 1000.0),
        Check("merged tokens, below 0.1 %", 100 * (_median(rounds, "kitt", "merged_share") or 0.0), 0.1),
    ]


def _b5(rounds: Rounds) -> list[Check]:
    return [
        Check("rate, % off the schedule's", _median(rounds, "kitt", "rate_error_percent") or 0.0, 1.0),
        Check("lateness p99, ms", _median(rounds, "kitt", "lag_p99_ms") or 0.0, 0.5),
        Check("lateness p99.9, ms", _median(rounds, "kitt", "lag_p999_ms") or 0.0, 5.0),
        Check("CV of the gaps at the server, off the schedule's", _median(rounds, "kitt", "cv_error") or 0.0, 0.05),
    ]


def _b7(rounds: Rounds) -> list[Check]:
    return _ratio(rounds, "chunk_cpu_us", "aiohttp", 1 / 4, "CPU per request, us")


BARS = (
    Bar("B1", Load(64, 256, 128), ("--ttft-ms", "50", "--itl-ms", "10"), ("c", "aiohttp", "httpx"), True, _b1),
    Bar("B2", Load(1000, 2000, 128), ("--ttft-ms", "50", "--itl-ms", "40"), ("c", "aiohttp"), True, _b2),
    *(
        Bar(f"B4/{itl}", Load(1000, 1000, 128), ("--ttft-ms", "50", "--itl-ms", itl), (), False, _b4)
        for itl in ("40", "20")
    ),
    Bar(
        "B5",
        Load(1, 5000, 16, rate_rps=1000),
        ("--ttft-ms", "20", "--itl-ms", "5"),
        ("aiohttp",),
        False,
        _b5,
    ),
    Bar("B7", Load(64, 20000, 1), ("--burst",), ("c", "aiohttp"), False, _b7),
)
"""B3 and B6 are the truth and memory lines of B1 and B2."""


def main() -> int:
    """Runs the bars, prints the tables, keeps the raw rounds."""
    asked = _asked()
    released = () if asked.released is None else asked.released or RELEASED
    raw: dict[str, Any] = {"versions": {}, "bars": {}}
    verdicts = []
    for bar in BARS:
        if asked.only and bar.name not in asked.only:
            continue
        names = [*bar.beside, *(released if bar.released else ())]
        raw["versions"] |= {name: prepare(name) for name in names}
        rounds = _rounds(bar, names, asked.rounds)
        raw["bars"][bar.name] = rounds
        _RESULTS.mkdir(exist_ok=True)
        (_RESULTS / "bars.json").write_text(json.dumps(raw, indent=1))
        verdicts += _print(bar, rounds)
    print("versions:", ", ".join(f"{name} {version}" for name, version in raw["versions"].items()))
    return 1 if "FAIL" in verdicts else 3 if "not judged" in verdicts else 0


def _rounds(bar: Bar, names: Sequence[str], number: int) -> Rounds:
    rounds: Rounds = {"kitt": [], **{name: [] for name in names}}
    for turn in range(_TRIES * number):
        for name in rounds:
            if len(rounds[name]) >= number or (turn >= number and name in RELEASED):
                continue
            with running(*bar.server) as server:
                try:
                    found = _ours(server, bar.load) if name == "kitt" else _row(CLIENTS[name](server, bar.load))
                except RuntimeError as error:
                    print(f"{bar.name} {name}: {str(error)[:300]}", file=sys.stderr)
                    continue
                late = log.late_p99_ms(log.read(server.log))
            if late < SERVER_LATE_MS:
                rounds[name].append(found | {"server_late_p99_ms": late})
    return rounds


def _ours(server: Any, load: Load) -> dict[str, Any]:
    found = ours.measure(server, load)
    c = found.certificate
    lags = sorted((r.send_ns - r.planned_ns) / 1e6 for r in found.requests)
    planned = sorted(r.planned_ns for r in found.requests)
    gaps = [b - a for a, b in itertools.pairwise(planned)]
    scheduled = statistics.pstdev(gaps) / statistics.fmean(gaps) if any(gaps) else 0.0
    rate = c["rate_sent_rps"] / c["rate_asked_rps"] - 1 if c["rate_asked_rps"] else 0.0
    return _row(found.outcome) | {
        "merged_share": c["merged_share"],
        "lag_p99_ms": percentile(lags, 0.99),
        "lag_p999_ms": percentile(lags, 0.999),
        "rate_error_percent": abs(100 * rate),
        "cv_error": abs(found.outcome.arrival_cv - scheduled),
        "certificate": c,
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "chunk_cpu_us": outcome.chunk_cpu_us,
        "chunks_per_s": outcome.chunks / outcome.wall_s,
        "rss_mb": outcome.rss_bytes / 1e6,
        "ttft_error_p50_us": outcome.ttft_error_us.get("p50"),
        "ttft_error_p99_us": outcome.ttft_error_us.get("p99"),
        "itl_error_p50_us": outcome.itl_error_us.get("p50"),
        "itl_error_p99_us": outcome.itl_error_us.get("p99"),
        "reached_rps": outcome.reached_rps,
        "arrival_cv": outcome.arrival_cv,
        "failed": outcome.failed,
    }


_COLUMNS = (
    ("chunk_cpu_us", "CPU/token us"),
    ("chunks_per_s", "tokens/s"),
    ("rss_mb", "memory MB"),
    ("ttft_error_p50_us", "TTFT err p50 us"),
    ("ttft_error_p99_us", "p99 us"),
    ("itl_error_p50_us", "ITL err p50 us"),
    ("itl_error_p99_us", "p99 us"),
    ("reached_rps", "requests/s"),
)


def _print(bar: Bar, rounds: Rounds) -> list[str]:
    load = bar.load
    what = f"Poisson {load.rate_rps:g}/s" if load.rate_rps else f"{load.streams} streams"
    print(f"\n{bar.name}: {what}, {load.requests} requests of {load.tokens} tokens, {' '.join(bar.server)}")
    print(f"  {'client':15} {'rounds':>6} " + " ".join(f"{title:>15}" for _, title in _COLUMNS))
    for name in rounds:
        shown = [_median(rounds, name, key) for key, _ in _COLUMNS]
        cells = " ".join(f"{'-' if value is None else format(value, '.1f'):>15}" for value in shown)
        print(f"  {name:15} {len(rounds[name]):>6} {cells}")
    verdicts = []
    for check in bar.checks(rounds):
        if check.limit is None:
            print(f"  {'not run':10} {check.what}: {check.value:.4g}")
            continue
        judged = all(len(rounds[name]) >= MIN_ROUNDS for name in ("kitt", check.beside) if name)
        verdict = "not judged" if not judged else "pass" if check.value <= check.limit else "FAIL"
        verdicts.append(verdict)
        print(f"  {verdict:10} {check.what}: {check.value:.4g} (limit {check.limit:.4g})")
    sys.stdout.flush()
    return verdicts


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bars")
    parser.add_argument("--rounds", type=int, default=MIN_ROUNDS)
    parser.add_argument("--only", nargs="+", choices=[bar.name for bar in BARS], metavar="BAR")
    parser.add_argument("--released", nargs="*", choices=RELEASED, metavar="NAME", help=f"all of {', '.join(RELEASED)}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
