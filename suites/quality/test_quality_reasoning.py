"""Can the model reason? Arithmetic in words, and what follows in daily life."""

from __future__ import annotations

import pytest

from pytest_kitt.fixtures import Evaluate


@pytest.mark.kitt(name="gsm8k", version="1", category="quality", requests=1319, seconds=600)
def test_gsm8k(kitt_evaluate: Evaluate) -> None:
    """Arithmetic in words: the number at the end of a written solution, behind five examples.

    How: card `gsm8k` (1,319 questions), by completions, up to 256 tokens.
    Metrics: `exact_match_strict` (the number behind `####`), `exact_match_flexible` (the last number), with their
    standard errors; `extraction_failed_strict_share`, `length_share`.
    Passes: when every question is answered.
    Reading: strict far below flexible means another form, not another answer.
    """
    kitt_evaluate("gsm8k").require_pass()


@pytest.mark.kitt(name="gsm8k_cot", version="1", category="quality", requests=1319, seconds=600)
def test_gsm8k_cot(kitt_evaluate: Evaluate) -> None:
    """Arithmetic in words: the number behind "The answer is", behind eight examples that think aloud.

    How: card `gsm8k_cot` (1,319 questions), by completions, up to 256 tokens.
    Metrics: `exact_match_strict`, `exact_match_flexible` (the last number), with their standard errors.
    Passes: when every question is answered.
    Reading: strict loses the last digit of an answer without a full stop, as in lm-evaluation-harness.
    """
    kitt_evaluate("gsm8k_cot").require_pass()


@pytest.mark.kitt(name="hellaswag", version="1", category="quality", requests=40168, seconds=1200)
def test_hellaswag(kitt_evaluate: Evaluate) -> None:
    """How does a short scene go on? Four endings are scored.

    How: card `hellaswag` (10,042 questions).
    Metrics: `acc`, and `acc_norm` per character, with their standard errors.
    Passes: when every question is scored.
    Skips: where the engine cannot say log-probabilities.
    """
    kitt_evaluate("hellaswag").require_pass()


@pytest.mark.kitt(name="winogrande", version="1", category="quality", requests=2534, seconds=100)
def test_winogrande(kitt_evaluate: Evaluate) -> None:
    """Whom does a sentence speak of? Its end is scored behind either name.

    How: card `winogrande` (1,267 questions).
    Metrics: `acc` with its standard error.
    Passes: when every question is scored.
    Skips: where the engine cannot say log-probabilities.
    """
    kitt_evaluate("winogrande").require_pass()


@pytest.mark.kitt(name="piqa", version="1", category="quality", requests=3676, seconds=150)
def test_piqa(kitt_evaluate: Evaluate) -> None:
    """How is something done in daily life? Two ways are scored.

    How: card `piqa` (1,838 questions).
    Metrics: `acc`, and `acc_norm` per character, with their standard errors.
    Passes: when every question is scored.
    Skips: where the engine cannot say log-probabilities.
    """
    kitt_evaluate("piqa").require_pass()
