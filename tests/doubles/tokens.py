"""What do the doubles say? Made-up tokens, the same for the same prompt, of a tokenizer that cuts at words."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

_PIECES = re.compile(r" ?[A-Za-z]+|\d| ?[^\sA-Za-z\d]|\s")
_WORDS = (
    " the",
    " river",
    " was",
    " wide",
    " and",
    " cold",
    " that",
    " year",
    ",",
    " but",
    " people",
    " still",
    " came",
)
_OWN_LENGTH = 24  # tokens of an answer that nobody ends, with the one that ends it
BOS, EOS = 1, 2
KNOWS_ENV = "KITT_DOUBLE_KNOWS"  # JSON: how a prompt ends -> the first token of its answer


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        text: empty for a part of a character that the next one completes, and for the end.
        number: in the vocabulary.
        logprob: of it.
        end: it ends the sequence.

    """

    text: str
    number: int
    logprob: float
    end: bool = False


def tokenize(text: str) -> list[tuple[str, int]]:
    """Pieces of a text and their numbers, without special tokens."""
    return [(piece, _number(piece)) for piece in _PIECES.findall(text)]


def count(prompt: str) -> int:
    """How many tokens a prompt has, with the one of the beginning."""
    return 1 + len(_PIECES.findall(prompt))


def answer(prompt: str, most: int, *, forced: bool = False) -> tuple[list[Token], str]:
    """The tokens of an answer, and why it ends: ``length`` or ``stop``; forced, it goes on to its limit."""
    start = zlib.crc32(prompt.encode())
    size = most if forced else min(most, _OWN_LENGTH)
    tokens = [_token(start, place) for place in range(size)]
    knows: dict[str, str] = json.loads(os.environ.get(KNOWS_ENV, "{}"))
    if tokens and (known := [text for end, text in knows.items() if prompt.endswith(end)]):
        tokens[0] = Token(known[0], _number(known[0]), tokens[0].logprob)
    if forced or most < _OWN_LENGTH:
        return tokens, "length"
    return [*tokens[:-1], Token("", EOS, -0.25, end=True)], "stop"


def _token(start: int, place: int) -> Token:
    text = _WORDS[(start + place) % len(_WORDS)]
    if place % 8 == 2:
        text = ""  # half of the next character
    elif place % 8 == 3:
        text = " ü"
    return Token(text, _number(text) + place % 8, -((start + place) % 16 + 1) / 16)


def likely(token: Token, most: int) -> list[tuple[str, int, float]]:
    """The likeliest tokens at a place: itself, then made-up ones."""
    others = [(f" other{rank}", 500 + rank, token.logprob - rank) for rank in range(1, most)]
    return [(token.text, token.number, token.logprob), *others][:most]


def text_of(tokens: Sequence[Token]) -> str:
    """The text of an answer."""
    return "".join(token.text for token in tokens)


def _number(piece: str) -> int:
    return zlib.crc32(piece.encode()) % 30_000 + 1000
