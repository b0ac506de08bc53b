"""How is an engine run as a process here? Its own process group, its output in a file, killed to the last child."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pytest_kitt.engine.watchdog import MARK, kill_marked
from pytest_kitt.errors import EngineStartError

_GRACE_S = 5.0
_ANNOUNCEMENT = b'{"url":'


@dataclasses.dataclass(slots=True)
class EngineProcess:
    """A running process.

    Attributes:
        pid: leader of its group.
        log: file with all that it prints.
        argv: its command line.

    """

    pid: int
    log: Path
    argv: tuple[str, ...]
    _popen: subprocess.Popen[bytes]

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def announced_url(self) -> str:
        """The address that it printed as ``{"url": ...}``; empty until it did."""
        for line in self.log.read_bytes().splitlines():
            if line.startswith(_ANNOUNCEMENT):
                return str(json.loads(line)["url"])
        return ""


@contextlib.contextmanager
def running(argv: Sequence[str], *, env: Mapping[str, str], log: Path, mark: str) -> Iterator[EngineProcess]:
    """Starts a command and ends it, with all of its children, whatever happens in between."""
    with log.open("wb") as output:
        try:
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env, MARK: mark},
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise EngineStartError(f"{argv[0]} is not installed, or not on the PATH", kind="missing") from error
        except OSError as error:
            raise EngineStartError(f"{argv[0]} cannot be run: {error}", kind="missing") from error
    try:
        yield EngineProcess(pid=popen.pid, log=log, argv=tuple(argv), _popen=popen)
    finally:
        _stop(popen, mark)


def _stop(popen: subprocess.Popen[bytes], mark: str) -> None:
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(timeout=_GRACE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        kill_marked(mark)
        popen.wait()
