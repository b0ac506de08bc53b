"""Is whatever may be wrong in a card told in our words, with the line and the value?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from pytest_kitt import shipped
from pytest_kitt.cards import EngineCard, read_engine
from pytest_kitt.errors import UserError
from pytest_kitt.evals import card as evaluations
from pytest_kitt.evals.card import EvalCard
from pytest_kitt.mistakes import explained

ODD: tuple[Any, ...] = (None, True, -1, 1 << 70, 2.5, float("nan"), "", "x\n(", "a" * 500, [], [3], {}, {"odd": [1]})
FOREIGN = ("Input", "should", "valid", "Field", "Value error", "String", "pydantic", "instance", "permitted")
BASES: dict[type[BaseModel], dict[str, Any]] = {
    EngineCard: yaml.safe_load((shipped.ENGINES / "vllm.yaml").read_text(encoding="utf-8")),
    EvalCard: yaml.safe_load((shipped.DATASETS / "mmlu.yaml").read_text(encoding="utf-8")),
}


def spoilt(content: Any) -> Iterator[Any]:
    """A card with each of its values replaced by each odd one, and with each of them left out."""
    yield from ODD
    if isinstance(content, dict):
        for key, value in content.items():
            yield {name: it for name, it in content.items() if name != key}
            yield from ({**content, key: it} for it in spoilt(value))
    elif content and isinstance(content, list):
        yield from ([it, *content[1:]] for it in spoilt(content[0]))


def whole(record: type[BaseModel]) -> dict[str, Any]:
    """A shipped card, with each key that it lacks and what stands there by default."""
    fields = record.model_fields
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    plain = {name: value for name, value in defaults.items() if not isinstance(value, BaseModel) and name in fields}
    return {**{name: value for name, value in plain.items() if not fields[name].is_required()}, **BASES[record]}


@pytest.mark.parametrize("record", BASES, ids=lambda record: record.__name__)
def test_no_word_of_the_library_reaches_the_user(record: type[BaseModel], tmp_path: Path) -> None:
    """Each value of a card, one after the other, replaced by what cannot stand there."""
    path, told = tmp_path / "card.yaml", set()
    path.write_text("name: x\n")
    for content in spoilt(whole(record)):
        try:
            record.model_validate(content)
        except ValidationError as error:
            told.add(explained(path, error, record))
        except UserError:
            continue
    sentences = {sentence.removeprefix(f"{path}:1: ") for sentence in told}
    assert len(sentences) > 100
    foreign = [s for s in sentences if any(word in s for word in FOREIGN) or "\n" in s]
    assert foreign == []


GOOD = """\
name: mine
description: d
arguments:
  a: {flag: --a, help: h, default: 1}
  b:
    flag: --b
    help: h
    values: []
formats:
  - gguf
"""
SENTENCES = [
    ("values: []", "values: none", 8, "key 'arguments.b.values': expected a list, found 'none'"),
    ("1}", "[1]}", 4, "key 'arguments.a.default': expected a text or a whole number or a number, found a list"),
    ("help: h, ", "", 4, "key 'arguments.a.help' is missing"),
    ("gguf", "2026-01-31", 10, "key 'formats.0': expected 'gguf', 'safetensors'"),
    ("gguf", "ggufs", 10, "key 'formats.0': 'ggufs' is not possible; did you mean 'gguf'? known: awq, "),
    ("gguf", "gguf\nimages: [{image: ''}]", 11, "key 'images.0.image': expected a text that is not empty, found ''"),
    ("gguf", "gguf\ngpus: -1", 11, "key 'gpus': expected at least 0, found -1"),
    ("description: d", "description: 1.5", 2, "key 'description': expected a text, found 1.5; put it in quotes"),
    ("description: d", "description: yes", 2, "key 'description': expected a text, found true; put it in quotes"),
    ("name: mine", "name: Mine", 1, "key 'name': expected a text of the form ^[a-z][a-z0-9_]*$, found 'Mine'"),
    ("flag: --b", "flga: --b", 6, "unknown key 'arguments.b.flga'; did you mean 'flag'? known: "),
]


@pytest.mark.parametrize("old, new, line, sentence", SENTENCES)
def test_line_key_and_value(tmp_path: Path, old: str, new: str, line: int, sentence: str) -> None:
    """The first mistake of a card, where it is written."""
    (tmp_path / "mine.yaml").write_text(GOOD)
    read_engine(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(UserError) as told:
        read_engine(tmp_path / "mine.yaml")
    assert str(told.value).startswith(f"{tmp_path / 'mine.yaml'}:{line}: {sentence}")


def test_an_evaluation_speaks_likewise(tmp_path: Path) -> None:
    """A value that may have several forms is told with all of them, and without their names in the library."""
    content = {**BASES[EvalCard], "gold": [1], "dataset": {"path": "x.jsonl"}, "groups": {}}
    (tmp_path / "mine.kitt.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"yaml:\d+: key 'gold': expected a text or a whole number, found a list"):
        evaluations.read(tmp_path / "mine.kitt.yaml")
