"""How is a load run? The timed client is a child process: one spec in, columnar blocks out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO
from urllib.parse import urlsplit

import orjson

from pytest_kitt.engine.watchdog import MARK
from pytest_kitt.errors import InvalidMeasurement, KittError
from pytest_kitt.load.client import frames
from pytest_kitt.load.spec import ClientSpec, Ending
from pytest_kitt.measure.records import RequestTable

_STOP_S = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """Counters while a load runs: measured requests that ended, failed ones, tokens so far, requests under way."""

    done: int
    failed: int
    tokens: int
    in_flight: int


@dataclasses.dataclass(frozen=True, slots=True)
class Raw:
    """What a load left: its blocks, the table they make, and the client's own account."""

    blocks: tuple[bytes, ...]
    table: RequestTable
    ending: Ending


def run(spec: ClientSpec, *, mark: str, on_progress: Callable[[Progress], None] = lambda _: None) -> Raw:
    """Runs a spec to its end in a child process; KittError when the child could not do it."""
    blocks: list[bytes] = []
    table = RequestTable()
    with _child(mark) as (process, stdout, errors):
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a child that dies at once says why below
            process.stdin.write(orjson.dumps(dataclasses.asdict(spec)))
            process.stdin.close()
        for kind, payload in frames.read(stdout):
            if kind == frames.BLOCK:
                blocks.append(payload)
                table.extend(RequestTable.from_bytes(payload))
            elif kind == frames.PROGRESS:
                on_progress(Progress(*orjson.loads(payload)))
            elif kind == frames.ENDING:
                return Raw(tuple(blocks), table, Ending(**orjson.loads(payload)))
            elif kind == frames.FATAL:
                raise InvalidMeasurement(f"the load client could not begin: {payload.decode('utf-8', 'replace')}")
        process.wait()
        errors.seek(0)
        said = errors.read()[-2000:].decode("utf-8", "replace").strip()
        raise KittError(f"the load client ended with exit code {process.returncode} in mid-run\n{said}")


def address(url: str) -> tuple[str, int, bool, str]:
    """Host, port, whether TLS, and the path in front of the API's own, of a base address."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return parts.hostname or "", parts.port or (443 if tls else 80), tls, parts.path.rstrip("/")


@contextlib.contextmanager
def _child(mark: str) -> Iterator[tuple[subprocess.Popen[bytes], BinaryIO, BinaryIO]]:
    command = [sys.executable, "-P", "-m", "pytest_kitt.load.client"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, MARK: mark},
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            yield process, process.stdout, errors  # type: ignore[misc]  # a pipe and a file are BinaryIO in all but name
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    process.stdout.close()
    process.terminate()  # it stops cleanly; when its load has ended this changes nothing
    try:
        process.wait(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
