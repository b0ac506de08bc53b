"""Which texts are sent? Prompts of an exact length with a unique beginning, or the user's own.

A synthetic prompt is a row of common words. Words are taken that count the same number of tokens for the engine's own
tokenizer (asked word by word, in the middle of a sentence), so that any row of n of them is equally long. Each request
begins with words drawn for it alone: no prefix cache can have seen it, in this run or an earlier one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import uuid

from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.errors import EngineRequestError
from pytest_kitt.load.spec import Calls, Prompts, Synthetic, Workload
from pytest_kitt.settings import Api

# Frequent English words: most tokenizers know each, with its leading space, as one token.
_TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem "
    "hand part place case week company system program question work night point home water room mother area money "
    "story fact month lot right study book eye job word business issue side kind head house service friend father "
    "power hour game line end member law car city community name president team minute idea kid body information "
    "back parent face others level office door health person art war history party result change morning reason "
    "research girl guy moment air teacher force education "
)
WORDS = tuple(_TEXT.split())
_PLACE = "\0"
_DISTINCT_BODIES = 64
_MAX_WORDS = 500_000  # of all bodies together: they travel to the client and stay in its memory
_PREFIX_WORDS = 6
_CHARS_PER_TOKEN = 4.5  # of English text, for engines that do not tokenize


@dataclasses.dataclass(frozen=True, slots=True)
class Bodies:
    """JSON bodies around the place of the unique prefix, and what the prefix is made of.

    Attributes:
        bodies: (before, after) texts.
        words: prefix words; empty for prompts that are sent as they are.
        prefix_length: words per prefix.
        salt: makes this load's prefixes differ from any other's.
        isl_by: who counted the prompt's length when it was made: tokenizer or estimated; empty for given prompts.
        fd: of a file with one body a line, in place of the texts; -1 for none.

    """

    bodies: tuple[tuple[str, str], ...]
    words: tuple[str, ...] = ()
    prefix_length: int = 0
    salt: str = ""
    isl_by: str = ""
    fd: int = -1


def bodies(workload: Workload, engine: RunningEngine, api: Api, *, seed: int) -> Bodies:
    """The request bodies of a workload for one engine."""
    if isinstance(workload, Calls):
        return Bodies((), fd=workload.fd)
    if isinstance(workload, Prompts):
        extra = {**(engine.card.force_length if workload.forced else {}), **workload.fields}
        made = [engine.body(api, prompt, max_tokens=workload.output_tokens, extra=extra) for prompt in workload.prompts]
        return Bodies(tuple((json.dumps(body, ensure_ascii=False), "") for body in made))
    return _synthetic(workload, engine, api, seed)


def _synthetic(workload: Synthetic, engine: RunningEngine, api: Api, seed: int) -> Bodies:
    tokens_per_word, isl_by = _tokens_per_word(engine)
    counts = sorted(set(tokens_per_word.values()))
    same = {count: [word for word, n in tokens_per_word.items() if n == count] for count in counts}
    count = max(same, key=lambda n: len(same[n]))  # the commonest length: all words of a prompt have it
    words = tuple(f" {word}" for word in same[count])
    total = max(1, round(workload.prompt_tokens / count))
    prefix = min(_PREFIX_WORDS, total)
    rng = random.Random(f"{seed}:{workload}")
    made = []
    for _ in range(max(4, min(_DISTINCT_BODIES, _MAX_WORDS // total))):
        text = "".join(rng.choice(words) for _ in range(total - prefix))
        body = engine.body(api, _PLACE + text, max_tokens=workload.output_tokens, extra=engine.card.force_length)
        before, after = json.dumps(body, ensure_ascii=False).split(json.dumps(_PLACE)[1:-1])
        made.append((before, after))
    return Bodies(tuple(made), words, prefix, uuid.uuid4().hex, isl_by)


def _tokens_per_word(engine: RunningEngine) -> tuple[dict[str, int], str]:
    """Tokens of each word behind another one, and who counted."""
    with contextlib.suppress(EngineRequestError):
        base = len(engine.tokenize("the"))
        counted = {word: len(engine.tokenize(f"the {word}")) - base for word in WORDS}
        if sound := {word: tokens for word, tokens in counted.items() if tokens > 0}:
            return sound, "tokenizer"
    return {word: max(1, round((len(word) + 1) / _CHARS_PER_TOKEN)) for word in WORDS}, "estimated"
