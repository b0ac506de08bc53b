"""Which files does ``--kitt-output`` leave in its folder? All are made from the store; each is whole or not there.

config.json comes first and marks the folder as ours, metrics.json comes last: where it is, nothing is missing.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kitt.errors import UserError
from pytest_kitt.report import document
from pytest_kitt.report.atomic import replaced

if TYPE_CHECKING:
    import sqlalchemy as sa

    from pytest_kitt.measure.results import Block
    from pytest_kitt.settings import Settings

CONFIG, HARDWARE, METRICS = "config.json", "hardware.json", "metrics.json"
SUMMARY, JUNIT, HTML, OUTPUTS = "summary.md", "junit.xml", "report.html", "outputs"
NAMES = (CONFIG, HARDWARE, METRICS, SUMMARY, JUNIT, HTML, OUTPUTS)
_US = "pytest-kitt"
_PACKAGES = ("pytest", "pytest-xdist", "xllamacpp")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.+-]+")
_MAX_NAME = 80
_LEVEL = 3  # of gzip: most of the saving for a fraction of the time


def place(output: str, run_id: str) -> Path:
    """The folder that the setting means for a run: ``{run}`` is its id."""
    return Path(output.replace("{run}", run_id)).expanduser().absolute()


def require_usable(folder: Path, flag: str) -> None:
    """UserError, before anything is measured, for a folder that cannot be written to or holds files of others."""
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{flag}: {folder} is no folder that can be written to")
    taken = [name for name in NAMES if os.path.lexists(folder / name)]
    if taken and not _is_ours(folder):
        raise UserError(
            f"{flag}: {folder} holds {taken[0]}, which pytest-kitt did not write; name another folder, or move it away"
        )


def write(
    folder: Path,
    connection: sa.Connection,
    run_id: str,
    settings: Settings,
    *,
    hurried: Callable[[], bool] = lambda: False,
) -> bool:
    """Writes all files of a run; those of an earlier run that pytest-kitt left there go first.

    Raw samples may be gigabytes: when ``hurried`` says so, the rest of them is left out. True when all were written.
    """
    from pytest_kitt.report import junit_xml, markdown
    from pytest_kitt.store import reader

    found = document.read(connection, run_id)
    found["agreements"] = document.agreements(connection, run_id)
    names = {r["id"]: _output_name(number, r) for number, r in enumerate(found["results"], 1) if r["samples"]}
    _json(folder / CONFIG, config(found, settings))
    _clear(folder)
    _json(folder / HARDWARE, hardware(found))
    written = {
        result_id: name
        for result_id, name in names.items()
        if _lines(folder / name, reader.read_samples(connection, result_id), hurried)
    }
    _bytes(folder / SUMMARY, markdown.render(found).encode())
    _bytes(folder / JUNIT, junit_xml.render(found, inconclusive=settings.inconclusive))
    _bytes(folder / HTML, html(connection, found))
    _json(folder / METRICS, metrics(found, written))
    return written == names


def html(connection: sa.Connection, found: Mapping[str, Any]) -> bytes:
    """The report for a browser."""
    from pytest_kitt.report import html as browser
    from pytest_kitt.store import reader

    if "agreements" not in found:
        found = {**found, "agreements": document.agreements(connection, found["run"]["id"])}
    return browser.render(found, functools.partial(reader.read_samples, connection)).encode()


def metrics(found: Mapping[str, Any], outputs: Mapping[int, str]) -> dict[str, Any]:
    """metrics.json: the last attempt at each result with its cell and numbers, and whether its answers agree.

    ``outputs`` names files by result.
    """
    return {
        "schema": document.SCHEMA,
        "run": document.run(found),
        "results": [
            {**document.result(one), "cell": document.cell(one["cell"]), "outputs": outputs.get(one["id"])}
            for one in found["results"]
        ],
        "aggregates": found["aggregates"],
        "agreements": [matrix.to_json() for matrix in found["agreements"]],
    }


def hardware(found: Mapping[str, Any]) -> dict[str, Any]:
    """hardware.json: the machine that measured, without its name."""
    return {"schema": document.SCHEMA, "run": found["run"]["id"], "machine": found["run"]["fingerprint"]}


def config(found: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """config.json: what was asked for, the cells as they ran, and how to run it again."""
    import platform

    from pytest_kitt.settings import as_data

    run = found["run"]
    versions = {"pytest-kitt": run["kitt_version"], "python": platform.python_version()}
    return {
        "schema": document.SCHEMA,
        "written_by": _US,
        "run": run["id"],
        "argv": run["argv"],
        "reproduce": shlex.join(run["argv"]),
        "settings": document.clean(as_data(settings)),
        "cells": document.cells(found),
        "versions": versions | {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _is_ours(folder: Path) -> bool:
    try:
        said = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("written_by") == _US


def _clear(folder: Path) -> None:
    """Removes what an earlier run left, so that no two runs mix; files that are not ours have other names."""
    for name in (METRICS, HARDWARE, SUMMARY, JUNIT, HTML):
        (folder / name).unlink(missing_ok=True)
    (folder / OUTPUTS).mkdir(exist_ok=True)
    for path in (folder / OUTPUTS).glob("*.jsonl.gz"):
        path.unlink()


def _output_name(number: int, result: Mapping[str, Any]) -> str:
    """A name that is safe and unique, whatever the ids are; the number is the result's place in metrics.json."""
    variant = result["nodeid"].rpartition("[")[2] if "[" in result["nodeid"] else ""
    words = _NOT_IN_NAMES.sub("-", f"{result['benchmark']}-{variant}")[:_MAX_NAME].strip(".-")
    return f"{OUTPUTS}/{number:04}-{words}.jsonl.gz"


def _json(path: Path, content: Mapping[str, Any]) -> None:
    import orjson

    _bytes(path, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")


def _bytes(path: Path, content: bytes) -> None:
    with replaced(path) as file:
        file.write(content)


class _Hurried(Exception):
    """No time is left for raw samples."""


def _lines(path: Path, blocks: Iterable[Block], hurried: Callable[[], bool]) -> bool:
    """Whether the samples of a result were written, to their end."""
    from pytest_kitt.report import outputs

    try:
        with replaced(path) as file, gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
            for piece in _until(hurried, outputs.lines(blocks)):
                packed.write(piece)
    except _Hurried:
        return False
    return True


def _until(hurried: Callable[[], bool], pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if hurried():
            raise _Hurried
        yield piece
