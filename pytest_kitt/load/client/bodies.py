"""What are the bytes of request number i? Head and JSON body, with a prefix that no other request has."""

from __future__ import annotations

import random

from pytest_kitt.load.spec import ClientSpec


class Bodies:
    """Builds the payload of each request of a load."""

    def __init__(self, spec: ClientSpec) -> None:
        name = f"[{spec.host}]" if ":" in spec.host else spec.host
        standard = 443 if spec.tls else 80
        headers = {
            "Host": name if spec.port == standard else f"{name}:{spec.port}",
            "User-Agent": "pytest-kitt",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            **dict(spec.headers),
        }
        lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        self._head = f"POST {spec.path} HTTP/1.1\r\n{lines}Content-Length: ".encode()
        self._bodies = [(before.encode(), after.encode()) for before, after in spec.bodies]
        self._words = spec.prefix_words
        self._length = spec.prefix_length
        self._salt = spec.salt

    def payload(self, index: int) -> bytes:
        """Head and body of request ``index``."""
        before, after = self._bodies[index % len(self._bodies)]
        body = before + self._prefix(index) + after
        return b"%s%d\r\nX-Request-Id: kitt-%d\r\n\r\n%s" % (self._head, len(body), index, body)

    def _prefix(self, index: int) -> bytes:
        if not self._words:
            return b""
        rng = random.Random(f"{self._salt}:{index}")
        return "".join(rng.choice(self._words) for _ in range(self._length)).encode()
