"""Who cleans up when the session is killed? A small process of its own that outlives it by a moment.

It holds the read end of a pipe whose other end only the session holds. When the session dies, however it dies, the
pipe ends, and every process that carries the session's mark in its environment is killed (grandchildren inherit a mark,
and it survives setsid), and every container that carries it in a label removed, but what the session has told it to
spare. It is started with the first engine, in a process group of its own, and uses the standard library alone:
``python -I -S watchdog.py MARK FOLDER``; over the pipe come lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

if __name__ == "__main__":  # without site-packages the package that this file is in is not on the path
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from pytest_kitt.engine import reaper, shared
from pytest_kitt.engine.dockerd import Docker

MARK = "KITT_MARK"
_POLL_S = 0.5
_SWEEP_S = 2.0
_LOOKS = 2
_LATE_S = 5.0  # a container whose creation was asked for just before the session was killed appears within these
_CLOSE_S = 20.0
_PR_SET_PDEATHSIG = 1


class Watchdog:
    """The session's side: starts the process and lets it go; a context manager."""

    def __init__(self, mark: str, folder: Path) -> None:
        command = [sys.executable, "-I", "-S", __file__, mark, str(folder)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still watches."""
        return self._process.poll() is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def spare(self, mark: str) -> None:
        """Lets what carries this longer mark live on after the session, and the folder stay."""
        self._tell(spare=mark)

    def mind(self, docker: Docker) -> None:
        """Lets containers be removed too, those of this daemon; to be said before the first is created."""
        self._tell(docker=[docker.host, docker.tls])

    def close(self) -> None:
        """Ends the watch; what still carries the mark is killed, and the folder removed, unless it is to be spared."""
        self._tell(over=True)
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=_CLOSE_S)
        except BaseException as error:
            self._process.kill()
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise

    def _tell(self, **words: Any) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # a watchdog that was killed spares everything
                os.write(self._process.stdin.fileno(), f"{json.dumps(words)}\n".encode())


def end_with_parent() -> None:
    """Lets this process be killed when the one that started it dies, whatever it is doing (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died in between
        os.kill(os.getpid(), signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """Ids of all processes of this user whose environment says KITT_MARK=mark or KITT_MARK=mark.<something>."""
    pids = (int(process.name) for process in Path("/proc").iterdir() if process.name.isdigit())
    return [pid for pid in pids if pid != os.getpid() and carries(pid, mark)]


def carries(pid: int, mark: str) -> bool:
    """Whether the environment of a process says KITT_MARK=mark or KITT_MARK=mark.<something>."""
    wanted = f"{MARK}={mark}".encode()
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word == wanted or word.startswith(wanted + b".") for word in environment)


def kill_marked(mark: str, within_s: float = _SWEEP_S, *, spare: str = "") -> None:
    """Kills every marked process, again until two looks find none.

    A process may fork while it is being looked for, and one that is just starting has no environment for a moment.

    Those that carry the mark ``spare`` live on. What the killed ones leave in /dev/shm is removed.
    """
    deadline = time.monotonic() + within_s
    left: set[shared.Segment] = set()
    looks = _LOOKS
    while looks:
        pids = [p for p in marked(mark) if not (spare and carries(p, spare))]
        looks = _LOOKS if pids else looks - 1
        left |= shared.mapped(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:  # only now: on a busy machine the first look alone may take longer
            break
        time.sleep(0.01)
    shared.remove(left)


def _watch(mark: str, folder: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    told = _listen(os.getppid())
    spared = str(told.get("spare", ""))
    kill_marked(mark, spare=spared)
    if "docker" in told:
        _remove_containers(Docker(*told["docker"]), mark, spared, late=not told.get("over"))
    if not spared:
        shutil.rmtree(folder, ignore_errors=True)


def _listen(owner: int) -> dict[str, Any]:
    """All that the session says until it ends."""
    told: dict[str, Any] = {}
    rest = b""
    while os.getppid() == owner:
        readable, _, _ = select.select([0], [], [], _POLL_S)
        if not readable:
            continue
        said = os.read(0, 4096)
        if not said:
            break
        *lines, rest = (rest + said).split(b"\n")
        for line in lines:
            told |= json.loads(line)
    return told


def _remove_containers(docker: Docker, mark: str, spared: str, *, late: bool) -> None:
    """Removes what is there, and after a kill also what Docker was just about to create."""
    quiet_since = time.monotonic()
    while True:
        if reaper.remove_marked(docker, mark, spare=spared):
            quiet_since = time.monotonic()
        elif not late or time.monotonic() - quiet_since > _LATE_S:
            return
        time.sleep(0.2)


if __name__ == "__main__":
    _watch(*sys.argv[1:3])
