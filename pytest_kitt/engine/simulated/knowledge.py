"""Which answers does the engine know, and which wrong ones does it believe in?

A file of JSON lines: ``question``, ``answer``, and ``choices`` if there are any. It knows as large a share of the
questions as `accuracy` says, decided for each by seed and question. To one that it does not know it believes another
of its choices (where the answer is a letter, another letter); without choices it makes up a text and holds the right
answer unlikely.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pytest_kitt.engine.simulated import text
from pytest_kitt.engine.simulated.probability import Knowledge

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Fact:
    """A question with its right answer, and what else could be answered."""

    question: str
    answer: str
    choices: tuple[str, ...] = ()


def read(path: str) -> tuple[Fact, ...]:
    """The facts of a file, none for an empty name; ValueError names file and line."""
    if not path:
        return ()
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    return tuple(_fact(path, number, line) for number, line in enumerate(lines, start=1) if line.strip())


def believe(facts: Iterable[Fact], *, accuracy: float, seed: int) -> Knowledge:
    """What an engine believes that knows this share of the facts."""
    favoured: dict[str, str] = {}
    avoided: dict[str, str] = {}
    for fact in facts:
        if text.draw_fraction(f"knows {seed} {fact.question}") < accuracy:
            favoured[fact.question] = fact.answer
        elif wrong := _wrong(fact):
            favoured[fact.question] = wrong[int(text.draw_fraction(f"errs {seed} {fact.question}") * len(wrong))]
        else:
            avoided[fact.question] = fact.answer
    return Knowledge(favoured, avoided)


def _wrong(fact: Fact) -> Sequence[str]:
    letters = _LETTERS[: len(fact.choices)]
    choices = letters if fact.answer not in fact.choices and fact.answer in letters else fact.choices
    return [choice for choice in choices if choice != fact.answer]


def _fact(path: str, number: int, line: bytes) -> Fact:
    try:
        said: Mapping[str, Any] = orjson.loads(line)
        question, answer = said["question"], said["answer"]
        choices = said.get("choices") or ()
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}:{number}: not a question with its answer: {error}") from error
    if not all(isinstance(part, str) and part for part in (question, answer, *choices)):
        raise ValueError(f"{path}:{number}: question, answer and choices must be texts, not empty")
    return Fact(question, answer, tuple(choices))
