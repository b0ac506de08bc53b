"""What does a new benchmark look like? A test file, or a card with questions, that passes as it is."""

from __future__ import annotations

PERFORMANCE = '''\
"""How fast does it answer? Change the load, the workload and the bounds to yours."""

from __future__ import annotations

import pytest
from pytest_kitt.fixtures import Load


@pytest.mark.kitt(version="1", category="performance")
def test_{name}(kitt_load: Load) -> None:
    """Two users at a time; passes when all are answered and the first token is there in time."""
    result = kitt_load("closed:2", "synthetic:64:16", "requests:24")
    assert result.failed == 0, f"failed requests: {{result.ending.details}}"
    assert result.ttft_ms.p50 < 10_000
'''

CARD = """\
# Are the answers right? Change the questions and the prompt to yours; docs/evaluations.md lists every key.
name: NAME
version: "1"
summary: Sums of two numbers
dataset:
  path: NAME.jsonl
prompt: "{{ question }}"
mode: generate
api: chat
max_tokens: 24
answer: answer
filters:
  "":
    - {filter: regex, pattern: "-?[0-9]+", select: -1}
metrics:
  - {metric: exact_match}
# passes: {at_least: 0.5}
"""

QUESTIONS = """\
{"question": "36+20=?", "answer": "56"}
{"question": "12+35=?", "answer": "47"}
{"question": "41+17=?", "answer": "58"}
{"question": "63+11=?", "answer": "74"}
"""

CATEGORIES = ("performance", "quality")


def files(category: str, name: str) -> dict[str, str]:
    """The files of a new benchmark, name and content; the first is the one to run."""
    if category == "quality":
        return {f"{name}.kitt.yaml": CARD.replace("NAME", name), f"{name}.jsonl": QUESTIONS}
    return {f"test_{name}.py": PERFORMANCE.format(name=name)}
