"""How do bytes reach the server and come back with their time of arrival? One non-blocking connection.

With TLS the cipher text is read like plain text, so its bytes carry the kernel's stamp too; it is deciphered in memory.
Through an HTTP proxy the bytes of https pass a tunnel (CONNECT, RFC 9110, section 9.3.6).
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Any

from pytest_kitt.load.client.clock import ANCILLARY_BYTES, Clock, monotonic_ns
from pytest_kitt.load.client.http import MAX_HEAD_BYTES, BadHttp, Response

READ_BYTES = 64 << 10
_TLS_RECORD = 16 << 10


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect.

    Attributes:
        family: of the address.
        address: the outcome of the one name look-up: the server's, or its proxy's.
        host: the server's name, which its certificate must bear.
        context: for TLS, None without.
        tunnel: what to ask of a proxy before anything else, empty for nothing.

    """

    family: socket.AddressFamily
    address: Any
    host: str
    context: ssl.SSLContext | None
    tunnel: bytes = b""


class Connection:
    """A TCP or TLS connection that never blocks.

    Attributes:
        opened: the TCP connection stands.
        ready: opened, and the TLS handshake done.
        opened_ns: when connecting began.
        connect_ns: how long it took until ready.
        used: whether a request was sent on it.
        served: how many requests were answered on it.
        idle_limit_ns: how long the server lets it rest.

    """

    __slots__ = (
        "_asks_tunnel",
        "_clock",
        "_in",
        "_out",
        "_pending",
        "_tls",
        "_tunnel",
        "connect_ns",
        "idle_limit_ns",
        "opened",
        "opened_ns",
        "ready",
        "served",
        "sock",
        "used",
    )

    def __init__(self, target: Target, clock: Clock) -> None:
        self._clock = clock
        self._pending = b""
        self._tls: ssl.SSLObject | None = None
        self._tunnel = b""  # what the proxy has said so far
        self._asks_tunnel = target.tunnel
        self.opened = False
        self.ready = False
        self.used = False
        self.connect_ns = self.served = 0
        self.idle_limit_ns = 1 << 62
        self.opened_ns = monotonic_ns()
        self.sock = socket.socket(target.family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clock.prepare(self.sock)
        if target.context is not None:
            self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = target.context.wrap_bio(self._in, self._out, server_hostname=target.host)
        with contextlib.suppress(BlockingIOError):
            self.sock.connect(target.address)

    @property
    def stamped(self) -> bool:
        """Whether what ``recvmsg`` gives needs no more than the kernel's stamp: ready, no TLS, stamps supported."""
        return self.ready and self._tls is None and self._clock.supported

    @property
    def wants_write(self) -> bool:
        """Whether the caller should wait for the socket to become writable."""
        return bool(self._pending)

    def on_connected(self) -> None:
        """To be called once the socket is writable for the first time; OSError when connecting failed."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self.opened = True
        if self._asks_tunnel:
            self._pending += self._asks_tunnel
            self.flush()
        else:
            self._on_way()

    def send(self, data: bytes) -> int:
        """Takes bytes to send, all or in part now, the rest by flush; returns the clock just before the sending."""
        if self._tls is not None:
            self._tls.write(data)
            data = self._out.read()
        self._pending += data
        self.used = True
        return self.flush()

    def flush(self) -> int:
        """Sends what is left; returns the clock as it was just before."""
        at = monotonic_ns()
        if self._pending:
            try:
                sent = self.sock.send(self._pending)
            except BlockingIOError:
                return at
            self._pending = self._pending[sent:]
        return at

    def receive(self) -> tuple[int, bytes] | None:
        """One read: (arrival in ns, plain bytes), empty bytes at the end; None when nothing is to be had now."""
        try:
            data, ancillary, _, _ = self.sock.recvmsg(READ_BYTES, ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        if not data:
            return monotonic_ns(), b""
        at = self._clock.stamp(ancillary)
        if self._asks_tunnel:
            self._on_tunnel(data)
            return None
        if self._tls is None:
            return at, data
        self._in.write(data)
        return self._decipher(at)

    def close(self) -> None:
        """Closes the socket; the kernel tells the peer."""
        self.sock.close()

    def _on_way(self) -> None:
        """The way to the server stands."""
        if self._tls is None:
            self._become_ready()
        else:
            self._handshake()

    def _on_tunnel(self, data: bytes) -> None:
        """Takes the proxy's answer to CONNECT; ConnectionError when it says no."""
        self._tunnel += data
        head, end, rest = self._tunnel.partition(b"\r\n\r\n")
        if not end:
            if len(head) > MAX_HEAD_BYTES:
                raise ConnectionError("the proxy's answer has no end")
            return
        answer = Response()
        try:
            answer.feed(0, head + end)
        except BadHttp as error:
            raise ConnectionError(f"the proxy's answer: {error}") from None
        if not 200 <= answer.status < 300:
            raise ConnectionError(f"the proxy refused the way to the server with status {answer.status}")
        self._asks_tunnel = self._tunnel = b""
        if rest:
            self._in.write(rest)
        self._on_way()

    def _decipher(self, at: int) -> tuple[int, bytes] | None:
        assert self._tls is not None
        if not self.ready:
            self._handshake()
            if not self.ready:
                return None
        plain = []
        try:
            while piece := self._tls.read(_TLS_RECORD):
                plain.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            return at, b"".join(plain)
        if self._out.pending:  # TLS itself has something to say; what does not fit goes with the next request
            self._pending += self._out.read()
            self.flush()
        return (at, b"".join(plain)) if plain else None

    def _handshake(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            self._become_ready()
        self._pending += self._out.read()
        self.flush()

    def _become_ready(self) -> None:
        self.ready = True
        self.connect_ns = max(1, monotonic_ns() - self.opened_ns)
