"""Where do questions come from, and what is said when there are none?"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from pytest_kitt import shipped
from pytest_kitt.errors import UserError
from pytest_kitt.evals import card as cards
from pytest_kitt.evals import data
from pytest_kitt.evals.card import DatasetCard, EvalCard


def _card(**dataset: Any) -> EvalCard:
    card = cards.read(cards.find("gsm8k"))
    return card.model_copy(update={"dataset": DatasetCard(**dataset)})


def _hub(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    """A library of that name which loads as told."""
    library = ModuleType("datasets")
    library.load_dataset = load  # type: ignore[attr-defined]  # made up
    library.config = SimpleNamespace(HF_HUB_OFFLINE=False)  # type: ignore[attr-defined]  # made up
    monkeypatch.setitem(sys.modules, "datasets", library)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def test_a_file_is_read_in_each_of_its_forms(tmp_path: Path) -> None:
    """JSON lines keep their types, and the characters that only look like the end of a line; CSV has texts."""
    (tmp_path / "a.jsonl").write_text('{"q": "one\u2028two", "n": 1}\n\n{"q": "three", "n": 2}\n', encoding="utf-8")
    (tmp_path / "a.csv").write_text('q,n\n"one\ntwo",1\n', encoding="utf-8")
    assert data.read_file(tmp_path / "a.jsonl") == [{"q": "one\u2028two", "n": 1}, {"q": "three", "n": 2}]
    assert data.read_file(tmp_path / "a.csv") == [{"q": "one\ntwo", "n": "1"}]


def test_a_folder_has_a_file_for_each_split_of_each_config(tmp_path: Path) -> None:
    """As the shipped samples have."""
    for config, split in (("main", "train"), ("main", "test")):
        (tmp_path / config).mkdir(exist_ok=True)
        (tmp_path / config / f"{split}.jsonl").write_text(f'{{"question": "{split}", "answer": "1"}}\n')
    found = data.load(_card(path=str(tmp_path), configs=["main"]), tmp_path)
    ((config, asked, pool),) = [(one.config, one.asked, one.pool) for one in found.subsets]
    assert (found.origin, config) == ("file", "main")
    assert (asked[0]["question"], pool[0]["question"]) == ("test", "train")


def test_another_file_than_the_card_names_is_refused(tmp_path: Path) -> None:
    """By its SHA-256."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "1", "answer": "1"}\n')
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    assert data.load(_card(path="a.jsonl", sha256=good), tmp_path).subsets[0].asked
    with pytest.raises(UserError, match="its SHA-256 is another"):
        data.load(_card(path="a.jsonl", sha256="0" * 64), tmp_path)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.jsonl", "", "holds no question"),
        ("a.jsonl", "{]", "a.jsonl:1: expected a JSON object"),
        ("a.jsonl", "\n[1]", "a.jsonl:2: expected a JSON object, found list"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: expected a JSON object"),
        ("a.txt", "hello", "expected .jsonl, .csv or .parquet"),
    ],
)
def test_a_bad_file_is_told(tmp_path: Path, name: str, content: str, words: str) -> None:
    """With its line where there is one; an empty one is an error too."""
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as told:
        data.load(_card(path=name), tmp_path)
    assert words in str(told.value)


def test_a_missing_file_or_split_is_told(tmp_path: Path) -> None:
    """With what was expected."""
    with pytest.raises(UserError, match="does not exist"):
        data.load(_card(path="nothing.jsonl"), tmp_path)
    with pytest.raises(UserError, match=r"has no split 'test': expected test\.jsonl"):
        data.load(_card(path=str(tmp_path)), tmp_path)


def test_the_hub_is_asked_for_config_split_and_pinned_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own library."""
    asked: list[Any] = []

    def load(*place: Any, **how: Any) -> list[dict[str, str]]:
        asked.append((place, how))
        return [{"question": "1", "answer": "1"}]

    _hub(monkeypatch, load)
    card = cards.read(cards.find("gsm8k"))
    found = data.load(card, shipped.DATASETS)
    revision = card.dataset.revision
    assert found.origin == "hub"
    assert asked == [
        (("openai/gsm8k", "main"), {"split": "test", "revision": revision}),
        (("openai/gsm8k", "main"), {"split": "train", "revision": revision}),
    ]


def test_a_dataset_that_cannot_be_had_is_told_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never another one in its place."""

    def load(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no network")

    _hub(monkeypatch, load)
    with pytest.raises(UserError, match=r"openai/gsm8k .*cannot be had: ConnectionError: no network.*--kitt-offline"):
        data.load(cards.read(cards.find("gsm8k")), shipped.DATASETS)


def test_another_revision_from_the_cache_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library takes what its cache has where the hub does not answer; the sample is what stands in for it."""

    class Cached(list[dict[str, str]]):
        cache_files: ClassVar = [{"filename": f"/hf/openai___gsm8k/main/0.0.0/{'1' * 40}/gsm8k-test.arrow"}]

    _hub(monkeypatch, lambda *_, **__: Cached([{"question": "old", "answer": "1"}]))
    card = cards.read(cards.find("gsm8k"))
    with pytest.raises(UserError, match=r"cannot be had: LookupError: the cache has it at revision 111111111111 alone"):
        data.load(card, shipped.DATASETS)
    assert data.load(card, shipped.DATASETS, offline=True).origin == "sample"


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the way without it."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'pytest-kitt\[datasets\]'.*--kitt-offline"):
        data.load(cards.read(cards.find("gsm8k")), shipped.DATASETS)


def test_offline_the_cache_comes_before_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """And which of them it was is known."""
    card = cards.read(cards.find("gsm8k"))
    _hub(monkeypatch, lambda *_, **__: [{"question": "cached", "answer": "1"}])
    assert data.load(card, shipped.DATASETS, offline=True).origin == "hub"
    monkeypatch.setitem(sys.modules, "datasets", None)
    found = data.load(card, shipped.DATASETS, offline=True)
    assert (found.origin, len(found.subsets[0].asked)) == ("sample", 10)
    assert len(found.sha256) == 64
