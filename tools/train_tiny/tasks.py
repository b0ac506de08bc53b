"""What is the tiny model asked, and which questions must it never have seen in training?

Every prompt is a line ``Q: {question}`` and then ``Answer:``; every reply is a space, the answer and the end token. A
multiple-choice question carries its options in its own text, so that one rule renders all three tasks.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

LETTERS = "ABCD"
HELD_OUT_SEED = 2024  # of its own: another training seed is asked the same questions
HELD_OUT_PER_TASK = 200


@dataclass(frozen=True)
class Question:
    """One question with its one right answer.

    Attributes:
        text: what is asked, options included.
        answer: what a right reply says, stripped: a number, ``yes`` or ``no``, or a letter.
        numbers: the operands or options in rising order, so that 63+11 and 11+63 count as the same question.
        choices: the options of a multiple-choice question in the order A to D, else empty.

    """

    text: str
    answer: str
    numbers: tuple[int, ...]
    choices: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The text that the model completes."""
        return f"Q: {self.text}\nAnswer:"

    @property
    def reply(self) -> str:
        """The completion that counts as right."""
        return f" {self.answer}"


def ask_add(rng: random.Random) -> Question:
    """Draw ``63+11=?``."""
    left, right = rng.randrange(10, 100), rng.randrange(10, 100)
    return Question(f"{left}+{right}=?", str(left + right), tuple(sorted((left, right))))


def ask_compare(rng: random.Random) -> Question:
    """Draw ``is 34 > 19?``; half of the pairs are close together, because those take the second digit."""
    left = rng.randrange(10, 100)
    near = [n for n in range(left - 5, left + 6) if 10 <= n < 100 and n != left]
    right = rng.choice(near) if rng.random() < 0.5 else rng.choice([n for n in range(10, 100) if n != left])
    return Question(f"is {left} > {right}?", "yes" if left > right else "no", tuple(sorted((left, right))))


def ask_choice(rng: random.Random) -> Question:
    """Draw ``Which is largest?`` with four different numbers labelled A to D."""
    options = rng.sample(range(10, 100), len(LETTERS))
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True)]
    answer = LETTERS[options.index(max(options))]
    text = "\n".join(["Which is largest?", *lines])
    return Question(text, answer, tuple(sorted(options)), tuple(str(option) for option in options))


TASKS: dict[str, Callable[[random.Random], Question]] = {"add": ask_add, "compare": ask_compare, "choice": ask_choice}


def held_out() -> dict[str, list[Question]]:
    """Return the questions of each task that are kept for testing, no two about the same numbers."""
    drawn = {}
    for task, ask in TASKS.items():
        rng = random.Random(f"{HELD_OUT_SEED} {task}")
        unique: dict[tuple[int, ...], Question] = {}
        while len(unique) < HELD_OUT_PER_TASK:
            question = ask(rng)
            unique.setdefault(question.numbers, question)
        drawn[task] = list(unique.values())
    return drawn


def training_questions(task: str, seed: int, kept: list[Question]) -> Iterator[Question]:
    """Draw questions of one task for ever, passing over those about the same numbers as a kept one."""
    forbidden = {question.numbers for question in kept}
    rng = random.Random(f"{seed} {task}")
    while True:
        question = TASKS[task](rng)
        if question.numbers not in forbidden:
            yield question


def write_questions(path: Path, questions: dict[str, list[Question]]) -> None:
    """Write one JSON object a line, the tasks in turn, so that the first lines are a balanced sample."""
    rows = [
        [_as_row(f"{task}-{number:03}", task, question) for number, question in enumerate(asked, start=1)]
        for task, asked in questions.items()
    ]
    in_turn = chain.from_iterable(zip(*rows, strict=True))
    path.write_text("".join(json.dumps(row) + "\n" for row in in_turn), encoding="utf-8")


def _as_row(identity: str, task: str, question: Question) -> dict[str, object]:
    row: dict[str, object] = {"id": identity, "task": task, "question": question.text, "answer": question.answer}
    return row | {"choices": question.choices} if question.choices else row
