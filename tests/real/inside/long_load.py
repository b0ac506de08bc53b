"""What is measured while something happens to the engine or to the session?"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_before(kitt_engine: Any, kitt_measure: Any) -> None:
    """A result that must not be lost."""
    assert kitt_engine.chat("63+11=?", max_tokens=8).output == " 74"
    kitt_measure("answered", 1, unit="count", better="higher", n=1)


def test_long(kitt_engine: Any, kitt_load: Any) -> None:
    """A load that takes much longer than it is given."""
    Path("engine").write_text(str(kitt_engine.pid))
    kitt_load("closed:2", "synthetic:48:512", "seconds:600")
