"""Is a question asked as lm-evaluation-harness asks it, to the byte?

``prompts.json`` holds the SHA-256 of each prompt that lm-eval 0.4.13 itself made of the shipped samples, without and
with three worked examples; tests/parity/test_parity.py asked it.
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import pytest

from pytest_kitt import shipped
from pytest_kitt.evals import card as cards
from pytest_kitt.evals import data, prompts
from pytest_kitt.evals.prompts import Question
from pytest_kitt.evals.subset import choose

_KNOWN = json.loads((Path(__file__).parent / "prompts.json").read_text())


def _asked(name: str, shots: int) -> list[Question]:
    card = cards.read(cards.find(name)).with_shots(shots)
    return prompts.ask(card, data.sample(card, shipped.DATASETS).subsets, name)


@pytest.mark.parametrize("case", _KNOWN)
def test_a_prompt_is_that_of_lm_eval(case: str) -> None:
    """Every row of the sample; TruthfulQA knows no worked examples."""
    name, _, shots = case.partition(" ")
    fixed = name.startswith("truthfulqa")
    assert [one.prompt_sha256 for one in _asked(name, 0 if fixed else int(shots))] == _KNOWN[case]


def test_a_prompt_of_mmlu_reads_as_its_authors_wrote_it() -> None:
    """Description, a worked example, the question without space at its ends, and nothing behind the colon."""
    first = _asked("mmlu", 1)[0]
    assert first.prompt == (
        "The following are multiple choice questions (with answers) about astronomy.\n\n"
        "What does the Moon do once in about a month?\nA. It turns inside out.\nB. It goes once around the Earth.\n"
        "C. It goes once around the Sun.\nD. It changes its colour.\nAnswer: B\n\n"
        "Which of these bodies is the largest?\nA. The Moon\nB. Jupiter\nC. Earth\nD. Mercury\nAnswer:"
    )
    assert first.continuations == (" A", " B", " C", " D")
    assert (first.id, first.gold, first.chance) == ("astronomy/0", (1,), 0.25)


def test_questions_that_begin_alike_stand_together() -> None:
    """So that a server's prefix cache has read the description and the worked examples of a subject once."""
    starts = [one.prompt.rpartition("\n\n")[0] for one in choose(_asked("mmlu", 1), 7, seed=0)]
    runs = [start for start, _ in groupby(starts)]
    assert 1 < len(runs) == len(set(starts)) < len(starts)
    assert all("Answer: " in start for start in runs)


def test_contexts_differ_where_the_choice_stands_in_them() -> None:
    """Winogrande: two beginnings, one end."""
    first = _asked("winogrande", 0)[0]
    assert first.pairs == [
        ("The ladder leaned on the wall until the ladder", " fell over."),
        ("The ladder leaned on the wall until the wall", " fell over."),
    ]
    assert first.gold == (0,)
