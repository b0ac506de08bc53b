"""Do two sets of answers to the same questions agree, and is one of them better?"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """One answer to a question.

    Attributes:
        answer: what was said, in the form in which answers are compared; None, when nothing came, is like no other.
        correct: whether it is right.

    """

    answer: Hashable
    correct: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of answers, over the questions that both have.

    Attributes:
        n: questions that both have.
        same: how many both answer alike.
        lost: how many the first has right and the second wrong.
        gained: how many the first has wrong and the second right.
        p_value: of McNemar's exact test, that losses and gains are equally likely.

    """

    n: int
    same: int
    lost: int
    gained: int
    p_value: float

    @property
    def agreement(self) -> float:
        """Share of the questions that both answer alike; 0 of no question."""
        return self.same / self.n if self.n else 0.0

    @property
    def flips(self) -> int:
        """Questions that one has right and the other wrong."""
        return self.lost + self.gained


def compare(first: Mapping[str, Verdict], second: Mapping[str, Verdict]) -> Comparison:
    """Two sets of answers by their questions' ids."""
    both = [(first[name], second[name]) for name in first if name in second]
    same = sum(a.answer == b.answer is not None for a, b in both)
    lost = sum(a.correct and not b.correct for a, b in both)
    gained = sum(b.correct and not a.correct for a, b in both)
    return Comparison(len(both), same, lost, gained, mcnemar(lost, gained))


def mcnemar(lost: int, gained: int) -> float:
    """McNemar's exact test, two-sided (McNemar 1947): how likely flips as uneven as these are, if each is a fair coin.

    Questions that both have right, or both have wrong, say nothing about which is better, and do not count.
    """
    flips, fewer = lost + gained, min(lost, gained)
    term, tail = 1, 0
    for k in range(fewer + 1):  # term: the number of ways to lose k of the flips
        tail += term
        term = term * (flips - k) // (k + 1)
    return min(1.0, tail / (1 << flips) * 2)


def kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Cohen's kappa (1960): agreement beyond that of two who answer as often what they do, but at random.

    1 for the same answers, 0 for no more agreement than by chance; 1 also where both give one answer only.
    """
    if not first:
        raise ValueError("no answers")
    n = len(first)
    seen, said = Counter(first), Counter(second)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) * n
    chance = sum(times * said[answer] for answer, times in seen.items())
    return 1.0 if chance == n * n else (observed - chance) / (n * n - chance)
