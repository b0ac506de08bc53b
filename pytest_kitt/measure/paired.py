"""Do two sets of answers to the same questions agree, and is one of them better?

What both were asked is compared question by question: how hard the questions are cancels out, so that the difference of
two scores is known far better than either score.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from pytest_kitt.measure.means import clustered_interval, mean

_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """One answer to a question.

    Attributes:
        answer: what was said, in the form in which answers are compared; None, when nothing came, is like no other.
        correct: whether it is right.
        score: how good it is; 1 or 0 where nothing else is said.
        cluster: what its question belongs to; empty where it stands for itself.

    """

    answer: Hashable
    correct: bool
    score: float | None = None
    cluster: str = ""

    @property
    def points(self) -> float:
        """The score, whoever said it."""
        return float(self.correct) if self.score is None else self.score


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of answers, over the questions that both have.

    Attributes:
        n: questions that both have.
        same: how many both answer alike.
        lost: how many the first has right and the second wrong.
        gained: how many the first has wrong and the second right.
        p_value: of McNemar's exact test, that losses and gains are equally likely.
        difference: mean score of the second less that of the first, over these questions; 0 of none.
        interval: of the difference, 95 %; None of no question.

    """

    n: int
    same: int
    lost: int
    gained: int
    p_value: float
    difference: float = 0.0
    interval: tuple[float, float] | None = None

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
    differences = [b.points - a.points for a, b in both]
    interval = difference_interval(differences, [a.cluster for a, _ in both], _reach(both)) if both else None
    value = mean(differences) if both else 0.0
    return Comparison(len(both), same, lost, gained, mcnemar(lost, gained), value, interval)


def difference_interval(differences: Sequence[float], clusters: Sequence[str], reach: float) -> tuple[float, float]:
    """The 95 % interval of a mean of paired differences, none of which lies further from 0 than ``reach``.

    Of right and wrong answers (-1, 0, 1) it is Agresti and Min's (2005): half a question more in each of the four
    cells. Of other scores, and where questions belong together, that of their mean by its (clustered) error; where
    these differ nowhere, each cluster counts as one question.
    """
    n = len(differences)
    if any(clusters) and not any(differences):  # nothing says whether those of a cluster go together
        return difference_interval([0] * len(set(clusters)), (), reach)
    if any(clusters):
        return clustered_interval(differences, clusters, (-reach, reach))
    if any(one not in (-1, 0, 1) for one in differences):
        return clustered_interval(differences, range(n), (-reach, reach))
    flips, value = sum(map(abs, differences)), math.fsum(differences) / (n + 2)
    half = _Z * math.sqrt((flips + 1) / (n + 2) - value**2) / math.sqrt(n + 2)
    return max(-1.0, value - half), min(1.0, value + half)


def _reach(both: Sequence[tuple[Verdict, Verdict]]) -> float:
    """How far two scores can lie apart: shares by 1, points of a hundred, which may be negative, by 200."""
    return 1.0 if all(0 <= one.points <= 1 for pair in both for one in pair) else 200.0


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
