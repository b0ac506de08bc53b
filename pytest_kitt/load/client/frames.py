"""How does a client child talk to its parent? Frames on its standard output: kind, length, payload."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

READY, BLOCK, PROGRESS, DONE, ENDING, FATAL = b"R", b"B", b"P", b"D", b"E", b"X"
_HEAD = struct.Struct("<cI")


def write(stream: BinaryIO, kind: bytes, payload: bytes) -> None:
    """Writes one frame."""
    stream.write(_HEAD.pack(kind, len(payload)) + payload)
    stream.flush()


class Incoming:
    """Puts frames together from what a pipe gives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The (kind, payload) of each frame that this completes."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            kind, size = _HEAD.unpack_from(self._buffer)
            end = _HEAD.size + size
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield kind, payload
