"""Does a run survive being killed again and again? Random kills, then resumed to its end, and compared.

    python -m benchmarks.soak [--kills 100] [--seed 1]

Each round kills one process of a session (pytest itself, a worker, a client, an engine, the watchdog) at a random
moment with a random signal, with and without workers, and goes on with the run by --kitt-resume until it ends by
itself. Then nothing may be alive, the store must be sound, and the run must hold the results of one that was left in
peace: the same keys with the same outcomes. Exit code 0 or 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

_ITEMS = """
import pytest

@pytest.mark.parametrize("level", [1, 2, 4])
def test_load(kitt_load, level):
    kitt_load(f"closed:{level}", "synthetic:16:16", "requests:12")

def test_questions(kitt_evaluate):
    kitt_evaluate(concurrency=2, limit=20)

def test_plain(kitt_measure):
    kitt_measure("answers", 3, unit="count", better="higher")
"""
_ENGINES = (
    "--kitt-engine=simulated",
    "--kitt-model=a,b,c",
    "--kitt-engine-arg=ttft_ms=5",
    "--kitt-engine-arg=itl_ms=2",
)
_GONE_WITHIN_S = 2.0
_SESSION_S = 120.0
_MAX_RESUMES = 20
_RESULTS = Path(__file__).with_name("results")
_VICTIMS = {  # by a part of the command line
    "pytest": "",
    "worker": "",
    "client": "load.client",
    "engine": "engine.simulated",
    "watchdog": "watchdog.py",
}


class Round:
    """One run in a folder of its own, however often it is killed and resumed."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.workers = folder, workers
        self.mark = uuid.uuid4().hex
        (folder / "test_soak.py").write_text(_ITEMS)

    def start(self, *, resume: bool) -> subprocess.Popen[bytes]:
        """A session, in its own process group."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_ENGINES, "test_soak.py"]
        command += [f"-n{self.workers}"] if self.workers else []
        command += ["--kitt-resume=last"] if resume else []
        env = {
            **os.environ,
            "SOAK": self.mark,
            "KITT_HOME": str(self.folder / "home"),
            "KITT_LEASES": str(self.folder / "leases"),
            "KITT_CERTIFY": "record",
        }
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def alive(self) -> dict[int, str]:
        """Every process that this round has started, however many times removed."""
        found = {}
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if process.name.isdigit() and f"SOAK={self.mark}".encode() in (process / "environ").read_bytes():
                    found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def leaks(self) -> dict[int, str]:
        """What lives longer than it may."""
        deadline = time.monotonic() + _GONE_WITHIN_S
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def results(self) -> dict[str, str]:
        """Outcome by key; AssertionError when the store is not sound."""
        with contextlib.closing(sqlite3.connect(self.folder / "home" / "kitt.db")) as db:
            (sound,) = db.execute("pragma integrity_check").fetchone()
            assert sound == "ok", sound
            (runs,) = db.execute("select count(*) from runs").fetchone()
            assert runs == 1, f"{runs} runs where there should be one"
            rows = db.execute("select key, outcome from results order by id").fetchall()
        return dict(rows)

    def has_run(self) -> bool:
        """Whether a run was stored before the first kill."""
        path = self.folder / "home" / "kitt.db"
        if not path.exists():
            return False
        with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.OperationalError):
            return bool(db.execute("select count(*) from runs").fetchone()[0])
        return False


def main() -> int:
    """Runs the rounds and prints one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        peace = Round(Path(folder), 0)
        peace.start(resume=False).wait(_SESSION_S)
        expected = peace.results()
        assert peace.leaks() == {}
    print(f"left in peace: {len(expected)} results, {dict(Counter(expected.values()))}")
    kills: Counter[str] = Counter()
    faults: list[str] = []
    number = 0
    while sum(kills.values()) < asked.kills:
        number += 1
        faults += [f"round {number}: {fault}" for fault in _round(rng, expected, kills, asked.kills)]
        print(f"round {number}: {sum(kills.values())} kills, {len(faults)} faults", flush=True)
    for fault in faults:
        print(fault)
    print(f"{sum(kills.values())} kills in {number} runs ({dict(kills)}): {'FAIL' if faults else 'pass'}")
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "soak.json").write_text(json.dumps({"kills": kills, "runs": number, "faults": faults}, indent=1))
    return 1 if faults else 0


def _round(rng: random.Random, expected: dict[str, str], kills: Counter[str], most: int) -> list[str]:
    faults = []
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name:
        run = Round(Path(name), rng.choice([0, 2]))
        to_kill = rng.randint(1, 4)
        for _resume in range(_MAX_RESUMES):
            process = run.start(resume=run.has_run())
            if to_kill and sum(kills.values()) < most:
                to_kill -= 1
                kills[_kill(rng, run, process)] += 1
            code = process.wait(_SESSION_S)
            if left := run.leaks():
                faults.append(f"left alive: {left}")
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if code == 0:
                break
        try:
            found = run.results()
        except (AssertionError, sqlite3.Error) as error:
            return [*faults, f"store: {error}"]
        if found != expected:
            faults.append(f"results differ after {_resume} resumes: {_difference(found, expected)}")
            faults.append((run.folder / "output").read_text(errors="replace")[-3000:])
    return faults


def _kill(rng: random.Random, run: Round, process: subprocess.Popen[bytes]) -> str:
    """Waits for a random moment, kills somebody; who and how."""
    time.sleep(rng.uniform(0.2, 6.0))
    who = rng.choice(sorted(_VICTIMS))
    how = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    alive = run.alive()
    pids = [pid for pid, line in alive.items() if _VICTIMS[who] and _VICTIMS[who] in line]
    if who == "worker":
        pids = [pid for pid, line in alive.items() if "exec(eval(sys.stdin.readline()" in line]
    pid = rng.choice(pids) if pids else process.pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how if pid == process.pid else signal.SIGKILL)
    return f"{who} SIGKILL" if pids else f"pytest {how.name}"


def _difference(found: dict[str, str], expected: dict[str, str]) -> str:
    wrong = {key: (found.get(key), outcome) for key, outcome in expected.items() if found.get(key) != outcome}
    return f"missing or other {wrong}, further {sorted(found.keys() - expected.keys())}"


if __name__ == "__main__":
    sys.exit(main())
