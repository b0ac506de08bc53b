"""What does the server do with a request, once it is read?"""

import asyncio
import hmac
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson

from pytest_kitt.engine.simulated import OWNER, author, exposition, openai, text
from pytest_kitt.engine.simulated.generation import Bundling, Generation
from pytest_kitt.engine.simulated.meter import Meter
from pytest_kitt.engine.simulated.openai import Ask, Limits, RefusedError
from pytest_kitt.engine.simulated.prefix import PrefixCache
from pytest_kitt.engine.simulated.probability import Knowledge, Model
from pytest_kitt.engine.simulated.reply import Heading, Reply
from pytest_kitt.engine.simulated.scheduler import Batch
from pytest_kitt.engine.simulated.timer import Timer
from pytest_kitt.engine.simulated.timetable import Speed, draw_gaps, draw_prefill_s
from pytest_kitt.engine.simulated.wire import Request, Response

VERSION = "1.0.0"
_OPEN_PATHS = {"/health", "/version", "/metrics"}
_PREFIX_TOKENS = 1 << 20  # what the prefix cache holds where the KV cache has no limit
_RETRY_AFTER_S = "1"


@dataclass(frozen=True, slots=True)
class Settings:
    """How the engine behaves; the truth that a measurement of it must find.

    Attributes:
        reasoning: tokens of reasoning before the answer of a chat.
        max_waiting: requests that may wait, further ones are refused; None is no limit.
        hardware: what it pretends to run on, by label; empty when it pretends nothing.

    """

    limits: Limits
    speed: Speed
    batch: Batch
    bundling: Bundling
    seed: int
    error_rate: float
    reasoning: int
    max_waiting: int | None
    prefix_cache: bool
    load_s: float
    die_at: int
    hang_at: int
    cold_s: float
    cold_requests: int
    leak_bytes: int
    api_key: str | None = field(repr=False)
    knowledge: Knowledge = field(repr=False)
    hardware: Mapping[str, str]


