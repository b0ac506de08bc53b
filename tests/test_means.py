"""Are standard errors, intervals and paired tests those of the books?

Values of "scipy" and "statsmodels" were computed once with scipy 1.17.1 and statsmodels 0.15.0 and are quoted here.
"""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from pytest_kitt.measure.means import (
    bootstrap_interval,
    clustered_standard_error,
    mean,
    pooled_standard_error,
    standard_error,
)
from pytest_kitt.measure.paired import Comparison, Verdict, compare, kappa, mcnemar

RIGHT = [1, 0, 1, 1, 0, 1, 1, 1, 0, 1]
TOPICS = list("aaabbbccdd")
GRADES = [0.2, 0.9, 0.4, 0.7, 0.1, 0.3, 0.8]


def test_standard_error() -> None:
    """7 of 10 right: s = 0.483, over the root of 10; scipy.stats.sem for both."""
    assert standard_error(RIGHT) == pytest.approx(math.sqrt(7 * 0.3**2 + 3 * 0.7**2) / 3 / math.sqrt(10), abs=1e-15)
    assert standard_error(RIGHT) == pytest.approx(0.15275252316519464, abs=1e-15)
    assert standard_error(GRADES) == pytest.approx(0.1183790751872005, abs=1e-15)
    with pytest.raises(ValueError, match="1 scores: two are needed"):
        standard_error([1])
    with pytest.raises(ValueError, match="no scores"):
        mean([])


def test_clustered_standard_error() -> None:
    """By hand: deviations of the groups sum to -0.1, -0.1, 0.6, -0.4; and statsmodels' OLS on a constant, clustered."""
    by_hand = math.sqrt((0.1**2 + 0.1**2 + 0.6**2 + 0.4**2) * 4 / 3) / 10
    assert clustered_standard_error(RIGHT, TOPICS) == pytest.approx(by_hand, abs=1e-15)
    assert clustered_standard_error(RIGHT, TOPICS) == pytest.approx(0.08485281, abs=1e-8)
    assert clustered_standard_error(GRADES, [0, 0, 1, 1, 2, 2, 2]) == pytest.approx(0.05510204, abs=1e-8)


