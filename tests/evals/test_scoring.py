"""Are scores, means and errors right, by numbers that were worked out by hand?"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import pytest

from pytest_kitt import shipped
from pytest_kitt.errors import InvalidMeasurement
from pytest_kitt.evals import card as cards
from pytest_kitt.evals import data, metrics, prompts, scoring
from pytest_kitt.evals.card import MetricCard
from pytest_kitt.evals.prompts import Question
from pytest_kitt.evals.scoring import Response, Scored, Scores
from pytest_kitt.evals.subset import choose
from pytest_kitt.measure.stats import wilson

_MULTIPLE = [n for n in cards.shipped_names() if cards.read(cards.find(n)).compares]


def _asked(name: str) -> list[Question]:
    card = cards.read(cards.find(name))
    return prompts.ask(card, data.sample(card, shipped.DATASETS).subsets, name)


def _scores(name: str, said: Sequence[Response]) -> Scores:
    card = cards.read(cards.find(name))
    return Scores(card, [scoring.score(card, q, r) for q, r in zip(_asked(name), said, strict=True)])


def _made(values: dict[str, list[float]]) -> Scores:
    rows = [
        Scored(Question(str(n), config, ("",)), Response(), {"acc": value})
        for config, some in values.items()
        for n, value in enumerate(some)
    ]
    return Scores(cards.read(cards.find("mmlu")), rows)


def test_ties_go_to_the_first_choice() -> None:
    """As numpy's argmax has it."""
    assert metrics.best([-2.0, -1.0, -1.0]) == 1


def test_acc_norm_counts_characters_and_acc_bytes_bytes() -> None:
    """A choice of ten characters, or of twice as many bytes, against one of seven."""
    logprobs, choices = [-10.0, -8.0], ["\u00e9" * 10, "e" * 7]
    assert metrics.choice("acc", logprobs, choices, [1]) == 1
    assert metrics.choice("acc_norm", logprobs, choices, [0]) == 1
    assert metrics.choice("acc_bytes", [-10.0, -4.0], choices, [0]) == 1
    assert metrics.choice("acc_norm", [-10.0, -4.0], choices, [1]) == 1


def test_mc2_is_the_share_of_the_true_ones() -> None:
    """Also where the probabilities themselves are too small for a float."""
    logprobs = [math.log(0.2), math.log(0.1), math.log(0.1)]
    assert metrics.mc2(logprobs, [1, 0, 1]) == pytest.approx(0.75)
    assert metrics.mc2([one - 5000 for one in logprobs], [1, 0, 1]) == pytest.approx(0.75)


@pytest.mark.parametrize("logprobs", [[math.nan, -1.0], [-1.0, math.nan]])
def test_a_log_probability_that_is_no_number_scores_nothing(logprobs: list[float]) -> None:
    """It is invalid, not wrong."""
    with pytest.raises(InvalidMeasurement, match="is no number"):
        metrics.best(logprobs)


def test_exact_match_keeps_a_lowered_text_as_long_as_it_was() -> None:
    """lm-evaluation-harness compares in arrays of a fixed width."""
    card = MetricCard(metric="exact_match", ignore_case=True)
    assert metrics.exact_match(card, "\u0130", ["i"]) == 1


@pytest.mark.parametrize("name", _MULTIPLE)
def test_an_oracle_scores_one_and_its_opposite_zero(name: str) -> None:
    """By every metric of every task that compares choices."""
    card = cards.read(cards.find(name))
    asked = _asked(name)

    def say(question: Question, *, right: bool) -> Response:
        labels = next(iter(question.labels.values()), None)
        true = [n for n, label in enumerate(labels) if label == 1] if labels else question.gold
        return Response(logprobs=tuple(0.0 if (n in true) == right else -900.0 for n in range(len(question.choices))))

    oracle = _scores(name, [say(one, right=True) for one in asked])
    opposite = _scores(name, [say(one, right=False) for one in asked])
    assert [oracle[metric].value for metric in card.metric_names] == [1.0] * len(card.metrics)
    assert [opposite[metric].value for metric in card.metric_names] == pytest.approx([0.0] * len(card.metrics))


@pytest.mark.parametrize("name", ["mmlu_generative", "mmlu_chat", "gsm8k", "gsm8k_cot"])
def test_an_oracle_that_writes_scores_one_and_silence_zero(name: str) -> None:
    """By every filter of every task in which the engine writes."""
    forms = {"gsm8k_cot": "The answer is {}.", "mmlu_chat": "I think so.\n\nAnswer: {}"}
    said = [forms.get(name, "{}").format(one.references[0]) for one in _asked(name)]
    oracle = _scores(name, [Response(text) for text in said])
    assert [mean.value for mean in oracle.means()] == [1.0] * len(oracle.means())
    silent = _scores(name, [Response("") for _ in said])
    assert [mean.value for mean in silent.means()] == [0.0] * len(silent.means())
    shares = {m.name: m.value for m in silent.measurements() if m.name.endswith("_share")}
    assert shares.pop("length_share") == 0
    # a pattern of mmlu_generative finds the empty line
    assert set(shares.values()) == ({0.0, 1.0} if name == "mmlu_generative" else {1.0})
    assert shares["empty_share"] == 1


