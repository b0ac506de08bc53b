"""What does it cost when a chat template writes no BOS, and the server adds none?"""

from __future__ import annotations

import json
from typing import Any

from pytest_kitt import shipped
from pytest_kitt.evals import drift

QUESTIONS = [json.loads(line) for line in shipped.TINY_QUESTIONS.read_text().splitlines()[:150]]


def test_it_is_named(kitt_engine: Any) -> None:
    """By the server's own tokens; prompts by completions have theirs."""
    found = drift.checked(kitt_engine)
    assert (found.verdict, found.by) == ("missing BOS", "tokens")
    assert (found.bos, found.bos_wanted, found.bos_completions, found.same_answer) == (0, 1, 1, False)


def test_what_it_costs(kitt_engine: Any, kitt_measure: Any) -> None:
    """The same questions by chat and by completions."""
    shares = {}
    for name, ask in (("chat", _chat), ("completions", _complete)):
        shares[name] = sum(ask(kitt_engine, row["question"]) == row["answer"] for row in QUESTIONS) / len(QUESTIONS)
        kitt_measure(f"accuracy_{name}", shares[name], unit="share", better="higher", n=len(QUESTIONS))
    assert shares["completions"] > 0.75
    assert shares["chat"] < shares["completions"] - 0.2


def _chat(engine: Any, question: str) -> str:
    return str(engine.chat(question, max_tokens=8).output.strip())


def _complete(engine: Any, question: str) -> str:
    return str(engine.generate(f"Q: {question}\nAnswer:", max_tokens=8).output.strip())
