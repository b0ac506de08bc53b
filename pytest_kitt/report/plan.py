"""What would a session do, and what would it cost? Items and history in, lines out; nothing is started.

An item costs what it cost when it last passed on the same cell, else on a cell of the same kind (a simulated engine
says nothing about a real one, nor the tiny model about a product), else what its author declared, else it is unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pytest_kitt.matrix import Cell
from pytest_kitt.report.terminal import table
from pytest_kitt.store.reader import Past

Source = Literal["last run", "other cell", "declared", "unknown"]
History = Mapping[tuple[str, str], Sequence[Past]]
_NO_ENGINE = "no engine"


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """An item that would run.

    Attributes:
        cell: where; None for one without an engine.
        label: its name for people, with what tells its variants apart.
        benchmark: its name in the store.
        version: of the benchmark.
        params: its own pytest parameters.
        requests: about how many it sends, as declared; None when not said.
        seconds: about how long it takes, as declared; None when not said.

    """

    cell: Cell | None
    label: str
    benchmark: str
    version: str
    params: Mapping[str, Any]
    requests: int | None = None
    seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """What items cost.

    Attributes:
        requests: how many are sent, warm-up included; None when unknown.
        seconds: how long they take; None when unknown.
        source: where that comes from.

    """

    requests: int | None
    seconds: float | None
    source: Source


def estimate(item: Planned, past: Iterable[Past]) -> Estimate:
    """What an item would cost; ``past`` has its benchmark's passed results, newest first."""
    alike = [found for found in past if _is_alike(found, item)]
    key = item.cell.key if item.cell else ""
    newest = next((found for found in alike if found.cell_key == key), None)
    if newest is not None:
        return Estimate(newest.requests, newest.duration_s, "last run")
    if alike:
        return Estimate(alike[0].requests, alike[0].duration_s, "other cell")
    if item.requests is None and item.seconds is None:
        return Estimate(None, None, "unknown")
    return Estimate(item.requests, item.seconds, "declared")


def lines(
    cells: Iterable[Cell],
    items: Sequence[Planned],
    history: History,
    *,
    absent: Mapping[Cell, str] | None = None,
    notes: Sequence[str] = (),
) -> list[str]:
    """The plan: the matrix, each cell's items, the sum.

    Args:
        cells: of the session.
        items: what would run, in order.
        history: passed results, newest first, by benchmark and version.
        absent: what is not installed here and a cell would need.
        notes: what else is to be said, one sentence each.

    """
    costs = [(item, estimate(item, history.get((item.benchmark, item.version), ()))) for item in items]
    found: list[str] = []
    runnable: list[Estimate] = []
    for cell in (*cells, None):
        mine = [(item, cost) for item, cost in costs if item.cell == cell]
        if cell is None and not mine:
            continue
        hindrance = _hindrance(cell, (absent or {}).get(cell, "") if cell else "")
        found += [_head(cell, hindrance or _count(len(mine), "item"))]
        if mine and not hindrance:
            found += [f"  {line}" for line in _rows(mine)]
            runnable += [cost for _, cost in mine]
    return [*found, f"in all: {_sum(runnable)}", *notes]


def duration(seconds: float) -> str:
    """Seconds for people: ``0.4 s``, ``48 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _is_alike(past: Past, item: Planned) -> bool:
    """Whether a result is of the same variant, on a cell of the same kind."""
    kind = (item.cell.synthetic, item.cell.model.toy) if item.cell else (False, False)
    same_kind = (past.synthetic, past.toy) == kind and bool(past.cell_key) == (item.cell is not None)
    return same_kind and all(name in past.params and past.params[name] == v for name, v in item.params.items())


def _hindrance(cell: Cell | None, absent: str) -> str:
    if cell is not None and cell.skip:
        return f"SKIP: {cell.skip}"
    return f"CANNOT START: {absent}" if absent else ""


def _head(cell: Cell | None, what: str) -> str:
    return f"{cell.id}  {cell.runtime}  {cell.key}  {what}" if cell else f"{_NO_ENGINE}  {what}"


def _rows(costs: Sequence[tuple[Planned, Estimate]]) -> list[str]:
    rows = [(item.label, *_cost(cost.requests, cost.seconds), cost.source) for item, cost in costs]
    return [line.rstrip() for line in table([("benchmark", "requests", "time", "source"), *rows])]


def _cost(requests: int | None, seconds: float | None) -> tuple[str, str]:
    return "-" if requests is None else str(requests), "-" if seconds is None else duration(seconds)


def _sum(costs: Sequence[Estimate]) -> str:
    """What is known is added up; of how many items it is not is said."""
    sent = [cost.requests for cost in costs if cost.requests is not None]
    took = [cost.seconds for cost in costs if cost.seconds is not None]
    parts = [_count(len(costs), "item")]
    parts += [_count(sum(sent), "request") if sent or not costs else "requests unknown"]
    parts += [f"about {duration(sum(took))}" if took or not costs else "time unknown"]
    unknown = [
        f"{what} of {_count(len(costs) - len(known), 'item')}"
        for what, known in (("requests", sent), ("time", took))
        if known and len(known) < len(costs)
    ]
    return ", ".join(parts) + (f"; not known: {', '.join(unknown)}" if unknown else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
