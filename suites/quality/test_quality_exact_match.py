"""Are the answers right? Short questions with one right answer each, scored to the letter."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.kitt(name="exact_match", version="1", category="quality")
def test_exact_match(kitt_evaluate: Any) -> None:
    """Accuracy over 50 questions; fails when it is no better than guessing, inconclusive when that cannot be told."""
    evaluation = kitt_evaluate(limit=50)
    evaluation.require_above_chance()