def test_groups_of_one_are_no_groups_and_copies_are_no_news() -> None:
    """Each score its own group: the plain error. Each score five times in its group: that of one each, not smaller."""
    assert clustered_standard_error(GRADES, range(7)) == pytest.approx(standard_error(GRADES), abs=1e-15)
    copies = [grade for grade in GRADES for _ in range(5)]
    of_copies = clustered_standard_error(copies, [place // 5 for place in range(35)])
    assert of_copies == pytest.approx(standard_error(GRADES), abs=1e-15)
    assert standard_error(copies) < of_copies / 2
    with pytest.raises(ValueError, match="1 groups: two are needed"):
        clustered_standard_error(GRADES, [0] * 7)


def test_pooled_standard_error() -> None:
    """By hand for three sets; one set's is its own."""
    by_hand = math.sqrt((99 * 100 * 0.05**2 + 399 * 400 * 0.02**2 + 24 * 25 * 0.1**2) / 522 / 525)
    assert pooled_standard_error([0.05, 0.02, 0.1], [100, 400, 25]) == pytest.approx(by_hand, abs=1e-15)
    assert pooled_standard_error([standard_error(GRADES)], [7]) == pytest.approx(standard_error(GRADES), abs=1e-15)
    with pytest.raises(ValueError, match="as many sets as scores"):
        pooled_standard_error([0.1], [1])


def test_bootstrap_finds_the_exact_distribution() -> None:
    """Of three scores all 27 resamples are known: the percentiles of very many draws are theirs."""
    scores = [0.0, 1.0, 5.0]
    exact = sorted(sum(drawn) / 3 for drawn in product(scores, repeat=3))
    low, high = bootstrap_interval(scores, seed=0, resamples=20_000, within=0.8)
    assert (low, high) == (exact[2], exact[24])  # the ends of 10 % and 90 % lie within steps of the distribution


def test_bootstrap_intervals_are_those_of_scipy() -> None:
    """scipy.stats.bootstrap, by percentiles, 100,000 and 200,000 resamples: (0.4, 1.0) and (0.2714, 0.7)."""
    assert bootstrap_interval(RIGHT, seed=1, resamples=10_000) == pytest.approx((0.4, 1.0))
    assert bootstrap_interval(GRADES, seed=1, resamples=10_000) == pytest.approx((0.2714, 0.7), abs=0.015)


def test_bootstrap_is_seeded_and_draws_groups() -> None:
    """The same for the same seed; where scores go together in groups it is as wide as that makes it."""
    generator = random.Random(5)
    groups = [place // 20 for place in range(400)]
    luck = [generator.random() for _ in range(20)]
    scores = [float(luck[group] > 0.5) for group in groups]
    assert bootstrap_interval(scores, seed=3) == bootstrap_interval(scores, seed=3)
    assert bootstrap_interval(scores, seed=3) != bootstrap_interval(scores, seed=4)
    (low, high), (narrow_low, narrow_high) = (
        bootstrap_interval(scores, seed=3, groups=groups),
        bootstrap_interval(scores, seed=3),
    )
    assert (high - low) > 3 * (narrow_high - narrow_low)
    half = 1.96 * clustered_standard_error(scores, groups)
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert bootstrap_interval([1.0] * 9, seed=0) == (1.0, 1.0)


@pytest.mark.parametrize(
    "lost, gained, p_value",
    [
        (0, 0, 1.0),
        (3, 3, 1.0),
        (0, 6, 2 / 64),
        (1, 5, 2 * 7 / 64),
        (10, 2, 0.03857421875),  # scipy.stats.binomtest, as the rest
        (121, 59, 4.4344492637551645e-06),
        (59, 121, 4.4344492637551645e-06),
        (300, 350, 0.05452994175892356),
    ],
)
def test_mcnemar(lost: int, gained: int, p_value: float) -> None:
    """Exact and two-sided: twice the tail of a fair coin, at most 1."""
    assert mcnemar(lost, gained) == pytest.approx(p_value, rel=1e-12)


def test_mcnemar_with_very_many_flips() -> None:
    """Whole numbers all the way: no overflow, no probability above 1."""
    assert mcnemar(5000, 5000) == 1.0
    assert 0 < mcnemar(4000, 6000) < 1e-80
    assert mcnemar(0, 2000) == 0.0  # 2 ** -1999 is less than any number


def answers(table: list[list[int]]) -> tuple[list[int], list[int]]:
    """Two raters of whom table[i][j] times the first said i and the second j."""
    pairs = [(i, j) for i, row in enumerate(table) for j, times in enumerate(row) for _ in range(times)]
    return [i for i, _ in pairs], [j for _, j in pairs]


@pytest.mark.parametrize(
    "table, value",
    [
        ([[20, 5], [10, 15]], 0.4),  # 0.7 observed, 0.5 by chance
        ([[45, 15], [25, 15]], 0.13043478260869554),  # statsmodels' cohens_kappa, as the next
        ([[3, 1, 0], [0, 2, 1], [1, 0, 4]], 0.6170212765957447),
        ([[0, 5], [5, 0]], -1.0),
        ([[7]], 1.0),
    ],
)
def test_kappa(table: list[list[int]], value: float) -> None:
    """Known tables."""
    assert kappa(*answers(table)) == pytest.approx(value, abs=1e-15)


def test_two_sets_are_compared_where_both_have_answers() -> None:
    """Alike is not right: two can be wrong in one way, or in two."""
    first = {name: Verdict(*said) for name, said in {"a": ("1", True), "b": ("2", True), "c": ("3", False)}.items()}
    second = {"a": Verdict("1", True), "b": Verdict("9", False), "c": Verdict("4", False), "d": Verdict("5", True)}
    found = compare(first, second)
    assert found == Comparison(n=3, same=1, lost=1, gained=0, p_value=1.0)
    assert found.agreement == pytest.approx(1 / 3)
    assert found.flips == 1
    assert compare(second, first).gained == 1
    assert compare({}, second).agreement == 0.0
    silent = {"a": Verdict(None, False)}
    assert compare(silent, silent).same == 0
