"""How likely does an engine hold given texts?"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import orjson

from pytest_kitt.engine import command
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.errors import EngineRequestError, Unscorable
from pytest_kitt.evals.ways import WAYS, Pair, Scored, Way

CONCURRENCY = 8
TOKENIZE = "tokenize"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request.

    Attributes:
        said: the JSON value, or why there is none.
        e2e_ms: from sending the request to the end of its answer, -1 where nobody looked.

    """

    said: Any
    e2e_ms: float = -1.0


OnAnswer = Callable[[int, Answer], None]
Ask = Callable[[str, str, Iterable[bytes], OnAnswer], None]
"""Asks for something (the name of a way, or TOKENIZE): JSON objects, each to the same path.

It takes all of them before it tells the first answer, with the number of the request; in any order.
"""


def loglikelihood(
    engine: RunningEngine,
    pairs: Sequence[tuple[str, str]],
    *,
    ways: Sequence[str],
    concurrency: int = CONCURRENCY,
    bos: bool | None = None,
) -> list[Scored]:
    """How likely each continuation is behind its context, in the order of the pairs: natural logarithms.

    White space at the end of a context counts to its continuation. Where the engine tokenizes, context and
    continuation are encoded together and divided behind as many tokens as the context has alone, as
    lm-evaluation-harness does; where it does not, tokens are divided where the texts are, and one that belongs to both
    raises Unscorable.

    Args:
        engine: who is asked, untimed.
        pairs: contexts with continuations; those with one context should stand together, for the sake of prefix caches.
        ways: names from ``WAYS``, e.g. those that ``probe`` found good; a pair that the first cannot score goes to the
            next.
        concurrency: requests under way at a time.
        bos: whether special tokens such as BOS are put in front; None: as the engine does with a prompt.

    Raises:
        Unscorable: a pair by no way; never a number instead.
        EngineRequestError: the engine refused to tokenize.
        EngineDiedError: it cannot answer any more.

    """
    found = each_scored(engine, pairs, ways=ways, ask=by_threads(engine, concurrency), bos=bos)
    if refused := next((one for one in found if isinstance(one, Unscorable)), None):
        raise refused
    return [one for one in found if isinstance(one, Scored)]


def each_scored(
    engine: RunningEngine,
    pairs: Sequence[tuple[str, str]],
    *,
    ways: Sequence[str],
    ask: Ask,
    bos: bool | None = None,
    on_scored: Callable[[int, Scored | Unscorable, float], None] = lambda *_: None,
) -> list[Scored | Unscorable]:
    """As ``loglikelihood``, each pair's score or why it has none; ``ask`` sends the requests.

    ``on_scored`` gets each of them as soon as it is known: the pair's number, its score, and the milliseconds that the
    longest of its requests took, -1 where nobody looked.
    """
    encoded = _encoded(engine, pairs, ways, ask, bos)
    found: dict[int, Scored | Unscorable] = {}
    reasons: dict[int, list[str]] = {place: [] for place in range(len(encoded))}

    def settle(place: int, scored: Scored | Unscorable, e2e_ms: float) -> None:
        found[place] = scored
        on_scored(place, scored, e2e_ms)

    for name in ways:
        left = [place for place in reasons if place not in found]
        for place, why in _by_way(engine, name, encoded, left, ask, settle):
            reasons[place].append(f"{name}: {why}")
    for place, whys in reasons.items():
        if place not in found:
            text = f"{encoded[place].continuation[:40]!r} cannot be scored: {'; '.join(whys)}"
            settle(place, Unscorable(text), -1.0)
    return [found[place] for place in range(len(encoded))]


def by_threads(engine: RunningEngine, concurrency: int = CONCURRENCY) -> Ask:
    """Asks untimed, so many requests at a time; an engine that died ends all that has not begun."""

    def post(path: str, body: bytes) -> Answer:
        try:
            return Answer(engine.post(path, body))
        except EngineRequestError as error:
            return Answer(error)

    def ask(_: str, path: str, bodies: Iterable[bytes], on_answer: OnAnswer) -> None:
        with ThreadPoolExecutor(concurrency) as threads:
            running = {threads.submit(post, path, body): number for number, body in enumerate(bodies)}
            try:
                for future in as_completed(running):
                    on_answer(running[future], future.result())
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    return ask


