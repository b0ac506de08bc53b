"""What is an evaluation runner told, and what does it tell? Its arguments, and one file with the outcome.

Imported by the scripts that run in a runner's own environment: the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Stamp:
    """When a function ended the last time, on CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.ns = 0

    def after(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """The function, each end of which is noted."""

        def noted(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                return function(*args, **kwargs)
            finally:
                self.ns = time.perf_counter_ns()

        return noted


def asked() -> argparse.Namespace:
    """The arguments of a script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True, help="of the server, without a path")
    parser.add_argument("--questions", type=Path, required=True, help="JSON lines with question and answer")
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True, help="of each answer")
    parser.add_argument("--folder", type=Path, required=True, help="for whatever the runner leaves")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def tell(out: Path, **outcome: Any) -> None:
    """Leaves the outcome: last_score_ns, score, n."""
    out.write_text(json.dumps(outcome), encoding="utf-8")
