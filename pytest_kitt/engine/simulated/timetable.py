"""Which times has a request of its own? Drawn by seed and number, before anything slows it down. Pure.

The same seed and the same number of the request give the same times, whatever else is going on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from random import Random

from pytest_kitt.engine.simulated.distribution import Constant, Distribution

_MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast the engine is when it does nothing else.

    Attributes:
        ttft_ms: from the start of a request's service to its first token.
        itl_ms: from each token to the next.
        prefill_us: what each token of the prompt adds to the TTFT, in microseconds.
        stall_rate: share of the gaps between tokens that are lengthened.
        stall_ms: by how much.

    """

    ttft_ms: Distribution
    itl_ms: Distribution
    prefill_us: float = 0.0
    stall_rate: float = 0.0
    stall_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Gap:
    """From one token to the next, in seconds: what a fuller batch stretches, and what it does not."""

    own_s: float
    stall_s: float


def draw_ttft_s(speed: Speed, seed: int, number: int) -> float:
    """The drawn part of the TTFT of request `number`, in seconds."""
    if isinstance(speed.ttft_ms, Constant):
        return speed.ttft_ms.value / _MS_PER_S
    return speed.ttft_ms.at(Random(f"ttft {seed} {number}").random()) / _MS_PER_S


def draw_prefill_s(speed: Speed, seed: int, number: int, *, prompt_tokens: int, cached_tokens: int = 0) -> float:
    """The TTFT of a request alone on the engine, in seconds: drawn, plus the prompt's, less the cached share."""
    whole_s = draw_ttft_s(speed, seed, number) + prompt_tokens * speed.prefill_us / 1e6
    return whole_s * (1 - cached_tokens / prompt_tokens) if cached_tokens else whole_s


def draw_gaps(speed: Speed, seed: int, number: int) -> Iterator[Gap]:
    """The gaps of request `number`, without end."""
    if isinstance(speed.itl_ms, Constant) and not speed.stall_rate:
        return repeat(Gap(speed.itl_ms.value / _MS_PER_S, 0.0))
    return _draw_gaps(speed, seed, number)


def _draw_gaps(speed: Speed, seed: int, number: int) -> Iterator[Gap]:
    gaps, stalls = Random(f"itl {seed} {number}"), Random(f"stall {seed} {number}")
    while True:
        own_s = speed.itl_ms.at(gaps.random()) / _MS_PER_S
        stalled = stalls.random() < speed.stall_rate
        yield Gap(own_s, speed.stall_ms / _MS_PER_S if stalled else 0.0)
