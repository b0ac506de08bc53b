"""Which cards are taken, and what is said of those that are not?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_kitt.errors import UserError
from pytest_kitt.evals import card as cards
from pytest_kitt.evals.data import Subset
from pytest_kitt.evals.prompts import Renderer
from pytest_kitt.mistakes import require_single_keys

_GOOD: dict[str, Any] = {
    "name": "mine",
    "summary": "Mine",
    "dataset": {"path": "mine.jsonl"},
    "prompt": "{{ question }}",
    "mode": "generate",
    "answer": "answer",
    "metrics": [{"metric": "exact_match"}],
}


def _write(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.kitt.yaml"
    path.write_text(yaml.safe_dump(_GOOD | changes, sort_keys=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", cards.shipped_names())
def test_a_shipped_card_is_good(name: str) -> None:
    """It is named as its file, pinned, with a licence and a sample, and its templates can be read."""
    card = cards.read(cards.find(name))
    Renderer(card, name)
    assert card.name == name
    assert card.dataset.revision
    assert card.dataset.licence
    assert card.dataset.sample


def test_the_variants_of_mmlu_have_metrics_of_different_names() -> None:
    """Scores that are not comparable are not called the same."""
    names = [cards.read(cards.find(name)).metric_names for name in ("mmlu", "mmlu_generative", "mmlu_chat")]
    assert names == [["acc"], ["exact_match"], ["chat_match"]]


def test_mmlu_has_57_subjects_each_in_one_group() -> None:
    """Nothing is counted twice."""
    card = cards.read(cards.find("mmlu"))
    grouped = [config for configs in card.groups.values() for config in configs]
    assert len(card.dataset.configs) == 57
    assert sorted(grouped) == sorted(card.dataset.configs)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"promt": "x"}, "mine.kitt.yaml:10: unknown key 'promt'; did you mean 'prompt'?"),
        ({"clustr": "passage_id"}, "mine.kitt.yaml:10: unknown key 'clustr'; did you mean 'cluster'?"),
        ({"cluster": 7}, ":10: key 'cluster': expected a text, found 7"),
        ({"fewshot": {"cuont": 1}}, ":11: unknown key 'fewshot.cuont'; did you mean 'count'?"),
        ({"filters": {"a": [{"filter": "regex", "patern": "x"}]}}, "unknown key 'filters.a.0.patern'; did you mean"),
        (
            {"metrics": [{"metric": "acuracy"}]},
            ":9: key 'metrics.0.metric': 'acuracy' is not possible; known: acc, ",
        ),
        ({"metrics": [{"metric": "acc"}]}, "metric acc does not belong to mode generate"),
        ({"mode": "loglikelihood"}, "mode loglikelihood needs choices and gold"),
        ({"prompt": ""}, "a card has either a prompt or contexts"),
        ({"answer": ""}, "mode generate needs answer"),
        ({"dataset": {"id": "a/b"}}, "needs a revision"),
        ({"dataset": {"id": "a/b", "path": "c"}}, "either an id on the hub or a path"),
        ({"dataset": {"id": "a/b", "revision": "main"}}, "key 'dataset.revision'"),
        ({"filters": {"": [{"filter": "regex", "pattern": "("}]}}, "unterminated subpattern"),
        ({"filters": {"": [{"filter": "regex"}]}}, "filter regex needs a pattern"),
        ({"fewshot": {"count": 2}}, "either from a split or from samples"),
        ({"passes": {"at_least": 20}}, "exact_match lies between 0 and 1, not at 20"),
        ({"passes": {"metric": "acc", "at_least": 0.5}}, "there is no metric 'acc'; known: exact_match"),
        ({"max_tokens": "many"}, "key 'max_tokens': expected a whole number, found 'many'"),
    ],
)
def test_a_bad_card_is_told_with_file_line_and_key(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """And with the nearest known key."""
    with pytest.raises(UserError) as told:
        cards.read(_write(tmp_path, **changes))
    assert words in str(told.value)
    assert "mine.kitt.yaml:" in str(told.value)


@pytest.mark.parametrize(
    "content, words",
    [
        ("- a list", "expected a mapping, found list"),
        ("name: [", ":1: not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
    ],
)
def test_what_is_no_card_is_told(tmp_path: Path, content: str, words: str) -> None:
    """No tag of YAML makes an object."""
    path = tmp_path / "mine.kitt.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.kitt\.yaml") as told:
        cards.read(path)
    assert words in str(told.value)


def test_a_key_that_is_there_twice_is_told(tmp_path: Path) -> None:
    """YAML's reader takes the last without a word."""
    path = _write(tmp_path)
    path.write_text(path.read_text() + "passes: {at_least: 0.9}\npasses: {at_least: 0.1}\n")
    lines = len(path.read_text().splitlines())
    with pytest.raises(UserError, match=f":{lines}: key 'passes' is there twice"):
        cards.read(path)


