"""How good are we, all in all? Every benchmark, its own table, and one line each at the end.

    python -m benchmarks [--only NAME ...] [--rounds 5] [--released] [--list]

Each can be run alone: ``python -m benchmarks.NAME``. Raw numbers lie in benchmarks/results/. Exit code 1 when one
failed, else 3 when one could not be judged, else 0.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

ALL = {
    "accuracy": "stored percentiles against the truth server's own",
    "bars": "cost, truth, scale and memory beside the C client and the peers (B1 to B7)",
    "evaluations": "10,000 questions asked and scored, beside arithmetic and the runners of others",
    "clocks": "the error of each clock, plain and behind TLS",
    "poisson": "Kolmogorov and Smirnov on arrivals as the server saw them",
    "trials": "the certificate: flagged every time, and rarely without cause",
    "scaling": "two clients against one",
    "memory": "a million requests of 200 tokens",
    "schedule": "eight cells on four made-up GPUs, with a crash",
    "channel": "many and large samples from workers into the store",
    "soak": "a hundred kills at random moments, then resumed",
    "fuzz": "a million mutated streams through the parsers",
    "llama_timings": "our numbers beside llama.cpp's own",
    "report_page": "the HTML report of 200 results: time to make it, its size, time to open it",
    "startup": "from pytest to the first request, the engine apart",
    "plugin_cost": "what the plugin costs a session that does not use it",
    "repeat_quick": "the first command of the README, ten times",
}
_ROUNDS = ("bars", "evaluations")  # they have rounds of several clients
_VERDICTS = {0: "pass", 1: "FAIL", 3: "not judged"}


def main() -> int:
    """Runs them one after the other; nothing else should run meanwhile."""
    asked = _asked()
    if asked.list:
        print("\n".join(f"{name:14} {what}" for name, what in ALL.items()))
        return 0
    rounds = ["--rounds", str(asked.rounds), *(["--released"] if asked.released else [])]
    found: dict[str, tuple[int, float]] = {}
    for name in asked.only or ALL:
        print(f"\n== {name}: {ALL[name]}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *(rounds if name in _ROUNDS else ())]
        began = time.monotonic()
        code = subprocess.run(command, check=False).returncode
        found[name] = code, time.monotonic() - began
    print(f"\n{'benchmark':14} {'verdict':10} {'seconds':>8}")
    for name, (code, seconds) in found.items():
        print(f"{name:14} {_VERDICTS.get(code, f'error {code}'):10} {seconds:>8.0f}  {ALL[name]}")
    codes = {code for code, _ in found.values()}
    return 1 if codes - {0, 3} else 3 if 3 in codes else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--only", nargs="+", choices=ALL, metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--rounds", type=int, default=5, help=f"of {' and '.join(_ROUNDS)}")
    parser.add_argument(
        "--released",
        action="store_true",
        help="bars also against inference-perf, guidellm, aiperf; evaluations against lm_eval, inspect_ai",
    )
    parser.add_argument("--list", action="store_true", help="says what there is")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
