"""Which suites and benchmarks are there? ``kitt test``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pytest_kitt.cli.output import AsJson, show_json, show_table

if TYPE_CHECKING:
    from pytest_kitt.selection import SuiteCard

app = typer.Typer(no_args_is_help=True, help="Show suites and benchmarks.")


@app.command("list")
def list_tests(as_json: AsJson = False) -> None:
    """List suites with their benchmarks, those of installed plugins too.

    Example: kitt test list --json
    """
    suites = _suites().values()
    if as_json:
        show_json({"suites": [suite.model_dump(mode="json", exclude={"folder"}) for suite in suites]})
        return
    rows = [[suite.name, ", ".join(suite.benchmarks), suite.description] for suite in suites]
    show_table(("suite", "benchmarks", "what it is"), rows, nothing="no suites found")


def _suites() -> dict[str, SuiteCard]:
    """All suites, as pytest would find them: through the plugins' hook."""
    import pytest

    from pytest_kitt.selection import folders, load_suites

    found: list[Path] = []

    class Collector:
        @pytest.hookimpl(tryfirst=True)
        def pytest_cmdline_main(self, config: pytest.Config) -> int:
            found.extend(folders(config))
            return 0  # nothing is to be collected

    pytest.main(["-p", "no:cacheprovider", "-c", os.devnull], plugins=[Collector()])
    return load_suites(found)
