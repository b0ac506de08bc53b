"""What does a stream say? Every shape that servers send, and none that they should not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from pytest_kitt.dialect import apis, events
from pytest_kitt.dialect.answer import Answer, bounded, error_detail
from pytest_kitt.dialect.apis import request_body
from pytest_kitt.errors import EngineRequestError
from pytest_kitt.measure.records import CountedBy, Failure


def read_stream(parts: Iterable[tuple[int, bytes]]) -> Answer:
    """What a stream of (time, bytes) says."""
    reader = apis.reader("chat", b"text/event-stream")
    for at, piece in parts:
        reader.feed([at], [piece])
    return reader.finish()


def read_document(at: int, body: bytes) -> Answer:
    """What a document says."""
    reader = apis.reader("chat", b"application/json")
    reader.feed([at], [body])
    return reader.finish()


def read_texts(chunks: Iterable[bytes]) -> Iterator[str]:
    """The texts of a stream."""
    return apis.read_texts("chat", b"text/event-stream", chunks)


def event(content: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + (content if isinstance(content, bytes) else json.dumps(content).encode()) + b"\n\n"


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chat chunk."""
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """A chunk that has usage alone."""
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


DONE = b"data: [DONE]\n\n"
STREAM = [delta(role="assistant", content=""), delta(content=" a"), delta(content=" ü"), delta("stop"), usage(5, 7)]


def pieces(*events: Any) -> list[tuple[int, bytes]]:
    """Each event in a read of its own, at times 1, 2, 3, ..."""
    return [(at, event(content)) for at, content in enumerate(events, 1)]


def test_a_plain_stream() -> None:
    """A role-only chunk is no token; usage counts."""
    answer = read_stream([*pieces(*STREAM), (9, DONE)])
    assert (list(answer.event_ns), answer.answer_event, answer.text) == ([2, 3], 0, " a ü")
    assert (answer.isl, answer.osl, answer.counted_by) == (5, 7, CountedBy.USAGE)
    assert (answer.finish_reason, answer.failure) == ("stop", Failure.NONE)


def test_every_split_gives_the_same_text() -> None:
    """However the bytes are cut, in the middle of a character too, text and number of events are the same."""
    whole = b"".join(event(content) for content in STREAM) + DONE
    for size in (1, 2, 3, 7, 50):
        cut = [(at, whole[at : at + size]) for at in range(0, len(whole), size)]
        answer = read_stream(cut)
        assert (answer.text, len(answer.event_ns), answer.failure) == (" a ü", 2, Failure.NONE)


def test_an_event_arrives_with_its_last_byte() -> None:
    """Half an event is no event."""
    first = event(delta("stop", content="x"))
    assert read_stream([(1, first[:20]), (2, first[20:]), (3, DONE)]).event_ns.tolist() == [2]


