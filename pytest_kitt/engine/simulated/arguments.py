"""Which options does the simulated engine take, and what do they say together?"""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pytest_kitt.engine.simulated import distribution, knowledge
from pytest_kitt.engine.simulated.distribution import Distribution
from pytest_kitt.engine.simulated.generation import Bundling
from pytest_kitt.engine.simulated.knowledge import Fact
from pytest_kitt.engine.simulated.openai import Limits
from pytest_kitt.engine.simulated.scheduler import Batch
from pytest_kitt.engine.simulated.service import Settings
from pytest_kitt.engine.simulated.timetable import Speed

_MAX_PORT = 65535
_RESERVE, _PREEMPT = "reserve", "preempt"
_PROFILED = {"ttft_ms", "itl_ms", "prefill_us", "ttft_slope", "itl_slope", "max_concurrent", "kv_tokens"}


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong: the line is all that a user of pytest sees of it."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(2, f"simulated: {' '.join(message.split())} (--help lists the options)\n")


def read(argv: Sequence[str] | None) -> tuple[Parser, argparse.Namespace]:
    """The options, with the profile's values for those that are not given."""
    parser = _parser()
    first, _ = parser.parse_known_args(argv)
    parser.set_defaults(hardware={})
    if first.profile is not None:
        parser.set_defaults(**_profile(parser, first.profile))
    return parser, parser.parse_args(argv)


def settings(parser: Parser, options: argparse.Namespace) -> Settings:
    """How the engine is to behave."""
    context = min(options.context, options.kv_tokens or options.context)
    return Settings(
        limits=Limits(options.model, options.tokens, context),
        speed=Speed(options.ttft_ms, options.itl_ms, options.prefill_us, options.stall_rate, options.stall_ms),
        batch=Batch(
            max_running=options.max_concurrent,
            kv_tokens=options.kv_tokens,
            preempts=options.kv_policy == _PREEMPT,
            ttft_slope=options.ttft_slope,
            itl_slope=options.itl_slope,
        ),
        bundling=Bundling(options.bundle, options.write_events),
        seed=options.seed,
        error_rate=options.error_rate,
        reasoning=options.reasoning,
        max_waiting=None if options.max_waiting < 0 else options.max_waiting,
        prefix_cache=bool(options.prefix_cache),
        load_s=options.load_ms / 1000,
        die_at=options.die_at,
        hang_at=options.hang_at,
        cold_s=options.cold_ms / 1000,
        cold_requests=options.cold_requests,
        leak_bytes=1000 * options.leak_kb_per_request,
        api_key=_api_key(parser, options.api_key_env),
        knowledge=knowledge.believe(options.answers, accuracy=options.accuracy, seed=options.seed),
        hardware=options.hardware,
    )


def _parser() -> Parser:
    parser = Parser(
        prog="python -m pytest_kitt.engine.simulated",
        description="An OpenAI-compatible server that streams made-up tokens on a timetable; see docs/simulated.md.",
    )
    for group, add_options in (
        ("server", _add_server),
        ("time", _add_time),
        ("load", _add_load),
        ("answers", _add_answers),
        ("faults", _add_faults),
    ):
        add_options(parser.add_argument_group(group).add_argument)
    return parser


def _add_server(add: Callable[..., object]) -> None:
    add("--host", default="127.0.0.1", help="Address to listen on (%(default)s)")
    add("--port", type=_integer(0, _MAX_PORT), default=0, help="Port to listen on; 0 takes a free one (%(default)s)")
    add("--model", default="simulated", help="Name of the model (%(default)s)")
    add("--context", type=_integer(2), default=8192, help="Most tokens of prompt and output together (%(default)s)")
    add("--load-ms", type=_real(0), default=0.0, help="From the start until it is healthy (%(default)s)")
    add("--profile", metavar="NAME", help="Virtual hardware: sets the speeds and limits that are not given")
    add("--api-key-env", metavar="NAME", help="Environment variable that holds the key which requests must show")
    add("--tls-cert", type=Path, metavar="FILE", help="Certificate chain in PEM; serves https")
    add("--tls-key", type=Path, metavar="FILE", help="Private key of the certificate")


