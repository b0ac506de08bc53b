"""Is an engine's memory that of all of its processes, each page once, and is a leak found?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.engine import memory
from pytest_kitt.errors import InvalidMeasurement
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

MB = 1_000_000
SUITE = Path(__file__).resolve().parents[2] / "suites" / "performance" / "test_performance_memory.py"
SHORTER = {'"seconds:30"': '"requests:150"', "REST_S = 2.0": "REST_S = 0.5"}  # 13 s, for looks on a busy machine
FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=5", "--kitt-engine-arg=itl_ms=5")
SHARING = """
import os, sys
block = b"x" * 64_000_000
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
print(child, flush=True)
sys.stdin.readline()
os.waitpid(child, 0)
"""
ORPHANED = """
import os, sys
middle = os.fork()
if middle == 0:
    if os.fork() == 0:
        block = b"x" * 64_000_000
        print(os.getpid(), flush=True)
        sys.stdin.read()
    os._exit(0)
os.waitpid(middle, 0)
sys.stdin.read()
"""


@contextmanager
def running(program: str) -> Iterator[tuple[int, int]]:
    """A program in a session of its own, and the process that it tells of."""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())


def stored() -> dict[str, Any]:
    """The only result of the last run."""
    with opened("") as engine, engine.connect() as connection:
        (found,) = reader.show_run(connection, "last")["results"]
    return dict(found)


def rss_of(pid: int) -> int:
    """All resident pages of a process, counted one by one: the RSS in statm may be off by some."""
    return next(
        int(line.split()[1]) << 10
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Rss:")
    )


def bytes_of(pid: int, kind: memory.Kind) -> tuple[int, int]:
    """What is there."""
    found = memory.memory_of(pid, kind)
    assert found is not None
    return found


def test_shared_pages_count_once() -> None:
    """64 MB that parent and child share are 64 MB, and twice that when their RSS is added up."""
    with running(SHARING) as (pid, child):
        assert memory.processes(pid) == sorted([pid, child])
        resident, anonymous = bytes_of(pid, "resident")
        assert 64 * MB < anonymous < resident < 110 * MB
        assert bytes_of(pid, "rss_sum") > (128 * MB, 128 * MB)
        with memory.MemoryWatch(pid) as watch:
            assert watch.kind == "resident"


def test_strangers_change_nothing() -> None:
    """Of one process all pages count in full, though the interpreter's own are shared with this test."""
    with running("import os, sys; print(os.getpid(), flush=True); sys.stdin.read()") as (pid, _):
        assert bytes_of(pid, "resident")[0] == pytest.approx(rss_of(pid), rel=0.01)


def test_a_child_without_its_parent_counts() -> None:
    """What an engine started stays its own when the process in between has ended."""
    with running(ORPHANED) as (pid, orphan):
        assert orphan in memory.processes(pid)
        assert bytes_of(pid, "resident") > (64 * MB, 64 * MB)


def test_where_the_kernel_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of the RSS is counted instead, and called so; without /proc nothing is, with the reason."""
    pid = os.getpid()
    (tmp_path / str(pid)).mkdir()
    for name in ("stat", "statm"):
        (tmp_path / str(pid) / name).write_text(Path(f"/proc/self/{name}").read_text())
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    assert memory.unknown(pid) == ""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    assert bytes_of(pid, "rss_sum")[0] == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.2)
    assert memory.MemoryWatch(pid).kind == "rss_sum"
    assert memory.memory_of(pid, "resident") is None
    monkeypatch.setattr(memory, "_PROC", tmp_path / "none")
    assert "this system does not have" in memory.unknown(pid)
    assert "a server that runs already" in memory.unknown(0)


def test_a_process_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look counts a process that has ended; to wait for one is invalid; the thread ends with its context."""
    monkeypatch.setattr(memory, "_PATIENCE_S", 0.2)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    with memory.MemoryWatch(process.pid) as watch, pytest.raises(InvalidMeasurement, match="cannot be read any more"):
        watch.rest(0.0)
    assert watch.looks == []
    with pytest.raises(InvalidMeasurement, match="not looked at"):
        memory.peak_bytes(watch.looks)
    assert "kitt-memory" not in [thread.name for thread in threading.enumerate()]


