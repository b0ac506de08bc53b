"""How much memory does an engine have? That of all of its processes together, looked at a few times a second.

Where the kernel tells how much of a process is shared, each page counts once, however many processes have it: that is
what the engine has resident. PSS alone does not say so, for it gives a part of each page to strangers: the same library
in other programs, the same model file in another engine. Where the kernel does not tell, the RSS of all processes is
added up, which counts shared pages several times. Both have the pages of files in them, a mapped model for example;
what is anonymous has none. Memory of GPUs is in neither.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pytest_kitt.errors import InvalidMeasurement
from pytest_kitt.measure.growth import Slope, growth_per_request
from pytest_kitt.measure.stats import percentile

PAUSE_S = 0.1
_SHARE = 0.1  # of the time at most is spent looking: to count the pages of a big engine holds it up
_MIN_LOOKS = 3
_PATIENCE_S = 30.0
_PARENT, _SESSION = 1, 3  # fields of /proc/PID/stat after the name, which may hold anything
_PROC = Path("/proc")

Kind = Literal["resident", "rss_sum"]


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment.

    Attributes:
        at_ns: when, as ``time.perf_counter_ns()`` says.
        nbytes: of all processes.
        anonymous: bytes that no file stands behind, those swapped out among them: what only the engine can give back.

    """

    at_ns: int
    nbytes: int
    anonymous: int


class MemoryWatch:
    """Looks at the memory of a process and its descendants until it is left; a context manager with a thread.

    Attributes:
        kind: what is counted, for all looks: ``resident``, each page once; or ``rss_sum``, each for each process.
        looks: in the order of time.

    """

    def __init__(self, pid: int) -> None:
        self.kind: Kind = "resident" if all(map(_rollup, processes(pid))) else "rss_sum"
        self.looks: list[Look] = []
        self._pid = pid
        self._over = threading.Event()
        self._seen = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="kitt-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def rest(self, seconds: float) -> list[Look]:
        """Waits, and gives what was seen meanwhile: 3 looks at least; InvalidMeasurement if nothing can be seen."""
        since = len(self.looks)
        self._over.wait(seconds)
        with self._seen:
            if not self._seen.wait_for(lambda: len(self.looks) >= since + _MIN_LOOKS, timeout=_PATIENCE_S):
                raise InvalidMeasurement(f"the memory of the engine (pid {self._pid}) cannot be read any more")
        return self.looks[since:]

    def between(self, since_ns: int, until_ns: int) -> list[Look]:
        """What was seen in a span of time."""
        return [look for look in self.looks if since_ns <= look.at_ns <= until_ns]

    def growth(self, ended_ns: Sequence[int]) -> Slope:
        """Anonymous bytes per request over the second half of the requests that ended then (``LoadResult.ended_ns``).

        Inconclusive when that half was too short to tell.
        """
        return growth_per_request([(look.at_ns, look.anonymous) for look in self.looks], ended_ns)

    def _watch(self) -> None:
        pause_s = 0.0
        while not self._over.wait(pause_s):
            began_ns = time.perf_counter_ns()
            found = memory_of(self._pid, self.kind)
            took_ns = time.perf_counter_ns() - began_ns
            if found is not None:
                with self._seen:
                    self.looks.append(Look(began_ns + took_ns // 2, *found))
                    self._seen.notify_all()
            pause_s = max(PAUSE_S, took_ns / 1e9 / _SHARE)


def unknown(pid: int, *, container: bool = False) -> str:
    """Why the memory of an engine cannot be known, for a skip; empty when it can. ``pid`` is 0 for an endpoint."""
    if not pid and container:
        return "the processes in the engine's container cannot be seen from here"
    if not pid:
        return "the memory of a server that runs already is not known here"
    if memory_of(pid, "rss_sum") is None:
        return f"the memory of processes is read from {_PROC}, which this system does not have"
    return ""


def median_bytes(looks: Sequence[Look]) -> float:
    """The median of what was seen; InvalidMeasurement when that is nothing."""
    if not looks:
        raise InvalidMeasurement("the memory of the engine was not looked at in that time")
    return percentile(sorted(look.nbytes for look in looks), 0.5)


def peak_bytes(looks: Sequence[Look]) -> int:
    """The most that was seen; InvalidMeasurement when that is nothing."""
    median_bytes(looks)
    return max(look.nbytes for look in looks)


def memory_of(pid: int, kind: Kind) -> tuple[int, int] | None:
    """Bytes of a process and its descendants, and how many of them are anonymous.

    None when it is gone, or one of them cannot be read; one that ends while it is looked at counts nothing.
    """
    read = _rollup if kind == "resident" else _statm
    found = []
    for member in processes(pid):
        if said := read(member):
            found.append(said)
        elif _stat(member):
            return None
    if not found:
        return None
    private, shares = (sum(said[name] for said in found) for name in ("private", "shares"))
    shared = max(shares, *(said["shared"] for said in found)) if kind == "resident" else shares
    return private + shared, sum(said["anonymous"] for said in found)


def processes(pid: int) -> list[int]:
    """Ids of a process, its descendants, and what else is in its session: what an ended child has left stays there."""
    with contextlib.suppress(OSError):
        parents = {int(entry.name): _stat(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdigit()}
        found = {member for member, stat in parents.items() if stat and (member == pid or stat[_SESSION] == str(pid))}
        while new := {member for member, stat in parents.items() if stat and int(stat[_PARENT]) in found} - found:
            found |= new
        return sorted(found)
    return []


def _stat(pid: int) -> list[str]:
    """Fields of a process behind its name; none when it has ended, waits to be reaped, or cannot be read."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    fields = stat.rpartition(")")[2].split()
    return [] if fields[:1] in (["Z"], ["X"]) else fields


def _rollup(pid: int) -> Mapping[str, int]:
    """Bytes that a process has alone and shares, its part in the latter, and what is anonymous; nothing if not told.

    What the processes of an engine share with each other is at least the sum of their parts, and at least what any of
    them shares; of a single process it is all that it shares.
    """
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return {}
    said = {name: int(value.split()[0]) << 10 for name, _, value in (line.partition(":") for line in lines)}
    if "Pss" not in said:
        return {}
    private = said["Private_Clean"] + said["Private_Dirty"]
    anonymous = said.get("Pss_Anon", said["Anonymous"]) + said.get("Pss_Shmem", 0) + said.get("SwapPss", 0)
    shared = said["Shared_Clean"] + said["Shared_Dirty"]
    return {"private": private, "shared": shared, "shares": said["Pss"] - private, "anonymous": anonymous}


def _statm(pid: int) -> Mapping[str, int]:
    """The same as far as RSS tells it: all of it as if it were its own."""
    try:
        _, resident, of_files, *_ = map(int, (_PROC / str(pid) / "statm").read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return {}
    page = os.sysconf("SC_PAGE_SIZE")
    return {"private": resident * page, "shared": 0, "shares": 0, "anonymous": (resident - of_files) * page}
