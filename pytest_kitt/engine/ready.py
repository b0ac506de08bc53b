"""Is the engine ready, still starting, or dead? Found out in a moment, with the reason."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from pytest_kitt.errors import EngineStartError

_POLL_S = 0.05
_PROBE_TIMEOUT_S = 5.0
_TAIL_LINES = 15
_TAIL_BYTES = 32 << 10
_LINE_CHARS = 300
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")

GENERAL_FAILURES: Mapping[str, Sequence[str]] = {
    "port": ["address already in use", "port .* is (already )?in use"],
    "memory": ["out of memory", "cannot allocate memory", "std::bad_alloc"],
    "module": ["ModuleNotFoundError", "ImportError"],
    "arguments": ["unrecognized arguments", "invalid (int|float|choice) value", "usage: "],
}


def wait_ready(
    probe: Callable[[], bool],
    *,
    alive: Callable[[], int | None],
    log: Path,
    timeout_s: float,
    failures: Mapping[str, Sequence[str]],
    name: str,
) -> None:
    """Returns when ``probe`` says yes; EngineStartError when ``alive`` has an exit code or time is up."""
    deadline = time.monotonic() + timeout_s
    while not probe():
        code = alive()
        if code is not None:
            tail = log_tail(log)
            kind = classify(tail, failures)
            raise EngineStartError(
                f"{name} {_how_it_ended(code)} before it was ready{_meaning(kind)}", kind=kind, log_tail=tail
            )
        if time.monotonic() > deadline:
            raise EngineStartError(
                f"{name} was not ready after {timeout_s:g} s; give it more with --kitt-start-timeout",
                kind="timeout",
                log_tail=log_tail(log),
            )
        time.sleep(_POLL_S)


def answers_200(client: httpx.Client, path: str) -> bool:
    """Whether a GET is answered with 200; refused and dropped connections are a no."""
    try:
        return client.get(path, timeout=_PROBE_TIMEOUT_S).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def log_tail(log: Path) -> str:
    """The last lines of a log, without control characters, bounded."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [_ESCAPES.sub("", line)[:_LINE_CHARS] for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-_TAIL_LINES:])


def classify(tail: str, failures: Mapping[str, Sequence[str]]) -> str:
    """The class of failure that the log shows: the card's own patterns first; ``died`` when none fits."""
    for table in (failures, GENERAL_FAILURES):
        for kind, patterns in table.items():
            if any(re.search(pattern, tail, re.IGNORECASE) for pattern in patterns):
                return kind
    return "died"


def _how_it_ended(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _meaning(kind: str) -> str:
    meanings = {
        "port": ": its port is taken",
        "memory": ": there is not enough memory",
        "model": ": it cannot load the model",
        "module": ": a Python module is missing",
        "arguments": ": it refuses an argument",
    }
    return meanings.get(kind, "")
