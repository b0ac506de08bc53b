"""What do a command and all the processes that it starts cost? CPU time and memory, from /proc while it runs."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

LIMIT_S = 600.0
_LOOK_S = 0.2
_LOOKS_PER_MEMORY_LOOK = 2  # the kernel walks all pages for it
_CPUCLOCK_SCHED = 2  # linux/posix-timers.h: a process's CPU clock is ~pid << 3 | 2


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """Costs of a process tree.

    Attributes:
        cpu_s: CPU time in all.
        rss_bytes: peak of the summed proportional set sizes.
        times_ns: when it was looked at, on CLOCK_MONOTONIC.
        cpu_at_s: CPU time spent until then.

    """

    cpu_s: float
    rss_bytes: int
    times_ns: Sequence[int]
    cpu_at_s: Sequence[float]

    def cpu_until(self, at_ns: int) -> float:
        """CPU time spent until an instant of CLOCK_MONOTONIC, in seconds; linear between two looks."""
        after = bisect.bisect_left(self.times_ns, at_ns)
        if after == len(self.times_ns):
            return self.cpu_s
        if not after:
            return 0.0
        (t0, t1), (c0, c1) = self.times_ns[after - 1 : after + 1], self.cpu_at_s[after - 1 : after + 1]
        return c0 + (c1 - c0) * (at_ns - t0) / (t1 - t0)


def run(command: Sequence[str], *, env: Mapping[str, str], folder: Path) -> Usage:
    """Runs a command in a folder; what it prints goes to ``stdout`` and ``stderr`` there.

    RuntimeError when it fails or needs more than LIMIT_S; nothing of it is left running.
    """
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=out, stderr=err, start_new_session=True)
    try:
        with _unobtrusive():
            usage = _watch(process)
    finally:
        for pid in _session(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process.returncode is None:
            process.wait()
    if process.returncode:
        said = (folder / "stderr").read_text(errors="replace") or (folder / "stdout").read_text(errors="replace")
        last = (said.strip().splitlines() or ["nothing"])[-1]
        raise RuntimeError(f"{Path(command[0]).name} ended with {process.returncode} and said: {last}")
    return usage


def _watch(process: subprocess.Popen[bytes]) -> Usage:
    """Looks at a process and its session until it ends, and reaps it."""
    began = time.monotonic_ns()
    times, spent, memory = [began], [0.0], [0]
    cpu: dict[int, float] = {}
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        times.append(time.monotonic_ns())
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            spent.append(max(used.ru_utime + used.ru_stime, spent[-1]))
            return Usage(spent[-1], max(memory), times, spent)
        if times[-1] - began > LIMIT_S * 1e9:
            raise RuntimeError(f"process {process.pid} took more than {LIMIT_S:g} s")
        pids = list(_session(process.pid))
        if not len(times) % _LOOKS_PER_MEMORY_LOOK:
            memory.append(sum(map(_memory, pids)))
        for each in pids:
            with contextlib.suppress(OSError):  # it has ended: what it had used stays counted
                cpu[each] = time.clock_gettime(~each << 3 | _CPUCLOCK_SCHED)
        spent.append(sum(cpu.values()))
        time.sleep(_LOOK_S)


@contextlib.contextmanager
def _unobtrusive() -> Iterator[None]:
    """Lets this thread run only where a core is idle: to look must not delay what is looked at."""
    usual = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, usual, os.sched_param(0))


def _session(leader: int) -> Iterator[int]:
    """The processes of a session, those whose parent has ended included."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended
                state, _, _, session = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:4]
                if int(session) == leader and state != b"Z":
                    yield int(entry.name)


def _memory(pid: int) -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) * 1024
    return 0
