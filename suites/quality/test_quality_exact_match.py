"""Are the answers right? Short questions with one right answer each, scored to the letter."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.kitt(name="exact_match", version="1", category="quality", requests=50, seconds=10)
def test_exact_match(kitt_evaluate: Any) -> None:
    """The share of right answers over 50 questions.

    How: the first 50 questions of `--kitt-prompts`, by default the tiny model's own (sums, comparisons, choices), 4
    under way at any time. An API without chat is sent `Q:` and the question, then a line `Answer:`; a row with `prompt`
    in place of `question` goes as it is.
    Metrics: `accuracy` with Wilson's 95 % interval, over all and by task; `empty_share`: questions without any answer.
    Passes: when accuracy is above guessing, by its interval.
    Inconclusive: when the interval reaches down to guessing: more questions would tell.
    """
    evaluation = kitt_evaluate(limit=50)
    evaluation.require_above_chance()
