"""How sure is a mean of scores? Standard errors and 95 % intervals, by groups where scores come in groups.

A score is a number for each question, mostly 0 or 1. The questions that were asked stand for all that could have been.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Iterator, Sequence

from pytest_kitt.measure.stats import percentile, student_t, wilson

RESAMPLES = 1000
_MANY = 100  # scores from which on they are drawn a Poisson number of times
_STEPS = (1 << 24) - 1  # to which their range is divided
_MOST = 5
_POISSON = bytes([0] * 94 + [1] * 95 + [2] * 46 + [3] * 16 + [4] * 4 + [_MOST])  # in 256ths; mean and variance are 1
_NOTHING = 1e-12  # of the bounds' distance: less is the rounding of equal means


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


def clustered_interval(
    scores: Sequence[float], groups: Sequence[Hashable], bounds: tuple[float, float]
) -> tuple[float, float]:
    """The 95 % interval of the mean of scores that come in groups, by the clustered standard error; within bounds.

    With t, the quantile of Student's distribution with G - 1 degrees of freedom for G groups. Where scores are 0 or 1
    it is Wilson's interval with t in place of z, of as many independent questions as have that standard error, mean
    (1 - mean) / error**2: the effective sample size of surveys (Kott and Carr 1997; Dean and Pagano 2015), at most as
    many as there are. Unlike mean -+ t errors, which stands for other scores, it holds its level near 0 and 1 too.
    Where nothing varies, nothing says whether the scores of a group go together: each group then counts as one score
    of ``alike_interval``.
    """
    value = mean(scores)
    known = len(set(groups))
    error = clustered_standard_error(scores, groups) if known > 1 else 0.0
    nothing = error <= _NOTHING * (bounds[1] - bounds[0])
    if known > 1 and bounds == (0.0, 1.0) and set(scores) == {0, 1}:
        effective = len(scores) if nothing else min(len(scores), value * (1 - value) / error**2)
        return wilson(value * effective, effective, student_t(known - 1))
    if nothing:
        return alike_interval(value, known, bounds)
    t = student_t(known - 1)
    return max(min(bounds[0], value), value - t * error), min(max(bounds[1], value), value + t * error)


def alike_interval(value: float, n: int, bounds: tuple[float, float]) -> tuple[float, float]:
    """The 95 % interval of the mean where n scores are all the same, so that their spread says nothing.

    Of the questions that were not asked, a share of at most Wilson's bound for none among n may score otherwise: as
    little and as much as the bounds allow. At a bound of 0 and 1 that is Wilson's interval itself.
    """
    unseen = wilson(0, n)[1]
    return value - unseen * max(0.0, value - bounds[0]), value + unseen * max(0.0, bounds[1] - value)


def bootstrap_interval(
    scores: Sequence[float], *, seed: int, resamples: int = RESAMPLES, within: float = 0.95
) -> tuple[float, float]:
    """The interval of the mean by the percentiles of resampled means (Efron 1979); the same for the same seed.

    Too narrow for few scores unless ``within`` is ``expanded``; empty where all are the same: ``alike_interval``.
    """
    _require(len(scores), "scores")
    generator = random.Random(seed)
    if len(scores) < _MANY:
        drawn = (math.fsum(generator.choices(scores, k=len(scores))) / len(scores) for _ in range(resamples))
        means = sorted(drawn)
    else:
        means = sorted(_poisson_means(scores, generator, resamples))
    return percentile(means, (1 - within) / 2), percentile(means, (1 + within) / 2)


def expanded(n: int, within: float = 0.95) -> float:
    """Between which percentiles of resampled means the interval of n scores must reach, so as to be wide enough.

    Resampled means spread by n rather than n - 1, and by no more than a normal distribution: percentiles further out
    make up for both (Hesterberg 2015, "What Teachers Should Know About the Bootstrap"). Next to nothing from 100 on.
    """
    _require(n, "scores")
    return math.erf(math.sqrt(n / (n - 1)) * student_t(n - 1, within) / math.sqrt(2))


def _poisson_means(scores: Sequence[float], generator: random.Random, resamples: int) -> Iterator[float]:
    """Means of resamples into which each score comes a Poisson(1) number of times, rather than n scores into each.

    With many scores that is the same (Hanley and MacGibbon 2006), and no resample has to wait for another: a score's
    numbers for all of them are the lanes of one long integer, so that one product adds it to every sum.
    """
    low, high = min(scores), max(scores)
    step = (high - low) / _STEPS or 1.0
    most = _MOST * len(scores) * _STEPS
    size = (most.bit_length() + 7) // 8  # bytes of a lane, so that no sum runs into the next
    sums = counts = 0
    lanes = bytearray(size * resamples)
    for score in scores:
        lanes[::size] = generator.randbytes(resamples).translate(_POISSON)
        times = int.from_bytes(lanes, "little")
        sums += times * round((score - low) / step)
        counts += times
    for total, count in zip(_unpacked(sums, size, resamples), _unpacked(counts, size, resamples), strict=True):
        yield low + step * total / count


def _unpacked(lanes: int, size: int, count: int) -> Iterator[int]:
    """The lanes of a long integer."""
    data = lanes.to_bytes(size * count, "little")
    return (int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size))


def _require(n: int, what: str) -> None:
    if n < 2:
        raise ValueError(f"{n} {what}: two are needed for a spread")
