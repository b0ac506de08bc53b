"""What did one response say? Its tokens' times and counts, read document by document, whatever the protocol.

Everything that a server says is bounded here and never trusted.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from pytest_kitt.dialect.details import Details
from pytest_kitt.dialect.events import JsonLines, ServerSentEvents, Unreadable
from pytest_kitt.dialect.finish import BROKEN_OFF, finish
from pytest_kitt.measure.records import CountedBy, Failure

MAX_DETAIL_CHARS = 300
_MAX_NS = 1 << 62
_PLAIN = re.compile(rb"[ !#-\[\]-~]+").fullmatch  # stands for itself in a JSON string
_PROBE = b"kitt probe"
_FIRST_LESSON, _NEXT_LESSON = 3, 32
_NEVER = 1 << 62


@dataclasses.dataclass(slots=True)
class Answer:
    """What one response said.

    Attributes:
        event_ns: arrival of each token-bearing event.
        answer_event: index of the first event with answer text, -1 none.
        merged: events that one read brought together with the one before, in a chunk of their own.
        bundled: events that came in one chunk with the one before: the server sent them together.
        text: the answer's text, where it was to be kept.
        reasoning: the reasoning and tool-call text, likewise.
        isl: prompt tokens by the server's count, -1 when it did not say.
        osl: completion tokens, -1 unknown.
        counted_by: who counted osl.
        finish_reason: as the server said, empty when it did not.
        prefill_ns: how long the server says that it read the prompt, -1 when it does not say.
        decode_ns: how long it says that it wrote the answer, likewise.
        failure: why the response is no good answer.
        detail: one bounded sentence about the failure.

    """

    event_ns: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    answer_event: int = -1
    merged: int = 0
    bundled: int = 0
    text: str = ""
    reasoning: str = ""
    isl: int = -1
    osl: int = -1
    counted_by: CountedBy = CountedBy.NOBODY
    finish_reason: str = ""
    prefill_ns: int = -1
    decode_ns: int = -1
    failure: Failure = Failure.NONE
    detail: str = ""

    @property
    def finish(self) -> str:
        """The finish reason in one word for all servers: stop, length, tool_calls, content_filter, ..."""
        return finish(self.finish_reason)


class Reader(ABC):
    """Reads one response, piece by piece; never raises for what a server says.

    Attributes:
        learns: whether most events of a stream differ in nothing but their text.
        answer: what has been said so far.
        details: what was said beside the text, None where nobody asks for it.

    """

    learns = True

    def __init__(
        self, events: ServerSentEvents | JsonLines | None, *, keep_text: bool = True, detailed: bool = False
    ) -> None:
        self.answer = Answer()
        self.details = Details() if detailed else None
        self.done = False
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self._keep_text = keep_text
        self._events = events  # None: the body is one document
        self._document: list[bytes] = []
        self._last_at = 0
        self._last_text = ""
        self._known: tuple[bytes, bytes, int, int] | None = None  # before and behind the text, and their sizes
        self._lesson_in = _FIRST_LESSON if self.learns and not detailed else _NEVER

    def feed(self, times: Iterable[int], pieces: Iterable[bytes]) -> None:
        """Takes pieces of the body with their times of arrival in ns."""
        if self._events is None:
            for self._last_at, piece in zip(times, pieces, strict=True):
                self._document.append(piece)
            return
        if self.answer.failure is Failure.BAD_STREAM:
            return
        try:
            for at, piece in zip(times, pieces, strict=True):
                known = self._known
                if (
                    known is not None
                    and piece.startswith(known[0])
                    and piece.endswith(known[1])
                    and _PLAIN(piece, known[2], len(piece) - known[3]) is not None
                    and self._events.between
                ):
                    self._known_piece(at, piece, known)
                else:
                    self._piece(self._events, at, piece)
        except Unreadable as error:
            self.fail(Failure.BAD_STREAM, str(error))

    def _known_piece(self, at: int, piece: bytes, known: tuple[bytes, bytes, int, int]) -> None:
        event_ns = self.answer.event_ns
        if event_ns[-1] == at:
            self.answer.merged += 1
        event_ns.append(at)
        if self._keep_text:
            self._keep(piece[known[2] : len(piece) - known[3]].decode("ascii"), "")

    def _piece(self, events: ServerSentEvents | JsonLines, at: int, piece: bytes) -> None:
        event_ns = self.answer.event_ns
        before = len(event_ns)
        whole = events.between
        self._last_at = at
        for data in events.feed(piece):
            self._take(at, data)
        new = len(event_ns) - before
        if new and before and event_ns[before - 1] == at:
            self.answer.merged += 1
        if new > 1:
            self.answer.bundled += new - 1
        elif new:
            self._lesson_in -= 1
            if self._lesson_in <= 0 and whole and events.between:
                self._lesson_in = _NEXT_LESSON
                self._learn(type(events), piece)

    def finish(self) -> Answer:
        """The answer when the body has ended."""
        answer = self.answer
        rest = b"".join(self._document) if self._events is None else self._events.last()
        if rest and answer.failure is not Failure.BAD_STREAM:
            try:
                self._take(self._last_at, rest)
            except Unreadable as error:
                self.fail(Failure.BAD_STREAM, str(error))
        answer.text, answer.reasoning = "".join(self.texts), "".join(self.thoughts)
        if answer.failure is Failure.NONE and not self.done and not answer.finish_reason:
            self.fail(Failure.BAD_STREAM, "the stream ended without [DONE] and without a finish reason")
        elif answer.failure is Failure.NONE and not answer.event_ns:
            self.fail(Failure.NO_TOKENS, "the answer holds no token")
        elif answer.failure is Failure.NONE and answer.finish == BROKEN_OFF:
            self.fail(Failure.ERROR_EVENT, f"the server broke the answer off: {answer.finish_reason}")
        elif answer.osl <= 0 and answer.event_ns:  # some servers say 0 where they have not counted
            answer.osl, answer.counted_by = len(answer.event_ns), CountedBy.CHUNKS
        return answer

    def fail(self, failure: Failure, detail: str) -> None:
        """Says why this is no good answer."""
        self.answer.failure, self.answer.detail = failure, bounded(detail)

    @abstractmethod
    def _said(self, said: dict[str, Any]) -> tuple[str, str]:
        """Takes one document; the answer text and the other token-bearing text in it."""

    def _take(self, at: int, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        if not data:  # an event that says nothing
            return
        try:
            said = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            start = bounded(data[:200].decode("utf-8", "replace"))
            raise Unreadable(f"an event is not JSON ({error}): {start}") from None
        if not isinstance(said, dict):
            raise Unreadable("an event is not a JSON object")
        if said.get("error") or said.get("object") == "error":
            self.fail(Failure.ERROR_EVENT, error_text(said, data))
            return
        text, other = self._said(said)
        if not text and not other:
            return
        answer = self.answer
        self._last_text = text
        if text and answer.answer_event < 0:
            answer.answer_event = len(answer.event_ns)
        answer.event_ns.append(at)
        if self._keep_text:
            self._keep(text, other)

    def _keep(self, text: str, other: str) -> None:
        self.texts.append(text)
        self.thoughts.append(other)

    def _learn(self, cut: type[ServerSentEvents | JsonLines], piece: bytes) -> None:
        """Remembers a piece that is one event as what stands before and behind its text.

        These same bytes around another plain text are the same event with that text, and need not be parsed: most of a
        stream is made of such. That the text stands there, and that the event says nothing else, is proved by reading
        it with a text of our own.
        """
        raw = b'"' + self._last_text.encode("utf-8", "surrogatepass") + b'"'
        before, found, behind = piece.partition(raw)
        if not self._last_text or not found or raw in behind:
            return
        before, behind = before + b'"', b'"' + behind
        reader, events = type(self)(cut()), cut()
        try:
            for data in events.feed(before + _PROBE + behind):
                reader._take(0, data)  # noqa: SLF001 - of its own class
        except Unreadable:  # what was found is not the text: ":" stands in "text":"x" as well
            return
        one_event = Answer(event_ns=array("q", [0]), answer_event=0)
        one_text = (reader.texts, reader.thoughts) == ([_PROBE.decode()], [""])
        if one_text and reader.answer == one_event and not reader.done and events.between:
            self._known = before, behind, len(before), len(behind)

    def _counts(self, prompt: Any, completion: Any) -> None:
        """Takes the server's own counts, if they are such."""
        if type(prompt) is int and 0 <= prompt < 1 << 31:
            self.answer.isl = prompt
        if type(completion) is int and 0 <= completion < 1 << 31:
            self.answer.osl, self.answer.counted_by = completion, CountedBy.USAGE

    def _durations(self, prefill: Any, decode: Any, ns_per_unit: float) -> None:
        """Takes the server's own durations, if they are such."""
        prefill_ns, decode_ns = _ns(prefill, ns_per_unit), _ns(decode, ns_per_unit)
        if prefill_ns >= 0:
            self.answer.prefill_ns = prefill_ns
        if decode_ns >= 0:
            self.answer.decode_ns = decode_ns


