"""How is an engine run as a process here? Its own process group, its output in a file, killed to the last child."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pytest_kitt.engine import shared
from pytest_kitt.engine.oom import KillCounter
from pytest_kitt.engine.watchdog import MARK, kill_marked, marked
from pytest_kitt.errors import EngineStartError

_GRACE_S = 5.0
_ANNOUNCEMENT = re.compile(rb'(\{"url": ?"[^"\n]*"\})\s*$', re.MULTILINE)
# vLLM and SGLang give their workers titles, written over their environment, where the mark stands, unless told not to
_KEEP_ENVIRONMENT = {"SPT_NOENV": "1"}


@dataclasses.dataclass(slots=True)
class EngineProcess:
    """A running process.

    Attributes:
        pid: leader of its group.
        log: file with all that it prints.
        argv: its command line.
        kept: it outlives its context.
        start_s: seconds until the engine in it was ready; None before.

    """

    pid: int
    log: Path
    argv: tuple[str, ...]
    _popen: subprocess.Popen[bytes]
    _kills: KillCounter
    kept: bool = False
    start_s: float | None = None

    @property
    def what(self) -> str:
        """How sentences call it."""
        return f"process {self.pid}"

    def keep(self) -> bool:
        """Leaves it running when its context ends; False when it has ended already."""
        self.kept = self.exit_code() is None
        if self.kept:
            self._popen.returncode = 0  # it is nobody's child any more: Popen would warn of one that it never waits for
        return self.kept

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def killed_for_memory(self) -> bool | None:
        """Whether the kernel killed something in its control group for want of memory; None when nobody counts."""
        return self._kills.risen()

    def announced_url(self) -> str:
        """The address that it printed as ``{"url": ...}``; empty until it did.

        At the end of a line: another thread may have begun that line with a message of its own.
        """
        found = _ANNOUNCEMENT.search(self.log.read_bytes())
        return str(json.loads(found[1])["url"]) if found else ""


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
                env={**os.environ, **_KEEP_ENVIRONMENT, **env, MARK: mark},
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise EngineStartError(f"{argv[0]} is not installed, or not on the PATH", kind="missing") from error
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                sentence = f"{argv[0]} cannot be run: it is for another architecture, or no program"
                raise EngineStartError(sentence, kind="architecture") from error
            raise EngineStartError(f"{argv[0]} cannot be run: {error}", kind="missing") from error
    process = EngineProcess(pid=popen.pid, log=log, argv=tuple(argv), _popen=popen, _kills=KillCounter.of(popen.pid))
    try:
        yield process
    finally:
        if not process.kept:
            _stop(popen, mark)


def _stop(popen: subprocess.Popen[bytes], mark: str) -> None:
    left = shared.mapped(marked(mark))
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGTERM)
            os.killpg(popen.pid, signal.SIGCONT)  # what is stopped hears nothing
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(timeout=_GRACE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        kill_marked(mark)
        popen.wait()
        shared.remove(left)
