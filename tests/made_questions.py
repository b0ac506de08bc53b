"""What stands in a row of each well-known dataset, what is right there, and how are more such rows made up?

Read from the rows themselves, by what their datasets' pages say of the columns, and not by our cards: a card that took
another column, or counted choices from 1, would be found out.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PLAIN = [  # what the probe asks for: everybody knows it
    {"question": "The capital of France is", "right": ["Paris"], "wrong": ["banana"], "plain": True},
    {"question": "Q: 36+20=?\nAnswer:", "right": ["56"], "wrong": ["banana"], "plain": True},
]
_WORDS = (
    *("river", "stone", "lamp", "coat", "bread", "wheel", "garden", "paper"),
    *("bridge", "horse", "winter", "copper", "window", "salt", "engine", "island"),
)


def read(path: Path) -> list[Row]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: Iterable[Row]) -> Path:
    """The file with these rows, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def facts(dataset: str, rows: Iterable[Row]) -> list[Row]:
    """What an engine must know: for each row the text that stands in the prompt, right answers and wrong ones."""
    return [dict(zip(("question", "right", "wrong"), _KNOWN[dataset](row), strict=True)) for row in rows]


def merged(every: Iterable[Row]) -> list[Row]:
    """Facts about the same question as one; what is right in one form of a dataset is right in another."""
    found: dict[str, Row] = {}
    for fact in [*every, *PLAIN]:
        one = found.setdefault(fact["question"], {**fact, "right": [], "wrong": []})
        for key in ("right", "wrong"):
            one[key] += [answer for answer in fact[key] if answer not in one[key]]
    return list(found.values())


def made(dataset: str, count: int, seed: int) -> list[Row]:
    """So many rows with different questions; the place of the right answer is drawn."""
    draw = random.Random(f"{dataset} {seed}")
    return [_MADE[dataset](draw, f"{number} {_words(draw, 3)}") for number in range(count)]


Known = tuple[str, list[str], list[str]]


def _split(texts: list[str], right: Iterable[int]) -> tuple[list[str], list[str]]:
    places = set(right)
    return [t for n, t in enumerate(texts) if n in places], [t for n, t in enumerate(texts) if n not in places]


def _mmlu(row: Row) -> Known:
    return row["question"].strip(), *_split(row["choices"], [row["answer"]])


def _gsm8k(row: Row) -> Known:
    right = row["answer"].rpartition("#### ")[2]
    wrong = [str(digit) for digit in range(10) if str(digit) != right] if len(right) == 1 else [right + "7"]
    return row["question"], [right], wrong


def _generation(row: Row) -> Known:
    right, wrong = row["correct_answers"], row["incorrect_answers"]
    return row["question"], [f"{one}." for one in right if one], [f"{one}." for one in wrong if one]


def _multiple_choice(row: Row) -> Known:
    targets = [row["mc1_targets"], row["mc2_targets"]]
    said = [pair for one in targets for pair in zip(one["choices"], one["labels"], strict=True)]
    return row["question"], [text for text, label in said if label == 1], [text for text, label in said if label == 0]


def _hellaswag(row: Row) -> Known:
    return _bare(row["ctx_a"]), *_split([_bare(one) for one in row["endings"]], [int(row["label"])])


def _bare(text: str) -> str:
    """Without the marks of the pages that the scenes are from."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ").strip()


def _arc(row: Row) -> Known:
    return row["question"], *_split(row["choices"]["text"], [row["choices"]["label"].index(row["answerKey"])])


def _winogrande(row: Row) -> Known:
    whole = [row["sentence"].replace("_", row[option], 1) for option in ("option1", "option2")]
    return row["sentence"].partition("_")[0], *_split(whole, [int(row["answer"]) - 1])


def _piqa(row: Row) -> Known:
    return row["goal"], *_split([row["sol1"], row["sol2"]], [row["label"]])


def _words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(_WORDS, k=count))


def _answers(draw: random.Random, count: int) -> list[str]:
    """Different texts of different lengths, of four words at least."""
    return [f"{_words(draw, draw.randint(3, 7))} {'abcdefgh'[n] * 3}" for n in range(count)]


def _made_mmlu(draw: random.Random, topic: str) -> Row:
    return {"question": f"What of {topic}?", "choices": _answers(draw, 4), "answer": draw.randrange(4)}


def _made_gsm8k(draw: random.Random, topic: str) -> Row:
    return {"question": f"How many are {topic}?", "answer": f"They are counted.\n#### {draw.randrange(10)}"}


def _made_generation(draw: random.Random, topic: str) -> Row:
    answers, right = _answers(draw, 6), draw.randint(1, 5)
    said = {"correct_answers": answers[:right], "incorrect_answers": answers[right:]}
    return {"question": f"What is said of {topic}?", "best_answer": answers[0], **said}


def _made_multiple_choice(draw: random.Random, topic: str) -> Row:
    mc1, mc2, right = draw.randint(2, 5), draw.randint(3, 6), draw.randint(1, 2)
    one = {"choices": _answers(draw, mc1), "labels": [1] + [0] * (mc1 - 1)}
    several = {"choices": _answers(draw, mc2), "labels": [1] * right + [0] * (mc2 - right)}
    return {"question": f"Is it true of {topic}?", "mc1_targets": one, "mc2_targets": several}


def _made_hellaswag(draw: random.Random, topic: str) -> Row:
    scene = {"activity_label": "Walking", "ctx_a": f"Someone carries {topic} home.", "ctx_b": "then he"}
    return {**scene, "endings": _answers(draw, 4), "label": str(draw.randrange(4))}


def _made_arc(draw: random.Random, topic: str) -> Row:
    size = draw.randint(3, 5)
    letters = [*"ABCDE"[:size]]
    choices = {"text": _answers(draw, size), "label": letters}
    return {"question": f"Which belongs to {topic}?", "choices": choices, "answerKey": draw.choice(letters)}


def _made_winogrande(draw: random.Random, topic: str) -> Row:
    names = dict(zip(("option1", "option2"), draw.sample(["Anna", "Bo", "Maximilian", "Theodora"], 2), strict=True))
    return {"sentence": f"Of {topic} they knew that _ was older.", **names, "answer": draw.choice("12")}


def _made_piqa(draw: random.Random, topic: str) -> Row:
    first, second = _answers(draw, 2)
    return {"goal": f"To get {topic}", "sol1": first, "sol2": second, "label": draw.randrange(2)}


_KNOWN: dict[str, Callable[[Row], Known]] = {
    "mmlu": _mmlu,
    "gsm8k": _gsm8k,
    "generation": _generation,
    "multiple_choice": _multiple_choice,
    "hellaswag": _hellaswag,
    "ai2_arc": _arc,
    "winogrande": _winogrande,
    "piqa": _piqa,
}
_MADE: dict[str, Callable[[random.Random, str], Row]] = {
    "mmlu": _made_mmlu,
    "gsm8k": _made_gsm8k,
    "generation": _made_generation,
    "multiple_choice": _made_multiple_choice,
    "hellaswag": _made_hellaswag,
    "ai2_arc": _made_arc,
    "winogrande": _made_winogrande,
    "piqa": _made_piqa,
}
