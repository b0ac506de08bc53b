"""What is one result? Frozen records that travel from a test to the store and the reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from pytest_kitt.measure.metrics import Better

Outcome = Literal["passed", "failed", "inconclusive", "invalid", "error", "skipped"]
SAMPLE = "sample"  # of data: the few questions that ship with an evaluation, none of its dataset
NOT_FINISHED = "the item has not ended"
RunStatus = Literal["running", "passed", "failed", "error", "interrupted"]


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """One number.

    Attributes:
        name: metric, unit as suffix (``ttft_ms``).
        stat: ``value`` for a single number, else mean, std, min, max, p50, p90, p95, p99, p999.
        value: finite.
        unit: as in the table of metrics.
        better: lower, higher or none.
        n: how many samples it rests on, at least 1.
        ci_low: lower end of the 95 % interval, where there is one.
        ci_high: its upper end.
        method: how the interval was made.

    """

    name: str
    stat: str
    value: float
    unit: str
    better: Better
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    method: str | None = None

    @property
    def key(self) -> str:
        """The one spelling of a metric: ``ttft_ms.p99``; plain ``output_tps`` for a single number."""
        return self.name if self.stat == "value" else f"{self.name}.{self.stat}"


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A piece of raw samples.

    Attributes:
        codec: how to read it: ``kitt-columns-1`` (request records) or ``jsonl`` (one question a line).
        n: number of samples inside.
        data: the bytes, at most 1 MiB for request records.

    """

    codec: str
    n: int
    data: bytes


class Samples(Protocol):
    """What a Block has; the bytes may lie on disk until they are asked for."""

    @property
    def codec(self) -> str:
        """How to read it."""

    @property
    def n(self) -> int:
        """Number of samples inside."""

    @property
    def data(self) -> bytes:
        """The bytes."""


@dataclasses.dataclass(frozen=True, slots=True)
class CellFacts:
    """A cell as it ran.

    Attributes:
        key: 12 hexadecimal digits, stable over time and machines.
        id: as in node ids.
        engine: name of the card.
        engine_version: as the engine said, or its image; empty when unknown.
        runtime: container, compose, embedded, process or endpoint.
        model: ref, name, format, quantization, parameters, digest, size_bytes, architecture, context, revision.
        api: chat or completions.
        overrides: engine arguments that the user set.
        argv: command line that started the engine, secrets masked; empty for an endpoint.
        synthetic: not measured on a real engine.
        toy: the tiny model.
        image: of its container, as it was asked for; empty without one.
        image_digest: the image itself: ``name@sha256:...`` where a registry gave one, else Docker's id.

    """

    key: str
    id: str
    engine: str
    engine_version: str
    runtime: str
    model: Mapping[str, Any]
    api: str
    overrides: Mapping[str, str]
    argv: tuple[str, ...]
    synthetic: bool
    toy: bool
    image: str = ""
    image_digest: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one benchmark on one cell.

    Attributes:
        nodeid: pytest's id, for people; never a key.
        key: 12 hexadecimal digits over what was asked: cell, benchmark, its version, its parameters, API, seed and
            questions. Two results of one key answer the same question.
        cell: where it ran; None for an item that has no engine.
        benchmark: name, from the marker or the function.
        version: version of the benchmark.
        category: performance, quality or custom.
        outcome: one of the six outcomes.
        reason: why, in one sentence or more, empty for a pass.
        params: load level, workload and the like.
        metrics: the numbers.
        started_at: ISO-8601, UTC.
        duration_s: of the whole item.
        attempt: 1, or more when the item was run again in the same run: by ``--kitt-resume``, or by a plugin such as
            pytest-rerunfailures.

    """

    nodeid: str
    key: str
    cell: CellFacts | None
    benchmark: str
    version: str
    category: str
    outcome: Outcome
    reason: str
    params: Mapping[str, Any]
    metrics: tuple[Measurement, ...]
    started_at: str
    duration_s: float
    attempt: int = 1

    def to_json(self) -> str:
        """All of it, for the way from a worker to the controller."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Result:
        """What ``to_json`` wrote."""
        return cls.from_fields(json.loads(text))

    @classmethod
    def from_fields(cls, said: Mapping[str, Any]) -> Result:
        """A result from plain values, as JSON or the store give them; what else they say is left out."""
        names = {field.name for field in dataclasses.fields(cls)}
        cell = said["cell"]
        known = {
            "cell": None if cell is None else CellFacts(**{**cell, "argv": tuple(cell["argv"])}),
            "metrics": tuple(Measurement(**metric) for metric in said["metrics"]),
        }
        return cls(**{name: value for name, value in said.items() if name in names} | known)


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One session.

    Attributes:
        id: sorts by time, e.g. ``20260131-120000-3fa1c2``.
        started_at: ISO-8601, UTC.
        suite: names of the suites, comma-separated; empty for none.
        argv: the pytest command line that reproduces it, secrets masked.
        kitt_version: version of this package.
        synthetic: whether any cell is synthetic.
        toy: whether any cell is the tiny model.
        fingerprint: facts about the machine; has a ``key``.

    """

    id: str
    started_at: str
    suite: str
    argv: tuple[str, ...]
    kitt_version: str
    synthetic: bool
    toy: bool
    fingerprint: Mapping[str, Any]


def label(benchmark: str, nodeid: str, cell_id: str | None) -> str:
    """A benchmark with what tells the variants of a parametrised test apart: ``throughput[c8]``."""
    _, bracket, inside = nodeid.rpartition("[")
    own = inside.rstrip("]").removeprefix(cell_id or "").strip("-") if bracket else ""
    return f"{benchmark}[{own}]" if own else benchmark
