"""When is a request sent again that the server did not take? As it says, and later each time."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

REFUSALS = frozenset({429, 503, 529})
"""Too many requests, not available, overloaded (529 is no standard; hosted APIs say it)."""
MAX_WAIT_S = 60.0
"""No server makes a load wait for longer at a time."""
_FIRST_S = 0.5


class Waits:
    """How long requests wait, the same for the same seed."""

    def __init__(self, seed: str) -> None:
        self._draw = random.Random(f"retries:{seed}")

    def wait_s(self, before: int, said_s: float = 0.0) -> float:
        """Seconds until a request is sent again that was sent again ``before`` times.

        Half a second, doubled each time, less up to half of it so that not all come back at once; but no less than the
        server has ``said_s``, and at most a minute.
        """
        backoff_s = min(MAX_WAIT_S, _FIRST_S * 2.0 ** min(before, 16)) * self._draw.uniform(0.5, 1.0)
        return min(MAX_WAIT_S, max(said_s, backoff_s))


def said_s(retry_after: bytes, now: datetime | None = None) -> float:
    """Seconds that a header Retry-After asks for (RFC 9110, section 10.2.3); 0 when it says nothing sensible."""
    text = retry_after.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return min(MAX_WAIT_S, float(text[:9]))
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    try:
        wait_s = (at - (now or datetime.now(UTC))).total_seconds()
    except OverflowError:
        return 0.0
    return min(MAX_WAIT_S, max(0.0, wait_s))
