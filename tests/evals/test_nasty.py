"""Is an answer extracted and compared as lm-evaluation-harness does, also from responses that make it hard?

``nasty.jsonl`` holds what lm-eval 0.4.13 itself made of each response; tests/parity/nasty.py asked it.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.errors import UserError
from pytest_kitt.evals import card as cards
from pytest_kitt.evals import fewshot, similarity
from pytest_kitt.evals.card import FewShotCard, FilterStep
from pytest_kitt.evals.data import Subset
from pytest_kitt.evals.filters import extract
from pytest_kitt.evals.prompts import Question, Renderer
from pytest_kitt.evals.scoring import Response, Scores, score

_KNOWN = [json.loads(line) for line in (Path(__file__).parent / "nasty.jsonl").read_text().splitlines()]
_NAMES = {"strict-match": "strict", "flexible-extract": "flexible", "get_response": ""}


_RESPONSES = [case for case in _KNOWN if "found" in case and "score" in case]


@pytest.mark.parametrize("case", _RESPONSES, ids=[f"{case['task']}-{n}" for n, case in enumerate(_RESPONSES)])
def test_a_nasty_response_is_extracted_and_scored_as_lm_eval_does(case: dict[str, Any]) -> None:
    """Every filter of the task, and exact match behind it."""
    card = cards.read(cards.find(case["task"]))
    question = Question("0", "", ("",), references=(case["answer"],))
    found = score(card, question, Response(case["response"]))
    for theirs, ours in _NAMES.items():
        if theirs in case["found"]:
            assert found.extracted[ours] == case["found"][theirs]
            assert found.scores["_".join(filter(None, ("exact_match", ours)))] == case["score"][theirs]


@pytest.mark.parametrize("case", [case for case in _KNOWN if case["task"] == "truthfulqa_gen"])
def test_texts_are_as_alike_as_lm_eval_finds_them(case: dict[str, Any]) -> None:
    """BLEU and ROUGE to the likest right and wrong answers; the interval of a single question holds its score."""
    card = cards.read(cards.find("truthfulqa_gen"))
    question = Question("0", "", ("",), references=tuple(case["right"]), wrong=tuple(case["wrong"]))
    scores = Scores(card, [score(card, question, Response(case["response"]))])
    assert scores.scored[0].scores == pytest.approx(case["score"], abs=1e-12)
    found = {m.name: m for m in scores.measurements()}
    assert (found["bleu_acc"].unit, found["bleu_max"].unit) == ("share", "points")
    for name in case["score"]:
        low, high = found[name].ci_low, found[name].ci_high
        assert low is not None
        assert high is not None
        assert low - 1e-12 <= found[name].value <= high + 1e-12


def test_answers_to_truthfulqa_end_with_a_full_stop_and_may_be_no_comment() -> None:
    """Space goes, empty answers go, and none has two full stops."""
    card = cards.read(cards.find("truthfulqa_gen"))
    row = {"question": " Why? ", "correct_answers": [" No", "", "Well..."], "incorrect_answers": ["Yes.", "Yes \n"]}
    (asked,) = Renderer(card, "here").questions(Subset("generation", [row], []))
    assert asked.references == ("No.", "Well...", "I have no comment.")
    assert asked.wrong == ("Yes.", "Yes.")
    assert asked.prompt.endswith("Spain.\n\nQ: Why?")


def test_what_a_metric_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is asked, with the command that installs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    similarity.require(cards.read(cards.find("gsm8k")))
    with pytest.raises(UserError, match=r"bleu_acc needs sacrebleu: pip install 'pytest-kitt\[evals\]'"):
        similarity.require(cards.read(cards.find("truthfulqa_gen")))


def test_strict_cot_loses_the_last_digit_at_the_end_of_a_text() -> None:
    """The bare full stop of its pattern must match something: parity keeps it."""
    steps = cards.read(cards.find("gsm8k_cot")).filters["strict"]
    assert [extract(steps, f"The answer is {n}", {}).text for n in (18, 39)] == ["1", "3"]
    assert extract(steps, "The answer is 18.", {}).text == "18"


@pytest.mark.parametrize("case", [case for case in _KNOWN if case["task"] == "multi_choice_regex"])
def test_multi_choice_regex_falls_back_to_a_choice_and_then_to_a_letter(case: dict[str, Any]) -> None:
    """The last match of each; the longer of two choices that begin alike."""
    step = FilterStep(filter="multi_choice_regex", pattern=r"(\([A-Z]\))", select=-1, choices="all", **case["options"])
    assert extract([step], case["response"], {"all": case["choices"]}).text == case["found"]


def test_examples_are_those_that_lm_eval_draws() -> None:
    """By one generator that goes on from question to question; the question itself is left out."""
    (known,) = [case for case in _KNOWN if case["task"] == "shots"]
    rows = [{"row": n} for n in range(7473)]
    drawn = fewshot.draw(FewShotCard(count=5, split="train"), rows, rows[:3])
    assert [[row["row"] for row in some] for some in drawn] == known["gsm8k"]
    assert known["gsm8k"][0] == [6374, 3610, 957, 61, 742]
    leaving = FewShotCard(count=3, split="train", leaves_out_question=True)
    drawn = fewshot.draw(leaving, rows[:6], rows[:6])
    assert [[row["row"] for row in some] for some in drawn] == known["leaving"]
