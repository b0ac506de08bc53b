"""How do tests run a double and see what it was asked?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.doubles.server import LOG_ENV

PATIENCE_S = 30.0
DOUBLES = Path(__file__).resolve().parent
STARTS = {
    "vllm": (
        "serve",
        "/models/tiny",
        "--served-model-name=tiny",
        "--host=127.0.0.1",
        "--port=0",
        "--max-model-len=2048",
    ),
    "sglang": ("--model-path=/models/tiny", "--served-model-name=tiny", "--port=0", "--context-length=2048"),
    "tgi": ("--model-id=/models/tiny", "--hostname=127.0.0.1", "--port=0", "--max-total-tokens=2048"),
    "ollama": ("serve",),
    "knowing": (),
    "tabby": ("--model-dir=/models", "--model-name=tiny", "--port=0", "--max-seq-len=2048", "--disable-auth=true"),
}
_READY = {"ollama": "/"}


@dataclass(frozen=True)
class Double:
    """A double that runs.

    Attributes:
        process: it.
        url: where it listens.
        account: file with what it was asked.
        output: file with what it printed.

    """

    process: subprocess.Popen[bytes]
    url: str
    account: Path
    output: Path

    def asked(self, path: str = "") -> list[dict[str, Any]]:
        """What it has written down, or of that the bodies of requests to a path."""
        entries = _entries(self.account)
        return [entry["body"] for entry in entries if entry.get("path") == path] if path else entries


@contextmanager
def running(
    name: str, folder: Path, *more: str, ready: bool = True, env: Mapping[str, str] | None = None
) -> Iterator[Double]:
    """Starts a double on a port of its own and waits until it listens, and is ready."""
    folder.mkdir(exist_ok=True)
    account, output = folder / "asked.jsonl", folder / "output.log"
    given = {
        **os.environ,
        "OLLAMA_HOST": "127.0.0.1:0",
        "KITT_DOUBLE_HEALTH_S": "0.05",
        **(env or {}),
        LOG_ENV: str(account),
    }
    command = [sys.executable, str(DOUBLES), name, *STARTS[name], *more]
    with (
        output.open("wb") as file,
        subprocess.Popen(command, stderr=file, stdout=file, env=given, cwd=folder) as process,
    ):
        try:
            url = _listens(process, account)
            if ready:
                _wait(url + _READY.get(name, "/health"))
            yield Double(process, url, account, output)
        finally:
            process.kill()


def _listens(process: subprocess.Popen[bytes], account: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"it ended with {process.returncode}"
        for entry in _entries(account):
            if "listens" in entry:
                return f"http://127.0.0.1:{entry['listens'][1]}"
        time.sleep(0.02)
    raise TimeoutError("the double does not listen")


def _wait(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if httpx.get(url, trust_env=False).status_code == httpx.codes.OK:
            return
        time.sleep(0.02)
    raise TimeoutError(f"{url} is not ready")


def _entries(account: Path) -> list[dict[str, Any]]:
    if not account.exists():
        return []
    return [
        json.loads(line) for line in account.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"
    ]
