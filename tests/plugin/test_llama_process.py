"""Is llama.cpp's server measured as a program on the PATH, as whoever has built it has it?"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

QUICK = ("--kitt-suite=quick", "--kitt-engine=llama_cpp", "--kitt-runtime=process", "--kitt-output=out")


def test_the_quick_suite(pytester: pytest.Pytester, llama_server: Path, private_home: Path) -> None:
    """All of it, with the command line and the engine's own version in what is kept; the model knows its sums."""
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *QUICK)
    result.assert_outcomes(passed=4)
    (cell,) = json.loads((pytester.path / "out" / "config.json").read_text())["cells"]
    assert cell["runtime"] == "process"
    assert cell["argv"][0] == llama_server.name
    said = dict(zip(cell["argv"], cell["argv"][1:], strict=False))
    told = {flag: said[flag] for flag in ("--host", "--ctx-size", "--parallel", "--seed", "--cache-ram")}
    expected = {"--host": "127.0.0.1", "--ctx-size": "32768", "--parallel": "8", "--seed": "0", "--cache-ram": "0"}
    assert told == expected
    assert int(said["--port"]) > 0
    with closing(sqlite3.connect(private_home / "kitt.db")) as store:
        assert store.execute("select value > 0.5 from metrics where name = 'accuracy'").fetchall() == [(1,)]