class Service:
    """The engine behind all connections."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.loop = loop
        self.timer = Timer(loop, settings.batch)
        self.meter = Meter()
        self.model = Model(settings.seed, settings.knowledge)
        self.prefixes = PrefixCache(settings.batch.kv_tokens or _PREFIX_TOKENS) if settings.prefix_cache else None
        self._ready_at = loop.time() + settings.load_s
        self._number = 0
        self._leaked: list[bytes] = []
        self._routes: dict[str, tuple[str, Callable[[Request, float], Response | Generation]]] = {
            "/health": ("GET", self._health),
            "/version": ("GET", self._version),
            "/metrics": ("GET", self._metrics),
            "/v1/models": ("GET", self._models),
            "/reset_prefix_cache": ("POST", self._reset_prefix_cache),
            "/tokenize": ("POST", self._tokenize),
            "/detokenize": ("POST", self._detokenize),
            "/v1/completions": ("POST", self._complete),
            "/v1/chat/completions": ("POST", self._chat),
        }

    def handle(self, request: Request, arrival: float) -> Response | Generation:
        """An answer, or a generation that will give it in time."""
        try:
            return self._route(request, arrival)
        except RefusedError as refusal:
            log(f"{request.head.method} {request.head.path}: {refusal.status.value} {refusal}")
            return refusal.response()

    def _route(self, request: Request, arrival: float) -> Response | Generation:
        path = request.head.path
        self._check_key(request)
        if path not in self._routes:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"There is no {path} here")
        method, handler = self._routes[path]
        if request.head.method != method:
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {method} only", headers={"Allow": method})
        return handler(request, arrival)

    def _check_key(self, request: Request) -> None:
        key = self.settings.api_key
        if key is None or request.head.path in _OPEN_PATHS:
            return
        given = request.head.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
            raise RefusedError(HTTPStatus.UNAUTHORIZED, "The key is missing or wrong")

    def _health(self, _request: Request, _arrival: float) -> Response:
        if self._loading:
            return _json({"status": "loading"}, HTTPStatus.SERVICE_UNAVAILABLE)
        return _json({"status": "ok"})

    def _version(self, _request: Request, _arrival: float) -> Response:
        hardware = {"hardware": self.settings.hardware} if self.settings.hardware else {}
        return _json({"version": VERSION, **hardware})

    def _models(self, _request: Request, _arrival: float) -> Response:
        limits = self.settings.limits
        card = {"id": limits.model, "object": "model", "created": 0, "owned_by": OWNER}
        return _json({"object": "list", "data": [card | {"root": limits.model, "max_model_len": limits.context}]})

    def _metrics(self, _request: Request, arrival: float) -> Response:
        self.timer.advance(arrival)
        settings = self.settings
        page = self.meter.page(settings.limits.model, self.timer.scheduler, self.prefixes, settings.hardware)
        return Response(HTTPStatus.OK, page, exposition.CONTENT_TYPE)

    def _reset_prefix_cache(self, _request: Request, _arrival: float) -> Response:
        if self.prefixes is not None:
            self.prefixes.reset()
        return Response(HTTPStatus.OK, b"")

    def _tokenize(self, request: Request, _arrival: float) -> Response:
        body = openai.read_json(request.body)
        openai.check_model(body, self.settings.limits.model)
        given = body.get("prompt", body.get("content"))
        prompt = openai.read_messages(body) if given is None else given
        if not isinstance(prompt, str):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "`prompt` must be a text")
        ids = text.encode(prompt)
        return _json({"tokens": ids, "count": len(ids), "max_model_len": self.settings.limits.context})

    def _detokenize(self, request: Request, _arrival: float) -> Response:
        body = openai.read_json(request.body)
        openai.check_model(body, self.settings.limits.model)
        prompt = openai.read_tokens(body)
        return _json({"prompt": prompt, "content": prompt})

    def _complete(self, request: Request, arrival: float) -> Generation:
        return self._generate(request, arrival, chat=False)

    def _chat(self, request: Request, arrival: float) -> Generation:
        return self._generate(request, arrival, chat=True)

    def _generate(self, request: Request, arrival: float, *, chat: bool) -> Generation:
        if self._loading:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "The model is still loading")
        settings = self.settings
        ask = openai.read_ask(openai.read_json(request.body), settings.limits, chat=chat)
        number, self._number = self._number, self._number + 1
        self._fail_whole(self._number)
        if text.draw_fraction(f"error {settings.seed} {number}") < settings.error_rate:
            raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, f"Injected error in request {number}")
        self._check_queue(ask, arrival)
        return self._prepare(ask, number, arrival)

    def _prepare(self, ask: Ask, number: int, arrival: float) -> Generation:
        settings, seed = self.settings, self.settings.seed
        output = author.write(ask, number, seed=seed, knowledge=settings.knowledge, reasoning=settings.reasoning)
        cached = None if self.prefixes is None else self.prefixes.look_up(text.split(ask.prompt))
        heading = Heading(f"{'chatcmpl' if ask.chat else 'cmpl'}-{number}", int(time.time()), settings.limits.model)
        prompt = {"prompt_tokens": ask.prompt_tokens, "cached_tokens": cached or 0}
        return Generation(
            Reply(heading, ask, output, self.model, cached_tokens=cached),
            arrival,
            timer=self.timer,
            meter=self.meter,
            bundling=settings.bundling,
            prefill_s=draw_prefill_s(settings.speed, seed, number, **prompt) + self._wear(number),
            gaps=draw_gaps(settings.speed, seed, number),
        )

    def _wear(self, number: int) -> float:
        """What a request costs that a cold engine serves, in seconds; it may leave memory behind."""
        self._leaked.append(b"\1" * self.settings.leak_bytes)
        return self.settings.cold_s if number < self.settings.cold_requests else 0.0

    def _check_queue(self, ask: Ask, arrival: float) -> None:
        limit = self.settings.max_waiting
        if limit is None:
            return
        self.timer.advance(arrival)
        scheduler = self.timer.scheduler
        if scheduler.waiting >= limit and scheduler.would_wait(ask.prompt_tokens, ask.max_tokens):
            waiting = f"{scheduler.waiting} requests wait already; try again later"
            raise RefusedError(HTTPStatus.TOO_MANY_REQUESTS, waiting, headers={"Retry-After": _RETRY_AFTER_S})

    def _fail_whole(self, request: int) -> None:
        """Die or stop as engines do: at once, in the middle of everything."""
        for at, number in ((self.settings.die_at, signal.SIGKILL), (self.settings.hang_at, signal.SIGSTOP)):
            if request == at:
                log(f"request {request}: {number.name}")
                os.kill(os.getpid(), number)

    @property
    def _loading(self) -> bool:
        return self.loop.time() < self._ready_at


def log(line: str) -> None:
    """Write one line to stderr, whatever the client put into it."""
    flat = " ".join(f"simulated: {line}".splitlines())
    sys.stderr.write(f"{flat}\n")


def _json(body: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(status, orjson.dumps(body))
