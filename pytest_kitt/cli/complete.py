"""What may stand here? The values that a shell offers on the tab key; what goes wrong offers nothing, silently."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Iterable, Iterator

import typer

_MAX_RUNS = 50
_MAX_MODEL_FILES = 2_000
_MAX_ABOUT = 60  # what is longer comes on two lines, and fish takes the second for another value

Offer = tuple[str, str]


def engines(incomplete: str) -> list[Offer]:
    """Engines that have a card."""
    from pytest_kitt.cards import sound_engines

    return _offered(lambda: ((card.name, card.description) for card in sound_engines()[0].values()), incomplete)


def runtimes(incomplete: str) -> list[Offer]:
    """Ways to run an engine that is started here."""
    words = {"container": "an image, by Docker", "compose": "a service of a file", "process": "a program on the PATH"}
    return _offered(lambda: [*words.items(), ("embedded", "in the Python that runs pytest")], incomplete)


def suites(incomplete: str) -> list[Offer]:
    """Suites, those of plugins too."""
    from pytest_kitt.cli.collection import collect

    return _offered(lambda: ((suite.name, suite.description) for suite in collect().suites), incomplete)


def benchmarks(incomplete: str) -> list[Offer]:
    """Benchmarks of all suites."""
    from pytest_kitt.cli.collection import collect

    return _offered(lambda: ((found.name, found.description) for found in collect().benchmarks), incomplete)


def categories(incomplete: str) -> list[Offer]:
    """Categories of benchmarks."""
    from pytest_kitt.cli.collection import collect

    return _offered(lambda: ((found.category, "") for found in collect().benchmarks), incomplete)


def kinds(incomplete: str) -> list[Offer]:
    """What ``kitt test new`` can begin."""
    from pytest_kitt.cli.template import CATEGORIES

    return _offered(lambda: ((name, "") for name in CATEGORIES), incomplete)


def models(incomplete: str) -> list[Offer]:
    """The tiny model, and those that ``kitt models list`` finds."""
    return _offered(_models, incomplete)


def runs(context: typer.Context, incomplete: str) -> list[Offer]:
    """The latest runs of the store."""
    return _offered(lambda: _runs(str(context.params.get("db") or "")), incomplete)


def statuses(incomplete: str) -> list[Offer]:
    """What a run may be."""
    from pytest_kitt.store.reader import STATUSES

    return _offered(lambda: ((status, "") for status in STATUSES), incomplete)


def _models() -> Iterator[Offer]:
    from pytest_kitt.model import catalog

    yield "tiny", "the tiny model that ships with the package"
    for found in catalog.find(catalog.folder(), limit=_MAX_MODEL_FILES).models:
        if not found.problem:
            yield str(found.path), found.format


def _runs(db: str) -> Iterator[Offer]:
    from pytest_kitt.settings import read_config_file
    from pytest_kitt.store import reader
    from pytest_kitt.store.database import read_only

    yield "last", "the newest"
    with read_only(db or str(read_config_file().get("db", ""))) as connection:
        for run in reader.list_runs(connection, synthetic=True, limit=_MAX_RUNS):
            yield run["id"], f"{run['status']} {','.join(run['engines'])}"


def _offered(offers: Callable[[], Iterable[Offer]], incomplete: str) -> list[Offer]:
    """Those that begin with what is there, each once."""
    found: dict[str, str] = {}
    with contextlib.suppress(Exception):  # a traceback in the middle of a command line helps nobody
        for value, about in offers():
            if value.startswith(incomplete):
                found.setdefault(value, textwrap.shorten(about, _MAX_ABOUT, placeholder="…"))
    return list(found.items())
