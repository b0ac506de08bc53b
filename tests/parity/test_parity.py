"""Are prompts, scores, means and standard errors those of lm-evaluation-harness? Both get the same responses.

The responses are made up from the request by a hash, so that both are told the same, right and wrong answers come in
every task, and no server is needed. Runs by ``tox -e parity``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import shipped
from pytest_kitt.evals import card as cards
from pytest_kitt.evals import data, prompts, scoring
from pytest_kitt.evals.card import EvalCard
from pytest_kitt.evals.prompts import Question
from pytest_kitt.evals.scoring import Response
from tests.parity import nasty, theirs

pytest.importorskip("lm_eval", reason="lm-eval is not installed: tox -e parity")

PROMPTS = nasty.KNOWN.parent / "prompts.json"
TASKS = (
    "mmlu",
    "mmlu_generative",
    "gsm8k",
    "gsm8k_cot",
    "truthfulqa_mc1",
    "truthfulqa_mc2",
    "truthfulqa_gen",
    "hellaswag",
    "arc_easy",
    "arc_challenge",
    "winogrande",
    "piqa",
)
ENDINGS = (
    "#### {}",
    "The answer is {}.",
    "The answer is {}",
    "#### {}\n\nQuestion: x #### 7",
    "####{}",
    "It is ${}.",
    "{}.00",
    "... .",
    " {}",
    "\n{}",
    "#### 1,{}",
    "",
)


def drawn(text: str, choices: int) -> int:
    """A number that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") % choices


def logprob(context: str, continuation: str) -> float:
    """How likely the scripted model holds a continuation: few values, so that there are ties."""
    return -drawn(f"{context}\0{continuation}", 12) / 4


class Scripted:
    """Writes a right answer to about half of the questions, in a form that the filters like or not."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._right = {question.prompt: question.references[0] for question in questions if question.references}

    def __call__(self, prompt: str) -> str:
        """The response to a prompt."""
        right = self._right[prompt].rpartition("#### ")[2]
        said = right if drawn(prompt, 2) else str(drawn(prompt, 50))
        return ENDINGS[drawn(f"ending {prompt}", len(ENDINGS))].format(said)


def their_model(scripted: Callable[[str], str]) -> Any:
    """The scripted model as lm-eval wants it."""
    from lm_eval.api.model import LM

    class Model(LM):  # type: ignore[misc]  # lm-eval is not typed
        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            return [(logprob(*request.args), False) for request in requests]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return [scripted(request.args[0]) for request in requests]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> Any:
            raise NotImplementedError

    return Model()


def ours(name: str, shots: int | None) -> tuple[EvalCard, list[Question]]:
    """Our card with so many examples, and its questions."""
    card = cards.read(cards.find(name))
    if shots is not None:
        card = card.with_shots(shots)
    return card, prompts.ask(card, data.sample(card, shipped.DATASETS).subsets, name)


def scored(card: EvalCard, questions: Sequence[Question], scripted: Scripted) -> scoring.Scores:
    """Our scores of the scripted model's responses."""

    def response(question: Question) -> Response:
        if card.compares:
            return Response(logprobs=tuple(logprob(*pair) for pair in question.pairs))
        return Response(scripted(question.prompt))

    return scoring.Scores(card, [scoring.score(card, question, response(question)) for question in questions])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shots", [0, 1, 5])
@pytest.mark.parametrize("name", TASKS)
def test_everything_is_as_lm_eval_has_it(
    name: str, shots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests by hash, each question's scores, the means and the standard errors."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    fixed = name.startswith("truthfulqa")  # their task ignores what is asked for: none
    card, questions = ours(name, 0 if fixed else shots)
    scripted = Scripted(questions)
    found = theirs.evaluate(name, their_model(scripted), tmp_path, shipped.DATASETS / "samples", shots=shots)
    mine = scored(card, questions, scripted)
    require_same(card, mine, found)


def require_same(card: EvalCard, mine: scoring.Scores, found: theirs.Theirs) -> None:
    """Equality in all that counts."""
    by_config = {config: list(some) for config, some in itertools.groupby(mine.scored, lambda s: s.question.config)}
    by_config = {config if config in found.samples else "": some for config, some in by_config.items()}
    assert by_config.keys() == found.samples.keys()
    for config, records in found.samples.items():
        for record in records:
            one = by_config[config][record["doc_id"]]
            require_same_request(card, one.question, record)
            for metric in card.metrics:
                for ours_filter in [""] if card.compares else card.filters:
                    if theirs.FILTERS.get(ours_filter, record["filter"]) == record["filter"]:
                        key = cards.metric_name(metric, ours_filter)
                        assert one.scores[key] == pytest.approx(
                            float(record[theirs.METRICS.get(metric.metric, metric.metric)]), abs=1e-12
                        ), (one.question.id, key, one.response, record["filtered_resps"])
    for metric in card.metrics:
        for ours_filter in [""] if card.compares else card.filters:
            their_filter = theirs.FILTERS.get(ours_filter, next(iter(found.samples.values()))[0]["filter"])
            their_metric = theirs.METRICS.get(metric.metric, metric.metric)
            mean = mine[cards.metric_name(metric, ours_filter)]
            assert mean.value == pytest.approx(float(found.results[f"{their_metric},{their_filter}"]), abs=1e-12)
            assert mean.stderr == pytest.approx(
                float(found.results[f"{their_metric}_stderr,{their_filter}"]), abs=1e-12
            )


def require_same_request(card: EvalCard, question: Question, record: Any) -> None:
    """What is asked is the same, and so is what is right."""
    assert question.prompt_sha256 == record["prompt_hash"], question.prompt
    if card.compares:
        assert [list(pair) for pair in question.pairs] == [list(pair) for pair in record["arguments"]]
    else:
        assert list(record["arguments"][0][1]["until"]) == card.stop


def test_the_known_answers_are_still_those_of_lm_eval() -> None:
    """What the ordinary tests compare with."""
    assert nasty.their_known_answers() == nasty.KNOWN.read_text(encoding="utf-8").splitlines()
    assert their_prompts() == json.loads(PROMPTS.read_text(encoding="utf-8"))


def their_prompts() -> dict[str, list[str]]:
    """The prompts' hashes of each task on its sample."""
    found = {}
    for name, shots in itertools.product(TASKS, (0, 3)):
        with tempfile.TemporaryDirectory() as folder:
            silent = their_model(lambda _: "")
            asked = theirs.evaluate(name, silent, Path(folder), shipped.DATASETS / "samples", shots=shots)
        every = {(config, r["doc_id"]): r["prompt_hash"] for config, rows in asked.samples.items() for r in rows}
        found[f"{name} {shots}"] = list(every.values())
    return found


if __name__ == "__main__":
    PROMPTS.write_text(json.dumps(their_prompts(), indent=1) + "\n", encoding="utf-8")
