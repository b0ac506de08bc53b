"""Are annotations what GitHub reads, and no more than it shows?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pytest_kitt.measure.results import Outcome, Result
from pytest_kitt.report.github import commands

FAILED = Result(
    nodeid="bench/test_a.py::test_slow",
    key="k",
    cell=None,
    benchmark="slow",
    version="0",
    category="custom",
    outcome="failed",
    reason="assert 5 < 4",
    params={},
    metrics=(),
    started_at="",
    duration_s=1.0,
)


@pytest.mark.parametrize(
    "outcome, said",
    [
        ("failed", ["::error title=FAILED%3A slow::assert 5 < 4"]),
        ("invalid", ["::error title=INVALID%3A slow::assert 5 < 4"]),
        ("error", ["::error title=ERROR%3A slow::assert 5 < 4"]),
        ("inconclusive", ["::warning title=INCONCLUSIVE%3A slow::assert 5 < 4"]),
        ("skipped", []),
        ("passed", []),
    ],
)
def test_a_level_for_each_outcome(outcome: Outcome, said: list[str]) -> None:
    """What did not pass is an error, what is not clear a warning; the rest is silent."""
    assert commands([dataclasses.replace(FAILED, outcome=outcome)], {}, None) == said


def test_the_place_of_a_test(tmp_path: Path) -> None:
    """File and line are named from the root of the repository, and only for a test inside of it."""
    inside, outside = tmp_path / "repo" / "bench" / "test_a.py", tmp_path / "venv" / "test_a.py"
    (said,) = commands([FAILED], {FAILED.nodeid: (inside, 7)}, tmp_path / "repo")
    assert said == "::error file=bench/test_a.py,line=7,title=FAILED%3A slow::assert 5 < 4"
    for place, workspace in ((outside, tmp_path / "repo"), (inside, None)):
        (said,) = commands([FAILED], {FAILED.nodeid: (place, 7)}, workspace)
        assert said == "::error title=FAILED%3A slow::assert 5 < 4"


def test_hostile_texts_end_neither_line_nor_value(tmp_path: Path) -> None:
    """Line ends, percent signs, colons and commas are escaped where they mean something; control characters go."""
    hostile = dataclasses.replace(
        FAILED, benchmark="a,b:c%\n::error::x", reason="50%, a:b\r\n::warning::no\x1b[2J\ud800"
    )
    place = {FAILED.nodeid: (tmp_path / "odd,name:1%.py", 3)}
    (said,) = commands([hostile], place, tmp_path)
    assert said == (
        "::error file=odd%2Cname%3A1%25.py,line=3,title=FAILED%3A a%2Cb%3Ac%25%0A%3A%3Aerror%3A%3Ax"
        "::50%25, a:b%0D%0A::warning::no[2J"
    )
    long = dataclasses.replace(FAILED, reason="%" * 100_000)
    assert len(commands([long], {}, None)[0]) < 10_000


@pytest.mark.parametrize("many, more", [(10, 0), (11, 2), (500, 491)])
def test_no_more_than_are_shown(many: int, more: int) -> None:
    """GitHub shows ten of each level; the tenth says how many more there are."""
    results = [dataclasses.replace(FAILED, reason=f"n{n}") for n in range(many)]
    results += [dataclasses.replace(FAILED, outcome="inconclusive")]
    said = commands(results, {}, None)
    assert len([line for line in said if line.startswith("::error ")]) == 10
    assert said[-1].startswith("::warning ")
    last = f"::error title=kitt::{more} more results did not pass: see the log"
    assert (said[9] == last) == bool(more)
