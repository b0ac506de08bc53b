"""Where does one event of a stream end and the next begin? Server-sent events and JSON lines, read by read.

Server-sent events as in the WHATWG HTML standard, section 9.2.6: lines end in LF, CR or CRLF; a blank line ends an
event; its data lines are joined by LF; comments and other fields are skipped; an event without its blank line is none.
JSON lines: one document a line.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_EVENT_BYTES = 16 << 20
_BOM = b"\xef\xbb\xbf"


class Unreadable(Exception):
    """The stream is not what it should be."""


class Lines:
    """Cuts pieces into lines; a line that came in parts arrives with its last part.

    ``began``: lines came before these, so that none of these begins with the stream's byte order mark.
    """

    __slots__ = ("_began", "_cr", "_parts", "_size")

    def __init__(self, *, began: bool = False) -> None:
        self._parts: list[bytes] = []  # of a line whose end has not come
        self._size = 0
        self._cr = False  # a CR came last: an LF behind it belongs to it
        self._began = began

    @property
    def empty(self) -> bool:
        """Whether no part of a line is held back."""
        return not self._parts

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that this piece completes; Unreadable when one grows beyond bounds."""
        if self._cr and piece:
            self._cr = False
            piece = piece.removeprefix(b"\n")
        if not piece:
            return []
        if b"\r" in piece:
            self._cr = piece[-1:] == b"\r"
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._parts.append(piece)
        self._size += len(piece)
        if b"\n" not in piece:
            self._require_bounded()
            return []
        *lines, rest = b"".join(self._parts).split(b"\n")
        self._parts, self._size = [rest] if rest else [], len(rest)
        self._require_bounded()
        if not self._began:
            self._began = True
            lines[0] = lines[0].removeprefix(_BOM)
        return lines

    def last(self) -> bytes:
        """What is left behind the last line's end."""
        return b"".join(self._parts)

    def _require_bounded(self) -> None:
        if self._size > MAX_EVENT_BYTES:
            raise Unreadable(f"an event is larger than {MAX_EVENT_BYTES >> 20} MiB")


class ServerSentEvents:
    """Reads the data of each event."""

    __slots__ = ("_began", "_data", "_lines", "_size")

    def __init__(self) -> None:
        self._began = False
        self._lines: Lines | None = None  # only where a piece is not made of whole events
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterable[bytes]:
        """The data of the events that this piece completes; Unreadable when one grows beyond bounds."""
        # nearly always a piece is one whole event of one line, or several of them
        if piece[:6] == b"data: " and piece[-2:] == b"\n\n" and self.between and b"\r" not in piece:
            self._began = True
            if piece.find(b"\n") == len(piece) - 2:
                return (piece[6:-2],)
            events = piece[6:-2].split(b"\n\ndata: ")
            if piece.count(b"\n") == 2 * len(events):
                return events
        if self._lines is None:
            self._lines = Lines(began=self._began)
        return self._events(self._lines.feed(piece))

    @property
    def between(self) -> bool:
        """Whether no part of an event is held back."""
        return self._lines is None or (not self._data and self._lines.empty)

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                self._data, self._size = [], 0
            elif line.startswith(b"data:") or line == b"data":
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
                self._size += len(line)
        if self._size > MAX_EVENT_BYTES:
            raise Unreadable(f"an event is larger than {MAX_EVENT_BYTES >> 20} MiB")
        return events

    def last(self) -> bytes:
        """What the end of the stream completes: nothing, an event needs its blank line."""
        return b""


class JsonLines:
    """Reads one document a line."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines = Lines()

    @property
    def between(self) -> bool:
        """Whether no part of a document is held back."""
        return self._lines.empty

    def feed(self, piece: bytes) -> Iterable[bytes]:
        """The documents that this piece completes; Unreadable when one grows beyond bounds."""
        return [line for line in self._lines.feed(piece) if line.strip()]

    def last(self) -> bytes:
        """The document on a last line without an end."""
        return self._lines.last().strip()
