"""When is an HTTP/1.1 response complete, and which bytes are its body? After RFC 9112, sections 4 to 8.

A read costs next to nothing while a response is under way: its bytes are kept as they came, and only one that could be
the last is looked at. The framing is undone later, when nothing is waiting, and exactly.
"""

from __future__ import annotations

import re

MAX_HEAD_BYTES = 64 << 10
MAX_BODY_BYTES = 256 << 20
_HEAD, _SIZED, _CHUNKED, _UNTIL_CLOSE, _COMPLETE = range(5)
_CHUNK_SIZE, _CHUNK_END, _TRAILER = 0, -1, -2
_LAST_CHUNK = [b"0", b"", b""]  # and the empty trailer, at each CRLF
_NAMES = b"content-length|content-type|content-encoding|transfer-encoding|connection|keep-alive|location|retry-after"
_LIMITS = re.compile(rb"(timeout|max)\s*=\s*(\d{1,9})").findall
_HEADERS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\n\0]*(?:\r\n|\Z))*+\Z").match
_WANTED = re.compile(rb"(?im)^(%s):[ \t]*([^\r\n]*)" % _NAMES).findall
_IS_WANTED = re.compile(rb"(?i)(?:%s):" % _NAMES).match
_HEX = frozenset(b"0123456789abcdefABCDEF")
_NO_BODY = frozenset({204, 304})
_MAX_SIZES = 4096
_SIZES: dict[bytes, int] = {}  # what the chunk sizes seen so far mean: there are few of them in a stream
_MAX_LEARNED_HEAD_BYTES, _MAX_LEARNED_HEADS = 1 << 10, 8


class BadHttp(Exception):
    """The peer's bytes are not an HTTP/1.1 response that this client understands."""


class Heads:
    """What the heads of a server's streams have in common: all but the values of headers that say nothing to us.

    A head with the same status line and the same headers in the same order, of which those that are wanted have the
    same values, means the same, and need not be parsed.

    Attributes:
        match: finds a head of this kind, with the empty line behind it, at the beginning of what was read.
        status: of such a head; as in Response.
        headers: likewise.
        keep_alive: likewise.
        left: how many more kinds may be learned.

    """

    __slots__ = ("headers", "keep_alive", "left", "match", "status")

    def __init__(self) -> None:
        self.left = _MAX_LEARNED_HEADS  # a pattern costs as much as hundreds of heads
        self.match = re.compile(rb"(?!)").match
        self.status, self.keep_alive = 0, False
        self.headers: dict[bytes, bytes] = {}

    def learn(self, head: bytes, response: Response) -> None:
        """Remembers a head, without the empty line behind it, of a chunked body."""
        if not self.left or len(head) > _MAX_LEARNED_HEAD_BYTES:
            return
        self.left -= 1
        first, *lines = head.split(b"\r\n")
        parts = [re.escape(first)]
        for line in lines:
            name = re.escape(line.partition(b":")[0])
            parts.append(re.escape(line) if _IS_WANTED(line) else name + rb":[^\r\n\0]*+")
        self.match = re.compile(rb"\r\n".join(parts) + rb"\r\n\r\n").match
        self.status, self.headers, self.keep_alive = response.status, response.headers, response.keep_alive


_heads = Heads()


