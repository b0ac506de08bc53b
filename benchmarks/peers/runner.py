"""What is an evaluation runner told, and what does it tell? Its arguments, and one file with the outcome.

Imported by the scripts that run in a runner's own environment: the standard library alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What is to be evaluated.

    Attributes:
        url: of the server, without a path.
        questions: JSON lines with question and answer.
        concurrency: requests under way.
        tokens: of each answer.

    """

    url: str
    questions: Path
    concurrency: int
    tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a runner has found.

    Attributes:
        last_score_ns: when its last score was there, on CLOCK_MONOTONIC.
        score: share of right answers.
        n: questions scored.

    """

    last_score_ns: int
    score: float
    n: int


class Stamp:
    """When a function ended the last time, on CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.ns = 0

    def now(self) -> None:
        """Notes the time."""
        self.ns = time.perf_counter_ns()

    def after(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """The function, each end of which is noted."""

        def noted(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            found = function(*args, **kwargs)
            self.now()
            return found

        return noted


def arguments(work: Work) -> list[str]:
    """For the command line of a script."""
    return [f"--{name}={value}" for name, value in dataclasses.asdict(work).items()]


def work() -> Work:
    """From the command line of a script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    return Work(**vars(parser.parse_args()))


def tell(found: Found, folder: Path) -> None:
    """Leaves the outcome."""
    (folder / "found.json").write_text(json.dumps(dataclasses.asdict(found)), encoding="utf-8")


def told(folder: Path) -> Found:
    """Reads it."""
    return Found(**json.loads((folder / "found.json").read_text(encoding="utf-8")))
