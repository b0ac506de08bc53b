"""Which files of a repository make the model that is meant? Names in, names out; pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from pytest_kitt.model.content import SHARD

_SIDECAR = re.compile(r"(mmproj|mtp|imatrix)\b.*|.*\b(mmproj|imatrix)\.gguf", re.IGNORECASE)
_QUANT = re.compile(r"(?:UD-)?(?:I?Q\d\w*|TQ\d\w*|[BF]F?16|F32|FP16|MXFP4\w*)", re.IGNORECASE)
_PYTORCH = re.compile(r"(pytorch_)?model.*\.bin")
_WEIGHTS = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".gguf",
    ".h5",
    ".msgpack",
    ".onnx",
    ".ckpt",
    ".npz",
    ".ot",
    ".tflite",
)
_USELESS = (*_WEIGHTS, ".onnx_data", ".mlmodel", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".mp4", ".zip", ".gz")
_INDEX_OF = {".safetensors.index.json": "safetensors", ".bin.index.json": "pytorch"}
_MAX_NAMED = 12


class NoChoice(Exception):
    """None of the files is meant, or more than one model of them; says what there is."""


def chosen(files: Collection[str], pick: str, formats: Sequence[str]) -> tuple[str, ...]:
    """The names of the files that are needed, small ones first; NoChoice when the words fit none or several.

    ``pick`` is a GGUF file or a quantization; without one the first of the formats that are there is meant: one GGUF
    model, or the weights of the top folder with all that is small beside them.
    """
    groups = ggufs(files)
    if pick:
        return _picked(groups, pick)
    packed = [format_ for format_ in formats if format_ not in ("gguf", "pytorch")]
    if packed and (weights := _safetensors(files)):
        return (*_beside(files, "safetensors"), *weights)
    if "pytorch" in formats and (weights := _top(files, _PYTORCH)):
        return (*_beside(files, "pytorch"), *weights)
    if "gguf" in formats and len(groups) == 1:
        return groups[0]
    if "gguf" in formats and groups:
        raise NoChoice(f"it has {len(groups)} GGUF models: name one of {_named(groups)}")
    raise NoChoice(f"it has none in {' or '.join(formats)}; {_there(files, groups)}")


def ggufs(files: Iterable[str]) -> Sequence[tuple[str, ...]]:
    """The GGUF models among files, each with its parts in order; what only goes with a model is none."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in files:
        folder, _, file = name.rpartition("/")
        if file.endswith(".gguf") and not _SIDECAR.fullmatch(file):
            shard = SHARD.fullmatch(file)
            groups[f"{folder}/{shard['name']}/{shard['count']}" if shard else name].append(name)
    return sorted(tuple(sorted(group)) for group in groups.values())


def quantization(name: str) -> str:
    """The quantization that a GGUF file's name says; empty when it says none."""
    words = _QUANT.findall(name.rpartition("/")[2].removesuffix(".gguf"))
    return words[-1] if words else ""


def _picked(groups: Sequence[tuple[str, ...]], pick: str) -> tuple[str, ...]:
    fitting = [group for group in groups if pick in group]
    if not fitting and pick.endswith(".gguf"):
        fitting = [group for group in groups if pick in [name.rpartition("/")[2] for name in group]]
    elif not fitting:
        word = re.compile(rf"(?:^|.*[-._/]){re.escape(pick)}(?:[-._/].*|$)", re.IGNORECASE)
        fitting = [group for group in groups if word.fullmatch(group[0].removesuffix(".gguf"))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise NoChoice(f"{pick!r} fits {len(fitting)} of its files: name one of {_named(fitting)}")
    raise NoChoice(f"it has no {pick!r}; {_there((), groups)}")


def _named(groups: Sequence[tuple[str, ...]]) -> str:
    names = [group[0] for group in groups]
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"{', '.join(names[:_MAX_NAMED])}{more}"


def _there(files: Iterable[str], groups: Sequence[tuple[str, ...]]) -> str:
    if groups:
        words = list(dict.fromkeys(filter(None, (quantization(group[0]) for group in groups))))
        return f"it has the GGUF models {_named(groups)}" + (
            f" (quantizations {', '.join(words[:_MAX_NAMED])})" if words else ""
        )
    suffixes = sorted({name.rpartition(".")[2] for name in files if name.endswith(_WEIGHTS)})
    return f"it has weights as {', '.join(suffixes)}" if suffixes else "it has no weights at all"


def _safetensors(files: Iterable[str]) -> tuple[str, ...]:
    """Of the top folder; where the same weights lie there twice, those that transformers reads."""
    found = _top(files, re.compile(r".+\.safetensors"))
    usual = tuple(name for name in found if not name.startswith("consolidated"))
    return usual or found


def _top(files: Iterable[str], name: re.Pattern[str]) -> tuple[str, ...]:
    return tuple(sorted(file for file in files if name.fullmatch(file) and "/" not in file))


def _beside(files: Iterable[str], kind: str) -> tuple[str, ...]:
    """What belongs to weights of a kind: settings, tokenizer, templates, code; no other weights, no pictures."""

    def belongs(name: str) -> bool:
        of = next((of for suffix, of in _INDEX_OF.items() if name.endswith(suffix)), kind)
        return of == kind and not name.lower().endswith(_USELESS) and not name.rpartition("/")[2].startswith(".")

    return tuple(sorted(name for name in files if name.count("/") <= 1 and belongs(name)))
