"""Are answers scored to the letter, and is the verdict on them right?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_kitt.errors import Inconclusive, InvalidMeasurement, UserError
from pytest_kitt.evals import exact_match, questions
from pytest_kitt.evals.questions import Question
from pytest_kitt.report.terminal import scaled, table


@pytest.mark.parametrize(
    "text, compared", [(" 47", "47"), ("\n\n Yes.\nBecause", "yes"), ("B", "b"), ("", ""), ("4.5", "4.5"), (" . ", "")]
)
def test_what_is_compared(text: str, compared: str) -> None:
    """First line with text, stripped, lower case, without a final full stop."""
    assert exact_match.normal(text) == compared


def asked(n: int, chance: float = 0.5) -> list[Question]:
    """Questions that are answered with yes."""
    return [Question(str(i), "t", "q?", "yes", chance) for i in range(n)]


def test_a_missing_answer_is_wrong() -> None:
    """Dropped questions lower the accuracy."""
    found = exact_match.score(asked(4), {0: "yes", 1: " Yes.", 2: "no"})
    assert (found.accuracy, found.empty_share, found.n) == (0.5, 0.25, 4)
    rows = [json.loads(line) for line in exact_match.to_jsonl(found.scored).splitlines()]
    assert [row["correct"] for row in rows] == [True, True, False, False]
    assert rows[3]["response"] is None


def test_verdicts() -> None:
    """Above chance with evidence passes, below fails, too few is inconclusive, none is invalid."""
    exact_match.score(asked(20), dict.fromkeys(range(20), "yes")).require_above_chance()
    with pytest.raises(AssertionError, match=r"no better than guessing: accuracy 0\.100"):
        exact_match.score(asked(20), {0: "yes", 1: "yes"}).require_above_chance()
    with pytest.raises(AssertionError, match="no better"):
        exact_match.score(asked(20, 0.0), {0: "no"}).require_above_chance()
    with pytest.raises(Inconclusive, match="too few questions"):
        exact_match.score(asked(3), dict.fromkeys(range(3), "yes")).require_above_chance()
    with pytest.raises(InvalidMeasurement, match="not one question was answered"):
        exact_match.score(asked(3), {})


def test_accuracy_by_task_with_its_interval() -> None:
    """Over all and by task, each with n and Wilson's interval."""
    mixed = [Question("1", "a", "q", "x"), Question("2", "b", "q", "x")]
    found = {m.name: m for m in exact_match.score(mixed, {0: "x"}).measurements()}
    assert (found["accuracy"].value, found["accuracy"].n, found["accuracy"].method) == (0.5, 2, "wilson")
    assert (found["accuracy_a"].value, found["accuracy_b"].value) == (1, 0)
    assert found["empty_share"].value == 0.5


def test_questions(tmp_path: Path) -> None:
    """The shipped questions; a user's file; a bad line is named."""
    shipped = questions.load("", 50)
    assert len(shipped) == 50
    assert {q.task: q.chance for q in shipped} == {"add": 0.0, "compare": 0.5, "choice": 0.25}
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"prompt": "a", "answer": 1}\n\n{"question": "b"}\n')
    (whole,) = questions.load(str(mine), 1)
    assert whole == Question("1", "questions", "a", "1", whole=True)
    assert [one.prompt(chat=chat) for one in (whole, shipped[0]) for chat in (True, False)] == [
        *("a", "a"),
        *("36+20=?", "Q: 36+20=?\nAnswer:"),
    ]
    with pytest.raises(UserError, match=r"mine.jsonl:3: expected a JSON object with question and answer"):
        questions.load(str(mine), 10)
    mine.write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        questions.load(str(mine), 10)
    with pytest.raises(UserError, match="cannot be read"):
        questions.load(str(tmp_path / "none"), 10)


@pytest.mark.parametrize(
    "value, unit, shown",
    [
        (0.0123, "ms", "12.3 µs"),
        (1.234, "ms", "1.23 ms"),
        (56.78, "ms", "56.8 ms"),
        (1234.0, "ms", "1.23 s"),
        (0.0, "ms", "0.00 ms"),
        (4222.4, "tokens/s", "4222 tok/s"),
        (12_345.0, "tokens/s", "12.3 ktok/s"),
        (0.784, "share", "78.4 %"),
        (64.0, "tokens", "64"),
        (3.0, "count", "3"),
    ],
)
def test_units_are_scaled(value: float, unit: str, shown: str) -> None:
    """Three significant digits and a unit of fitting size."""
    assert scaled(value, unit) == shown


def test_tables_are_aligned() -> None:
    """Columns stand under each other."""
    assert table([["a", "bb"], ["ccc", "d"]]) == ["a    bb", "ccc   d"]
    assert table([["a", "bb"], ["ccc", "d"]], right=False) == ["a    bb", "ccc  d "]