@pytest.mark.parametrize(
    "hostile",
    ["x: &a [*a]\n", "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9) if n else 1}]\n" for n in range(12))],
    ids=["it holds itself", "it is named very often"],
)
def test_aliases_do_not_hold_up_the_search_for_keys(tmp_path: Path, hostile: str) -> None:
    """A card may come from a stranger; it is refused for its unknown keys."""
    path = _write(tmp_path)
    with pytest.raises(UserError, match="there twice"):
        require_single_keys(path, f"{hostile}answer: 1\nanswer: 2\n")
    require_single_keys(path, hostile)


def test_the_likeness_of_texts_passes_by_points(tmp_path: Path) -> None:
    """Of a hundred, as it is shown."""
    metrics = [{"metric": "rouge1_max"}]
    card = cards.read(_write(tmp_path, metrics=metrics, wrong="[question]", passes={"at_least": 20}))
    assert card.passes is not None
    assert card.bounds("rouge1_max") == (0.0, 100.0)


def test_an_unknown_evaluation_is_told_with_the_nearest() -> None:
    """And with all that there are."""
    with pytest.raises(UserError, match="no evaluation 'gsm8'; did you mean 'gsm8k'"):
        cards.find("gsm8")


def test_more_examples_need_a_source(tmp_path: Path) -> None:
    """A card that names none takes none."""
    with pytest.raises(UserError, match="says nowhere where worked examples come from"):
        cards.read(_write(tmp_path)).with_shots(2)


def _clusters(folder: Path, expression: str, rows: list[dict[str, Any]]) -> list[str]:
    """What the questions of such rows belong to."""
    path = _write(folder, cluster=expression)
    filled = [{"question": "?", "answer": "!", **row} for row in rows]
    renderer = Renderer(cards.read(path), str(path))
    return [question.cluster for question in renderer.questions(Subset("maths", filled, ()))]


def test_a_question_belongs_to_what_its_card_says(tmp_path: Path) -> None:
    """A text, a number or a list; the text of a passage is known by its hash; without the key each stands alone."""
    passages = [{"passage": "p" * 5000}, {"passage": "p" * 5000}, {"passage": "q" * 5000}]
    first, again, other = _clusters(tmp_path, "passage", passages)
    assert first == again != other
    assert len(first) == len("sha256:") + 64
    assert _clusters(tmp_path, "id", [{"id": 0}, {"id": "a"}]) == ["0", "a"]
    assert _clusters(tmp_path, "[config, id]", [{"id": 3}]) == ["['maths', 3]"]
    assert _clusters(tmp_path, "", [{"id": 3}]) == [""]


@pytest.mark.parametrize("value", [None, "", 1.5, {}, []])
def test_a_question_that_belongs_to_nothing_is_told(tmp_path: Path, value: object) -> None:
    """Left alone it would make the others look surer than they are."""
    with pytest.raises(UserError, match=r"yaml: cluster: question 1 belongs to .*; expected a text"):
        _clusters(tmp_path, "id", [{"id": 1}, {"id": value}])
    with pytest.raises(UserError, match=r"mine\.kitt\.yaml: cluster: .*the row has: "):
        _clusters(tmp_path, "passage_id", [{"id": 1}])
