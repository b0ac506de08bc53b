"""Does an engine get the score that it deserves? One that knows, one that errs, one that guesses; in every evaluation.

The engine is a double that reads the prompts (``tests/doubles/knowing.py``), and what it knows comes from the datasets'
rows, not from our cards: what is shown is the whole path, from a row by card, prompt, server and filter to a score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_kitt import shipped
from pytest_kitt.evals import card as cards
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened
from tests import made_questions
from tests.doubles import knowing, tokens
from tests.doubles.running import running
from tests.made_questions import Row

FOLDERS = {  # of each evaluation's rows
    **dict.fromkeys(("mmlu", "mmlu_generative", "mmlu_chat"), "mmlu"),
    **dict.fromkeys(("gsm8k", "gsm8k_cot"), "gsm8k"),
    **dict.fromkeys(("truthfulqa_mc1", "truthfulqa_mc2"), "multiple_choice"),
    "truthfulqa_gen": "generation",
    **dict.fromkeys(("arc_easy", "arc_challenge"), "ai2_arc"),
    **{name: name for name in ("hellaswag", "winogrande", "piqa")},
}
CHANCE: dict[str, Callable[[Row], float]] = {  # of guessing a row
    "mmlu": lambda _: 1 / 4,
    "gsm8k": lambda _: 1 / 10,  # made-up sums are a digit, and so is what is guessed
    "mc1": lambda row: 1 / len(row["mc1_targets"]["choices"]),
    "mc2": lambda row: sum(row["mc2_targets"]["labels"]) / len(row["mc2_targets"]["labels"]),
    "generation": lambda row: len(row["correct_answers"]) / len(row["correct_answers"] + row["incorrect_answers"]),
    "hellaswag": lambda _: 1 / 4,
    "ai2_arc": lambda row: 1 / len(row["choices"]["text"]),
    "winogrande": lambda _: 1 / 2,
    "piqa": lambda _: 1 / 2,
}
SEED = "1"  # a guesser is near chance by chance: one interval of twenty misses it, and with this seed none does
QUESTIONS = 100
NAMES = cards.shipped_names()
COMPARING = [name for name in NAMES if cards.read(cards.find(name)).compares]


def sample(name: str) -> dict[str, list[Row]]:
    """The rows that ship in the form of an evaluation's dataset, by config."""
    dataset = cards.read(cards.find(name)).dataset
    folder = shipped.DATASETS / dataset.sample
    configs = [config for config in dataset.configs if (folder / config).is_dir()] or [""]
    return {config: made_questions.read(folder / config / f"{dataset.split}.jsonl") for config in configs}


@contextmanager
def engine(folder: Path, rows: Mapping[str, Sequence[Row]], *more: str, card: str) -> Iterator[tuple[str, ...]]:
    """A server that knows these rows, by the evaluations' names; what a session says to ask it."""
    known = [fact for name, some in rows.items() for fact in made_questions.facts(FOLDERS[name], some)]
    facts = made_questions.write(folder / "facts.jsonl", made_questions.merged(known))
    with running("knowing", folder / "double", str(facts), *more) as served:
        yield "-p", "no:cacheprovider", f"--kitt-engine={card}", f"--kitt-url={served.url}"


def on_samples(pytester: pytest.Pytester, names: Sequence[str], *more: str, card: str) -> pytest.RunResult:
    """One session over shipped evaluations, on the rows that ship."""
    rows = {name: [row for some in sample(name).values() for row in some] for name in names}
    with engine(pytester.path, rows, *more, card=card) as where:
        return pytester.runpytest_subprocess(*where, "--kitt-offline", f"--kitt-benchmark={','.join(names)}", "-rs")


def results() -> dict[str, dict[str, Any]]:
    """Those of the last run, by evaluation."""
    with opened("") as store, store.connect() as connection:
        return {one["benchmark"]: one for one in reader.show_run(connection, "last")["results"]}


def values(result: dict[str, Any]) -> dict[str, float]:
    """A result's single numbers."""
    return {m["name"]: m["value"] for m in result["metrics"] if m["stat"] == "value"}


def scores(result: dict[str, Any]) -> dict[str, float]:
    """Those of them that are shares of right answers, over all questions and by part."""
    names, found = headline(result["benchmark"]), values(result)
    return {key: value for key, value in found.items() if key.startswith(names) and not key.endswith("_stderr")}


def headline(name: str) -> tuple[str, ...]:
    """An evaluation's metrics that are shares of right answers."""
    return tuple(one for one in cards.read(cards.find(name)).metric_names if not one.endswith(("max", "diff")))


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that ship are asked also where somebody has the datasets."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def test_an_oracle_scores_one(pytester: pytest.Pytester) -> None:
    """By every metric, over all and by part; prompts are sent as tokens where choices are compared."""
    done = on_samples(pytester, NAMES, card="vllm")
    done.assert_outcomes(passed=len(NAMES))
    done.stdout.fnmatch_lines(["*kitt: mmlu: 12 questions of the sample that ships with its card, none of cais/mmlu*"])
    found = results()
    assert found.keys() == set(NAMES)
    for name, one in found.items():
        assert one["params"]["data"] == "sample"
        assert one["params"]["questions"] == sum(map(len, sample(name).values()))
        assert {*scores(one).values()} == {1.0}, name
    assert found["mmlu"]["params"]["loglikelihood"]["ways"] == ["echo", "echo_text"]
    alike = values(found["truthfulqa_gen"])
    assert all(alike[f"{kind}_max"] == pytest.approx(100) for kind in ("bleu", "rouge1", "rouge2", "rougeL"))


