"""Does a cell give the same answers however many requests it serves? And the same as the other cells of the run?"""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.kitt(name="consistency", version="1", category="quality", requests=150, seconds=30)
@pytest.mark.parametrize("concurrency", [1, 8], ids=["c1", "c8"])
def test_consistency(kitt_evaluate: Any, concurrency: int) -> None:
    """The same 150 questions on every cell of a run, one at a time and eight at a time.

    How: the first 150 questions of `--kitt-prompts`, by default the tiny model's own, so many under way at any time.
    When the run has ended, every two sets of answers to the same questions are compared, question by question; the
    first cell one at a time is the reference. The table stands at the end of the terminal's output, in the HTML
    report and in `kitt results show`.
    Metrics: as of `exact_match`. The table has for each set its accuracy, the answers that were right in the reference
    and are wrong here (lost), the other way round (gained), the probability of flips as uneven as these by McNemar's
    exact test, the difference of the accuracies with its interval, and the share of questions that each two sets
    answer alike.
    Passes: when questions are answered; whether the sets agree is judged by `--kitt-consistency=0.98`, over the whole
    run: every set must answer at least so many questions as the reference does, else the session fails.
    Invalid: when not one question is answered.
    Reading: another engine, another quantization or another load should change few answers, and lose about as many as
    it gains. Many flips in one direction are a defect: a wrong chat template or a missing BOS (benchmark
    `chat_template`), a broken kernel.
    """
    kitt_evaluate(concurrency=concurrency, limit=150)