def test_reasoning_and_tool_calls_are_tokens_but_no_answer() -> None:
    """TTFT begins with reasoning or a tool call, the answer with content."""
    call: dict[str, Any] = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}
    empty: dict[str, Any] = {"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}
    answer = read_stream(
        pieces(delta(reasoning_content="hm"), delta(**call), delta(**empty), delta("stop", content="x"))
    )
    assert (list(answer.event_ns), answer.answer_event, answer.text) == ([1, 2, 4], 2, "x")
    assert (answer.osl, answer.counted_by) == (3, CountedBy.CHUNKS)


def test_completions_and_usage_on_every_chunk() -> None:
    """The completions form; the last usage is the one that counts."""
    chunk = {"choices": [{"text": " a", "finish_reason": None}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    last = {
        "choices": [{"text": " b", "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    answer = read_stream([*pieces(chunk, last), (9, DONE)])
    assert (answer.text, answer.osl, answer.finish_reason) == (" a b", 2, "length")


def test_the_spelling_of_an_end_token_is_no_text() -> None:
    """As TGI's completions stream it: an empty reason until the last chunk, which spells the token that ended it."""
    chunk = {"choices": [{"text": " 7", "logprobs": None, "finish_reason": ""}]}
    last = {
        "choices": [{"text": "<|end|>", "logprobs": None, "finish_reason": "eos_token"}],
        "usage": {"prompt_tokens": 19, "completion_tokens": 2},
    }
    answer = read_stream([*pieces(chunk, last), (9, DONE)])
    assert (answer.text, answer.osl, answer.finish_reason) == (" 7", 2, "eos_token")


def test_legal_forms_of_server_sent_events() -> None:
    """Comments, CRLF, other fields, no space behind the colon, and several data lines are all legal."""
    raw = json.dumps(delta("stop", content="x")).encode()
    first, second = raw.split(b",", 1)
    forms = [
        b": ping\n\ndata: " + raw + b"\n\n",
        b"event: message\r\nid: 3\r\ndata: " + raw + b"\r\n\r\n",
        b"data:" + raw + b"\n\n",
        b"data: " + first + b",\ndata: " + second + b"\n\n",
        b"\n\n\ndata: " + raw + b"\n\n",
        b"data\ndata: " + raw + b"\n\n",
        b"data:\n\ndata: \n\ndata\n\ndata: " + raw + b"\n\n",
    ]
    for form in forms:
        answer = read_stream([(1, form), (2, DONE)])
        assert (answer.text, list(answer.event_ns)) == ("x", [1])


FAULTY: list[tuple[list[bytes], Failure, int]] = [
    ([event(delta(content="x"))], Failure.BAD_STREAM, 1),  # neither [DONE] nor a finish reason: it was cut off
    ([event(delta(content="x")), event(b'{"choi')], Failure.BAD_STREAM, 1),
    ([event(b"[1]")], Failure.BAD_STREAM, 0),
    ([event(b'{"choices":[{"delta":{"content":"\xff"}}]}')], Failure.BAD_STREAM, 0),
    ([event(delta(content="x")), event({"error": {"message": "boom"}}), DONE], Failure.ERROR_EVENT, 1),
    ([event(delta(content="x")), event({"object": "error", "message": "boom"}), DONE], Failure.ERROR_EVENT, 1),
    ([event(delta(content="x")), event({"error": "boom"}), DONE], Failure.ERROR_EVENT, 1),
    ([event(delta("abort", content="x")), DONE], Failure.ERROR_EVENT, 1),  # the server gave the answer up
    ([event(delta("stop")), DONE], Failure.NO_TOKENS, 0),
    ([DONE], Failure.NO_TOKENS, 0),
    ([event(usage(5, 7)), DONE], Failure.NO_TOKENS, 0),  # tokens that nobody has seen have no times
    ([], Failure.BAD_STREAM, 0),
    ([b"data: " + b"x" * (17 << 20)], Failure.BAD_STREAM, 0),
    ([b"<html>busy</html>"], Failure.BAD_STREAM, 0),
]


@pytest.mark.parametrize("parts, failure, tokens", FAULTY)
def test_faults_have_their_class(parts: list[bytes], failure: Failure, tokens: int) -> None:
    """What is no good answer is never counted as one, and says why in one bounded line."""
    answer = read_stream(list(enumerate(parts, 1)))
    assert (answer.failure, len(answer.event_ns)) == (failure, tokens)
    assert 0 < len(answer.detail) <= 300
    assert "\n" not in answer.detail


@pytest.mark.parametrize(
    "events, osl, counted_by",
    [
        ([delta(content="a"), delta("stop", content="b"), usage(5, 9)], 9, CountedBy.USAGE),
        ([usage(5, 9), delta(content="a"), delta("stop", content="b")], 9, CountedBy.USAGE),
        ([delta(content="a"), delta("stop", content="b")], 2, CountedBy.CHUNKS),
        ([delta(content="a"), delta("stop", content="b"), usage(5, 0)], 2, CountedBy.CHUNKS),  # 0 means: not counted
        ([delta(content="a"), delta("stop", content="b"), usage(5, -3)], 2, CountedBy.CHUNKS),
        ([delta(content="a"), delta("stop", content="b"), {"choices": [], "usage": None}], 2, CountedBy.CHUNKS),
        ([delta(content="a"), {"usage": {"completion_tokens": True}}, delta("stop", content="b")], 2, CountedBy.CHUNKS),
    ],
)
def test_who_counts(events: list[Any], osl: int, counted_by: CountedBy) -> None:
    """The server's usage counts, wherever it stands; where it says nothing of use, the events do, and it shows."""
    answer = read_stream([*pieces(*events), (9, DONE)])
    assert (answer.osl, answer.counted_by, answer.failure) == (osl, counted_by, Failure.NONE)


def test_events_of_one_read_share_its_time() -> None:
    """What one read brought has one time, and no event is lost or made up."""
    three = b"".join(event(delta(content=c)) for c in "abc")
    assert read_stream([(1, three), (2, event(delta("stop", content="d")) + DONE)]).event_ns.tolist() == [1, 1, 1, 2]


def compact(text: str, **others: Any) -> bytes:
    """An event of a stream of completions, without a space between its tokens."""
    return event(json.dumps({"choices": [{"text": text}], **others}, separators=(",", ":")).encode())


def test_a_text_that_looks_like_the_punctuation_around_it() -> None:
    """A ":" as the third token is no fault of the stream, though the same bytes stand before every value."""
    answer = read_stream([*enumerate([compact("a"), compact("b"), compact(":"), compact("c")], 1), (5, DONE)])
    assert (answer.text, answer.failure) == ("ab:c", Failure.NONE)


def test_timings_that_say_nothing_take_nothing_back() -> None:
    """Durations stay what they were said to be, whatever comes behind."""
    empty = [compact(c, timings={"n": 1}) for c in "abcd"]
    said = compact("x", timings={"prompt_ms": 4, "predicted_ms": 8})
    for parts in ([said, *empty], [*empty, said, compact("y", timings={"n": 1})]):
        answer = read_stream([*enumerate(parts, 1), (9, DONE)])
        assert (answer.prefill_ns, answer.decode_ns) == (4_000_000, 8_000_000)


@pytest.mark.parametrize("behind", [1, 2])
def test_a_byte_order_mark_is_one_at_the_beginning_only(behind: int) -> None:
    """Elsewhere it is part of its line, which is no data then, however the stream was cut."""
    parts = [compact("a"), b"\xef\xbb\xbf" + compact("b"), compact("c"), DONE]
    cut = [b"".join(parts[:behind]), *parts[behind:]]
    assert read_stream(enumerate(cut, 1)).text == "ac"
    assert read_stream(enumerate([parts[1], *parts[2:]], 1)).text == "bc"


def test_an_event_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line, or many lines, that never become an event are cut off; a stream of small events may be any length."""
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", 1000)
    line = [(at, b"x" * 10) for at in range(101)]
    lines = [(at, b"data: 123\n") for at in range(200)]
    for endless in ([(0, b"data: "), *line], lines):
        answer = read_stream(endless)
        assert answer.failure is Failure.BAD_STREAM
        assert "larger" in answer.detail
    many = [(at, event(delta(content="x"))) for at in range(100)]
    assert len(read_stream([*many, (100, DONE)]).event_ns) == 100


def test_a_huge_event_in_small_pieces_is_read_once() -> None:
    """Time grows with the size of an event, not with its square: 8 MB in segments would take minutes."""
    whole = event(delta("stop", content="x" * (8 << 20))) + DONE
    answer = read_stream((at, whole[at : at + 1448]) for at in range(0, len(whole), 1448))
    assert (len(answer.text), len(answer.event_ns)) == (8 << 20, 1)


def test_done_may_be_missing_behind_a_finish_reason() -> None:
    """A finish reason is an end as well."""
    assert read_stream(pieces(delta("stop", content="x"))).failure is Failure.NONE


HOSTILE: list[Any] = [None, 1, "x", [], {}, [[]], {"a": 1}, True, -1, 1 << 80, 1.5]


@pytest.mark.parametrize("value", HOSTILE)
def test_wrong_types_never_raise(value: Any) -> None:
    """Whatever stands in a field, the outcome is a failure or an answer, never an exception."""
    documents = [
        {"choices": value},
        {"choices": [value]},
        {"choices": [{"delta": value, "finish_reason": value}]},
        {"choices": [{"delta": {"content": value, "tool_calls": value, "reasoning": value}}]},
        {"choices": [{"delta": {"tool_calls": [value, {"function": value}]}}]},
        {"usage": value, "choices": []},
        {"usage": {"prompt_tokens": value, "completion_tokens": value}},
        {"error": value},
        {"error": {"message": value}},
    ]
    for document in documents:
        if len(str(value)) > 20:
            continue  # beyond 64 bits orjson refuses the document as a whole
        answer = read_stream([*pieces(document), (9, DONE)])
        assert answer.failure is not Failure.NONE or answer.event_ns
        assert isinstance(answer.osl, int)


@pytest.mark.parametrize("depth", [10, 500, 1000, 1020, 5000])
def test_deep_nesting_never_raises(depth: int) -> None:
    """However deep a document is nested, wherever, the outcome is a bounded sentence."""
    deep = b"[" * depth + b"]" * depth
    for raw in (b'{"error":' + deep + b"}", b'{"error":{"message":' + deep + b"}}", b'{"choices":' + deep + b"}"):
        assert read_stream([(1, event(raw))]).failure in (Failure.ERROR_EVENT, Failure.BAD_STREAM)
        assert len(error_detail(raw)) <= 300
    assert len(error_detail(deep)) <= 300


def test_documents_that_were_not_streamed() -> None:
    """All tokens arrive at once; usage counts them."""
    body = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}
    answer = read_document(7, json.dumps(body).encode())
    assert (list(answer.event_ns), answer.text, answer.osl, answer.failure) == ([7], "hi", 3, Failure.NONE)
    assert read_document(7, b"<html>").failure is Failure.BAD_STREAM


def test_error_details_are_bounded_and_plain() -> None:
    """What a server says of its error is one line without control characters."""
    assert error_detail(b'{"error":{"message":"too\\nlong"}}') == "too long"
    assert error_detail(b'{"detail":"x"}') == "x"
    assert error_detail(b'{"error":"x"}') == "x"
    assert error_detail(b'{"detail":[{"msg":"x"}]}') == '{"detail":[{"msg":"x"}]}'
    assert error_detail(b'"x"') == "x"
    assert error_detail(b"") == ""
    assert error_detail(b"\x1b[31m<b>no\xff</b>") == "[31m<b>no\ufffd</b>"
    assert len(bounded("x" * 10_000)) == 300


def test_requests() -> None:
    """Greedy, streamed with usage; extra fields win."""
    body = request_body("chat", "m", "hi", max_tokens=3, extra={"ignore_eos": True})
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert (body["temperature"], body["stream"], body["ignore_eos"]) == (0.0, True, True)
    assert body["stream_options"] == {"include_usage": True}
    plain = request_body("completions", "m", "hi", max_tokens=3, stream=False)
    assert (plain["prompt"], "stream_options" in plain) == ("hi", False)
    assert list(read_texts([event(delta(content="a")), event(delta(content="b")), DONE])) == ["a", "b"]


@pytest.mark.parametrize("last", [event({"error": {"message": "boom"}}), event(b"boom"), b"data: " + b"x" * (17 << 20)])
def test_texts_of_a_bad_stream(last: bytes) -> None:
    """A stream that goes wrong gives what it had and then an error, not a short answer."""
    texts = iter(read_texts([event(delta(content="a")), last]))
    assert next(texts) == "a"
    with pytest.raises(EngineRequestError):
        next(texts)
