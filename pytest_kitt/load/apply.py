"""How does ``kitt_load`` turn a load, a workload and a stop into a result on one engine?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from pytest_kitt.dialect.openai import PATHS, Api
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.errors import InvalidMeasurement, UserError
from pytest_kitt.load import run
from pytest_kitt.load.result import LoadResult
from pytest_kitt.load.run import Progress
from pytest_kitt.load.spec import ClientSpec, Closed, Ending, Prompts, Stop, Workload, load_of, stop_of, workload_of
from pytest_kitt.load.workload import Bodies, bodies

_MAX_DRIFT_NS = 1_000_000  # two readings of a steady clock differ by microseconds


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A load as asked for, its short forms resolved.

    Attributes:
        load: how requests arrive.
        workload: what they ask.
        stop: when enough was measured.
        api: chat or completions.
        warmup: uncounted requests in front.
        hold: keep the load up until the last measured request has ended.
        keep_text: record the answers' texts.
        seed: of every random choice.

    """

    load: Closed
    workload: Workload
    stop: Stop
    api: Api
    warmup: int
    hold: bool
    keep_text: bool
    seed: int

    def params(self, made: Bodies, sent: int) -> dict[str, Any]:
        """What is stored with the result."""
        params: dict[str, Any] = {
            "load": str(self.load),
            "concurrency": self.load.concurrency,
            "workload": str(self.workload),
            "stop": str(self.stop),
            "api": self.api,
            "warmup": self.warmup,
            "seed": self.seed,
        }
        if made.isl_by:
            params["prompt_length_by"] = made.isl_by
        if isinstance(self.workload, Prompts) and sent > len(self.workload.prompts):
            params["prompts_repeat"] = True
        return params


def asked(
    load: Closed | str,
    work: Workload | str,
    stop: Stop | str,
    *,
    api: Api,
    seed: int,
    warmup: int | None = None,
    hold: bool = True,
    keep_text: bool = False,
) -> Asked:
    """Resolves short forms; the warm-up's default is one request per slot. UserError says what is wrong."""
    closed = load_of(load)
    if warmup is not None and warmup < 0:
        raise UserError(f"warmup={warmup}: it is a number of requests, 0 for none")
    return Asked(
        load=closed,
        workload=workload_of(work),
        stop=stop_of(stop),
        api=api,
        warmup=closed.concurrency if warmup is None else warmup,
        hold=hold,
        keep_text=keep_text,
        seed=seed,
    )


def apply(
    wanted: Asked, engine: RunningEngine, *, mark: str, on_progress: Callable[[Progress], None] = lambda _: None
) -> tuple[LoadResult, tuple[bytes, ...]]:
    """Runs a load; the result and the raw blocks.

    InvalidMeasurement when not one request succeeded, when the load ended before its stop, or when the wall clock that
    the kernel stamps with was set meanwhile.
    """
    made = bodies(wanted.workload, engine, wanted.api, seed=wanted.seed)
    raw = run.run(_spec(wanted, made, engine), mark=mark, on_progress=on_progress)
    params = wanted.params(made, len(raw.table)) | {"clock": raw.ending.clock, "client": _account(raw.ending)}
    result = LoadResult(raw.table, raw.ending, params)
    result.require_samples()
    if raw.ending.stopped:
        raise InvalidMeasurement(f"the load ended after {result.n} good requests: {raw.ending.stopped}")
    if raw.ending.clock_drift_ns > _MAX_DRIFT_NS:
        raise InvalidMeasurement(
            f"the machine's wall clock was set by {raw.ending.clock_drift_ns / 1e6:.3g} ms during the load"
        )
    return result, raw.blocks


def _account(ending: Ending) -> dict[str, float]:
    """What the client says of itself, for whoever doubts a number."""
    return {
        "cpu_s": round(ending.cpu_s, 4),
        "wall_s": round(ending.wall_s, 4),
        "max_rss_bytes": ending.max_rss_bytes,
        "stall_ms": round(ending.stall_ms, 3),
        "merged_reads": ending.merged_reads,
        "clock_drift_us": ending.clock_drift_ns / 1000,
    }


def _spec(wanted: Asked, made: Bodies, engine: RunningEngine) -> ClientSpec:
    host, port, tls, prefix = run.address(engine.url)
    return ClientSpec(
        host=host,
        port=port,
        tls=tls,
        ca_file=engine.access.ca_file,
        path=prefix + PATHS[wanted.api],
        headers=engine.access.headers,
        bodies=made.bodies,
        prefix_words=made.words,
        prefix_length=made.prefix_length,
        salt=made.salt,
        concurrency=wanted.load.concurrency,
        warmup=wanted.warmup,
        requests=wanted.stop.requests,
        seconds=wanted.stop.seconds,
        hold=wanted.hold and wanted.load.concurrency > 1,
        timeout_s=engine.access.timeout_s,
        keep_text=wanted.keep_text,
    )
