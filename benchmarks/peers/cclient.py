"""How is the C client built and run? Compiled once per source; its stamps are read back for its errors."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import urllib.parse
from array import array
from collections.abc import Iterator
from pathlib import Path

from benchmarks.compiled import binary
from benchmarks.peers import outcome, tree
from benchmarks.truth.server import Truth

_SOURCE = Path(__file__).with_suffix(".c")


def prepare() -> str:
    """Compiles it; the compiler's version. RuntimeError when there is none."""
    if shutil.which("gcc") is None:
        raise RuntimeError("the C client needs gcc")
    binary(_SOURCE)
    version = subprocess.run(["gcc", "-dumpfullversion"], check=True, capture_output=True, text=True).stdout
    return f"gcc {version.strip()}"


def measure(server: Truth, load: outcome.Load) -> outcome.Outcome:
    """Runs it in a closed loop, and takes its own word for its cost; RuntimeError for an open one."""
    if load.rate_rps > 0:
        raise RuntimeError("the C client has no open loop")
    version = prepare()
    port = str(urllib.parse.urlsplit(server.url).port)
    sizes = [load.streams, load.requests, load.tokens, outcome.PROMPT_WORDS]
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        stamps = Path(folder) / "stamps"
        command = [str(binary(_SOURCE)), port, *map(str, sizes), str(stamps)]
        usage = tree.run(command, env=os.environ, folder=Path(folder))
        told = json.loads((Path(folder) / "stdout").read_text())
        judged = outcome.judge("c", version, server, load, _seen(stamps, load.tokens), usage)
    return dataclasses.replace(judged, load_cpu_s=told["cpu_s"], rss_bytes=told["rss_bytes"])


def _seen(stamps: Path, tokens: int) -> Iterator[outcome.Seen]:
    times = array("q", stamps.read_bytes())
    for number, start in enumerate(range(0, len(times), tokens + 1)):
        sent, *came = times[start : start + tokens + 1]
        gaps = [(b - a) / 1e3 for a, b in itertools.pairwise(came)]
        yield outcome.Seen(f"c-{number}", (came[0] - sent) / 1e3, gaps)
