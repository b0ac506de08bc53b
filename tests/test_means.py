"""Are standard errors, intervals and paired tests those of the books?

Values of "scipy" and "statsmodels" were computed once with scipy 1.17.1 and statsmodels 0.15.0 and are quoted here.
"""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from pytest_kitt.measure.means import (
    alike_interval,
    bootstrap_interval,
    clustered_interval,
    clustered_standard_error,
    expanded,
    mean,
    pooled_standard_error,
    standard_error,
)
from pytest_kitt.measure.paired import Comparison, Verdict, compare, difference_interval, kappa, mcnemar
from pytest_kitt.measure.stats import _within_t, student_t, wilson

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


def test_bootstrap_is_seeded() -> None:
    """The same for the same seed, whether few are drawn or many; two scores are the least."""
    generator = random.Random(5)
    for count in (40, 400):
        scores = [generator.betavariate(0.5, 1) for _ in range(count)]
        assert bootstrap_interval(scores, seed=3) == bootstrap_interval(scores, seed=3)
        assert bootstrap_interval(scores, seed=3) != bootstrap_interval(scores, seed=4)
    assert bootstrap_interval([1.0] * 9, seed=0) == bootstrap_interval([1.0] * 900, seed=0) == (1.0, 1.0)
    with pytest.raises(ValueError, match="1 scores: two are needed"):
        bootstrap_interval([1.0], seed=0)


def test_many_scores_are_resampled_as_few_are() -> None:
    """A skewed sample of 400: the interval of Poisson numbers is that of drawing, and as lopsided."""
    generator = random.Random(11)
    scores = [generator.betavariate(0.3, 3) * 100 for _ in range(400)]
    drawn = sorted(math.fsum(generator.choices(scores, k=400)) / 400 for _ in range(8000))
    low, high = bootstrap_interval(scores, seed=2, resamples=8000)
    half = (drawn[7800] - drawn[200]) / 2
    assert low == pytest.approx(drawn[200], abs=0.05 * half)
    assert high == pytest.approx(drawn[7800], abs=0.05 * half)
    assert half == pytest.approx(1.96 * standard_error(scores), rel=0.05)
    assert min(scores) < low < mean(scores) < high < max(scores)


def test_few_scores_need_percentiles_further_out() -> None:
    """Of ten scores Student's t and the root of 10/9 make 2.3846 of 1.96: 98.29 %; of very many it is 95 %."""
    assert expanded(10) == pytest.approx(0.98290, abs=1e-5)  # 2 * scipy.stats.norm.cdf(2.26216 * 1.05409) - 1
    assert expanded(100_000) == pytest.approx(0.95, abs=1e-5)
    with pytest.raises(ValueError, match="1 scores: two are needed"):
        expanded(1)


