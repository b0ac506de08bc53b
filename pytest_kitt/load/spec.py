"""What load is asked for? Frozen records and their short forms.

``"closed:48"`` (48 requests at any time), ``"requests:480"``, ``"seconds:60"``, ``"synthetic:200:128"`` (prompt tokens:
output tokens), ``"prompts:FILE"``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_kitt.errors import UserError, nearest


@dataclasses.dataclass(frozen=True, slots=True)
class Closed:
    """A closed loop: ``concurrency`` requests are under way at any time; the next goes out when one ends."""

    concurrency: int

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= 20_000:
            raise UserError(f"closed:{self.concurrency}: concurrency lies between 1 and 20000")

    def __str__(self) -> str:
        return f"closed:{self.concurrency}"


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """When enough was measured: after so many requests or so many seconds; exactly one of the two is set."""

    requests: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        one = (self.requests > 0) != (self.seconds > 0)
        if not one or self.requests < 0 or self.seconds < 0 or not math.isfinite(self.seconds):
            raise UserError("a stop is 'requests:N' or 'seconds:S', with a positive number")

    def __str__(self) -> str:
        return f"requests:{self.requests}" if self.requests else f"seconds:{self.seconds:g}"


@dataclasses.dataclass(frozen=True, slots=True)
class Synthetic:
    """Made-up prompts of a given length, each unique from its first token on, so that no prefix cache flatters.

    Attributes:
        prompt_tokens: length of a prompt, by the engine's tokenizer where it offers one.
        output_tokens: limit of the answer; its exact length where the engine can be forced.

    """

    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.prompt_tokens <= 10_000_000 or not 1 <= self.output_tokens <= 10_000_000:
            raise UserError(f"{self}: both lengths are at least 1 token")

    def __str__(self) -> str:
        return f"synthetic:{self.prompt_tokens}:{self.output_tokens}"


@dataclasses.dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts as given, in order, from the first again when they run out.

    Attributes:
        prompts: the texts.
        output_tokens: limit of each answer.
        name: shown as the workload's name.

    """

    prompts: tuple[str, ...] = dataclasses.field(repr=False)
    output_tokens: int = 128
    name: str = "prompts"

    def __str__(self) -> str:
        return self.name


Workload = Synthetic | Prompts


def load_of(load: Closed | str) -> Closed:
    """A load from an object or its short form."""
    if isinstance(load, Closed):
        return load
    kind, _, value = load.partition(":")
    if kind != "closed":
        raise UserError(f"load {load!r} is unknown; {nearest(kind, ['closed'])}, as in 'closed:8'")
    return Closed(_number(value, load, int))


def stop_of(stop: Stop | str) -> Stop:
    """A stop from an object or its short form."""
    if isinstance(stop, Stop):
        return stop
    kind, _, value = stop.partition(":")
    if kind == "requests":
        return Stop(requests=_number(value, stop, int))
    if kind == "seconds":
        return Stop(seconds=_number(value, stop, float))
    raise UserError(f"stop {stop!r} is unknown; {nearest(kind, ['requests', 'seconds'])}, as in 'requests:100'")


def workload_of(workload: Workload | str) -> Workload:
    """A workload from an object or its short form; reads the file of ``prompts:FILE``."""
    if not isinstance(workload, str):
        return workload
    kind, _, value = workload.partition(":")
    if kind == "prompts":
        return Prompts(tuple(read_prompts(Path(value))), name=f"prompts:{Path(value).name}")
    if kind == "synthetic":
        prompt, _, output = value.partition(":")
        return Synthetic(_number(prompt, workload, int), _number(output, workload, int))
    raise UserError(f"workload {workload!r} is unknown; {nearest(kind, ['synthetic', 'prompts'])}")


def read_prompts(path: Path) -> list[str]:
    """One prompt a line: plain text, or JSON objects with the key prompt or question (``.jsonl``)."""
    import orjson

    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"prompts file {path} cannot be read: {error}") from error
    # not splitlines: a prompt may hold the other characters that it takes for the end of a line
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"prompts file {path} is empty; write one prompt a line")
    if path.suffix != ".jsonl":
        return [line for _, line in lines]
    prompts = []
    for number, line in lines:
        try:
            row = orjson.loads(line)
            prompt = row.get("prompt") or row["question"]
        except (orjson.JSONDecodeError, AttributeError, KeyError):
            prompt = None
        if not isinstance(prompt, str) or not prompt:
            raise UserError(f"{path}:{number}: expected a JSON object with a text under the key prompt or question")
        prompts.append(prompt)
    return prompts


def _number(text: str, whole: str, kind: type[Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{whole!r}: {text!r} is not a number") from None


@dataclasses.dataclass(frozen=True, slots=True)
class ClientSpec:
    """All that the client child needs to know; travels as one JSON object on its standard input.

    Attributes:
        host: name or address to connect to.
        port: TCP port.
        tls: whether to speak TLS.
        ca_file: PEM file to trust instead of the system's authorities.
        path: request target.
        headers: without Host, Content-Type, Content-Length.
        bodies: JSON texts as (before, after) the place of the unique prefix; used in turn.
        prefix_words: words to make unique prefixes of; empty for prompts that are sent as they are.
        prefix_length: how many words a unique prefix has.
        salt: makes the prefixes of this load differ from those of every other.
        concurrency: connections, and requests under way.
        warmup: first requests that do not count.
        requests: measured requests, 0 when ``seconds`` decides.
        seconds: for how long measured requests are sent.
        hold: keep the load up with uncounted requests until the last measured one ended.
        timeout_s: limit of one request.
        keep_text: whether answers' texts are recorded.

    """

    host: str
    port: int
    tls: bool
    ca_file: str
    path: str
    headers: tuple[tuple[str, str], ...]
    bodies: tuple[tuple[str, str], ...]
    prefix_words: tuple[str, ...]
    prefix_length: int
    salt: str
    concurrency: int
    warmup: int
    requests: int
    seconds: float
    hold: bool
    timeout_s: float
    keep_text: bool

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ClientSpec:
        """The spec that was written as JSON."""
        return cls(**fields)


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """What the client child says of itself when a load has ended.

    Attributes:
        clock: kernel or user.
        wall_s: from the first send to the last byte.
        cpu_s: of the child, from its first connection on.
        max_rss_bytes: peak memory of the child.
        clock_drift_ns: largest change of the wall clock's offset.
        merged_reads: token-bearing events that came in one read with the one before, of good measured requests.
        stall_ms: longest time that passed without a look at the sockets.
        details: for each kind of failure, the first explanation.
        stopped: why it ended early, empty when it did not.

    """

    clock: str
    wall_s: float
    cpu_s: float
    max_rss_bytes: int
    clock_drift_ns: int
    merged_reads: int
    stall_ms: float
    details: Mapping[str, str]
    stopped: str
