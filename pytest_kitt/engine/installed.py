"""Is here what a way to run an engine needs? A module, a program; if not, one sentence says how to get it."""

from __future__ import annotations

import importlib.util
import shutil

from pytest_kitt.cards import EngineCard, RuntimeCard


def absent(card: EngineCard, runtime: RuntimeCard) -> str:
    """What is not installed and would be needed, in one sentence with the cure; empty when nothing is."""
    if runtime.needs and not _importable(runtime.needs):
        return f"engine {card.name} needs the package {runtime.needs}: {how_to_get(runtime)}"
    if runtime.program and shutil.which(runtime.program) is None:
        return f"engine {card.name} needs the program {runtime.program} on the PATH: {how_to_get(runtime)}"
    return ""


def how_to_get(runtime: RuntimeCard) -> str:
    """What to do to get it."""
    return runtime.install or f"pip install 'pytest-kitt[{runtime.extra}]'"


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package within one that is not there
        return False
