"""How likely does an engine hold given texts?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from pytest_kitt.engine import command
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.errors import EngineRequestError, Unscorable
from pytest_kitt.evals.ways import WAYS, Pair, Scored

CONCURRENCY = 8

_In = TypeVar("_In")
_Out = TypeVar("_Out")


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
        concurrency: pairs under way at a time.
        bos: whether special tokens such as BOS are put in front; None: as the engine does with a prompt.

    Raises:
        Unscorable: a pair by no way; never a number instead.
        EngineRequestError: the engine refused to tokenize.
        EngineDiedError: it cannot answer any more.

    """
    found: dict[int, Scored] = {}
    for index, scored in each_scored(engine, pairs, ways=ways, concurrency=concurrency, bos=bos):
        if isinstance(scored, Unscorable):
            raise scored
        found[index] = scored
    return [found[index] for index in range(len(pairs))]


def each_scored(
    engine: RunningEngine,
    pairs: Sequence[tuple[str, str]],
    *,
    ways: Sequence[str],
    concurrency: int = CONCURRENCY,
    bos: bool | None = None,
) -> Iterator[tuple[int, Scored | Unscorable]]:
    """As ``loglikelihood``, each pair's number and score as soon as it is known, or why it has none."""
    divided = [divide(context, continuation) for context, continuation in pairs]
    tokenizer = engine.card.tokenize
    encoded = [Pair(context, continuation) for context, continuation in divided]
    if tokenizer is not None and any(WAYS[way].by_ids for way in ways):
        special = True if bos is None and tokenizer.special else bos
        texts = list(dict.fromkeys(text for context, rest in divided for text in (context, context + rest)))
        tokenized = _each(lambda text: engine.tokenize(text, special=special), texts, concurrency)
        ids = {texts[index]: found for index, found in tokenized}
        encoded = [encode(context, continuation, ids) for context, continuation in divided]
    elif bos is not None:
        raise EngineRequestError(f"engine {engine.card.name} decides itself about special tokens such as BOS")
    yield from _each(lambda pair: _score(engine, pair, ways), encoded, concurrency)


def _each(work: Callable[[_In], _Out], items: Sequence[_In], concurrency: int) -> Iterator[tuple[int, _Out]]:
    """The results with their items' numbers as they come, from threads; an exception ends all that has not begun."""
    with ThreadPoolExecutor(concurrency) as threads:
        running = {threads.submit(work, item): index for index, item in enumerate(items)}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def divide(context: str, continuation: str) -> tuple[str, str]:
    """The pair with the white space between both at the beginning of the continuation."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def encode(context: str, continuation: str, ids: Mapping[str, Sequence[int]]) -> Pair:
    """The pair with its tokens, by those of the context and of the whole."""
    whole, begin = ids[context + continuation], len(ids[context])
    return Pair(context, continuation, tuple(whole[:begin]), tuple(whole[begin:]))


def _score(engine: RunningEngine, pair: Pair, ways: Sequence[str]) -> Scored | Unscorable:
    refused = []
    for name in ways:
        way = WAYS[name]
        try:
            if way.by_ids:
                _require_ids(pair, engine.card.name)
            requests = way.requests(pair, engine.model)
            answers = [
                engine.post(path, command.with_request(engine.cell, engine.card, body)) for path, body in requests
            ]
            return way.read(pair, answers)
        except EngineRequestError as error:
            refused.append(f"{name}: {error}")
    return Unscorable(f"{pair.continuation[:40]!r} cannot be scored: {'; '.join(refused)}")


def _require_ids(pair: Pair, engine: str) -> None:
    if not pair.context_ids and not pair.ids:
        raise Unscorable(f"engine {engine} does not tokenize")
    if not pair.context_ids:
        raise Unscorable("the context is empty: nothing says how likely a first token is")
    if not pair.ids:
        raise Unscorable("the continuation has no token of its own")
