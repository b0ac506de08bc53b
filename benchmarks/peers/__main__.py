"""How do the other clients do beside each other? One table.

    python -m benchmarks.peers [--only NAME ...] [--rounds 1] [--streams 64 --requests 256 --tokens 128] [--rate-rps 0]
                               [--ttft-ms 50 --itl-ms 10]

Runs the clients in turn, each against a truth server of its own, round after round, and prints one line a run. Exit
code 0, or 1 when a client could not be run.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.peers.clients import CLIENTS, prepare
from benchmarks.peers.outcome import Load, Outcome
from benchmarks.truth.server import running

_HEAD = (
    f"{'client':15} {'version':11} {'wall':>8} {'CPU/chunk':>10} {'CPU start':>9} {'all':>8} {'memory':>8} "
    f"{'failed':>6}  {'TTFT error p50 / p99':>23}  {'ITL error p50 / p99':>23} {'arrivals/s':>10} {'CV':>5}"
)


def main() -> int:
    """Prepares the clients, runs them, prints the table."""
    asked = _asked()
    load = Load(asked.streams, asked.requests, asked.tokens, asked.rate_rps)
    ready, well = [], True
    for name in asked.only or CLIENTS:
        try:
            prepare(name)
            ready.append(name)
        except RuntimeError as error:
            well = False
            print(f"{name:15} {error}", flush=True)
    print(_HEAD, flush=True)
    for _ in range(asked.rounds):
        for name in ready:
            with running("--ttft-ms", str(asked.ttft_ms), "--itl-ms", str(asked.itl_ms)) as server:
                try:
                    print(_row(CLIENTS[name](server, load)), flush=True)
                except RuntimeError as error:
                    well = False
                    print(f"{name:15} {error}", flush=True)
    return 0 if well else 1


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--only", nargs="+", choices=CLIENTS, metavar="NAME", help=", ".join(CLIENTS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rate-rps", type=float, default=0.0, help="above 0: Poisson arrivals instead of --streams")
    parser.add_argument("--ttft-ms", type=float, default=50.0)
    parser.add_argument("--itl-ms", type=float, default=10.0)
    return parser.parse_args()


def _row(run: Outcome) -> str:
    return (
        f"{run.name:15} {run.version:11} {run.wall_s:>6.2f} s {run.chunk_cpu_us:>7.1f} us {run.start_cpu_s:>7.2f} s "
        f"{run.cpu_s:>6.2f} s {run.rss_bytes / 1e6:>5.0f} MB {run.failed:>6}  {_errors(run.ttft_error_us):>23}  "
        f"{_errors(run.itl_error_us):>23} {run.reached_rps:>10.1f} {run.arrival_cv:>5.2f}"
    )


def _errors(stats: dict[str, float]) -> str:
    return f"{stats['p50']:.1f} / {stats['p99']:.1f} us" if stats else "not reported"


if __name__ == "__main__":
    sys.exit(main())
