"""What does ``kitt`` offer? Thin commands: they build pytest's command line, or read what is there."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from pytest_kitt import __version__
from pytest_kitt.cli import engines, fingerprint, models, results, run, tests
from pytest_kitt.cli.output import say, width
from pytest_kitt.errors import UserError

_INTERRUPTED, _USAGE = 2, 4
_BY_SIGNAL = 130  # what newer versions of typer make of Ctrl-C
_UNWRAPPED = 10_000
_MEANT = re.compile(r"\.? \(?(?:Did you mean|Possible options):? ([^?)]+)[?)]")
# the base of whatever typer raises for a command line that it cannot read; newer versions do not export it
_Misuse: type[Any] = typer.BadParameter.__mro__[2]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command("run", short_help="Run a suite.", no_args_is_help=False)(run.run)
app.add_typer(results.app, name="results", short_help="Show, export, import and delete stored results.")
app.add_typer(engines.app, name="engines", short_help="Show engines.")
app.add_typer(tests.app, name="test", short_help="Show suites and benchmarks, begin one.")
app.add_typer(models.app, name="models", short_help="Show the models on this machine.")
app.command("fingerprint", short_help="Show what this machine is.")(fingerprint.show)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"kitt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Benchmarks of LLM inference engines as pytest test cases.

    Example: kitt run -m tiny -e llama_cpp --runtime embedded -s quick

    Example: kitt results show last
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of ``kitt``: a user's mistake is one sentence and exit code 4, as everywhere."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # who read has read enough; nothing more is to be written, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = app(args=arguments, prog_name="kitt", standalone_mode=False, terminal_width=width() or _UNWRAPPED)
    except UserError as error:
        say(f"kitt: {error}", err=True)
        return _USAGE
    except _Misuse as error:
        say(_sentence(error), err=True)
        return _USAGE
    except (typer.Abort, KeyboardInterrupt):
        code = _BY_SIGNAL
    if code == _BY_SIGNAL:
        say("kitt: interrupted", err=True)
        return _INTERRUPTED
    return int(code or 0)


def _sentence(error: Any) -> str:
    """What typer finds wrong with a command line, as one sentence with the next step."""
    text = str(error.format_message()).strip()
    if text.startswith("Usage:"):  # nothing was asked for: this is the help itself
        return text
    command = error.ctx.command_path if getattr(error, "ctx", None) else "kitt"
    text = _MEANT.sub(r" (did you mean \1?)", text).rstrip(".")
    hint = "; options of pytest go behind --" if command == "kitt run" and text.startswith("No such option") else ""
    return f"kitt: {text[:1].lower()}{text[1:]}{hint}; see {command} --help"