class Response:
    """One response, fed read by read.

    Attributes:
        status: 0 until the head is complete.
        headers: those that say how the body is framed and what it is, with lower-case names.
        keep_alive: whether the connection can carry another request.
        started: whether a single byte has come.
        streaming: the body is chunked and under way: what cannot be the last of it may go straight to ``raw``.
        raw: reads of a chunked body whose framing was not undone yet.
        raw_at: their times.
        leftover: bytes behind the end of this response.
        size: bytes of the body so far, as far as its framing was undone.
        end_ns: arrival of its last byte, 0 before that.

    """

    __slots__ = (
        "_body",
        "_body_at",
        "_left",
        "_mode",
        "_need",
        "_tail",
        "end_ns",
        "headers",
        "keep_alive",
        "leftover",
        "raw",
        "raw_at",
        "size",
        "started",
        "status",
        "streaming",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.keep_alive = True
        self.started = False
        self.streaming = False
        self.leftover = b""
        self.end_ns = 0
        self._mode = _HEAD
        self.raw: list[bytes] = []  # as read; their times lie in raw_at
        self.raw_at: list[int] = []
        self._body: list[bytes] = []
        self._body_at: list[int] = []
        self._tail = b""
        self._need = _CHUNK_SIZE
        self._left = 0
        self.size = 0

    def feed(self, at: int, data: bytes) -> bool:
        """Takes what one read brought; True when the response is complete. BadHttp when it makes no sense."""
        if self._mode == _CHUNKED:
            self.raw.append(data)
            self.raw_at.append(at)
            if not may_be_last(data):
                return False
            self._unframe()
            return self._mode == _COMPLETE
        if self._mode == _HEAD:
            return self._head(at, data)
        self._take_body(at, data)
        return self._mode == _COMPLETE

    @property
    def held_bytes(self) -> int:
        """How many bytes wait for ``take``."""
        return sum(map(len, self.raw)) + sum(map(len, self._body))

    def take(self) -> tuple[list[int], list[bytes], bool]:
        """The body so far, since the last call: times of arrival, pieces, whether it is complete. Or BadHttp.

        Pieces are the chunks of a chunked body, or parts of them where a chunk came in several reads.
        """
        if self.raw:
            self._unframe()
        at, body = self._body_at, self._body
        self._body_at, self._body = [], []
        return at, body, self._mode == _COMPLETE

    def limits(self) -> tuple[float, int] | None:
        """What the server says of the connection: idle seconds and further requests after which it closes it.

        From ``Keep-Alive: timeout=5, max=100`` (an expired draft that servers still speak); None when it does not say.
        """
        said = self.headers.get(b"keep-alive")
        if said is None:
            return None
        found = {name: int(number) for name, number in _LIMITS(said.lower())}
        return float(found.get(b"timeout", 1 << 30)), found.get(b"max", 1 << 30)

    def at_eof(self) -> bool:
        """Whether the end of the connection is the proper end of this response."""
        if self.raw:
            self._unframe()
        return self._mode in (_UNTIL_CLOSE, _COMPLETE)

    def _head(self, at: int, data: bytes) -> bool:
        self.started = True
        known = None if self._tail else _heads.match(data)
        if known is not None and (end := known.end()) <= MAX_HEAD_BYTES:
            self.status, self.headers, self.keep_alive = _heads.status, _heads.headers, _heads.keep_alive
            return self._begin_chunks(at, data[end:])
        self._tail += data
        while (end := self._tail.find(b"\r\n\r\n")) >= 0:
            head, rest = self._tail[:end], self._tail[end + 4 :]
            if len(head) > MAX_HEAD_BYTES:
                break
            status = self._parse_head(head)
            self._tail = rest
            if 100 <= status < 200:
                continue
            self.status, self._tail = status, b""
            self._begin_body(at, head, rest)
            return self._mode == _COMPLETE
        if len(self._tail) > MAX_HEAD_BYTES:
            raise BadHttp("the response's head is larger than 64 KiB")
        return False

    def _parse_head(self, head: bytes) -> int:
        first, _, lines = head.partition(b"\r\n")
        version, _, rest = first.partition(b" ")
        code = rest[:3]
        if (
            version not in (b"HTTP/1.1", b"HTTP/1.0")
            or not code.isdigit()
            or code < b"100"
            or rest[3:4] not in (b"", b" ")
        ):
            raise BadHttp(f"not an HTTP/1.1 response: {first[:60]!r}")
        if not _HEADERS(lines):
            raise BadHttp(f"not headers: {lines[:200]!r}")
        headers: dict[bytes, bytes] = {}
        for name, text in _WANTED(lines):
            key, value = name.lower(), text.rstrip()
            if key == b"content-length" and headers.get(key, value) != value:
                raise BadHttp("two different Content-Length headers")
            headers[key] = value
        self.headers = headers
        connection = headers.get(b"connection", b"").lower()
        self.keep_alive = b"close" not in connection and (version == b"HTTP/1.1" or b"keep-alive" in connection)
        return int(code)

    def _begin_chunks(self, at: int, rest: bytes) -> bool:
        self._mode, self.streaming = _CHUNKED, True
        if rest and may_be_last(rest):
            self._grow(len(rest))
            if not self._take_whole(at, rest):
                self._unchunk(at, rest)
        elif rest:
            self.raw.append(rest)
            self.raw_at.append(at)
        return self._mode == _COMPLETE

    def _begin_body(self, at: int, head: bytes, rest: bytes) -> None:
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise BadHttp("the body is compressed, though identity was asked for")
        if self.status in _NO_BODY:
            self._complete(at, rest)
            return
        coding = self.headers.get(b"transfer-encoding")
        if coding is not None:
            if coding.lower() != b"chunked":
                raise BadHttp(f"unknown Transfer-Encoding {coding[:40]!r}")
            if self.status < 300:  # what is refused has a head of its own
                _heads.learn(head, self)
            self._begin_chunks(at, rest)
            return
        length = self.headers.get(b"content-length")
        if length is None:
            self._mode, self.keep_alive = _UNTIL_CLOSE, False
        elif not length.isdigit() or len(length) > 15:
            raise BadHttp(f"not a Content-Length: {length[:40]!r}")
        else:
            self._mode, self._left = _SIZED, int(length)
        self._take_body(at, rest)

    def _take_body(self, at: int, data: bytes) -> None:
        if self._mode == _SIZED:
            data, rest = data[: self._left], data[self._left :]
            self._left -= len(data)
            self._keep(at, data)
            if self._left == 0:
                self._complete(at, rest)
        elif self._mode == _UNTIL_CLOSE:
            self._keep(at, data)
        else:
            self.leftover += data

    def _keep(self, at: int, piece: bytes) -> None:
        if piece:
            self._body.append(piece)
            self._body_at.append(at)
            self._grow(len(piece))

    def _grow(self, by: int) -> None:
        self.size += by
        if self.size > MAX_BODY_BYTES:
            raise BadHttp(f"the response is larger than {MAX_BODY_BYTES >> 20} MiB")

    def _complete(self, at: int, rest: bytes) -> None:
        self._mode, self.end_ns, self.leftover, self.streaming = _COMPLETE, at, rest, False

    def _unframe(self) -> None:
        """Undoes the chunking of what has been read so far (RFC 9112, section 7.1)."""
        reads, times = self.raw, self.raw_at
        self.raw, self.raw_at = [], []
        for at, data in zip(times, reads, strict=True):
            end = data.find(b"\r\n")
            size = _SIZES.get(data[:end], 0)
            # nearly always a read is one whole chunk
            whole = size and len(data) == end + size + 4 and data[-2:] == b"\r\n"
            if whole and self._need == _CHUNK_SIZE and not self._tail and self._mode == _CHUNKED:
                self._body.append(data[end + 2 : -2])
                self._body_at.append(at)
                self.size += size
                continue
            self._grow(len(data))
            if self._mode == _COMPLETE:
                self.leftover += data
            else:
                self._unchunk(at, data)
        self._grow(0)  # whole chunks were only counted

    def _take_whole(self, at: int, data: bytes) -> bool:
        """Takes a whole body that came in one read, as short ones do; False when it is not, or holds a CRLF."""
        parts = data.split(b"\r\n")
        sizes, body = parts[:-3:2], parts[1:-3:2]
        # what stands between two CRLF and is as long as the size in front of it is a whole chunk
        if parts[-3:] != _LAST_CHUNK or list(map(_SIZES.get, sizes)) != list(map(len, body)) or b"" in body:
            return False
        self._body, self._body_at = body, [at] * len(body)
        self._complete(at, b"")
        return True

    def _unchunk(self, at: int, data: bytes) -> None:
        if self._tail:
            data, self._tail = self._tail + data, b""
        body, body_at = self._body, self._body_at
        position, size, need = 0, len(data), self._need
        while position < size:
            if need > 0:
                piece = data[position : position + need]
                body.append(piece)
                body_at.append(at)
                position += len(piece)
                need = need - len(piece) or _CHUNK_END
                continue
            end = data.find(b"\r\n", position)
            if end < 0:
                self._tail = data[position:]
                if len(self._tail) > MAX_HEAD_BYTES:
                    raise BadHttp("a chunk's head is larger than 64 KiB")
                break
            line, position = data[position:end], end + 2
            if need == _CHUNK_SIZE:
                need = _SIZES[line] if line in _SIZES else _chunk_size(line)
                stop = position + need
                if not need:
                    need = _TRAILER
                elif data[stop : stop + 2] == b"\r\n":  # all of it is here
                    body.append(data[position:stop])
                    body_at.append(at)
                    position, need = stop + 2, _CHUNK_SIZE
            elif need == _CHUNK_END:
                if line:
                    raise BadHttp("a chunk is longer than its size")
                need = _CHUNK_SIZE
            elif not line:
                self._complete(at, data[position:])
                break
        self._need = need


def may_be_last(data: bytes) -> bool:
    """Whether a read could end a chunked body: its trailers end in an empty line; a short read may be part of it."""
    return data[-4:] == b"\r\n\r\n" or len(data) < 4


def _chunk_size(line: bytes) -> int:
    digits = line.split(b";", 1)[0].strip() if b";" in line else line.strip()
    if not digits or len(digits) > 8 or not _HEX.issuperset(digits):
        raise BadHttp(f"not a chunk size: {line[:40]!r}")
    size = int(digits, 16)
    if len(_SIZES) < _MAX_SIZES and len(line) <= 8:
        _SIZES[line] = size
    return size
