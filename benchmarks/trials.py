"""Does the certificate flag what spoils a measurement, every time, and leave a clean one alone?

    python -m benchmarks.trials [--tries 20] [--clean 100]

Each trial is a load on the truth server with one disturbance: the client's process beside a busy one on its core at the
lowest priority; a schedule that the client is kept from; tokens bundled by the server; a client that is stopped again
and again while bytes wait. Every one must be flagged; of the clean runs at most one in a hundred. Exit code 0 or 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.truth.server import running
from pytest_kitt.load.certificate import Certificate, certify
from pytest_kitt.load.run import address, run
from pytest_kitt.load.spec import Arrivals, ClientSpec, Closed, Load

MARK = "benchmark-trials"
_SERVER = ("--ttft-ms", "30", "--itl-ms", "5")
_BUSY = "import ctypes; ctypes.CDLL(None).prctl(1, 9)\nwhile True: pass"  # it dies with this process, however that dies
_RESULTS = Path(__file__).with_name("results")


def measured(load: Load, *server: str, disturb: Callable[[], contextlib.AbstractContextManager[None]]) -> Certificate:
    """The certificate of one load of about two seconds."""
    with running(*_SERVER, *server) as truth, disturb():
        return certify((raw := run(load_spec(truth.url, load), mark=MARK)).records, load, raw.clients, held=True)


def load_spec(url: str, load: Load, *, tokens: int = 32) -> ClientSpec:
    """160 measured requests of a load, with warm-up and cool-down."""
    host, port, tls, prefix = address(url)
    body = {"model": "truth", "prompt": "one two", "max_tokens": tokens, "stream": True}
    whole = json.dumps(body | {"stream_options": {"include_usage": True}})
    closed = load.concurrency if isinstance(load, Closed) else 0
    return ClientSpec(
        host=host,
        port=port,
        tls=tls,
        ca_file="",
        path=f"{prefix}/v1/completions",
        headers=(),
        bodies=((whole, ""),),
        prefix_words=(),
        prefix_length=0,
        salt="",
        concurrency=closed,
        warmup=closed or 20,
        requests=160,
        seconds=0.0,
        hold=True,
        timeout_s=60.0,
        keep_text=False,
        arrivals=load if isinstance(load, Arrivals) else None,
        connections=16,
        max_connections=500,
    )


def clients() -> list[int]:
    """The load clients that this process has started and that still run."""
    me = os.getpid()
    found = []
    for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split():
        with contextlib.suppress(OSError):
            if b"pytest_kitt.load.client" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


@contextlib.contextmanager
def _while_it_runs(do: Callable[[int, threading.Event], None]) -> Iterator[None]:
    """Does something to the client, once it is there, until the block ends."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            for pid in clients():
                with contextlib.suppress(ProcessLookupError):
                    do(pid, over)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def starved() -> Iterator[None]:
    """A busy process on the client's core, and the client at the lowest priority."""
    core = max(os.sched_getaffinity(0))
    busy = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(2)]
    for process in busy:
        os.sched_setaffinity(process.pid, {core})

    def press(pid: int, over: threading.Event) -> None:
        os.sched_setaffinity(pid, {core})
        os.setpriority(os.PRIO_PROCESS, pid, 19)
        with contextlib.suppress(OSError):  # where each session is a group of its own for the scheduler
            Path(f"/proc/{pid}/autogroup").write_text("19")
        over.wait()

    try:
        with _while_it_runs(press):
            yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def stopped(run_s: float, stop_s: float) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """The client is stopped again and again."""

    def hold_up(pid: int, over: threading.Event) -> None:
        while not over.wait(run_s):
            os.kill(pid, signal.SIGSTOP)
            over.wait(stop_s)
            os.kill(pid, signal.SIGCONT)

    return lambda: _while_it_runs(hold_up)


TRIALS: dict[str, Callable[[], Certificate]] = {
    "starved client": lambda: measured(Closed(16), disturb=starved),
    "late schedule": lambda: measured(Arrivals(100), disturb=stopped(0.1, 0.05)),
    "bundled tokens": lambda: measured(Closed(16), "--fault", "merge:4", disturb=contextlib.nullcontext),
    "slow reader": lambda: measured(Closed(16), disturb=stopped(0.05, 0.03)),
}
CLEAN: dict[str, Callable[[], Certificate]] = {
    "clean, closed": lambda: measured(Closed(16), disturb=contextlib.nullcontext),
    "clean, open": lambda: measured(Arrivals(100), disturb=contextlib.nullcontext),
}


def main() -> int:
    """Runs the trials, prints one table with the reasons, keeps them."""
    asked = _asked()
    kept: dict[str, list[list[str]]] = {}
    good = True
    print(f"{'trial':16} {'runs':>5} {'flagged':>8}  verdict  reasons")
    for name, trial in TRIALS.items():
        kept[name] = [list(trial().broken) for _ in range(asked.tries)]
        good &= _row(name, kept[name], all(kept[name]))
    for name, trial in CLEAN.items():
        kept[name] = [list(trial().broken) for _ in range(asked.clean // 2)]
    flagged = sum(bool(broken) for name in CLEAN for broken in kept[name])
    for name in CLEAN:
        good &= _row(name, kept[name], flagged <= max(1, asked.clean // 100))
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "trials.json").write_text(json.dumps(kept, indent=1))
    return 0 if good else 1


def _row(name: str, runs: list[list[str]], good: bool) -> bool:
    reasons = Counter(_kind(reason) for broken in runs for reason in broken)
    said = ", ".join(f"{reason} {count}x" for reason, count in reasons.most_common())
    print(f"{name:16} {len(runs):>5} {sum(map(bool, runs)):>8}  {'pass' if good else 'FAIL':7}  {said}", flush=True)
    return good


def _kind(reason: str) -> str:
    """What a reason is about."""
    kinds = {
        "late (p99": "lag",
        "ms late": "worst lag",
        "waited for": "late reads",
        "one read": "merged",
        "one chunk": "bundled",
        "under way": "in flight",
        "requests/s were": "rate",
        "of its core": "CPU",
        "wall clock": "clock",
    }
    return next((kind for words, kind in kinds.items() if words in reason), reason[:30])


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trials")
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--clean", type=int, default=100)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
