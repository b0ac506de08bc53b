"""Which chat template does a model bring, and does its tokenizer begin a prompt with a BOS? By its own files alone.

A GGUF file says it in ``tokenizer.chat_template`` and ``tokenizer.ggml.*``. A folder in Hugging Face's layout says it
in ``chat_template.jinja``, ``tokenizer_config.json`` or ``chat_template.json``, and of the BOS in
``tokenizer_config.json`` (``add_bos_token``) or in the post-processor of ``tokenizer.json``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_kitt.model import config, gguf
from pytest_kitt.model.config import Damaged

GGUF_TEMPLATE = "tokenizer.chat_template"
_MAX_TEMPLATE_BYTES = 1 << 20
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
_JINJA, _CONFIG, _PROCESSOR, _TOKENIZER = (
    "chat_template.jinja",
    "tokenizer_config.json",
    "chat_template.json",
    "tokenizer.json",
)


@dataclasses.dataclass(frozen=True, slots=True)
class ChatFacts:
    """What a model says of its prompts.

    Attributes:
        template: Jinja2; empty when it has none.
        source: where the template stands, or would stand.
        special: texts of its special tokens as a template calls them, such as ``bos_token``.
        bos_id: number of the BOS; None when nobody says.
        adds_bos: whether its tokenizer puts a BOS in front of a plain text; None when nobody says.

    """

    template: str
    source: str
    special: Mapping[str, str] = dataclasses.field(default_factory=dict)
    bos_id: int | None = None
    adds_bos: bool | None = None

    @property
    def bos(self) -> str:
        """Text of its BOS; empty when it has none."""
        return self.special.get("bos_token", "")


def read(path: Path) -> ChatFacts:
    """What the files of a model say; Damaged when they cannot be read."""
    return _of_folder(path) if path.is_dir() else _of_gguf(path)


def _of_gguf(path: Path) -> ChatFacts:
    said = gguf.speech(path)
    template = said.get(GGUF_TEMPLATE)
    adds = said.get("tokenizer.ggml.add_bos_token")
    bos = said.get("tokenizer.ggml.bos_token_id")
    tokens = said.get("tokenizer.ggml.tokens") or []
    special = {}
    for name in ("bos", "eos"):
        number = said.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            special[f"{name}_token"] = tokens[number]
    return ChatFacts(
        template=_bounded(template) if isinstance(template, str) else "",
        source=GGUF_TEMPLATE,
        special=special,
        bos_id=bos if isinstance(bos, int) else None,
        adds_bos=adds if isinstance(adds, bool) else None,
    )


def _of_folder(folder: Path) -> ChatFacts:
    said = _document(folder, _CONFIG)
    special = _special(folder, said)
    tokenizer = _document(folder, _TOKENIZER)
    template, source = _template(folder, said)
    bos = special.get("bos_token", "")
    return ChatFacts(template, source, special, _bos_id(folder, tokenizer, bos), _adds_bos(said, tokenizer, bos))


def _template(folder: Path, said: Mapping[str, Any]) -> tuple[str, str]:
    """The template and where it stands; of several the one called ``default``."""
    if (folder / _JINJA).is_file():
        if (folder / _JINJA).stat().st_size > _MAX_TEMPLATE_BYTES:
            raise Damaged(f"{_JINJA} is too large")
        return (folder / _JINJA).read_text(encoding="utf-8", errors="replace"), _JINJA
    for source, found in ((_CONFIG, said), (_PROCESSOR, _document(folder, _PROCESSOR))):
        template = found.get("chat_template")
        if isinstance(template, list):
            named = [one for one in template if isinstance(one, dict) and one.get("name") == "default"]
            template = named[0].get("template") if named else None
        if isinstance(template, str):
            return _bounded(template), source
    return "", _CONFIG


def _special(folder: Path, said: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens; each is a text, or an object that has one."""
    beside = _document(folder, "special_tokens_map.json")
    found = {}
    for name in _SPECIAL:
        token = said.get(name) or beside.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and text:
            found[name] = text
    return found


def _bos_id(folder: Path, tokenizer: Mapping[str, Any], bos: str) -> int | None:
    added = tokenizer.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if bos and isinstance(token, dict) and token.get("content") == bos and type(token.get("id")) is int:
            return int(token["id"])
    number = _document(folder, "config.json").get("bos_token_id")
    return number if bos and type(number) is int else None


def _adds_bos(said: Mapping[str, Any], tokenizer: Mapping[str, Any], bos: str) -> bool | None:
    """As ``add_bos_token`` says, else as the tokenizer's post-processor does."""
    if isinstance(said.get("add_bos_token"), bool):
        return bool(said["add_bos_token"])
    if not tokenizer:
        return None
    return bool(bos) and any(_begins_with(step, bos) for step in _steps(tokenizer.get("post_processor")))


def _steps(processor: Any) -> list[Mapping[str, Any]]:
    """A post-processor, or those that a sequence consists of."""
    if not isinstance(processor, dict):
        return []
    inner = processor.get("processors")
    return [step for step in inner if isinstance(step, dict)] if isinstance(inner, list) else [processor]


def _begins_with(step: Mapping[str, Any], bos: str) -> bool:
    """Whether a post-processor puts this token in front of a single text."""
    if step.get("type") in ("BertProcessing", "RobertaProcessing"):
        cls = step.get("cls")
        return isinstance(cls, list) and cls[:1] == [bos]
    single = step.get("single")
    first = single[0] if isinstance(single, list) and single else None
    token = first.get("SpecialToken") if isinstance(first, dict) else None
    return isinstance(token, dict) and token.get("id") == bos


def _document(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the folder; empty when it is not there."""
    return config.document(folder / name) if (folder / name).is_file() else {}


def _bounded(template: str) -> str:
    if len(template) > _MAX_TEMPLATE_BYTES:
        raise Damaged("its chat template is too large")
    return template
