"""Which errors can pytest-kitt raise, and what does each mean?

KittError                   everything below
├── UserError               input or environment is wrong: one sentence with the cure (pytest.UsageError, exit 4)
│   └── UnknownName         a metric or a statistic that does not exist; an AttributeError too
├── EngineError             the engine's fault
│   ├── EngineStartError    it did not become ready: carries the class of failure and the end of its log
│   ├── EngineDiedError     it was ready, and has died or hangs: carries the same
│   └── EngineRequestError  it answered a single request with an error
│       └── Unscorable      what it answers does not say how likely a text is: no number is made up instead
├── ClientError             a load client of ours ended in mid-run: an error, whoever killed it
├── ItemTimeoutError        an item took longer than --kitt-item-timeout: outcome "error"
├── InvalidMeasurement      the number cannot be trusted: outcome "invalid", reported as an error, never a pass
└── Inconclusive            the interval straddles the threshold: outcome "inconclusive"
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "ClientError",
    "EngineDiedError",
    "EngineError",
    "EngineRequestError",
    "EngineStartError",
    "Inconclusive",
    "InvalidMeasurement",
    "ItemTimeoutError",
    "KittError",
    "UnknownName",
    "Unscorable",
    "UserError",
    "nearest",
    "why",
]


class KittError(Exception):
    """Base of every error that pytest-kitt raises on purpose."""


class UserError(KittError):
    """The input or the environment is wrong; the message says what, where and the next step."""


class UnknownName(UserError, AttributeError):
    """A metric or a statistic that does not exist was asked for."""


class EngineError(KittError):
    """The engine did something wrong."""


class _LoggedError(EngineError):
    """What went wrong can be read in the engine's log."""

    def __init__(self, message: str, *, kind: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.log_tail = log_tail

    def __str__(self) -> str:
        """The sentence, then the end of the engine's log."""
        message = super().__str__()
        return f"{message}\n--- end of the engine's log ---\n{self.log_tail}" if self.log_tail else message


class EngineStartError(_LoggedError):
    """The engine did not become ready.

    Attributes:
        kind: class of the failure, e.g. ``died``, ``timeout``, ``model``, ``port``, ``memory``, ``missing``.
        log_tail: the last lines of its output, possibly empty.

    """


class EngineDiedError(_LoggedError):
    """The engine had been ready, and cannot answer any more.

    Attributes:
        kind: ``died``, ``hung`` or ``memory``.
        log_tail: the last lines of its output, empty for a server that already ran.

    """


class EngineRequestError(EngineError):
    """The engine answered a single request with an error."""


class Unscorable(EngineRequestError):
    """What the engine answers does not say how likely a text is."""


class ClientError(KittError):
    """A load client ended in mid-run."""


class ItemTimeoutError(KittError):
    """The item took longer than ``--kitt-item-timeout`` allows; what it had measured is kept."""


class InvalidMeasurement(KittError):
    """The number cannot be trusted; the test is an error, never a pass."""


class Inconclusive(KittError):
    """The evidence straddles the threshold: neither a pass nor a failure."""


def why(error: OSError | UnicodeDecodeError) -> str:
    """Why a file cannot be read, in a few words, without its name."""
    return error.strerror or str(error) if isinstance(error, OSError) else "it is no text in UTF-8"


_NEAR = 0.65  # "arm64" is meant to be "aarch64", "nope" is not meant to be "openai"


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns the tail of a sentence: the nearest known word, if one is near, and all of them."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=_NEAR)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names) if names else 'none'}"
