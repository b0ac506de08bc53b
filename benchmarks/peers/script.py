"""What do the client scripts share? Options, arrivals, workers and the file of raw records; no package is needed.

A script runs in a virtual environment of its own: ``python -m benchmarks.peers.NAME_client --url URL --out FILE ...``.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

SEED = 7
LEAD_S = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """The options of a script; ``rate_rps`` above 0 asks for an open loop."""

    url: str
    out: Path
    streams: int
    requests: int
    rate_rps: float
    body: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One finished request: when it was sent and when each token came, in nanoseconds of time.perf_counter."""

    id: str
    sent_ns: int
    token_ns: list[int]


Ask = Callable[[str], Coroutine[Any, Any, Record | None]]  # sends one request with this id; None when it failed


def task() -> Task:
    """Reads the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--rate-rps", type=float, required=True)
    parser.add_argument("--prompt-words", type=int, required=True)
    asked = parser.parse_args()
    body = {
        "model": "truth",
        "prompt": " ".join(["word"] * asked.prompt_words),
        "max_tokens": asked.tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Task(
        url=asked.url + "/v1/completions",
        out=asked.out,
        streams=asked.streams,
        requests=asked.requests,
        rate_rps=asked.rate_rps,
        body=json.dumps(body).encode(),
    )


def headers(request_id: str) -> dict[str, str]:
    """What each request carries."""
    return {"Content-Type": "application/json", "X-Request-Id": request_id}


def is_token(data: str) -> bool:
    """Whether an event's data is a token; parses it, as every client has to."""
    return data != "[DONE]" and bool(json.loads(data)["choices"])


async def drive(work: Task, one: Ask) -> list[Record]:
    """Sends all requests, in a closed or an open loop; the finished ones, failed ones left out."""
    ids = [f"peer-{i}" for i in range(work.requests)]
    answers = await (_open(ids, work.rate_rps, one) if work.rate_rps > 0 else _closed(ids, work.streams, one))
    return [answer for answer in answers if answer]


def write(work: Task, version: str, records: list[Record]) -> None:
    """Keeps the raw records, with the version of the client's package."""
    raw = {"version": version, "records": [dataclasses.astuple(record) for record in records]}
    work.out.write_text(json.dumps(raw))


async def _closed(ids: list[str], streams: int, one: Ask) -> list[Record | None]:
    left = iter(ids)

    async def worker() -> list[Record | None]:
        return [await one(request_id) for request_id in left]

    return [answer for answers in await asyncio.gather(*(worker() for _ in range(streams))) for answer in answers]


async def _open(ids: list[str], rate_rps: float, one: Ask) -> list[Record | None]:
    rng, due, tasks = random.Random(SEED), time.perf_counter() + LEAD_S, []
    for request_id in ids:
        due += rng.expovariate(rate_rps)
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(request_id)))
    return await asyncio.gather(*tasks)
