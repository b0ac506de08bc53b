"""What of what models, servers and users said may stand on a page? Bounded text without characters that play tricks."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

MAX_ENTRIES = 2000
_MAX_DEPTH = 8
# control characters, marks that turn the direction of writing, what has no width, lone surrogates
_TRICKS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
_PILE = re.compile("([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{3})[\u0300-\u036f"
                   "\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")  # fmt: skip


@functools.lru_cache(maxsize=4096)
def tame(text: str, limit: int = 2000) -> str:
    """At most so many characters; what cannot be seen is spelt out, and no letter wears more than three accents."""
    kept = text if len(text) <= limit else f"{text[:limit]} … ({len(text):,} characters)"
    kept = kept.replace("\r\n", "\n")
    return _PILE.sub(r"\1", _TRICKS.sub(lambda found: _spelt(found[0]), kept))


def tamed(value: Any, limit: int = 2000, depth: int = 0) -> Any:
    """The same for all texts inside of JSON values, names of keys too."""
    if isinstance(value, str):
        return tame(value, limit)
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        entries = list(value.items())[:MAX_ENTRIES]
        return {tame(str(key), limit): tamed(entry, limit, depth + 1) for key, entry in entries}
    if isinstance(value, list | tuple):
        return [tamed(entry, limit, depth + 1) for entry in value[:MAX_ENTRIES]]
    return value if value is None or isinstance(value, bool | int | float) else tame(str(value), limit)


def _spelt(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) > 0xFF else f"\\x{ord(char):02x}"
