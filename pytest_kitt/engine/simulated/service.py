"""What the server does with a request, from its last byte read to the last token sent."""

import asyncio
import hmac
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import orjson

from pytest_kitt.engine.simulated import openai, text, wire
from pytest_kitt.engine.simulated.openai import Ask, Limits, RefusedError, Reply
from pytest_kitt.engine.simulated.text import Output
from pytest_kitt.engine.simulated.timetable import Pacer, Queue, Timetable
from pytest_kitt.engine.simulated.wire import MalformedError, Request, Response

VERSION = "1.0.0"

_OPEN_PATHS = {"/health", "/version", "/metrics"}
_LINGER_S = 1.0
_MAX_PIPELINED = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """How the engine behaves; the truth that a measurement of it must find."""

    limits: Limits
    ttft_s: float
    itl_s: float
    seed: int
    error_rate: float
    max_concurrent: int
    load_s: float
    api_key: str | None = field(repr=False)
    answers: Mapping[str, str]


@dataclass(slots=True)
class Meter:
    """What /metrics tells beside the queue; lateness is from a token's due time to the end of its write."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    lateness_sum_s: float = 0.0
    lateness_max_s: float = 0.0

    def count_token(self, lateness_s: float) -> None:
        """One more token was written, so late."""
        self.generation_tokens += 1
        self.lateness_sum_s += lateness_s
        self.lateness_max_s = max(self.lateness_max_s, lateness_s)


class Service:
    """The engine behind all connections."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.loop = loop
        self.queue = Queue(settings.max_concurrent)
        self.meter = Meter()
        self.connections: set[Connection] = set()
        self._ready_at = loop.time() + settings.load_s
        self._serial = 0
        self._routes: dict[str, tuple[str, Callable[[Request, float], Response | Generation]]] = {
            "/health": ("GET", self._health),
            "/version": ("GET", self._version),
            "/metrics": ("GET", self._metrics),
            "/v1/models": ("GET", self._models),
            "/tokenize": ("POST", self._tokenize),
            "/detokenize": ("POST", self._detokenize),
            "/v1/completions": ("POST", self._complete),
            "/v1/chat/completions": ("POST", self._chat),
        }

    def handle(self, request: Request, arrival: float) -> "Response | Generation":
        """An answer, or a generation that will give it in time."""
        try:
            return self._route(request, arrival)
        except RefusedError as refusal:
            log(f"{request.head.method} {request.head.path}: {refusal.status.value} {refusal}")
            return refusal.response()

    def close(self) -> None:
        """Drop every connection, in mid-stream too."""
        for connection in list(self.connections):
            connection.abort()

    def _route(self, request: Request, arrival: float) -> "Response | Generation":
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
        return _json({"version": VERSION})

    def _models(self, _request: Request, _arrival: float) -> Response:
        limits = self.settings.limits
        card = {"id": limits.model, "object": "model", "created": 0, "owned_by": "pytest-kitt"}
        return _json({"object": "list", "data": [card | {"root": limits.model, "max_model_len": limits.context}]})

    def _metrics(self, _request: Request, _arrival: float) -> Response:
        meter = self.meter
        lines = [
            *self._sample("vllm:num_requests_running", "gauge", self.queue.running),
            *self._sample("vllm:num_requests_waiting", "gauge", self.queue.waiting),
            *self._sample("vllm:prompt_tokens_total", "counter", meter.prompt_tokens),
            *self._sample("vllm:generation_tokens_total", "counter", meter.generation_tokens),
            *self._sample("simulated:token_lateness_seconds_total", "counter", meter.lateness_sum_s),
            *self._sample("simulated:token_lateness_seconds_max", "gauge", meter.lateness_max_s),
        ]
        body = "".join(f"{line}\n" for line in lines).encode()
        return Response(HTTPStatus.OK, body, "text/plain; version=0.0.4; charset=utf-8")

    def _sample(self, name: str, kind: str, value: float) -> tuple[str, str]:
        model = self.settings.limits.model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        return f"# TYPE {name} {kind}", f'{name}{{model_name="{model}"}} {value}'

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

    def _complete(self, request: Request, arrival: float) -> "Generation":
        return self._generate(request, arrival, chat=False)

    def _chat(self, request: Request, arrival: float) -> "Generation":
        return self._generate(request, arrival, chat=True)

    def _generate(self, request: Request, arrival: float, *, chat: bool) -> "Generation":
        if self._loading:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "The model is still loading")
        limits = self.settings.limits
        ask = openai.read_ask(openai.read_json(request.body), limits, chat=chat)
        serial, self._serial = self._serial, self._serial + 1
        if text.draw_fraction(f"error {self.settings.seed} {serial}") < self.settings.error_rate:
            raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, f"Injected error in request {serial}")
        name = f"{'chatcmpl' if chat else 'cmpl'}-{serial}"
        reply = Reply(name, int(time.time()), limits.model, ask, self._write_output(ask, serial))
        return Generation(self, reply, arrival)

    def _write_output(self, ask: Ask, serial: int) -> Output:
        answer = text.find_answer(ask.prompt, self.settings.answers)
        if answer is not None:
            return text.cut(text.recite(answer, ask.max_tokens), ask.stop)
        sampling = ask.sampling or f"serial {serial}"
        return text.cut(text.compose(f"{self.settings.seed} {sampling} {ask.prompt}", ask.max_tokens), ask.stop)

    @property
    def _loading(self) -> bool:
        return self.loop.time() < self._ready_at


