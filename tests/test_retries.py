"""When is a refused request sent again? Known headers on a known day, and waits from a seed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pytest_kitt.load.client.retries import MAX_WAIT_S, Waits, said_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "header, seconds",
    [
        (b"", 0),
        (b"0", 0),
        (b"7", 7),
        (b" 7 ", 7),
        (b"59", 59),
        (b"3600", MAX_WAIT_S),
        (b"9" * 5000, MAX_WAIT_S),
        (b"-3", 0),
        (b"1.5", 0),
        (b"soon", 0),
        (b"\xb2", 0),  # a digit of sorts, and no number
        (b"\xff\xfe", 0),
        (b"Sun, 01 Mar 2026 12:00:30 GMT", 30),
        (b"Sunday, 01-Mar-26 12:00:30 GMT", 30),
        (b"Sun Mar  1 12:00:30 2026", 30),
        (b"Sun, 01 Mar 2026 11:00:00 GMT", 0),
        (b"Mon, 01 Mar 2027 11:00:00 GMT", MAX_WAIT_S),
        (b"Sun, 99 Mar 2026 12:00:30 GMT", 0),
        (b"Sun, 01 Mar 99999 12:00:30 GMT", 0),
        (b"Sun, 01 Mar 2026 12:00:30 +9999999999", 0),
    ],
)
def test_what_retry_after_says(header: bytes, seconds: float) -> None:
    """Seconds or a date in any of HTTP's three forms, never more than a minute; nonsense says nothing."""
    assert said_s(header, NOW) == seconds


def test_waits_double_up_to_a_minute() -> None:
    """Half a second at first; less by up to half, at random."""
    waits = Waits("1")
    for before, longest in enumerate((0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60)):
        drawn = [waits.wait_s(before) for _ in range(200)]
        assert longest / 2 <= min(drawn) < 0.6 * longest
        assert 0.9 * longest < max(drawn) <= longest
    assert waits.wait_s(10**6) <= MAX_WAIT_S


def test_the_server_has_the_last_word_unless_it_is_too_short() -> None:
    """No sooner than it says, no sooner than without its word, and bounded."""
    assert Waits("1").wait_s(0, 5.0) == 5.0
    assert Waits("1").wait_s(5, 1.0) >= 8
    assert Waits("1").wait_s(0, 1e9) == MAX_WAIT_S


def test_the_same_seed_waits_alike() -> None:
    """Reproducible, and different for another seed."""
    drawn = [[Waits(seed).wait_s(n) for n in range(5)] for seed in ("1", "1", "2")]
    assert drawn[0] == drawn[1] != drawn[2]
