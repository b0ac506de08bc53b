"""What does the model know? Multiple choice over 57 subjects, over school science, and over misconceptions."""

from __future__ import annotations

import pytest

from pytest_kitt.fixtures import Evaluate


@pytest.mark.kitt(name="mmlu", version="1", category="quality", requests=56168, seconds=1800)
def test_mmlu(kitt_evaluate: Evaluate) -> None:
    """Knowledge of 57 subjects: the letter with the highest log-probability, behind five examples.

    How: card `mmlu` (14,042 questions); each of four letters is scored behind the prompt.
    Metrics: `acc` with its standard error `acc_stderr`, by group (`acc_stem`) and by subject (`acc_anatomy`) too.
    Passes: when every question is scored.
    Skips: where the engine cannot say log-probabilities. Where it says only the likeliest first tokens, the metric is
    called `acc_first_token`.
    Reading: guessing gives 0.25.
    """
    kitt_evaluate("mmlu").require_pass()


@pytest.mark.kitt(name="mmlu_generative", version="1", category="quality", requests=14042, seconds=900)
def test_mmlu_generative(kitt_evaluate: Evaluate) -> None:
    """Knowledge of 57 subjects: the letter that the engine writes, behind five examples.

    How: card `mmlu_generative` (14,042 questions), by completions.
    Metrics: `exact_match` with its standard error, by group and by subject too; `empty_share`, `length_share`.
    Passes: when every question is answered.
    Reading: another number than `mmlu`: a model that writes something else than a letter gets it wrong.
    """
    kitt_evaluate("mmlu_generative").require_pass()


@pytest.mark.kitt(name="mmlu_chat", version="1", category="quality", requests=14042, seconds=7200)
def test_mmlu_chat(kitt_evaluate: Evaluate) -> None:
    """Knowledge of 57 subjects: asked as a chat message, answered in words that end with "Answer:" and a letter.

    How: card `mmlu_chat` (14,042 questions), by chat, in the model's own template, up to 2048 tokens.
    Metrics: `chat_match` with its standard error, by group and by subject too; `extraction_failed_share`,
    `length_share`: answers without a letter, and answers that were cut off.
    Passes: when every question is answered.
    Reading: with many cut off, the budget and not the model was measured.
    """
    kitt_evaluate("mmlu_chat").require_pass()


@pytest.mark.kitt(name="truthfulqa_mc1", version="1", category="quality", requests=4000, seconds=300)
def test_truthfulqa_mc1(kitt_evaluate: Evaluate) -> None:
    """Misconceptions: is the one true answer the likeliest?

    How: card `truthfulqa_mc1` (817 questions), behind its primer of six questions.
    Metrics: `acc` with its standard error.
    Passes: when every question is scored.
    Skips: where the engine cannot say log-probabilities.
    Reading: guessing gives about 0.22.
    """
    kitt_evaluate("truthfulqa_mc1").require_pass()


@pytest.mark.kitt(name="truthfulqa_mc2", version="1", category="quality", requests=6000, seconds=400)
def test_truthfulqa_mc2(kitt_evaluate: Evaluate) -> None:
    """Misconceptions: how much of the probability of all answers have the true ones?

    How: card `truthfulqa_mc2` (817 questions), behind its primer of six questions.
    Metrics: `mc2` with its standard error.
    Passes: when every question is scored.
    Skips: where the engine cannot say log-probabilities.
    """
    kitt_evaluate("truthfulqa_mc2").require_pass()


@pytest.mark.kitt(name="truthfulqa_gen", version="1", category="quality", requests=817, seconds=600)
def test_truthfulqa_gen(kitt_evaluate: Evaluate) -> None:
    """Misconceptions: is what the engine writes more like a true answer than like a false one?

    How: card `truthfulqa_gen` (817 questions), behind its primer of six questions; the engine writes up to 256 tokens.
    Metrics: `bleu_acc` (more like a true answer, by BLEU), `bleu_max` (how like the likest true one, 0 to 100),
    `bleu_diff` (less the likest false one), and the same by `rouge1`, `rouge2`, `rougeL`, with their standard errors.
    Passes: when every question is answered.
    Invalid: when a question gets no answer.
    Reading: likeness of words, not truth: a short right answer scores low, a false one in the words of a true one high.
    Needs `pip install 'pytest-kitt[evals]'`.
    """
    kitt_evaluate("truthfulqa_gen").require_pass()


@pytest.mark.kitt(name="arc_easy", version="1", category="quality", requests=9501, seconds=300)
def test_arc_easy(kitt_evaluate: Evaluate) -> None:
    """Natural science from school, the easier questions.

    How: card `arc_easy` (2,376 questions); the text of each choice is scored.
    Metrics: `acc`, and `acc_norm` per character, with their standard errors.
    Passes: when every question is scored.
    Skips: where the engine cannot say log-probabilities.
    """
    kitt_evaluate("arc_easy").require_pass()


@pytest.mark.kitt(name="arc_challenge", version="1", category="quality", requests=4687, seconds=200)
def test_arc_challenge(kitt_evaluate: Evaluate) -> None:
    """Natural science from school, the harder questions.

    How: card `arc_challenge` (1,172 questions); the text of each choice is scored.
    Metrics: `acc`, and `acc_norm` per character, with their standard errors.
    Passes: when every question is scored.
    Skips: where the engine cannot say log-probabilities.
    """
    kitt_evaluate("arc_challenge").require_pass()
