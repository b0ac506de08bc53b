"""Does a load find what a server takes, and lose nothing that it refuses? A real child, a server that says too many."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_kitt.load.run import Raw, run
from pytest_kitt.load.spec import Adaptive, Ending, joined
from pytest_kitt.measure.records import Failure, Phase
from tests.test_load_client import MARK, failures, spec

ANSWER = b'{"choices":[{"text":" a","finish_reason":"stop"}],"usage":{"completion_tokens":1}}'
REFUSAL = b'{"error":{"message":"too many"}}'
CLOSE, RESET = 0, -1  # what becomes of a connection, in place of a status
Verdict = Callable[["Server", str], int]  # of a request by its name: a status, or one of these


class Server:
    """Answers as a test says, and writes down what it was asked.

    Attributes:
        under_way: requests that it has taken.
        most: of them at a time.
        asked: for each time that a request came: its name, when, and what it got.

    """

    def __init__(self, verdict: Verdict, *, takes_s: float = 0.05, retry_after: str = "") -> None:
        self._verdict, self._takes_s = verdict, takes_s
        self._retry_after = f"Retry-After: {retry_after}\r\n" if retry_after else ""
        self.under_way = self.most = 0
        self.asked: list[tuple[str, float, int]] = []
        self.url = ""
        self._loop = asyncio.new_event_loop()

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """On a port of its own, in a thread of its own."""
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(listening),))
            thread.start()
            try:
                yield self
            finally:
                self._loop.call_soon_threadsafe(self._over.set)
                thread.join()
                self._loop.close()

    def times(self, status: int) -> int:
        """How often it gave this status."""
        return sum(got == status for _, _, got in self.asked)

    async def _serve(self, listening: socket.socket) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._connected, sock=listening)
        await self._over.wait()
        server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while await self._answers(reader, writer):
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        await reader.readexactly(int(headers["Content-Length"]))
        name = headers["X-Request-Id"]
        status = self._verdict(self, name)
        self.asked.append((name, time.perf_counter(), status))
        if status in (CLOSE, RESET):
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", status == RESET, 0))
            writer.transport.abort()
            return False
        if status == 200:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await asyncio.sleep(self._takes_s)
            self.under_way -= 1
        body, said = (ANSWER, "") if status == 200 else (REFUSAL, self._retry_after)
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{said}"
        writer.write(f"HTTP/1.1 {status} So\r\n{kind}\r\n".encode() + body)
        return True


def taking(many: int, status: int = 429) -> Verdict:
    """So many at a time, the others get a status."""
    return lambda server, _: 200 if server.under_way < many else status


def refusing(times: int, status: int = 429) -> Verdict:
    """Each request so often."""
    return lambda server, name: status if sum(name == known for known, _, _ in server.asked) < times else 200


def adaptive(server: Server, requests: int, **changes: object) -> Raw:
    """A load that begins with eight slots."""
    given = {"concurrency": 8, "most": 64, "retries": 20, "seed": "1", **changes}
    return run(spec(server.url, requests=requests, **given), mark=MARK)


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_server_that_takes_some_at_a_time(status: int) -> None:
    """Every question is answered once; the slots settle at or below what it takes; the records say what happened."""
    with Server(taking(8, status), retry_after="1").running() as server:
        raw = adaptive(server, 300)
    rows = list(raw.records.rows())
    assert failures(raw) == {"NONE": 300}
    assert sorted(r.index for r in rows) == list(range(300))
    answered = Counter(name for name, _, got in server.asked if got == 200)
    assert answered == {f"kitt-{n}": 1 for n in range(300)}
    refused = Counter(name for name, _, got in server.asked if got == status)
    assert refused == {f"kitt-{r.index}": r.retried for r in rows if r.retried}
    assert refused.total() >= 1
    assert server.most == 8
    assert 4 <= raw.ending.slots <= 8
    for r in rows:
        assert r.status == 200
        assert r.end_ns - r.send_ns >= 49_000_000  # of the last time, which the server took
        assert r.planned_ns <= r.send_ns
    came = {name: [at for known, at, _ in server.asked if known == name] for name in refused}
    assert all(b - a >= 0.99 for times in came.values() for a, b in pairwise(times))
    for r in rows:
        if r.retried:  # the times are of nothing before the last refusal
            assert raw.began_ns + r.planned_ns > came[f"kitt-{r.index}"][-2] * 1e9


def test_a_server_that_takes_many_gets_many() -> None:
    """The slots grow to the most while the load runs; each opened on the way has a connection of its own."""
    with Server(taking(10_000), takes_s=0.2).running() as server:
        raw = adaptive(server, 600)
    assert failures(raw) == {"NONE": 600}
    assert raw.ending.slots >= 32
    assert server.most >= 32
    assert sum(r.connect_ns > 0 for r in raw.records.rows()) <= 64


def test_clients_have_their_share_of_the_slots() -> None:
    """Of the first and of the most; together they ask each question once."""
    shares = spec("http://h:1", concurrency=9, most=100).split(2)
    assert [(s.concurrency, s.most) for s in shares] == [(5, 50), (4, 50)]
    with Server(taking(10)).running() as server:
        raw = run(spec(server.url, concurrency=8, most=64, requests=100, retries=20), mark=MARK, clients=2)
    assert failures(raw) == {"NONE": 100}
    assert len({r.index for r in raw.records.rows()}) == 100
    assert server.times(200) == 100
    assert raw.ending.slots == sum(ending.slots for ending in raw.clients)


def test_without_retries_a_refusal_is_a_fact() -> None:
    """Each is a failed request with its status, and asked once."""
    with Server(taking(2)).running() as server:
        raw = run(spec(server.url, concurrency=4, requests=40), mark=MARK)
    assert failures(raw)["HTTP_STATUS"] == server.times(429) > 0
    assert len(server.asked) == 40
    assert not any(r.retried for r in raw.records.rows())


def test_without_retries_slots_adapt_all_the_same() -> None:
    """What is refused on the way is lost, and little is once the slots are found."""
    with Server(taking(4)).running() as server:
        raw = run(spec(server.url, concurrency=8, most=64, requests=200), mark=MARK)
    found = failures(raw)
    assert found["HTTP_STATUS"] == server.times(429) > 0
    assert found["NONE"] == 200 - server.times(429) > 100
    assert raw.ending.slots <= 4


def test_a_fixed_loop_keeps_its_slots() -> None:
    """What is refused keeps its own until it is sent again."""
    with Server(refusing(1)).running() as server:
        raw = run(spec(server.url, concurrency=4, requests=12, retries=3), mark=MARK)
    assert failures(raw) == {"NONE": 12}
    assert [r.retried for r in raw.records.rows()] == [1] * 12
    assert server.most <= 4
    first = [name for name, _, _ in server.asked[:5]]
    assert len(set(first[:4])) == 4
    assert first[4] in first[:4]
    assert raw.ending.slots == 0


@pytest.mark.parametrize("status, failure", [(CLOSE, "CLOSED"), (RESET, "RESET"), (503, "HTTP_STATUS")])
def test_what_is_refused_too_often_is_a_failed_request(status: int, failure: str) -> None:
    """One question that the server never takes; the others do not suffer."""

    def verdict(_: Server, name: str) -> int:
        return status if name == "kitt-3" else 200

    with Server(verdict, takes_s=0.1).running() as server:
        raw = run(spec(server.url, concurrency=2, requests=60, retries=2, seed="4"), mark=MARK)
    assert failures(raw) == {"NONE": 59, failure: 1}
    (lost,) = [r for r in raw.records.rows() if r.failure]
    assert (lost.index, lost.retried, lost.status) == (3, 2, max(0, status))
    assert sum(name == "kitt-3" for name, _, _ in server.asked) in range(3, 7)  # a reused connection's end costs none
    assert raw.ending.stopped == ""


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500])
def test_what_is_wrong_is_not_sent_again(status: int) -> None:
    """The server has read it and said no."""
    with Server(lambda *_: status, retry_after="1").running() as server:
        raw = run(spec(server.url, concurrency=2, requests=6, retries=5), mark=MARK)
    assert failures(raw) == {"HTTP_STATUS": 6}
    assert len(server.asked) == 6


@pytest.mark.parametrize("how", [CLOSE, RESET])
def test_a_broken_connection_is_sent_again(how: int) -> None:
    """Before a byte of the answer, each request twice; on a reused connection once costs no retry."""
    with Server(refusing(2, how)).running() as server:
        raw = run(spec(server.url, concurrency=3, requests=9, retries=5), mark=MARK)
    assert failures(raw) == {"NONE": 9}
    assert {r.retried for r in raw.records.rows()} <= {1, 2}
    assert len(server.asked) == 27


def test_a_server_that_takes_nothing_ends_the_load() -> None:
    """In the time of one request's retries, not of all; and it is said."""
    with Server(lambda *_: 503).running() as server:
        raw = adaptive(server, 10_000, retries=2)
    assert raw.ending.stopped.startswith("the server took no request for ")
    assert raw.ending.stopped.endswith("; one was sent 3 times")
    assert raw.ending.details == {"HTTP_STATUS 503": "too many"}
    assert len(server.asked) <= 8 * 3
    found = failures(raw)
    assert found["HTTP_STATUS"] == 1
    assert found["CANCELLED"] == 7
    assert raw.ending.slots == 1


