"""When the simulated engine's tokens are due: drawn by seed and number, slowed by the batch, held up by the cache."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from random import Random
from statistics import NormalDist

import pytest

from pytest_kitt.engine.simulated import distribution, timetable
from pytest_kitt.engine.simulated.distribution import Constant, Empirical, LogNormal, Normal
from pytest_kitt.engine.simulated.scheduler import Batch, Scheduler, Sequence
from pytest_kitt.engine.simulated.timetable import Gap, Speed

# Distributions


def test_short_forms(tmp_path: Path) -> None:
    """Each short form is its distribution; a width of 0 is a constant."""
    file = tmp_path / "a:b.txt"
    file.write_text("3\n\n1.5\n2e1\n")
    forms = {
        "20": Constant(20),
        "constant:1e1": Constant(10),
        "normal:20:5": Normal(20, 5),
        "normal:20:0": Constant(20),
        "lognormal:20:0.3": LogNormal(20, 0.3),
        f"empirical:{file}": Empirical((3, 1.5, 20)),
    }
    assert {text: distribution.read(text) for text in forms} == forms


@pytest.mark.parametrize(
    "text, words",
    [
        ("x", "'x' is no number"),
        ("normal:x", "one parameter too few"),
        ("normal:1:x", "'x' is no number"),
        ("normal:-1:2", "-1 is not a number from 0 on"),
        ("nan", "nan is not a number from 0 on"),
        ("uniform:1:2", "'uniform:1:2' is no distribution; expected a number, normal:MEAN:SD"),
        ("empirical:no.txt", "no.txt cannot be read: No such file"),
        ("empirical:empty.txt", "empty.txt holds no number"),
        ("empirical:bad.txt", "bad.txt:2: 'y' is no number"),
    ],
)
def test_what_is_no_short_form(text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says what is wrong, for a file with its line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bad.txt").write_text("1\ny\n")
    with pytest.raises(ValueError, match=r"\S") as caught:
        distribution.read(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_lie_where_the_share_says() -> None:
    """Half of a lognormal is below its median; a normal's median and one sigma are where tables have them."""
    assert LogNormal(20, 0.3).at(0.5) == 20
    assert LogNormal(20, 0.3).at(NormalDist().cdf(1)) == pytest.approx(20 * math.exp(0.3), rel=1e-9)
    assert Normal(1000, 5).at(0.5) == 1000
    assert Normal(1000, 5).at(NormalDist().cdf(1)) == pytest.approx(1005, rel=1e-9)
    assert [Empirical((7, 8, 9)).at(share) for share in (0, 0.33, 0.34, 0.99)] == [7, 7, 8, 9]


def test_a_normal_is_truncated_and_not_clipped() -> None:
    """No value is negative, none is heaped at 0, and a half-normal's median is where it should be."""
    half = Normal(0, 1)
    assert half.at(0.5) == pytest.approx(NormalDist().inv_cdf(0.75), rel=1e-12)
    values = [Normal(1, 2).at(index / 1000) for index in range(1000)]
    assert values == sorted(values)
    assert sum(value == 0 for value in values) <= 1


@pytest.mark.parametrize("kind", [Normal(0, 1), LogNormal(1, 1), Empirical((1,)), Constant(1)])
def test_the_ends_of_the_shares_are_finite(kind: distribution.Distribution) -> None:
    """The least and the most that a random number can be give a time."""
    assert all(math.isfinite(kind.at(share)) for share in (0.0, 1 - 2.0**-53))


# Draws


def test_times_are_those_of_the_reference() -> None:
    """Times are draws of Random("KIND SEED NUMBER"), put through the inverse of the distribution: nothing else."""
    speed = Speed(LogNormal(20, 0.3), Normal(5, 1), stall_rate=0.25, stall_ms=40)
    unit = NormalDist()
    below = unit.cdf(-5.0)
    gaps, stalls = Random("itl 7 3"), Random("stall 7 3")
    expected = [
        Gap(
            (5 + 1 * unit.inv_cdf(below + gaps.random() * (1 - below))) / 1000,
            0.04 if stalls.random() < 0.25 else 0.0,
        )
        for _ in range(500)
    ]
    assert list(islice(timetable.draw_gaps(speed, 7, 3), 500)) == expected
    assert 80 <= sum(gap.stall_s > 0 for gap in expected) <= 170
    ttft_s = 20 * math.exp(0.3 * unit.inv_cdf(Random("ttft 7 3").random())) / 1000
    assert timetable.draw_ttft_s(speed, 7, 3) == ttft_s


def test_times_are_a_requests_own() -> None:
    """The same seed and number give the same times; another seed or number gives others."""
    speed = Speed(Normal(20, 5), Normal(5, 1))

    def drawn(seed: int, number: int) -> tuple[float, ...]:
        gaps = islice(timetable.draw_gaps(speed, seed, number), 20)
        return timetable.draw_ttft_s(speed, seed, number), *(gap.own_s for gap in gaps)

    assert drawn(1, 1) == drawn(1, 1)
    assert len({drawn(seed, number) for seed in range(3) for number in range(3)}) == 9


def test_a_long_prompt_takes_longer_and_a_cached_share_is_saved() -> None:
    """TTFT = (drawn + prompt tokens x prefill) x (1 - cached share)."""
    speed = Speed(Constant(20), Constant(5), prefill_us=100)
    assert timetable.draw_prefill_s(speed, 0, 0, prompt_tokens=800) == 0.02 + 0.08
    assert timetable.draw_prefill_s(speed, 0, 0, prompt_tokens=800, cached_tokens=600) == (0.02 + 0.08) * 0.25


# The scheduler, by a scripted clock


class Scripted:
    """A request that writes down what becomes of it."""

    def __init__(self, scheduler: Scheduler, arrival: float, **fields: float) -> None:
        shape = {"prompt_tokens": 1, "max_tokens": 3, "tokens": 3, "prefill_s": 1.0, "gap_s": 0.25, **fields}
        self.scheduler = scheduler
        self.starts: list[float] = []
        self.dues: list[float] = []
        self.ends: list[float] = []
        self.usage: list[float] = []
        self.sequence = Sequence(
            self,
            prompt_tokens=int(shape["prompt_tokens"]),
            max_tokens=int(shape["max_tokens"]),
            tokens=int(shape["tokens"]),
            prefill_s=shape["prefill_s"],
            gaps=iter([Gap(shape["gap_s"], 0.0)] * int(shape["tokens"])),
        )
        scheduler.submit(self.sequence, arrival)

    def started(self, at: float) -> None:
        """Write it down."""
        self.starts.append(at)

    def made(self, index: int, due: float) -> None:
        """Write it down, and how full the cache is."""
        assert index == len(self.dues)
        self.dues.append(due)
        self.usage.append(self.scheduler.kv_usage)

    def ended(self, at: float) -> None:
        """Write it down."""
        self.ends.append(at)


def test_due_times_are_known_numbers() -> None:
    """Token i is due at start + ttft + i * itl, and the slot is free with the last."""
    scheduler = Scheduler(Batch())
    request = Scripted(scheduler, 100.0, prefill_s=0.5, tokens=4)
    scheduler.advance(1000.0)
    assert (request.starts, request.dues, request.ends) == ([100.0], [100.5, 100.75, 101.0, 101.25], [101.25])
    assert (scheduler.running, scheduler.waiting, scheduler.next_due) == (0, 0, math.inf)


def test_no_token_is_made_early() -> None:
    """A clock just before the due time gives nothing; at the due time it gives the token."""
    scheduler = Scheduler(Batch())
    request = Scripted(scheduler, 0.0, prefill_s=0.5)
    scheduler.advance(0.4999)
    assert (request.dues, scheduler.next_due) == ([], 0.5)
    scheduler.advance(0.5)
    assert request.dues == [0.5]


