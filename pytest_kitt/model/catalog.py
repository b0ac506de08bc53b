"""Which models lie in a folder? GGUF files by their first bytes, folders of weights by config.json; bounded."""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pytest_kitt.model import content
from pytest_kitt.model.config import Damaged
from pytest_kitt.model.content import Content
from pytest_kitt.settings import home

FOLDER_ENV = "KITT_MODEL_DIR"
_MAX_FILES = 100_000
_MAX_DEPTH = 30
_MAGIC, _MAX_VERSION = b"GGUF", 99


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One model, or what looks like one.

    Attributes:
        path: what ``--kitt-model`` takes: a file, the first of several, or a folder.
        format: gguf, safetensors, pytorch, exl2, exl3 or mlx.
        architecture: as the model says; empty when it does not.
        quantization: likewise.
        parameters: number of weights; 0 when unknown.
        context: tokens that it was trained for; 0 when unknown.
        size_bytes: of all of its files.
        problem: why it cannot be used; empty when nothing is wrong.

    """

    path: Path
    format: str
    size_bytes: int
    architecture: str = ""
    quantization: str = ""
    parameters: int = 0
    context: int = 0
    problem: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Catalog:
    """What lies in a folder.

    Attributes:
        folder: where was looked.
        models: by path.
        complete: False when the folder holds more files than were looked at.

    """

    folder: Path
    models: Sequence[Found]
    complete: bool


def folder() -> Path:
    """Where models lie: KITT_MODEL_DIR, else ``models`` in the user's folder."""
    named = os.environ.get(FOLDER_ENV)
    return Path(named).expanduser() if named else home() / "models"


def find(root: Path, *, limit: int = _MAX_FILES) -> Catalog:
    """Looks through a folder and all below it, links followed, each file and folder once."""
    walk = _Walk(limit)
    found: list[Found] = []
    for path, files in walk.folders(root):
        found += _in_folder(path, files)
    return Catalog(root, sorted(found, key=lambda f: str(f.path)), complete=not walk.stopped)


class _Walk:
    """A walk that ends: every folder and every file is met once, at most so many files and so deep."""

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.stopped = False
        self._met: set[tuple[int, int]] = set()

    def folders(self, root: Path) -> Iterator[tuple[Path, dict[Path, int]]]:
        """Each folder with the sizes of its files; named files come before those that have no suffix."""
        waiting = [(root, 0)]
        later: list[tuple[Path, os.stat_result]] = []
        while waiting and not self.stopped:
            path, depth = waiting.pop()
            files: dict[Path, int] = {}
            for entry, about in self._entries(path):
                if stat.S_ISDIR(about.st_mode):
                    if depth < _MAX_DEPTH and self._is_new(about):
                        waiting.append((entry, depth + 1))
                elif not entry.suffix:
                    later.append((entry, about))  # a cache keeps such, and links with names to them
                elif self._is_new(about):
                    files[entry] = about.st_size
            yield path, files
        for entry, about in later:
            if self._is_new(about):
                yield entry.parent, {entry: about.st_size}

    def _entries(self, path: Path) -> Iterator[tuple[Path, os.stat_result]]:
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            if self.left == 0:
                self.stopped = True
                return
            self.left -= 1
            try:
                about = entry.stat()
            except OSError:  # a link that leads nowhere
                continue
            if stat.S_ISDIR(about.st_mode) or stat.S_ISREG(about.st_mode):
                yield Path(entry.path), about

    def _is_new(self, about: os.stat_result) -> bool:
        inode = (about.st_dev, about.st_ino)
        new = inode not in self._met
        self._met.add(inode)
        return new


def _in_folder(path: Path, files: dict[Path, int]) -> Iterator[Found]:
    ggufs = {file: size for file, size in files.items() if file.suffix == ".gguf" or _begins_as_gguf(file)}
    yield from _ggufs(ggufs)
    weights = {file: size for file, size in files.items() if file not in ggufs and content.is_weights(file)}
    if weights:
        kind = "safetensors" if any(file.suffix == ".safetensors" for file in weights) else "pytorch"
        yield _found(path, kind, sum(weights.values()), lambda: content.of_weights(path, weights))


def _begins_as_gguf(path: Path) -> bool:
    """Whether magic and a version are there; a text may begin with the same four letters."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        return False
    return head[:4] == _MAGIC and 1 <= int.from_bytes(head[4:], "little") <= _MAX_VERSION


def _ggufs(files: dict[Path, int]) -> Iterator[Found]:
    """Single files, and those in parts under the name of the first."""
    parts: defaultdict[str, list[Path]] = defaultdict(list)
    for path in files:
        shard = content.SHARD.fullmatch(path.name)
        parts[f"{shard['name']}/{shard['count']}" if shard else path.name].append(path)
    for paths in parts.values():
        first = min(paths)
        yield _found(first, "gguf", sum(files[path] for path in paths), functools.partial(content.of_file, first))


def _found(path: Path, kind: str, size: int, read: Callable[[], Content]) -> Found:
    """A model as it is read, or with the reason why it cannot be."""
    try:
        model = read()
    except Damaged as error:
        return Found(path, kind, size, problem=str(error).removeprefix(f"{path.name} "))  # the path stands beside it
    except OSError as error:
        return Found(path, kind, size, problem=f"cannot be read: {error.strerror}")
    return Found(
        path,
        model.format,
        model.size_bytes,
        architecture=model.architecture,
        quantization=model.quantization,
        parameters=model.parameters,
        context=model.context,
    )
