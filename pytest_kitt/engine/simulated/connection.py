"""How does one client talk with the server? HTTP/1.1 on asyncio's transports."""

import asyncio
import socket
from collections import deque
from typing import cast

from pytest_kitt.engine.simulated import wire
from pytest_kitt.engine.simulated.generation import Generation
from pytest_kitt.engine.simulated.openai import RefusedError
from pytest_kitt.engine.simulated.service import Service, log
from pytest_kitt.engine.simulated.wire import MalformedError, Request, Response

_LINGER_S = 1.0
_MAX_PIPELINED = 32


class Connection(asyncio.Protocol):
    """One client: its requests are answered one after the other, in their order."""

    def __init__(self, service: Service, connections: "set[Connection]") -> None:
        self._service = service
        self._connections = connections
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
        self._connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Stop what nobody reads any more."""
        self._connections.discard(self)
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
