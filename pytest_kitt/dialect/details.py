"""What does an answer say beside its text? Thoughts, calls of tools, ids and log-probabilities of its tokens.

Read only where somebody asks for it: a load does not. What a server does not say stays None; nothing is made up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import orjson

_ID_KEYS = ("id", "token_id")  # of a token, beside its log-probability: llama.cpp and TGI, TabbyAPI


@dataclasses.dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that a model asks for.

    Attributes:
        name: of the function.
        arguments: as JSON, or what the model takes for it.
        id: as the server named the call, empty when it did not.

    """

    name: str
    arguments: str
    id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log-probability of one generated token.

    Attributes:
        token: its text; may be part of a character.
        logprob: natural logarithm of its probability, as the server counts it.
        token_id: its number, None when not said.
        top: the most likely tokens at this place with theirs, as far as asked for.

    """

    token: str
    logprob: float
    token_id: int | None = None
    top: tuple[tuple[str, float], ...] = ()


class Details:
    """Collects them event by event; never raises for what a server says."""

    def __init__(self) -> None:
        self._thoughts: list[str] = []
        self._calls: list[_Call] = []
        self._logprobs: list[TokenLogprob] = []
        self._ids: list[int] = []

    @property
    def reasoning(self) -> str | None:
        """The thoughts, None when there are none."""
        return "".join(self._thoughts) or None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...] | None:
        """The calls in their order, None when there is none."""
        return tuple(ToolCall(call.name, "".join(call.arguments), call.id) for call in self._calls) or None

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """One entry a token, None when not said."""
        return tuple(self._logprobs) or None

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """The numbers of all generated tokens, None when not said."""
        if self._ids:
            return tuple(self._ids)
        beside = [entry.token_id for entry in self._logprobs]
        return tuple(number for number in beside if number is not None) if beside and None not in beside else None

    def add_thought(self, text: Any) -> None:
        """Takes a piece of reasoning."""
        if isinstance(text, str):
            self._thoughts.append(text)

    def add_calls(self, calls: Any) -> None:
        """Takes calls, or fragments of them: what has the same index belongs together.

        A fragment without an index stands for itself; a second id at the same index begins another call.
        """
        for said in _objects(calls):
            function = said.get("function")
            if isinstance(function, dict):
                self._fragment(said.get("index"), _text(said.get("id")), function)

    def _fragment(self, index: Any, name: str, function: dict[str, Any]) -> None:
        known = next((call for call in reversed(self._calls) if call.index == index and type(index) is int), None)
        if known is None or (name and known.id and name != known.id):
            known = _Call(index)
            self._calls.append(known)
        known.id = known.id or name
        known.name = known.name or _text(function.get("name"))
        if arguments := _arguments(function.get("arguments")):
            known.arguments.append(arguments)

    def add_ids(self, numbers: Any) -> None:
        """Takes the numbers of the tokens that this event brought."""
        if isinstance(numbers, list):
            self._ids += [number for number in numbers if type(number) is int]

    def add_logprobs(self, entries: Any) -> None:
        """Takes objects with ``token`` or ``text`` and ``logprob``, one a token."""
        for said in _objects(entries):
            self.add_logprob(said, said.get("top_logprobs"))

    def add_logprob(self, said: dict[str, Any], top: Any) -> None:
        """Takes one of them, and what stands for the most likely tokens at its place."""
        token = said.get("token", said.get("text"))
        logprob = _number(said.get("logprob"))
        if isinstance(token, str) and logprob is not None:
            number = next((said[key] for key in _ID_KEYS if type(said.get(key)) is int), None)
            self._logprobs.append(TokenLogprob(token, logprob, number, tuple(_pairs(_objects(top)))))

    def add_columns(self, said: dict[str, Any]) -> None:
        """Takes OpenAI's older form: a list of tokens, one of numbers, one of objects token -> number."""
        tokens, logprobs, top = said.get("tokens"), said.get("token_logprobs"), said.get("top_logprobs")
        if not isinstance(tokens, list) or not isinstance(logprobs, list):
            return
        tops = top if isinstance(top, list) and len(top) == len(tokens) else [None] * len(tokens)
        for token, value, likely in zip(tokens, logprobs, tops, strict=False):
            logprob = _number(value)
            if isinstance(token, str) and logprob is not None:
                pairs = likely.items() if isinstance(likely, dict) else ()
                known = tuple((name, number) for name, at in pairs if (number := _number(at)) is not None)
                self._logprobs.append(TokenLogprob(token, logprob, None, known))


@dataclasses.dataclass(slots=True)
class _Call:
    index: Any
    id: str = ""
    name: str = ""
    arguments: list[str] = dataclasses.field(default_factory=list)


def calls_text(calls: Any) -> str:
    """The text that a model wrote to call tools: names and arguments."""
    functions = (said.get("function") for said in _objects(calls))
    return "".join(_text(f.get("name")) + _arguments(f.get("arguments")) for f in functions if isinstance(f, dict))


def _arguments(arguments: Any) -> str:
    """The arguments of a call as text: most servers send JSON as a text, some as an object."""
    if not isinstance(arguments, dict):
        return _text(arguments)
    try:
        return orjson.dumps(arguments).decode()
    except orjson.JSONEncodeError:  # nested too deeply
        return ""


def _objects(entries: Any) -> Iterable[dict[str, Any]]:
    return (entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


def _pairs(entries: Iterable[dict[str, Any]]) -> Iterable[tuple[str, float]]:
    for said in entries:
        token, logprob = said.get("token", said.get("text")), _number(said.get("logprob"))
        if isinstance(token, str) and logprob is not None:
            yield token, logprob


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
