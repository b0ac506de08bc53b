"""Does the watchdog clean up after a session that was killed, and touch nothing else?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

from pytest_kitt.engine.watchdog import MARK, Watchdog, marked

OWNER = """
import subprocess, sys, time
from pathlib import Path
from pytest_kitt.engine.watchdog import MARK, Watchdog
import os
dog = Watchdog(sys.argv[1], Path(sys.argv[2]))
sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
p = subprocess.Popen(sleeper, env={**os.environ, MARK: sys.argv[1] + ".cell"}, start_new_session=True)
print(p.pid, dog.pid, flush=True)
time.sleep(60)
"""


def _ends(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def test_after_kill_nine_of_the_owner_nothing_is_left(tmp_path: Path) -> None:
    """Marked processes, the folder and the watchdog itself are gone."""
    folder = tmp_path / "traces"
    folder.mkdir()
    (folder / "log").write_text("x")
    command = [sys.executable, "-c", OWNER, uuid.uuid4().hex, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        engine, dog = map(int, owner.stdout.readline().split())
        owner.kill()
    assert _ends(engine)
    assert _ends(dog)
    assert not folder.exists()


def test_closing_ends_it(tmp_path: Path) -> None:
    """In the normal case the watchdog ends with its session."""
    with Watchdog(uuid.uuid4().hex, tmp_path / "none") as dog:
        pid = dog.pid
        assert Path(f"/proc/{pid}").exists()
    assert _ends(pid)


def test_what_it_is_told_to_spare_lives_on(tmp_path: Path) -> None:
    """After an orderly end too, one cell's engine goes on, the others are killed, and the folder stays."""
    mark, folder = uuid.uuid4().hex, tmp_path / "traces"
    folder.mkdir()
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    kept, other = (subprocess.Popen(sleeper, env={**os.environ, MARK: f"{mark}.{cell}"}) for cell in ("one", "two"))
    try:
        with Watchdog(mark, folder) as dog:
            dog.spare(f"{mark}.one")
        assert other.wait(10) == -9
        assert kept.poll() is None
        assert folder.exists()
    finally:
        for process in (kept, other):
            process.kill()
            process.wait()


def test_a_watchdog_that_was_killed_can_be_told_and_closed(tmp_path: Path) -> None:
    """A session does not fail for it."""
    with Watchdog(uuid.uuid4().hex, tmp_path / "none") as dog:
        os.kill(dog.pid, 9)
        dog._process.wait(10)
        dog.spare("x")


def test_only_marked_processes_are_found() -> None:
    """A longer mark that begins alike belongs to somebody else."""
    mark = uuid.uuid4().hex
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    mine = subprocess.Popen(sleeper, env={**os.environ, MARK: f"{mark}.cell"})
    other = subprocess.Popen(sleeper, env={**os.environ, MARK: f"{mark}x"})
    try:
        assert marked(mark) == [mine.pid]
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()
