"""What do the doubles of engines share? A small HTTP server, an account of what they were asked, and ways to fail.

A double is built from its engine's documentation and source, with its quirks, never from our own readers. What it was
asked it writes down as JSON lines in the file that ``KITT_DOUBLE_LOG`` names: first its arguments and environment, then
where it listens, then each request.
"""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlsplit

LOG_ENV, FAIL_ENV, LOAD_ENV, ITL_ENV = "KITT_DOUBLE_LOG", "KITT_DOUBLE_FAIL", "KITT_DOUBLE_LOAD_S", "KITT_DOUBLE_ITL_MS"
FAILURES = ("", "model", "memory", "port", "exit", "never-healthy", "gpu")  # the last of vLLM and SGLang alone
_SECRETS = ("TOKEN", "KEY")


class Refused(Exception):
    """An answer with a status and a document, or a text."""

    def __init__(self, status: int, document: Any) -> None:
        super().__init__(status)
        self.status, self.document = status, document


class Exchange(http.server.BaseHTTPRequestHandler):
    """One request and its answer.

    Attributes:
        route: method and path.
        query: the parameters behind the path.
        sent: the bytes of the body.
        body: the same as JSON; None when it is none.

    """

    protocol_version = "HTTP/1.1"
    server: Server
    route: tuple[str, str]
    query: dict[str, str]
    sent: bytes
    body: Any

    def setup(self) -> None:
        """Like every engine's server: a token waits for no other."""
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self) -> None:
        """Serves a connection until its client has gone."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.route = self.command, parts.path
        self.query = dict(parse_qsl(parts.query))
        self.sent = self._sent()
        try:
            self.body = json.loads(self.sent) if self.sent else None
        except ValueError:
            self.body = None
        secret = {name: "set" for name in ("authorization", "x-api-key", "x-admin-key") if name in self.headers}
        size = len(self.sent)
        self.server.account.add(method=self.command, path=self.path, headers=secret, bytes=size, body=self.body)
        try:
            self.server.answer(self)
        except Refused as refused:
            if isinstance(refused.document, str):
                self.raw(refused.document.encode(), refused.status)
            else:
                self.json(refused.document, refused.status)

    def _sent(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = _serve  # noqa: N815 - as http.server wants them

    def version_string(self) -> str:
        """What the Server header says."""
        return self.server.software

    def log_message(self, *_: object) -> None:
        """Says nothing: a double's log is its engine's."""

    def json(self, document: Any, status: int = 200, *, kind: str = "application/json", **headers: str) -> None:
        """Answers with a document."""
        self.raw(json.dumps(document, ensure_ascii=False).encode(), status, kind=kind, **headers)

    def raw(self, body: bytes, status: int = 200, *, kind: str = "text/plain; charset=utf-8", **headers: str) -> None:
        """Answers with bytes."""
        self.send_response(status)
        if body:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def stream(self, pieces: Iterable[bytes], *, kind: str = "text/event-stream", **headers: str) -> None:
        """Answers with pieces as they come, each in a chunk of its own; a Refused before the first becomes a status."""
        iterator = iter(pieces)
        first = next(iterator, b"")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        for piece in _behind(first, iterator):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")


def _behind(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


class Account:
    """What a double was asked, line by line; nothing where nobody wants to know."""

    def __init__(self) -> None:
        self._path = os.environ.get(LOG_ENV, "")
        self._lock = threading.Lock()

    def begin(self, name: str, argv: Sequence[str], prefixes: tuple[str, ...]) -> None:
        """Writes down how it was started; of secrets only that they were there."""
        env = {key: value for key, value in sorted(os.environ.items()) if key.startswith(prefixes)}
        masked = {key: "set" if any(word in key for word in _SECRETS) else value for key, value in env.items()}
        self.add(double=name, argv=list(argv), env=masked)

    def add(self, **entry: Any) -> None:
        """Writes one line."""
        if self._path:
            with self._lock, open(self._path, "a", encoding="utf-8") as file:  # noqa: PTH123 - as the shell would
                file.write(json.dumps(entry) + "\n")


class Server(http.server.ThreadingHTTPServer):
    """A double's server.

    Attributes:
        software: what its Server header says.
        account: where it writes down what it is asked.
        answer: what answers a request.

    """

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], answer: Callable[[Exchange], None], account: Account) -> None:
        """Binds its port, as the engines do: OSError when it is taken. It listens when it serves."""
        super().__init__(address, Exchange, bind_and_activate=False)
        self.answer, self.account, self.software = answer, account, "double"
        self.allow_reuse_address = True
        self.server_bind()

    def server_bind(self) -> None:
        """Without a look-up of the host's name."""
        socketserver_bind(self)

    def run(self) -> int:
        """Listens and serves until SIGTERM."""
        self.server_activate()
        return self.run_listening()

    def run_listening(self) -> int:
        """Serves until SIGTERM."""
        self.account.add(listens=list(self.server_address[:2]))  # port 0 is any
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=self.shutdown).start())
        self.serve_forever(poll_interval=0.05)
        self.server_close()
        return 0


def socketserver_bind(server: http.server.HTTPServer) -> None:
    """Binds as socketserver does; HTTPServer would ask for the host's full name."""
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.socket.bind(server.server_address)
    server.server_address = server.socket.getsockname()
    server.server_name, server.server_port = str(server.server_address[0]), int(server.server_address[1])


def failure(argv: Sequence[str]) -> tuple[list[str], str]:
    """The engine's own arguments, and how it is to fail: ``--fail=...`` among them, or the environment."""
    asked = [argument for argument in argv if argument.startswith("--fail=")]
    kind = asked[-1].partition("=")[2] if asked else os.environ.get(FAIL_ENV, "")
    if kind not in FAILURES:
        sys.exit(f"--fail: {kind!r} is unknown; it can be: {', '.join(FAILURES[1:])}")
    return [argument for argument in argv if argument not in asked], kind


def busy(address: tuple[str, int], kind: str = "") -> bool:
    """Whether a port is taken, or is to be."""
    if kind == "port":
        return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def load() -> None:
    """Takes as long as a model takes to be loaded, so to speak."""
    time.sleep(float(os.environ.get(LOAD_ENV, "0.2")))


def wait_forever() -> NoReturn:
    """Starts and is never ready."""
    while True:
        time.sleep(60)


def pace() -> None:
    """Waits for the next token."""
    time.sleep(float(os.environ.get(ITL_ENV, "2")) / 1000)


def log(*lines: str) -> None:
    """Prints lines where an engine's log goes."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def sse(document: Any, *, end: str = "\n\n", lead: str = "data: ") -> bytes:
    """One server-sent event."""
    text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return f"{lead}{text}{end}".encode()


def metrics(values: Mapping[str, float]) -> bytes:
    """Prometheus' exposition of some gauges."""
    return "".join(
        f"# TYPE {name.partition('{')[0]} gauge\n{name} {value}\n" for name, value in values.items()
    ).encode()
