"""How does a command say what it found? In tables that fit the terminal, plainly into a pipe, as JSON for programs."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Db = Annotated[
    str,
    typer.Option("--db", metavar="URL", help="Store: a path or a database URL.", envvar="KITT_DB", show_default=False),
]
_GAP = "  "


def width(*, err: bool = False) -> int:
    """Columns of the terminal that is written to; 0 where it is none, and nothing is to be wrapped."""
    stream = sys.stderr if err else sys.stdout
    return shutil.get_terminal_size().columns if stream.isatty() else 0


def say(text: str = "", *, err: bool = False) -> None:
    """Prints a text, wrapped between words where it goes to a terminal; what would steer the terminal is spelt out."""
    room = width(err=err)
    lines = printable(text).split("\n")
    typer.echo("\n".join(part for line in lines for part in (_wrapped(line, room) if room else [line])), err=err)


def show_json(content: dict[str, Any]) -> None:
    """Prints one JSON document with the version of its form."""
    import orjson

    typer.echo(orjson.dumps({"schema": 1, **content}, option=orjson.OPT_INDENT_2).decode())


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, nothing: str) -> None:
    """Prints rows under a head; a sentence when there are none.

    In a terminal cells are wrapped until the table fits; where not even the longest words do, each row is a list.
    """
    if not rows:
        say(nothing)
        return
    cells = [[printable(cell).replace("\n", " ") for cell in row] for row in (head, *rows)]
    room = width()
    widths = _widths(cells, room)
    if widths:
        for row in cells:
            typer.echo("\n".join(_row(row, widths, room)))
        return
    for row in cells[1:]:
        say(f"{cells[0][0]} {row[0]}")
        for title, cell in zip(cells[0][1:], row[1:], strict=True):
            say(f"  {title}: {cell}")


def printable(text: str) -> str:
    """A text of whatever origin as it may be sent to a terminal: control characters are spelt out."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _widths(cells: Sequence[Sequence[str]], room: int) -> list[int]:
    """How wide each column is to be: as its cells are where they fit, else at least as its longest word; else none."""
    columns = list(zip(*cells, strict=True))
    natural = [max(map(_size, column)) for column in columns]
    room -= len(_GAP) * (len(columns) - 1)
    if room < 0 or sum(natural) <= room:
        return natural
    widths = [max(_size(word) for cell in column for word in cell.split() or [""]) for column in columns]
    if sum(widths) > room:
        return []
    for _ in range(room - sum(widths)):  # the narrowest of those that need more gets the next
        short = [i for i, needed in enumerate(natural) if widths[i] < needed]
        widths[min(short, key=widths.__getitem__)] += 1
    return widths


def _row(cells: Sequence[str], widths: Sequence[int], room: int) -> Iterable[str]:
    """One row, on as many lines as its tallest cell needs."""
    parts = [_wrapped(cell, size) if room else [cell] for cell, size in zip(cells, widths, strict=True)]
    for line in itertools.zip_longest(*parts, fillvalue=""):
        filled = (part + " " * (size - _size(part)) for part, size in zip(line, widths, strict=True))
        yield _GAP.join(filled).rstrip()


def _wrapped(line: str, room: int) -> list[str]:
    """A line as lines of a width, each indented as it is."""
    if _size(line) <= room:
        return [line]
    from rich.console import Console
    from rich.text import Text

    text = line.lstrip()
    indent = " " * min(len(line) - len(text), room // 2)
    size = room - len(indent)
    return [f"{indent}{part.plain.rstrip()}" for part in Text(text).wrap(Console(width=size), size)]


def _size(text: str) -> int:
    """Columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
