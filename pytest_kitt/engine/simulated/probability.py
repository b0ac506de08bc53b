"""How likely is each token? Pure: the seed, what is known, the text before and the token decide, and nothing else.

So a text has the same log-probabilities whether it is generated or echoed, alone or in a batch, for the first time or
the second. With p the sum of all favours, the probability of a token is

    its own favour + (1 - p) * base

Favoured is what the answer to the last question in the text goes on with; where none is due, the word that greedy
decoding takes. The base gives 15/16 to the 256 words, by weights from 1 to 256 that the text before decides, and 1/16
to all other tokens: 128 ** -n / 6 for n bytes, times a number in (0, 1] that text and token decide. There are fewer
than 128 ** n tokens of n bytes and none has more than 6, so the sum over all tokens is at most 1.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import shake_256
from heapq import nlargest
from itertools import accumulate
from zlib import crc32

from pytest_kitt.engine.simulated import text
from pytest_kitt.engine.simulated.text import WORDS

BEHIND_ALL_WORDS = len(WORDS) + 1  # rank of a token that is neither a word nor favoured

_FIRST, _FIRST_SPACED, _NEXT = 0.55, 0.35, 0.9
_GREEDY_LEAST, _GREEDY_SPREAD = 0.4, 0.5
_OTHERS = 1 / 16
_AVOIDED = 2.0**-20
_LEAST_LOGPROB = -9999.0
_MASK = 0xFFFFFFFF
_INDEX = {word: index for index, word in enumerate(WORDS)}


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the engine believes.

    Attributes:
        favoured: question -> the answer that it gives, right or wrong.
        avoided: question -> the right answer, which it holds unlikely because it knows no other wrong one.

    """

    favoured: Mapping[str, str]
    avoided: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely one token was, and which were likeliest in its place: (token, log-probability, rank)."""

    token: str
    logprob: float
    rank: int
    top: tuple[tuple[str, float, int], ...] = ()


def start(seed: int, before: str = "") -> int:
    """What stands for the seed and the text before; `follow` goes on from it."""
    return follow(crc32(f"{seed}".encode()), before)


def follow(state: int, piece: str) -> int:
    """What stands for that text and the piece behind it."""
    return crc32(piece.encode(), state)


def greedy(state: int) -> str:
    """The likeliest token where no answer is due."""
    return WORDS[_scramble(state) >> 24]


def compose_greedily(state: int, tokens: int) -> tuple[str, ...]:
    """What greedy decoding writes from there on."""
    pieces = []
    for _ in range(tokens):
        piece = greedy(state)
        pieces.append(piece)
        state = follow(state, piece)
    return tuple(pieces)


class Model:
    """The engine's language model: a seed and what it believes."""

    def __init__(self, seed: int, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self._answers = {question: _Answer(answer) for question, answer in knowledge.favoured.items()}
        self._avoided = {question: _Answer(answer).firsts for question, answer in knowledge.avoided.items()}
        self._questions = [*self._answers, *self._avoided]
        self._origin = start(seed)

    def judge(self, before: str, pieces: Sequence[str], *, top: int = 0) -> Iterator[Likelihood]:
        """How likely each piece was, one after the other, behind the text before."""
        whole = before + "".join(pieces)
        asked = sorted(_occurrences(whole, self._questions))
        ends = [end for end, _, _ in asked]
        state, at = follow(self._origin, before), len(before)
        for piece in pieces:
            last = bisect_right(ends, at) - 1
            end, _, question = asked[last] if last >= 0 else (0, 0, "")
            answer = self._answers.get(question)
            favours = (answer.go_on(whole, end, at) if answer else {}) or {greedy(state): _greedy_favour(state)}
            place = _Place(state, favours, self._avoided.get(question, ()))
            yield Likelihood(piece, place.logprob(piece), place.rank(piece), place.top(top))
            state, at = follow(state, piece), at + len(piece)


class _Answer:
    """An answer that is to be favoured, token by token."""

    def __init__(self, answer: str) -> None:
        self._pieces = text.split(answer)
        self._begun = list(accumulate(self._pieces))
        self.firsts = (self._pieces[0], text.split(f" {answer}")[0])

    def go_on(self, whole: str, begin: int, end: int) -> dict[str, float]:
        """What is favoured behind whole[begin:end]: how the answer begins, or goes on; {} when all of it is said."""
        for place in reversed(range(len(self._pieces))):
            if whole.endswith(self._begun[place], begin, end):
                return {self._pieces[place + 1]: _NEXT} if place + 1 < len(self._pieces) else {}
        return dict(zip(reversed(self.firsts), (_FIRST_SPACED, _FIRST), strict=True))


class _Place:
    """All tokens at one place in a text."""

    def __init__(self, state: int, favours: Mapping[str, float], avoided: Sequence[str]) -> None:
        self._state = state
        self._favours = favours
        self._avoided = avoided
        self._rest = 1 - sum(favours.values())
        self._weights = shake_256(state.to_bytes(4)).digest(len(WORDS))
        self._sum = sum(self._weights) + len(WORDS)

    def logprob(self, token: str) -> float:
        """The natural logarithm of its probability; what is too small for a number is vLLM's -9999."""
        probability = self._probability(token)
        return math.log(probability) if probability else _LEAST_LOGPROB

    def rank(self, token: str) -> int:
        """1 for the likeliest."""
        better = sum(other != token and self._probability(other) > self._probability(token) for other in self._favours)
        if token in self._favours:
            return 1 + better
        index = _INDEX.get(token)
        if index is None:
            return BEHIND_ALL_WORDS
        heavier = sum(map(self._weights[index].__lt__, self._weights))
        counted = sum(
            _INDEX.get(other, -1) >= 0 and self._weights[_INDEX[other]] > self._weights[index]
            for other in self._favours
        )
        return 1 + better + heavier - counted

    def top(self, number: int) -> tuple[tuple[str, float, int], ...]:
        """The likeliest tokens with log-probability and rank."""
        if not number:
            return ()
        heaviest = nlargest(number, range(len(WORDS)), key=self._weights.__getitem__)
        tokens = {*self._favours, *(WORDS[index] for index in heaviest)}
        likeliest = nlargest(number, tokens, key=lambda token: (self._probability(token), token))
        return tuple((token, self.logprob(token), rank) for rank, token in enumerate(likeliest, start=1))

    def _probability(self, token: str) -> float:
        return self._favours.get(token, 0.0) + self._rest * self._base(token)

    def _base(self, token: str) -> float:
        index = _INDEX.get(token)
        if index is not None:
            base = (1 - _OTHERS) * (self._weights[index] + 1) / self._sum
        else:
            raw = token.encode()
            share = ((_scramble(crc32(raw, ~self._state & _MASK)) >> 16) + 1) / 2**16
            base = _OTHERS * share * 128.0 ** -len(raw) / 6
        return base * _AVOIDED if token in self._avoided else base


def _occurrences(whole: str, questions: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Where a question ends, its length, and the question: of two that end together the longer is sorted behind."""
    for question in questions:
        begin = whole.find(question)
        while begin >= 0:
            yield begin + len(question), len(question), question
            begin = whole.find(question, begin + 1)


def _greedy_favour(state: int) -> float:
    return _GREEDY_LEAST + _GREEDY_SPREAD * (_scramble(~state & _MASK) / 2**32)


def _scramble(state: int) -> int:
    """Every bit of the state in every bit: a CRC alone is too regular."""
    state = (state ^ state >> 16) * 0x7FEB352D & _MASK
    state = (state ^ state >> 15) * 0x846CA68B & _MASK
    return state ^ state >> 16
