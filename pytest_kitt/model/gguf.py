"""What does the head of a GGUF file say? After the GGUF specification, versions 2 and 3; hostile files are bounded."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pytest_kitt.model.config import Damaged
from pytest_kitt.model.memory import UNKNOWN, Shape

_MAGIC = b"GGUF"
_MAX_ENTRIES = 100_000
_MAX_STRING_BYTES = 16 << 20
_MAX_ITEMS = 4_000_000
_STRING, _ARRAY = 8, 9
_MAX_LAYERS = 4096
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# general.file_type, as llama.cpp's llama_ftype numbers it
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip


# numbers in a block of a tensor's type, and its bytes, as ggml has them; a type that is not here counts as a byte
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66), 17: (256, 74), 18: (256, 98),
    19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4),
    27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
_ALIGNMENT = 32
# what is kept of an entry whose key ends like this; the part before is the architecture, but for the first three
_KEPT = (
    "general.architecture", "general.file_type", "general.alignment",
    ".context_length", ".block_count", ".embedding_length",
    ".full_attention_interval", ".rope.dimension_count", ".attention.head_count", ".attention.head_count_kv",
    ".attention.key_length", ".attention.value_length", ".attention.kv_lora_rank", ".attention.sliding_window",
)  # fmt: skip


_TOKENS = "tokenizer.ggml.tokens"
_SPEECH = frozenset({
    "tokenizer.chat_template", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id", _TOKENS,
})  # fmt: skip


class NotGguf(Damaged):
    """The file is no GGUF file, or a damaged one."""


@dataclasses.dataclass(frozen=True, slots=True)
class GgufFacts:
    """What the head says.

    Attributes:
        architecture: as llama.cpp calls it.
        quantization: its name, empty when unknown.
        parameters: number of weights.
        context: tokens that it was trained for, 0 when unknown.
        shape: what decides how large its KV cache is.
        least_bytes: a file with fewer was cut off.

    """

    architecture: str
    quantization: str
    parameters: int
    context: int = 0
    shape: Shape = UNKNOWN
    least_bytes: int = dataclasses.field(default=0, compare=False)


def read(path: Path) -> GgufFacts:
    """Reads the head of a file; NotGguf says in one sentence what is wrong with it."""
    with _opened(path) as file:
        return _read_head(file)


def speech(path: Path) -> Mapping[str, Any]:
    """What the head says of prompts, by its own keys: chat template, BOS, EOS, and the texts of all tokens.

    It raises as ``read`` does.
    """
    with _opened(path) as file:
        return _read_speech(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file behind its magic number; NotGguf for what is wrong with it, or with what is read of it."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic != _MAGIC:
            begin = f"it begins with {magic!r}, not b'GGUF'"
            raise NotGguf(f"{path.name} is no GGUF file ({begin}); expected a GGUF file, or a folder of safetensors")
        try:
            yield file
        except (struct.error, ValueError, OverflowError) as error:
            raise NotGguf(f"{path.name} is a damaged GGUF file ({error})") from error


def _read_counts(file: BinaryIO) -> tuple[int, int]:
    """How many tensors and how many entries there are."""
    version, tensors, entries = _unpack(file, "<IQQ")
    if version not in (2, 3):
        raise ValueError(f"version {version} is unknown")
    if max(tensors, entries) > _MAX_ENTRIES:
        raise ValueError("too many entries")
    return tensors, entries


def _read_speech(file: BinaryIO) -> dict[str, Any]:
    _, entries = _read_counts(file)
    found: dict[str, Any] = {}
    for _ in range(entries):
        key = _string(file)
        (kind,) = _unpack(file, "<I")
        if key == _TOKENS and kind == _ARRAY:
            found[key] = _texts(file)
            continue
        value = _value(file, kind, keep=False)
        if key in _SPEECH:
            found[key] = value
    return found


def _texts(file: BinaryIO) -> list[str]:
    """An array of strings."""
    kind, count = _unpack(file, "<IQ")
    if kind != _STRING or count > _MAX_ITEMS:
        raise ValueError("the list of tokens is none")
    return [_string(file) for _ in range(count)]


def _read_head(file: BinaryIO) -> GgufFacts:
    tensors, entries = _read_counts(file)
    wanted: dict[str, Any] = {}
    for _ in range(entries):
        key = _string(file)
        (kind,) = _unpack(file, "<I")
        value = _value(file, kind, keep=key.endswith(_KEPT))
        if key.endswith(_KEPT):
            wanted[key] = value
    found = [_tensor(file) for _ in range(tensors)]
    architecture = str(wanted.get("general.architecture", ""))
    mine = {key.removeprefix(f"{architecture}."): value for key, value in wanted.items()}
    return GgufFacts(
        architecture=architecture,
        quantization=_quantization(mine.get("general.file_type")),
        parameters=sum(size for size, _ in found),
        context=_count(mine, "context_length"),
        shape=_shape(mine),
        least_bytes=_end(file.tell(), _count(mine, "general.alignment") or _ALIGNMENT, [end for _, end in found]),
    )


def _quantization(file_type: object) -> str:
    return _FILE_TYPES.get(file_type, "") if isinstance(file_type, int) else ""


def _shape(entries: Mapping[str, Any]) -> Shape:
    """What the layers keep of each token, as llama.cpp's cache has it; nothing where the file does not say enough."""
    layers, heads = _count(entries, "block_count"), _count(entries, "attention.head_count")
    if not layers or not heads:
        return UNKNOWN
    each = _count(entries, "embedding_length") // heads
    key = _count(entries, "attention.key_length") or each
    value = _count(entries, "attention.value_length") or each
    if rank := _count(entries, "attention.kv_lora_rank"):  # all heads share one compressed vector
        total = layers * (rank + _count(entries, "rope.dimension_count"))
    else:
        total = _kv_heads(entries, layers, heads) * (key + value)
    if interval := _count(entries, "full_attention_interval"):
        total //= interval
    window = _count(entries, "attention.sliding_window")
    return Shape(windowed_values=total, window=window) if window else Shape(values=total)


