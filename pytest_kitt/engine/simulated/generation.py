"""How do the tokens of one request reach its client? Each when the scheduler says that it is due."""

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from pytest_kitt.engine.simulated.meter import Meter
from pytest_kitt.engine.simulated.reply import Reply
from pytest_kitt.engine.simulated.scheduler import Sequence
from pytest_kitt.engine.simulated.timer import Timer
from pytest_kitt.engine.simulated.timetable import Gap
from pytest_kitt.engine.simulated.wire import Response


class Client(Protocol):
    """Who gets the answer."""

    def open_stream(self) -> None:
        """A stream begins."""

    def send_event(self, event: bytes) -> None:
        """One write of the stream."""

    def close_stream(self) -> None:
        """The stream ends."""

    def answer(self, response: Response) -> None:
        """The whole answer."""


@dataclass(frozen=True, slots=True)
class Bundling:
    """What goes out together: tokens in an event, and events in a write."""

    tokens: int = 1
    events: int = 1


class Generation:
    """One request in service or waiting for it; it ends with its last token or with its client."""

    def __init__(
        self,
        reply: Reply,
        arrival: float,
        *,
        timer: Timer,
        meter: Meter,
        bundling: Bundling,
        prefill_s: float,
        gaps: Iterator[Gap],
    ) -> None:
        self._reply = reply
        self._arrival = arrival
        self._timer = timer
        self._meter = meter
        self._bundling = bundling
        self._client: Client | None = None
        self._count = len(reply.output.pieces)
        self._last_due = arrival
        self._sent = 0
        self._unwritten: list[bytes] = []
        self.sequence = Sequence(
            self,
            prompt_tokens=reply.ask.prompt_tokens,
            max_tokens=reply.ask.max_tokens,
            tokens=self._count,
            prefill_s=prefill_s,
            gaps=gaps,
        )

    def run(self, client: Client) -> None:
        """Answer this client when the time comes."""
        self._client = client
        if self._reply.ask.stream:
            client.open_stream()
        self._timer.submit(self.sequence, self._arrival)

    def cancel(self) -> None:
        """Give up the slot, or the place in the queue: the client has gone."""
        if not self.sequence.ended:
            self._timer.cancel(self.sequence)
        if not self.sequence.ended:
            self._meter.count_end("abort")

    def started(self, at: float) -> None:
        """It is in service."""
        self._meter.prompt_tokens += self._reply.ask.prompt_tokens
        self._meter.queue_s.observe(at - self._arrival)

    def made(self, index: int, due: float) -> None:
        """One more token is due."""
        meter = self._meter
        meter.generation_tokens += 1
        (meter.itl_s if index else meter.ttft_s).observe(due - self._last_due)
        self._last_due = due
        end = index + 1
        if self._reply.ask.stream and (end == self._count or end % self._bundling.tokens == 0):
            self._send(end)
        meter.count_lateness(self._timer.now() - due)

    def ended(self, at: float) -> None:
        """It has all its tokens."""
        self._meter.e2e_s.observe(at - self._arrival)
        self._meter.count_end(self._reply.output.finish_reason)
        client, reply = self._client, self._reply
        assert client is not None
        if not reply.ask.stream:
            client.answer(Response(HTTPStatus.OK, reply.whole()))
            return
        if not self._count:
            client.send_event(reply.echo())
        for event in reply.closing():
            client.send_event(event)
        client.close_stream()

    def _send(self, end: int) -> None:
        """Send the tokens up to before `end` that were not sent yet."""
        client, reply = self._client, self._reply
        assert client is not None
        if not self._sent:
            for event in reply.opening():
                client.send_event(event)
        if self._bundling.events == 1:
            for event in reply.events(self._sent, end):
                client.send_event(event)
        else:
            self._gather(client, end)
        self._sent = end

    def _gather(self, client: Client, end: int) -> None:
        for event in self._reply.events(self._sent, end):
            self._unwritten.append(event)
            if len(self._unwritten) == self._bundling.events:
                self._write(client)
        if end == self._count:
            self._write(client)

    def _write(self, client: Client) -> None:
        if self._unwritten:
            client.send_event(b"".join(self._unwritten))
            self._unwritten.clear()
