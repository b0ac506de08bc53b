"""Does the tiny model score what its page says, on llama.cpp itself, whichever way and however many at a time?"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kitt import shipped
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

pytest.importorskip("xllamacpp", reason="needs pytest-kitt[embedded]")

# datasets/tiny/README.md: 0.855 of the sums, 0.725 of the comparisons and 0.780 of the choices, 200 of each
PLAIN = """
from collections import Counter
import pytest

@pytest.mark.parametrize("concurrency", [1, 8])
def test_it(kitt_evaluate, concurrency):
    found = kitt_evaluate(limit=600, concurrency=concurrency)
    right = Counter(one.question.task for one in found.scored if one.correct)
    assert right == {"add": 171, "compare": 145, "choice": 156}
"""
CARDS = """
import pytest

@pytest.mark.parametrize("card", ["written", "chat"])
def test_written(kitt_evaluate, card):
    found = kitt_evaluate(f"{card}.kitt.yaml")
    assert (found.n, found["exact_match"].value) == (600, (171 + 145 + 156) / 600)

def test_first_token(kitt_evaluate):
    assert kitt_evaluate("first.kitt.yaml")["exact_match"].value == 156 / 200

def test_compared(kitt_evaluate):
    assert kitt_evaluate("compared.kitt.yaml")["acc"].value == 156 / 200
"""
WRITTEN = """
name: written
summary: All of its questions
dataset: {path: all.jsonl}
prompt: "Q: {{ question }}\\nAnswer:"
answer: answer | replace('yes', 'ye')
stop: [s]
mode: generate
max_tokens: 8
filters: {"": [{filter: strip}]}
metrics: [{metric: exact_match}]
"""
CHAT = WRITTEN.replace("name: written", "name: chat\napi: chat").replace(
    "Q: {{ question }}\\nAnswer:", "{{ question }}"
)
FIRST = """
name: first
summary: The choices among them, by the first token behind the space
dataset: {path: choices.jsonl}
prompt: "Q: {{ question }}\\nAnswer: "
answer: answer
mode: first-token
metrics: [{metric: exact_match}]
"""
COMPARED = """
name: compared
summary: The choices among them, by log-probabilities
dataset: {path: choices.jsonl}
prompt: "Q: {{ question }}\\nAnswer:"
choices: [A, B, C, D]
gold: "'ABCD'.index(answer)"
mode: loglikelihood
metrics: [{metric: acc}]
"""


@pytest.fixture(autouse=True)
def cards(pytester: pytest.Pytester) -> None:
    """The tiny model's questions as evaluations of one's own."""
    for name, card in (("written", WRITTEN), ("chat", CHAT), ("first", FIRST), ("compared", COMPARED)):
        (pytester.path / f"{name}.kitt.yaml").write_text(card, encoding="utf-8")
    lines = shipped.TINY_QUESTIONS.read_text(encoding="utf-8").splitlines(keepends=True)
    (pytester.path / "all.jsonl").write_text("".join(lines), encoding="utf-8")
    choices = [line for line in lines if '"task": "choice"' in line]
    (pytester.path / "choices.jsonl").write_text("".join(choices), encoding="utf-8")


def run(pytester: pytest.Pytester, test: str, *args: str) -> list[dict[str, Any]]:
    """A session on the embedded engine in which all is well; its results."""
    pytester.makepyfile(test_it=test)
    where = ("-p", "no:cacheprovider", "--kitt-runtime=embedded", "test_it.py")
    assert pytester.runpytest_subprocess(*where, *args).ret == 0
    with opened("") as engine, engine.connect() as connection:
        return list(reader.show_run(connection, "last")["results"])


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_its_questions_have_the_known_answers(pytester: pytest.Pytester, api: str) -> None:
    """Alone and among eight; in the model's template, and in the same words without it."""
    for one in run(pytester, PLAIN, f"--kitt-api={api}"):
        assert one["params"]["api"] == api


def test_cards_on_its_questions_have_the_known_scores(pytester: pytest.Pytester) -> None:
    """Written, a first token, and compared; in llama.cpp's own API, with its stops, where the form is no chat."""
    found = run(pytester, CARDS, "--kitt-api=llama-cpp")
    apis = {one["params"]["evaluation"]: one["params"].get("api") for one in found}
    assert apis == {"written": "llama-cpp", "chat": "chat", "first": "llama-cpp", "compared": None}
    ways = [one["params"]["loglikelihood"]["ways"] for one in found if one["params"]["evaluation"] == "compared"]
    assert ways == [["grammar", "token_by_token"]]
    (first,) = (one for one in found if one["params"]["evaluation"] == "first")
    assert "length_share" not in {m["name"] for m in first["metrics"]}  # all of them are cut off, as they should be


def test_token_by_token_gives_the_same_score(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """What servers before grammars of tokens are asked."""
    home = pytester.path / "home" / "engines"
    home.mkdir(parents=True)
    text = (shipped.ENGINES / "llama_cpp.yaml").read_text(encoding="utf-8")
    (home / "llama_cpp.yaml").write_text(text.replace("[grammar, token_by_token]", "[token_by_token]"))
    monkeypatch.setenv("KITT_HOME", str(home.parent))
    for one in run(pytester, CARDS, "-k", "compared"):
        assert one["params"]["loglikelihood"]["ways"] == ["token_by_token"]