def divide(context: str, continuation: str) -> tuple[str, str]:
    """The pair with the white space between both at the beginning of the continuation."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def encode(context: str, continuation: str, context_ids: tuple[int, ...], whole_ids: tuple[int, ...]) -> Pair:
    """The pair with its tokens, by those of the context and of the whole."""
    begin = len(context_ids)
    lead = whole_ids[:begin]
    return Pair(context, continuation, context_ids if lead == context_ids else lead, whole_ids[begin:])


# -- the tokens of all texts


def _encoded(
    engine: RunningEngine, pairs: Sequence[tuple[str, str]], ways: Sequence[str], ask: Ask, bos: bool | None
) -> list[Pair]:
    divided = [divide(context, continuation) for context, continuation in pairs]
    tokenizer = engine.card.tokenize
    if tokenizer is None or not any(WAYS[way].by_ids for way in ways):
        if bos is not None:
            raise EngineRequestError(f"engine {engine.card.name} decides itself about special tokens such as BOS")
        return [Pair(context, continuation) for context, continuation in divided]
    special = True if bos is None and tokenizer.special else bos
    contexts, unique = list(dict.fromkeys(context for context, _ in divided)), list(dict.fromkeys(divided))
    ids: dict[str, tuple[int, ...]] = {}
    found: dict[tuple[str, str], Pair] = {}

    def on_context(number: int, tokens: tuple[int, ...]) -> None:
        ids[contexts[number]] = tokens

    def on_whole(number: int, tokens: tuple[int, ...]) -> None:
        context, rest = unique[number]
        found[context, rest] = encode(context, rest, ids[context], tokens)

    tokenize = functools.partial(_tokenize, engine, tokenizer.path, special, ask)
    tokenize(contexts, on_context)
    tokenize((context + rest for context, rest in unique), on_whole)
    return [found[pair] for pair in divided]


def _tokenize(
    engine: RunningEngine,
    path: str,
    special: bool | None,
    ask: Ask,
    texts: Iterable[str],
    on_tokens: Callable[[int, tuple[int, ...]], None],
) -> None:
    """Tells the tokens of each text by its number; a million equal numbers are one object."""
    one: dict[int, int] = {}

    def on_answer(number: int, answer: Answer) -> None:
        if isinstance(answer.said, EngineRequestError):
            raise answer.said
        ids = engine.token_ids(answer.said)
        on_tokens(number, tuple(map(one.setdefault, ids, ids)))

    ask(TOKENIZE, path, (orjson.dumps(engine.tokenize_body(text, special=special)) for text in texts), on_answer)


# -- their scores


def _by_way(
    engine: RunningEngine,
    name: str,
    encoded: Sequence[Pair],
    places: Sequence[int],
    ask: Ask,
    settle: Callable[[int, Scored | Unscorable, float], None],
) -> list[tuple[int, str]]:
    """Scores the pairs at some places by one way; returns those that it cannot score, with the reason."""
    way, refused, able = WAYS[name], [], []
    for place in places:
        if why := _lacks_ids(encoded[place], engine.card.name) if way.by_ids else "":
            refused.append((place, why))
        else:
            able.append(place)
    waiting = _Waiting()

    def on_answer(number: int, answer: Answer) -> None:
        for place, answers in waiting.take(number, answer):
            try:
                scored = _read(way, encoded[place], answers)
            except EngineRequestError as error:
                refused.append((place, str(error)))
            else:
                settle(place, scored, max(one.e2e_ms for one in answers))

    def bodies(place: int) -> list[bytes]:
        made = way.bodies(encoded[place], engine.model)
        return [orjson.dumps(command.with_request(engine.cell, engine.card, body)) for body in made]

    if able:
        ask(name, way.path, waiting.requests((place, bodies(place)) for place in able), on_answer)
    return refused


class _Waiting:
    """Which pairs wait for which answers: a request that several of them make is sent once."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}  # of each request, by its digest
        self._needs: dict[int, list[int]] = {}  # pair -> requests, in order
        self._users: dict[int, list[int]] = {}  # request -> pairs
        self._missing: dict[int, int] = {}  # pair -> answers
        self._unread: Counter[int] = Counter()  # request -> pairs that have yet to read its answer
        self._answers: dict[int, Answer] = {}

    def requests(self, asked: Iterable[tuple[int, list[bytes]]]) -> Iterator[bytes]:
        """The requests of each pair, without those that were made before."""
        for place, wanted in asked:
            numbers = []
            for body in wanted:
                new = len(self._numbers)
                number = self._numbers.setdefault(hashlib.blake2b(body, digest_size=16).digest(), new)
                numbers.append(number)
                self._users.setdefault(number, []).append(place)
                if number == new:
                    yield body
            self._needs[place] = numbers
            self._missing[place] = len(set(numbers))
            self._unread.update(set(numbers))

    def take(self, number: int, answer: Answer) -> Iterator[tuple[int, list[Answer]]]:
        """The pairs whose answers are now complete, with these."""
        self._answers[number] = answer
        for place in dict.fromkeys(self._users[number]):
            self._missing[place] -= 1
            if not self._missing[place]:
                yield place, [self._answers[one] for one in self._needs[place]]
                self._forget(self._needs.pop(place))

    def _forget(self, numbers: Sequence[int]) -> None:
        for number in set(numbers):
            self._unread[number] -= 1
            if not self._unread[number]:
                del self._answers[number]


def _read(way: Way, pair: Pair, answers: Sequence[Answer]) -> Scored:
    for answer in answers:
        if isinstance(answer.said, EngineRequestError):
            raise answer.said
    return way.read(pair, [answer.said for answer in answers])


def _lacks_ids(pair: Pair, engine: str) -> str:
    """Why a way that needs token ids cannot score a pair; empty when it can."""
    if not pair.context_ids and not pair.ids:
        return f"engine {engine} does not tokenize"
    if not pair.context_ids:
        return "the context is empty: nothing says how likely a first token is"
    return "" if pair.ids else "the continuation has no token of its own"
