"""In which API is an engine asked, and what becomes of its answer? By its card, and by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from pytest_kitt.cards import EngineCard
from pytest_kitt.engine.base import Access, GenerationResult, RunningEngine
from pytest_kitt.errors import EngineRequestError, UserError
from pytest_kitt.matrix import Cell
from pytest_kitt.model import reference
from pytest_kitt.settings import Api

DONE = {"done": True, "done_reason": "length", "prompt_eval_count": 3, "eval_count": 2}
DOCUMENTS: dict[str, Any] = {
    "/v1/chat/completions": {
        "choices": [{"message": {"content": "hi", "reasoning_content": "hm"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    },
    "/v1/completions": {"choices": [{"text": "hi", "finish_reason": "length"}]},
    "/api/chat": {"message": {"content": "hi", "thinking": "hm"}, **DONE},
    "/api/generate": {"response": "hi", **DONE},
    "/generate": {"generated_text": "hi", "details": {"finish_reason": "eos_token", "generated_tokens": 2}},
    "/completion": {"content": "hi", "stop": True, "stop_type": "limit", "tokens_predicted": 2, "tokens_evaluated": 3},
}


class Scripted:
    """An engine that answers in every tongue, and keeps what it was asked."""

    def __init__(self, *dialects: Api, status: int = 200, document: Any = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._status, self._document = status, document
        card = EngineCard(name="mine", description="x", dialects=list(dialects))
        cell = Cell("mine", reference.served("m"), "endpoint")
        http = httpx.Client(transport=httpx.MockTransport(self._answer), base_url="http://engine:1")
        self.engine = RunningEngine(cell, card, Access("http://engine:1"), http=http)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.path, json.loads(request.content)))
        return httpx.Response(self._status, json=self._document or DOCUMENTS[request.url.path])


Ask = Callable[..., GenerationResult]


@pytest.mark.parametrize(
    "dialects, generate, chat",
    [
        (("chat", "completions"), "/v1/completions", "/v1/chat/completions"),
        (("ollama-chat", "ollama-generate", "chat", "completions"), "/api/generate", "/api/chat"),
        (("chat", "tgi", "completions"), "/generate", "/v1/chat/completions"),
    ],
)
def test_the_first_of_its_kind_on_the_card(dialects: tuple[Api, ...], generate: str, chat: str) -> None:
    """Prompts and messages each have a best way."""
    scripted = Scripted(*dialects)
    assert scripted.engine.generate("x").output == scripted.engine.chat("x").output == "hi"
    assert [path for path, _ in scripted.asked] == [generate, chat]


@pytest.mark.parametrize(
    "api, prompt_tokens, completion_tokens, ours, theirs",
    [
        ("chat", 3, 2, "stop", "stop"),
        ("completions", None, None, "length", "length"),
        ("ollama-chat", 3, 2, "length", "length"),
        ("ollama-generate", 3, 2, "length", "length"),
        ("tgi", None, 2, "stop", "eos_token"),
        ("llama-cpp", 3, 2, "length", "limit"),
    ],
)
def test_an_api_by_name(
    api: Api, prompt_tokens: int | None, completion_tokens: int | None, ours: str, theirs: str
) -> None:
    """What a server does not count is not made up; its word for the end is kept beside ours."""
    found = Scripted(api).engine.generate("x", api=api)
    assert (found.prompt_tokens, found.completion_tokens) == (prompt_tokens, completion_tokens)
    assert (found.finish_reason, found.server_finish_reason) == (ours, theirs)
    assert found.reasoning == ("hm" if api.endswith("chat") else None)
    assert (found.tool_calls, found.logprobs, found.token_ids) == (None, None, None)


def test_what_its_card_does_not_list_is_not_tried() -> None:
    """One sentence that names what there is."""
    scripted = Scripted("tgi")
    with pytest.raises(UserError, match="engine mine does not speak 'chat'; it speaks: tgi"):
        scripted.engine.chat("x", api="chat")
    with pytest.raises(UserError, match="engine mine takes no messages; it speaks: tgi"):
        scripted.engine.chat("x")
    with pytest.raises(UserError, match="takes no prompts as they are; it speaks: chat"):
        Scripted("chat").engine.generate("x")
    assert scripted.asked == []


def test_details_are_asked_for() -> None:
    """In the request, beside the fields that the caller names."""
    scripted = Scripted("completions")
    scripted.engine.generate("x", logprobs=3, token_ids=True, seed=1)
    ((_, body),) = scripted.asked
    assert (body["logprobs"], body["return_token_ids"], body["seed"], body["stream"]) == (3, True, 1, False)


@pytest.mark.parametrize("document", [{"error": "Model is overloaded", "error_type": "overloaded"}])
@pytest.mark.parametrize("status", [200, 429])
def test_an_error_of_tgi(document: Any, status: int) -> None:
    """As a status and as a document."""
    with pytest.raises(EngineRequestError, match="Model is overloaded"):
        Scripted("tgi", status=status, document=document).engine.generate("x")


def test_how_long_a_request_may_be_is_asked_in_its_own_tongue() -> None:
    """Where nobody says it, one request of that length does."""
    refused = {"error": "`inputs` tokens + `max_new_tokens` must be <= 5. Given: 9", "error_type": "validation"}
    scripted = Scripted("tgi", status=422, document=refused)
    assert "must be <= 5" in scripted.engine.lacks_room(9)
    assert scripted.asked[0][0] == "/generate"
