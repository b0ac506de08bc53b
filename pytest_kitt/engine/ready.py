"""Is the engine ready, still starting, or dead? Found out in a moment, with the reason."""

from __future__ import annotations

import re
import signal
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
_UNKNOWN = "died"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")

GENERAL_FAILURES: Mapping[str, Sequence[str]] = {
    "port": ["address already in use", "port .* is (already )?in use"],
    "memory": ["out of memory", "cannot allocate memory", "std::bad_alloc"],
    "module": ["ModuleNotFoundError", "ImportError"],
    "architecture": ["exec format error"],
    "command": [r"\[FATAL tini .*(No such file|Permission denied)"],
    "arguments": ["unrecognized arguments", "invalid (int|float|choice) value", "(?m)^usage: "],
}


def wait_ready(
    probe: Callable[[], bool],
    *,
    alive: Callable[[], int | None],
    log: Path,
    timeout_s: float,
    failures: Mapping[str, Sequence[str]],
    name: str,
    on_poll: Callable[[], None] = lambda: None,
    killed_for_memory: Callable[[], bool | None] = lambda: None,
) -> None:
    """Returns when ``probe`` says yes; EngineStartError when ``alive`` has an exit code or time is up.

    ``on_poll`` is called each time that it said no.
    """
    deadline = time.monotonic() + timeout_s
    while not probe():
        on_poll()
        code = alive()
        if code is not None:
            kind, tail = diagnosed(log, failures)
            kind = "memory" if killed_for_memory() else kind
            raise EngineStartError(
                f"{name} {how_it_ended(code)} before it was ready{_meaning(kind)}", kind=kind, log_tail=tail
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


def diagnosed(log: Path, failures: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """The class of failure that a log shows, and its last lines.

    A cause that stands further up, as a worker's does where its parent complains at length, is found by the card's
    patterns and put in front; the general ones would also fit mere warnings there.
    """
    lines = _last_lines(log)
    above, tail = lines[:-_TAIL_LINES], "\n".join(lines[-_TAIL_LINES:])
    kind = classify(tail, failures)
    if kind != _UNKNOWN:
        return kind, tail
    for line in reversed(above):
        if (kind := _fitting(line, failures)) != _UNKNOWN:
            return kind, f"{line}\n[...]\n{tail}"
    return _UNKNOWN, tail


def log_tail(log: Path) -> str:
    """The last lines of a log, without control characters, bounded."""
    return "\n".join(_last_lines(log)[-_TAIL_LINES:])


def _last_lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [_ESCAPES.sub("", line)[:_LINE_CHARS] for line in text.splitlines() if line.strip()]


def classify(tail: str, failures: Mapping[str, Sequence[str]]) -> str:
    """The class of failure that the log shows: the card's own patterns first; ``died`` when none fits."""
    own = _fitting(tail, failures)
    return own if own != _UNKNOWN else _fitting(tail, GENERAL_FAILURES)


def _fitting(text: str, failures: Mapping[str, Sequence[str]]) -> str:
    for kind, patterns in failures.items():
        if any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns):
            return kind
    return _UNKNOWN


def how_it_ended(code: int) -> str:
    """An exit code in words: ``was killed by signal 9 (SIGKILL)``, ``ended with exit code 3``."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-code}"


def _meaning(kind: str) -> str:
    meanings = {
        "port": ": its port is taken",
        "memory": ": there is not enough memory",
        "model": ": it cannot load the model",
        "module": ": a Python module is missing",
        "arguments": ": it refuses an argument",
        "architecture": ": the image is for another architecture",
        "command": ": the image does not have that program",
    }
    return meanings.get(kind, "")