@functools.lru_cache(maxsize=64)
def cut_by(content_type: bytes, *, lines: bool = False) -> type[ServerSentEvents | JsonLines] | None:
    """How a body is cut into documents; None: it is one. A server that was asked for a stream may answer with one."""
    kind = content_type.partition(b";")[0].strip().lower()
    if kind in (b"application/x-ndjson", b"application/jsonl", b"application/json-lines"):
        return JsonLines
    if kind == b"application/json":
        return JsonLines if lines else None
    return JsonLines if lines else ServerSentEvents


def first_text(said: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The first of some keys that holds text."""
    for key in keys:
        text = said.get(key)
        if text and isinstance(text, str):
            return text
    return ""


def error_detail(body: bytes) -> str:
    """What the body of an error response says, in one bounded line."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    return bounded(error_text(said, body))


def error_text(said: Any, raw: bytes) -> str:
    """The sentence in an error object; the object as it came when there is none."""
    error = said.get("error", said) if isinstance(said, dict) else said
    text = first_text(error, ("message", "detail")) if isinstance(error, dict) else error
    return text if isinstance(text, str) and text else raw[: 4 * MAX_DETAIL_CHARS].decode("utf-8", "replace")


def bounded(text: str) -> str:
    """At most 300 printable characters on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_DETAIL_CHARS]).split())
    return line if len(line) <= MAX_DETAIL_CHARS else line[: MAX_DETAIL_CHARS - 1] + "…"


def _ns(value: Any, ns_per_unit: float) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value * ns_per_unit < _MAX_NS:
        return -1
    return round(value * ns_per_unit)
