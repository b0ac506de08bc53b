"""What would Docker be asked? A double of its API on a Unix socket that writes down every request and starts nothing.

It follows the Docker Engine API, version 1.41, as far as it is used: images, pulls and the life of containers. A
container that is "started" is a small HTTP server in a thread, on the last number of its command.
"""

from __future__ import annotations

import http.server
import json
import re
import socketserver
import struct
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_VERSION = re.compile(r"^/v\d+\.\d+")


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        method: GET, POST or DELETE.
        path: without the version.
        query: decoded.
        body: decoded JSON; None without one.

    """

    method: str
    path: str
    query: Mapping[str, str]
    body: Any


class _Container:
    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        self.id, self.name, self.config = uuid.uuid4().hex * 2, name, config
        self.running = False
        self.stopped = threading.Event()
        self.server: http.server.ThreadingHTTPServer | None = None

    def start(self) -> None:
        self.running = True
        port = next(int(word) for word in reversed(self.config["Cmd"]) if word.isdecimal())
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), _Healthy)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        self.running = False
        self.stopped.set()

    def inspected(self) -> dict[str, Any]:
        status = "running" if self.running else "exited"
        state = {"Status": status, "Running": self.running, "Pid": 0, "ExitCode": 0, "OOMKilled": False}
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "State": state,
            "Config": {**self.config, "Tty": False},
            "HostConfig": self.config["HostConfig"],
            "NetworkSettings": {"Networks": {}},
        }

    def listed(self) -> dict[str, Any]:
        return {"Id": self.id, "Names": [f"/{self.name}"], "Labels": self.config["Labels"]}


class _Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody wants to know."""


@dataclass
class DockerApi:
    """The double.

    Attributes:
        address: for DOCKER_HOST.
        asked: all requests so far.
        images: references that are there.
        architecture: of the daemon's machine, and of its images.
        labels: of its images.
        pull_says: what a pull streams, as fast as it comes; the image is there afterwards unless it says an error.
        refuses_start: what ``start`` is answered with status 500, if anything.
        vanishes_at: end of the path at which a connection is dropped instead of answered.

    """

    address: str
    asked: list[Asked] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    architecture: str = "amd64"
    labels: Mapping[str, str] | None = None
    pull_says: Iterable[Mapping[str, Any]] = ()
    refuses_start: str = ""
    vanishes_at: str = ""
    containers: dict[str, _Container] = field(default_factory=dict)

    def created(self) -> list[Mapping[str, Any]]:
        """The bodies of all requests for a container."""
        return [asked.body for asked in self.asked if asked.path == "/containers/create"]

    def paths(self, method: str) -> list[str]:
        """What was asked for with a method."""
        return [asked.path for asked in self.asked if asked.method == method]

    def left_there(self, name: str, labels: Mapping[str, str]) -> None:
        """Puts a container there that somebody has left."""
        container = _Container(name, {"Labels": labels, "HostConfig": {}, "Cmd": []})
        self.containers[container.id] = container

    def find(self, name: str) -> _Container | None:
        """By id or name."""
        return next((c for c in self.containers.values() if name in (c.id, c.name)), None)


@contextmanager
def docker_api(path: Path, **options: Any) -> Iterator[DockerApi]:
    """The double, on a socket at ``path``, which must be short."""
    api = DockerApi(f"unix://{path}", **options)
    handler = type("Handler", (_Handler,), {"api": api})
    with _Server(str(path), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield api
        finally:
            for container in api.containers.values():
                container.stop()
            server.shutdown()
            thread.join()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: DockerApi

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        """All is written down already."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length) if length else b""
        parts = urlsplit(self.path)
        path = unquote(_VERSION.sub("", parts.path))
        body = json.loads(content) if content.startswith(b"{") else None
        asked = Asked(self.command, path, dict(parse_qsl(parts.query)), body)
        self.api.asked.append(asked)
        if self.api.vanishes_at and path.endswith(self.api.vanishes_at):
            self.close_connection = True
            return
        kind, _, rest = path.removeprefix("/").partition("/")
        known = {"images": self._images, "containers": self._containers}
        if kind in ("_ping", "version", "info"):
            self._say(200, {"ApiVersion": "1.41", "Version": "20.10.24", "Arch": self.api.architecture, "Os": "linux"})
        elif kind in known:
            known[kind](asked, rest)
        else:
            self._say(404, {"message": "page not found"})

    def _images(self, asked: Asked, rest: str) -> None:
        if rest == "create":
            self._pull(asked)
            return
        reference = rest.removesuffix("/json")
        if reference not in self.api.images and f"{reference}:latest" not in self.api.images:
            self._say(404, {"message": f"No such image: {reference}"})
            return
        digest = f"{reference.partition(':')[0]}@sha256:{'b' * 64}"
        facts = {"Id": f"sha256:{'a' * 64}", "RepoDigests": [digest], "Architecture": self.api.architecture}
        self._say(200, {**facts, "Config": {"Labels": self.api.labels}})

    def _pull(self, asked: Asked) -> None:
        self._begin_stream("application/json")
        failed = False
        for event in self.api.pull_says:
            failed = failed or "error" in event
            self._chunk(json.dumps(event).encode() + b"\r\n")
        if not failed:
            self.api.images.add(f"{asked.query['fromImage']}:{asked.query['tag']}")
        self._chunk(b"")  # whoever has read it may ask at once

    def _containers(self, asked: Asked, rest: str) -> None:
        if rest == "create":
            container = _Container(asked.query["name"], asked.body)
            self.api.containers[container.id] = container
            self._say(201, {"Id": container.id, "Warnings": []})
            return
        if rest == "json":
            self._say(200, [container.listed() for container in self.api.containers.values()])
            return
        name, _, action = rest.partition("/")
        found = self.api.find(name)
        if found is None:
            self._say(404, {"message": f"No such container: {name}"})
        else:
            self._act(found, action, asked)

    def _act(self, container: _Container, action: str, asked: Asked) -> None:
        if asked.method == "DELETE":
            del self.api.containers[container.id]
            container.stop()
            self._say(204)
        elif action == "json":
            self._say(200, container.inspected())
        elif action == "start" and self.api.refuses_start:
            self._say(500, {"message": self.api.refuses_start})
        elif action == "start":
            container.start()
            self._say(204)
        elif action == "stop":
            container.stop()
            self._say(204)
        elif action == "rename":
            container.name = asked.query["name"]
            self._say(204)
        elif action == "wait":
            container.stopped.wait()
            self._say(200, {"StatusCode": 0})
        elif action == "logs":
            self._begin_stream("application/vnd.docker.raw-stream")
            line = b"mine begins\n"
            self._chunk(struct.pack(">BxxxL", 1, len(line)) + line)
            container.stopped.wait()
            self._chunk(b"")
        else:
            self._say(404, {"message": "page not found"})

    def _say(self, status: int, content: Any = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body:
            self.wfile.write(body)

    def _begin_stream(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()
