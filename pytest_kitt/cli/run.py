"""How does ``kitt run`` become a pytest session? One argument for another; then this process is pytest."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pytest_kitt.cli import complete

_SUITE, _OUTPUT = "quick", "./kitt-results/{run}"


def run(  # noqa: PLR0913 - one parameter per flag
    pytest_args: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- PYTEST ARGS", hidden=True, show_default=False),
    ] = None,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m", "--model", metavar="REF", help="Model: a path, a hub id, or tiny.", autocompletion=complete.models
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "-e", "--engine", metavar="NAME", help="Engine, see kitt engines list.", autocompletion=complete.engines
        ),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(
            "-s",
            "--suite",
            metavar="NAME",
            envvar="KITT_SUITE",
            help=f"Suite, see kitt test list ({_SUITE} unless a benchmark is named).",
            autocompletion=complete.suites,
        ),
    ] = "",
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            "-b",
            "--benchmark",
            metavar="NAME",
            help="Only this benchmark, see kitt test list.",
            autocompletion=complete.benchmarks,
        ),
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(
            "-r",
            "--runtime",
            metavar="NAME",
            help="How to run the engine: container, compose, process or embedded.",
            autocompletion=complete.runtimes,
        ),
    ] = "",
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Measure a server that already runs there.")] = "",
    config: Annotated[str, typer.Option("--config", metavar="FILE", help="YAML file of engine arguments.")] = "",
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            envvar="KITT_OUTPUT",
            help="Folder for the run's files; {run} is the run's id. '' writes none.",
        ),
    ] = _OUTPUT,
    runs: Annotated[
        int | None, typer.Option("--runs", metavar="N", min=1, help="Measure each benchmark so many times.")
    ] = None,
    skip_warmup: Annotated[bool, typer.Option("--skip-warmup", help="Send no uncounted requests first.")] = False,
    auto_pull: Annotated[
        bool, typer.Option("--auto-pull", help="Pull or build the engine's image when it is not there.")
    ] = False,
) -> None:
    """Run a suite: this is pytest under shorter names.

    What stands behind -- goes to pytest as it is; the exit code is pytest's.

    Example: kitt run -m tiny -e llama_cpp --runtime embedded -s quick

    Example: kitt run -e simulated -b exact_match -- -q --junitxml=report.xml
    """
    named = benchmark or ()
    argv = [f"--kitt-suite={suite or _SUITE}"] if suite or not named else []
    argv += [f"--kitt-benchmark={name}" for name in named]
    argv += [f"--kitt-model={ref}" for ref in model or ()]
    argv += [f"--kitt-engine={name}" for name in engine or ()]
    plain = {"runtime": runtime, "url": url, "engine-config": config, "output": output, "runs": runs}
    argv += [f"--kitt-{name}={value}" for name, value in plain.items() if value]
    argv += ["--kitt-skip-warmup"] if skip_warmup else []
    argv += ["--kitt-auto-pull"] if auto_pull else []
    _become_pytest([*argv, *(pytest_args or ())])


def _become_pytest(argv: list[str]) -> None:
    """Replaces this process, so that signals, the terminal and the exit code are pytest's own.

    -P: the current folder is no place to import from, as with the ``pytest`` command.
    """
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pytest", *argv])  # noqa: S606 - no shell is wanted
