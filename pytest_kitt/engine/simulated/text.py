"""Which tokens make up a text, and which text the server answers. Pure and seeded.

A token is at most six bytes of UTF-8: one optional white space and up to five ASCII characters or one other character.
So words separated by single spaces count additively, and a token's id is its own bytes read as a number: no vocabulary.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import shake_256
from itertools import accumulate
from typing import Literal

_PIECE = re.compile(r"\s?(?:[\x00-\x08\x0e-\x1f\x21-\x7f]{1,5}|[^\x00-\x7f])|\s", re.ASCII)
_ONSETS = "bdfghklmnprstvwz"
_RIMES = ("a", "e", "i", "o", "u", "an", "en", "in", "on", "un", "ar", "er", "or", "al", "el", "ol")
WORDS = tuple(f" {onset}{rime}" for onset in _ONSETS for rime in _RIMES)


FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Output:
    """What one request answers: the text each token shows, and why it ends.

    Attributes:
        pieces: one for each token; empty where a stop string hides it.
        finish_reason: why the last of them is the last.
        reasoning: how many of them, from the first on, are reasoning.
        calls: what follows the reasoning calls a tool: its name, then its arguments.
        made: the tokens before a stop string hid anything of them.

    """

    pieces: tuple[str, ...]
    finish_reason: FinishReason
    reasoning: int = 0
    calls: bool = False
    made: tuple[str, ...] = field(default=(), compare=False)

    @property
    def text(self) -> str:
        """All that is shown behind the reasoning."""
        return "".join(self.pieces[self.reasoning :])

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens as they were made."""
        return self.made or self.pieces


def split(text: str) -> list[str]:
    """The tokens of the text; joined they are the text again."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """How many tokens the text has."""
    return len(split(text))


def encode(text: str) -> list[int]:
    """The ids of the text's tokens."""
    return [token_id(piece) for piece in split(text)]


def token_id(piece: str) -> int:
    """The id of one token."""
    # The leading 1 keeps zero bytes; seven bytes stay below 2**53, so that the id is exact in every JSON reader.
    return int.from_bytes(b"\x01" + piece.encode())


def decode(ids: Iterable[int]) -> str:
    """The text of the tokens; a ValueError names an id that no token has."""
    return "".join(map(_piece, ids))


def _piece(token: int) -> str:
    raw = token.to_bytes(8).lstrip(b"\x00") if 0 < token < 2**64 else b""
    piece = raw[1:].decode(errors="replace")
    if encode(piece) != [token]:
        raise ValueError(f"{token} is not a token id")
    return piece


def compose(key: str, tokens: int) -> Output:
    """Exactly so many words, the same for the same key in every version of Python."""
    draw = shake_256(key.encode()).digest(tokens)
    return Output(tuple(WORDS[byte] for byte in draw), "length")


def recite(answer: str, tokens: int) -> Output:
    """The answer as tokens, cut where the request's limit ends it."""
    pieces = split(answer)
    return Output(tuple(pieces[:tokens]), "stop" if len(pieces) <= tokens else "length")


def find_answer(prompt: str, answers: Mapping[str, str]) -> str | None:
    """The answer to the question that ends last in the prompt: a few-shot prompt shows other questions before it."""
    asked = [question for question in answers if question in prompt]
    if not asked:
        return None
    return answers[max(asked, key=lambda question: (prompt.rfind(question) + len(question), len(question)))]


def cut(output: Output, stops: Sequence[str]) -> Output:
    """The output as the stop string that is complete first leaves it: tokens up to that one, text up to the string."""
    text = output.text
    found = [(begin + len(stop), begin) for stop in stops if (begin := text.find(stop)) >= 0]
    if not found:
        return output
    complete, visible = min(found)
    ends = list(accumulate(map(len, output.pieces)))
    made = next(index for index, end in enumerate(ends) if end >= complete) + 1
    shown = (text[:visible][end - len(piece) : end] for piece, end in zip(output.pieces[:made], ends, strict=False))
    return Output(tuple(shown), "stop", made=output.pieces[:made])


def draw_fraction(key: str) -> float:
    """A number in [0, 1) that the key alone decides."""
    return int.from_bytes(shake_256(key.encode()).digest(6)) / 2**48
