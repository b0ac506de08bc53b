"""Which model does a reference name, and in which format is it? Reads a few bytes, starts and fetches nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pytest_kitt import shipped
from pytest_kitt.errors import UserError, why
from pytest_kitt.model import choice, content
from pytest_kitt.model.config import Damaged
from pytest_kitt.model.content import Content
from pytest_kitt.model.memory import UNKNOWN, Shape

HUB, OLLAMA, LIST = "hf:", "ollama:", "@"
_NAME = r"[A-Za-z0-9_](?:[\w.-]*\w)?"
_HUB_ID = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>\w[\w./+-]*))?(?::(?P<pick>.+))?", re.ASCII)
_OLLAMA_TAG = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*){0,3}(?::\w[\w.-]*)?", re.ASCII)
_FORM = "hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME:FILE-OR-QUANTIZATION"
_MAX_LIST_BYTES = 1 << 20
_MAX_LISTED = 1000
_MAX_NAMED = 10
_SAMPLES = 1024
_SAMPLE_BYTES = 64 << 10


@dataclasses.dataclass(frozen=True, slots=True)
class HubId:
    """A model on the Hugging Face hub.

    Attributes:
        repo: owner/name.
        revision: branch, tag or commit.
        pick: a GGUF file of it, or the quantization of one; empty for all that makes the model.

    """

    repo: str
    revision: str = "main"
    pick: str = ""

    def __str__(self) -> str:
        """As a reference says it."""
        revision = f"@{self.revision}" if self.revision != "main" else ""
        return f"{self.repo}{revision}{f':{self.pick}' if self.pick else ''}"


@dataclasses.dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as far as it is known; of one on the hub only its name is, until its files are here.

    Attributes:
        ref: as the user wrote it; of a path its last part, of others without ``hf:`` or ``ollama:``.
        name: short name for ids and requests.
        format: gguf, safetensors, pytorch, exl2, exl3, mlx or ollama; empty when only the server or the hub knows.
        packing: how weights in safetensors are packed: gptq, awq, fp8, bitsandbytes, ...; empty when they are not.
        path: file or folder on this machine, empty for a hub id, an Ollama tag or a server's name.
        digest: hash of size and samples of the content; the identity of a local file, wherever it lies.
        quantization: as the file says, empty when unknown.
        parameters: number of weights, 0 when unknown.
        size_bytes: of the files that hold them, 0 when unknown.
        architecture: as the file says, empty when unknown.
        context: tokens that it was trained for, 0 when unknown.
        shape: what decides how large its KV cache is.
        hub: where it is on the hub, None for any other.
        commit: what its revision on the hub stands for; empty until its files are here.
        toy: the tiny model that ships with the package.

    """

    ref: str
    name: str
    format: str = ""
    packing: str = ""
    path: str = ""
    digest: str = ""
    quantization: str = ""
    parameters: int = 0
    size_bytes: int = 0
    architecture: str = ""
    context: int = 0
    shape: Shape = UNKNOWN
    hub: HubId | None = None
    commit: str = ""
    toy: bool = False

    @property
    def identity(self) -> str:
        """What makes it this model: the content of a local file, else its name; never a path.

        A model of the hub keeps the name that was asked for when its files are here; its commit is among the facts.
        """
        return self.ref if self.hub else self.digest or self.ref

    @property
    def formats(self) -> tuple[str, ...]:
        """The names by any of which an engine's card may say that it loads this model."""
        return tuple(name for name in (self.format, self.packing) if name)

    def facts(self) -> dict[str, Any]:
        """What the store keeps."""
        return {
            "ref": "tiny" if self.toy and not self.hub else self.ref,
            "name": self.name,
            "format": self.format or None,
            "quantization": self.quantization or None,
            "parameters": self.parameters or None,
            "digest": self.digest or None,
            "size_bytes": self.size_bytes or None,
            "architecture": self.architecture or None,
            "context": self.context or None,
            "revision": f"{self.hub.repo}@{self.commit}" if self.hub and self.commit else None,
        }


def served(name: str) -> ModelRef:
    """A model that only its server knows."""
    return ModelRef(ref=name, name=short_name(name), toy=False)


def expanded(refs: Iterable[str]) -> tuple[str, ...]:
    """References with each list (``@FILE``) replaced by what it holds; UserError when one cannot be read."""
    each = (_listed(Path(ref[1:]).expanduser()) if ref.startswith(LIST) else (ref,) for ref in refs)
    return tuple(dict.fromkeys(ref for group in each for ref in group))


def resolve(ref: str) -> ModelRef:
    """The model that a reference names; UserError when there is no such file, or none that can be used."""
    if ref == "tiny":
        return dataclasses.replace(of_path(ref, shipped.TINY_MODEL), name="tiny", toy=True)
    if ref.startswith(HUB):
        return _on_hub(ref, ref.removeprefix(HUB))
    if ref.startswith(OLLAMA):
        return _of_ollama(ref, ref.removeprefix(OLLAMA))
    path = Path(ref).expanduser()
    if path.exists():
        return of_path(ref, path)
    if _HUB_ID.fullmatch(ref) and ":" not in ref and path.suffix != ".gguf":
        return _on_hub(ref, ref)
    raise UserError(
        f"model {ref!r}: there is no such file or folder, and it is no hub id (owner/name) and not 'tiny'; "
        "check the path"
    )


