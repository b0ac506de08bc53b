"""How do tests let the tiny model say something else of itself? Entries of its GGUF file are replaced or left out."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from tests.made_models import text
from tests.quantized import _ALIGNMENT, _info, _read, _skip, _string

Said = str | int | bool | None  # None: the entry is taken out


def retold(source: Path, target: Path, said: Mapping[str, Said]) -> Path:
    """Writes the model with other entries in its head; its weights are the same."""
    with source.open("rb") as file:
        version, (tensors, entries) = file.read(8), (_read(file, "Q"), _read(file, "Q"))
        kept = []
        for _ in range(entries):
            begin = file.tell()
            key = _string(file).decode()
            _skip(file, _read(file, "I"))
            end = file.tell()
            file.seek(begin)
            entry = file.read(end - begin)
            if key not in said:
                kept.append(entry)
        begin = file.tell()
        for _ in range(tensors):
            _info(file)
        end = file.tell()
        file.seek(begin)
        infos = file.read(end - begin)
        file.seek(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT)
        data = file.read()
    kept += [text(key) + _value(value) for key, value in said.items() if value is not None]
    head = version + struct.pack("<QQ", tensors, len(kept)) + b"".join(kept) + infos
    target.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + data)
    return target


def _value(value: str | int) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    return struct.pack("<I", 8) + text(value)
