"""How do pytest's command line, ini file and environment become settings?"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from pytest_kitt.errors import UserError
from pytest_kitt.settings import OPTIONS, Option, Settings, read_config_file, resolve

_GROUP = "kitt"
_WORKERS, _NO_XDIST = ("-n", "--numprocesses"), "kitt_no_xdist"
_SELECTING = ("engine", "model", "url", "runtime")


def add(parser: pytest.Parser) -> None:
    """Declares every option and its ini twin."""
    group = parser.getgroup(_GROUP, "benchmarks of LLM inference engines")
    for option in OPTIONS:
        group.addoption(option.flag, dest=option.ini, default=None, help=_help(option), **_form(option))
        kind: Literal["linelist", "string"] = "linelist" if option.repeats else "string"
        parser.addini(option.ini, option.help, type=kind, default=None)
    if importlib.util.find_spec("xdist") is None:
        # lower-case letters are kept for pytest and its own plugins, of which pytest-xdist is one
        group._addoption(*_WORKERS, dest=_NO_XDIST, metavar="N", help="needs pytest-xdist, which is not installed")  # noqa: SLF001


def require_xdist(config: pytest.Config) -> None:
    """UsageError when workers are asked for, and pytest-xdist is absent: pytest would only not know the option."""
    if config.getoption(_NO_XDIST, default=None) is not None:
        raise pytest.UsageError("-n needs pytest-xdist: pip install 'pytest-kitt[xdist]'")


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Turns a user's mistake into pytest's own error for it: one sentence, exit code 4."""
    try:
        yield
    except UserError as error:
        raise pytest.UsageError(f"kitt: {error}") from error


def asked(config: pytest.Config) -> bool:
    """Whether the command line names an option of ours, or KITT_SUITE is set: only then is anything of ours active."""
    given = (config.getoption(option.ini, default=None) for option in OPTIONS)
    return any(value is not None for value in given) or bool(os.environ.get("KITT_SUITE"))


def read(config: pytest.Config) -> Settings:
    """The settings of this session; UserError names the place of a bad value."""
    return resolve(
        cli={option.name: config.getoption(option.ini, default=None) for option in OPTIONS},
        env=os.environ,
        ini={option.name: _ini(config, option) for option in OPTIONS},
        file=read_config_file(),
    )


def names_a_target(settings: Settings) -> bool:
    """Whether the command line or the environment says what to measure, but perhaps not with which tests."""
    return any(settings.origins.get(name) in ("cli", "env") for name in _SELECTING)


def _form(option: Option) -> dict[str, Any]:
    """How argparse reads it: a switch has no value."""
    if option.switch:
        return {"action": "store_const", "const": "true"}
    if option.alone:
        return {"nargs": "?", "const": option.alone, "metavar": option.metavar}
    return {"action": "append" if option.repeats else "store", "metavar": option.metavar}


def _ini(config: pytest.Config, option: Option) -> Any:
    return config.getini(option.ini) or None


def _help(option: Option) -> str:
    repeats = ", may be repeated" if option.repeats else ""
    return f"{option.help}{repeats} (env {option.env}, ini {option.ini})".replace("%", "%%")
