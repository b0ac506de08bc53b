"""How are the client scripts run? Each in an environment that has its HTTP package and nothing else."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.peers import outcome, script, tree, venvs
from benchmarks.truth.server import Truth

AIOHTTP = venvs.Package("aiohttp", "3.14.5")
HTTPX = venvs.Package("httpx", "0.28.1")
_ROOT = Path(__file__).parents[2]


def measure(package: venvs.Package, server: Truth, load: outcome.Load) -> outcome.Outcome:
    """Runs the script that uses a package."""
    venvs.make(package)
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        out = Path(folder) / "records"
        options = {
            "url": server.url,
            "out": out,
            "streams": load.streams,
            "requests": load.requests,
            "tokens": load.tokens,
            "rate-rps": load.rate_rps,
            "prompt-words": outcome.PROMPT_WORDS,
        }
        command = [str(package.bin / "python"), "-m", f"benchmarks.peers.{package.name}_client"]
        command += [f"--{name}={value}" for name, value in options.items()]
        usage = tree.run(command, env={**os.environ, "PYTHONPATH": str(_ROOT)}, folder=Path(folder))
        raw = json.loads(out.read_text())
    records = [script.Record(*fields) for fields in raw["records"]]
    return outcome.judge(package.name, raw["version"], server, load, _seen(records), usage)


def _seen(records: Iterable[script.Record]) -> Iterator[outcome.Seen]:
    for record in records:
        gaps = [(b - a) / 1e3 for a, b in itertools.pairwise(record.token_ns)]
        if record.token_ns:
            yield outcome.Seen(record.id, (record.token_ns[0] - record.sent_ns) / 1e3, gaps)
