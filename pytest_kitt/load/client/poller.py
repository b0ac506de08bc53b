"""Which sockets have something to say, and is it time for the next request? epoll and timerfd, or what there is.

On Linux a timer is a file among the sockets: it fires to the microsecond, where epoll's own limit counts milliseconds,
and is set anew a few times a second, where a limit would be at each poll, which costs as much as reading.
Elsewhere (macOS) ``selectors`` picks kqueue, whose limit is fine enough.
"""

from __future__ import annotations

import os
import select
import selectors
import sys
from typing import Any, Protocol

from pytest_kitt.load.client.clock import monotonic_ns

READ, WRITE = 1, 4  # as EPOLLIN and EPOLLOUT; anything else means trouble, which reading will tell
_MAX_EVENTS = 4096
_S = 1e-9


class Poller(Protocol):
    """Watches files."""

    def register(self, fd: int, *, write: bool) -> None:
        """Watches a file for reading, and for writing if asked."""

    def modify(self, fd: int, *, write: bool) -> None:
        """Changes whether it is watched for writing."""

    def unregister(self, fd: int) -> None:
        """Watches it no more."""

    def arm(self, wake_ns: int) -> None:
        """From this time on ``poll`` returns at once, until another time is set."""

    def poll(self, *, block: bool) -> list[tuple[int, int]]:
        """(file, READ | WRITE) pairs; waits for one, or for the armed time, if asked.

        The timer may be among them as a file that nobody knows.
        """

    def close(self) -> None:
        """Lets go of everything."""


def poller() -> Poller:
    """The best that this system has."""
    return Epoll() if sys.platform == "linux" else Selector()


class Epoll:
    """Linux."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._timer = _Timer()
        self._epoll.register(self._timer.fd, select.EPOLLIN)

    def register(self, fd: int, *, write: bool) -> None:
        self._epoll.register(fd, READ | WRITE if write else READ)

    def modify(self, fd: int, *, write: bool) -> None:
        self._epoll.modify(fd, READ | WRITE if write else READ)

    def unregister(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def arm(self, wake_ns: int) -> None:
        self._timer.arm(wake_ns)

    def poll(self, *, block: bool) -> list[tuple[int, int]]:
        return self._epoll.poll(-1 if block else 0, _MAX_EVENTS)

    def close(self) -> None:
        self._timer.close()
        self._epoll.close()


class Selector:
    """Any system."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector or selectors.DefaultSelector()
        self._wake_ns = 0

    def register(self, fd: int, *, write: bool) -> None:
        self._selector.register(fd, _events(write))

    def modify(self, fd: int, *, write: bool) -> None:
        self._selector.modify(fd, _events(write))

    def unregister(self, fd: int) -> None:
        self._selector.unregister(fd)

    def arm(self, wake_ns: int) -> None:
        self._wake_ns = wake_ns

    def poll(self, *, block: bool) -> list[tuple[int, int]]:
        found = self._selector.select(max(0.0, (self._wake_ns - monotonic_ns()) * _S) if block else 0)
        return [
            (
                key.fd,
                (READ if mask & selectors.EVENT_READ else 0) | (WRITE if mask & selectors.EVENT_WRITE else 0),
            )
            for key, mask in found
        ]

    def close(self) -> None:
        self._selector.close()


def _events(write: bool) -> int:
    return selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)


class _Timer:
    """A timerfd on the monotonic clock; through the C library, as Python has it only from 3.13 on."""

    _MONOTONIC, _NONBLOCK_CLOEXEC, _ABSOLUTE = 1, 0o2004000, 1
    _PR_SET_TIMERSLACK = 29

    def __init__(self) -> None:
        import ctypes

        class Timespec(ctypes.Structure):
            _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

        class Itimerspec(ctypes.Structure):
            _fields_ = (("interval", Timespec), ("value", Timespec))

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(self._PR_SET_TIMERSLACK, 1, 0, 0, 0)
        self.fd: int = libc.timerfd_create(self._MONOTONIC, self._NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self.armed = 0
        self._spec = Itimerspec()
        self._reference = ctypes.byref(self._spec)
        self._settime: Any = libc.timerfd_settime

    def arm(self, wake_ns: int) -> None:
        if wake_ns == self.armed:
            return
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(wake_ns, 1_000_000_000)
        self._settime(self.fd, self._ABSOLUTE, self._reference, None)
        self.armed = wake_ns

    def close(self) -> None:
        os.close(self.fd)
