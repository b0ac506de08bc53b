"""Which of the questions are asked? All, or a seeded choice in which each config has its share."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from pytest_kitt.evals.prompts import Question


def choose(questions: Sequence[Question], limit: int, seed: int) -> list[Question]:
    """At most ``limit`` questions in their order, from each config in proportion; all of them for 0."""
    if not limit or limit >= len(questions):
        return list(questions)
    sizes = Counter(question.config for question in questions)
    kept = set()
    for config, share in _shares(sizes, limit).items():
        places = [place for place, question in enumerate(questions) if question.config == config]
        kept |= set(random.Random(f"{seed}:{config}").sample(places, share))
    return [question for place, question in enumerate(questions) if place in kept]


def _shares(sizes: Counter[str], limit: int) -> dict[str, int]:
    """Whole numbers that add up to the limit; what is left over goes to the largest remainders."""
    total = sizes.total()
    exact = {config: limit * size / total for config, size in sizes.items()}
    shares = {config: int(share) for config, share in exact.items()}
    by_remainder = sorted(exact, key=lambda config: shares[config] - exact[config])
    for config in by_remainder[: limit - sum(shares.values())]:
        shares[config] += 1
    return shares
