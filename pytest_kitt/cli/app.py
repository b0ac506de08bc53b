"""What does ``kitt`` offer? Thin commands: they build pytest's command line, or read what is there."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pytest_kitt import __version__
from pytest_kitt.cli import engines, results, run, tests
from pytest_kitt.errors import UserError

_USAGE = 4

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benchmarks of LLM inference engines as pytest test cases.",
)
app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, no_args_is_help=False)(
    run.run
)
app.add_typer(results.app, name="results")
app.add_typer(engines.app, name="engines")
app.add_typer(tests.app, name="test")


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
    """Benchmarks of LLM inference engines as pytest test cases."""


def main() -> None:
    """Entry point of ``kitt``: a user's mistake is one sentence and exit code 4, as everywhere."""
    try:
        app()
    except UserError as error:
        typer.echo(f"kitt: {error}", err=True)
        sys.exit(_USAGE)
    except BrokenPipeError:
        sys.exit(0)
