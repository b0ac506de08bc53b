"""How do tests run a simulated engine and ask it?"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

PATIENCE_S = 30.0
COMMAND = [sys.executable, "-m", "pytest_kitt.engine.simulated"]


@dataclass(frozen=True)
class Server:
    """A simulated engine that runs, and how to ask it."""

    process: subprocess.Popen[str]
    url: str

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def get(self, path: str) -> httpx.Response:
        """Ask without a body."""
        return httpx.get(self.url + path, timeout=PATIENCE_S)

    def post(self, path: str, **body: object) -> httpx.Response:
        """Ask with a body of JSON."""
        return httpx.post(self.url + path, json=body, timeout=PATIENCE_S)

    def complete(self, prompt: str, **body: object) -> dict[str, Any]:
        """One completion that is not streamed."""
        reply: dict[str, Any] = self.post("/v1/completions", prompt=prompt, **body).raise_for_status().json()
        return reply

    def metric(self, name: str) -> float:
        """One value of /metrics."""
        sample = next(line for line in self.get("/metrics").text.splitlines() if line.startswith(f"{name}{{"))
        return float(sample.rpartition(" ")[2])

    def wait_for(self, name: str, value: float) -> None:
        """Return when the metric has the value."""
        deadline = time.monotonic() + PATIENCE_S
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} never became {value}"
            time.sleep(0.01)

    def stop(self) -> tuple[int, str, str]:
        """Exit code, and what is left on stdout and stderr."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@contextmanager
def serving(*options: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    """A server in a process of its own; nothing of it is left after."""
    process = subprocess.Popen(
        [*COMMAND, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        assert process.stdout is not None
        yield Server(process, json.loads(process.stdout.readline())["url"])
    finally:
        process.kill()
        process.communicate()


@dataclass
class Stream:
    """One streamed answer: the time just before its last byte went out, and each event with its time."""

    sent: float
    times: list[float] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    last: str = ""

    @property
    def tokens(self) -> list[tuple[float, str]]:
        """Each text that is not empty, with its time."""
        found = []
        for at, event in zip(self.times, self.events, strict=True):
            for choice in event["choices"]:
                piece = choice["delta"].get("content") if "delta" in choice else choice["text"]
                if piece:
                    found.append((at, piece))
        return found

    @property
    def text(self) -> str:
        """All that was streamed."""
        return "".join(piece for _, piece in self.tokens)


def stream(server: Server, path: str = "/v1/completions", **body: object) -> Stream:
    """Ask for a stream on a connection of its own and read it to the end."""
    connection = http.client.HTTPConnection(*server.address, timeout=PATIENCE_S)
    connection.connect()
    raw = json.dumps({"stream": True, **body})
    result = Stream(time.monotonic())
    connection.request("POST", path, raw)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    for line in iter(response.readline, b""):
        at = time.monotonic()
        data = line.decode().removeprefix("data: ").strip()
        if data.startswith("{"):
            result.times.append(at)
            result.events.append(json.loads(data))
        elif data:
            result.last = data
    connection.close()
    return result


def exchange(server: Server, sent: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    with socket.create_connection(server.address, timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def raw_post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    """The bytes of a request."""
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


Start = Callable[..., Server]
