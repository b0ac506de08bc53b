"""What does pytest call? Hooks only, each a few lines; heavy parts are imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_kitt import hookspecs, options
from pytest_kitt.fixtures import kitt_cell, kitt_engine, kitt_evaluate, kitt_load, kitt_measure

if TYPE_CHECKING:
    from pytest_kitt.conduct import Conductor

__all__ = ["kitt_cell", "kitt_engine", "kitt_evaluate", "kitt_load", "kitt_measure"]

_CONDUCTOR = pytest.StashKey["Conductor"]()
_REFUSED = pytest.StashKey[str]()


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Makes our hooks known."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares our options."""
    options.add(parser)


def pytest_kitt_suites() -> Path:
    """Offers the shipped suites, as any plugin may offer its own."""
    from pytest_kitt import shipped

    return shipped.SUITES


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker; begins if the command line asks for something of ours."""
    config.addinivalue_line("markers", "kitt(name, version, category): name, version and category of a benchmark.")
    if options.asked(config):
        _begin(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives each test that uses an engine one variant per cell; begins if it is the first of ours."""
    if "kitt_engine" not in metafunc.fixturenames or _REFUSED in metafunc.config.stash:
        return
    try:
        conductor = metafunc.config.stash.get(_CONDUCTOR, None) or _begin(metafunc.config)
    except pytest.UsageError as error:
        metafunc.config.stash[_REFUSED] = str(error)  # raised where pytest lets it through: when all is collected
        return
    conductor.parametrize(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps what the suites and --kitt-benchmark name."""
    if _REFUSED in config.stash:
        raise pytest.UsageError(config.stash[_REFUSED])
    if conductor := config.stash.get(_CONDUCTOR, None):
        with options.usage_errors():
            conductor.keep_selected(items)


def _begin(config: pytest.Config) -> Conductor:
    from pytest_kitt.conduct import Conductor

    with options.usage_errors():
        conductor = config.stash[_CONDUCTOR] = Conductor(config)
    config.pluginmanager.register(conductor, "kitt-conductor")
    return conductor
