"""How do pytest's command line, ini file and environment become settings?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from pytest_kitt.errors import UserError
from pytest_kitt.settings import OPTIONS, Option, Settings, read_config_file, resolve

_GROUP = "kitt"
_SELECTING = ("engine", "model", "url", "runtime")


def add(parser: pytest.Parser) -> None:
    """Declares every option and its ini twin."""
    group = parser.getgroup(_GROUP, "benchmarks of LLM inference engines")
    for option in OPTIONS:
        group.addoption(
            option.flag,
            dest=option.ini,
            action="append" if option.repeats else "store",
            default=None,
            metavar=option.metavar,
            help=_help(option),
        )
        kind: Literal["linelist", "string"] = "linelist" if option.repeats else "string"
        parser.addini(option.ini, option.help, type=kind, default=None)


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


def _ini(config: pytest.Config, option: Option) -> Any:
    return config.getini(option.ini) or None


def _help(option: Option) -> str:
    repeats = ", may be repeated" if option.repeats else ""
    return f"{option.help}{repeats} (env {option.env}, ini {option.ini})".replace("%", "%%")
