"""When did these bytes arrive? The kernel knows, and it is not late when this process is.

``SO_TIMESTAMPNS`` (Linux) hands the receive time of each read along with it, on CLOCK_REALTIME; it is moved to the
monotonic clock by paired readings, taken again every second so that a stepped or slewed wall clock does not hurt.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

SO_TIMESTAMPNS = 35  # asm-generic/socket.h; not exported by Python's socket module
ANCILLARY_BYTES = 64
unpack_stamp = struct.Struct("@qq").unpack_from
_REFRESH_NS = 1_000_000_000
monotonic_ns = time.perf_counter_ns


class Clock:
    """Turns kernel stamps into monotonic nanoseconds.

    Attributes:
        missing: reads that came without a stamp; any makes the whole load "user".
        offset_ns: what to take from a stamp.
        drift_ns: the largest change of the offset between two readings.

    """

    def __init__(self, *, user: bool = False) -> None:
        self.supported = not user and sys.platform == "linux" and struct.calcsize("P") == 8
        self.missing = 0
        if self.supported:  # the kernel begins to stamp some time after the first socket asks, so ask before any reads
            self._first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.prepare(self._first)
        self.drift_ns = 0
        self.offset_ns = _realtime_offset_ns()
        self._read_at = monotonic_ns()

    @property
    def name(self) -> str:
        """``kernel`` when every read carried a stamp, else ``user``."""
        return "kernel" if self.supported and not self.missing else "user"

    def close(self) -> None:
        """Lets go of what keeps the kernel stamping."""
        if self.supported:
            self._first.close()

    def prepare(self, sock: socket.socket) -> None:
        """Asks the kernel for stamps."""
        if self.supported:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def stamp(self, ancillary: list[tuple[int, int, bytes]]) -> int:
        """Monotonic nanoseconds at which the bytes of a recvmsg arrived."""
        if ancillary:
            seconds, nanoseconds = unpack_stamp(ancillary[0][2])
            return seconds * 1_000_000_000 + nanoseconds - self.offset_ns  # type: ignore[no-any-return]  # two int64
        self.missing += 1
        return monotonic_ns()

    def refresh(self, now: int) -> None:
        """Reads the offset again, once a second."""
        if now - self._read_at >= _REFRESH_NS:
            self.read_again()

    def read_again(self) -> None:
        """Reads the offset again, so that a step of the wall clock since the last reading shows."""
        offset = _realtime_offset_ns(tries=8)
        self.drift_ns = max(self.drift_ns, abs(offset - self.offset_ns))
        self.offset_ns, self._read_at = offset, monotonic_ns()


def _realtime_offset_ns(tries: int = 50) -> int:
    def pair() -> tuple[int, int]:
        before = monotonic_ns()
        realtime = time.time_ns()
        after = monotonic_ns()
        return after - before, realtime - (before + after) // 2

    return min(pair() for _ in range(tries))[1]
