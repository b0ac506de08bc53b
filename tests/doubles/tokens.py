"""What do the doubles say? Made-up tokens, the same for the same prompt, of a tokenizer that cuts at words.

A prompt is a text behind one BOS; where there are others, they are written: ``BARE`` in front says that there is none.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
BOS_TEXT, BARE = "<s>", "\0"
CHAT_BOS_ENV = "KITT_DOUBLE_CHAT_BOS"  # how many BOS the chat template writes; one where nothing is said
CHAT_TEMPLATE = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
_SEEN: dict[int, str] = {}
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
    """Pieces of a text and their numbers; special tokens are those that it spells out in front."""
    spelled = 0
    while text.startswith(BOS_TEXT):
        text, spelled = text.removeprefix(BOS_TEXT), spelled + 1
    pieces = [(piece, _number(piece)) for piece in _PIECES.findall(text)]
    _SEEN.update({number: piece for piece, number in pieces})
    return [(BOS_TEXT, BOS)] * spelled + pieces


def templated(messages: Iterable[Mapping[str, Any]]) -> str:
    """The prompt that the chat template makes of messages."""
    text = "".join(f"<|{message.get('role')}|>{message.get('content')}" for message in messages)
    written = int(os.environ.get(CHAT_BOS_ENV, "1"))
    return BOS_TEXT * (written - 1) + text if written else BARE + text


def ids(prompt: str) -> list[int]:
    """The numbers of a prompt's tokens."""
    front = [] if prompt.startswith(BARE) else [BOS]
    return [*front, *(number for _, number in tokenize(prompt.removeprefix(BARE)))]


def spelled(numbers: Iterable[int]) -> str:
    """The text of tokens that were made of a text before."""
    return "".join(BOS_TEXT if number == BOS else _SEEN[number] for number in numbers)


def count(prompt: str) -> int:
    """How many tokens a prompt has, with the one of the beginning."""
    return len(ids(prompt))


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
