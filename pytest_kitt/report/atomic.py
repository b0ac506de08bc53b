"""How is a file written so that nobody ever reads half of it? Beside its place, and then put there in one step."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of ``path`` at the end; on an error what was there stays.

    Folders on the way are made. What is there and no regular file (a pipe, ``/dev/stdout``) is written to as it is.
    """
    path = Path(os.path.realpath(path))  # the file that a link leads to, not the link
    if path.exists() and not path.is_file():
        with path.open("wb") as there:
            yield there
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".kitt-{secrets.token_hex(6)}.tmp"
    try:
        with beside.open("xb") as new:
            yield new
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
