"""How requests and answers of the OpenAI API look in JSON, in vLLM's manner."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import orjson

from pytest_kitt.engine.simulated import text
from pytest_kitt.engine.simulated.text import Output
from pytest_kitt.engine.simulated.wire import Response

DONE = b"data: [DONE]\n\n"

_NOT_SIMULATED = ("echo", "logprobs", "top_logprobs", "prompt_logprobs")


class RefusedError(Exception):
    """The request is answered with an error."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status = status
        self._code = code or status.value
        self._headers = headers

    def response(self) -> Response:
        """The error as OpenAI clients read it."""
        kind = f"{self.status.phrase.title().replace(' ', '').removesuffix('Error')}Error"
        error = {"message": str(self), "type": kind, "param": None, "code": self._code}
        return Response(self.status, orjson.dumps({"error": error}), headers=self._headers)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client asks to be generated.

    Attributes:
        prompt: the text, of a chat after the template.
        sampling: what decides the text beside the prompt; None: every request gets its own.

    """

    chat: bool
    prompt: str
    prompt_tokens: int
    max_tokens: int
    stop: tuple[str, ...]
    sampling: str | None
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server sets for every request."""

    model: str
    default_tokens: int
    context: int


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, as a stream of events or as a whole."""

    id: str
    created: int
    model: str
    ask: Ask
    output: Output

    def opening(self) -> Iterator[bytes]:
        """What goes out just before the first token."""
        if self.ask.chat:
            yield self._event([self._choice({"role": "assistant", "content": ""}, None)])

    def token(self, index: int) -> bytes:
        """The event that carries one token."""
        piece = self.output.pieces[index]
        last = index + 1 == len(self.output.pieces)
        part = {"content": piece} if self.ask.chat else piece
        return self._event([self._choice(part, self.output.finish_reason if last else None)])

    def closing(self) -> Iterator[bytes]:
        """What goes out after the last token."""
        if self.ask.include_usage:
            yield self._event([], usage=self._usage())
        yield DONE

    def whole(self) -> bytes:
        """The body of an answer that is not streamed."""
        message = {"role": "assistant", "content": self.output.text}
        choice: dict[str, object] = {
            "index": 0,
            "logprobs": None,
            "finish_reason": self.output.finish_reason,
            **({"message": message} if self.ask.chat else {"text": self.output.text}),
        }
        kind = "chat.completion" if self.ask.chat else "text_completion"
        return orjson.dumps(self._envelope(kind, [choice]) | {"usage": self._usage()})

    def _choice(self, part: object, finish_reason: str | None) -> dict[str, object]:
        name = "delta" if self.ask.chat else "text"
        return {"index": 0, name: part, "logprobs": None, "finish_reason": finish_reason}

    def _event(self, choices: list[dict[str, object]], **more: object) -> bytes:
        kind = "chat.completion.chunk" if self.ask.chat else "text_completion"
        return b"data: %b\n\n" % orjson.dumps(self._envelope(kind, choices) | more)

    def _envelope(self, kind: str, choices: list[dict[str, object]]) -> dict[str, object]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}

    def _usage(self) -> dict[str, int]:
        prompt, completion = self.ask.prompt_tokens, len(self.output.pieces)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def read_json(raw: bytes) -> dict[str, Any]:
    """The body of a request as an object."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The body is not a JSON object")
    return body


def read_ask(body: dict[str, Any], limits: Limits, *, chat: bool) -> Ask:
    """The checked request."""
    check_model(body, limits.model)
    _check_simulated(body)
    prompt = read_messages(body) if chat else _read_prompt(body)
    prompt_tokens = text.count(prompt)
    options = _read(body, "stream_options", dict, {})
    stream = _read(body, "stream", bool, False)
    return Ask(
        chat=chat,
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        max_tokens=_read_max_tokens(body, limits, prompt_tokens),
        stop=_read_stop(body),
        sampling=_read_sampling(body),
        stream=stream,
        include_usage=stream and _read(options, "include_usage", bool, False),
    )


def check_model(body: dict[str, Any], model: str) -> None:
    """Refuse every model but the one that is served; a request may leave it out."""
    asked = _read(body, "model", str, model)
    if asked != model:
        raise RefusedError(HTTPStatus.NOT_FOUND, f"The model `{asked}` does not exist.")


def read_messages(body: dict[str, Any]) -> str:
    """The messages as the text of a prompt: a line for each, and the start of the answer."""
    messages = _read(body, "messages", list, [])
    if not messages:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "`messages` must be a list of at least one message")
    return "".join(f"{_read_message(message)}\n" for message in messages) + "assistant:"


def read_tokens(body: dict[str, Any]) -> str:
    """The text of the token ids in `tokens`."""
    return _decode(_read(body, "tokens", list, []), "tokens")


def _read_message(message: object) -> str:
    if not isinstance(message, dict):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "A message must be an object")
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content or ""}]
    words = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    if len(words) != len(parts):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The `content` of a message must be text or a list of text parts")
    return f"{_read(message, 'role', str, 'user')}: {''.join(words)}"


def _read_prompt(body: dict[str, Any]) -> str:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt:
        return _decode(prompt, "prompt")
    raise RefusedError(HTTPStatus.BAD_REQUEST, "`prompt` must be one text or one list of token ids")


def _decode(tokens: list[object], name: str) -> str:
    ids = [token for token in tokens if isinstance(token, int)]
    if len(ids) != len(tokens):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"`{name}` must be a list of token ids")
    try:
        return text.decode(ids)
    except ValueError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"`{name}`: {error}") from error


def _read_max_tokens(body: dict[str, Any], limits: Limits, prompt_tokens: int) -> int:
    room = limits.context - prompt_tokens
    default = max(1, min(limits.default_tokens, room))
    max_tokens: int = _read(body, "max_completion_tokens", int, _read(body, "max_tokens", int, default))
    if max_tokens < 1:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"max_tokens must be at least 1, got {max_tokens}.")
    if max_tokens > room:
        raise RefusedError(
            HTTPStatus.BAD_REQUEST,
            f"This model's maximum context length is {limits.context} tokens. However, you requested "
            f"{prompt_tokens + max_tokens} tokens ({prompt_tokens} in the prompt, {max_tokens} in the completion).",
            code="context_length_exceeded",
        )
    return max_tokens


def _read_stop(body: dict[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop")
    stops = [] if stop is None else stop if isinstance(stop, list) else [stop]
    if not all(isinstance(item, str) and item for item in stops):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "`stop` must be a text or a list of texts, none of them empty")
    return tuple(stops)


def _read_sampling(body: dict[str, Any]) -> str | None:
    if _read(body, "temperature", float, 1.0) == 0:
        return "greedy"
    seed = _read(body, "seed", int, None)
    return None if seed is None else f"seed {seed}"


def _check_simulated(body: dict[str, Any]) -> None:
    asked = [name for name in _NOT_SIMULATED if body.get(name) not in (None, False)]
    if asked:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"`{asked[0]}` is not simulated")
    if _read(body, "n", int, 1) != 1 or _read(body, "best_of", int, 1) != 1:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "`n` and `best_of` above 1 are not simulated")


def _read(body: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    """The field, if it has the type; null is absent, an integer is a float, a bool is no number."""
    value = body.get(name)
    if value is None:
        return default
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"`{name}` must be of type {kind.__name__}")
    return value
