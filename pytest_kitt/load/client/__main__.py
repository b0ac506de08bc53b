"""The client child: reads one spec from standard input, sends the load, writes frames to standard output.

It dies with its parent (PR_SET_PDEATHSIG), and stops cleanly on SIGTERM with what it has measured so far.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import signal
import socket
import ssl
import sys
import time
from typing import Any

import orjson

from pytest_kitt.load.client import frames
from pytest_kitt.load.client.connection import Target
from pytest_kitt.load.client.loop import ClosedLoop
from pytest_kitt.load.spec import ClientSpec, Ending
from pytest_kitt.measure.records import RequestTable

_PR_SET_PDEATHSIG = 1
_FILES_BESIDE_CONNECTIONS = 64
_PROBE_S = 5.0
_STREAM = socket.SOCK_STREAM


def main() -> int:
    """Runs the spec on standard input; the exit code is 0 when an ending was written."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    spec = ClientSpec.from_json(orjson.loads(sys.stdin.buffer.read()))
    out = sys.stdout.buffer
    try:
        _raise_file_limit(spec.concurrency + _FILES_BESIDE_CONNECTIONS)
        target = _resolve(spec)
    except OSError as error:
        frames.write(out, frames.FATAL, str(error).encode())
        return 1
    _run(spec, target, out)
    return 0


def _run(spec: ClientSpec, target: Target, out: Any) -> None:
    def emit(table: RequestTable) -> None:
        if len(table):
            frames.write(out, frames.BLOCK, table.to_bytes())

    def progress(done: int, failed: int, tokens: int, in_flight: int) -> None:
        frames.write(out, frames.PROGRESS, orjson.dumps([done, failed, tokens, in_flight]))

    loop = ClosedLoop(spec, target, emit=emit, progress=progress)
    signal.signal(signal.SIGTERM, lambda *_: setattr(loop, "stop_requested", True))
    cpu = time.process_time()
    loop.run()
    ending = Ending(
        clock=loop.clock.name,
        wall_s=loop.wall_ns / 1e9,
        cpu_s=time.process_time() - cpu,
        max_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        clock_drift_ns=loop.clock.drift_ns,
        merged_reads=loop.merged_reads,
        stall_ms=loop.stall_ns / 1e6,
        details=loop.details,
        stopped=loop.stopped,
    )
    frames.write(out, frames.ENDING, orjson.dumps(dataclasses.asdict(ending)))


def _resolve(spec: ClientSpec) -> Target:
    found = [(family, address) for family, _, _, _, address in socket.getaddrinfo(spec.host, spec.port, type=_STREAM)]
    family, address = next((one for one in found if len(found) == 1 or _answers(*one)), found[0])
    context = ssl.create_default_context(cafile=spec.ca_file or None) if spec.tls else None
    return Target(family=family, address=address, host=spec.host, context=context)


def _answers(family: socket.AddressFamily, address: Any) -> bool:
    """Whether somebody listens there: localhost is often two addresses, and a server has but one of them."""
    with contextlib.suppress(OSError), socket.socket(family, _STREAM) as probe:
        probe.settimeout(_PROBE_S)
        return probe.connect_ex(address) == 0
    return False


def _raise_file_limit(need: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if need > soft:
        if hard != resource.RLIM_INFINITY and need > hard:
            raise OSError(f"{need} open files are needed and the limit is {hard}; raise it with ulimit -n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def _die_with_parent() -> None:
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