def _add_time(add: Callable[..., object]) -> None:
    forms = "N, normal:MEAN:SD, lognormal:MEDIAN:SIGMA or empirical:FILE"
    add("--ttft-ms", type=_times, default="20", help=f"From the start of service to the first token: {forms} (20)")
    add("--itl-ms", type=_times, default="5", help="From each token to the next, likewise (5)")
    add("--prefill-us", type=_real(0), default=0.0, help="Added to the TTFT for each prompt token (%(default)s)")
    add("--stall-rate", type=_real(0, 1), default=0.0, help="Share of the gaps that are lengthened (%(default)s)")
    add("--stall-ms", type=_real(0), default=0.0, help="By how much (%(default)s)")
    add("--seed", type=_integer(), default=0, help="Decides times, texts, probabilities, errors (%(default)s)")


def _add_load(add: Callable[..., object]) -> None:
    add(
        "--ttft-slope",
        type=_real(0),
        default=0.0,
        help="Added to the TTFT for each other request that runs, as a share",
    )
    add("--itl-slope", type=_real(0), default=0.0, help="Added to the gaps between tokens, likewise")
    add("--max-concurrent", type=_integer(0), default=0, help="Requests in service; 0 is no limit (%(default)s)")
    add("--max-waiting", type=_integer(-1), default=-1, help="Requests that may wait, more get 429; -1 is no limit")
    add("--kv-tokens", type=_integer(0), default=0, help="Tokens that the KV cache holds; 0 is no limit (%(default)s)")
    add("--kv-policy", choices=(_RESERVE, _PREEMPT), default=_RESERVE, help="What a full cache means (%(default)s)")
    add("--prefix-cache", type=_integer(0, 1), default=0, help="1: prompts that begin alike are faster (%(default)s)")


def _add_answers(add: Callable[..., object]) -> None:
    add("--tokens", type=_integer(1), default=64, help="Output tokens if the request sets no limit (%(default)s)")
    add("--answers", type=_facts, default=(), metavar="FILE.jsonl", help='Lines {"question": ..., "answer": ...}')
    add("--accuracy", type=_real(0, 1), default=1.0, help="Share of these that it knows (%(default)s)")
    add("--reasoning", type=_integer(0), default=0, help="Tokens of reasoning before a chat's answer (%(default)s)")
    add("--bundle", type=_integer(1), default=1, help="Tokens in an event (%(default)s)")
    add("--write-events", type=_integer(1), default=1, help="Events in a write (%(default)s)")


def _add_faults(add: Callable[..., object]) -> None:
    add("--error-rate", type=_real(0, 1), default=0.0, help="Fraction of requests answered with 500 (%(default)s)")
    add("--die-at", type=_integer(0), default=0, help="Request that kills it, counted from 1; 0 is none (%(default)s)")
    add("--hang-at", type=_integer(0), default=0, help="Request that stops it, likewise (%(default)s)")
    add("--cold-ms", type=_real(0), default=0.0, help="Further time to the first token of the first requests (0)")
    add("--cold-requests", type=_integer(0), default=1, help="How many requests that are (%(default)s)")
    add("--leak-kb-per-request", type=_integer(0), default=0, help="Memory that is never given back (%(default)s)")


def _profile(parser: Parser, name: str) -> dict[str, Any]:
    from pytest_kitt.engine.simulated import profile
    from pytest_kitt.errors import UserError

    try:
        found = profile.load(name)
    except UserError as error:
        parser.error(f"argument --profile: {error}")
    unknown = set(found.arguments) - _PROFILED
    if unknown:
        parser.error(f"argument --profile: {profile.PROFILES}: {name}: {min(unknown)!r} is no argument of a profile")
    # as texts, so that argparse checks them like the user's own
    return {"hardware": found.labels(name), **{key: str(value) for key, value in found.arguments.items()}}


def _api_key(parser: Parser, name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        parser.error(f"argument --api-key-env: the environment variable {name} is not set")
    return key


def _times(text: str) -> Distribution:
    try:
        return distribution.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _facts(path: str) -> Sequence[Fact]:
    try:
        return knowledge.read(path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


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
