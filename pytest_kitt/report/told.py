"""What does a report tell of each result? Its loads, numbers, certificates and verdict, ready to be shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_kitt.load import certificate as bounds
from pytest_kitt.measure.metrics import BY_NAME
from pytest_kitt.measure.results import Measurement, label
from pytest_kitt.report import scores
from pytest_kitt.report.scores import Scores
from pytest_kitt.report.terminal import drift, scaled

OUTCOMES = ("failed", "invalid", "error", "inconclusive", "skipped", "passed")
"""What needs a look comes first."""
STATS = ("mean", "std", "min", "p50", "p90", "p95", "p99", "p999", "max")
COLUMNS = (
    ("accuracy", "value", "Accuracy"),
    ("ttft_ms", "p50", "TTFT p50"),
    ("ttft_ms", "p99", "TTFT p99"),
    ("itl_ms", "p50", "ITL p50"),
    ("itl_ms", "p99", "ITL p99"),
    ("e2e_ms", "p50", "E2E p50"),
    ("output_tps", "value", "Output"),
    ("request_rps", "value", "Requests"),
    ("requests_failed", "value", "Failed"),
)
_FIELDS = tuple(field.name for field in dataclasses.fields(Measurement))
_ASKED = ("load", "workload", "stop", "api")


@dataclasses.dataclass(frozen=True, slots=True)
class Number:
    """One stored number as it is shown; ``interval`` is empty where there is none."""

    text: str
    value: float
    n: int
    interval: str
    method: str


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """One line of a certificate; ``bound`` is empty where there is none."""

    name: str
    text: str
    bound: str


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """One load of a result, or what a result without a load recorded.

    Attributes:
        label: empty for the first.
        spec: load, workload, stop and API, as far as stored; empty without a load.
        params: all of its parameters but the certificate.
        numbers: by metric and statistic.
        apart: names of metrics that are told elsewhere.
        facts: of its certificate.
        broken: bounds that do not hold.
        cure: what to do about them.

    """

    label: str
    spec: Mapping[str, str]
    params: Mapping[str, Any]
    numbers: Mapping[tuple[str, str], Number]
    apart: frozenset[str]
    facts: tuple[Fact, ...]
    broken: tuple[str, ...]
    cure: str

    @property
    def asked(self) -> str:
        """What was asked for, in one line."""
        return ", ".join(self.spec.values())

    @property
    def spread(self) -> list[str]:
        """Metrics with a distribution."""
        return [name for name in self._names if (name, "value") not in self.numbers]

    @property
    def single(self) -> list[str]:
        """Metrics of one number."""
        return [name for name in self._names if (name, "value") in self.numbers and name not in self.apart]

    @property
    def stats(self) -> list[str]:
        """Statistics that any of its distributions has, the well-known ones first."""
        found = {stat for name, stat in self.numbers if stat != "value"}
        return [stat for stat in STATS if stat in found] + sorted(found - set(STATS))

    @property
    def _names(self) -> list[str]:
        order = {name: place for place, name in enumerate(BY_NAME)}
        return sorted({name for name, _ in self.numbers}, key=lambda name: (order.get(name, -1), name))

    def get(self, name: str, stat: str) -> Number | None:
        """A number, where it was measured."""
        return self.numbers.get((name, stat))


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """One result.

    Attributes:
        id: of the result.
        name: benchmark with what tells its variants apart, and the attempt.
        cell: its cell as stored, None without an engine.
        place: number of the cell among the cells of the page.
        outcome: one of the six.
        reason: why.
        scores: of its answers.
        loads: at least one.
        result: all of it, as the reader gave it.

    """

    id: int
    name: str
    cell: Mapping[str, Any] | None
    place: int
    outcome: str
    reason: str
    scores: Scores
    loads: tuple[Load, ...]
    result: Mapping[str, Any]

    @property
    def rank(self) -> int:
        """Where its outcome stands when results are sorted by it."""
        return OUTCOMES.index(self.outcome) if self.outcome in OUTCOMES else 0

    @property
    def drift(self) -> str:
        """What is wrong with the prompts that its chats had, if anything is."""
        return drift(self.result["params"])

    @property
    def sound(self) -> bool:
        """Whether its numbers may be compared: it passed or failed by them."""
        return self.outcome in ("passed", "failed", "inconclusive")


def cell_name(cell: Mapping[str, Any] | None) -> str:
    """A cell as it is called on the page."""
    return str(cell["id"]) if cell else "no engine"


def told(result: Mapping[str, Any], place: int) -> Told:
    """One result of ``reader.show_run``."""
    cell = result["cell"]
    name = label(result["benchmark"], result["nodeid"], cell["id"] if cell else None)
    answered = scores.of(result["params"], [Measurement(**{f: m[f] for f in _FIELDS}) for m in result["metrics"]])
    attempt = f" (attempt {result['attempt']})" if result["attempt"] > 1 else ""
    return Told(
        id=int(result["id"]),
        name=name + attempt,
        cell=cell,
        place=place,
        outcome=str(result["outcome"]),
        reason=str(result["reason"]).removeprefix("InvalidMeasurement: "),
        scores=answered,
        loads=tuple(_loads(result, answered.names)),
        result=result,
    )


def columns(results: Iterable[Told]) -> list[tuple[str, str, str]]:
    """The columns of a table of results: those that one of them has."""
    there = {key for one in results for load in one.loads for key in load.numbers}
    return [column for column in COLUMNS if column[:2] in there]


def _loads(result: Mapping[str, Any], apart: frozenset[str]) -> Iterable[Load]:
    params = result["params"]
    labels = list(dict.fromkeys(["", *(key.rpartition(".")[0] for key in params if _last(key) == "load")]))
    if "load" not in params and len(labels) > 1 and not any(_label_of(m, labels) == "" for m in result["metrics"]):
        labels.remove("")
    for name in labels:
        mine = [m for m in result["metrics"] if _label_of(m, labels) == name]
        yield _load(name, _params_of(params, name, labels), mine, apart, timed=result["category"] != "quality")


def _load(
    name: str, params: Mapping[str, Any], found: Sequence[Mapping[str, Any]], apart: frozenset[str], *, timed: bool
) -> Load:
    certificate = params.get("certificate")
    certificate = certificate if timed and isinstance(certificate, dict) else {}
    lead = f"{name}." if name else ""
    return Load(
        label=name,
        spec={key: str(params[key]) for key in _ASKED if key in params},
        params={key: value for key, value in params.items() if key not in ("certificate", "blocks", *_ASKED)},
        apart=apart,
        numbers={(m["name"].removeprefix(lead), m["stat"]): _number(m) for m in found},
        facts=tuple(_facts(certificate)) if certificate else (),
        broken=tuple(map(str, certificate.get("broken", ()))),
        cure=str(certificate.get("cure", "")),
    )


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _label_of(metric: Mapping[str, Any], labels: Sequence[str]) -> str:
    lead, _, name = metric["name"].rpartition(".")
    return lead if name in BY_NAME and lead in labels else ""


def _params_of(params: Mapping[str, Any], name: str, labels: Sequence[str]) -> dict[str, Any]:
    if name:
        return {key.removeprefix(f"{name}."): value for key, value in params.items() if key.startswith(f"{name}.")}
    others = tuple(f"{other}." for other in labels if other)
    return {key: value for key, value in params.items() if not (others and key.startswith(others))}


def _number(m: Mapping[str, Any]) -> Number:
    low, high = m["ci_low"], m["ci_high"]
    interval = "" if low is None or high is None else f"{scaled(low, m['unit'])} to {scaled(high, m['unit'])}"
    return Number(scaled(m["value"], m["unit"]), m["value"], m["n"], interval, m["method"] or "")


def _facts(c: Mapping[str, Any]) -> Iterable[Fact]:
    """What a client can prove of itself, each with its bound."""

    def of(name: str) -> float:
        value = c.get(name, 0)
        return float(value) if isinstance(value, int | float) else 0.0

    yield Fact("Sent late, median", scaled(of("lag_p50_ms"), "ms"), "")
    yield Fact("Sent late, p99", scaled(of("lag_p99_ms"), "ms"), scaled(bounds.MAX_LAG_P99_MS, "ms"))
    yield Fact("Sent late, most", scaled(of("lag_max_ms"), "ms"), scaled(bounds.MAX_LAG_MS, "ms"))
    if of("in_flight_target"):
        asked = f"{of('in_flight_mean'):.3g} of {of('in_flight_target'):g}"
        yield Fact("Requests under way, mean", asked, f"at least {bounds.MIN_IN_FLIGHT:.0%}")
    elif of("rate_asked_rps"):
        asked = f"{of('rate_sent_rps'):.4g}/s of {of('rate_asked_rps'):.4g}/s due"
        yield Fact("Pace of the sending", asked, f"within {bounds.MAX_RATE_ERROR:.0%}")
    elif of("in_flight_mean"):
        yield Fact("Requests under way, mean", f"{of('in_flight_mean'):.3g}", "")
    yield Fact("Client's core", f"{of('cpu_share'):.0%}", f"{bounds.MAX_CPU:.0%}")
    yield Fact("Reads that waited 5 ms", f"{of('late_reads_share'):.2%}", f"{bounds.MAX_LATE_READS:.0%}")
    merged = f"{bounds.MAX_MERGED:.1%}, or {bounds.MAX_MERGED_SHORT:.0%} where gaps are short"
    yield Fact("Tokens merged by the client", f"{of('merged_share'):.2%}", merged)
    yield Fact("Tokens bundled by the server", f"{of('bundled_share'):.2%}", f"{bounds.MAX_BUNDLED:.0%}")
    yield Fact("Longest time without a look", scaled(of("stall_ms"), "ms"), "")
    yield Fact("Wall clock was set by", scaled(of("clock_drift_ms"), "ms"), scaled(bounds.MAX_DRIFT_MS, "ms"))
    failed = f"{of('connections_failed'):g}, {of('local_errors'):g} for want of something here"
    yield Fact("Connections that failed", failed, "none for want of something here")
    again = f"{of('resent'):g} on a new connection, {of('retried'):g} that were not taken"
    yield Fact("Requests sent again", again, "")
    yield Fact("Clock", str(c.get("clock", "")), "")
