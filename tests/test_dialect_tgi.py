"""What does TGI say in its own tongue? An event a token, counts in the last, errors where tokens should be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_kitt.dialect import apis
from pytest_kitt.dialect.answer import Answer, error_detail
from pytest_kitt.dialect.details import TokenLogprob
from pytest_kitt.measure.records import CountedBy, Failure


def event(content: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def token(index: int, text: str, *, number: int = 0, special: bool = False, **others: Any) -> dict[str, Any]:
    """What one token says."""
    said = {"id": number or 100 + index, "text": text, "logprob": -index / 8, "special": special}
    return {"index": index, "token": said, "generated_text": None, "details": None, **others}


def ended(reason: str = "eos_token", *, generated: int = 4, prompt: int = 7) -> dict[str, Any]:
    """What the last event of a stream says beside its token."""
    counts = {"finish_reason": reason, "generated_tokens": generated, "seed": None, "input_length": prompt}
    return {"generated_text": " a ü b", "details": counts}


STREAM = [
    event(token(1, " a")),
    b":\n\n",  # it is still alive
    event(token(2, " ü")),
    event(token(3, "")),  # half a character: the rest comes with the next token
    event(token(4, " b")),
    event(token(5, "</s>", number=2, special=True, **ended(generated=5))),
]


def read(*pieces: bytes, detailed: bool = False) -> Answer:
    """What a stream in pieces says; each piece arrives one later."""
    reader = apis.reader("tgi", b"text/event-stream", detailed=detailed)
    reader.feed(range(1, len(pieces) + 1), pieces)
    return reader.finish()


def test_a_stream() -> None:
    """Special tokens and empty ones have no text and no event; the server counts them all."""
    answer = read(*STREAM)
    assert (list(answer.event_ns), answer.answer_event, answer.text) == ([1, 3, 5], 0, " a ü b")
    assert (answer.isl, answer.osl, answer.counted_by) == (7, 5, CountedBy.USAGE)
    assert (answer.finish_reason, answer.finish, answer.failure) == ("eos_token", "stop", Failure.NONE)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
@pytest.mark.parametrize("detailed", [False, True])
def test_every_split_gives_the_same(size: int, *, detailed: bool) -> None:
    """However the bytes are cut, in the middle of a character too; the end of a line may be a CRLF."""
    for whole in (b"".join(STREAM), b"".join(STREAM).replace(b"\n", b"\r\n"), b"".join(STREAM).replace(b": {", b":{")):
        answer = read(*(whole[at : at + size] for at in range(0, len(whole), size)), detailed=detailed)
        assert (len(answer.event_ns), answer.text, answer.osl, answer.failure) == (3, " a ü b", 5, Failure.NONE)


@pytest.mark.parametrize("word, ours", [("length", "length"), ("eos_token", "stop"), ("stop_sequence", "stop")])
def test_finish_reasons(word: str, ours: str) -> None:
    """TGI's words for them are kept, and mean the same as other servers'."""
    answer = read(event(token(1, "x", **ended(word))))
    assert (answer.finish_reason, answer.finish) == (word, ours)


def test_a_stream_without_details_counts_its_events() -> None:
    """Whoever did not ask for details is told no counts; the end is clear without them."""
    answer = read(event(token(1, "a")), event(token(2, "b", generated_text="ab")))
    assert (answer.osl, answer.counted_by, answer.finish, answer.failure) == (2, CountedBy.CHUNKS, "", Failure.NONE)


ERROR = {"error": "Input validation error: `inputs` must have less than 3 tokens. Given: 9", "error_type": "validation"}


@pytest.mark.parametrize(
    "pieces, failure, detail",
    [
        ([event(ERROR)], Failure.ERROR_EVENT, "must have less than 3 tokens"),  # the status was 200
        ([STREAM[0], event({"error": "Request failed during generation: boom"})], Failure.ERROR_EVENT, "boom"),
        ([STREAM[0]], Failure.BAD_STREAM, "ended without"),
        ([event(token(1, "</s>", special=True, **ended(generated=1)))], Failure.NO_TOKENS, "no token"),
        ([b"data: {nonsense\n\n"], Failure.BAD_STREAM, "not JSON"),
    ],
)
def test_faults(pieces: list[bytes], failure: Failure, detail: str) -> None:
    """Each has its class, and says why."""
    answer = read(*pieces)
    assert answer.failure is failure
    assert detail in answer.detail


def test_an_error_of_a_request() -> None:
    """As the body of a status."""
    assert error_detail(json.dumps(ERROR).encode()) == ERROR["error"]


def test_ids_and_logprobs_of_a_stream() -> None:
    """They are in each event, special tokens' too, and are read where somebody asks."""
    likely = [
        {"id": 101, "text": " a", "logprob": -0.125, "special": False},
        {"id": 9, "text": " the", "logprob": -2.5},
    ]
    reader = apis.reader("tgi", b"text/event-stream", detailed=True)
    reader.feed([1], [event(token(1, " a", top_tokens=likely)) + b"".join(STREAM[2:])])
    reader.finish()
    assert reader.details is not None
    assert reader.details.token_ids == (101, 102, 103, 104, 2)
    assert reader.details.logprobs is not None
    assert reader.details.logprobs[0] == TokenLogprob(" a", -0.125, 101, ((" a", -0.125), (" the", -2.5)))
    assert [entry.token for entry in reader.details.logprobs] == [" a", " ü", "", " b", "</s>"]
    assert (reader.details.reasoning, reader.details.tool_calls) == (None, None)


