"""Does the plan say what items would cost, and where it knows that from?"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pytest_kitt.matrix import Cell
from pytest_kitt.model.reference import served
from pytest_kitt.report.plan import Estimate, Planned, duration, estimate, lines
from pytest_kitt.store.reader import Past

HERE = Cell("mine", served("m"), "process", id="mine-m")
THERE = Cell("mine", served("other"), "process", id="mine-other")
SIMULATED = Cell("simulated", served("m"), "process", synthetic=True, id="simulated-m")


def past(cell: Cell | None, requests: int | None, duration_s: float, **params: Any) -> Past:
    """A result that passed."""
    synthetic, toy = (cell.synthetic, cell.model.toy) if cell else (False, False)
    return Past(cell.key if cell else "", synthetic, toy, params, duration_s, requests)


def item(cell: Cell | None = HERE, **changes: Any) -> Planned:
    """An item of the benchmark b."""
    return dataclasses.replace(Planned(cell, "b", "b", "1", {}), **changes)


def test_the_newest_run_on_the_same_cell_wins() -> None:
    """Whatever ran elsewhere since, and whatever the author declares."""
    found = estimate(item(requests=9, seconds=9), [past(THERE, 1, 1.0), past(HERE, 22, 2.5), past(HERE, 30, 3.0)])
    assert found == Estimate(22, 2.5, "last run")


def test_another_cell_is_better_than_a_declaration() -> None:
    """The newest one."""
    assert estimate(item(requests=9), [past(THERE, 7, 1.0), past(THERE, 8, 2.0)]) == Estimate(7, 1.0, "other cell")


def test_a_simulated_engine_says_nothing_about_a_real_one() -> None:
    """Nor a real one about it."""
    assert estimate(item(), [past(SIMULATED, 7, 1.0)]).source == "unknown"
    assert estimate(item(SIMULATED), [past(HERE, 7, 1.0)]).source == "unknown"


def test_another_variant_says_nothing() -> None:
    """The item's own parameters are among those that were stored."""
    c8 = item(params={"level": 8})
    assert estimate(c8, [past(HERE, 7, 1.0, level=2, load="closed:2"), past(HERE, 7, 1.0)]).source == "unknown"
    assert estimate(c8, [past(HERE, 9, 1.0, level=8, load="closed:8")]) == Estimate(9, 1.0, "last run")


def test_a_benchmark_without_an_engine_has_a_history_too() -> None:
    """It ran nowhere, and runs nowhere."""
    assert estimate(item(None), [past(HERE, 9, 1.0), past(None, None, 0.5)]) == Estimate(None, 0.5, "last run")


@pytest.mark.parametrize(
    "declared, found",
    [
        ({"requests": 20, "seconds": 30}, Estimate(20, 30, "declared")),
        ({"requests": 0}, Estimate(0, None, "declared")),
        ({}, Estimate(None, None, "unknown")),
    ],
)
def test_without_a_history_the_declaration_counts(declared: dict[str, Any], found: Estimate) -> None:
    """Or nothing is known."""
    assert estimate(item(**declared), []) == found


def test_the_sum_says_what_it_leaves_out() -> None:
    """What is known is added up; cells that cannot run cost nothing."""
    skipped = dataclasses.replace(THERE, skip="mine loads gguf")
    items = [
        item(label="b[c1]"),
        item(label="other", benchmark="other", requests=100),
        item(label="third", benchmark="third"),
        item(skipped),
        item(SIMULATED),
        item(None, label="free", benchmark="free"),
    ]
    history = {("b", "1"): [past(HERE, 22, 61.0)]}
    shown = lines((HERE, skipped, SIMULATED), items, history, absent={SIMULATED: "install it"}, notes=["A note."])
    assert [" ".join(line.split()) for line in shown] == [
        f"mine-m process {HERE.key} 3 items",
        "benchmark requests time source",
        "b[c1] 22 1 min 01 s last run",
        "other 100 - declared",
        "third - - unknown",
        f"mine-other process {THERE.key} SKIP: mine loads gguf",
        f"simulated-m process {SIMULATED.key} CANNOT START: install it",
        "no engine 1 item",
        "benchmark requests time source",
        "free - - unknown",
        "in all: 4 items, 122 requests, about 1 min 01 s; not known: requests of 2 items, time of 3 items",
        "A note.",
    ]


def test_nothing_known_is_no_zero() -> None:
    """A sum of nothing is unknown, unless there is nothing to do."""
    assert lines((HERE,), [item()], {})[-1] == "in all: 1 item, requests unknown, time unknown"
    assert lines((HERE,), [], {})[-1] == "in all: 0 items, 0 requests, about 0.0 s"


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    """No unit overflows."""
    assert duration(seconds) == text
