"""How is an OpenAI-compatible server asked, and what do its streams say?

Protocols: OpenAI's completions and chat completions; server-sent events as in the WHATWG HTML standard (9.2).
A token-bearing event is one whose first choice carries non-empty content, reasoning or tool-call text: a role-only
first delta is none. Everything that a server says is bounded here and never trusted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import orjson

from pytest_kitt.errors import EngineRequestError
from pytest_kitt.measure.records import CountedBy, Failure

Api = Literal["chat", "completions"]
PATHS: dict[str, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
MAX_EVENT_BYTES = 16 << 20
MAX_DETAIL_CHARS = 300
_CONTENT_KEYS = ("content", "text")
_REASONING_KEYS = ("reasoning_content", "reasoning")
_TOOL_KEYS = ("name", "arguments")
_BROKEN_OFF = ("abort", "error")  # finish reasons of an answer that the server gave up


@dataclasses.dataclass(slots=True)
class Answer:
    """What one response said.

    Attributes:
        event_ns: arrival of each token-bearing event.
        answer_event: index of the first event with answer text, -1 none.
        text: the answer's text, joined.
        isl: prompt tokens by the server's count, -1 when it did not say.
        osl: completion tokens, -1 unknown.
        counted_by: who counted osl.
        finish_reason: as the server said, empty when it did not.
        failure: why the response is no good answer.
        detail: one bounded sentence about the failure.

    """

    event_ns: list[int] = dataclasses.field(default_factory=list)
    answer_event: int = -1
    text: str = ""
    isl: int = -1
    osl: int = -1
    counted_by: CountedBy = CountedBy.NOBODY
    finish_reason: str = ""
    failure: Failure = Failure.NONE
    detail: str = ""


def request_body(
    api: Api,
    model: str,
    prompt: str,
    *,
    max_tokens: int,
    stream: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON object of one request: greedy, with usage in the stream."""
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]} if api == "chat" else {"prompt": prompt}
    body = {"model": model, **asked, "max_tokens": max_tokens, "temperature": 0.0, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return {**body, **(extra or {})}


def read_stream(pieces: Iterable[tuple[int, bytes]]) -> Answer:
    """Reads an event stream from (arrival in ns, bytes) pieces; an event arrives with the piece that completes it."""
    reader = _Stream()
    try:
        for at, data in _events(pieces):
            reader.take(at, data)
    except _Unreadable as error:
        return reader.failed(Failure.BAD_STREAM, str(error))
    return reader.finish()


def read_document(at: int, body: bytes) -> Answer:
    """Reads an answer that was not streamed: all of its tokens arrive at once."""
    reader = _Stream()
    try:
        reader.take(at, body)
    except _Unreadable as error:
        return reader.failed(Failure.BAD_STREAM, str(error))
    return reader.finish()


def read_texts(chunks: Iterable[bytes]) -> Iterator[str]:
    """The texts of a stream's events as they come; EngineRequestError when it is no good stream."""
    reader = _Stream()
    try:
        for at, data in _events((0, chunk) for chunk in chunks):
            before = len(reader.texts)
            reader.take(at, data)
            yield from reader.texts[before:]
    except _Unreadable as error:
        raise EngineRequestError(str(error)) from None
    if reader.answer.failure is not Failure.NONE:
        raise EngineRequestError(reader.answer.detail)


def error_detail(body: bytes) -> str:
    """What the body of an error response says, in one bounded line."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    return bounded(_error_text(said, body))


def bounded(text: str) -> str:
    """At most 300 printable characters on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_DETAIL_CHARS]).split())
    return line if len(line) <= MAX_DETAIL_CHARS else line[: MAX_DETAIL_CHARS - 1] + "…"


class _Unreadable(Exception):
    """The stream is not what the dialect expects."""


