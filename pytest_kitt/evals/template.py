"""How do a card's templates and expressions become texts and values? By Jinja2 in its sandbox.

Cards come from strangers: a template has no way out to Python, to files or to the network, changes nothing, and may not
multiply texts, which would only fill the memory. What a row lacks is an error, never an empty text; and so is a null, a
list or an object where a text belongs, which would be asked as Python spells it.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pytest_kitt.errors import UserError

MAX_RENDERED_CHARS = 2_000_000
_FAULTS = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError, re.error)
_MAX_WHY_CHARS = 300
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's immutable sandbox, without what makes long texts out of short ones."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """``*``, ``**`` and ``%`` are for numbers."""
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            raise SecurityError(f"{operator!r} is for numbers alone")
        if operator == "**" and (abs(left) > 1e6 or abs(right) > 64):
            raise SecurityError("the power is too large")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Any:
        """No ``format`` at all: its widths pad."""
        found = super().wrap_str_format(value)
        return None if found is None else self.format_string(value)

    def format_string(self, *_: Any, **__: Any) -> Any:
        """What versions of Jinja2 before 3.1.5 call in place of ``wrap_str_format``."""
        raise SecurityError("'format' is not for cards; use ~")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """A text's methods, but those that pad it."""
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _PADDING)


class _NoText(TypeError):
    """What was to be written into a prompt."""

    def __init__(self, value: object) -> None:
        kind = _KINDS.get(type(value), f"a value of type {type(value).__name__}")
        super().__init__(f"{kind} where a text belongs")
        self.value = value


_KINDS: dict[type, str] = {type(None): "nothing (null)", list: "a list", dict: "an object", bytes: "bytes"}
_TEXTS = (str, int, float, Decimal, datetime.date, datetime.time, Undefined)  # the last says itself what is missing


def _written(value: Any) -> Any:
    """What stands in a prompt as it is; _NoText for what would stand there as Python spells it."""
    if not isinstance(value, _TEXTS):
        raise _NoText(value)
    return value


@functools.cache
def _environment() -> Sandbox:
    found = Sandbox(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=_written)
    for name in ("center", "indent", "format", "wordwrap", "pprint", "lipsum"):
        found.filters.pop(name, None)
    found.globals.pop("lipsum", None)
    found.filters["regex_replace"] = lambda text, pattern, new="": re.sub(pattern, new, text)
    return found


def text(source: str, where: str) -> Callable[[Mapping[str, Any]], str]:
    """A template as a function from a row to a text; UserError for one that cannot be read.

    ``where`` says which key of which card it is, for messages.
    """
    try:
        template = _environment().from_string(source)
    except TemplateError as error:
        raise UserError(f"{where}: no template: {_why(error)}") from error

    def render(row: Mapping[str, Any]) -> str:
        try:
            found = template.render(row)
        except _FAULTS as error:
            raise UserError(_failed(where, error, row)) from error
        if len(found) > MAX_RENDERED_CHARS:
            raise UserError(f"{where}: a text of {len(found)} characters; the limit is {MAX_RENDERED_CHARS}")
        return found

    return render


def value(source: str, where: str) -> Callable[[Mapping[str, Any]], Any]:
    """An expression, such as ``choices.text``, as a function from a row to a value; UserError as for ``text``."""
    try:
        expression = _environment().compile_expression(source, undefined_to_none=False)
    except TemplateError as error:
        raise UserError(f"{where}: no expression: {_why(error)}") from error

    def evaluate(row: Mapping[str, Any]) -> Any:
        try:
            found = expression(row)
            if isinstance(found, Undefined):
                str(found)  # StrictUndefined says here what is missing
        except _FAULTS as error:
            raise UserError(_failed(where, error, row)) from error
        return found

    return evaluate


def column_of(row: Mapping[str, Any], value: Any) -> str:
    """Beginning of a sentence: the columns that hold just this value; empty when none does."""
    names = [repr(name) for name, held in row.items() if held is value]
    return f"column {' or '.join(names)[:100]}: " if names else ""


def _failed(where: str, error: Exception, row: Mapping[str, Any]) -> str:
    if isinstance(error, _NoText):
        return f"{where}: {column_of(row, error.value)}{error}"
    return f"{where}: {_why(error)}; the row has: {', '.join(sorted(map(_shown, row)))[:500]}"


def _shown(name: object) -> str:
    """A column's name as it is, or escaped where it would reach a terminal as more than text."""
    return str(name) if str(name).isprintable() else ascii(str(name))


def _why(error: Exception) -> str:
    return _shown(str(error)[:_MAX_WHY_CHARS]) or type(error).__name__
