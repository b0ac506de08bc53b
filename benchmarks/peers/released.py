"""How do the released clients run offline, and what do they report of each request?

Each gets a tokenizer made on the spot, a command line and a folder to report into. Their reports differ: aiperf names
the X-Request-Id, the other two keep the answer's id, which has the server's serial number; guidellm has no single gaps.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers import outcome, tree, venvs
from benchmarks.truth.server import Truth

_ROOT = Path(__file__).parents[2]
_QUIET = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", "DO_NOT_TRACK": "1", "OPENAI_API_KEY": "none"}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_SERIAL = re.compile(r"cmpl-(\d+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Client:
    """A released client.

    Attributes:
        package: where it comes from.
        command: its arguments for an address, a load, a tokenizer and an output folder.
        seen: reads the output folder.
        env: variables that it needs.

    """

    package: venvs.Package
    command: Callable[[str, outcome.Load, Path, Path], list[str]]
    seen: Callable[[Path], Iterator[outcome.Seen]]
    env: Mapping[str, str]


def prepare(client: Client) -> str:
    """Makes its environment and its tokenizer; its version."""
    venvs.make(client.package)
    tokenizer = _tokenizer(client)
    if not tokenizer.exists():
        with tempfile.TemporaryDirectory(dir=client.package.folder) as folder:
            made = Path(folder) / "made"
            command = [str(client.package.bin / "python"), "-m", "benchmarks.peers.tokenizer", str(made)]
            env = {**os.environ, **_OFFLINE, "PYTHONPATH": str(_ROOT)}
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"no tokenizer for {client.package.name}: {done.stderr.strip().splitlines()[-1]}")
            made.rename(tokenizer)
    return client.package.version


def measure(client: Client, server: Truth, load: outcome.Load) -> outcome.Outcome:
    """Runs it as released."""
    version = prepare(client)
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        folder = Path(name)
        program, *arguments = client.command(server.url, load, _tokenizer(client), folder)
        usage = tree.run(
            [str(client.package.bin / program), *arguments],
            env={**os.environ, **_QUIET, **client.env},
            folder=folder,
        )
        return outcome.judge(client.package.name, version, server, load, client.seen(folder), usage)


def _tokenizer(client: Client) -> Path:
    return client.package.folder / "tokenizer"


def _inference_perf(url: str, load: outcome.Load, tokenizer: Path, folder: Path) -> list[str]:
    def exactly(tokens: int) -> dict[str, int]:
        # it draws one more than it sends
        return {"min": tokens, "max": tokens, "mean": tokens, "std_dev": 0, "total_count": load.requests + 1}

    workers = min(os.cpu_count() or 1, load.streams)
    if load.rate_rps > 0:
        stage: dict[str, float] = {"rate": load.rate_rps, "duration": max(1, round(load.requests / load.rate_rps))}
        rhythm: dict[str, Any] = {"type": "poisson", "num_workers": workers, "worker_max_concurrency": load.requests}
    else:
        stage = {"num_requests": load.requests, "concurrency_level": load.streams}
        rhythm = {"type": "concurrent", "num_workers": workers, "worker_max_concurrency": load.streams}
    config = {
        "load": rhythm | {"interval": 0, "stages": [stage]},
        "api": {"type": "completion", "streaming": True},
        "server": {"type": "vllm", "model_name": "truth", "base_url": url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(tokenizer)},
        "data": {
            "type": "random",
            "input_distribution": exactly(outcome.PROMPT_WORDS),
            "output_distribution": exactly(load.tokens),
        },
        "report": {"request_lifecycle": {"summary": True, "per_stage": False, "per_request": True}},
        "storage": {"local_storage": {"path": str(folder / "report")}},
    }
    file = folder / "config.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    return ["inference-perf", "--config_file", str(file)]


def _inference_perf_seen(folder: Path) -> Iterator[outcome.Seen]:
    for request in json.loads((folder / "report" / "per_request_lifecycle_metrics.json").read_text()):
        metrics = request["info"]["response_metrics"] or {}
        times = metrics.get("chunk_times") or []
        serial = _SERIAL.search("".join(metrics.get("response_chunks", [])[:1]))
        if times and serial:
            gaps = [(b - a) * 1e6 for a, b in itertools.pairwise(times)]
            yield outcome.Seen(int(serial[1]), (times[0] - request["start_time"]) * 1e6, gaps)


def _guidellm(url: str, load: outcome.Load, tokenizer: Path, folder: Path) -> list[str]:
    rhythm = f"kind=poisson,rate={load.rate_rps}" if load.rate_rps > 0 else f"kind=concurrent,streams={load.streams}"
    options = {
        "backend": f"kind=openai_http,target={url},model=truth,request_format=/v1/completions",
        "profile": rhythm,
        "constraint": f"kind=max_requests,count={load.requests}",
        "data": f"kind=synthetic_text,prompt_tokens={outcome.PROMPT_WORDS},output_tokens={load.tokens}",
        "tokenizer": f"kind=huggingface_auto,model={tokenizer}",
        "output": f"kind=json,path={folder / 'report.json'}",
    }
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    return ["guidellm", "run", *given, "--disable-console-interactive"]


def _guidellm_seen(folder: Path) -> Iterator[outcome.Seen]:
    report = json.loads((folder / "report.json").read_text())
    for request in report["benchmarks"][0]["requests"]["successful"]:
        serial = _SERIAL.match(request["response_id"] or "")
        if serial:
            yield outcome.Seen(int(serial[1]), request["time_to_first_token_ms"] * 1e3)


def _aiperf(url: str, load: outcome.Load, tokenizer: Path, folder: Path) -> list[str]:
    options = {
        "model": "truth",
        "endpoint-type": "completions",
        "url": url,
        "tokenizer": tokenizer,
        "isl": outcome.PROMPT_WORDS,
        "osl": load.tokens,
        "request-count": load.requests,
        "extra-inputs": "ignore_eos:true",
        "ui": "none",
        "output-artifact-dir": folder / "report",
        "random-seed": 1,
    }
    if load.rate_rps > 0:
        options |= {"request-rate": load.rate_rps, "arrival-pattern": "poisson"}
    else:
        options |= {"concurrency": load.streams}
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["aiperf", "profile", *given, "--streaming", "--use-server-token-count"]


def _aiperf_seen(folder: Path) -> Iterator[outcome.Seen]:
    for line in (folder / "report" / "profile_export.jsonl").read_text().splitlines():
        request = json.loads(line)
        metrics = request["metrics"]
        if "time_to_first_token" in metrics:
            gaps = [gap * 1e3 for gap in metrics.get("inter_chunk_latency", {"value": ()})["value"]]
            ttft = metrics["time_to_first_token"]["value"] * 1e3
            yield outcome.Seen(request["metadata"]["x_request_id"], ttft, gaps)


CLIENTS = {
    client.package.name: client
    for client in (
        Client(venvs.Package("inference-perf", "0.7.0"), _inference_perf, _inference_perf_seen, _OFFLINE),
        Client(venvs.Package("guidellm", "0.8.1"), _guidellm, _guidellm_seen, _OFFLINE),
        Client(
            venvs.Package("aiperf", "0.13.0"), _aiperf, _aiperf_seen, {}
        ),  # it refuses a local tokenizer when offline
    )
}
