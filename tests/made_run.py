"""A run with known numbers: what every file and every export of it must say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import sqlalchemy as sa

from pytest_kitt.load.certificate import Certificate
from pytest_kitt.measure import metrics
from pytest_kitt.measure.records import CODEC, CountedBy, Failure, Phase, Records, Request, RequestTable
from pytest_kitt.measure.results import Block, CellFacts, Measurement, Outcome, Result, Run
from pytest_kitt.store.writer import StoreWriter

RUN = "20260131-120000-3fa1c2"
AT = "2026-01-31T12:00:00.000Z"
MS = 1_000_000
MACHINE = {
    "key": "0123456789ab",
    "cpu": "A CPU",
    "cores": 2,
    "architecture": "x86_64",
    "memory_bytes": 1 << 33,
    "system": "Linux",
    "kernel": "6.1",
    "python": "3.11.7",
}
MODEL = {
    "ref": "org/m-7B",
    "name": "m-7B",
    "format": "gguf",
    "quantization": None,
    "parameters": 7_000_000_000,
    "digest": None,
}
CELL = CellFacts(
    "abcdef012345", "e-m", "e", "1.2", "process", MODEL, "chat", {"ctx": "512"}, ("e", "--serve"), False, False
)
QUESTION = {"id": "q1", "task": "add", "question": "1+1?", "answer": "2", "response": "2", "correct": True}


def request(index: int, e2e_ms: int, **more: int) -> Request:
    """A measured request that was sent at once: a first event after 10 ms, a last one at the end."""
    given = {"phase": Phase.MEASURED, "counted_by": CountedBy.USAGE, "status": 200, "isl": 16, "osl": 2, **more}
    events = () if given.get("failure") else (10 * MS, e2e_ms * MS)
    end = e2e_ms * MS
    return Request(index, **given, planned_ns=0, send_ns=0, end_ns=end, answer_event=0, event_ns=events)


def block(requests: Sequence[Request]) -> Block:
    """A block of request records."""
    table = RequestTable()
    for each in requests:
        table.append(each)
    return Block(CODEC, len(table), table.to_bytes())


TIMES_MS = (20, 30, 40, 50, 1000)
BLOCKS = (
    block([request(0, 15, phase=Phase.WARMUP), *(request(n, ms) for n, ms in enumerate(TIMES_MS[:3], 1))]),
    block([*(request(n, ms) for n, ms in enumerate(TIMES_MS[3:], 4)), request(6, 9, failure=Failure.RESET, osl=-1)]),
)
QUESTIONS = Block("jsonl", 1, json.dumps(QUESTION).encode() + b"\n")
CERTIFICATE = dataclasses.asdict(
    Certificate(
        clock="kernel",
        lag_p50_ms=0.02,
        lag_p99_ms=0.3,
        lag_max_ms=0.4,
        rate_asked_rps=0.0,
        rate_sent_rps=8.0,
        in_flight_target=2,
        in_flight_mean=1.9,
        cpu_share=0.05,
        stall_ms=1.0,
        late_reads_share=0.0,
        merged_share=0.0,
        bundled_share=0.0,
        connections_failed=0,
        local_errors=0,
        resent=0,
        clock_drift_ms=0.0,
    )
) | {"broken": []}
PARAMS = {"load": "closed:2", "workload": "synthetic:16:2", "stop": "requests:6", "certificate": CERTIFICATE}


def numbers(blocks: Sequence[Block] = BLOCKS, label: str = "") -> tuple[Measurement, ...]:
    """The end-to-end times of blocks, as a load records them."""
    found = metrics.distributions(Records([b.data for b in blocks]))["e2e_ms"]
    lead = f"{label}." if label else ""
    return tuple(Measurement(f"{lead}e2e_ms", s, v, "ms", "lower", found.n) for s, v in found.summary().items())


def result(name: str = "latency", outcome: Outcome = "passed", **more: object) -> Result:
    """A result of ``test_NAME``, its key made of its name."""
    given: dict[str, object] = {
        "nodeid": f"performance/test_it.py::test_{name}[e-m-c8]",
        "key": f"{name.encode().hex():0<12}"[:12],
        "cell": CELL,
        "benchmark": name,
        "version": "1",
        "category": "performance",
        "outcome": outcome,
        "reason": "" if outcome == "passed" else f"why {name}",
        "params": PARAMS,
        "metrics": (*numbers(), Measurement("accuracy", "value", 0.78125, "share", "higher", 32, 0.61, 0.89, "wilson")),
        "started_at": AT,
        "duration_s": 1.5,
    }
    return Result(**{**given, **more})  # type: ignore[arg-type]  # the fields of a result


def write(engine: sa.Engine, *results: tuple[Result, Sequence[Block]], run_id: str = RUN, **more: object) -> None:
    """Writes a run into a store, as a session does."""
    writer = StoreWriter(engine)
    given = {"synthetic": False, "toy": False, "suite": "quick", "argv": ("pytest", "--kitt-suite=quick"), **more}
    writer.start_run(Run(run_id, AT, kitt_version="0.1.0", fingerprint=MACHINE, **given))  # type: ignore[arg-type]  # likewise
    for each, blocks in results:
        result_id = writer.start_result(run_id, each)
        for seq, samples in enumerate(blocks):
            writer.add_samples(result_id, seq, samples)
        writer.finish_result(run_id, each, result_id)
    writer.add_event(run_id, "engine ready", {"cell": "e-m"}, 1769860801.25)
    writer.finish_run(run_id, "passed", 0)
