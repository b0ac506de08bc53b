"""What load is asked for? Frozen records and their short forms.

Loads: ``"closed:48"`` (48 requests at any time), ``"adaptive:8:256"`` (as many as the server takes, from 8 to 256;
``"adaptive:256"`` begins with 8), ``"constant:10/s"``, ``"poisson:10/s"``, ``"gamma:10/s:2"`` (arrivals
per second, whatever the server does; the last number is the coefficient of variation of the gaps).
Stops: ``"requests:480"``, ``"seconds:60"``, either followed by ``",errors:20%"``.
Workloads: ``"synthetic:200:128"`` (prompt tokens:output tokens), ``"prompts:FILE"``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pytest_kitt.errors import UserError, nearest, why

_EXAMPLES = {
    "closed": "'closed:8'",
    "adaptive": "'adaptive:256' or 'adaptive:8:256'",
    "constant": "'constant:10/s'",
    "poisson": "'poisson:10/s'",
    "gamma": "'gamma:10/s:2'",
    "requests": "'requests:100' or 'requests:100,errors:20%'",
    "seconds": "'seconds:60' or 'seconds:60,errors:20%'",
    "synthetic": "'synthetic:200:128' (prompt tokens, output tokens)",
}
Process = Literal["constant", "poisson", "gamma"]
_MOST_SLOTS = 20_000
_FIRST_SLOTS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Closed:
    """A closed loop: ``concurrency`` requests are under way at any time; the next goes out when one ends."""

    concurrency: int

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= _MOST_SLOTS:
            raise UserError(f"closed:{self.concurrency}: concurrency lies between 1 and {_MOST_SLOTS}")

    def __str__(self) -> str:
        return f"closed:{self.concurrency}"


@dataclasses.dataclass(frozen=True, slots=True)
class Adaptive:
    """A closed loop whose number of slots is found while it runs: as many requests as make answers end the fastest.

    Attributes:
        first: requests under way in the beginning.
        most: never more than these; fewer than ``first`` only where the server refuses requests.

    """

    first: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.most <= _MOST_SLOTS:
            raise UserError(f"{self}: expected adaptive:FIRST:MOST, with 1 <= FIRST <= MOST <= {_MOST_SLOTS}")

    def __str__(self) -> str:
        return f"adaptive:{self.first}:{self.most}"


@dataclasses.dataclass(frozen=True, slots=True)
class Arrivals:
    """An open loop: requests are sent when they are due, however many are still under way.

    Attributes:
        rate_rps: mean number of arrivals per second.
        process: how the gaps between them are distributed: constant, poisson or gamma.
        cv: coefficient of variation of the gaps (standard deviation / mean): 0 constant, 1 Poisson.

    """

    rate_rps: float
    process: Process = "poisson"
    cv: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.rate_rps <= 100_000:
            raise UserError(f"{self}: the rate lies above 0 and at most at 100000 requests per second")
        if self.process not in get_args(Process):
            raise UserError(f"arrivals {self.process!r} are unknown; {nearest(self.process, get_args(Process))}")
        if self.process == "gamma" and not 0.01 <= self.cv <= 100:
            raise UserError(f"{self}: the coefficient of variation lies between 0.01 and 100; 1 is Poisson")
        object.__setattr__(self, "cv", {"constant": 0.0, "poisson": 1.0}.get(self.process, self.cv))

    def __str__(self) -> str:
        tail = f":{self.cv:g}" if self.process == "gamma" else ""
        return f"{self.process}:{self.rate_rps:g}/s{tail}"


Load = Closed | Adaptive | Arrivals


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """When enough was measured: after so many requests or so many seconds; exactly one of the two is set.

    Attributes:
        requests: measured requests.
        seconds: for how long measured requests are sent.
        max_error_share: the load ends early once at least 50 requests have ended and this share of them failed.

    """

    requests: int = 0
    seconds: float = 0.0
    max_error_share: float = 1.0

    def __post_init__(self) -> None:
        one = (self.requests > 0) != (self.seconds > 0)
        if not one or self.requests < 0 or self.seconds < 0 or not math.isfinite(self.seconds):
            raise UserError("a stop is 'requests:N' or 'seconds:S', with a positive number")
        if not 0 < self.max_error_share <= 1:
            raise UserError("the errors of a stop are a share above 0 and up to 1, as in 'requests:100,errors:20%'")

    def __str__(self) -> str:
        what = f"requests:{self.requests}" if self.requests else f"seconds:{self.seconds:g}"
        return what if self.max_error_share == 1 else f"{what},errors:{100 * self.max_error_share:g}%"


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
        forced: make the limit the exact length of an answer, where the engine can be forced.
        fields: of each request beside the usual ones, such as ``{"stop": ["Q:"]}``.

    """

    prompts: tuple[str, ...] = dataclasses.field(repr=False)
    output_tokens: int = 128
    name: str = "prompts"
    forced: bool = False
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True, slots=True)
class Calls:
    """JSON requests as they are, each once and in order; their answers come in one piece and are passed on whole.

    Of such a load there is no time to a first token, and none between tokens. Its answers' texts are not stored.

    Attributes:
        path: where they go.
        fd: of a file with one request a line.
        count: how many there are.
        name: shown as the workload's name.

    """

    path: str
    fd: int
    count: int
    name: str = "calls"

    def __str__(self) -> str:
        return self.name


