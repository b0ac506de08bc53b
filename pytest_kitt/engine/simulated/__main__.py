"""Which options the simulated engine takes, and how it starts and stops."""

import argparse
import asyncio
import contextlib
import gc
import math
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from pytest_kitt.engine.simulated.clock import new_loop
from pytest_kitt.engine.simulated.openai import Limits
from pytest_kitt.engine.simulated.service import Connection, Service, Settings, log

# A burst of connections beyond the backlog waits a second for TCP to try again, and that would look like TTFT.
_BACKLOG = 4096
_MAX_PORT = 65535


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal; the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    settings = _settings(parser, options)
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
    server = await loop.create_server(lambda: Connection(service), sock=listener, ssl=tls, backlog=_BACKLOG)
    gc.freeze()
    sys.stdout.write(f"{orjson.dumps({'url': url}).decode()}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()
    service.close()


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pytest_kitt.engine.simulated",
        description="An OpenAI-compatible server that streams made-up tokens by a fixed timetable.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="Address to listen on (%(default)s)")
    add("--port", type=_integer(0, _MAX_PORT), default=0, help="Port to listen on; 0 takes a free one (%(default)s)")
    add("--model", default="simulated", help="Name of the model (%(default)s)")
    add("--ttft-ms", type=_real(0), default=20.0, help="From arrival to the first token (%(default)s)")
    add("--itl-ms", type=_real(0), default=5.0, help="From each token to the next (%(default)s)")
    add("--tokens", type=_integer(1), default=64, help="Output tokens if the request sets no limit (%(default)s)")
    add("--seed", type=_integer(), default=0, help="Decides texts and injected errors (%(default)s)")
    add("--error-rate", type=_real(0, 1), default=0.0, help="Fraction of requests answered with 500 (%(default)s)")
    add("--max-concurrent", type=_integer(0), default=0, help="Requests in service; 0 is no limit (%(default)s)")
    add("--context", type=_integer(2), default=8192, help="Most tokens of prompt and output together (%(default)s)")
    add("--load-ms", type=_real(0), default=0.0, help="From the start until it is healthy (%(default)s)")
    add("--api-key-env", metavar="NAME", help="Environment variable that holds the key which requests must show")
    add("--tls-cert", type=Path, metavar="FILE", help="Certificate chain in PEM; serves https")
    add("--tls-key", type=Path, metavar="FILE", help="Private key of the certificate")
    add("--answers", type=_answers, default={}, metavar="FILE.jsonl", help='Lines {"question": ..., "answer": ...}')
    return parser


def _settings(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Settings:
    return Settings(
        limits=Limits(options.model, options.tokens, options.context),
        ttft_s=options.ttft_ms / 1000,
        itl_s=options.itl_ms / 1000,
        seed=options.seed,
        error_rate=options.error_rate,
        max_concurrent=options.max_concurrent,
        load_s=options.load_ms / 1000,
        api_key=_api_key(parser, options.api_key_env),
        answers=options.answers,
    )


def _api_key(parser: argparse.ArgumentParser, name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        parser.error(f"argument --api-key-env: the environment variable {name} is not set")
    return key


def _tls(parser: argparse.ArgumentParser, options: argparse.Namespace) -> ssl.SSLContext | None:
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


def _answers(path: str) -> Mapping[str, str]:
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from error
    return dict(_answer(path, number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _answer(path: str, number: int, line: bytes) -> tuple[str, str]:
    try:
        pair = orjson.loads(line)
        question, answer = pair["question"], pair["answer"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{path}:{number}: not a question with its answer: {error}") from error
    if not (isinstance(question, str) and isinstance(answer, str) and question and answer):
        raise argparse.ArgumentTypeError(f"{path}:{number}: the question and the answer must be texts, not empty")
    return question, answer


def _integer(low: float = -math.inf, high: float = math.inf) -> Callable[[str], int]:
    return _bounded(int, low, high)


def _real(low: float, high: float = math.inf) -> Callable[[str], float]:
    return _bounded(float, low, high)


def _bounded(kind: type[Any], low: float, high: float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = kind(text)
        if not (low <= value <= high and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"{text} is not within {low} and {high}")
        return value

    read.__name__ = kind.__name__
    return read


if __name__ == "__main__":
    sys.exit(main())