def _kv_heads(entries: Mapping[str, Any], layers: int, heads: int) -> int:
    """Of all layers together; a list has a number for each, 0 for one without attention."""
    said = entries.get("attention.head_count_kv")
    if isinstance(said, list):
        return sum(number for number in said if isinstance(number, int) and 0 <= number < _MAX_ITEMS)
    return layers * (_count(entries, "attention.head_count_kv") or heads)


def _count(entries: Mapping[str, Any], key: str) -> int:
    """A whole number that can be one; 0 for anything else."""
    value = entries.get(key)
    return value if isinstance(value, int) and 0 < value < 1 << 32 else 0


def _tensor(file: BinaryIO) -> tuple[int, int]:
    """How many numbers it has, and where they end behind the head."""
    _string(file)
    (dimensions,) = _unpack(file, "<I")
    if dimensions > 8:
        raise ValueError("a tensor has more than 8 dimensions")
    shape = _unpack(file, f"<{dimensions}Q")
    kind, offset = _unpack(file, "<IQ")
    count = math.prod(shape)
    block, size = _BLOCKS.get(kind, (max(count, 1), 1))
    return count, offset + -(-count // block) * size


def _end(head: int, alignment: int, ends: Sequence[int]) -> int:
    """Where the last tensor ends; the first begins at the next multiple of the alignment."""
    return -(-head // alignment) * alignment + max(ends) if ends else head


def _value(file: BinaryIO, kind: int, *, keep: bool) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        return _array(file, keep=keep)
    if kind not in _SCALARS:
        raise ValueError(f"value type {kind} is unknown")
    return _unpack(file, f"<{_SCALARS[kind]}")[0]


def _array(file: BinaryIO, *, keep: bool) -> list[Any] | None:
    """The numbers of an array, a number per layer; None for one that nobody asked for."""
    kind, count = _unpack(file, "<IQ")
    if count > _MAX_ITEMS:
        raise ValueError("an array is too long")
    if kind == _STRING:
        for _ in range(count):
            _string(file)
    elif kind in _SCALARS:
        if keep and count <= _MAX_LAYERS:
            return list(_unpack(file, f"<{count}{_SCALARS[kind]}"))
        file.seek(count * struct.calcsize(f"<{_SCALARS[kind]}"), 1)
    else:
        raise ValueError("an array of arrays")
    return None


def _string(file: BinaryIO) -> str:
    (size,) = _unpack(file, "<Q")
    if size > _MAX_STRING_BYTES:
        raise ValueError("a string is too long")
    return file.read(size).decode("utf-8", "replace")


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
