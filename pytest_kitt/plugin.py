"""What does pytest call? Hooks only, each a few lines; heavy parts are imported inside them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_kitt import hookspecs, options
from pytest_kitt.fixtures import (
    kitt_cell,
    kitt_engine,
    kitt_evaluate,
    kitt_load,
    kitt_measure,
    kitt_memory,
    kitt_run,
)

if TYPE_CHECKING:
    from pytest_kitt.conduct import Conductor

__all__ = ["kitt_cell", "kitt_engine", "kitt_evaluate", "kitt_load", "kitt_measure", "kitt_memory", "kitt_run"]

_CONDUCTOR = pytest.StashKey["Conductor"]()
_GITHUB = ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS")
_MARKER = "kitt(name, version, category, requests, seconds, fresh): what a benchmark is called, costs and needs."
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
    config.addinivalue_line("markers", _MARKER)
    options.require_xdist(config)
    if options.asked(config):
        _begin(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collects evaluations that are written as cards."""
    if not file_path.name.endswith(".kitt.yaml"):
        return None
    from pytest_kitt.written import CardFile

    return CardFile.from_parent(parent, path=file_path)


@pytest.hookimpl(tryfirst=True)  # the cell's id is the first in a node id, before those of parametrised fixtures
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


@pytest.hookimpl(trylast=True, specname="pytest_generate_tests")
def pytest_generate_runs(metafunc: pytest.Metafunc) -> None:
    """With --kitt-runs, one variant per run too: the last parameter, behind the test's own."""
    if "kitt_engine" in metafunc.fixturenames and (conductor := metafunc.config.stash.get(_CONDUCTOR, None)):
        conductor.repeat(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps what the suites and --kitt-benchmark name."""
    try:
        _keep_selected(config, items)
    except pytest.UsageError as error:
        if hasattr(config, "workeroutput"):  # a worker's own words reach nobody
            config.workeroutput["kitt_refused"] = str(error)
        raise


def _keep_selected(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _REFUSED in config.stash:
        raise pytest.UsageError(config.stash[_REFUSED])
    if conductor := config.stash.get(_CONDUCTOR, None):
        with options.usage_errors():
            conductor.keep_selected(items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Ends the session with the sentence of a worker of pytest-xdist that could not begin."""
    if sentence := getattr(node, "workeroutput", {}).get("kitt_refused"):
        pytest.exit(sentence, returncode=pytest.ExitCode.USAGE_ERROR)


def _begin(config: pytest.Config) -> Conductor:
    from pytest_kitt.conduct import Conductor

    with options.usage_errors():
        conductor = config.stash[_CONDUCTOR] = Conductor(config)
    config.pluginmanager.register(conductor, "kitt-conductor")
    if not hasattr(config, "workerinput"):
        from pytest_kitt.control import Controller

        config.pluginmanager.register(Controller(config, conductor.kitt), "kitt-controller")
        if conductor.kitt.settings.html or conductor.kitt.settings.output:
            from pytest_kitt.reporting import Reports

            with options.usage_errors():
                config.pluginmanager.register(Reports(conductor.kitt), "kitt-reports")
        if any(os.environ.get(name) for name in _GITHUB):
            from pytest_kitt.on_github import OnGitHub

            config.pluginmanager.register(OnGitHub(conductor.kitt), "kitt-on-github")
    return conductor