Workload = Synthetic | Prompts | Calls


def load_of(load: Load | str) -> Load:
    """A load from an object or its short form."""
    if not isinstance(load, str):
        return load
    kind, _, value = load.partition(":")
    if kind == "closed":
        return Closed(_number(value, load, int))
    if kind == "adaptive":
        one, _, two = value.partition(":")
        most = _number(two or one, load, int)
        return Adaptive(_number(one, load, int) if two else min(_FIRST_SLOTS, most), most)
    if kind not in get_args(Process):
        known = ["closed", "adaptive", *get_args(Process)]
        raise UserError(f"load {load!r} is unknown; {nearest(kind, known)}, as in 'closed:8' or 'poisson:10/s'")
    rate, _, cv = value.partition(":")
    if cv and kind != "gamma":
        raise UserError(f"load {load!r}: only gamma takes a second number, as in 'gamma:10/s:2'")
    if kind == "gamma" and not cv:
        raise UserError(f"load {load!r}: gamma needs a coefficient of variation, as in 'gamma:10/s:2'")
    return Arrivals(_number(rate.removesuffix("/s"), load, float), kind, _number(cv or "1", load, float))  # type: ignore[arg-type]  # checked above


def stop_of(stop: Stop | str) -> Stop:
    """A stop from an object or its short form."""
    if not isinstance(stop, str):
        return stop
    first, _, more = stop.partition(",")
    kind, _, value = first.partition(":")
    name, _, share = more.partition(":")
    if more and name != "errors":
        raise UserError(f"stop {stop!r}: {more!r} is unknown; say 'errors:20%' behind the comma, or nothing")
    errors = _share(share, stop) if more else 1.0
    if kind == "requests":
        return Stop(requests=_number(value, stop, int), max_error_share=errors)
    if kind == "seconds":
        return Stop(seconds=_number(value, stop, float), max_error_share=errors)
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
        raise UserError(f"prompts file {path} cannot be read: {why(error)}; check the path") from error
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


def _share(text: str, whole: str) -> float:
    percent = text.endswith("%")
    value: float = _number(text.removesuffix("%"), whole, float)
    return value / 100 if percent else value


