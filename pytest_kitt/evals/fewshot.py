"""Which worked examples stand in front of a question? Those that lm-evaluation-harness would take.

Its random choice has one generator per subset that goes on from question to question, so the examples depend on the
order of the questions: they are drawn for all of them, also where only some are asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_kitt.errors import UserError
from pytest_kitt.evals.card import FewShotCard

Row = Mapping[str, Any]


def draw(card: FewShotCard, pool: Sequence[Row], asked: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The examples for each question of one subset, in order; UserError when there are too few.

    Where the pool are the very questions that are asked, none of them is its own example.
    """
    if card.count and list(pool) == list(asked):
        card = card.model_copy(update={"leaves_out_question": True})
    need = card.count + card.leaves_out_question if card.count else 0
    if need > len(pool):
        raise UserError(f"fewshot: {need} examples are needed, and there are {len(pool)}")
    generator = random.Random(card.seed)
    for question in asked:
        yield _some(card, pool, question, generator) if card.count else ()


def _some(card: FewShotCard, pool: Sequence[Row], question: Row, generator: random.Random) -> Sequence[Row]:
    if card.rule == "first_n":
        others = [row for row in pool if row != question] if card.leaves_out_question else pool
        return others[: card.count]
    if not card.leaves_out_question:
        return generator.sample(pool, card.count)
    others = [row for row in generator.sample(pool, card.count + 1) if row != question][: card.count]
    if len(others) == card.count:
        return others
    return generator.sample([row for row in pool if row != question], card.count)  # it was there more than once
