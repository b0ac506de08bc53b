"""Is what killed engines leave in shared memory removed, and nothing else?"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kitt.engine import shared
from pytest_kitt.engine.runtime.process import running
from pytest_kitt.engine.watchdog import MARK, kill_marked

FOLDER = Path("/dev/shm")
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="this system has no /dev/shm")
# makes a segment, or maps the one that is named, and holds it; the tracker of one that it made has its mark too
HOLDER = """
import mmap, signal, sys, time
from multiprocessing.shared_memory import SharedMemory
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 1:
    name = sys.argv[1]
    with open(f"/dev/shm/{name}", "r+b") as file:
        held = mmap.mmap(file.fileno(), 0)
else:
    held = SharedMemory(create=True, size=4096)
    name = held.name
print(name, flush=True)
time.sleep(600)
"""
COMMAND = [sys.executable, "-c", HOLDER]


@contextlib.contextmanager
def holder(mark: str, *args: str) -> Iterator[str]:
    """A process with a mark that has a segment mapped; gives the segment's name."""
    env = {**os.environ, MARK: mark}
    with subprocess.Popen([*COMMAND, *args], env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def mark() -> Iterator[str]:
    """A mark; what carries it, or one that begins so, ends with the test."""
    made = uuid.uuid4().hex
    yield made
    kill_marked(made)


@pytest.fixture
def segment() -> Iterator[Path]:
    """A segment of this process's."""
    file = FOLDER / f"psm_{secrets.token_hex(4)}"
    file.write_bytes(bytes(4096))
    yield file
    file.unlink(missing_ok=True)


def test_what_a_killed_engine_had_is_removed(mark: str) -> None:
    """Its tracker, which would have done it, is killed with it."""
    with holder(mark) as name:
        assert (FOLDER / name).exists()
        kill_marked(mark)
        assert not (FOLDER / name).exists()


def test_what_somebody_else_has_stays(mark: str, segment: Path) -> None:
    """Shared with one that lives on, which is to be spared or carries no mark of ours at all."""
    with segment.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        with holder(f"{mark}.kept") as kept, holder(f"{mark}.dies", segment.name), holder(f"{mark}.dies", kept):
            kill_marked(mark, spare=f"{mark}.kept")
            assert (FOLDER / kept).exists()
            kill_marked(mark)
            assert not (FOLDER / kept).exists()
        assert segment.exists()


def test_an_engine_that_does_not_end_by_itself_leaves_nothing(mark: str, tmp_path: Path) -> None:
    """It is killed before anybody looks for its children."""
    with running(COMMAND, env={}, log=tmp_path / "log", mark=mark):
        while not (name := (tmp_path / "log").read_text().strip()):
            time.sleep(0.01)
        assert (FOLDER / name).exists()
    assert not (FOLDER / name).exists()


def test_another_file_of_that_name_is_not_its_own(segment: Path) -> None:
    """A container has a /dev/shm of its own, in which the name may be the same: device and inode are not."""
    said = segment.stat()
    shared.remove({(segment.name, said.st_dev, said.st_ino + 1), (segment.name, said.st_dev + 1, said.st_ino)})
    assert segment.exists()
    shared.remove({(segment.name, said.st_dev, said.st_ino)})
    assert not segment.exists()
