"""What does the head of a safetensors file say? Only sizes and JSON are read, and hostile files are bounded."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from pytest_kitt.model.config import Damaged

_MAX_JSON_BYTES = 32 << 20
_MAX_COUNT = 10**15


def parameters(path: Path) -> int:
    """How many numbers the tensors of a file hold; Damaged says what is wrong with it."""
    with path.open("rb") as file:
        head = file.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= size <= _MAX_JSON_BYTES:
            raise Damaged(f"{path.name} is no safetensors file")
        text = file.read(size)
    try:
        tensors = json.loads(text)
        shapes = [tensor["shape"] for name, tensor in tensors.items() if name != "__metadata__"]
        count = sum(math.prod(_whole(number) for number in shape) for shape in shapes)
        end = max((_whole(t["data_offsets"][1]) for n, t in tensors.items() if n != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise Damaged(f"{path.name} is a damaged safetensors file") from error
    if path.stat().st_size < 8 + size + end:
        raise Damaged(f"{path.name} is cut off")
    return min(count, _MAX_COUNT)


def _whole(number: object) -> int:
    if not isinstance(number, int) or not 0 <= number < _MAX_COUNT:
        raise ValueError(number)
    return number
