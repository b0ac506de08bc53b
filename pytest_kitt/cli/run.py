"""How does ``kitt run`` become a pytest session? One argument for another; pytest's exit code is its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer


def run(  # one parameter per flag
    context: typer.Context,
    model: Annotated[list[str] | None, typer.Option("-m", "--model", help="Model: a path or a hub id.")] = None,
    engine: Annotated[list[str] | None, typer.Option("-e", "--engine", help="Engine, see kitt engines list.")] = None,
    suite: Annotated[str, typer.Option("-s", "--suite", help="Suite, see kitt test list.")] = "quick",
    url: Annotated[str, typer.Option("--url", help="Measure a server that already runs there.")] = "",
) -> None:
    """Run a suite. What stands behind -- goes to pytest as it is.

    Example: kitt run -m model.gguf -e llama_cpp -s quick -- --junitxml=report.xml
    """
    argv = [f"--kitt-suite={suite}"]
    argv += [f"--kitt-model={name}" for name in model or ()]
    argv += [f"--kitt-engine={name}" for name in engine or ()]
    argv += [f"--kitt-url={url}"] if url else []
    raise typer.Exit(subprocess.call([sys.executable, "-m", "pytest", *argv, *context.args]))
