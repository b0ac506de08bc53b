"""What does it cost to bring samples from workers into the store? Many small ones, and many large ones.

    python -m benchmarks.channel [--records 5000] [--megabytes 200]

Two workers each send half of the records of 1 KB, and half of the megabytes in blocks of 1 MiB, through pytest-xdist
to the controller, which writes them to SQLite. The controller's memory is read while they arrive: it may grow by no
more than 96 MB over what it was when the first one came. Exit code 0 or 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

MAX_GROWTH_MB = 96
_ITEMS = """
import time
from pathlib import Path
import pytest
from pytest_kitt import relay
from pytest_kitt.measure.results import Block

@pytest.mark.parametrize("what, size, number", [("small", 1000, {small}), ("large", 1 << 20, {large})])
def test_send(request, kitt_engine, kitt_measure, what, size, number):
    data = bytes(size)
    Path("begun").touch()
    began = time.monotonic()
    for _ in range(number):
        relay.send_samples(request.node, Block("jsonl", 1, data))
    kitt_measure("sending_s", time.monotonic() - began, unit="s", better="lower")
"""
_RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Runs the session, prints one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.channel")
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--megabytes", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="channel-") as name:
        folder = Path(name)
        (folder / "test_items.py").write_text(
            _ITEMS.format(small=asked.records // 2, large=asked.megabytes * 1_000_000 // 2 >> 20)
        )
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n2", "--kitt-engine=simulated"]
        command += ["--kitt-model=a,b", "--kitt-overlap=allowed", "test_items.py", f"--kitt-db={folder / 'kitt.db'}"]
        env = {**os.environ, "KITT_LEASES": str(folder / "leases")}
        began = time.monotonic()
        with subprocess.Popen(command, cwd=folder, env=env) as process:
            memory = _Memory(process.pid, folder / "begun")
            memory.start()
            process.wait()
            memory.join()
        took_s = time.monotonic() - began
        with opened(str(folder / "kitt.db")) as engine, engine.connect() as connection:
            results = reader.show_run(connection, "last")["results"]
    stored = sum(sample["bytes"] for result in results for sample in result["samples"])
    records = sum(len(result["samples"]) for result in results)
    sending = {f"{r['params']['what']} {r['cell']['id']}": r["metrics"][0]["value"] for r in results}
    growth = (memory.peak - memory.before) / 1e6
    print(f"{records} records, {stored / 1e6:.0f} MB stored, session {took_s:.1f} s; seconds of sending: {sending}")
    verdict = "pass" if growth <= MAX_GROWTH_MB and process.returncode == 0 else "FAIL"
    print(f"{verdict}: controller {memory.before / 1e6:.0f} MB before, {memory.peak / 1e6:.0f} MB at most")
    _RESULTS.mkdir(exist_ok=True)
    kept = {"records": records, "bytes": stored, "session_s": took_s, "sending_s": sending, "growth_mb": growth}
    (_RESULTS / "channel.json").write_text(json.dumps(kept, indent=1))
    return 0 if verdict == "pass" else 1


class _Memory(threading.Thread):
    """Reads the memory of a process, from a sign on."""

    def __init__(self, pid: int, sign: Path) -> None:
        super().__init__(daemon=True)
        self._pid, self._sign = pid, sign
        self.before = self.peak = 0

    def run(self) -> None:
        while (now := self._read()) is not None:
            if not self._sign.exists():
                self.before = now
            self.peak = max(self.peak, now)
            time.sleep(0.02)

    def _read(self) -> int | None:
        try:
            status = Path(f"/proc/{self._pid}/status").read_text()
        except OSError:
            return None
        found = status.partition("VmRSS:")[2].split()
        return int(found[0]) * 1024 if found else None


if __name__ == "__main__":
    sys.exit(main())
