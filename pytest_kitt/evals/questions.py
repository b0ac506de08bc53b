"""Which questions are asked? JSON lines with question and answer; the tiny model's unless the user has others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import orjson

from pytest_kitt import shipped
from pytest_kitt.errors import UserError

CHANCE_OF_YES_NO = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        id: unique in its file.
        task: group, for accuracies by task.
        question: text as asked.
        answer: the right answer, matched exactly after normalisation.
        chance: probability of guessing it.
        whole: it is a prompt already, and is sent as it is.

    """

    id: str
    task: str
    question: str
    answer: str
    chance: float = 0.0
    whole: bool = False

    def prompt(self, *, chat: bool) -> str:
        """As it is sent: where no template of the model says that this is a question, the text does."""
        return self.question if chat or self.whole else f"Q: {self.question}\nAnswer:"


def load(path: str, limit: int) -> tuple[Question, ...]:
    """The first ``limit`` questions of a file, or the tiny model's; UserError names file and line."""
    file = Path(path).expanduser() if path else shipped.TINY_QUESTIONS
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--kitt-prompts: {file} cannot be read: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    questions = tuple(_question(file, number, line) for number, line in numbered[:limit])
    if not questions:
        raise UserError(f"--kitt-prompts: {file} is empty; expected JSON lines with question and answer")
    return questions


def _question(file: Path, number: int, line: str) -> Question:
    try:
        row = orjson.loads(line)
        question, answer = row.get("question") or row["prompt"], row["answer"]
    except (orjson.JSONDecodeError, AttributeError, KeyError) as error:
        raise UserError(f"{file}:{number}: expected a JSON object with question and answer") from error
    return Question(
        id=str(row.get("id", number)),
        task=str(row.get("task", "questions")),
        question=str(question),
        answer=str(answer),
        chance=_chance(str(answer), row.get("choices")),
        whole=not row.get("question"),
    )


def _chance(answer: str, choices: object) -> float:
    if isinstance(choices, list) and choices:
        return 1 / len(choices)
    return CHANCE_OF_YES_NO if answer in ("yes", "no") else 0.0
