"""When is an HTTP/1.1 response complete, and which bytes are its body? After RFC 9112, sections 4 to 8."""

from __future__ import annotations

MAX_HEAD_BYTES = 64 << 10
MAX_BODY_BYTES = 256 << 20
_SIZE, _CRLF, _TRAILER = 0, -1, -2
_HEX = frozenset(b"0123456789abcdefABCDEF")
_NO_BODY = frozenset({204, 304})


class BadHttp(Exception):
    """The peer's bytes are not an HTTP/1.1 response that this client understands."""


class Response:
    """One response, fed read by read.

    Attributes:
        status: 0 until the head is complete.
        headers: lower-case names.
        pieces: (arrival in ns, bytes) of the body, in order.
        keep_alive: whether the connection can carry another request.
        started: whether a single byte has come.
        leftover: bytes behind the end of this response.

    """

    __slots__ = (
        "_feed_body",
        "_head",
        "_left",
        "_need",
        "_size",
        "_tail",
        "headers",
        "keep_alive",
        "leftover",
        "pieces",
        "started",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[tuple[int, bytes]] = []
        self.keep_alive = True
        self.started = False
        self.leftover = b""
        self._head = b""
        self._tail = b""
        self._need = _SIZE
        self._left = 0
        self._size = 0
        # a plain function: a bound method would be a cycle, and nothing collects cycles while a load runs
        self._feed_body = Response._until_close

    def feed(self, at: int, data: bytes) -> bool:
        """Takes what one read brought; True when the response is complete. BadHttp when it makes no sense."""
        if self.status:
            return self._take(at, data)
        self.started = True
        self._head += data
        while (end := self._head.find(b"\r\n\r\n")) >= 0:
            head, rest = self._head[:end], self._head[end + 4 :]
            status = self._parse_head(head)
            if 100 <= status < 200:
                self._head = rest
                continue
            self.status, self._head = status, b""
            return self._begin_body(at, rest)
        if len(self._head) > MAX_HEAD_BYTES:
            raise BadHttp("the response's head is larger than 64 KiB")
        return False

    def at_eof(self) -> bool:
        """Whether the end of the connection is the proper end of this response."""
        return self.status > 0 and self._feed_body is Response._until_close

    def body(self) -> bytes:
        """The whole body."""
        return b"".join(data for _, data in self.pieces)

    def _parse_head(self, head: bytes) -> int:
        first, *lines = head.split(b"\r\n")
        version, _, rest = first.partition(b" ")
        code, _, _ = rest.partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or not code.isdigit() or len(code) != 3 or code < b"100":
            raise BadHttp(f"not an HTTP/1.1 response: {first[:60]!r}")
        self.headers = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise BadHttp(f"not a header: {line[:60]!r}")
            key, text = name.lower(), value.strip()
            if key == b"content-length" and self.headers.get(key, text) != text:
                raise BadHttp("two different Content-Length headers")
            self.headers[key] = text
        connection = self.headers.get(b"connection", b"").lower()
        self.keep_alive = b"close" not in connection and (version == b"HTTP/1.1" or b"keep-alive" in connection)
        return int(code)

    def _begin_body(self, at: int, rest: bytes) -> bool:
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise BadHttp("the body is compressed, though identity was asked for")
        if self.status in _NO_BODY:
            self.leftover = rest
            return True
        coding = self.headers.get(b"transfer-encoding")
        if coding is not None:
            if coding.lower() != b"chunked":
                raise BadHttp(f"unknown Transfer-Encoding {coding[:40]!r}")
            self._feed_body = Response._chunked
        elif (length := self.headers.get(b"content-length")) is not None:
            if not length.isdigit() or len(length) > 15:
                raise BadHttp(f"not a Content-Length: {length[:40]!r}")
            self._left = int(length)
            self._feed_body = Response._sized
        else:
            self.keep_alive = False
        return self._take(at, rest)

    def _take(self, at: int, data: bytes) -> bool:
        self._size += len(data)
        if self._size > MAX_BODY_BYTES:
            raise BadHttp(f"the response is larger than {MAX_BODY_BYTES >> 20} MiB")
        return self._feed_body(self, at, data)

    def _sized(self, at: int, data: bytes) -> bool:
        body, self.leftover = data[: self._left], data[self._left :]
        if body:
            self.pieces.append((at, body))
        self._left -= len(body)
        return self._left == 0

    def _until_close(self, at: int, data: bytes) -> bool:
        if data:
            self.pieces.append((at, data))
        return False

    def _chunked(self, at: int, data: bytes) -> bool:
        if self._tail:
            data, self._tail = self._tail + data, b""
        position, size = 0, len(data)
        while position < size:
            if self._need > 0:
                piece = data[position : position + self._need]
                self.pieces.append((at, piece))
                position += len(piece)
                self._need = self._need - len(piece) or _CRLF
                continue
            end = data.find(b"\r\n", position)
            if end < 0:
                self._tail = data[position:]
                if len(self._tail) > MAX_HEAD_BYTES:
                    raise BadHttp("a chunk's head is larger than 64 KiB")
                return False
            line, position = data[position:end], end + 2
            if self._need == _SIZE:
                self._need = _chunk_size(line) or _TRAILER
            elif self._need == _TRAILER:
                if not line:
                    self.leftover = data[position:]
                    return True
            elif line:
                raise BadHttp("a chunk is longer than its size")
            else:
                self._need = _SIZE
        return False


def _chunk_size(line: bytes) -> int:
    digits = line.split(b";", 1)[0].strip()
    if not digits or len(digits) > 8 or not _HEX.issuperset(digits):
        raise BadHttp(f"not a chunk size: {line[:40]!r}")
    return int(digits, 16)
