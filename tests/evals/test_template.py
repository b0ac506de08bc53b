"""What can a template do, and what can it not?"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kitt.errors import UserError
from pytest_kitt.evals import template

_ROW: dict[str, Any] = {"question": " Why? ", "choices": ["a", "b"], "label": "1", "text": "x"}


def test_an_expression_gives_a_value_and_not_its_text() -> None:
    """Lists stay lists, numbers numbers."""
    assert template.value("choices | map('upper') | list", "card")(_ROW) == ["A", "B"]
    assert template.value("label | int + 1", "card")(_ROW) == 2
    assert template.value("label if label is defined else 0", "card")({}) == 0


def test_a_template_keeps_what_stands_at_its_end() -> None:
    """Also a line feed: prompts are compared to the byte."""
    assert template.text("{{ question.strip() }}\n", "card")(_ROW) == "Why?\n"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ choices.append('c') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ 'x' * 1000000000 }}",
        "{{ choices * 1000000000 }}",
        "{{ 10 ** 100000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ text.center(1000000000) }}",
        "{{ text.format(1) }}",
        "{% for n in range(1000000000) %}x{% endfor %}",
        "{{ missing }}",
        "{{ choices[7] }}",
        "{{ text.index('y') }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_what_a_template_may_not_or_cannot_do_is_an_error_of_its_card(source: str) -> None:
    """It reaches neither Python nor files, changes nothing and fills no memory."""
    with pytest.raises(UserError, match="card: prompt: "):
        template.text(source, "card: prompt")(_ROW)


def test_what_a_row_lacks_is_named_with_what_it_has() -> None:
    """So that a mistyped column is found at once."""
    with pytest.raises(UserError, match="'qestion' is undefined; the row has: choices, label, question, text"):
        template.value("qestion", "card: gold")(_ROW)


@pytest.mark.parametrize("source", ["{{ question", "{{ | }}", "{% endfor %}", "{{ a | nothing }}"])
def test_a_template_that_cannot_be_read_is_told_before_anything_runs(source: str) -> None:
    """With the key of the card."""
    with pytest.raises(UserError, match="card: prompt: no template"):
        template.text(source, "card: prompt")
