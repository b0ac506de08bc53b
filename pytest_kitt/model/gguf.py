"""What does the head of a GGUF file say? After the GGUF specification, versions 2 and 3; hostile files are bounded."""

from __future__ import annotations

import dataclasses
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

_MAGIC = b"GGUF"
_MAX_ENTRIES = 100_000
_MAX_STRING_BYTES = 16 << 20
_MAX_ITEMS = 4_000_000
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# general.file_type, as llama.cpp's llama_ftype numbers it
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip


class NotGguf(Exception):
    """The file is no GGUF file, or a damaged one."""


@dataclasses.dataclass(frozen=True, slots=True)
class GgufFacts:
    """What the head says: name of the quantization (empty when unknown) and number of weights."""

    architecture: str
    quantization: str
    parameters: int


def read(path: Path) -> GgufFacts:
    """Reads the head of a file; NotGguf says in one sentence what is wrong with it."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic != _MAGIC:
            raise NotGguf(f"{path} is no GGUF file (it begins with {magic!r}, not b'GGUF')")
        try:
            return _read_head(file)
        except (struct.error, ValueError, OverflowError) as error:
            raise NotGguf(f"{path} is a damaged GGUF file ({error})") from error


def _read_head(file: BinaryIO) -> GgufFacts:
    version, tensors, entries = _unpack(file, "<IQQ")
    if version not in (2, 3):
        raise ValueError(f"version {version} is unknown")
    if max(tensors, entries) > _MAX_ENTRIES:
        raise ValueError("too many entries")
    wanted: dict[str, Any] = {}
    for _ in range(entries):
        key = _string(file)
        (kind,) = _unpack(file, "<I")
        value = _value(file, kind)
        if key in ("general.architecture", "general.file_type"):
            wanted[key] = value
    parameters = sum(_tensor_size(file) for _ in range(tensors))
    return GgufFacts(
        architecture=str(wanted.get("general.architecture", "")),
        quantization=_FILE_TYPES.get(wanted.get("general.file_type", -1), ""),
        parameters=parameters,
    )


def _tensor_size(file: BinaryIO) -> int:
    _string(file)
    (dimensions,) = _unpack(file, "<I")
    if dimensions > 8:
        raise ValueError("a tensor has more than 8 dimensions")
    shape = _unpack(file, f"<{dimensions}Q")
    _unpack(file, "<IQ")
    return math.prod(shape)


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        return _skip_array(file)
    if kind not in _SCALARS:
        raise ValueError(f"value type {kind} is unknown")
    return _unpack(file, f"<{_SCALARS[kind]}")[0]


def _skip_array(file: BinaryIO) -> None:
    kind, count = _unpack(file, "<IQ")
    if count > _MAX_ITEMS:
        raise ValueError("an array is too long")
    if kind == _STRING:
        for _ in range(count):
            _string(file)
    elif kind in _SCALARS:
        file.seek(count * struct.calcsize(f"<{_SCALARS[kind]}"), 1)
    else:
        raise ValueError("an array of arrays")


def _string(file: BinaryIO) -> str:
    (size,) = _unpack(file, "<Q")
    if size > _MAX_STRING_BYTES:
        raise ValueError("a string is too long")
    return file.read(size).decode("utf-8", "replace")


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