@pytest.mark.parametrize("steps", [(9.0,), (1.1, 1.3, 9.0), tuple(index / 7 for index in range(64))])
def test_a_late_clock_changes_nothing(steps: tuple[float, ...]) -> None:
    """However rarely the clock is looked at, everything happens at the same times: slopes, queue and cache too."""
    scheduler = Scheduler(Batch(max_running=2, kv_tokens=12, preempts=True, ttft_slope=0.5, itl_slope=0.5))
    requests = [Scripted(scheduler, index * 0.3, prompt_tokens=2) for index in range(4)]
    for now in steps:
        scheduler.advance(now)
    punctual = Scheduler(scheduler.batch)
    same = [Scripted(punctual, index * 0.3, prompt_tokens=2) for index in range(4)]
    while punctual.next_due < math.inf:
        punctual.advance(punctual.next_due)
    assert [request.dues for request in requests] == [request.dues for request in same]
    assert all(len(request.dues) == 3 for request in requests)


def test_due_times_do_not_drift() -> None:
    """A million tokens on, the due time is off by less than a microsecond."""
    scheduler = Scheduler(Batch())
    request = Scripted(scheduler, 100_000.0, tokens=1_000_001, prefill_s=0.0, gap_s=0.005)
    scheduler.advance(math.inf)
    assert request.dues[-1] == pytest.approx(105_000.0, abs=1e-6)


def test_without_a_limit_all_start_at_arrival() -> None:
    """Nobody waits."""
    scheduler = Scheduler(Batch())
    requests = [Scripted(scheduler, float(index)) for index in range(5)]
    scheduler.advance(4.5)
    assert [request.starts for request in requests] == [[0.0], [1.0], [2.0], [3.0], [4.0]]


def test_first_come_first_served() -> None:
    """A slot goes to the one that waits longest, at the due time that freed it, or at its arrival if that is later."""
    scheduler = Scheduler(Batch(max_running=1))
    requests = [Scripted(scheduler, arrival) for arrival in (0.0, 1.0, 2.0, 9.0)]
    scheduler.advance(2.5)
    assert (scheduler.running, scheduler.waiting) == (1, 1)
    scheduler.advance(9.0)
    assert [request.starts for request in requests] == [[0.0], [1.5], [3.0], [9.0]]


def test_who_gives_up_frees_only_what_it_held() -> None:
    """Waiting it takes nobody's slot along; running it frees its own at once; ended or gone, nothing."""
    scheduler = Scheduler(Batch(max_running=1))
    first, second, third = (Scripted(scheduler, 0.0) for _ in range(3))
    scheduler.cancel(second.sequence, 0.5)
    assert (scheduler.running, scheduler.waiting) == (1, 1)
    scheduler.cancel(first.sequence, 1.1)
    scheduler.cancel(first.sequence, 1.2)
    scheduler.advance(9.0)
    scheduler.cancel(third.sequence, 9.5)
    assert [request.dues for request in (first, second, third)] == [[1.0], [], [2.1, 2.35, 2.6]]
    assert (scheduler.running, scheduler.waiting, scheduler.held) == (0, 0, 0)


def test_a_fuller_batch_is_slower() -> None:
    """The TTFT is 1 + ttft_slope x (n - 1) times as long, n at its start; a gap likewise, n where it begins."""
    scheduler = Scheduler(Batch(ttft_slope=0.5, itl_slope=2.0))
    first = Scripted(scheduler, 0.0, prefill_s=1.0, gap_s=1.0, tokens=3)
    second = Scripted(scheduler, 1.5, prefill_s=1.0, gap_s=1.0, tokens=2)
    scheduler.advance(99.0)
    # The gap that begins at 1.0 is begun alone, the one at 2.0 in a batch of two, and so is the second's at 3.0.
    assert first.dues == [1.0, 2.0, 5.0]
    assert second.dues == [1.5 + 1.5, 3.0 + 3.0]


def test_a_stall_is_not_stretched() -> None:
    """What a stall adds is added as it is."""
    scheduler = Scheduler(Batch(itl_slope=1.0))
    requests = [Scripted(scheduler, 0.0, tokens=2) for _ in range(2)]
    for request in requests:
        request.sequence.gaps = iter([Gap(0.5, 3.0)])
    scheduler.advance(99.0)
    assert [request.dues for request in requests] == [[1.0, 1.0 + 1.0 + 3.0]] * 2


