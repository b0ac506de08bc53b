"""What of a response is compared? The steps of lm-evaluation-harness, to the letter, its surprises included.

A regular expression takes what ``findall`` finds: of several groups the first that is not empty. What follows an
earlier step's fallback sees that fallback, as any text.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache

from pytest_kitt.evals.card import FilterStep


@dataclasses.dataclass(frozen=True, slots=True)
class Extracted:
    """What the steps made of a response.

    Attributes:
        text: what is compared.
        found: whether each step found what it looked for; else the text is made of a fallback.

    """

    text: str
    found: bool = True


def extract(steps: Sequence[FilterStep], response: str, choices: Mapping[str, Sequence[str]]) -> Extracted:
    """One step after the other; ``choices`` are the texts by the expression that a step names."""
    text, found = response, True
    for step in steps:
        one = _apply(step, text, choices.get(step.choices, ()))
        found = found and one is not None
        text = step.fallback if one is None else one
    return Extracted(text, found)


def _apply(step: FilterStep, text: str, choices: Sequence[str]) -> str | None:
    """What a step makes of a text; None where it finds nothing."""
    match step.filter:
        case "strip":
            return text.strip()
        case "lowercase":
            return text.lower()
        case "uppercase":
            return text.upper()
        case "remove":
            return re.sub(step.pattern, "", text)
        case "multi_choice_regex":
            return _choice(step, text, choices)
    return _match(re.compile(step.pattern), step.select, text)


def _match(pattern: re.Pattern[str], select: int, text: str) -> str | None:
    """The selected match, stripped, possibly empty; None without a match, or when all of its groups are empty."""
    found = pattern.findall(text)
    if not found or not -len(found) <= select < len(found):
        return None
    chosen = found[select]
    if isinstance(chosen, tuple):
        chosen = next((group for group in chosen if group), None)
    return None if chosen is None else str(chosen).strip()


def _choice(step: FilterStep, text: str, choices: Sequence[str]) -> str | None:
    """The pattern, else the text of a choice, else a choice's letter behind a colon; each as ``(A)``."""
    if found := _match(re.compile(step.pattern), step.select, text):
        return found
    letters = {_plain(step, choice.strip()): f"({chr(ord('A') + n)})" for n, choice in enumerate(choices)}
    longest_first = "|".join(sorted((re.escape(choice) for choice in letters), key=len, reverse=True))
    if found := _match(re.compile(longest_first), step.select, _plain(step, text)):
        return letters.get(found, found)
    behind_colon = "|".join(chr(ord("A") + n) for n in range(len(choices)))
    if found := _match(re.compile(rf":[\s]*({behind_colon})"), step.select, text):
        return f"({found})" if len(found) == 1 else found
    return None


def _plain(step: FilterStep, text: str) -> str:
    text = text.lower() if step.ignore_case else text
    return text.translate(_punctuation()) if step.ignore_punctuation else text


@cache
def _punctuation() -> dict[int, None]:
    every = range(sys.maxunicode)
    return dict.fromkeys(point for point in every if unicodedata.category(chr(point)).startswith("P"))
