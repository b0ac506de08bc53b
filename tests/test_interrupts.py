"""When may a signal end a session?"""

from __future__ import annotations

import contextlib
import signal
import time

import pytest

from pytest_kitt import interrupts
from pytest_kitt.interrupts import Interrupts


class Swallows:
    """Python drops what is raised in a finaliser."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_waits_for_what_must_be_done() -> None:
    """Within ``held`` it is noted, and follows."""
    done = []
    with Interrupts() as found:
        with pytest.raises(KeyboardInterrupt), found.held():  # noqa: PT012 - what comes in between is the point
            signal.raise_signal(signal.SIGTERM)
            done.append("written")
        found.heard()
    assert done == ["written"]


def test_the_second_hurries_and_the_third_cuts() -> None:
    """Only the first and the third are raised."""
    hurried = []
    with Interrupts() as found:
        found.hurry.append(lambda: hurried.append(True))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        found.heard()
        signal.raise_signal(signal.SIGTERM)
        assert hurried == [True]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_python_drops_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as nobody says that the session is ending."""
    monkeypatch.setattr(interrupts, "_UNHEARD_S", 0.2)
    with Interrupts() as found:
        lost = Swallows()
        del lost
        assert found.signals == 1
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)
        found.heard()


def test_a_slow_end_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is on the way out, stopping an engine say, is left alone however long that takes."""
    monkeypatch.setattr(interrupts, "_UNHEARD_S", 0.05)
    ended = []
    with Interrupts() as found:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - what comes in between is the point
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                time.sleep(0.5)
                ended.append("engine")
        found.heard()
    assert ended == ["engine"]


def test_what_somebody_swallowed_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody has any more was lost."""
    monkeypatch.setattr(interrupts, "_UNHEARD_S", 0.2)
    with Interrupts() as found:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)
        found.heard()
