"""Where do the blocks of a load wait? In a file without a name, which vanishes with its last reader."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import weakref
from pathlib import Path

from pytest_kitt.measure.records import CODEC


@dataclasses.dataclass(frozen=True, slots=True)
class SpooledBlock:
    """One block in the spool: read anew each time it is asked for."""

    spool: Spool = dataclasses.field(repr=False)
    offset: int
    size: int
    n: int
    codec: str = CODEC

    @property
    def data(self) -> bytes:
        """The bytes."""
        return self.spool.read(self.offset, self.size)


class Spool:
    """Keeps blocks; OSError when the disk is full."""

    def __init__(self) -> None:
        self._fd, path = tempfile.mkstemp(prefix="kitt-load-")
        Path(path).unlink()
        weakref.finalize(self, os.close, self._fd)
        self._end = 0

    def add(self, data: bytes, n: int) -> SpooledBlock:
        """Keeps a block of n requests."""
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], self._end + written)
        block = SpooledBlock(self, self._end, len(data), n)
        self._end += len(data)
        return block

    def read(self, offset: int, size: int) -> bytes:
        """The bytes of a block."""
        return os.pread(self._fd, size, offset)
