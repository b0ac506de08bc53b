"""What do the tests of engines share?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.engines.serving import Start, serving


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers with a test's own options."""
    with ExitStack() as servers:
        yield lambda *options, env=None: servers.enter_context(serving(*options, env=env))
