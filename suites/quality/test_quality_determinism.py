"""Does the same question get the same answer? Asked again and again, alone and while others are served."""

from __future__ import annotations

from collections import Counter

import pytest

from pytest_kitt import InvalidMeasurement, LoadResult, Phase, Prompts
from pytest_kitt.fixtures import Load, Measure
from pytest_kitt.measure.stats import wilson

QUESTION = "Explain in a few sentences why the sky is blue by day and red in the evening."
OTHERS = (
    "Name three uses of a paper clip.",
    "Write a short story about a lighthouse keeper who finds a letter from a stranger on the beach.",
    "What is 17 times 23?",
    "Describe how bread is made, from the field to the oven, for somebody who has never seen any.",
    "Which is heavier, a ton of iron or a ton of feathers? Say why.",
    "List the planets.",
    "Tell me what a mayor does on an ordinary day in a small town, hour by hour.",
)
OUTPUT_TOKENS = 128
SHOWN_CHARS = 20
MIN_IN_FLIGHT = 4


def _answers(result: LoadResult, *, every: int) -> list[str]:
    """The answers to each ``every``-th request; InvalidMeasurement when they hold no text."""
    assert result.failed == 0, result.failure_text
    measured = [request.index for request in result.records.rows() if request.phase is Phase.MEASURED]
    answers = [result.records.texts[index] for index in measured if index % every == 0]
    if not any(answers):
        raise InvalidMeasurement(f"the {len(answers)} answers hold no text: there is nothing to compare")
    return answers


def _compare(measure: Measure, where: str, usual: str, answers: list[str]) -> list[str]:
    """Records how many answers are the usual one, and where the first of the others leaves it; returns the others."""
    others = [answer for answer in answers if answer != usual]
    same = len(answers) - len(others)
    interval = wilson(same, len(answers))
    share, n = same / len(answers), len(answers)
    measure(f"identical_{where}", share, unit="share", better="higher", n=n, ci=interval, method="wilson")
    if others:
        first = min(_difference(usual, other) for other in others)
        measure(f"first_difference_{where}", first, unit="characters", better="higher", n=len(others))
    return others


def _difference(usual: str, other: str) -> int:
    """The first character in which two texts differ, from 0."""
    pairs = enumerate(zip(usual, other, strict=False))
    return next((at for at, (one, another) in pairs if one != another), min(len(usual), len(other)))


@pytest.mark.kitt(name="determinism", version="1", category="quality", requests=188, seconds=60)
def test_determinism(kitt_load: Load, kitt_measure: Measure) -> None:
    """Whether one question, asked greedily (temperature 0), gets the same answer to the letter each time.

    How: two loads. `alone`: the question 20 times, one after the other, from the first request on. `together`: 160
    requests, 8 under way at any time; each eighth is the question, the others are seven other questions of various
    lengths. All answers have 128 tokens, where the engine can be forced. The commonest answer of the first load is the
    usual one.
    Metrics: `identical_alone`, `identical_together`: share of the answers to the question that are the usual one, with
    Wilson's 95 % interval. `first_difference_alone`, `first_difference_together`: the first character, from 0, in which
    any other answer differs, when one does.
    Passes: when every request is answered and all answers of `alone` are identical. What `together` finds is recorded
    and decides nothing: kernels that add numbers in another order for another size of batch make other roundings, and
    a near tie between two tokens then falls the other way. Hardly an engine promises more.
    Invalid: when the answers hold no text, or when less than half of the 8 requests were really under way. How fast the
    answers come decides nothing, so the client's certificate is recorded and not required.
    Reading: alone less than 100 % means that even a quiet engine cannot be compared answer by answer: look for
    sampling that is not switched off, or a prefix cache that changes the roundings. Together less than 100 % is usual
    on GPUs: scores of a quality benchmark then vary a little with the load.
    """
    alone = kitt_load(
        "closed:1",
        Prompts((QUESTION,), OUTPUT_TOKENS, name="question", forced=True),
        "requests:20",
        label="alone",
        warmup=0,
        keep_text=True,
        bundled=True,
        certify=False,  # the answers count, not how fast or how evenly they come
        clients=1,
    )
    together = kitt_load(
        "closed:8",
        Prompts((QUESTION, *OTHERS), OUTPUT_TOKENS, name="questions", forced=True),
        "requests:160",
        label="together",
        keep_text=True,
        bundled=True,
        certify=False,
    )
    answers = _answers(alone, every=1)
    if (beside := together.certificate.in_flight_mean) < MIN_IN_FLIGHT:
        raise InvalidMeasurement(f"{beside:.2g} requests were under way on average (bound {MIN_IN_FLIGHT} of 8)")
    ((usual, _),) = Counter(answers).most_common(1)
    others = _compare(kitt_measure, "alone", usual, answers)
    _compare(kitt_measure, "together", usual, _answers(together, every=1 + len(OTHERS)))
    if others:
        first = min(others, key=lambda other: _difference(usual, other))
        at = _difference(usual, first)
        shown = slice(max(0, at - SHOWN_CHARS), at + SHOWN_CHARS)
        pytest.fail(
            f"{len(others)} of {len(answers)} answers differ from the usual one though nothing else runs, first at "
            f"character {at}: {usual[shown]!r} against {first[shown]!r}"
        )