def test_as_many_right_in_each_cluster_is_no_less_than_independent() -> None:
    """One wrong of six in each of ten: sixty questions, not ten; a spread makes the interval wider, never narrower."""
    groups = [place // 6 for place in range(60)]
    even = clustered_interval([0.0 if place % 6 == 0 else 1.0 for place in range(60)], groups, (0.0, 1.0))
    uneven = clustered_interval([0.0 if place < 10 else 1.0 for place in range(60)], groups, (0.0, 1.0))
    assert even == pytest.approx(wilson(50, 60, student_t(9)))
    assert uneven[0] < even[0] < even[1] < uneven[1]


def test_alike_scores_bound_those_that_were_not_seen() -> None:
    """At a bound it is Wilson's interval; between bounds it reaches to both sides; a single score says little."""
    assert alike_interval(1.0, 20, (0.0, 1.0)) == pytest.approx(wilson(20, 20))
    assert alike_interval(0.0, 20, (0.0, 100.0)) == pytest.approx((0.0, 100 * wilson(0, 20)[1]))
    unseen = wilson(0, 50)[1]
    assert alike_interval(30.0, 50, (-100.0, 100.0)) == pytest.approx((30 - 130 * unseen, 30 + 70 * unseen))
    assert alike_interval(100.00000000000004, 9, (0.0, 100.0))[1] == 100.00000000000004
    assert alike_interval(1.0, 1, (0.0, 1.0)) == pytest.approx(wilson(1, 1))


def test_clustered_intervals_by_hand() -> None:
    """Shares by Wilson with the effective size and t(3); other scores by mean and t(2), held within their bounds."""
    t = 3.182446305284263  # scipy.stats.t.ppf(0.975, 3)
    alike = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    effective = 0.7 * 0.3 / clustered_standard_error(alike, "aaabbcccdd") ** 2
    assert effective < 10
    by_hand = wilson(0.7 * effective, effective, t)
    assert clustered_interval(alike, "aaabbcccdd", (0.0, 1.0)) == pytest.approx(by_hand)
    assert 0.7 * 0.3 / clustered_standard_error(RIGHT, TOPICS) ** 2 > 10  # more questions than there are
    assert clustered_interval([float(one) for one in RIGHT], TOPICS, (0.0, 1.0)) == pytest.approx(wilson(7, 10, t))
    groups = [0, 0, 1, 1, 2, 2, 2]
    half = 4.302652729696142 * clustered_standard_error(GRADES, groups)
    assert clustered_interval(GRADES, groups, (0.0, 1.0)) == pytest.approx((mean(GRADES) - half, mean(GRADES) + half))
    low, high = clustered_interval(GRADES, [0, 1, 1, 1, 2, 2, 2], (0.3, 0.6))
    assert (low, high) == (0.3, 0.6)


def test_groups_without_a_spread_are_as_many_scores() -> None:
    """All right, one group, or groups that are all half right: no more is known than so many scores tell."""
    assert clustered_interval([1.0] * 12, list("aaabbbcccddd"), (0.0, 1.0)) == pytest.approx(wilson(4, 4))
    assert clustered_interval([1.0] * 12, ["a"] * 12, (0.0, 1.0)) == pytest.approx(wilson(1, 1))
    alike = clustered_interval([0.0, 1.0] * 4, list("aabbccdd"), (0.0, 1.0))
    assert alike == pytest.approx(wilson(4, 8, student_t(3)))
    assert clustered_interval([1.0] * 8, list("aabbccdd"), (0.0, 1.0)) == alike_interval(1.0, 4, (0.0, 1.0))
    thirds = [0.1 + 0.2, 0.3] * 4
    assert clustered_interval(thirds, list("aabbccdd"), (0.0, 1.0)) == alike_interval(mean(thirds), 4, (0.0, 1.0))


def passages(generator: random.Random, count: int, share: float, within: float) -> tuple[list[float], list[int]]:
    """Right and wrong answers to one to nine questions on each of so many texts; ``within``: how alike they are."""
    scores, groups = [], []
    for group in range(count):
        luck = generator.betavariate(share * (1 / within - 1), (1 - share) * (1 / within - 1))
        for _ in range(generator.randint(1, 9)):
            scores.append(float(generator.random() < luck))
            groups.append(group)
    return scores, groups


@pytest.mark.parametrize("count, share", [(10, 0.5), (10, 0.75), (40, 0.75), (100, 0.9)])
def test_clustered_intervals_hold_what_they_promise(count: int, share: float) -> None:
    """A thousand samples of questions about texts: 95 % of the intervals hold the truth; Wilson's hold far fewer."""
    generator = random.Random(2024)
    held = plain = 0
    for _ in range(1000):
        scores, groups = passages(generator, count, share, 0.4)
        low, high = clustered_interval(scores, groups, (0.0, 1.0))
        held += low <= share <= high
        low, high = wilson(round(sum(scores)), len(scores))
        plain += low <= share <= high
    assert 930 <= held <= 970
    assert plain < 880


@pytest.mark.parametrize("count", [10, 60, 150])
def test_bootstrap_intervals_hold_what_they_promise(count: int) -> None:
    """Scores such as those of mc2, few and many: 95 % of the intervals hold the truth."""
    generator = random.Random(7)
    held = 0
    for seed in range(500):
        scores = [generator.betavariate(2, 1.5) for _ in range(count)]
        low, high = bootstrap_interval(scores, seed=seed, resamples=400, within=expanded(count))
        held += low <= 2 / 3.5 <= high
    assert 0.93 <= held / 500 <= 0.97


def test_clustered_intervals_of_other_scores_hold_too() -> None:
    """Scores between 0 and 1 that go together in fifteen groups of unequal size."""
    generator = random.Random(3)
    held = 0
    for _ in range(1000):
        luck = [(generator.betavariate(2, 2), generator.randint(1, 9)) for _ in range(15)]
        scores = [one * 0.8 + generator.random() * 0.2 for one, times in luck for _ in range(times)]
        groups = [group for group, (_, times) in enumerate(luck) for _ in range(times)]
        low, high = clustered_interval(scores, groups, (0.0, 1.0))
        held += low <= 0.5 <= high
    assert 930 <= held <= 970


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
    assert (found.n, found.same, found.lost, found.gained, found.p_value) == (3, 1, 1, 0, 1.0)
    assert found.difference == pytest.approx(-1 / 3)
    assert found.agreement == pytest.approx(1 / 3)
    assert found.flips == 1
    assert compare(second, first).gained == 1
    assert compare({}, second) == Comparison(n=0, same=0, lost=0, gained=0, p_value=1.0)
    assert compare({}, second).agreement == 0.0
    silent = {"a": Verdict(None, False)}
    assert compare(silent, silent).same == 0


def test_the_difference_of_two_scores_is_paired() -> None:
    """Agresti and Min's own example (2005): 13 and 4 flips of 100 questions; without a flip it is not yet certain."""
    lost_13_gained_4 = [-1.0] * 13 + [1.0] * 4 + [0.0] * 83
    value, half = -9 / 102, 1.959964 * math.sqrt(18 - 81 / 102) / 102
    assert difference_interval(lost_13_gained_4, [""] * 100, 1.0) == pytest.approx((value - half, value + half))
    low, high = difference_interval([0.0] * 50, [""] * 50, 1.0)
    assert -low == high == pytest.approx(1.959964 / 52)
    assert difference_interval([1.0], [""], 1.0)[1] == 1.0
    by_sixes = [str(place // 6) for place in range(60)]
    assert difference_interval([0.0] * 60, by_sixes, 1.0) == difference_interval([0.0] * 10, [""] * 10, 1.0)


def test_differences_of_other_scores_use_their_own_spread() -> None:
    """By t with n - 1 degrees of freedom, or by groups where the questions come in groups."""
    grades = [one - 0.4 for one in GRADES]
    half = 2.4469118511449692 * standard_error(grades)  # scipy.stats.t.ppf(0.975, 6)
    assert difference_interval(grades, [""] * 7, 1.0) == pytest.approx((mean(grades) - half, mean(grades) + half))
    flips = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0]
    wide = difference_interval(flips, list("aabbccdd"), 1.0)
    assert wide == clustered_interval(flips, list("aabbccdd"), (-1.0, 1.0))
    assert (
        wide[1] - wide[0] > difference_interval(flips, [""] * 8, 1.0)[1] - difference_interval(flips, [""] * 8, 1.0)[0]
    )


def test_pairing_tells_apart_what_two_intervals_cannot() -> None:
    """Ten of 400 answers lost and none gained: each score could be the other's, their difference cannot be 0."""
    first = {str(n): Verdict("y", n < 250) for n in range(400)}
    second = {str(n): Verdict("y", n < 240) for n in range(400)}
    found = compare(first, second)
    assert found.interval is not None
    assert (found.difference, found.interval[1] < 0) == (-0.025, True)
    assert wilson(240, 400)[1] > 250 / 400 > wilson(250, 400)[0]


def test_intervals_of_differences_hold_what_they_promise() -> None:
    """A thousand pairs of engines with one answer in ten flipped, unevenly: 95 % of the intervals hold the truth."""
    generator = random.Random(12)
    held = 0
    for _ in range(1000):
        flips = generator.choices([-1.0, 1.0, 0.0], [0.07, 0.03, 0.9], k=150)
        low, high = difference_interval(flips, [""] * 150, 1.0)
        held += low <= -0.04 <= high
    assert 930 <= held <= 970


@pytest.mark.parametrize("degrees", [2001, 5000, 13_999])
def test_the_expansion_of_students_t_is_its_sum(degrees: int) -> None:
    """Where many degrees of freedom make the sum long, the expansion bounds the same 95 %."""
    assert _within_t(student_t(degrees), degrees) == pytest.approx(0.95, abs=1e-9)
