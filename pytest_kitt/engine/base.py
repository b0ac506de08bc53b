"""What can a test do with a running engine?"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import orjson

from pytest_kitt.cards import EngineCard, TokenizeCard
from pytest_kitt.dialect import apis
from pytest_kitt.dialect.answer import error_detail
from pytest_kitt.dialect.details import TokenLogprob, ToolCall
from pytest_kitt.engine import command
from pytest_kitt.engine.health import Health
from pytest_kitt.engine.pull import LocalImage
from pytest_kitt.engine.runtime.container import EngineContainer
from pytest_kitt.engine.runtime.process import EngineProcess
from pytest_kitt.errors import EngineRequestError, UserError
from pytest_kitt.matrix import Cell
from pytest_kitt.measure.records import CountedBy, Failure
from pytest_kitt.settings import Api

_ASK_TIMEOUT_S = 10.0
_TOO_LONG = (400, 413, 422)  # what servers answer to more than they can take
_MODEL = "{model}"


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """How to reach an engine; the headers may hold a key and are never shown.

    Attributes:
        url: base address, without /v1.
        headers: of every request.
        ca_file: authority to trust, empty for the system's.
        timeout_s: limit of one request.
        proxy: HTTP proxy to go through, empty for none; may hold a password and is never shown.

    """

    url: str
    headers: tuple[tuple[str, str], ...] = dataclasses.field(default=(), repr=False)
    ca_file: str = ""
    timeout_s: float = 120.0
    proxy: str = dataclasses.field(default="", repr=False)

    def client(self) -> httpx.Client:
        """An HTTP client for untimed requests; the caller closes it."""
        import ssl

        verify = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else True
        return httpx.Client(
            base_url=self.url,
            headers=list(self.headers),
            verify=verify if self.url.startswith("https") else False,
            timeout=self.timeout_s,
            proxy=self.proxy or None,
            trust_env=False,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class GenerationResult:
    """One answer; what the server did not say is None.

    Attributes:
        output: its text.
        prompt_tokens: by the server's count.
        completion_tokens: likewise.
        finish_reason: stop, length, tool_calls, content_filter or other; empty when the server did not say.
        server_finish_reason: the same as the server said.
        reasoning: what it thought before it answered.
        tool_calls: the calls of tools that it asks for.
        logprobs: log-probability of each generated token, where asked for.
        token_ids: number of each generated token, likewise.

    """

    output: str
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str
    server_finish_reason: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    token_ids: tuple[int, ...] | None = None


class RunningEngine:
    """An engine that answers. Untimed: what is timed goes through ``kitt_load``.

    Attributes:
        cell: what it serves.
        card: its card.
        access: how to reach it.
        version: as it says, or its image; empty when unknown.
        health: what can be found out about whether it lives.
        process: the process or container, None for an endpoint.
        image: of the container, None without one.
        found: what was found out about it by asking, by name; gone when it is started again.

    """

    def __init__(
        self,
        cell: Cell,
        card: EngineCard,
        access: Access,
        *,
        http: httpx.Client,
        version: str = "",
        health: Health | None = None,
        process: EngineProcess | EngineContainer | None = None,
        image: LocalImage | None = None,
    ) -> None:
        self.cell, self.card, self.access = cell, card, access
        self.version = version
        self.health = health or Health(card, http)
        self.process, self.image = process, image
        self.found: dict[str, Any] = {}
        self._http = http

    @property
    def url(self) -> str:
        """Base address."""
        return self.access.url

    @property
    def argv(self) -> tuple[str, ...]:
        """Command line that started it; empty for an endpoint."""
        return self.process.argv if self.process else ()

    @property
    def pid(self) -> int:
        """Process id; 0 for an endpoint, and for a container whose processes cannot be seen from here."""
        return self.process.pid if self.process else 0

    @property
    def start_s(self) -> float | None:
        """Seconds until it was ready, to a twentieth, from the start of its process or the request for its container.

        None for an endpoint.
        """
        return self.process.start_s if self.process else None

    @property
    def model(self) -> str:
        """The model's name as the server knows it."""
        return self.cell.model.ref if self.cell.is_given else command.served_name(self.cell, self.card)

    @property
    def capabilities(self) -> frozenset[str]:
        """What its card says that it offers beyond generating, as ``tokenize`` and ``force_length``."""
        return frozenset(self.card.claims)

    @functools.cached_property
    def context(self) -> int | None:
        """How many tokens a request may have, prompt and answer together; None when nobody says.

        The server's own word, else, where we started it, the argument ``context``.
        """
        return self._said_context() or self._started_context()

    def lacks_room(self, tokens: int) -> str:
        """Why it cannot answer a request of so many tokens, prompt and answer together; empty when it can.

        Where nobody says how many it takes, one untimed request of about that length asks.
        """
        if self.context is not None:
            fits = tokens <= self.context
            return "" if fits else f"{tokens} tokens are too many: the engine's context is {self.context}"
        api = self.card.dialects[0]
        body = self.body(api, "the " * tokens, max_tokens=1, stream=False)
        try:
            with self._asked():
                response = self._http.post(apis.path(api, stream=False), json=body)
        except EngineRequestError:
            return ""  # whatever else is wrong, the load itself will find out
        if response.status_code not in _TOO_LONG:
            return ""
        return f"{tokens} tokens are too many: {self._refused(response.status_code, response.content)}"

    def _said_context(self) -> int | None:
        source = self.card.context
        if source is None:
            return None
        try:
            said = self._http.get(source.path, timeout=_ASK_TIMEOUT_S).json()
            for name in source.field.split("."):
                said = self._entry(said) if name == _MODEL else said[name]
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        return said if type(said) is int and said > 0 else None

    def _entry(self, listed: Any) -> Any:
        """What a list says of the model that is served; LookupError when it says nothing."""
        found = [entry for entry in listed if entry.get("id", entry.get("name")) == self.model]
        return found[0]

    def _started_context(self) -> int | None:
        return self._started("context") or None  # 0 is the model's own

    @property
    def slots(self) -> int:
        """Requests that it answers at a time, as it was started here; 0 when that is not known."""
        return self._started("parallel")

    def _started(self, argument: str) -> int:
        """The whole number that it was started with; 0 when nobody said one."""
        value = "" if self.cell.is_given else command.values(self.cell, self.card).get(argument, "")
        return int(value) if value.isdecimal() else 0

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int = 128,
        api: Api | None = None,
        logprobs: int | None = None,
        token_ids: bool = False,
        **extra: Any,
    ) -> GenerationResult:
        """Completes a prompt, greedy, in the first API of its card that takes one as it is, or in the one named.

        ``logprobs`` asks for the log-probability of each token and of so many of the likeliest at its place,
        ``token_ids`` for the tokens' numbers; other keywords are fields of the request.
        EngineRequestError when the engine says no, EngineDiedError when it cannot say anything any more.
        """
        asked = self._api(api, chat=False)
        return self._ask(asked, prompt, max_tokens, extra, logprobs=logprobs, token_ids=token_ids)

    def chat(
        self,
        message: str,
        *,
        max_tokens: int = 128,
        api: Api | None = None,
        logprobs: int | None = None,
        token_ids: bool = False,
        **extra: Any,
    ) -> GenerationResult:
        """Answers one user message, greedy, in the first API of its card that takes one; else as ``generate``."""
        asked = self._api(api, chat=True)
        return self._ask(asked, message, max_tokens, extra, logprobs=logprobs, token_ids=token_ids)

    def stream(self, message: str, *, max_tokens: int = 128, api: Api | None = None, **extra: Any) -> Iterator[str]:
        """The pieces of a chat answer as they come."""
        asked = self._api(api, chat=True)
        body = self.body(asked, message, max_tokens=max_tokens, extra=extra)
        with self._asked(), self._http.stream("POST", apis.path(asked), json=body) as response:
            if response.is_error:
                raise self._refused(response.status_code, response.read())
            kind = response.headers.get("content-type", "").encode()
            yield from apis.read_texts(asked, kind, response.iter_bytes())

    def _api(self, named: Api | None, *, chat: bool) -> Api:
        """The one named, or the first of its card of this kind; UserError when it has none."""
        if named is not None:
            if lacking := self.card.lacks_dialect(named):
                raise UserError(lacking)
            return named
        for api in self.card.dialects:
            if apis.DIALECTS[api].chat is chat:
                return api
        kind, spoken = "messages" if chat else "prompts as they are", ", ".join(self.card.dialects)
        raise UserError(f"engine {self.card.name} takes no {kind}; it speaks: {spoken}")

    def tokenize(self, text: str, *, special: bool | None = None) -> list[int]:
        """The engine's own token ids of a text; EngineRequestError when it offers none.

        ``special`` says whether special tokens such as BOS are added; without it the server's default holds.
        """
        body = self.tokenize_body(text, special=special)
        return self.token_ids(self.post(self._tokenizer.path, body))

    @property
    def _tokenizer(self) -> TokenizeCard:
        if self.card.tokenize is None:
            raise EngineRequestError(f"engine {self.card.name} does not tokenize")
        return self.card.tokenize

    def tokenize_body(self, text: str, *, special: bool | None = None) -> dict[str, Any]:
        """What ``tokenize`` asks; it raises as that does."""
        card = self._tokenizer
        if special is not None and not card.special:
            raise EngineRequestError(f"engine {self.card.name} decides itself about special tokens such as BOS")
        asked = {} if special is None else {card.special: special}
        return {card.text: text, "model": self.model, **asked}

    def token_ids(self, said: Any) -> list[int]:
        """The token ids in the answer to ``tokenize_body``; EngineRequestError when it holds none."""
        card = self._tokenizer
        try:
            listed = said[card.tokens] if card.tokens else said
            ids = [entry["id"] if isinstance(entry, dict) else entry for entry in listed]
        except (KeyError, TypeError) as error:
            expected = repr(card.tokens) if card.tokens else "a list"
            raise EngineRequestError(f"{card.path} of {self.card.name} answered without {expected}") from error
        if not all(type(token) is int for token in ids):
            raise EngineRequestError(f"{card.path} of {self.card.name} answered with what is no token id")
        return ids

    def post(self, path: str, body: Mapping[str, Any] | bytes) -> Any:
        """The JSON answer to a JSON object, on any path; any thread may call it. It raises as ``generate`` does."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        with self._asked():
            response = self._http.post(path, content=content, headers={"Content-Type": "application/json"})
        return self._document(path, response)

    def reset_cache(self) -> bool:
        """Makes it forget the prompts that it has seen; False where it cannot, or will not."""
        card = self.card.reset_cache
        if card is None:
            return False
        slots = range(self.slots or 1) if "{slot}" in card.path else range(1)
        fields = orjson.loads(orjson.dumps(card.body).replace(b"{model_name}", orjson.dumps(self.model)[1:-1]))
        with self._asked():
            answers = [
                self._http.request(card.method, card.path.replace("{slot}", str(slot)), json=fields) for slot in slots
            ]
        return all(answer.is_success for answer in answers)

    def get(self, path: str) -> Any:
        """The JSON answer on any path; else as ``post``."""
        with self._asked():
            response = self._http.get(path)
        return self._document(path, response)

    def body(
        self,
        api: Api,
        prompt: str,
        *,
        max_tokens: int,
        stream: bool = True,
        extra: Mapping[str, Any] | None = None,
        **details: Any,
    ) -> dict[str, Any]:
        """The JSON object of one request to this engine; ``details`` as ``generate`` has them."""
        merged = command.with_request(self.cell, self.card, extra or {})
        return apis.request_body(api, self.model, prompt, max_tokens=max_tokens, stream=stream, extra=merged, **details)

    def _ask(
        self, api: Api, prompt: str, max_tokens: int, extra: Mapping[str, Any], **details: Any
    ) -> GenerationResult:
        body = self.body(api, prompt, max_tokens=max_tokens, stream=False, extra=extra, **details)
        with self._asked():
            response = self._http.post(apis.path(api, stream=False), json=body)
        if response.is_error:
            raise self._refused(response.status_code, response.content)
        answer, beside = apis.read_document(api, response.content)
        if answer.failure not in (Failure.NONE, Failure.NO_TOKENS):
            raise EngineRequestError(f"{self.card.name}: {answer.detail}")
        return GenerationResult(
            output=answer.text,
            prompt_tokens=answer.isl if answer.isl >= 0 else None,
            completion_tokens=answer.osl if answer.counted_by is CountedBy.USAGE else None,
            finish_reason=answer.finish,
            server_finish_reason=answer.finish_reason,
            reasoning=beside.reasoning,
            tool_calls=beside.tool_calls,
            logprobs=None if details["logprobs"] is None else beside.logprobs,  # some servers say it unasked
            token_ids=beside.token_ids if details["token_ids"] else None,
        )

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """Says of a request without an answer whether the engine is to blame."""
        try:
            yield
        except httpx.TransportError as error:
            unanswered = EngineRequestError(f"{self.card.name} at {self.url} did not answer: {error}")
            raise (self.health.diagnosis() or unanswered) from error

    def _document(self, path: str, response: httpx.Response) -> Any:
        if response.is_error:
            raise self._refused(response.status_code, response.content)
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise EngineRequestError(f"{path} of {self.card.name} did not answer with JSON") from error

    def _refused(self, status: int, content: bytes) -> EngineRequestError:
        return EngineRequestError(f"{self.card.name} answered with status {status}: {error_detail(content)}")