def test_one_document() -> None:
    """An answer that was not streamed."""
    tokens = [token(1, " a")["token"], token(2, " b")["token"]]
    details = {"finish_reason": "length", "generated_tokens": 2, "seed": 1, "prefill": [], "tokens": tokens}
    answer, beside = apis.read_document("tgi", json.dumps({"generated_text": " a b", "details": details}).encode())
    assert (answer.text, answer.osl, answer.isl, answer.finish) == (" a b", 2, -1, "length")
    assert beside.token_ids == (101, 102)
    likely = {**details, "top_tokens": [[tokens[1]], [tokens[0]]]}
    _, beside = apis.read_document("tgi", json.dumps({"generated_text": " a b", "details": likely}).encode())
    assert beside.logprobs is not None
    assert [entry.top for entry in beside.logprobs] == [((" b", -0.25),), ((" a", -0.125),)]
    answer, beside = apis.read_document("tgi", b'{"generated_text":"x"}')
    assert (answer.text, beside.token_ids, beside.logprobs, answer.counted_by) == ("x", None, None, CountedBy.CHUNKS)


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [[]], [{}], True, -1, 1.5])
@pytest.mark.parametrize("detailed", [False, True])
def test_wrong_types_never_raise(value: Any, *, detailed: bool) -> None:
    """Whatever stands in a field, the outcome is a failure or an answer."""
    for document in (
        {"token": value, "generated_text": value, "details": value},
        {"token": {"text": value, "id": value, "logprob": value, "special": value}, "top_tokens": value},
        {"generated_text": "x", "details": {"finish_reason": value, "tokens": value, "top_tokens": value}},
        {"generated_text": "x", "details": {"generated_tokens": value, "input_length": value, "tokens": [value]}},
    ):
        answer = read(event(document), detailed=detailed)
        assert answer.failure is not Failure.NONE or answer.event_ns
        assert type(answer.osl) is int


def test_requests() -> None:
    """Greedy without a temperature, which may not be 0; other fields are parameters; one path streams, one does not."""
    body = apis.request_body("tgi", "m", "hi", max_tokens=3, extra={"stop": ["x"], "parameters": {"seed": 1}})
    given = {"max_new_tokens": 3, "details": True, "do_sample": False, "stop": ["x"], "seed": 1}
    assert body == {"inputs": "hi", "parameters": given}
    likely = apis.request_body("tgi", "m", "hi", max_tokens=3, logprobs=4, token_ids=True)
    assert likely["parameters"]["top_n_tokens"] == 4
    assert (apis.path("tgi"), apis.path("tgi", stream=False)) == ("/generate_stream", "/generate")
