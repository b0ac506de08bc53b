"""Which errors can pytest-kitt raise, and what does each mean?

KittError                   everything below
├── UserError               input or environment is wrong: one sentence with the cure (pytest.UsageError, exit 4)
├── EngineError             the engine's fault
│   ├── EngineStartError    it did not become ready: carries the class of failure and the end of its log
│   └── EngineRequestError  it answered a single request with an error
├── InvalidMeasurement      the number cannot be trusted: outcome "invalid", reported as an error, never a pass
└── Inconclusive            the interval straddles the threshold: outcome "inconclusive"
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "EngineError",
    "EngineRequestError",
    "EngineStartError",
    "Inconclusive",
    "InvalidMeasurement",
    "KittError",
    "UserError",
    "nearest",
]


class KittError(Exception):
    """Base of every error that pytest-kitt raises on purpose."""


class UserError(KittError):
    """The input or the environment is wrong; the message says what, where and the next step."""


class EngineError(KittError):
    """The engine did something wrong."""


class EngineStartError(EngineError):
    """The engine did not become ready.

    Attributes:
        kind: class of the failure, e.g. ``died``, ``timeout``, ``model``, ``port``, ``memory``, ``missing``.
        log_tail: the last lines of its output, possibly empty.

    """

    def __init__(self, message: str, *, kind: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.log_tail = log_tail

    def __str__(self) -> str:
        """The sentence, then the end of the engine's log."""
        message = super().__str__()
        return f"{message}\n--- end of the engine's log ---\n{self.log_tail}" if self.log_tail else message


class EngineRequestError(EngineError):
    """The engine answered a single request with an error."""


class InvalidMeasurement(KittError):
    """The number cannot be trusted; the test is an error, never a pass."""


class Inconclusive(KittError):
    """The evidence straddles the threshold: neither a pass nor a failure."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns the tail of a sentence: the nearest known word, and all of them."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names) if names else 'none'}"