class Generation:
    """One request in service or waiting for it; it ends with its last token or with its connection."""

    def __init__(self, service: Service, reply: Reply, arrival: float) -> None:
        self.arrival = arrival
        self._service = service
        self._reply = reply
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None

    def run(self, connection: "Connection") -> None:
        """Answer on this connection when the time comes."""
        self._connection = connection
        if self._reply.ask.stream:
            connection.open_stream()
        self._service.queue.join(self)

    def begin(self, start: float) -> None:
        """Fix the timetable; the queue calls it when there is a slot."""
        settings = self._service.settings
        self._service.meter.prompt_tokens += self._reply.ask.prompt_tokens
        timetable = Timetable(start, settings.ttft_s, settings.itl_s)
        self._arm(Pacer(timetable, len(self._reply.output.pieces)))

    def cancel(self) -> None:
        """Give up the slot, or the place in the queue."""
        if self._timer is not None:
            self._timer.cancel()
        self._service.queue.leave(self, self._service.loop.time())

    def _arm(self, pacer: Pacer) -> None:
        self._timer = self._service.loop.call_at(pacer.next_due, self._step, pacer)

    def _step(self, pacer: Pacer) -> None:
        connection = self._connection
        assert connection is not None
        clock = self._service.loop.time
        for index in pacer.take(clock()):
            self._send(connection, index)
            self._service.meter.count_token(clock() - pacer.timetable.due(index))
        if not pacer.done:
            self._arm(pacer)
            return
        # The slot is free from the due time on: how late this token was must not delay those that wait.
        self._service.queue.leave(self, pacer.timetable.due(pacer.count - 1))
        self._finish(connection)

    def _send(self, connection: "Connection", index: int) -> None:
        if not self._reply.ask.stream:
            return
        if index == 0:
            for event in self._reply.opening():
                connection.send_event(event)
        connection.send_event(self._reply.token(index))

    def _finish(self, connection: "Connection") -> None:
        if not self._reply.ask.stream:
            connection.answer(Response(HTTPStatus.OK, self._reply.whole()))
            return
        for event in self._reply.closing():
            connection.send_event(event)
        connection.close_stream()


class Connection(asyncio.Protocol):
    """One client: its requests are answered one after the other, in their order."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reader = wire.RequestReader()
        self._unanswered: deque[tuple[Request | MalformedError, float]] = deque()
        self._current: wire.Head | None = None
        self._generation: Generation | None = None
        self._deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count as a client."""
        self._transport = cast("asyncio.Transport", transport)
        # asyncio does so only for sockets made with the protocol's number; without it a token waits for a delayed ACK
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._service.connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Stop what nobody reads any more."""
        self._service.connections.discard(self)
        self._unanswered.clear()
        if self._generation is not None:
            self._generation.cancel()

    def data_received(self, data: bytes) -> None:
        """Stamp the bytes before anything else is done with them."""
        arrival = self._service.loop.time()
        if self._deaf:
            return
        self._reader.feed(data)
        self._read(arrival)
        self._serve(arrival)

    def abort(self) -> None:
        """Close without waiting for what is not yet sent."""
        self._transport.abort()

    def answer(self, response: Response) -> None:
        """Send a whole response to the current request."""
        assert self._current is not None
        self._transport.write(wire.render(response, keep_alive=self._current.keep_alive))
        self._end()

    def open_stream(self) -> None:
        """Send the head of a stream."""
        assert self._current is not None
        head = wire.render_stream_head(chunked=self._chunked, keep_alive=self._current.keep_alive)
        self._transport.write(head)

    def send_event(self, event: bytes) -> None:
        """Send one event, in a write of its own."""
        # asyncio warns of each write to a client that has just gone.
        if not self._transport.is_closing():
            self._transport.write(wire.render_chunk(event) if self._chunked else event)

    def close_stream(self) -> None:
        """End the stream."""
        if self._chunked:
            self._transport.write(wire.LAST_CHUNK)
        self._end()

    @property
    def _chunked(self) -> bool:
        return self._current is not None and self._current.minor == 1

    def _read(self, arrival: float) -> None:
        try:
            while (request := self._reader.take()) is not None:
                self._unanswered.append((request, arrival))
        except MalformedError as error:
            self._deaf = True
            self._unanswered.append((error, arrival))
        if len(self._unanswered) > _MAX_PIPELINED:
            self._transport.pause_reading()

    def _serve(self, now: float) -> None:
        """Answer what has come, up to a request that takes its time; one that waited its turn arrives only now."""
        while self._unanswered and self._current is None and not self._transport.is_closing():
            request, arrival = self._unanswered.popleft()
            if isinstance(request, MalformedError):
                self._refuse(request)
                return
            self._begin(request, max(arrival, now))
        if self._current is None and self._reader.claim_continue():
            self._transport.write(wire.CONTINUE)
        if len(self._unanswered) <= _MAX_PIPELINED:
            self._transport.resume_reading()

    def _begin(self, request: Request, arrival: float) -> None:
        self._current = request.head
        outcome = self._service.handle(request, arrival)
        if isinstance(outcome, Response):
            self.answer(outcome)
            return
        self._generation = outcome
        outcome.run(self)

    def _end(self) -> None:
        assert self._current is not None
        resumes = self._generation is not None
        keep_alive = self._current.keep_alive
        self._current = self._generation = None
        if not keep_alive:
            self._transport.close()
            return
        if resumes:
            self._serve(self._service.loop.time())

    def _refuse(self, error: MalformedError) -> None:
        log(f"{error.status.value} {error}")
        self._transport.write(wire.render(RefusedError(error.status, str(error)).response(), keep_alive=False))
        # Closed at once, with bytes of the client unread, TCP would reset the connection and drop the answer.
        self._service.loop.call_later(_LINGER_S, self._transport.close)


def log(line: str) -> None:
    """Write one line to stderr, whatever the client put into it."""
    flat = " ".join(f"simulated: {line}".splitlines())
    sys.stderr.write(f"{flat}\n")


def _json(body: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(status, orjson.dumps(body))
