"""How HTTP/1.1 is read from bytes and written to bytes. No socket in here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

HEAD_LIMIT_BYTES = 64 * 1024
BODY_LIMIT_BYTES = 64 * 1024 * 1024

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.([01])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,18}")


class MalformedError(Exception):
    """The bytes are no request that this server reads; the connection cannot go on."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body; header names are in lower case."""

    method: str
    path: str
    minor: int
    headers: Mapping[str, str]
    length: int = 0

    @property
    def keep_alive(self) -> bool:
        """Whether the connection serves another request."""
        return self.minor == 1 and "close" not in self.headers.get("connection", "").lower()

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for leave to send the body."""
        return self.headers.get("expect", "").lower() == "100-continue"


@dataclass(frozen=True, slots=True)
class Request:
    """A head with its whole body."""

    head: Head
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back, before it is bytes."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class RequestReader:
    """Bytes in, requests out; pipelined requests come out one by one."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Head | None = None
        self._owes_continue = False

    def feed(self, data: bytes) -> None:
        """Take what the socket gave."""
        self._buffer += data

    def take(self) -> Request | None:
        """The next whole request, or None until more bytes come."""
        if self._head is None:
            self._head = self._take_head()
        head = self._head
        if head is None or len(self._buffer) < head.length:
            return None
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        self._head = None
        self._owes_continue = False
        return Request(head, body)

    def claim_continue(self) -> bool:
        """True once for a client that waits for leave to send its body."""
        owed, self._owes_continue = self._owes_continue, False
        return owed

    def _take_head(self) -> Head | None:
        # RFC 9112, 2.2: an empty line before the request line is skipped.
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", 0, HEAD_LIMIT_BYTES)
        if end < 0 and len(self._buffer) >= HEAD_LIMIT_BYTES:
            raise MalformedError(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers are larger than {HEAD_LIMIT_BYTES} bytes"
            )
        if end < 0:
            return None
        head = read_head(self._buffer[:end].decode("latin-1"))
        del self._buffer[: end + 4]
        self._owes_continue = head.expects_continue
        return head


def read_head(text: str) -> Head:
    """The head of a request, without the empty line that ends it."""
    first, *lines = text.split("\r\n")
    request_line = _REQUEST_LINE.fullmatch(first)
    if request_line is None:
        raise MalformedError(HTTPStatus.BAD_REQUEST, "the first line is not METHOD TARGET HTTP/1.1")
    headers = _read_headers(lines)
    if "transfer-encoding" in headers:
        raise MalformedError(HTTPStatus.LENGTH_REQUIRED, "a body needs Content-Length; Transfer-Encoding is not read")
    method, target, minor = request_line.groups()
    return Head(method, target.partition("?")[0], int(minor), headers, _read_length(headers))


def _read_headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise MalformedError(HTTPStatus.BAD_REQUEST, "a header line is not NAME: VALUE")
        name, value = header[1].lower(), header[2]
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _read_length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    if _LENGTH.fullmatch(text) is None:
        raise MalformedError(HTTPStatus.BAD_REQUEST, "Content-Length is not one number")
    if int(text) > BODY_LIMIT_BYTES:
        raise MalformedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {BODY_LIMIT_BYTES} bytes")
    return int(text)


def render(response: Response, *, keep_alive: bool) -> bytes:
    """A whole response."""
    headers = {"Content-Type": response.content_type, "Content-Length": str(len(response.body)), **response.headers}
    return _render_head(response.status, headers, keep_alive=keep_alive) + response.body


def render_stream_head(*, chunked: bool, keep_alive: bool) -> bytes:
    """The head of a stream of events; what is not chunked ends with the connection."""
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
    return _render_head(HTTPStatus.OK, headers, keep_alive=keep_alive)


def render_chunk(data: bytes) -> bytes:
    """One part of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _render_head(status: HTTPStatus, headers: Mapping[str, str], *, keep_alive: bool) -> bytes:
    connection = "keep-alive" if keep_alive else "close"
    lines = [f"{name}: {value}" for name, value in {**headers, "Connection": connection}.items()]
    return "\r\n".join([f"HTTP/1.1 {status.value} {status.phrase}", *lines, "", ""]).encode("latin-1")
