"""How does a container see a model that lies on this machine? Read-only, and as little else as possible."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_kitt.engine.runtime.container import Mount

_SHARD = re.compile(r"(.*-)\d{5}(-of-\d{5}\..*)")


def of_model(path: Path, inside: str) -> tuple[tuple[Mount, ...], str]:
    """What is to be mounted under ``inside``, and where the model is there.

    A folder as it is, a file with the folder that holds it. A snapshot of the hub's cache links to its blobs: the
    folder of both is mounted. Where links lead anywhere else, each file is mounted by itself.
    """
    folder = path if path.is_dir() else path.parent
    strays = [file for file in _files(path) if not file.resolve().is_relative_to(folder.resolve())]
    if not strays:
        return (Mount(str(folder), inside),), _within(inside, path.relative_to(folder))
    repository = _repository(folder)
    if repository and all(file.resolve().is_relative_to((repository / "blobs").resolve()) for file in strays):
        return (Mount(str(repository), inside),), _within(inside, path.relative_to(repository))
    mounts = tuple(Mount(str(file.resolve()), _within(inside, file.relative_to(folder))) for file in _files(path))
    return mounts, _within(inside, path.relative_to(folder))


def _repository(folder: Path) -> Path | None:
    """The folder of a repository in the hub's cache, if a folder is a snapshot of one or lies in one."""
    return next((parent.parent for parent in (folder, *folder.parents) if parent.name == "snapshots"), None)


def _files(path: Path) -> list[Path]:
    """The files of a model: those of a folder, or a file with its other shards."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    shard = _SHARD.fullmatch(path.name)
    if shard is None:
        return [path]
    return sorted(
        file for file in path.parent.iterdir() if (m := _SHARD.fullmatch(file.name)) and m.groups() == shard.groups()
    )


def _within(inside: str, relative: Path) -> str:
    return inside if relative == Path() else f"{inside}/{relative.as_posix()}"
