"""Which test modules and benchmarks do --kitt-suite and --kitt-benchmark mean?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pytest_kitt import options
from pytest_kitt.cards import read_yaml
from pytest_kitt.errors import UserError, nearest
from pytest_kitt.mistakes import in_words
from pytest_kitt.settings import Settings

DEFAULT_SUITE = "quick"


class SuiteCard(BaseModel):
    """One suite: a list of benchmarks, and the folder whose ``suites.yaml`` says so.

    Each is named as a whole (``throughput``) or by one variant (``throughput[c8]``), as the table of results does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    name: str
    description: str
    benchmarks: list[str] = Field(min_length=1)
    folder: Path


def load_suites(folders: Iterable[Path]) -> dict[str, SuiteCard]:
    """All suites of some folders by name; UserError for a bad file, or for two suites of one name."""
    suites: dict[str, SuiteCard] = {}
    for folder in folders:
        for name, content in read_yaml(folder / "suites.yaml").items():
            suite = _suite(folder, str(name), content)
            if suite.name in suites:
                raise UserError(f"suite {name!r} is defined twice: in {suites[suite.name].folder} and in {folder}")
            suites[suite.name] = suite
    return suites


def folders(config: pytest.Config) -> list[Path]:
    """The folders that plugins, ours among them, offer suites in."""
    found: list[Path] = []
    for answer in config.hook.pytest_kitt_suites(config=config):
        found += [answer] if isinstance(answer, Path) else list(answer)
    return sorted(dict.fromkeys(path.resolve() for path in found))


class Selection:
    """What is to run, and where it lies."""

    def __init__(self, settings: Settings, suites: Mapping[str, SuiteCard], names: Sequence[str]) -> None:
        self.suites = suites
        self.names = tuple(names)
        self.benchmarks = frozenset(settings.benchmark)
        for name in names:
            if name not in suites:
                raise UserError(f"--kitt-suite: {name!r} is unknown; {nearest(name, suites)}")
        self.in_suites = frozenset(benchmark for name in names for benchmark in suites[name].benchmarks)
        self.roots = sorted({suite.folder for suite in suites.values()})

    def adds_roots(self) -> bool:
        """Whether the folders of the suites are to be collected."""
        return bool(self.names or self.benchmarks)

    def known(self) -> bool:
        """Whether every single benchmark that was named is in some suite."""
        listed = {whole(benchmark) for suite in self.suites.values() for benchmark in suite.benchmarks}
        return bool(self.benchmarks) and {whole(benchmark) for benchmark in self.benchmarks} <= listed

    def require(self, known: Collection[str]) -> None:
        """UserError for a benchmark, or a variant of one, that was named and is not among those that were found."""
        for name in sorted(self.benchmarks.difference(known)):
            raise UserError(f"--kitt-benchmark: {name!r} is unknown; {nearest(name, known)}")
        for suite in (self.suites[name] for name in self.names):
            for name in sorted(set(suite.benchmarks).difference(known)):
                where = f"{suite.folder / 'suites.yaml'}: suite {suite.name!r}"
                raise UserError(f"{where}: there is no benchmark {name!r}; {nearest(name, known)}")

    def keeps(self, path: Path, names: Collection[str]) -> bool:
        """Whether an item is to run; ``names`` are its benchmark's and its variant's, none for an item that is none."""
        if self.benchmarks and self.benchmarks.isdisjoint(names):
            return False
        if self.names and any(path.is_relative_to(root) for root in self.roots):
            return not self.in_suites.isdisjoint(names)
        return True


def select(config: pytest.Config, settings: Settings) -> Selection:
    """Reads the suites and makes pytest collect them; the user's own arguments stay."""
    names = settings.suite
    named_by_user = config.args_source is config.ArgsSource.ARGS
    nothing_named = not names and not settings.benchmark and config.args_source is config.ArgsSource.INVOCATION_DIR
    if nothing_named and options.names_a_target(settings):
        names = (DEFAULT_SUITE,)
    selection = Selection(settings, load_suites(folders(config)), names)
    if selection.adds_roots():
        keep_args = named_by_user or not (selection.names or selection.known())
        roots = [str(root) for root in selection.roots]
        mine = config.args if keep_args else []
        config.args = [*mine, *(root for root in roots if root not in mine)]
    return selection


def whole(benchmark: str) -> str:
    """The benchmark that a variant is of."""
    return benchmark.partition("[")[0]


def _suite(folder: Path, name: str, content: object) -> SuiteCard:
    path = folder / "suites.yaml"
    if not isinstance(content, dict):
        raise UserError(f"{path}: suite {name!r}: expected description and benchmarks")
    try:
        return SuiteCard(name=name, folder=folder, **content)
    except (ValidationError, TypeError) as error:
        if not isinstance(error, ValidationError):
            raise UserError(f"{path}: suite {name!r}: {error}") from error
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(
                f"{path}: suite {name!r}: unknown key {key!r}; {nearest(key, ['description', 'benchmarks'])}"
            ) from error
        raise UserError(f"{path}: suite {name!r}: key {key!r}: {in_words([first])}") from error
