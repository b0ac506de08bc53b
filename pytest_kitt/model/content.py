"""What model lies in a file or a folder, and is it whole? By content, not by name; reads heads alone, bounded."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_kitt.model import config, gguf, safetensors
from pytest_kitt.model.config import Damaged
from pytest_kitt.model.memory import UNKNOWN, Shape

SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_POINTER = b"version https://git-lfs"
_MAX_PARAMETERS = 10**15
_MAX_SHARDS = 10_000
_PYTORCH = re.compile(r"(pytorch_)?model.*\.bin")
_INDEXES = {"safetensors": "model.safetensors.index.json", "pytorch": "pytorch_model.bin.index.json"}


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """One model.

    Attributes:
        path: what an engine is given: a file, the first of several, or a folder.
        files: that hold its weights.
        size_bytes: of these together.
        format: gguf, safetensors, pytorch, exl2, exl3 or mlx.
        packing: how weights in safetensors are packed, where others than its own engines can read it: gptq, awq, ...
        architecture: as the model says; empty when it does not.
        quantization: likewise.
        parameters: number of weights; 0 when unknown, as for packed ones.
        context: tokens that it was trained for; 0 when unknown.
        shape: what decides how large its KV cache is.
        toy: it says that it is our tiny model.

    """

    path: Path
    files: tuple[Path, ...]
    size_bytes: int
    format: str
    packing: str = ""
    architecture: str = ""
    quantization: str = ""
    parameters: int = 0
    context: int = 0
    shape: Shape = UNKNOWN
    toy: bool = False


def of_file(path: Path) -> Content:
    """The GGUF model in a file, with all of its parts; Damaged says in a few words what is wrong."""
    return of_gguf(shards(path))


def of_folder(folder: Path) -> Content | None:
    """The model in a folder of safetensors or of PyTorch's files, None without any; Damaged says what is wrong."""
    files = [path for path in sorted(folder.iterdir()) if is_weights(path) and path.is_file()]
    return of_weights(folder, {path: path.stat().st_size for path in files}) if files else None


def is_weights(path: Path) -> bool:
    """Whether a file of a folder holds weights, by its name."""
    return path.suffix == ".safetensors" or bool(_PYTORCH.fullmatch(path.name))


def shards(path: Path) -> Sequence[Path]:
    """A file, or all files that its name says it is one of; Damaged names one that is not there."""
    named = SHARD.fullmatch(path.name)
    if not named:
        return [path]
    count = int(named["count"])
    if not 1 <= int(named["number"]) <= count <= _MAX_SHARDS:
        raise Damaged(f"{path.name} says that it is part {int(named['number'])} of {count}")
    paths = [path.with_name(f"{named['name']}-{number:05}-of-{named['count']}.gguf") for number in range(1, count + 1)]
    for part in paths:
        if not part.is_file():
            raise Damaged(f"part {paths.index(part) + 1} of {count} is missing ({part.name})")
    return paths


def of_gguf(paths: Sequence[Path]) -> Content:
    """The model in the parts of a GGUF file, the first of which has the facts; Damaged says what is wrong."""
    heads = [_head(path) for path in paths]
    for path, head in zip(paths, heads, strict=True):
        if (size := path.stat().st_size) < head.least_bytes:
            raise Damaged(f"{path.name} is cut off: it has {size} bytes of at least {head.least_bytes}")
    parameters = sum(head.parameters for head in heads)
    if parameters > _MAX_PARAMETERS:
        raise Damaged("claims more weights than there can be")
    first = heads[0]
    return Content(
        path=paths[0],
        files=tuple(paths),
        size_bytes=sum(path.stat().st_size for path in paths),
        format="gguf",
        architecture=first.architecture[:60],
        quantization=first.quantization,
        parameters=parameters,
        context=first.context,
        shape=first.shape,
    )


def of_weights(folder: Path, sizes: Mapping[Path, int]) -> Content:
    """The model in a folder, of whose files with weights the sizes are known; Damaged says what is wrong."""
    kind = "safetensors" if any(path.suffix == ".safetensors" for path in sizes) else "pytorch"
    mine = sorted(path for path in sizes if (path.suffix == ".safetensors") == (kind == "safetensors"))
    for path in mine:
        if problem := _no_weights(path):
            raise Damaged(problem)
    said = config.read(folder)
    if missing := _missing(folder / _INDEXES[kind]):
        raise Damaged(f"{missing} is missing")
    numbers = sum(safetensors.parameters(path) for path in mine) if kind == "safetensors" else 0
    return Content(
        path=folder,
        files=tuple(mine),
        size_bytes=sum(sizes[path] for path in mine),
        format=said.format or kind,
        packing="" if said.format else said.method,
        architecture=said.architecture,
        quantization=said.quantization,
        parameters=0 if said.method else numbers,
        context=said.context,
        shape=said.shape,
        toy=said.toy,
    )


def _head(path: Path) -> gguf.GgufFacts:
    if problem := _no_weights(path):
        raise Damaged(problem)
    return gguf.read(path)


def _no_weights(path: Path) -> str:
    """What a file is that holds no weights at all; empty when it may hold some."""
    with path.open("rb") as file:
        begin = file.read(len(_POINTER))
    if not begin:
        return f"{path.name} is empty; fetch it again"
    if begin == _POINTER:
        return f"{path.name} is a pointer of Git LFS, not the file itself; run 'git lfs pull' in its folder"
    return ""


def _missing(index: Path) -> str:
    """The first file that an index names and that is not there."""
    if not index.is_file():
        return ""
    weight_map = config.document(index).get("weight_map")
    named = {str(name) for name in weight_map.values()} if isinstance(weight_map, dict) else set()
    return next((Path(n).name for n in sorted(named) if not index.with_name(Path(n).name or ".").is_file()), "")
