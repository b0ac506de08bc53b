"""Models of a few bytes, as the formats have them: GGUF and safetensors, whole, in parts, and packed in every way."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Entry = int | str | list[int]


def text(value: str) -> bytes:
    """A string as GGUF has it."""
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(
    entries: Mapping[str, Entry] | None = None, *, weights: int = 16, data: int | None = None, kind: int = 0
) -> bytes:
    """A GGUF file with one tensor, of F32 unless said otherwise, and ``data`` bytes of content, by default all."""
    said: dict[str, Entry] = {"general.architecture": "llama", "general.file_type": 15, **(entries or {})}
    tensor = text("w") + struct.pack("<IQIQ", 1, weights, kind, 0)
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, len(said)) + b"".join(map(_entry, said.items())) + tensor
    return head + b"\0" * (-len(head) % 32) + b"\0" * (weights * 4 if data is None else data)


def _entry(item: tuple[str, Entry]) -> bytes:
    key, value = item
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, int):
        return text(key) + struct.pack("<II", 4, value)
    return text(key) + struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)


def safetensors(shape: tuple[int, ...] = (3, 4), data: bytes | None = None) -> bytes:
    """A safetensors file with one tensor of two-byte numbers."""
    size = 2
    for number in shape:
        size *= number
    head = {"__metadata__": {"format": "pt"}, "w": {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}}
    line = json.dumps(head).encode()
    return struct.pack("<Q", len(line)) + line + (b"\0" * size if data is None else data)


def put(folder: Path, files: Mapping[str, bytes | Mapping[str, Any]]) -> Path:
    """Writes files; the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder
