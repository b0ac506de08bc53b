"""Are the scores those of lm-evaluation-harness also where both ask the same server?

The simulated engine knows right answers to half of the questions and believes wrong ones to the others; it is asked by
echo and log-probabilities, and to write. The embedded llama.cpp writes with the tiny model. Runs by ``tox -e parity``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.parity import test_parity as parity

pytest.importorskip("lm_eval", reason="lm-eval is not installed: tox -e parity")

ROOT = Path(__file__).resolve().parents[2]
ITEMS = """
import pytest
from tests.parity import servers

@pytest.mark.parametrize("name", {names})
def test_same(kitt_engine, kitt_evaluate, tmp_path, name):
    servers.require_same(kitt_engine, kitt_evaluate, tmp_path, name, shots={shots}, concurrency={concurrency})
"""


def _run(pytester: pytest.Pytester, names: tuple[str, ...], shots: int, concurrency: int, *args: str) -> None:
    pytester.makepyfile(test_it=ITEMS.format(names=names, shots=shots, concurrency=concurrency))
    options = ("--kitt-offline", "-p", "no:cacheprovider", "-o", f"pythonpath={ROOT}", "-W", "default", "test_it.py")
    done = pytester.runpytest_subprocess(*options, *args)
    done.assert_outcomes(passed=len(names))


def _knows(name: str, shots: int) -> list[dict[str, str]]:
    """What the simulated engine is to say: right and wrong answers, by the prompt."""
    _, questions = parity.ours(name, 0 if name.startswith("truthfulqa") else shots)
    scripted = parity.Scripted(questions)
    facts = []
    for question in questions:
        if question.choices:
            at = parity.drawn(question.prompt, len(question.choices))
            context, continuation = question.pairs[at]
            facts.append({"question": context, "answer": continuation.strip()})
        elif answer := scripted(question.prompt).strip():
            facts.append({"question": question.prompt, "answer": answer})
    return facts


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize(
    "names",
    [
        ("mmlu", "hellaswag", "arc_easy", "arc_challenge", "winogrande", "piqa", "truthfulqa_mc1"),
        ("gsm8k", "gsm8k_cot", "mmlu_generative", "truthfulqa_mc2", "truthfulqa_gen"),
    ],
)
def test_the_simulated_engine(pytester: pytest.Pytester, names: tuple[str, ...], shots: int) -> None:
    """Echo with log-probabilities, and text."""
    facts = pytester.path / "facts.jsonl"
    known = [fact for name in names for fact in _knows(name, shots)]
    facts.write_text("".join(json.dumps(fact) + "\n" for fact in known), encoding="utf-8")
    engine = ("--kitt-engine=simulated", f"--kitt-engine-arg=answers={facts}", "--kitt-engine-arg=ttft_ms=1")
    _run(pytester, names, shots, 4, *engine, "--kitt-engine-arg=itl_ms=1", "--kitt-engine-arg=context=20000")


@pytest.mark.timeout(600)
def test_the_embedded_engine(pytester: pytest.Pytester) -> None:
    """Text of a real model, one request at a time."""
    pytest.importorskip("xllamacpp", reason="the extra embedded is not installed")
    _run(pytester, ("gsm8k", "gsm8k_cot", "mmlu_generative"), 0, 1, "--kitt-runtime=embedded", "--kitt-model=tiny")
