"""How many answers are right, to the letter?

An answer is its first line that is not blank, without surrounding space and a final full stop, in lower case. A
question that got no answer counts as wrong: leaving it out would flatter a server that drops requests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from pytest_kitt.errors import Inconclusive, InvalidMeasurement
from pytest_kitt.evals.questions import Question
from pytest_kitt.measure.results import Measurement
from pytest_kitt.measure.stats import wilson

_MAX_RESPONSE_CHARS = 2000


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """One question with the response to it; None when none came."""

    question: Question
    response: str | None

    @property
    def correct(self) -> bool:
        """Whether the response is the answer."""
        return self.response is not None and normal(self.response) == normal(self.question.answer)


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """All questions with their responses."""

    scored: Sequence[Scored]

    @property
    def n(self) -> int:
        """Questions asked."""
        return len(self.scored)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(s.correct for s in self.scored) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson)."""
        return wilson(sum(s.correct for s in self.scored), self.n)

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return sum(s.question.chance for s in self.scored) / self.n

    @property
    def empty_share(self) -> float:
        """Share of questions without any answer text."""
        return sum(not (s.response or "").strip() for s in self.scored) / self.n

    def measurements(self) -> list[Measurement]:
        """Accuracy with its interval, over all and by task, and the share of empty answers."""
        found = [_accuracy("accuracy", self.scored)]
        tasks = sorted({s.question.task for s in self.scored})
        if len(tasks) > 1:
            found += [
                _accuracy(f"accuracy_{task}", [s for s in self.scored if s.question.task == task]) for task in tasks
            ]
        found.append(Measurement("empty_share", "value", self.empty_share, "share", "lower", self.n))
        return found

    def require_above_chance(self) -> None:
        """AssertionError when it is no better than guessing, Inconclusive when the questions are too few to say."""
        __tracebackhide__ = True
        low, high = self.interval
        evidence = (
            f"accuracy {self.accuracy:.3f} (95 % {low:.3f} to {high:.3f}, n={self.n}), guessing gives {self.chance:.3f}"
        )
        better = high > self.chance and self.accuracy > 0
        assert better, f"no better than guessing: {evidence}"
        if low <= self.chance:
            raise Inconclusive(f"too few questions to tell from guessing: {evidence}")


def to_jsonl(scored: Iterable[Scored]) -> bytes:
    """One line a question: id, task, question, answer, response, correct."""
    rows = (
        {
            "id": s.question.id,
            "task": s.question.task,
            "question": s.question.question,
            "answer": s.question.answer,
            "response": None if s.response is None else s.response[:_MAX_RESPONSE_CHARS],
            "correct": s.correct,
        }
        for s in scored
    )
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def responses(asked: Sequence[Question], rows: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """What rows of ``to_jsonl`` answer to these questions, by the question's index."""
    known = {(row.get("id"), row.get("question")): row.get("response") for row in rows}
    found = ((index, known.get((q.id, q.question))) for index, q in enumerate(asked))
    return {index: response for index, response in found if isinstance(response, str)}


def score(questions: Sequence[Question], responses: Mapping[int, str]) -> Evaluation:
    """Scores responses by their question's index; InvalidMeasurement when there is nothing to score."""
    if not questions or not responses:
        raise InvalidMeasurement("not one question was answered")
    return Evaluation([Scored(question, responses.get(index)) for index, question in enumerate(questions)])


def normal(text: str) -> str:
    """What is compared: the first line that is not blank, stripped, lower case, without a final full stop."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line), "").lower().removesuffix(".").strip()


def _accuracy(name: str, scored: Sequence[Scored]) -> Measurement:
    right = sum(s.correct for s in scored)
    low, high = wilson(right, len(scored))
    return Measurement(name, "value", right / len(scored), "share", "higher", len(scored), low, high, "wilson")
