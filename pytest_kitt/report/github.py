"""What does a job on GitHub show beside its code? One annotation per result that did not pass, at its test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pytest_kitt.measure.results import Result
from pytest_kitt.report import terminal

_MOST = 10  # of each level, which is what GitHub shows of one step
_MAX_MESSAGE_CHARS = 2000
_LEVELS: Mapping[str, str] = {"failed": "error", "invalid": "error", "error": "error", "inconclusive": "warning"}


def commands(results: Sequence[Result], places: Mapping[str, tuple[Path, int]], workspace: Path | None) -> list[str]:
    """The workflow commands for results, one a line; the last of a level says how many more there are.

    ``places`` has the file and line (from 1) of a test by its node id; those outside of the workspace are not named.
    """
    lines: list[str] = []
    for level in ("error", "warning"):
        mine = [result for result in results if _LEVELS.get(result.outcome) == level]
        shown = mine if len(mine) <= _MOST else mine[: _MOST - 1]
        lines += [_command(level, _properties(r, places.get(r.nodeid), workspace), _message(r)) for r in shown]
        if more := len(mine) - len(shown):
            lines.append(_command(level, {"title": "kitt"}, f"{more} more results did not pass: see the log"))
    return lines


def _properties(result: Result, place: tuple[Path, int] | None, workspace: Path | None) -> dict[str, str]:
    cell = f" on {result.cell.id}" if result.cell else ""
    title = {"title": f"{result.outcome.upper()}: {terminal.item_label(result)}{cell}"}
    if place is None or workspace is None:
        return title
    path, line = place
    if not path.resolve().is_relative_to(workspace.resolve()):
        return title
    return {"file": path.resolve().relative_to(workspace.resolve()).as_posix(), "line": str(line), **title}


def _message(result: Result) -> str:
    return (result.reason.strip() or result.outcome)[:_MAX_MESSAGE_CHARS]


def _command(level: str, properties: Mapping[str, str], message: str) -> str:
    given = ",".join(f"{name}={''.join(_escaped(value, ':,'))}" for name, value in properties.items())
    return f"::{level} {given}::{''.join(_escaped(message))}"


def _escaped(text: str, more: str = "") -> Iterator[str]:
    """As GitHub reads it: what would end a line or a value is written in hexadecimal, other control characters go."""
    for c in text:
        if c in f"%\r\n{more}":
            yield f"%{ord(c):02X}"
        elif c.isprintable() or c == "\t":
            yield c
