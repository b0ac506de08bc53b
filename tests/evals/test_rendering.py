"""Does a chat template become the prompt that Hugging Face's libraries make of it, and no stranger's one do harm?"""

from __future__ import annotations

import time

import pytest

from pytest_kitt import shipped
from pytest_kitt.evals.rendering import Unrenderable, render
from pytest_kitt.model import chat

QUESTION = {"role": "user", "content": "1 < 2?"}


def prompt(template: str, **special: str) -> str:
    """The only prompt that it makes of one question."""
    (found,) = render(template, [QUESTION], special)
    return found


def test_the_tiny_models_own() -> None:
    """Turns in order, and the beginning of the answer."""
    facts = chat.read(shipped.TINY_MODEL)
    turns = [QUESTION, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "2 < 1?"}]
    assert render(facts.template, turns, facts.special) == ("<|begin|>Q: 1 < 2?\nAnswer: yes\nQ: 2 < 1?\nAnswer:",)


@pytest.mark.parametrize(
    "template, expected",
    [
        ("{% for m in messages %}\n    {% if true %}\n{{ m.role }}\n    {% endif %}\n{% endfor %}\n", "user\n"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "1 < 2?"}]'),
        ("{{ {'é': '<'} | tojson(indent=1) }}", '{\n "é": "<"\n}'),
        ("{% for n in range(9) %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}", "01"),
        ("{% for n in range(3) %}{% if n == 1 %}{% continue %}{% endif %}{{ n }}{% endfor %}", "02"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "1 < 2?!"),
        ("{% set x = namespace(n=1) %}{% set x.n = x.n + 1 %}{{ x.n }}", "2"),
        ("[{{ bos_token }}{{ pad_token }}]", "[<s>]"),
        ("{{ tools is none }}{{ add_generation_prompt }}", "TrueTrue"),
        ("{{ '%s-%s' | format(1, 2) }}{{ 'ab'.upper() }}{{ '=' * 3 }}", "1-2AB==="),
    ],
)
def test_what_templates_count_on(template: str, expected: str) -> None:
    """White space, JSON, loops, marks of training, special tokens."""
    assert prompt(template, bos_token="<s>") == expected


def test_the_date_may_be_that_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in a container has another clock: both dates are good, and one where they are the same."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    assert len(render("{{ strftime_now('%H') }}", [QUESTION], {})) == 2
    monkeypatch.setenv("TZ", "UTC")
    assert len(render("{{ strftime_now('%Y') }}", [QUESTION], {})) == 1
    assert prompt("{{ strftime_now('%Y') }}") == time.strftime("%Y", time.gmtime())


@pytest.mark.parametrize(
    "template, why",
    [
        ("{{ raise_exception('only one\\nturn') }}", "only one\nturn"),
        ("{% if %}", "Expected an expression"),
        ("{{ messages[0].content.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception.__globals__['os'] }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0] + 1 }}", "unsupported operand"),
        ("{% for n in range(99999) %}aaaa{% endfor %}", "more than 200000 characters"),
        ("{{ 'a' * 10 ** 11 }}", "too much memory"),
        (
            "{% set x = namespace(t='a') %}{% for n in range(99) %}{% set x.t = x.t ~ x.t %}{% endfor %}",
            "too much memory",
        ),
    ],
)
def test_what_makes_no_prompt(template: str, why: str) -> None:
    """One reason each, and neither Python nor files nor the memory of this process are touched."""
    with pytest.raises(Unrenderable) as caught:
        prompt(template)
    assert why in str(caught.value)


def test_one_that_never_ends() -> None:
    """The processor time is bounded."""
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(Unrenderable, match="it takes more than 1 s of processor time"):
        render(loops, [QUESTION], {}, cpu_s=1)