def test_a_server_that_cannot_be_reached_ends_the_load() -> None:
    """As one that takes nothing does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        raw = run(spec(url, concurrency=2, requests=100, retries=2), mark=MARK)
    assert raw.ending.stopped.startswith("the server took no request for ")
    assert "refused" in raw.ending.details["CONNECT"]


def test_a_server_that_comes_back_is_waited_for() -> None:
    """It refused all that came in its first second."""

    def verdict(server: Server, _: str) -> int:
        begun = server.asked[0][1] if server.asked else time.perf_counter()
        return 503 if time.perf_counter() - begun < 1 else 200

    with Server(verdict).running() as server:
        raw = adaptive(server, 40, retries=5)
    assert failures(raw) == {"NONE": 40}
    assert server.times(503) < 40


def test_an_interrupt_does_not_wait_for_a_retry() -> None:
    """What waits to be sent again is cancelled with the rest, and is in the blocks."""
    code = (
        "import sys\nsys.path[:0] = [sys.argv[2]]\n"
        "from tests.test_load_client import spec, MARK\nfrom pytest_kitt.load.run import run, Interrupted\n"
        "try:\n    load = spec(sys.argv[1], concurrency=4, requests=1000, retries=9)\n"
        "    run(load, mark=MARK, on_progress=lambda p: print(p.in_flight, p.reads, flush=True))\n"
        "except Interrupted as i:\n    print('kept', sorted(zip(i.raw.records['index'], i.raw.records['retried'])))\n"
    )
    with Server(lambda *_: 429, retry_after="60").running() as server:
        command = [sys.executable, "-u", "-c", code, server.url, str(Path(__file__).parents[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while True:
                in_flight, reads = map(int, process.stdout.readline().split())
                if not in_flight and reads >= 4:
                    break
            process.send_signal(signal.SIGINT)
            said = process.stdout.read()
    assert "kept [(0, 1), (1, 1), (2, 1), (3, 1)]" in said
    assert len(server.asked) == 4


def test_warm_up_and_cool_down_are_kept_up_too() -> None:
    """Phases are counted as ever: what is refused in one is sent again in it."""
    with Server(taking(6)).running() as server:
        raw = adaptive(server, 60, warmup=8, hold=True)
    rows = list(raw.records.rows())
    assert failures(raw) == {"NONE": 60}
    assert Counter(Phase(r.phase) for r in rows)[Phase.WARMUP] == 8
    assert {r.failure for r in rows} <= {Failure.NONE, Failure.CANCELLED}


def test_the_slots_of_several_clients_add_up() -> None:
    """As they say them."""
    one = Ending("kernel", 1.0, 0.1, 1, 0, 0, 0, 60, 0, 0.0, 0, [], {}, "", 5)
    assert joined([one, dataclasses.replace(one, slots=7)]).slots == 12
    assert str(Adaptive(8, 256)) == "adaptive:8:256"
