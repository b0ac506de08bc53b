"""Is a chat asked in the model's own template, with one BOS? Engines differ in what they make of a message."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kitt import recording
from pytest_kitt.evals import drift
from pytest_kitt.fixtures import Measure


@pytest.mark.kitt(name="chat_template", version="1", category="quality", requests=5, seconds=2)
def test_chat_template(request: pytest.FixtureRequest, kitt_engine: Any, kitt_measure: Measure) -> None:
    """Whether the prompt of a chat is what the model's own chat template makes of it, behind the right number of BOS.

    How: the template of the model's files is rendered for one question, as Hugging Face's libraries do. Beside it is
    laid the prompt that the server's chat API has: its tokens where the server says them (vLLM, llama.cpp, TGI), else
    their number. Then the question is asked by chat, and by completions on the rendered prompt, at temperature 0. Once
    per start of the engine, untimed.
    Metrics: `bos_chat`, `bos_completions`: how many BOS a chat and a prompt by completions begin with;
    `same_answer`: 1 when both answer alike; `logprob_delta`: how far the log-probabilities of their tokens are apart.
    Passes: when the prompt is the template's, begins with one BOS where the template writes one or the tokenizer adds
    one, both ways answer alike, and completions have the BOS that the tokenizer adds.
    Fails: with the name of the drift: missing BOS, double BOS, different template, different answers, completions
    without BOS; what differs first, and what helps.
    Skips: when it cannot be known, with the reason: no template to be read, no chat API.
    Reading: scores of chats under a drift are not the model's. The tiny model answers 0.79 of its questions
    rightly, 0.71 behind two BOS, 0.51 without one, and 0.13 in another model's template. By numbers of tokens alone, a
    template that is one or two tokens longer or shorter looks like a BOS.
    """
    found = drift.checked(kitt_engine)
    recording.of(request.node).params["chat_template"] = found.to_json()
    if found.verdict == "unknown":
        pytest.skip(f"the prompt of a chat cannot be checked: {found.why}")
    counts = {"bos_chat": found.bos, "bos_completions": found.bos_completions}
    for name, count in counts.items():
        if count is not None:
            kitt_measure(name, count, unit="count", better="none")
    if found.same_answer is not None:
        kitt_measure("same_answer", found.same_answer, unit="share", better="higher")
    if found.logprob_delta is not None:
        kitt_measure("logprob_delta", found.logprob_delta, unit="nats", better="lower")
    if found.drifts:
        pytest.fail(f"{found.verdict}: {found.why}", pytrace=False)
