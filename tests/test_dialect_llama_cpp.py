"""What does llama.cpp's server say in its own tongue? An event a token, and all that it knows in the last."""

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


def token(number: int, text: str, **others: Any) -> dict[str, Any]:
    """What one token says."""
    counts = {"tokens_predicted": number, "tokens_evaluated": 7}
    return {"index": 0, "content": text, "tokens": [50 + number], "stop": False, "id_slot": -1, **counts, **others}


def ended(stop_type: str | None = "limit", **others: Any) -> dict[str, Any]:
    """What the last event says."""
    timings = {"prompt_n": 7, "prompt_ms": 0.634, "predicted_n": 3, "predicted_ms": 1.5}
    kind = {} if stop_type is None else {"stop_type": stop_type}
    counts = {"tokens_predicted": 4, "tokens_evaluated": 7, "tokens_cached": 7, "timings": timings}
    return {"index": 0, "content": "", "tokens": [], "stop": True, **kind, **counts, **others}


STREAM = [event(token(1, "1")), event(token(2, "ü")), event(token(3, "")), event(token(4, "0")), event(ended())]


def read(*pieces: bytes, detailed: bool = False) -> Answer:
    """What a stream in pieces says; each piece arrives one later."""
    reader = apis.reader("llama-cpp", b"text/event-stream", detailed=detailed)
    reader.feed(range(1, len(pieces) + 1), pieces)
    return reader.finish()


def test_a_stream() -> None:
    """Counts and timings come last; no [DONE] follows."""
    answer = read(*STREAM)
    assert (list(answer.event_ns), answer.answer_event, answer.text) == ([1, 2, 4], 0, "1ü0")
    assert (answer.isl, answer.osl, answer.counted_by) == (7, 4, CountedBy.USAGE)
    assert (answer.prefill_ns, answer.decode_ns) == (634_000, 1_500_000)
    assert (answer.finish_reason, answer.finish, answer.failure) == ("limit", "length", Failure.NONE)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
@pytest.mark.parametrize("detailed", [False, True])
def test_every_split_gives_the_same(size: int, *, detailed: bool) -> None:
    """However the bytes are cut, in the middle of a character too."""
    whole = b"".join(STREAM)
    answer = read(*(whole[at : at + size] for at in range(0, len(whole), size)), detailed=detailed)
    assert (len(answer.event_ns), answer.text, answer.osl, answer.failure) == (3, "1ü0", 4, Failure.NONE)


@pytest.mark.parametrize(
    "last, word, ours",
    [
        (ended("eos"), "eos", "stop"),
        (ended("word"), "word", "stop"),
        (ended("limit"), "limit", "length"),
        (ended("none"), "none", "other"),
        (ended(None, stopped_eos=False, stopped_word=True, stopped_limit=False), "word", "stop"),  # older servers
        (ended(None), "", ""),
    ],
)
def test_finish_reasons(last: dict[str, Any], word: str, ours: str) -> None:
    """Its words for them are kept, and mean the same as other servers'."""
    answer = read(STREAM[0], event(last))
    assert (answer.finish_reason, answer.finish, answer.failure) == (word, ours, Failure.NONE)


LONG = {"code": 400, "message": "request (601 tokens) exceeds the available context size", "n_ctx": 256}


@pytest.mark.parametrize(
    "pieces, failure",
    [
        ([STREAM[0]], Failure.BAD_STREAM),
        ([STREAM[0], event({"error": {"code": 500, "message": "boom", "type": "server_error"}})], Failure.ERROR_EVENT),
        ([event(ended())], Failure.NO_TOKENS),
        ([b"data: {nonsense\n\n"], Failure.BAD_STREAM),
    ],
)
def test_faults(pieces: list[bytes], failure: Failure) -> None:
    """Each has its class."""
    assert read(*pieces).failure is failure
    assert error_detail(json.dumps({"error": LONG}).encode()) == LONG["message"]


def test_ids_and_logprobs() -> None:
    """In each event of a stream where asked for, and in one list of a document."""
    entry = {"id": 51, "token": "1", "bytes": [49], "logprob": -0.25, "top_logprobs": [{"token": "7", "logprob": -3.5}]}
    reader = apis.reader("llama-cpp", b"text/event-stream", detailed=True)
    reader.feed([1], [event(token(1, "1", completion_probabilities=[entry])) + b"".join(STREAM[1:])])
    reader.finish()
    assert reader.details is not None
    assert reader.details.token_ids == (51, 52, 53, 54)
    assert reader.details.logprobs == (TokenLogprob("1", -0.25, 51, (("7", -3.5),)),)
    body = ended(content="1", tokens=[], completion_probabilities=[entry])  # ids were not asked for, and are there
    answer, beside = apis.read_document("llama-cpp", json.dumps(body).encode())
    assert (answer.text, beside.token_ids, beside.reasoning) == ("1", (51,), None)
    _, beside = apis.read_document("llama-cpp", json.dumps(ended(content="1")).encode())
    assert (beside.token_ids, beside.logprobs) == (None, None)


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [[]], [{}], True, -1, 1.5])
@pytest.mark.parametrize("detailed", [False, True])
def test_wrong_types_never_raise(value: Any, *, detailed: bool) -> None:
    """Whatever stands in a field, the outcome is a failure or an answer."""
    for document in (
        {"content": value, "tokens": value, "stop": value, "completion_probabilities": value},
        {"stop": True, "stop_type": value, "timings": value, "tokens_predicted": value, "tokens_evaluated": value},
        {"stop": True, "timings": {"prompt_ms": value, "predicted_ms": value}, "tokens": [value]},
    ):
        answer = read(event(document), detailed=detailed)
        assert answer.failure is not Failure.NONE or answer.event_ns
        assert type(answer.osl) is int


def test_requests() -> None:
    """The prompt as it is, greedy; at least one alternative, for 0 of them are no log-probabilities."""
    body = apis.request_body("llama-cpp", "m", "hi", max_tokens=3, extra={"cache_prompt": False})
    greedy = {"model": "m", "prompt": "hi", "n_predict": 3, "temperature": 0.0, "stream": True}
    assert body == {**greedy, "cache_prompt": False}
    likely = apis.request_body("llama-cpp", "m", "hi", max_tokens=3, logprobs=0, token_ids=True)
    assert (likely["n_probs"], likely["return_tokens"]) == (1, True)