def test_an_always_wrong_engine_scores_zero(pytester: pytest.Pytester) -> None:
    """By every metric but mc2, over all and by part; prompts are sent as text."""
    on_samples(pytester, NAMES, "--bent=wrong", card="openai").assert_outcomes(passed=len(NAMES))
    found = results()
    assert found.keys() == set(NAMES)
    for name in set(NAMES) - {"truthfulqa_mc2"}:
        assert {*scores(found[name]).values()} == {0.0}, name
    alike = values(found["truthfulqa_gen"])
    assert all(alike[f"{kind}_diff"] < 0 for kind in ("bleu", "rouge1", "rouge2", "rougeL"))
    expected = [_mc2_of_who_errs(row["mc2_targets"]) for row in sample("truthfulqa_mc2")["multiple_choice"]]
    assert values(found["truthfulqa_mc2"])["mc2"] == pytest.approx(sum(expected) / len(expected), rel=1e-9, abs=0)
    assert 0 < sum(expected) < 1e-40


def test_a_guessing_engine_scores_chance(pytester: pytest.Pytester) -> None:
    """Within its interval, by every evaluation's card on made-up rows in its dataset's form."""
    rows = {name: _made(pytester.path, name) for name in NAMES}
    with engine(pytester.path, rows, "--bent=random", f"--seed={SEED}", card="openai") as where:
        done = pytester.runpytest_subprocess(*where, *(f"{name}.kitt.yaml" for name in NAMES))
    done.assert_outcomes(passed=len(NAMES))
    found = results()
    for name in NAMES:
        chance = sum(map(_guessed(name), rows[name])) / QUESTIONS
        for metric in found[f"own_{name}"]["metrics"]:
            if metric["name"] in headline(name):
                assert metric["ci_low"] <= chance <= metric["ci_high"], (name, metric)


def _guessed(name: str) -> Callable[[Row], float]:
    """How likely each row of an evaluation is to be guessed; for mc2, its score."""
    return CHANCE[name.rpartition("_")[2] if name.startswith("truthfulqa_mc") else FOLDERS[name]]


def _made(folder: Path, name: str) -> list[Row]:
    """A shipped card as one's own, on rows that are made up; the rows that it asks."""
    content = yaml.safe_load(cards.find(name).read_text(encoding="utf-8"))
    split, shots = content["dataset"]["split"], content.get("fewshot", {}).get("split")
    configs = ["first", "second"] if content.pop("groups", None) else [""]
    asked = []
    for number, config in enumerate(configs):
        rows = made_questions.made(FOLDERS[name], QUESTIONS // len(configs), seed=number)
        asked += rows
        made_questions.write(folder / name / config / f"{split}.jsonl", rows)
        if shots:
            examples = made_questions.made(FOLDERS[name], 8, seed=-1)
            made_questions.write(folder / name / config / f"{shots}.jsonl", examples)
    content["name"] = f"own_{name}"
    content["dataset"] = {"path": name, "split": split, "configs": [config for config in configs if config]}
    (folder / f"{name}.kitt.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return asked


def _mc2_of_who_errs(targets: dict[str, Any]) -> float:
    """What lm-evaluation-harness computes: the true answers' share of all probabilities, none of which is 0."""
    per_token = {1: knowing.UNLIKELY, 0: knowing.LIKELY}
    pairs = zip(targets["choices"], targets["labels"], strict=True)
    said = [(math.exp(per_token[label] * len(tokens.tokenize(f" {text}"))), label) for text, label in pairs]
    return sum(one for one, label in said if label == 1) / sum(one for one, _ in said)


def test_a_server_that_ignores_echo_is_never_given_a_number(pytester: pytest.Pytester) -> None:
    """Each evaluation that compares choices is skipped with the reason, and none of them leaves a chance's 0.25."""
    done = on_samples(pytester, COMPARING, "--echo=never", card="vllm")
    done.assert_outcomes(skipped=len(COMPARING))
    for name in COMPARING:
        reason = "*1 log-probabilities came for * prompt tokens: the server does not echo them*"
        done.stdout.fnmatch_lines_random([f"SKIPPED*{name} needs log-probabilities: engine vllm cannot say*{reason}"])
    assert {one["outcome"] for one in results().values()} == {"skipped"}
    assert not any(one["metrics"] for one in results().values())


def test_a_server_that_echoes_for_the_probe_alone_is_never_given_a_number(pytester: pytest.Pytester) -> None:
    """What passes the probe and then keeps silent makes the measurement invalid."""
    on_samples(pytester, COMPARING, "--echo=plain", card="openai")
    for name, one in results().items():
        assert (one["outcome"], scores(one)) == ("invalid", {}), name
        assert "the server does not echo them" in one["reason"]
    assert results().keys() == set(COMPARING)
