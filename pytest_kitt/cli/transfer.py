"""How does a run leave the store, and come back? ``kitt results export`` and ``import``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pytest_kitt.cli import complete, stores
from pytest_kitt.cli.output import Db, say
from pytest_kitt.errors import UserError


def export_results(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Id of a run, the beginning of one, or 'last'.", autocompletion=complete.runs
        ),
    ],
    *,
    format_: Annotated[
        str,
        typer.Option("--format", "-f", metavar="NAME", help="json, csv, md, junit, pytest-benchmark or html."),
    ] = "json",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write; else standard output.")
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="With json: the raw samples too.")] = False,
    db: Db = "",
) -> None:
    """Write one run in a format of your choice.

    Example: kitt results export last --format csv -o run.csv
    """
    from pytest_kitt.report import exports
    from pytest_kitt.report.atomic import replaced

    exports.require_format(format_, samples=samples)
    with stores.connection(db) as connection:
        pieces = exports.pieces(
            connection, run, format_, samples=samples, say=lambda text: say(f"kitt: {text}", err=True)
        )
        if output is None:
            sys.stdout.buffer.writelines(pieces)
            sys.stdout.buffer.flush()
            return
        try:
            with replaced(output.expanduser()) as file:
                file.writelines(pieces)
        except OSError as error:
            raise UserError(f"--output: {output} cannot be written: {error.strerror}") from error


def import_results(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What kitt results export --format json wrote.")],
    *,
    db: Db = "",
) -> None:
    """Put an exported run into the store.

    Example: kitt results import run.json
    """
    from pytest_kitt.report import imported

    document = imported.read(file.expanduser())
    with stores.engine(db, create=True) as engine:
        run_id = imported.store(engine, document)
    say(f"imported run {run_id}: kitt results show {run_id}{f' --db {shlex.quote(db)}' if db else ''}")
    if document.samples is None:
        say("it was exported without its raw samples (--samples)")
