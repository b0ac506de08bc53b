"""How is the truth server built and run? Compiled once per source, started on a free port, killed at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.compiled import binary

_SOURCE = Path(__file__).with_name("sse_truth.c")
_START_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Truth:
    """A running server: its address, its log, its process id."""

    url: str
    log: Path
    pid: int


def available() -> bool:
    """Whether it can be compiled here."""
    return shutil.which("gcc") is not None


@contextlib.contextmanager
def running(*options: str) -> Iterator[Truth]:
    """The server with some options; its log is complete when the block has ended or no request is active."""
    with tempfile.TemporaryDirectory(prefix="truth-") as folder:
        log, port = Path(folder) / "log", _free_port()
        command = [str(binary(_SOURCE)), "--port", str(port), "--log", str(log), *options]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                _wait(url, process)
                yield Truth(url, log, process.pid)
            finally:
                process.kill()


def help_text() -> str:
    """What it says of its options and faults."""
    return subprocess.run([str(binary(_SOURCE)), "--help"], check=True, capture_output=True, text=True).stdout


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{url}/v1/models", timeout=1).close()
            return
        time.sleep(0.02)
    raise RuntimeError("the truth server did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
