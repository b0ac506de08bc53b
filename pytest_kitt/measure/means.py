"""How sure is a mean of scores? Standard errors, by groups where scores come in groups, and bootstrap intervals.

A score is a number for each question, mostly 0 or 1. The questions that were asked stand for all that could have been.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence

from pytest_kitt.measure.stats import percentile

RESAMPLES = 1000


def mean(scores: Sequence[float]) -> float:
    """The arithmetic mean, summed exactly."""
    if not scores:
        raise ValueError("no scores")
    return math.fsum(scores) / len(scores)


def standard_error(scores: Sequence[float]) -> float:
    """The standard error of the mean: the sample's standard deviation (n - 1) over the root of n."""
    _require(len(scores), "scores")
    centre = mean(scores)
    squares = math.fsum((score - centre) ** 2 for score in scores)
    return math.sqrt(squares / (len(scores) - 1) / len(scores))


def clustered_standard_error(scores: Sequence[float], groups: Sequence[Hashable]) -> float:
    """The standard error of the mean of scores that come in groups, e.g. several questions about one text.

    Scores of one group may go together, those of different groups may not: the sandwich estimate of Liang and Zeger
    (1986), as Miller (2024, "Adding Error Bars to Evals") has it for evaluations, times G / (G - 1) for G groups, which
    makes it ``standard_error`` where each score is a group of its own.
    """
    centre = mean(scores)
    sums: dict[Hashable, list[float]] = {}
    for score, group in zip(scores, groups, strict=True):
        sums.setdefault(group, []).append(score - centre)
    _require(len(sums), "groups")
    squares = math.fsum(math.fsum(of_group) ** 2 for of_group in sums.values())
    return math.sqrt(squares * len(sums) / (len(sums) - 1)) / len(scores)


def pooled_standard_error(errors: Sequence[float], sizes: Sequence[int]) -> float:
    """The standard error of a mean over several sets, weighted by their sizes, each with an error of its own.

    The sets' variances are pooled as if they had one in common: the root of sum((n - 1) n s**2) / (N - K) / N, with N
    scores in K sets, as in lm-evaluation-harness (``pooled_sample_stderr``). What the sets' means differ by is no part
    of it.
    """
    total, sets = sum(sizes), len(sizes)
    if total <= sets:
        raise ValueError("as many sets as scores")
    pairs = zip(errors, sizes, strict=True)
    return math.sqrt(math.fsum((n - 1) * n * error**2 for error, n in pairs) / (total - sets) / total)


def bootstrap_interval(
    scores: Sequence[float],
    *,
    seed: int,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    within: float = 0.95,
) -> tuple[float, float]:
    """The interval of the mean by the percentiles of resampled means (Efron 1979); the same for the same seed.

    Whole groups are drawn where there are groups, as many as there are. Too narrow for a few scores, and empty where
    all are the same: a share has ``wilson``.
    """
    members: dict[Hashable, list[float]] = {}
    for score, group in zip(scores, range(len(scores)) if groups is None else groups, strict=True):
        members.setdefault(group, []).append(score)
    _require(len(members), "groups")
    drawn = [(math.fsum(of_group), len(of_group)) for of_group in members.values()]
    generator = random.Random(seed)
    means = sorted(_ratio(generator.choices(drawn, k=len(drawn))) for _ in range(resamples))
    return percentile(means, (1 - within) / 2), percentile(means, (1 + within) / 2)


def _ratio(drawn: Sequence[tuple[float, int]]) -> float:
    return math.fsum(total for total, _ in drawn) / sum(n for _, n in drawn)


def _require(n: int, what: str) -> None:
    if n < 2:
        raise ValueError(f"{n} {what}: two are needed for a spread")
