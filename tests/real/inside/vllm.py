"""What does vLLM answer beyond what every engine must?"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kitt import shipped
from pytest_kitt.dialect import apis
from pytest_kitt.errors import EngineRequestError
from pytest_kitt.evals import drift
from pytest_kitt.model import chat
from tools.train_tiny.tokens import BEGIN, encode


def test_tokens(kitt_engine: Any) -> None:
    """Token ids are the model's own, one a byte behind one BOS."""
    assert kitt_engine.tokenize("63+11") == [BEGIN, *encode("63+11")]


def test_the_prompt_of_a_chat(kitt_engine: Any) -> None:
    """It is what the model's template makes, behind one BOS, and completions on it answer alike."""
    found = drift.look(kitt_engine, facts=chat.read(shipped.TINY_MODEL))
    assert (found.verdict, found.by) == ("ok", "tokens"), found.why
    assert (found.bos, found.bos_completions, found.same_answer) == (1, 1, True)


def test_context(kitt_engine: Any) -> None:
    """What it was started with is what it says; a longer prompt is refused, in its own words."""
    assert kitt_engine.context == 2048
    with pytest.raises(EngineRequestError, match="maximum context length is 2048"):
        kitt_engine.generate("a" * 2500, max_tokens=4)


def test_log_probabilities_of_a_prompt(kitt_engine: Any) -> None:
    """Echoed, each token but the first has one, and the right answer's are above a wrong one's."""
    right, wrong = (_echoed(kitt_engine, f"Q: 63+11=?\nAnswer: {answer}") for answer in ("74", "75"))
    assert right[0] is None
    assert len(right) == 1 + len(encode("Q: 63+11=?\nAnswer: 74")) + 1
    assert right[-2] > wrong[-2]


def _echoed(engine: Any, prompt: str) -> list[Any]:
    body = {"model": engine.model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    with engine.access.client() as http:
        answer = http.post(apis.path("completions"), json=body).raise_for_status().json()
    return list(answer["choices"][0]["logprobs"]["token_logprobs"])