def test_rest_gives_what_was_seen_in_it() -> None:
    """Three looks at least, on the clock of a load's records; the peak is one of them."""
    with memory.MemoryWatch(os.getpid()) as watch:
        first = watch.rest(0.0)
        second = watch.rest(0.3)
    assert min(len(first), len(second)) >= 3
    assert first[-1].at_ns < second[0].at_ns
    assert watch.between(second[0].at_ns, second[-1].at_ns) == second
    assert memory.peak_bytes(second) >= memory.median_bytes(second) > MB


@pytest.mark.parametrize("leak_kb", [100, 0])
def test_a_leak_is_found(pytester: pytest.Pytester, leak_kb: int) -> None:
    """An engine that keeps 100 kB of each request fails with that number; one that keeps nothing passes."""
    module = SUITE.read_text()
    for text, shorter in SHORTER.items():
        assert module.count(text) == 1
        module = module.replace(text, shorter)
    pytester.makepyfile(test_shorter=module)
    args = (*FAST, f"--kitt-engine-arg=--leak-kb-per-request={leak_kb}", "test_shorter.py")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)
    found = stored()
    metrics = {m["name"]: m for m in found["metrics"] if m["stat"] == "value"}
    names = ("resident_idle_bytes", "resident_peak_bytes", "resident_after_bytes", "growth_bytes_per_request")
    idle, peak, after, growth = (metrics[f"engine_{name}"] for name in names)
    assert peak["value"] > idle["value"] > 10 * MB
    assert found["params"]["fresh_start"] == 1
    assert (growth["unit"], growth["method"]) == ("bytes/request", "theil-sen")
    if not leak_kb:
        assert (result.ret, found["outcome"]) == (0, "passed")
        assert growth["ci_high"] < 16_000
        return
    assert (result.ret, found["outcome"]) == (1, "failed")
    assert "the bound is 16000 bytes: a leak?" in found["reason"]
    result.stdout.fnmatch_lines(["*engine_growth_bytes_per_request * kB/request [[]* to * kB/request[]]*"])
    assert growth["value"] == pytest.approx(100_000, rel=0.1)
    assert after["value"] - idle["value"] > 100 * 100_000


def test_what_cannot_be_known_is_skipped(pytester: pytest.Pytester) -> None:
    """The memory of a server that runs already; a benchmark of one's own that takes the fixture says so."""
    pytester.makepyfile(test_it="def test_it(kitt_memory): pass")
    command = [sys.executable, "-m", "pytest_kitt.engine.simulated", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            result = pytester.runpytest_subprocess("-p", "no:cacheprovider", f"--kitt-url={url}", "-rs", "test_it.py")
        finally:
            process.kill()
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*the memory of a server that runs already is not known here"])


def test_memory_of_a_real_engine(pytester: pytest.Pytester) -> None:
    """The embedded engine holds its model at least, and every request of a load has its time on the watch's clock."""
    pytest.importorskip("xllamacpp")
    pytester.makepyfile(
        test_it="""
        import time

        def test_it(kitt_engine, kitt_load, kitt_memory):
            assert min(look.nbytes for look in kitt_memory.rest(0.2)) > 10_000_000
            before = time.perf_counter_ns()
            result = kitt_load("closed:2", "synthetic:32:8", "requests:20")
            ended = result.ended_ns()
            assert before < result.began_ns < ended[0] <= ended[-1] < time.perf_counter_ns()
            assert len(ended) >= 20
            seen = kitt_memory.rest(0.2)
            assert kitt_memory.between(before, seen[-1].at_ns)[-len(seen) :] == seen
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--kitt-runtime=embedded", "test_it.py")
    result.assert_outcomes(passed=1)
