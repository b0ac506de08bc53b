"""How do tests get the tiny model in another quantization? Its matrices are rounded to Q4_0, as llama.cpp reads it."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY, _F32, _F16, _Q4_0 = 8, 9, 0, 1, 2
_FILE_TYPE_Q4_0 = 2
_BLOCK, _ALIGNMENT = 32, 32


def to_q4_0(source: Path, target: Path) -> Path:
    """Writes the model with four bits a weight, where it has sixteen."""
    with source.open("rb") as file:
        head = bytearray(file.read(8))
        tensors, entries = _read(file, "Q"), _read(file, "Q")
        head += struct.pack("<QQ", tensors, entries)
        for _ in range(entries):
            begin = file.tell()
            key = _string(file)
            _skip(file, _read(file, "I"))
            end = file.tell()
            file.seek(begin)
            entry = file.read(end - begin)
            head += entry[:-4] + struct.pack("<I", _FILE_TYPE_Q4_0) if key == b"general.file_type" else entry
        infos = [_info(file) for _ in range(tensors)]
        file.seek(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT)
        data = file.read()
    body = bytearray()
    for name, shape, kind, offset in infos:
        count = math.prod(shape)
        raw = data[offset : offset + count * (2 if kind == _F16 else 4)]
        if kind == _F16:
            raw = _rounded(struct.unpack(f"<{count}e", raw))
        head += struct.pack("<Q", len(name)) + name
        head += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, _Q4_0 if kind == _F16 else kind, len(body))
        body += raw + bytes(-len(raw) % _ALIGNMENT)
    target.write_bytes(bytes(head) + bytes(-len(head) % _ALIGNMENT) + bytes(body))
    return target


def _rounded(weights: tuple[float, ...]) -> bytes:
    """Blocks of 32: a scale in half precision, then the low halves of 16 bytes, then the high ones."""
    blocks = bytearray()
    for place in range(0, len(weights), _BLOCK):
        block = weights[place : place + _BLOCK]
        scale = max(block, key=abs) / -8
        levels = [min(15, int(weight / scale + 8.5)) if scale else 8 for weight in block]
        pairs = zip(levels[: _BLOCK // 2], levels[_BLOCK // 2 :], strict=True)
        blocks += struct.pack("<e", scale) + bytes(low | high << 4 for low, high in pairs)
    return bytes(blocks)


def _info(file: BinaryIO) -> tuple[bytes, tuple[int, ...], int, int]:
    name = _string(file)
    shape = tuple(_read(file, "Q") for _ in range(_read(file, "I")))
    return name, shape, _read(file, "I"), _read(file, "Q")


def _read(file: BinaryIO, form: str) -> Any:
    (value,) = struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))
    return value


def _string(file: BinaryIO) -> bytes:
    return file.read(_read(file, "Q"))


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        _string(file)
    elif kind == _ARRAY:
        inside, count = _read(file, "I"), _read(file, "Q")
        for _ in range(count):
            _skip(file, inside)
    else:
        _read(file, _SCALARS[kind])