def test_reserving_waits_for_room() -> None:
    """A request starts when prompt and longest answer fit, and holds their room to its end; none overtakes."""
    scheduler = Scheduler(Batch(kv_tokens=10))
    first = Scripted(scheduler, 0.0, prompt_tokens=4, max_tokens=4, tokens=3)
    big = Scripted(scheduler, 0.1, prompt_tokens=2, max_tokens=8, tokens=1)
    small = Scripted(scheduler, 0.2, prompt_tokens=1, max_tokens=1, tokens=1)
    scheduler.advance(0.3)
    assert (scheduler.kv_usage, scheduler.running, scheduler.waiting) == (0.8, 1, 2)
    scheduler.advance(99.0)
    assert [request.starts for request in (first, big, small)] == [[0.0], [1.5], [2.5]]
    assert first.usage == [0.8] * 3
    assert big.usage == [1.0]
    assert scheduler.preemptions == 0


def test_preempting_puts_out_the_last() -> None:
    """The cache fills token by token; without room the last to start gives its own back, and pays its TTFT again."""
    scheduler = Scheduler(Batch(kv_tokens=10, preempts=True))
    first = Scripted(scheduler, 0.0, prompt_tokens=4, tokens=4, gap_s=1.0)
    last = Scripted(scheduler, 0.5, prompt_tokens=3, tokens=3, gap_s=1.0)
    scheduler.advance(1.4)
    assert scheduler.kv_usage == 1.0
    scheduler.advance(1.5)
    assert (scheduler.preemptions, scheduler.waiting, scheduler.held) == (1, 1, 6)
    scheduler.advance(99.0)
    assert first.dues == [1.0, 2.0, 3.0, 4.0]
    assert last.dues == [1.5, 4.0 + 1.0, 6.0]
    assert last.starts == [0.5]
    assert (scheduler.held, scheduler.preemptions) == (0, 1)


def test_preempting_serves_all_however_small_the_cache() -> None:
    """Where each fits alone, each ends, and the cache is never fuller than full."""
    scheduler = Scheduler(Batch(kv_tokens=20, preempts=True))
    requests = [Scripted(scheduler, index * 0.1, prompt_tokens=5, tokens=15, max_tokens=15) for index in range(12)]
    scheduler.advance(math.inf)
    assert [len(request.dues) for request in requests] == [15] * 12
    assert all(request.dues == sorted(request.dues) for request in requests)
    assert max(max(request.usage) for request in requests) <= 1.0
    assert scheduler.preemptions > 0
    assert scheduler.held == 0


def test_a_request_without_tokens_ends_at_its_ttft() -> None:
    """Scoring a prompt takes the time to the first token and makes none."""
    scheduler = Scheduler(Batch(kv_tokens=4, preempts=True))
    request = Scripted(scheduler, 1.0, tokens=0, max_tokens=0, prompt_tokens=4)
    scheduler.advance(9.0)
    assert (request.dues, request.ends) == ([], [2.0])


def test_a_request_that_comes_of_an_end_starts_in_its_time() -> None:
    """Who submits from within is let in when it arrives, behind what was due before."""
    scheduler = Scheduler(Batch(max_running=1))
    first = Scripted(scheduler, 0.0, tokens=1)
    found: list[Scripted] = []
    first.ended = lambda at: found.append(Scripted(scheduler, at + 0.5))  # type: ignore[method-assign]
    scheduler.advance(9.0)
    assert [request.starts for request in found] == [[1.5]]
    assert found[0].dues == [2.5, 2.75, 3.0]


def test_who_would_wait() -> None:
    """A request that arrived now would wait if others do, or if it does not fit."""
    scheduler = Scheduler(Batch(max_running=2, kv_tokens=10))
    Scripted(scheduler, 0.0, prompt_tokens=4, max_tokens=4)
    scheduler.advance(0.0)
    assert (scheduler.would_wait(2, 1), scheduler.would_wait(1, 1)) == (True, False)
    Scripted(scheduler, 0.1, prompt_tokens=4, max_tokens=4)
    scheduler.advance(0.1)
    assert scheduler.would_wait(1, 1)
