"""What does our client measure, and at what cost? A pytest session with the product's own fixtures, like a user's."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest_kitt
from benchmarks.peers.outcome import Load, Outcome, Seen, judge
from benchmarks.peers.tree import Usage
from benchmarks.truth.server import Truth
from pytest_kitt.measure.records import Records, Request
from pytest_kitt.store.database import opened
from pytest_kitt.store.reader import read_samples

_TEST = """
import resource

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def test_load(kitt_load, kitt_measure):
    kitt_load("closed:1", "synthetic:8:1", "requests:1", label="first", hold=False, api="completions", certify=False)
    idle = peak_bytes()
    kitt_load({load!r}, "synthetic:64:{tokens}", "requests:{requests}", warmup=0, hold=False, api="completions",
              certify=False, label="timed", clients={clients})
    kitt_measure("session_growth", peak_bytes() - idle, unit="bytes", better="lower")
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Ours:
    """Our side of one load.

    Attributes:
        outcome: as for every other client; its CPU is that of the client from the first send to the last record
            read, its memory that of the client and of what the session has grown by.
        certificate: as stored.
        requests: all records.

    """

    outcome: Outcome
    certificate: dict[str, Any]
    requests: list[Request]


def measure(server: Truth, load: Load, *, clients: int = 1) -> Ours:
    """Runs a session against a truth server that nothing else uses, and reads back what it stored."""
    short = f"poisson:{load.rate_rps}/s" if load.rate_rps else f"closed:{load.streams}"
    with tempfile.TemporaryDirectory(prefix="ours-") as name:
        folder = Path(name)
        text = _TEST.format(load=short, tokens=load.tokens, requests=load.requests, clients=clients)
        (folder / "test_load.py").write_text(text)
        env = {**os.environ, "KITT_HOME": str(folder / "home")}
        session = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--kitt-seed=7"]
        _run([*session, f"--kitt-url={server.url}", "test_load.py"], folder, env)
        show = [sys.executable, "-m", "pytest_kitt.cli", "results", "show", "last", "--json"]
        (result,) = json.loads(_run(show, folder, env))["results"]
        with opened(f"sqlite:///{folder}/home/kitt.db") as store, store.connect() as connection:
            _, *blocks = read_samples(connection, result["id"])  # the first one is that of the load before
    requests = list(Records(block.data for block in blocks).rows())
    account, certificate = result["params"]["timed.client"], result["params"]["timed.certificate"]
    growth = next(m["value"] for m in result["metrics"] if m["name"] == "session_growth")
    usage = Usage(account["cpu_s"], account["max_rss_bytes"] + int(growth), (), ())
    judged = judge("kitt", pytest_kitt.__version__, server, load, _seen(requests), usage)
    outcome = dataclasses.replace(judged, load_cpu_s=account["cpu_s"], start_cpu_s=0.0)
    return Ours(outcome, certificate, requests)


def _run(command: list[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"our own session failed: {done.stdout[-2000:]}{done.stderr[-500:]}")
    return done.stdout


def _seen(requests: list[Request]) -> Iterator[Seen]:
    for r in requests:
        if r.event_ns:
            gaps = [(b - a) / 1e3 for a, b in itertools.pairwise(r.event_ns)]
            yield Seen(f"kitt-{r.index}", (r.event_ns[0] - r.send_ns) / 1e3, gaps)
