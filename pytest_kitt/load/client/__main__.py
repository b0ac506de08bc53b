"""A client child: reads its spec from standard input, sends its share of a load, writes frames to standard output.

When its connections stand it says READY and waits for a line with the time at which the load begins; when its measured
requests have ended it says DONE, and keeps the load up until a line ``release`` comes. It ends at once when standard
input is closed (its parent is gone), and on SIGTERM, with what it has measured so far.
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
from typing import Any

import orjson

from pytest_kitt.load.client import frames
from pytest_kitt.load.client.connection import Target
from pytest_kitt.load.client.loop import LoadLoop
from pytest_kitt.load.client.poller import poller
from pytest_kitt.load.spec import ClientSpec, Look
from pytest_kitt.measure.records import RequestTable

_PR_SET_PDEATHSIG = 1
_FILES_BESIDE_CONNECTIONS = 64
_PROBE_S = 5.0
_STREAM = socket.SOCK_STREAM


def main() -> int:
    """Runs the spec on standard input; the exit code is 0 when an ending was written."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    control = _Control(sys.stdin.fileno())
    out = sys.stdout.buffer
    try:
        spec = ClientSpec.from_json(orjson.loads(control.line()))
        _raise_file_limit((spec.most or spec.concurrency or spec.max_connections) + _FILES_BESIDE_CONNECTIONS)
        target = _resolve(spec)
    except OSError as error:
        frames.write(out, frames.FATAL, str(error).encode())
        return 1
    _run(spec, target, control, out)
    return 0


def _run(spec: ClientSpec, target: Target, control: _Control, out: Any) -> None:
    def emit(table: RequestTable) -> None:
        if len(table):
            frames.write(out, frames.BLOCK, table.to_bytes())

    def progress(look: Look) -> None:
        frames.write(out, frames.PROGRESS, orjson.dumps(look))

    def done() -> None:
        frames.write(out, frames.DONE, b"")

    def on_file(fd: int) -> None:
        if fd == control.fd:
            loop.released, loop.stop_requested = True, not control.line()

    with contextlib.closing(poller()) as polls:
        polls.register(control.fd, write=False)
        loop = LoadLoop(spec, target, polls, emit=emit, progress=progress, done=done, on_file=on_file)
        signal.signal(signal.SIGTERM, lambda *_: setattr(loop, "stop_requested", True))
        loop.open()
        frames.write(out, frames.READY, b"")
        loop.run(int(control.line() or 0))
        frames.write(out, frames.ENDING, orjson.dumps(dataclasses.asdict(loop.ending())))


class _Control:
    """The parent's lines, read without a buffer so that a poll sees each."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._rest = b""

    def line(self) -> bytes:
        """The next line, without its end; empty when the parent is gone."""
        parts = [self._rest]
        while b"\n" not in parts[-1]:
            data = os.read(self.fd, 1 << 20)
            if not data:
                return b""
            parts.append(data)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line


def _resolve(spec: ClientSpec) -> Target:
    name, port = (spec.proxy.host, spec.proxy.port) if spec.proxy else (spec.host, spec.port)
    found = [(family, address) for family, _, _, _, address in socket.getaddrinfo(name, port, type=_STREAM)]
    family, address = next((one for one in found if len(found) == 1 or _answers(*one)), found[0])
    context = ssl.create_default_context(cafile=spec.ca_file or None) if spec.tls else None
    return Target(family=family, address=address, host=spec.host, context=context, tunnel=_tunnel(spec))


def _tunnel(spec: ClientSpec) -> bytes:
    if spec.proxy is None or not spec.tls:
        return b""
    name = f"[{spec.host}]" if ":" in spec.host else spec.host
    authorization = f"Proxy-Authorization: {spec.proxy.authorization}\r\n" if spec.proxy.authorization else ""
    return f"CONNECT {name}:{spec.port} HTTP/1.1\r\nHost: {name}:{spec.port}\r\n{authorization}\r\n".encode()


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
    """On Linux even when this process is stopped or stuck; elsewhere the end of standard input must do."""
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
