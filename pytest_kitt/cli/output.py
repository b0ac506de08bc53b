"""How does a command print what it found? As a table for people, as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from pytest_kitt.report.terminal import table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Db = Annotated[str, typer.Option("--db", help="Store to read: a path or a database URL.", envvar="KITT_DB")]


def show_json(content: dict[str, Any]) -> None:
    """Prints one JSON document with the version of its form."""
    import orjson

    typer.echo(orjson.dumps({"schema": 1, **content}, option=orjson.OPT_INDENT_2).decode())


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, nothing: str) -> None:
    """Prints rows under a head; a sentence when there are none."""
    if not rows:
        typer.echo(nothing)
        return
    for line in table([head, *rows], right=False):
        typer.echo(line.rstrip())
