"""Is it known how long a request may be? By the server's word, by the argument it was started with, or by asking it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from pytest_kitt.cards import ArgumentCard, ContextCard, EngineCard
from pytest_kitt.engine.base import Access, RunningEngine
from pytest_kitt.matrix import Cell
from pytest_kitt.model import reference

Answer = Callable[[httpx.Request], httpx.Response]
ARGUMENT = {"context": ArgumentCard(flag="--context", default=4096, help="x")}


def engine(answer: Answer, runtime: str = "endpoint", field: str = "", **overrides: str) -> RunningEngine:
    """An engine that answers as scripted."""
    card = EngineCard(
        name="mine",
        description="x",
        context=ContextCard(path="/about", field=field) if field else None,
        arguments=ARGUMENT,
    )
    cell = Cell("mine", reference.served("m"), runtime, tuple(overrides.items()))
    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://engine:1")
    return RunningEngine(cell, card, Access("http://engine:1"), http=http)


def says(status: int = 200, content: Any = None) -> Answer:
    """A server that gives one answer to everything."""
    return lambda _: httpx.Response(status, json=content)


@pytest.mark.parametrize(
    "content, field",
    [
        ({"data": [{"id": "other", "max_len": 99}, {"id": "m", "max_len": 2048}]}, "data.{model}.max_len"),
        ({"settings": {"n_ctx": 2048}}, "settings.n_ctx"),
    ],
)
def test_the_server_says_it(content: Any, field: str) -> None:
    """A field of its answer, through lists and objects; longer requests do not fit, and the sentence says why."""
    found = engine(says(content=content), field=field)
    assert found.context == 2048
    assert found.lacks_room(2048) == ""
    assert found.lacks_room(2049) == "2049 tokens are too many: the engine's context is 2048"


@pytest.mark.parametrize(
    "content",
    [{}, [], {"n": None}, {"n": "much"}, {"n": {}}, {"n": 0}, {"n": -1}, {"n": True}, {"n": [1]}, {"n": 1e99}],
)
def test_a_server_that_does_not_say(content: Any) -> None:
    """Whatever it answers instead: then the argument that it was started with counts, the user's before the default."""
    assert engine(says(content=content), field="n").context is None
    assert engine(says(content=content), field="n.{model}.x").context is None
    assert engine(says(content=content), "process", "n").context == 4096
    assert engine(says(content=content), "process", "n", context="512").context == 512
    assert engine(says(status=500), "process", "n").context == 4096


def test_one_request_asks_where_nobody_says() -> None:
    """A refusal is the reason; any other answer is left to the load."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        asked.append(body["max_tokens"])
        words = len(body["messages"][0]["content"].split())
        return httpx.Response(400, json={"error": {"message": f"{words} is more than 100"}}) if words > 100 else ok

    ok = httpx.Response(200, json={"choices": [{"message": {"content": "x"}}]})
    found = engine(answer)
    assert found.context is None
    assert found.lacks_room(100) == ""
    assert found.lacks_room(101) == "101 tokens are too many: mine answered with status 400: 101 is more than 100"
    assert asked == [1, 1]
    assert engine(says(status=503)).lacks_room(101) == ""


def test_no_answer_is_no_reason() -> None:
    """A server that does not answer in time lacks nothing that is known: the load will say what is wrong."""

    def silent(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/health":
            return httpx.Response(200)
        raise httpx.ReadTimeout("too slow", request=request)

    assert engine(silent).lacks_room(101) == ""
    assert engine(silent, field="n").context is None