def _events(pieces: Iterable[tuple[int, bytes]]) -> Iterable[tuple[int, bytes]]:
    rest: list[bytes] = []  # of a line whose end has not come
    data: list[bytes] = []
    size = 0
    for at, piece in pieces:
        rest.append(piece)
        size += len(piece)
        if b"\n" in piece:
            *lines, last = b"".join(rest).split(b"\n")
            for raw in lines:
                line = raw[:-1] if raw[-1:] == b"\r" else raw
                if line:
                    if line.startswith(b"data:"):
                        data.append(line[6:] if line[5:6] == b" " else line[5:])
                elif data:
                    yield at, data[0] if len(data) == 1 else b"\n".join(data)
                    data = []
            rest, size = [last], len(last) + sum(map(len, data))
        if size > MAX_EVENT_BYTES:
            raise _Unreadable(f"an event is larger than {MAX_EVENT_BYTES >> 20} MiB")


class _Stream:
    """Collects what the events of one response say."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.texts: list[str] = []
        self.done = False

    def take(self, at: int, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            said = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise _Unreadable(
                f"an event is not JSON ({error}): {bounded(data[:200].decode('utf-8', 'replace'))}"
            ) from None
        if not isinstance(said, dict):
            raise _Unreadable("an event is not a JSON object")
        if said.get("error") or said.get("object") == "error":
            self.answer.failure, self.answer.detail = Failure.ERROR_EVENT, bounded(_error_text(said, data))
            return
        self._usage(said.get("usage"))
        choices = said.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            self._choice(at, choices[0])

    def finish(self) -> Answer:
        answer = self.answer
        answer.text = "".join(self.texts)
        if answer.failure is Failure.NONE and not self.done and not answer.finish_reason:
            return self.failed(Failure.BAD_STREAM, "the stream ended without [DONE] and without a finish reason")
        if answer.failure is Failure.NONE and not answer.event_ns:
            return self.failed(Failure.NO_TOKENS, "the answer holds no token")
        if answer.finish_reason in _BROKEN_OFF and answer.failure is Failure.NONE:
            return self.failed(Failure.ERROR_EVENT, f"the server broke the answer off: {answer.finish_reason}")
        if answer.osl <= 0 and answer.event_ns:  # some servers say 0 where they have not counted
            answer.osl, answer.counted_by = len(answer.event_ns), CountedBy.CHUNKS
        return answer

    def failed(self, failure: Failure, detail: str) -> Answer:
        self.answer.failure, self.answer.detail = failure, bounded(detail)
        self.answer.text = "".join(self.texts)
        return self.answer

    def _usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is int and 0 <= prompt < 1 << 31:
            self.answer.isl = prompt
        if type(completion) is int and 0 <= completion < 1 << 31:
            self.answer.osl, self.answer.counted_by = completion, CountedBy.USAGE

    def _choice(self, at: int, choice: dict[str, Any]) -> None:
        said = choice.get("delta") or choice.get("message") or choice
        if not isinstance(said, dict):
            return
        answer = self.answer
        text = _first_text(said, _CONTENT_KEYS)
        if text:
            self.texts.append(text)
            if answer.answer_event < 0:
                answer.answer_event = len(answer.event_ns)
        if text or _first_text(said, _REASONING_KEYS) or _tool_text(said.get("tool_calls")):
            answer.event_ns.append(at)
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            answer.finish_reason = reason[:40]


def _first_text(said: Mapping[str, Any], keys: Iterable[str]) -> str:
    return next((text for key in keys if isinstance(text := said.get(key), str) and text), "")


def _tool_text(calls: Any) -> bool:
    if not isinstance(calls, list):
        return False
    functions = (call.get("function") for call in calls if isinstance(call, dict))
    return any(isinstance(f, dict) and _first_text(f, _TOOL_KEYS) for f in functions)


def _error_text(said: Any, raw: bytes) -> str:
    """The sentence in an error object; the object as it came when there is none."""
    error = said.get("error", said) if isinstance(said, dict) else said
    text = _first_text(error, ("message", "detail")) if isinstance(error, dict) else error
    return text if isinstance(text, str) and text else raw[: 4 * MAX_DETAIL_CHARS].decode("utf-8", "replace")
