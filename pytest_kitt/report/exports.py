"""In which formats can a stored run leave the store?"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pytest_kitt.errors import UserError, nearest
from pytest_kitt.report import document

if TYPE_CHECKING:
    import sqlalchemy as sa

FORMATS = ("json", "csv", "md", "junit", "pytest-benchmark", "html")


def require_format(name: str, *, samples: bool = False) -> None:
    """UserError for a format that there is not, or one that has no room for raw samples."""
    if name not in FORMATS:
        raise UserError(f"--format: {name!r} is unknown; {nearest(name, FORMATS)}")
    if samples and name != "json":
        raise UserError(f"--samples: {name} has no room for raw samples; they go with --format json")


def pieces(
    connection: sa.Connection,
    ref: str,
    name: str,
    *,
    samples: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[bytes]:
    """The run in a format, piece by piece; ``say`` is told what could not be put into it.

    UserError, before the first piece, for an unknown run or format.
    """
    require_format(name, samples=samples)
    from pytest_kitt.store import reader

    run_id = reader.find_run(connection, ref)
    if name == "json":
        from pytest_kitt.report import canonical

        return canonical.lines(connection, run_id, samples=samples)
    found = document.read(connection, run_id)
    if name == "csv":
        from pytest_kitt.report import metrics_csv

        return metrics_csv.lines(found)
    if name == "md":
        from pytest_kitt.report import markdown

        return iter([markdown.render({**found, "agreements": document.agreements(connection, run_id)}).encode()])
    if name == "junit":
        from pytest_kitt.report import junit_xml

        return iter([junit_xml.render(found)])
    if name == "html":
        from pytest_kitt.report import files

        return iter([files.html(connection, found)])
    import orjson

    from pytest_kitt.report import pytest_benchmark

    said = pytest_benchmark.render(found, functools.partial(reader.read_samples, connection), say)
    if not said["benchmarks"]:
        raise UserError(f"run {run_id} has no end-to-end times that can be trusted: nothing for pytest-benchmark")
    return iter([orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"])
