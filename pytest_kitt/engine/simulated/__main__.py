"""How does the simulated engine start and stop?"""

import argparse
import asyncio
import contextlib
import gc
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Sequence

import orjson

from pytest_kitt.engine.simulated import arguments
from pytest_kitt.engine.simulated.arguments import Parser
from pytest_kitt.engine.simulated.clock import new_loop
from pytest_kitt.engine.simulated.connection import Connection
from pytest_kitt.engine.simulated.service import Service, Settings, log

# A burst of connections beyond the backlog waits a second for TCP to try again, and that would look like TTFT.
_BACKLOG = 4096


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal; the exit code."""
    parser, options = arguments.read(argv)
    settings = arguments.settings(parser, options)
    tls = _tls(parser, options)
    _allow_many_connections()
    try:
        listener = _listen(options.host, options.port)
    except OSError as error:
        log(f"cannot listen on {options.host}:{options.port}: {error.strerror}; --port 0 takes a free port")
        return 1
    url = _url("https" if tls else "http", options.host, listener.getsockname()[1])
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(listener, url, settings, tls))
    return 0


async def _serve(listener: socket.socket, url: str, settings: Settings, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: log(f"{context['message']}: {context.get('exception')!r}"))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = Service(settings, loop)
    connections: set[Connection] = set()
    server = await loop.create_server(
        lambda: Connection(service, connections), sock=listener, ssl=tls, backlog=_BACKLOG
    )
    gc.freeze()
    sys.stdout.write(f"{orjson.dumps({'url': url}).decode()}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()
    for connection in list(connections):
        connection.abort()


def _listen(host: str, port: int) -> socket.socket:
    """One address only: a name with several would get several free ports, and the URL has room for one."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG)


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _allow_many_connections() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS calls the hard limit infinite and refuses it.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tls(parser: Parser, options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls_cert is None and options.tls_key is None:
        return None
    if options.tls_cert is None or options.tls_key is None:
        parser.error("--tls-cert and --tls-key go together")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:
        parser.error(f"--tls-cert {options.tls_cert}, --tls-key {options.tls_key}: {error}")
    return context


if __name__ == "__main__":
    sys.exit(main())