def of_path(ref: str, path: Path) -> ModelRef:
    """The model in a file or a folder; UserError says what is wrong with it."""
    try:
        found = content.of_file(path) if path.is_file() else _in_folder(path)
        digest = _digest(found)
        shipped_one = found.format == "gguf" and shipped.TINY_MODEL.is_file()
        toy = found.toy or (shipped_one and digest == _sampled_digest(shipped.TINY_MODEL))
    except Damaged as error:
        cure = "" if ";" in str(error) else "; fetch it again, or name another"
        raise UserError(f"model {ref!r}: {error}{cure}") from error
    except OSError as error:
        raise UserError(f"model {ref!r} cannot be read: {why(error)}; check the path") from error
    whole = Path(os.path.abspath(found.path))  # noqa: PTH100 - links keep their names: a cache has content under digests
    shard = content.SHARD.fullmatch(whole.name)
    stem = shard["name"] if shard else whole.stem if found.format == "gguf" else whole.name
    return ModelRef(
        ref=whole.name,
        name=short_name(stem),
        format=found.format,
        packing=found.packing,
        path=str(whole),
        digest=digest,
        quantization=found.quantization,
        parameters=found.parameters,
        size_bytes=found.size_bytes,
        architecture=found.architecture,
        context=found.context,
        shape=found.shape,
        toy=toy,
    )


def short_name(name: str) -> str:
    """A name fit for node ids: letters, digits, dot, plus, minus, underscore."""
    return re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip("-")[:80] or "model"


def _listed(path: Path) -> Sequence[str]:
    """The references in a list, paths that are relative to it made whole."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_LIST_BYTES + 1)
        lines = [line.strip() for line in text.decode("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"model list {path} cannot be read: {why(error)}; check the path behind the @") from error
    refs = [line for line in lines if line and not line.startswith("#")]
    if len(text) > _MAX_LIST_BYTES or len(refs) > _MAX_LISTED:
        raise UserError(f"model list {path} is too long: at most {_MAX_LISTED} references, one a line")
    if not refs:
        raise UserError(f"model list {path} names no model; write one reference a line")
    for ref in refs:
        if ref.startswith(LIST):
            raise UserError(f"model list {path}: {ref!r} is a list in a list; name its models here instead")
    return [_from(path.parent, ref) for ref in refs]


def _from(folder: Path, ref: str) -> str:
    """A reference in a list in a folder: a relative path begins there, all else means what it means anywhere."""
    if ref == "tiny" or ref.startswith((HUB, OLLAMA, "~", "/")):
        return ref
    path = folder / ref
    return str(path) if path.exists() or ref.startswith((".", os.sep)) else ref


def _on_hub(ref: str, text: str) -> ModelRef:
    found = _HUB_ID.fullmatch(text)
    if not found or ".." in text or "--" in found["repo"] or not text.isprintable() or text.endswith(("/", "@")):
        raise UserError(f"model {ref!r}: this is no model of the hub; expected {_FORM}")
    hub = HubId(found["repo"], found["revision"] or "main", found["pick"] or "")
    name = hub.repo.rpartition("/")[2]
    if hub.pick:
        file = hub.pick.rpartition("/")[2]
        shard = content.SHARD.fullmatch(file)
        is_file = file.endswith(".gguf")
        name = shard["name"] if shard else file.removesuffix(".gguf") if is_file else f"{name}-{hub.pick}"
    return ModelRef(
        ref=str(hub),
        name=short_name(name),
        format="gguf" if hub.pick else "",
        hub=hub,
    )


def _of_ollama(ref: str, tag: str) -> ModelRef:
    if not _OLLAMA_TAG.fullmatch(tag):
        raise UserError(f"model {ref!r}: this is no model of Ollama; expected ollama:NAME or ollama:NAME:TAG")
    return ModelRef(ref=tag, name=short_name(tag), format="ollama")


def _in_folder(folder: Path) -> Content:
    """The weights of a folder, or the one GGUF model that lies in it; Damaged when there is neither."""
    if found := content.of_folder(folder):
        return found
    ggufs = choice.ggufs(path.name for path in folder.iterdir() if path.is_file())
    if len(ggufs) == 1:
        return content.of_file(folder / ggufs[0][0])
    if ggufs:
        names = ", ".join(group[0] for group in ggufs[:_MAX_NAMED])
        raise Damaged(f"the folder holds {len(ggufs)} GGUF models; name one of them: {names}")
    raise Damaged("the folder holds neither *.safetensors nor *.bin nor *.gguf; name the one that does")


def _digest(found: Content) -> str:
    """Of one file its own, of several that of theirs together."""
    if found.format == "gguf" and len(found.files) == 1:
        return _sampled_digest(found.files[0])
    return hashlib.sha256("".join(_sampled_digest(file) for file in found.files).encode()).hexdigest()


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
