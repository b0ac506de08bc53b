"""Which model does a reference name, and in which format is it? Reads a few bytes, starts and fetches nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from pytest_kitt import shipped
from pytest_kitt.errors import UserError
from pytest_kitt.model import gguf

_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(@[\w.-]+)?$")
_SAMPLES = 1024
_SAMPLE_BYTES = 64 << 10


@dataclasses.dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as far as it is known before anything starts.

    Attributes:
        ref: as the user wrote it.
        name: short name for ids and requests.
        format: gguf, safetensors, pytorch, or empty when only the server knows.
        path: file or folder on this machine, empty for a hub id or a server's name.
        digest: hash of size and samples of the content; the identity of a local file, wherever it lies.
        quantization: as the file says, empty when unknown.
        parameters: number of weights, 0 when unknown.
        toy: the tiny model that ships with the package.

    """

    ref: str
    name: str
    format: str = ""
    path: str = ""
    digest: str = ""
    quantization: str = ""
    parameters: int = 0
    toy: bool = False

    @property
    def identity(self) -> str:
        """What makes it this model: the content of a local file, else its name; never a path."""
        return self.digest or self.ref

    def facts(self) -> dict[str, Any]:
        """What the store keeps."""
        return {
            "ref": "tiny" if self.toy else self.ref,
            "name": self.name,
            "format": self.format or None,
            "quantization": self.quantization or None,
            "parameters": self.parameters or None,
            "digest": self.digest or None,
        }


def served(name: str) -> ModelRef:
    """A model that only its server knows."""
    return ModelRef(ref=name, name=short_name(name), toy=False)


def resolve(ref: str) -> ModelRef:
    """The model that a reference names; UserError when there is no such file."""
    if ref == "tiny":
        return dataclasses.replace(_file(ref, shipped.TINY_MODEL), name="tiny", toy=True)
    path = Path(ref).expanduser()
    if path.is_file():
        return _file(ref, path)
    if path.is_dir():
        return _folder(ref, path)
    if _HUB_ID.match(ref) and not ref.startswith((".", "~")) and path.suffix != ".gguf":
        return ModelRef(ref=ref, name=short_name(ref.partition("@")[0].rpartition("/")[2]))
    raise UserError(
        f"model {ref!r}: there is no such file or folder, and it is no hub id (owner/name) and not 'tiny'; "
        "check the path"
    )


def short_name(name: str) -> str:
    """A name fit for node ids: letters, digits, dot, plus, minus, underscore."""
    return re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip("-")[:80] or "model"


def _file(ref: str, path: Path) -> ModelRef:
    try:
        facts = gguf.read(path)
        digest = _sampled_digest(path)
        toy = digest == _sampled_digest(shipped.TINY_MODEL) if shipped.TINY_MODEL.is_file() else False
    except gguf.NotGguf as error:
        raise UserError(f"model {ref!r}: {error}; expected a GGUF file, or a folder of safetensors") from error
    except OSError as error:
        raise UserError(f"model {ref!r} cannot be read: {error}") from error
    return ModelRef(
        ref=path.name,
        name=short_name(path.stem),
        format="gguf",
        path=str(path.resolve()),
        digest=digest,
        quantization=facts.quantization,
        parameters=facts.parameters,
        toy=toy,
    )


def _folder(ref: str, path: Path) -> ModelRef:
    for pattern, name in (("*.safetensors", "safetensors"), ("*.bin", "pytorch")):
        files = sorted(path.glob(pattern))
        if files:
            digest = hashlib.sha256("".join(_sampled_digest(file) for file in files).encode()).hexdigest()
            return ModelRef(
                ref=path.resolve().name,
                name=short_name(path.resolve().name),
                format=name,
                path=str(path.resolve()),
                digest=digest,
            )
    raise UserError(
        f"model {ref!r}: the folder holds neither *.safetensors nor *.bin; a GGUF model is named by its file"
    )


def _sampled_digest(path: Path) -> str:
    """sha256 over the size and 1024 evenly spread samples of 64 KiB, over the whole of a file up to 64 MiB.

    Quick for 100 GB, the same wherever the file lies; first and last byte are always among the samples.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(str(size).encode())
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(file.read())
            return digest.hexdigest()
        for sample in range(_SAMPLES):
            file.seek(sample * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
