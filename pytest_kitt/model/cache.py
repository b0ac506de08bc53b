"""Which models of the hub are on this machine already? In the cache of huggingface_hub, without asking anybody.

The layout is that of its documentation: ``models--OWNER--NAME/`` with ``refs/REVISION`` (a file that holds a commit),
``snapshots/COMMIT/`` (links under the names of the files) and ``blobs/`` (content under its digest).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pytest_kitt.model import choice, content
from pytest_kitt.model.config import Damaged
from pytest_kitt.model.reference import HubId

COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_FILES = 10_000
_MAX_REF_BYTES = 100
_TOKENIZER = re.compile(r"(.*token.*|vocab.*|.*\.model|.*\.tiktoken|merges\.txt)", re.IGNORECASE)


def folder() -> Path:
    """The cache: HF_HUB_CACHE, else ``hub`` in HF_HOME, else in ``huggingface`` of the user's caches."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(os.path.expandvars(named)).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{caches}/huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def repository(hub: HubId) -> Path:
    """Where the cache keeps a model's files, there or not."""
    return folder() / f"models--{hub.repo.replace('/', '--')}"


def found(hub: HubId, formats: Sequence[str]) -> Path | None:
    """The file or the folder that an engine is given, if all of it is there and whole; None otherwise."""
    snapshot = _snapshot(hub)
    if snapshot is None:
        return None
    try:
        names = choice.chosen(_files(snapshot), hub.pick, formats)
        path = entry(snapshot, names)
        whole = content.of_file(path) if path != snapshot else content.of_folder(path)
    except (choice.NoChoice, Damaged, OSError):
        return None
    told = path != snapshot or any(_TOKENIZER.fullmatch(name) for name in names)  # others fetch parts of a model
    return path if whole and told else None


def entry(snapshot: Path, names: Sequence[str]) -> Path:
    """What an engine is given of a snapshot: the first file of a GGUF model, else the folder."""
    return snapshot / names[0] if names[0].endswith(".gguf") else snapshot


def commit_of(path: Path) -> str:
    """The commit in whose snapshot a path lies."""
    return next((part for part in reversed(path.parts) if COMMIT.fullmatch(part)), "")


def _snapshot(hub: HubId) -> Path | None:
    """The snapshot that a revision stands for, as far as this machine knows."""
    repo = repository(hub)
    commit = hub.revision if COMMIT.fullmatch(hub.revision) else _ref(repo / "refs" / hub.revision)
    snapshot = repo / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None


def _ref(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_REF_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return ""
    return text if COMMIT.fullmatch(text) else ""


def _files(snapshot: Path) -> list[str]:
    """The names of what a snapshot holds, as the hub spells them."""
    names: list[str] = []
    for parent, _, files in os.walk(snapshot):
        names += [(Path(parent) / file).relative_to(snapshot).as_posix() for file in files]
        if len(names) > _MAX_FILES:
            break
    return names
