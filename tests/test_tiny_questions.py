"""Are the tiny model's held-out questions in order, and are their answers true?"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

TINY = Path(__file__).parents[1] / "datasets" / "tiny"
ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (TINY / "questions.jsonl").read_text(encoding="utf-8").splitlines()
]
TASKS = ("add", "compare", "choice")
PER_TASK = 200


def of_task(task: str) -> list[dict[str, Any]]:
    """The rows of one task."""
    return [row for row in ROWS if row["task"] == task]


def numbers_in(text: str) -> list[int]:
    """The numbers of a text, in order."""
    return [int(digits) for digits in re.findall(r"\d+", text)]


def test_ids_are_unique_and_begin_with_the_task() -> None:
    """No question has two ids' worth of history."""
    ids = [row["id"] for row in ROWS]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(rf"{row['task']}-\d{{3}}", row["id"]) for row in ROWS)


def test_tasks_take_turns() -> None:
    """The first lines of any length are a balanced sample."""
    assert [row["task"] for row in ROWS] == [*TASKS] * PER_TASK


@pytest.mark.parametrize("task", TASKS)
def test_no_two_questions_are_about_the_same_numbers(task: str) -> None:
    """63+11 and 11+63 would be one question asked twice."""
    asked = {tuple(sorted(numbers_in(row["question"]))) for row in of_task(task)}
    assert len(asked) == PER_TASK


def test_additions_add_up() -> None:
    """The answer is the sum."""
    for row in of_task("add"):
        assert re.fullmatch(r"\d\d\+\d\d=\?", row["question"])
        assert row["answer"] == str(sum(numbers_in(row["question"]))), row["id"]


def test_comparisons_are_true() -> None:
    """The answer is yes exactly when the first number is larger."""
    for row in of_task("compare"):
        assert re.fullmatch(r"is \d\d > \d\d\?", row["question"])
        left, right = numbers_in(row["question"])
        assert row["answer"] == ("yes" if left > right else "no"), row["id"]


def test_choices_label_the_largest_option() -> None:
    """The question shows the options as listed, and the letter stands for the largest."""
    for row in of_task("choice"):
        options = [f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True)]
        assert row["question"] == "\n".join(["Which is largest?", *options]), row["id"]
        assert row["choices"]["ABCD".index(row["answer"])] == max(row["choices"], key=int), row["id"]


@pytest.mark.parametrize("task,answers", [("compare", {"yes", "no"}), ("choice", {*"ABCD"})])
def test_no_answer_is_right_much_more_often_than_chance(task: str, answers: set[str]) -> None:
    """A model that always says the same thing scores near chance."""
    given = [row["answer"] for row in of_task(task)]
    assert set(given) == answers
    assert all(given.count(answer) < 1.4 * PER_TASK / len(answers) for answer in answers)
