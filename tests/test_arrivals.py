"""When are requests due? The same times for the same seed, with the distribution that was asked for."""

from __future__ import annotations

import math
from itertools import islice, pairwise

import pytest

from benchmarks.kolmogorov import p_value, statistic
from pytest_kitt.errors import UserError
from pytest_kitt.load.arrivals import due_ns, share
from pytest_kitt.load.spec import Adaptive, Arrivals, ClientSpec, Stop, load_of, stop_of


def gaps_s(load: Arrivals, n: int = 20_000, seed: str = "7") -> list[float]:
    """The first n gaps of a schedule."""
    return [(b - a) / 1e9 for a, b in pairwise(islice(due_ns(load, seed=seed), n + 1))]


def cv(values: list[float]) -> float:
    """Standard deviation over mean."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) / mean


@pytest.mark.parametrize(
    "short, mean_s, variation",
    [("constant:10/s", 0.1, 0), ("poisson:40/s", 0.025, 1), ("gamma:40/s:2", 0.025, 2), ("gamma:5:0.5", 0.2, 0.5)],
)
def test_gaps_have_their_mean_and_variation(short: str, mean_s: float, variation: float) -> None:
    """Rate and coefficient of variation are those asked for."""
    load = load_of(short)
    assert isinstance(load, Arrivals)
    gaps = gaps_s(load)
    assert min(gaps) >= 0
    assert sum(gaps) / len(gaps) == pytest.approx(mean_s, rel=0.04)
    assert cv(gaps) == pytest.approx(variation, rel=0.06, abs=1e-6)


def test_poisson_gaps_are_exponential() -> None:
    """Kolmogorov and Smirnov see no difference, and do see one for other arrivals."""
    poisson, gamma = (gaps_s(load, 5000) for load in (Arrivals(20), Arrivals(20, "gamma", 1.2)))
    assert p_value(statistic(poisson, rate=20), len(poisson)) > 0.01
    assert p_value(statistic(gamma, rate=20), len(gamma)) < 0.001


def test_the_same_seed_gives_the_same_times() -> None:
    """Reproducible, and different for another seed."""
    load = Arrivals(100)
    assert gaps_s(load, 50) == gaps_s(load, 50)
    assert gaps_s(load, 50) != gaps_s(load, 50, seed="8")


def test_clients_share_one_schedule() -> None:
    """The shares of three clients are the whole, and no arrival is in two of them."""
    load = Arrivals(100)
    whole = list(islice(due_ns(load, seed="1"), 99))
    parts = [list(islice(share(due_ns(load, seed="1"), client=k, clients=3), 33)) for k in range(3)]
    assert sorted(due for part in parts for due in part) == whole
    assert parts[1][0] == whole[1]


@pytest.mark.parametrize(
    "load, said",
    [
        ("poison:10/s", "did you mean 'poisson'"),
        ("poisson:x/s", "'x' is not a number"),
        ("poisson:0/s", "the rate lies above 0"),
        ("poisson:nan/s", "the rate lies above 0"),
        ("poisson:10/s:2", "only gamma takes a second number"),
        ("gamma:10/s", "gamma needs a coefficient of variation"),
        ("gamma:10/s:0", "between 0.01 and 100"),
        ("closed:0", "concurrency lies between"),
        ("adaptive:0", "expected adaptive:FIRST:MOST"),
        ("adaptive:8:4", "expected adaptive:FIRST:MOST, with 1 <= FIRST <= MOST"),
        ("adaptive:8:99999", "MOST <= 20000"),
        ("adaptive:many", "'many' is not a number, as in 'adaptive:256'"),
        ("adaptve:8", "did you mean 'adaptive'"),
    ],
)
def test_bad_loads(load: str, said: str) -> None:
    """One sentence each."""
    with pytest.raises(UserError, match=said):
        load_of(load)


@pytest.mark.parametrize(
    "stop, said",
    [
        ("requests:0", "with a positive number"),
        ("request:5", "did you mean 'requests'"),
        ("requests:5,error:3", "'error:3' is unknown"),
        ("requests:5,errors:0%", "a share above 0"),
        ("requests:5,errors:120%", "a share above 0"),
        ("requests:5,errors:x", "'x' is not a number"),
        ("seconds:inf", "with a positive number"),
    ],
)
def test_bad_stops(stop: str, said: str) -> None:
    """One sentence each."""
    with pytest.raises(UserError, match=said):
        stop_of(stop)


@pytest.mark.parametrize("short", ["closed:4", "adaptive:2:64", "constant:10/s", "poisson:0.5/s", "gamma:10/s:2"])
def test_loads_read_as_they_are_written(short: str) -> None:
    """The short form of a load is its name."""
    assert str(load_of(short)) == short


def test_an_adaptive_load_begins_with_eight() -> None:
    """Or with the most, where that is less."""
    assert load_of("adaptive:256") == Adaptive(8, 256)
    assert load_of("adaptive:3") == Adaptive(3, 3)


def test_stops_read_as_they_are_written() -> None:
    """So is that of a stop."""
    assert stop_of("requests:10,errors:20%") == Stop(requests=10, max_error_share=0.2)
    assert str(stop_of("seconds:2.5,errors:0.1")) == "seconds:2.5,errors:10%"


def test_shares_add_up() -> None:
    """Whatever the numbers, clients together do what one would do."""
    whole = ClientSpec(
        host="h",
        port=1,
        tls=False,
        ca_file="",
        path="/",
        headers=(),
        bodies=(("", ""),),
        prefix_words=(),
        prefix_length=0,
        salt="",
        concurrency=65,
        warmup=7,
        requests=100,
        seconds=0,
        hold=True,
        timeout_s=1,
        keep_text=False,
    )
    for clients in (1, 2, 3, 64):
        shares = whole.split(clients)
        assert [s.client for s in shares] == list(range(clients))
        for name in ("concurrency", "warmup", "requests"):
            parts = [getattr(s, name) for s in shares]
            assert sum(parts) == getattr(whole, name)
            assert max(parts) - min(parts) <= 1
