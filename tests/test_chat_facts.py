"""Is a model's chat template found in its files, and whether its tokenizer begins a prompt with a BOS?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import shipped
from pytest_kitt.model import chat
from pytest_kitt.model.chat import ChatFacts
from pytest_kitt.model.config import Damaged
from tests import made_models
from tests.retold import retold

TINY = shipped.TINY_MODEL
ADDS, TEMPLATE = "tokenizer.ggml.add_bos_token", "tokenizer.chat_template"
BOS = {"bos_token": "<s>"}


def processor(*first: Any) -> dict[str, Any]:
    """A tokenizer.json that puts these in front of a text."""
    single = [*first, {"Sequence": {"id": "A", "type_id": 0}}]
    inner = {"type": "TemplateProcessing", "single": single}
    added = [{"id": 0, "content": "<unk>"}, {"id": 1, "content": "<s>"}]
    return {"added_tokens": added, "post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, inner]}}


ROBERTA = {"type": "RobertaProcessing", "cls": ["<s>", 1]}
FRONT = {"SpecialToken": {"id": "<s>", "type_id": 0}}


def test_of_the_tiny_model() -> None:
    """All that a GGUF file says, the tokens by their numbers."""
    found = chat.read(TINY)
    assert found.template.startswith("{{- bos_token }}")
    assert found == ChatFacts(
        found.template, TEMPLATE, {"bos_token": "<|begin|>", "eos_token": "<|end|>"}, bos_id=0, adds_bos=True
    )
    assert found.bos == "<|begin|>"


def test_of_other_gguf_files(tmp_path: Path) -> None:
    """What is not said is None, or empty; numbers that no token has are nobody's."""
    said = {TEMPLATE: None, ADDS: None, "tokenizer.ggml.bos_token_id": 4_000_000}
    found = chat.read(retold(TINY, tmp_path / "a.gguf", said))
    assert (found.template, found.adds_bos, found.bos) == ("", None, "")
    assert chat.read(retold(TINY, tmp_path / "b.gguf", {ADDS: False, TEMPLATE: "x"})).adds_bos is False


@pytest.mark.parametrize(
    "content, why",
    [(b"GGUX", "is no GGUF file"), (TINY.read_bytes()[:500], "is a damaged GGUF file"), (b"", "is no GGUF file")],
)
def test_damaged_gguf_files(tmp_path: Path, content: bytes, why: str) -> None:
    """Each is told in a few words."""
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(Damaged, match=why):
        chat.read(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    "files, template, source",
    [
        ({"tokenizer_config.json": {"chat_template": "a"}}, "a", "tokenizer_config.json"),
        ({"tokenizer_config.json": {"chat_template": "a"}, "chat_template.jinja": b"b"}, "b", "chat_template.jinja"),
        (
            {"tokenizer_config.json": {"chat_template": [{"name": "rag"}, {"name": "default", "template": "c"}]}},
            "c",
            "tokenizer_config.json",
        ),
        ({"chat_template.json": {"chat_template": "d"}}, "d", "chat_template.json"),
        ({"tokenizer_config.json": {"chat_template": [{"name": "rag", "template": "e"}]}}, "", "tokenizer_config.json"),
        ({}, "", "tokenizer_config.json"),
    ],
)
def test_where_a_folder_has_its_template(tmp_path: Path, files: dict[str, Any], template: str, source: str) -> None:
    """As Hugging Face's libraries look for it; of several the default."""
    found = chat.read(made_models.put(tmp_path, files))
    assert (found.template, found.source) == (template, source)


@pytest.mark.parametrize(
    "files, adds, number",
    [
        ({"tokenizer_config.json": BOS | {"add_bos_token": True}}, True, None),
        ({"tokenizer_config.json": BOS | {"add_bos_token": False}, "tokenizer.json": processor(FRONT)}, False, 1),
        ({"tokenizer_config.json": BOS, "tokenizer.json": processor(FRONT)}, True, 1),
        ({"tokenizer_config.json": {"bos_token": {"content": "<s>"}}, "tokenizer.json": processor(FRONT)}, True, 1),
        ({"tokenizer_config.json": BOS, "tokenizer.json": processor()}, False, 1),
        ({"tokenizer_config.json": BOS, "config.json": {"bos_token_id": 7}}, None, 7),
        ({"special_tokens_map.json": BOS, "tokenizer.json": processor(FRONT)}, True, 1),
        ({"tokenizer_config.json": {"bos_token": None}, "tokenizer.json": processor(FRONT)}, False, None),
        ({"tokenizer_config.json": BOS, "tokenizer.json": {"post_processor": ROBERTA}}, True, None),
        ({"tokenizer_config.json": BOS, "tokenizer.json": {"post_processor": [1], "added_tokens": 3}}, False, None),
    ],
)  # fmt: skip
def test_whether_a_folder_begins_with_a_bos(
    tmp_path: Path, files: dict[str, Any], adds: bool | None, number: int | None
) -> None:
    """What the configuration says, else what the tokenizer does."""
    found = chat.read(made_models.put(tmp_path, files))
    assert (found.adds_bos, found.bos_id) == (adds, number)


def test_a_damaged_folder(tmp_path: Path) -> None:
    """It is told which file it is; a template of any size is not read."""
    with pytest.raises(Damaged, match=r"tokenizer_config\.json is not valid JSON"):
        chat.read(made_models.put(tmp_path / "a", {"tokenizer_config.json": b"{"}))
    with pytest.raises(Damaged, match=r"chat_template\.jinja is too large"):
        chat.read(made_models.put(tmp_path / "b", {"chat_template.jinja": b"a" * (2 << 20)}))
    with pytest.raises(Damaged, match="too large"):
        chat.read(made_models.put(tmp_path / "c", {"tokenizer_config.json": {"chat_template": "a" * (2 << 20)}}))
