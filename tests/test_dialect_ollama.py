"""What does Ollama say in its own tongue? JSON lines, counts and durations in the last."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_kitt.dialect import apis
from pytest_kitt.dialect.answer import Answer
from pytest_kitt.measure.records import CountedBy, Failure

NDJSON = b"application/x-ndjson"


def lines(*documents: Any) -> bytes:
    """One document a line."""
    return b"".join(json.dumps(d).encode() + b"\n" for d in documents)


def read(api: str, *pieces: bytes, kind: bytes = NDJSON) -> Answer:
    """What an answer in pieces says; each piece arrives one later."""
    reader = apis.reader(api, kind)
    reader.feed(range(1, len(pieces) + 1), pieces)
    return reader.finish()


LAST = {
    "done": True,
    "done_reason": "length",
    "prompt_eval_count": 26,
    "eval_count": 3,
    "prompt_eval_duration": 130_079_000,
    "eval_duration": 4_232_710_000,
}
CHAT = [
    {"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False},
    {"message": {"role": "assistant", "content": "a ü"}, "done": False},
    {"message": {"role": "assistant", "content": "b"}, "done": False},
    {"message": {"role": "assistant", "content": ""}, **LAST},
]
GENERATE = [{"response": "a", "done": False}, {"response": "b", "done": False}, {"response": "", **LAST}]


def test_chat() -> None:
    """Thinking is a token and no answer; counts and durations come last."""
    answer = read("ollama-chat", *(lines(d) for d in CHAT))
    assert (list(answer.event_ns), answer.answer_event, answer.text, answer.reasoning) == ([1, 2, 3], 1, "a üb", "hm")
    assert (answer.isl, answer.osl, answer.counted_by) == (26, 3, CountedBy.USAGE)
    assert (answer.prefill_ns, answer.decode_ns) == (130_079_000, 4_232_710_000)
    assert (answer.finish_reason, answer.failure) == ("length", Failure.NONE)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_every_split_gives_the_same(size: int) -> None:
    """However the lines are cut, in the middle of a character too."""
    whole = lines(*GENERATE[:1], *CHAT[1:2], *GENERATE[1:])
    answer = read("ollama-generate", *(whole[at : at + size] for at in range(0, len(whole), size)))
    assert (len(answer.event_ns), answer.text, answer.osl, answer.failure) == (3, "aa üb", 3, Failure.NONE)


@pytest.mark.parametrize(
    "beside, kept", [({"thinking": "hm"}, "hm"), ({"tool_calls": [{"function": {"name": "f"}}]}, "f")]
)
def test_what_comes_beside_each_text_is_kept(beside: dict[str, Any], kept: str) -> None:
    """Thoughts and tool calls in the same document as a text, again and again."""
    answer = read("ollama-chat", *(lines({"message": {"content": c, **beside}}) for c in "abcde"), lines(LAST))
    assert (answer.text, answer.reasoning) == ("abcde", kept * 5)


def test_a_last_line_without_an_end_counts() -> None:
    """The end of the stream ends a line."""
    assert read("ollama-generate", lines(*GENERATE)[:-1]).osl == 3


def test_one_document() -> None:
    """An answer that was not streamed."""
    body = lines({"response": "ab", **LAST})[:-1]
    answer = read("ollama-generate", body, kind=b"application/json; charset=utf-8")
    assert (answer.text, answer.osl, len(answer.event_ns)) == ("ab", 3, 1)
    assert apis.read_document("ollama-chat", lines({"message": {"content": "x"}, **LAST}))[0].text == "x"


@pytest.mark.parametrize(
    "pieces, failure",
    [
        ([lines(*GENERATE[:2])], Failure.BAD_STREAM),
        ([lines(GENERATE[0], {"error": "out of memory"})], Failure.ERROR_EVENT),
        ([lines(GENERATE[0]), b"{nonsense}\n"], Failure.BAD_STREAM),
        ([lines(LAST)], Failure.NO_TOKENS),
        ([b""], Failure.BAD_STREAM),
    ],
)
def test_faults(pieces: list[bytes], failure: Failure) -> None:
    """Each has its class."""
    assert read("ollama-generate", *pieces).failure is failure


def test_requests() -> None:
    """Chat has messages, generate a raw prompt; the length is an option among those given."""
    chat = apis.request_body("ollama-chat", "m", "hi", max_tokens=3, extra={"options": {"seed": 1}, "keep_alive": "5m"})
    assert chat == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "keep_alive": "5m",
        "options": {"num_predict": 3, "temperature": 0.0, "seed": 1},
    }
    generate = apis.request_body("ollama-generate", "m", "hi", max_tokens=3, stream=False)
    assert (generate["prompt"], generate["raw"], generate["stream"]) == ("hi", True, False)