@pytest.mark.parametrize("name", [name for name in _MULTIPLE if name != "truthfulqa_mc2"])  # its chance is no number
def test_guessing_lies_within_its_interval_around_chance(name: str) -> None:
    """Two hundred guesses at each question; four standard errors around their mean hold chance."""
    card = cards.read(cards.find(name))
    asked = _asked(name)
    draw = random.Random(7)
    rows = [
        scoring.score(card, one, Response(logprobs=tuple(draw.random() - 1 for _ in one.choices)))
        for one in asked
        for _ in range(200)
    ]
    found = Scores(card, rows)["acc"]
    chance = sum(one.chance for one in asked) / len(asked)
    assert found.stderr is not None
    assert abs(found.value - chance) < 4 * found.stderr


def test_one_config_has_the_standard_error_of_its_sample() -> None:
    """The sample's deviation over the root of n."""
    values = [1.0, 0.0, 0.0, 1.0, 1.0]
    found = _made({"anatomy": values})["acc"]
    assert found.value == 0.6
    assert found.stderr == pytest.approx(statistics.stdev(values) / math.sqrt(5))
    assert found.interval == pytest.approx((0.2307, 0.8824), abs=1e-4)
    assert found.method == "wilson"


def test_several_configs_count_by_their_size() -> None:
    """Mean by size and pooled variance of two and four questions."""
    found = _made({"anatomy": [1.0, 0.0], "virology": [1.0, 1.0, 1.0, 0.0]})
    assert found["acc"].value == pytest.approx(4 / 6)
    pooled = (1 * 0.5 + 3 * 0.25) / 4
    assert found["acc"].stderr == pytest.approx(math.sqrt(pooled / 6))
    by_name = {mean.name: mean.value for mean in found.means()}
    assert by_name == {
        "acc": pytest.approx(4 / 6),
        "acc_stem": 0.5,
        "acc_other": 0.75,
        "acc_anatomy": 0.5,
        "acc_virology": 0.75,
    }


def test_questions_that_belong_together_make_a_group() -> None:
    """Four passages, each all right or all wrong: the error is that of four scores, and so is the interval's width."""
    scores = [Scored(Question(str(n), "", ("",), cluster=f"p{n // 5}"), Response(), {"acc": n < 15}) for n in range(20)]
    found = Scores(cards.read(cards.find("piqa")), scores)["acc"]
    assert (found.value, found.n, found.method) == (0.75, 20, "clustered")
    assert found.stderr == pytest.approx(statistics.stdev([1, 1, 1, 0]) / 2)
    assert found.interval == pytest.approx(wilson(0.75 * 3, 3, 3.182446305284263))  # three questions have that error
    alone = Scores(cards.read(cards.find("piqa")), scores[:5])["acc"]
    assert (alone.value, alone.stderr) == (1.0, None)
    assert alone.interval == pytest.approx(wilson(1, 1))
    assert scores[0].to_row()["cluster"] == "p0"
    assert "cluster" not in Scored(Question("0", "", ("",)), Response(), {"acc": 1.0}).to_row()


def test_scores_that_are_no_shares_are_bootstrapped() -> None:
    """With the seed of the session; alike scores have Wilson's bound of what was not seen."""
    card = cards.read(cards.find("truthfulqa_mc2"))
    draw = random.Random(4)
    rows = [Scored(Question(str(n), "", ("",)), Response(), {"mc2": draw.random()}) for n in range(200)]
    found, other = Scores(card, rows, seed=1)["mc2"], Scores(card, rows, seed=2)["mc2"]
    assert found == Scores(card, rows, seed=1)["mc2"]
    assert (found.method, found.stderr) == ("bootstrap", other.stderr)
    assert found.interval != other.interval
    assert found.stderr is not None
    assert found.interval == pytest.approx(
        (found.value - 1.96 * found.stderr, found.value + 1.96 * found.stderr), rel=0.02
    )
    alike = Scores(card, [Scored(one.question, one.response, {"mc2": 0.5}) for one in rows])["mc2"]
    unseen = wilson(0, 200)[1]
    assert alike.interval == pytest.approx((0.5 - unseen / 2, 0.5 + unseen / 2))
    assert alike.method == "wilson"


def test_one_question_has_no_standard_error() -> None:
    """And says so."""
    assert _made({"anatomy": [1.0]})["acc"].stderr is None


def test_nothing_scored_is_invalid() -> None:
    """Zero questions never pass."""
    with pytest.raises(InvalidMeasurement, match="not one question"):
        _made({})["acc"]


def test_a_stored_row_gives_its_response_back() -> None:
    """So that a run can go on where it was cut off."""
    card = cards.read(cards.find("gsm8k"))
    question = _asked("gsm8k")[0]
    response = Response("so 34.\n#### 34", cut=True, tokens=7, e2e_ms=12.5)
    row = scoring.score(card, question, response).to_row()
    assert scoring.response_of(row) == response
    assert (row["correct"], row["finish"], row["extracted"]["strict"]) == (True, "length", "34")
    assert row["prompt_sha256"] == question.prompt_sha256


def test_a_subset_takes_from_each_config_in_proportion() -> None:
    """The same questions each time, in their order, with their own worked examples."""
    asked = _asked("mmlu")
    some = choose(asked, 4, seed=0)
    assert [one.config for one in some] == ["astronomy", *["high_school_mathematics"] * 2, "world_religions"]
    assert some == choose(asked, 4, seed=0) != choose(asked, 4, seed=1)
    assert {one.id for one in some} <= {one.id for one in asked}
    assert choose(asked, 0, seed=0) == choose(asked, 99, seed=0) == asked
