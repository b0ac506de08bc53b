"""What stands beside an answer's text? Known answers in every server's form, asked for or not."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from pytest_kitt.dialect import apis
from pytest_kitt.dialect.details import Details, TokenLogprob, ToolCall
from pytest_kitt.dialect.finish import finish
from pytest_kitt.settings import Api

SSE, NDJSON = b"text/event-stream", b"application/x-ndjson"


def streamed(api: Api, *documents: Any, size: int = 0) -> Details:
    """What a stream says beside its text, a document a piece or cut into pieces of some size."""
    spoken = apis.DIALECTS[api]
    form = b"%b\n" if spoken.lines else b"data: %b\n\n"
    pieces = [form % json.dumps(d).encode() for d in documents]
    if size:
        whole = b"".join(pieces)
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    reader = apis.reader(api, NDJSON if spoken.lines else SSE, detailed=True)
    reader.feed(range(len(pieces)), pieces)
    reader.finish()
    assert reader.details is not None
    return reader.details


def delta(finish_reason: str | None = None, /, **fields: Any) -> dict[str, Any]:
    """A chat chunk."""
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]}


def call(index: int | None, **fields: Any) -> dict[str, Any]:
    """A chat chunk with a fragment of a call."""
    beside = {"id": fields.pop("id")} if "id" in fields else {}
    return delta(tool_calls=[{**({} if index is None else {"index": index}), **beside, "function": fields}])


def test_every_api_has_a_dialect() -> None:
    """What can be asked for can be spoken."""
    assert set(get_args(Api)) == set(apis.DIALECTS)


@pytest.mark.parametrize("size", [0, 1, 7, 64])
def test_calls_in_fragments(size: int) -> None:
    """Fragments of the same index are one call, however they are mixed and cut."""
    found = streamed(
        "chat",
        delta(role="assistant", content=None),
        call(0, id="call_a", name="weather", arguments=""),
        call(0, arguments='{"city":'),
        call(1, id="call_b", name="time", arguments="{}"),
        call(0, arguments=' "Köln"}'),
        delta("tool_calls"),
        size=size,
    )
    weather = ToolCall("weather", '{"city": "Köln"}', "call_a")
    assert found.tool_calls == (weather, ToolCall("time", "{}", "call_b"))
    assert (found.reasoning, found.logprobs, found.token_ids) == (None, None, None)


def test_tgi_repeats_the_id_in_each_fragment() -> None:
    """The same id again is the same call."""
    found = streamed("chat", call(0, id="0", name="f", arguments="{"), call(0, id="0", name=None, arguments='"a":1}'))
    assert found.tool_calls == (ToolCall("f", '{"a":1}', "0"),)


def test_another_id_at_the_same_index_is_another_call() -> None:
    """Servers that call every index 0 lose none."""
    found = streamed("chat", call(0, id="a", name="f", arguments="{}"), call(0, id="b", name="g", arguments="{}"))
    assert found.tool_calls == (ToolCall("f", "{}", "a"), ToolCall("g", "{}", "b"))


def test_calls_of_a_document() -> None:
    """Without an index each stands for itself; arguments may be an object."""
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"id": "x", "function": {"name": "g"}}]
    body = {"choices": [{"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}]}
    answer, found = apis.read_document("chat", json.dumps(body).encode())
    assert found.tool_calls == (ToolCall("f", '{"a":1}'), ToolCall("g", "", "x"))
    assert (answer.text, answer.finish) == ("", "tool_calls")


def test_calls_and_thoughts_of_ollama() -> None:
    """Calls come whole, their arguments as an object; thoughts piece by piece."""
    thoughts = [{"message": {"content": "", "thinking": text}, "done": False} for text in ("let me ", "see")]
    calls = [{"function": {"index": 0, "name": "f", "arguments": {"city": "Köln"}}}]
    last = {"message": {"content": ""}, "done": True, "done_reason": "stop"}
    found = streamed("ollama-chat", *thoughts, {"message": {"content": "", "tool_calls": calls}}, last)
    assert found.reasoning == "let me see"
    assert found.tool_calls == (ToolCall("f", '{"city":"Köln"}'),)


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_thoughts_of_a_stream(key: str) -> None:
    """Beside the text in one delta as well, and under both of its names."""
    found = streamed("chat", delta(**{key: "let "}), delta(content="x", **{key: "me"}), delta("stop", content="y"))
    assert found.reasoning == "let me"


VLLM = [{"token": " a", "logprob": -0.5, "bytes": [32, 97], "top_logprobs": [{"token": " b", "logprob": -1.5}]}]
LLAMA = [{"id": 5, "token": " a", "logprob": -0.5, "top_logprobs": []}]
TABBY = [{"token": " a", "token_id": 5, "logprob": -0.5, "top_logprobs": None}]


@pytest.mark.parametrize("content, top, ids", [(VLLM, ((" b", -1.5),), None), (LLAMA, (), (5, 5)), (TABBY, (), (5, 5))])
def test_logprobs_of_a_chat(content: Any, top: Any, ids: Any) -> None:
    """With the ids that some servers put beside them; without an id for each there are none."""
    chunk = delta(content=" a")
    chunk["choices"][0]["logprobs"] = {"content": content}
    found = streamed("chat", chunk, chunk, delta("stop"))
    assert found.token_ids == ids
    assert found.logprobs == (TokenLogprob(" a", -0.5, 5 if ids else None, top),) * 2


def test_logprobs_of_completions() -> None:
    """The older form; a token without a number, as the first of an echoed prompt, is left out."""
    columns = {"tokens": ["<s>", " a"], "token_logprobs": [None, -1], "top_logprobs": [None, {" a": -1, " b": None}]}
    body = {"choices": [{"text": " a", "logprobs": columns, "finish_reason": "length"}]}
    _, found = apis.read_document("completions", json.dumps(body).encode())
    assert found.logprobs == (TokenLogprob(" a", -1.0, None, ((" a", -1.0),)),)


def test_logprobs_of_ollama() -> None:
    """At the top level, without ids."""
    entry = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -0.5}]}
    body = {"response": "a", "done": True, "done_reason": "length", "eval_count": 1, "logprobs": [entry]}
    _, found = apis.read_document("ollama-generate", json.dumps(body).encode())
    assert (found.logprobs, found.token_ids) == ((TokenLogprob("a", -0.5, None, (("a", -0.5),)),), None)


@pytest.mark.parametrize("key", ["token_ids", "response_token_ids"])
def test_ids_of_openai_servers(key: str) -> None:
    """In each chunk as of vLLM, in a document as of SGLang."""
    chunk = {"choices": [{"text": "ab", key: [3, 4]}]}
    assert streamed("completions", chunk, chunk).token_ids == (3, 4, 3, 4)


def test_what_is_asked_for() -> None:
    """Nothing unless somebody asks, then each server's own fields."""
    plain = apis.request_body("chat", "m", "hi", max_tokens=3)
    assert not {"logprobs", "top_logprobs", "return_token_ids"} & plain.keys()
    chat = apis.request_body("chat", "m", "hi", max_tokens=3, logprobs=0, token_ids=True)
    assert (chat["logprobs"], chat["top_logprobs"], chat["return_token_ids"]) == (True, 1, True)
    assert apis.request_body("completions", "m", "hi", max_tokens=3, logprobs=5)["logprobs"] == 5
    generate = apis.request_body("ollama-generate", "m", "hi", max_tokens=3, logprobs=2)
    assert (generate["logprobs"], generate["top_logprobs"]) == (True, 2)


@pytest.mark.parametrize("api", apis.DIALECTS)
def test_a_load_collects_nothing(api: str) -> None:
    """What nobody asks for is not kept."""
    assert apis.reader(api).details is None


def test_events_with_ids_are_read_one_by_one() -> None:
    """A reader that has learned what stands around a text would miss the numbers beside it."""
    chunk = {"choices": [{"text": "a", "token_ids": [3]}]}
    assert streamed("completions", *[chunk] * 50).token_ids == (3,) * 50


def test_words_for_the_end() -> None:
    """Every server's words become ours; unknown ones do not become known."""
    assert [finish(word) for word in ("stop", "eos", "eos_token", "word", "stop_sequence")] == ["stop"] * 5
    assert [finish(word) for word in ("length", "limit")] == ["length"] * 2
    assert [finish(word) for word in ("tool_calls", "content_filter", "abort", "recitation", "")] == [
        *("tool_calls", "content_filter", "broken_off", "other", ""),
    ]


def test_arguments_nested_beyond_bounds() -> None:
    """They are no arguments, and no exception."""
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"a": deep}
    found = streamed("chat", call(0, name="f", arguments=deep))
    assert found.tool_calls == (ToolCall("f", ""),)
