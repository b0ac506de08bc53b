"""What is wrong with a file that a user wrote? What pydantic finds, as one plain sentence with file, line and key."""

from __future__ import annotations

import contextlib
import datetime
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from pytest_kitt.errors import UserError, nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MAX_FOUND = 60
_BARE = (bool, int, float, datetime.date)  # what YAML makes of a word without quotes
_EXPECTED = {
    "string_type": "a text",
    "pattern_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_too_short": "a text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "a text of the form {pattern}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "literal_error": "{expected}",
}
_QUOTED = re.compile(r"'([^']*)'")


def explained(path: Path, error: ValidationError, record: type[BaseModel], at: tuple[str, ...] = ()) -> str:
    """What is wrong first in a YAML file, where, and what could stand there.

    Args:
        path: of the file.
        error: what was found.
        record: what the file should hold at ``at``.
        at: keys that lead there.

    """
    return _sentence(path, error, record, at).replace("\n", " ")


def _sentence(path: Path, error: ValidationError, record: type[BaseModel], at: tuple[str, ...]) -> str:
    tree, found = _tree(path), error.errors()
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])  # a typo explains what is missing
    loc = (*at, *first["loc"])
    where = f"{path}:{_line(tree, loc)}"
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {_dotted(loc)}; {nearest(str(loc[-1]), _known_keys(record, first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"{where}: key {_dotted(loc)} is missing"
    loc = _written(tree, loc)
    alike = [e for e in found if _written(tree, (*at, *e["loc"])) == loc]
    return f"{where}: {f'key {_dotted(loc)}: ' if loc else ''}{in_words(alike)}"


def in_words(errors: Sequence[ErrorDetails]) -> str:
    """What is wrong with one value, by each of the forms that it may have."""
    first = errors[0]
    if len(errors) == 1 and isinstance(first["input"], str) and (known := _choices(first)):
        return f"{shown(first['input'])} is not possible; {nearest(first['input'], known)}"
    if first["type"] in ("value_error", "assertion_error"):
        return first["msg"].partition(", ")[2]
    if first["type"] == "pattern_regex":
        return f"{shown(first['input'])} is no regular expression"
    if first["type"] == "json_invalid":
        return f"no JSON: {first['ctx']['error']}"
    if first["type"] == "missing":
        return "it is missing"
    if first["type"] == "extra_forbidden":
        return "nobody knows this key"
    words = [_EXPECTED[e["type"]].format_map(e.get("ctx", {})) for e in errors if e["type"] in _EXPECTED]
    expected = f"expected {' or '.join(dict.fromkeys(words))}, " if words else "it does not fit: "
    return f"{expected}found {shown(first['input'])}{_cure(words, first['input'])}"


def shown(value: object) -> str:
    """A value of a YAML file as it may stand in a sentence."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "keys with values"
    if isinstance(value, list):
        return "a list"
    text = str(value) if isinstance(value, _BARE) else repr(value)
    return text if len(text) <= _MAX_FOUND else f"{text[:_MAX_FOUND]}…"


def place(path: Path, *keys: str) -> str:
    """``FILE:LINE`` of a key in a YAML file."""
    return f"{path}:{_line(_tree(path), keys)}"


def _cure(expected: Iterable[str], value: object) -> str:
    return "; put it in quotes" if isinstance(value, _BARE) and "a text" in expected else ""


def _choices(error: ErrorDetails) -> list[str]:
    """The texts that may stand there, where they can be counted."""
    expected = error["ctx"]["expected"] if error["type"] == "literal_error" else ""
    return [text for text in _QUOTED.findall(expected) if text]


def _dotted(loc: Iterable[int | str]) -> str:
    return repr(".".join(map(str, loc)))


def require_single_keys(path: Path, source: str) -> None:
    """UserError for a key that a mapping of a YAML text has twice: YAML's reader takes the last without a word."""
    waiting = [yaml.compose(source, yaml.SafeLoader)]
    looked: set[int] = set()  # an alias is the node that it names: it may hold itself, or be named very often
    while waiting:
        node = waiting.pop()
        if id(node) in looked:
            continue
        looked.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            waiting += [value for _, value in node.value]
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise UserError(f"{path}:{line}: key {key.value!r} is there twice; keep one of them")
                seen.add(key.value)


def _tree(path: Path) -> yaml.Node | None:
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError, RecursionError):  # its content is known to be read
        return yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    return None


def _steps(node: yaml.Node | None, loc: Iterable[int | str]) -> Iterator[tuple[int | str, yaml.Node]]:
    """Each part of a place as far as it is written in the file, with the node that has its line."""
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if pair is None:
                return
            node = pair[1]
            yield part, pair[0]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            yield part, node
        else:
            return


def _line(tree: yaml.Node | None, loc: Iterable[int | str]) -> int:
    """The line of a key, or of the innermost one that is there."""
    lines = [node.start_mark.line + 1 for _, node in _steps(tree, loc)]
    return lines[-1] if lines else 1


def _written(tree: yaml.Node | None, loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """A place without the names of types, which pydantic puts behind it where a value may have several."""
    return tuple(part for part, _ in _steps(tree, loc)) if tree is not None else loc


def _known_keys(record: type[BaseModel], loc: Iterable[int | str]) -> list[str]:
    """The keys of the record at a place."""
    for part in loc:
        if isinstance(part, str) and part in record.model_fields:
            record = next(_records(record.model_fields[part].annotation), record)
    return list(record.model_fields)


def _records(annotation: Any) -> Iterator[type[BaseModel]]:
    """The records that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _records(inner)