def _number(text: str, whole: str, kind: type[Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        example = _EXAMPLES.get(whole.partition(":")[0], "")
        raise UserError(f"{whole!r}: {text!r} is not a number{', as in ' if example else ''}{example}") from None


@dataclasses.dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy between the client and the server.

    Attributes:
        host: its name or address.
        port: its port.
        authorization: value of the header Proxy-Authorization, empty for none.

    """

    host: str
    port: int
    authorization: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class ClientSpec:
    """All that a client child needs to know; travels as one JSON object on its standard input.

    Attributes:
        host: name or address to connect to.
        port: TCP port.
        tls: whether to speak TLS.
        ca_file: PEM file to trust instead of the system's authorities.
        proxy: HTTP proxy to go through, None for none.
        api: which API is spoken.
        path: request target.
        headers: without Host, Content-Type, Content-Length.
        bodies: JSON texts as (before, after) the place of the unique prefix; used in turn.
        bodies_fd: in their place, of a file with one JSON text a line; -1 for none.
        prefix_words: words to make unique prefixes of; empty for prompts that are sent as they are.
        prefix_length: how many words a unique prefix has.
        salt: makes the prefixes of this load differ from those of every other.
        concurrency: requests under way in a closed loop, at first in an adaptive one, 0 for an open one.
        most: requests that may come to be under way in an adaptive loop, 0 for any other.
        retries: how often a request is sent again that the server did not take.
        arrivals: when requests of an open loop are due, None for a closed one.
        seed: of the arrivals.
        connections: how many to open before the clock starts.
        max_connections: how many requests may be under way in an open loop.
        client: which of the clients of a load this is, from 0; its requests are client, client + clients, ...
        clients: how many clients share the load.
        warmup: first requests that do not count.
        requests: measured requests, 0 when ``seconds`` decides.
        seconds: for how long measured requests are sent.
        max_error_share: share of failed requests at which the load ends early.
        hold: keep the load up with uncounted requests until the last measured one of all clients has ended.
        timeout_s: limit of one request.
        keep_text: whether answers' texts are recorded.
        user_clock: read the clock in this process though the kernel could; for comparison.

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
    api: str = "completions"
    arrivals: Arrivals | None = None
    seed: str = ""
    connections: int = 0
    max_connections: int = 0
    client: int = 0
    clients: int = 1
    max_error_share: float = 1.0
    proxy: Proxy | None = None
    user_clock: bool = False
    bodies_fd: int = -1
    most: int = 0
    retries: int = 0

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ClientSpec:
        """The spec that was written as JSON."""
        arrivals, proxy = fields["arrivals"], fields["proxy"]
        parts = {"arrivals": arrivals and Arrivals(**arrivals), "proxy": proxy and Proxy(**proxy)}
        return cls(**{**fields, **parts})

    def split(self, clients: int) -> list[ClientSpec]:
        """The shares of several clients: disjoint requests of one load."""
        return [
            dataclasses.replace(
                self,
                client=k,
                clients=clients,
                concurrency=_part(self.concurrency, k, clients),
                most=_part(self.most, k, clients),
                warmup=_part(self.warmup, k, clients),
                requests=_part(self.requests, k, clients),
                connections=_part(self.connections, k, clients),
                max_connections=_part(self.max_connections, k, clients),
            )
            for k in range(clients)
        ]


def _part(whole: int, k: int, clients: int) -> int:
    """Share k of a whole number: all shares add up to it, the first ones are the larger ones."""
    return whole // clients + (k < whole % clients)


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What a client child says five times a second of how far its load is.

    Attributes:
        done: measured requests that ended.
        failed: those of them that failed.
        tokens: of all requests, those under way included; more precise when a request has ended.
        in_flight: requests under way.
        reads: how often something came from the server.
        warmed: warm-up requests that ended.
        phase: a ``Phase``: of what is sent now.
        measured_ns: since the first measured request was due.
        ttft_ns: of measured requests whose first token was read since the last look.
        gaps_ns: of the gaps between tokens that were read since then, one in sixteen.

    """

    done: int
    failed: int
    tokens: int
    in_flight: int
    reads: int
    warmed: int
    phase: int
    measured_ns: int
    ttft_ns: list[int]
    gaps_ns: list[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """What a client child says of itself when a load has ended.

    Attributes:
        clock: kernel or user.
        wall_s: from the start of the load to its last byte.
        cpu_s: of the child, from the start of the load to the last record.
        max_rss_bytes: peak memory of the child.
        clock_drift_ns: largest change of the wall clock's offset.
        merged: token-bearing events that one read brought with the one before, in a chunk of their own.
        bundled: token-bearing events that came in one chunk with the one before.
        reads: how many times bytes were read.
        late_reads: reads whose bytes had lain in the socket for more than 5 ms.
        stall_ms: longest time that passed without a look at the sockets.
        local_errors: connections that failed for want of something on this machine: files, ports, memory.
        samples: (osl by usage, token-bearing events, text, reasoning) of a few good answers.
        details: for each kind of failure, the first explanation.
        stopped: why it ended early, empty when it did not.
        slots: requests at a time that an adaptive loop found the server to take, 0 of any other.

    """

    clock: str
    wall_s: float
    cpu_s: float
    max_rss_bytes: int
    clock_drift_ns: int
    merged: int
    bundled: int
    reads: int
    late_reads: int
    stall_ms: float
    local_errors: int
    samples: list[tuple[int, int, str, str]]
    details: Mapping[str, str]
    stopped: str
    slots: int = 0


def joined(endings: Sequence[Ending]) -> Ending:
    """One account of several clients: what is counted adds up, of what is measured the worst counts."""

    def total(name: str) -> Any:
        return sum(getattr(ending, name) for ending in endings)

    def worst(name: str) -> Any:
        return max(getattr(ending, name) for ending in endings)

    return Ending(
        clock="kernel" if all(ending.clock == "kernel" for ending in endings) else "user",
        wall_s=worst("wall_s"),
        cpu_s=total("cpu_s"),
        max_rss_bytes=total("max_rss_bytes"),
        clock_drift_ns=worst("clock_drift_ns"),
        merged=total("merged"),
        bundled=total("bundled"),
        reads=total("reads"),
        late_reads=total("late_reads"),
        stall_ms=worst("stall_ms"),
        local_errors=total("local_errors"),
        samples=[sample for ending in endings for sample in ending.samples],
        details={name: text for ending in reversed(endings) for name, text in ending.details.items()},
        stopped=next((ending.stopped for ending in endings if ending.stopped), ""),
        slots=total("slots"),
    )
