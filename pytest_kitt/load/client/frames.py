"""How does the client child talk to its parent? Frames on its standard output: kind, length, payload."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

BLOCK, PROGRESS, ENDING, FATAL = b"B", b"P", b"E", b"X"
_HEAD = struct.Struct("<cI")


def write(stream: BinaryIO, kind: bytes, payload: bytes) -> None:
    """Writes one frame."""
    stream.write(_HEAD.pack(kind, len(payload)) + payload)
    stream.flush()


def read(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Each whole (kind, payload) until the stream ends."""
    while len(head := stream.read(_HEAD.size)) == _HEAD.size:
        kind, size = _HEAD.unpack(head)
        if len(payload := stream.read(size)) == size:
            yield kind, payload
