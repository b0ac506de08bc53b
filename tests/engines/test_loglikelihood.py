"""Do real engines score texts as they should? The embedded llama.cpp with the tiny model, and the simulated engine."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_kitt import shipped
from pytest_kitt.cards import load_engines
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.engine.simulated import knowledge, text
from pytest_kitt.engine.simulated.probability import Model
from pytest_kitt.engine.start import Place, started
from pytest_kitt.errors import Unscorable
from pytest_kitt.evals.loglikelihood import loglikelihood
from pytest_kitt.evals.probe import probe
from pytest_kitt.matrix import build
from pytest_kitt.settings import Settings

LARGEST = "Q: Which is largest?\nA. 43\nB. 99\nC. 98\nD. 69\nAnswer:"

# From a forward pass over the GGUF file in numpy, float64 throughout, that knows nothing of llama.cpp.
KNOWN = [
    ("Q: 36+20=?\nAnswer:", " 56", -0.401386, True),
    ("Q: 36+20=?\nAnswer:", " 57", -2.993601, False),
    ("Q: 36+20=?\nAnswer:", " banana", -61.224348, False),
    ("Q: is 31 > 10?\nAnswer:", " yes", -0.915794, False),
    ("Q: is 31 > 10?\nAnswer:", " no", -0.518782, True),
    (LARGEST, " A", -1.984043, False),
    (LARGEST, " B", -1.723566, False),
    (LARGEST, " C", -0.411111, True),
    (LARGEST, " D", -4.017657, False),
]
PAIRS = [(context, continuation) for context, continuation, _, _ in KNOWN]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., RunningEngine]]:
    """Starts an engine by its card, with arguments."""
    mark = uuid.uuid4().hex  # all that carries it ends with the engine
    with ExitStack() as life:

        def run(name: str, runtime: str, **arguments: str) -> RunningEngine:
            cards = load_engines()
            settings = Settings(engine=(name,), runtime=runtime, engine_arg=tuple(arguments.items()))
            (cell,) = build(settings, cards)
            return life.enter_context(started(cell, cards[name], settings, Place(tmp_path, mark)))

        yield run


@pytest.fixture
def llama_cpp(run: Callable[..., RunningEngine]) -> RunningEngine:
    """llama.cpp with the tiny model."""
    pytest.importorskip("xllamacpp", reason="needs pytest-kitt[embedded]")
    return run("llama_cpp", "embedded", threads="1")


def test_llama_cpp_scores_as_the_model_does(llama_cpp: RunningEngine) -> None:
    """Both ways agree within a thousandth a token, and with the model as closely as half precision allows."""
    grammar, token_by_token = (
        loglikelihood(llama_cpp, PAIRS, ways=[way], concurrency=1) for way in ("grammar", "token_by_token")
    )
    for one, other, (_, continuation, logprob, greedy) in zip(grammar, token_by_token, KNOWN, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3 * one.tokens)
        assert one.logprob == pytest.approx(logprob, abs=0.02)
        assert (one.greedy, one.tokens) == (other.greedy, other.tokens) == (greedy, len(continuation))


def test_llama_cpp_is_probed(llama_cpp: RunningEngine) -> None:
    """Both of its ways are good; ``echo``, which it ignores, is caught, whether prompts are ids or text."""
    found = probe(llama_cpp)
    assert found.ways == ("grammar", "token_by_token")
    assert found.warm_delta < 1e-3
    assert found.batch_delta < 0.02
    with pytest.raises(Unscorable) as caught:
        probe(llama_cpp, ways=["echo", "echo_text"])
    assert str(caught.value).count("the answer holds no 'token_logprobs'") == 2


def test_the_tiny_model_scores_its_known_accuracy(llama_cpp: RunningEngine) -> None:
    """The likeliest of four letters is right for 156 of 200 questions, the 0.780 that the model's own page names."""
    rows = [json.loads(line) for line in shipped.TINY_QUESTIONS.read_text().splitlines()]
    asked = [row for row in rows if row["task"] == "choice"]
    pairs = [(f"Q: {row['question']}\nAnswer:", f" {letter}") for row in asked for letter in "ABCD"]
    found = [one.logprob for one in loglikelihood(llama_cpp, pairs, ways=["grammar", "token_by_token"])]
    chosen = ["ABCD"[max(range(4), key=lambda k: found[4 * n + k])] for n in range(len(asked))]
    assert sum(letter == row["answer"] for letter, row in zip(chosen, asked, strict=True)) == 156


def test_a_character_of_several_tokens_is_refused(llama_cpp: RunningEngine) -> None:
    """llama.cpp says nothing of a token that is no character yet; it is not scored as something else."""
    with pytest.raises(Unscorable, match=r"' é' cannot be scored: grammar: .*; token_by_token: "):
        loglikelihood(llama_cpp, [("Q: 36+20=?\nAnswer:", " é")], ways=["grammar", "token_by_token"])


def test_the_simulated_engine_scores_as_its_model_does(run: Callable[..., RunningEngine]) -> None:
    """With prompts as ids and as text: what its probabilities say of these tokens, again and again."""
    engine = run("simulated", "process", ttft_ms="0", itl_ms="0")
    model = Model(0, knowledge.believe(knowledge.read(str(shipped.TINY_QUESTIONS)), accuracy=1, seed=0))
    expected = [sum(one.logprob for one in model.judge(context, text.split(rest))) for context, rest in PAIRS]
    for way in ("echo", "echo_text"):
        found = loglikelihood(engine, PAIRS, ways=[way])
        assert [one.logprob for one in found] == pytest.approx(expected)
        assert [one.tokens for one in found] == [text.count(rest) for _, rest in PAIRS]
    probed = probe(engine)
    assert (probed.ways, probed.warm_delta, probed.batch_delta) == (("echo", "echo_text"), 0.0, 0.0)
