"""What are the bytes of request number i? Head and JSON body, with a prefix that no other request has."""

from __future__ import annotations

import hashlib
import mmap
import struct
from array import array
from collections.abc import Sequence

from pytest_kitt.load.spec import ClientSpec

_PREFIXES_AT_ONCE = 32


class Bodies:
    """Builds the payload of each request of a load."""

    def __init__(self, spec: ClientSpec) -> None:
        name = f"[{spec.host}]" if ":" in spec.host else spec.host
        standard = 443 if spec.tls else 80
        host = name if spec.port == standard else f"{name}:{spec.port}"
        headers = {
            "Host": host,
            "User-Agent": "pytest-kitt",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            **dict(spec.headers),
        }
        target = spec.path
        if spec.proxy is not None and not spec.tls:  # RFC 9112, section 3.2.2; with TLS the proxy sees nothing of this
            target = f"http://{host}{spec.path}"
            if spec.proxy.authorization:
                headers["Proxy-Authorization"] = spec.proxy.authorization
        lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        self._head = f"POST {target} HTTP/1.1\r\n{lines}Content-Length: ".encode()
        self._bodies: Sequence[tuple[bytes, bytes]] = (
            [(before.encode(), after.encode()) for before, after in spec.bodies]
            if spec.bodies_fd < 0
            else _Lines(spec.bodies_fd)
        )
        words = [word.encode() for word in spec.prefix_words]
        self._words = [words[drawn % len(words)] for drawn in range(1 << 16)] if words else []
        self._drawn = struct.Struct(f">{spec.prefix_length}H")
        self._block, self._block_bytes = -1, b""
        self._salt = hashlib.sha256(spec.salt.encode()).digest()

    def payload(self, index: int) -> bytes:
        """Head and body of request ``index``."""
        before, after = self._bodies[index % len(self._bodies)]
        if self._words:
            before += self._prefix(index)
        size = len(before) + len(after)
        return b"%s%d\r\nX-Request-Id: kitt-%d\r\n\r\n%s%s" % (self._head, size, index, before, after)

    def _prefix(self, index: int) -> bytes:
        """Words drawn by a hash of the load and the request; of several requests at once, for that is cheaper."""
        block, place = divmod(index, _PREFIXES_AT_ONCE)
        size = self._drawn.size
        if block != self._block:
            drawn = hashlib.shake_128(self._salt + block.to_bytes(8))
            self._block, self._block_bytes = block, drawn.digest(size * _PREFIXES_AT_ONCE)
        return b"".join(map(self._words.__getitem__, self._drawn.unpack_from(self._block_bytes, size * place)))


class _Lines(Sequence[tuple[bytes, bytes]]):
    """Bodies that stay in their file until they are sent."""

    def __init__(self, fd: int) -> None:
        self._file = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        self._starts = array("Q", [0])
        while (end := self._file.find(b"\n", self._starts[-1])) >= 0:
            self._starts.append(end + 1)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> tuple[bytes, bytes]:  # type: ignore[override]  # no slices of them
        return self._file[self._starts[index] : self._starts[index + 1] - 1], b""
