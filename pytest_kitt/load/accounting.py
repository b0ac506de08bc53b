"""Do the counts of tokens agree? What the server says, what was seen to arrive, and what its own tokenizer says.

The server's ``usage`` counts the tokens of an answer, where it is given. It cannot be less than the token-bearing
events: each carries one token at least. It may be more, where an event carries several tokens; then the engine's
tokenizer decides over a few answers, or, where there is none, whether the text is long enough for so many tokens. The
prompt must have arrived whole: some servers cut what is longer than their context, and say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_kitt.load.certificate import MAX_COUNT_DISAGREEMENT, MAX_PROMPT_SHORTFALL, MAX_TOKENIZER_DISAGREEMENT
from pytest_kitt.measure.metrics import is_good
from pytest_kitt.measure.records import CountedBy, Records

Tokenize = Callable[[str], int]
_CLEAR_DIFFERENCE = 3  # tokens: an end-of-text token is counted and not seen


def doubts(
    records: Records, samples: Sequence[tuple[int, int, str, str]], *, tokenize: Tokenize | None, prompt_tokens: int = 0
) -> list[str]:
    """Why the token counts of a load cannot be trusted, one sentence each; none when they agree.

    ``samples`` are (osl by usage, events, text, reasoning) of a few answers; ``tokenize`` counts a text's tokens with
    the engine's tokenizer; ``prompt_tokens`` is the length of the prompts as they were made, 0 when it is not known.
    """
    return [*_answers(records, samples, tokenize), *_prompts(records, prompt_tokens)]


def counters(records: Records) -> str:
    """Who counted the tokens of the good requests: ``usage``, ``chunks``, or both, comma-separated."""
    names = ("phase", "failure", "events", "counted_by")
    columns = zip(*(records[name] for name in names), strict=True)
    found = {by for phase, failure, events, by in columns if is_good(phase, failure, events)}
    return ",".join(CountedBy(by).name.lower() for by in sorted(found))


def _answers(records: Records, samples: Sequence[tuple[int, int, str, str]], tokenize: Tokenize | None) -> list[str]:
    said = seen = requests = 0
    names = ("phase", "failure", "events", "osl", "counted_by")
    for phase, failure, events, osl, counted_by in zip(*(records[name] for name in names), strict=True):
        if is_good(phase, failure, events) and counted_by == CountedBy.USAGE:
            said, seen, requests = said + osl, seen + events, requests + 1
    if abs(said - seen) <= max(MAX_COUNT_DISAGREEMENT * seen, _CLEAR_DIFFERENCE * requests):
        return []
    if said < seen:
        return [f"the server's usage says {said} tokens, and {seen} events with tokens came from it"]
    return _by_text(said, seen, [sample for sample in samples if sample[0] > 0], tokenize)


def _by_text(
    said: int, seen: int, samples: Sequence[tuple[int, int, str, str]], tokenize: Tokenize | None
) -> list[str]:
    sampled = sum(usage for usage, _, _, _ in samples)
    if not sampled:
        return []
    texts = [reasoning + text for _, _, text, reasoning in samples]
    claim = f"the server's usage says {said} tokens in {seen} events; in {len(samples)} answers it says {sampled}"
    if tokenize is None:
        characters = sum(map(len, texts))
        return [] if characters >= sampled else [f"{claim}, and their text has {characters} characters"]
    counted = sum(map(tokenize, texts))
    if abs(sampled - counted) <= MAX_TOKENIZER_DISAGREEMENT * sampled:
        return []
    return [f"{claim}, and its own tokenizer counts {counted} in their text"]


def _prompts(records: Records, prompt_tokens: int) -> list[str]:
    names = ("phase", "failure", "events", "isl")
    columns = zip(*(records[name] for name in names), strict=True)
    lengths = sorted(isl for phase, failure, events, isl in columns if is_good(phase, failure, events) and isl >= 0)
    if not prompt_tokens or not lengths:
        return []
    middle = lengths[len(lengths) // 2]
    if middle >= (1 - MAX_PROMPT_SHORTFALL) * prompt_tokens:
        return []
    return [
        f"prompts of {prompt_tokens} tokens were sent and the server counts {middle}: it cuts them, or counts wrongly"
    ]
