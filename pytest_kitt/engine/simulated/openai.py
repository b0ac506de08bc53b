"""What does a request of the OpenAI API ask for? Its JSON, checked in vLLM's manner, and how it is refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import orjson

from pytest_kitt.engine.simulated import text
from pytest_kitt.engine.simulated.wire import Response

MAX_LOGPROBS = 20


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


GREEDY = "greedy"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that may be called, with the JSON schema of its parameters."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client asks to be generated.

    Attributes:
        prompt: the text, of a chat after the template.
        sampling: what decides the text beside the prompt; None: every request gets its own.
        echo: the answer begins with the prompt.
        logprobs: how many alternatives to say for each token of the answer; None: not even its own log-probability.
        prompt_logprobs: likewise for the prompt's.
        tool: what the answer calls.

    """

    chat: bool
    prompt: str
    prompt_tokens: int
    max_tokens: int
    stop: tuple[str, ...]
    sampling: str | None
    stream: bool
    include_usage: bool
    echo: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    tool: Tool | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server sets for every request."""

    model: str
    default_tokens: int
    context: int


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
    if _read(body, "n", int, 1) != 1 or _read(body, "best_of", int, 1) != 1:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "`n` and `best_of` above 1 are not simulated")
    prompt = read_messages(body) if chat else _read_prompt(body)
    prompt_tokens = text.count(prompt)
    options = _read(body, "stream_options", dict, {})
    stream = _read(body, "stream", bool, False)
    echo = _read_echo(body, chat=chat)
    return Ask(
        chat=chat,
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        max_tokens=_read_max_tokens(body, limits, prompt_tokens, least=0 if echo else 1),
        stop=_read_stop(body),
        sampling=_read_sampling(body),
        stream=stream,
        include_usage=stream and _read(options, "include_usage", bool, False),
        echo=echo,
        logprobs=_read_chat_logprobs(body) if chat else _read_logprobs(body, "logprobs"),
        prompt_logprobs=_read_prompt_logprobs(body, stream=stream),
        tool=_read_tool(body) if chat else None,
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


def _read_max_tokens(body: dict[str, Any], limits: Limits, prompt_tokens: int, *, least: int) -> int:
    room = limits.context - prompt_tokens
    default = max(1, min(limits.default_tokens, room))
    max_tokens: int = _read(body, "max_completion_tokens", int, _read(body, "max_tokens", int, default))
    if max_tokens < least:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"max_tokens must be at least {least}, got {max_tokens}.")
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
        return GREEDY
    seed = _read(body, "seed", int, None)
    return None if seed is None else f"seed {seed}"


def _read_echo(body: dict[str, Any], *, chat: bool) -> bool:
    echo: bool = _read(body, "echo", bool, False)
    if echo and chat:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "`echo` is not simulated for chat; ask for a completion")
    return echo


def _read_logprobs(body: dict[str, Any], name: str) -> int | None:
    asked: int | None = None if body.get(name) is False else _read(body, name, int, None)
    if asked is not None and not 0 <= asked <= MAX_LOGPROBS:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"`{name}` must be from 0 to {MAX_LOGPROBS}, got {asked}.")
    return asked


def _read_chat_logprobs(body: dict[str, Any]) -> int | None:
    asked: bool = _read(body, "logprobs", bool, False)
    top = _read_logprobs(body, "top_logprobs")
    if top and not asked:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "`top_logprobs` needs `logprobs` to be true")
    return top or 0 if asked else None


def _read_prompt_logprobs(body: dict[str, Any], *, stream: bool) -> int | None:
    asked = _read_logprobs(body, "prompt_logprobs")
    if asked is not None and stream:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "`prompt_logprobs` are not available when `stream` is true")
    return asked


def _read_tool(body: dict[str, Any]) -> Tool | None:
    """The tool that is called: the one that `tool_choice` names, or the first; none behind a tool's result."""
    tools = [_read_function(tool) for tool in _read(body, "tools", list, [])]
    choice = body.get("tool_choice")
    if not tools or choice == "none":
        return None
    if isinstance(choice, dict):
        wanted = _read_function(choice).name
        named = [tool for tool in tools if tool.name == wanted]
        if not named:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"`tool_choice` names {wanted!r}, which is not among `tools`")
        return named[0]
    answered = _read(body["messages"][-1], "role", str, "user") == "tool"
    return None if answered and choice != "required" else tools[0]


def _read_function(tool: object) -> Tool:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "A tool must be an object with a `function` that has a `name`")
    return Tool(function["name"], _read(function, "parameters", dict, {}))


def _read(body: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    """The field, if it has the type; null is absent, an integer is a float, a bool is no number."""
    value = body.get(name)
    if value is None:
        return default
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"`{name}` must be of type {kind.__name__}")
    return value
