"""How does pytest-benchmark see a run? End-to-end times in seconds, so that ``pytest-benchmark compare`` reads it."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_kitt.measure.metrics import BY_NAME, is_good
from pytest_kitt.measure.records import CODEC, RequestTable
from pytest_kitt.measure.results import Block
from pytest_kitt.measure.stats import Distribution, percentile
from pytest_kitt.report import document, scores
from pytest_kitt.report.junit_xml import address

VERSION = "5.1.0"  # of pytest-benchmark, whose form this is
_TIME = "e2e_ms"
_TRUSTED = ("passed", "failed", "inconclusive")
_SAME = 1e-9


def render(
    found: Mapping[str, Any], blocks: Callable[[int], Iterable[Block]], left_out: Callable[[str], None]
) -> dict[str, Any]:
    """The document: ``found`` as ``document.read`` gives it, ``blocks`` the raw samples of a result by id.

    One benchmark per load of a trusted result; ``left_out`` is told, in a sentence, of each that has no times.
    """
    return {
        "machine_info": _machine(found["run"]["fingerprint"] or {}),
        "commit_info": {"id": None, "time": None, "author_time": None, "dirty": None, "project": None, "branch": None},
        "benchmarks": [
            benchmark
            for result in found["results"]
            for benchmark in _benchmarks(found["run"], result, blocks, left_out)
        ],
        "datetime": found["run"]["started_at"],
        "version": VERSION,
    }


def _benchmarks(
    run: Mapping[str, Any],
    result: Mapping[str, Any],
    blocks: Callable[[int], Iterable[Block]],
    left_out: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    if result["outcome"] not in _TRUSTED:
        left_out(f"{result['nodeid']} is left out: it is {result['outcome']}")
        return
    labels = _labels(result)
    if not labels:
        left_out(f"{result['nodeid']} is left out: it has no {_TIME}")
        return
    times = _times(labels, blocks(result["id"]))
    if times is None:
        left_out(f"{result['nodeid']} is left out: its raw samples are not all there, or are not those of its numbers")
        return
    for label, values in times.items():
        yield _benchmark(run, result, label, values)


def _benchmark(
    run: Mapping[str, Any], result: Mapping[str, Any], label: str, values_ms: Distribution
) -> dict[str, Any]:
    _, name = address(result["nodeid"])
    tail = f" {label}" if label else ""
    cell = result["cell"] or {}
    plain = {key: value for key, value in result["params"].items() if isinstance(value, str | int | float)}
    inside = result["nodeid"].rpartition("[")[2].removesuffix("]") if "[" in name else None
    own = f"{label}." if label else ""
    return {
        "group": f"{result['benchmark']}{tail}",
        "name": f"{name}{tail}",
        "fullname": f"{result['nodeid']}{tail}",
        "params": {**({"kitt_engine": cell["id"]} if cell else {}), **plain},
        "param": inside,
        "extra_info": {
            "run": run["id"],
            "outcome": result["outcome"],
            "certified": document.certified(result, label),
            "metric": f"{own}{_TIME}",
            "toy": cell.get("toy", False),
            "synthetic": cell.get("synthetic", False),
            "data": scores.data(result["params"]) or None,
            "metrics": {_key(m): m["value"] for m in result["metrics"]},
        },
        "options": {
            **dict.fromkeys(("disable_gc", "warmup")),
            "timer": "kitt",
            "min_rounds": None,
            "max_time": None,
            "min_time": None,
        },
        "stats": _stats([value / 1000 for value in values_ms.values]),
    }


def _stats(ordered: Sequence[float]) -> dict[str, Any]:
    """What pytest-benchmark says of values in seconds, ascending; quartiles are interpolated as all of ours."""
    n, total = len(ordered), math.fsum(ordered)
    mean = total / n
    stddev = math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / (n - 1)) if n > 1 else 0.0
    q1, median, q3 = (percentile(ordered, q) for q in (0.25, 0.5, 0.75))
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    beyond = _outside(ordered, low, high)
    far = _outside(ordered, mean - stddev, mean + stddev)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": stddev,
        "rounds": n,
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": beyond,
        "stddev_outliers": far,
        "outliers": f"{far};{beyond}",
        "ld15iqr": ordered[bisect_left(ordered, low)],
        "hd15iqr": ordered[bisect_right(ordered, high) - 1],
        "ops": n / total if total > 0 else 0.0,
        "total": total,
        "iterations": 1,
    }


def _outside(ordered: Sequence[float], low: float, high: float) -> int:
    return bisect_left(ordered, low) + len(ordered) - bisect_right(ordered, high)


def _labels(result: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """The statistics of the times of each load by its label, in the order of the loads; the first has no label."""
    found: dict[str, Mapping[str, float]] = {}
    for key in result["params"]:
        lead, _, name = key.rpartition(".")
        metric = f"{lead}.{_TIME}" if lead else _TIME
        stats = {m["stat"]: m["value"] for m in result["metrics"] if m["name"] == metric}
        counts = [m["n"] for m in result["metrics"] if m["name"] == metric]
        if name == "load" and stats:
            found[lead] = {**stats, "n": counts[0]}
    return found


def _times(labels: Mapping[str, Mapping[str, float]], blocks: Iterable[Block]) -> dict[str, Distribution] | None:
    """The times of each load in milliseconds, ascending; None unless they are those that its numbers were made of.

    A block belongs to one load, and loads follow each other: each takes blocks until it has its number of times.
    """
    found: dict[str, Distribution] = {}
    values = array("d")
    waiting = list(labels)
    for block in blocks:
        if block.codec != CODEC or not (new := _of_block(block)):
            continue
        if not waiting:
            return None
        values.extend(new)
        if len(values) == labels[waiting[0]]["n"]:
            label = waiting.pop(0)
            found[label], values = Distribution(_TIME, array("d", sorted(values))), array("d")
    whole = not waiting and not values
    return found if whole and all(_agrees(found[label], labels[label]) for label in found) else None


def _of_block(block: Block) -> list[float]:
    value = BY_NAME[_TIME].value
    assert value is not None
    rows = RequestTable.from_bytes(block.data).rows()
    return [ms for r in rows if is_good(r.phase, r.failure, len(r.event_ns)) and (ms := value(r)) is not None]


def _agrees(values: Distribution, stats: Mapping[str, float]) -> bool:
    recomputed = {"min": values.min, "max": values.max, "mean": values.mean}
    return all(math.isclose(stats[name], value, rel_tol=_SAME) for name, value in recomputed.items() if name in stats)


def _machine(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "node": facts.get("key"),  # never the machine's name
        "processor": facts.get("cpu"),
        "machine": facts.get("architecture"),
        "python_version": facts.get("python"),
        "system": facts.get("system"),
        "release": facts.get("kernel"),
        "cpu": {
            "brand_raw": facts.get("cpu"),
            "count": facts.get("cores"),
            "arch": facts.get("architecture"),
        },
    }


def _key(metric: Mapping[str, Any]) -> str:
    return str(metric["name"] if metric["stat"] == "value" else f"{metric['name']}.{metric['stat']}")
