"""What does docs/benchmarks.md say? The shipped suites and benchmarks, from their own words.

``python -m tools.benchmark_pages`` writes it anew. A test function's docstring is a sentence, and then paragraphs that
begin with a word and a colon: How, Metrics, Passes, Inconclusive, Invalid, Skips, Reading.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from pytest_kitt import shipped
from pytest_kitt.selection import SuiteCard, load_suites

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
_PARAGRAPH = re.compile(r"^(?=[A-Z][a-z]+: )", re.MULTILINE)
_HEAD = """# Benchmarks

Written by `python -m tools.benchmark_pages` from the benchmarks themselves; change them, not this page.

A benchmark is a test. Beside what is named here, each of its loads records every metric of [terms.md](terms.md) and the
client's certificate ([loads.md](loads.md)); where that does not hold, the outcome is *invalid*. A benchmark of several
variants can be named as a whole (`throughput`) or by one of them (`throughput[c8]`), in `--kitt-benchmark` and in
suites. What it is said to cost is meant for a model of some 8 billion parameters on one GPU. The commands measure the
tiny model; `--kitt-engine`, `--kitt-model` or `--kitt-url` name another.

## Suites
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """One item of a benchmark: as the table calls it, its parameters, and about what it costs (None: not said)."""

    label: str
    params: Mapping[str, Any]
    requests: int | None
    seconds: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """What is to be said of a benchmark.

    Attributes:
        name: as in ``--kitt-benchmark``.
        version: of its numbers.
        category: performance or quality.
        module: the docstring of its module.
        text: the docstring of its function.
        variants: its items, one at least.

    """

    name: str
    version: str
    category: str
    module: str
    text: str
    variants: tuple[Variant, ...]


def pages(folder: Path = shipped.SUITES) -> list[Page]:
    """The benchmarks of a folder of suites, in the order in which they run."""
    modules = [imported(path) for path in sorted(folder.rglob("test_*.py"))]
    return [_page(module, function) for module in modules for function in _tests(module)]


def render(found: Iterable[Page], suites: Mapping[str, SuiteCard]) -> str:
    """The whole page."""
    rows = [f"| `{suite.name}` | {suite.description} | {_listing(suite)} |" for suite in suites.values()]
    table = ["| suite | what it is | benchmarks |", "|---|---|---|", *rows]
    return "\n".join([_HEAD, *table, *(line for page in found for line in _section(page, suites))]) + "\n"


def imported(path: Path) -> ModuleType:
    """A test module, from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tests(module: ModuleType) -> Iterator[FunctionType]:
    yield from (value for name, value in vars(module).items() if name.startswith("test_") and callable(value))


def _page(module: ModuleType, function: FunctionType) -> Page:
    marks = {mark.name: mark for mark in function.pytestmark}  # type: ignore[attr-defined]  # pytest's own attribute
    kitt = marks["kitt"].kwargs
    return Page(
        name=kitt["name"],
        version=kitt["version"],
        category=kitt["category"],
        module=_plain(module.__doc__),
        text=_plain(function.__doc__),
        variants=tuple(_variants(kitt, marks.get("parametrize"))),
    )


def _variants(kitt: Mapping[str, Any], parametrize: pytest.Mark | None) -> Iterator[Variant]:
    if parametrize is None:
        yield Variant(kitt["name"], {}, kitt.get("requests"), kitt.get("seconds"))
        return
    name, values = parametrize.args
    ids = parametrize.kwargs.get("ids", str)
    for index, given in enumerate(values):
        value, own = (given.values[0], given.marks) if hasattr(given, "values") else (given, ())
        costs = {**kitt, **{key: cost for mark in own for key, cost in mark.kwargs.items()}}
        label = f"{kitt['name']}[{ids(value) if callable(ids) else ids[index]}]"
        yield Variant(label, {name: value}, costs.get("requests"), costs.get("seconds"))


def _section(page: Page, suites: Mapping[str, SuiteCard]) -> Iterator[str]:
    question, _, more = page.module.partition("\n\n")
    first, *paragraphs = _PARAGRAPH.split(page.text)
    yield from ("", f"## {page.name}", "", f"*{_joined(question)}*")
    yield from ("", _joined(more)) if more else ()
    yield from ("", _joined(first))
    for paragraph in paragraphs:
        word, _, rest = paragraph.partition(": ")
        yield from ("", _joined(f"**{word}**: {rest}"))
    yield from ("", "| variant | parameter | requests | seconds |", "|---|---|---|---|")
    for variant in page.variants:
        params = ", ".join(f"`{name}={value}`" for name, value in variant.params.items()) or "-"
        yield f"| `{variant.label}` | {params} | {_number(variant.requests)} | {_number(variant.seconds)} |"
    yield from ("", f"Version {page.version}, {page.category}. {_suites_of(page, suites)} Alone:", "")
    yield f"    pytest --kitt-benchmark={page.name}"
    if len(page.variants) > 1:
        yield f"    pytest '--kitt-benchmark={page.variants[-1].label}'"


def _suites_of(page: Page, suites: Mapping[str, SuiteCard]) -> str:
    names = {page.name, *(variant.label for variant in page.variants)}
    listed = [
        f"`{suite.name}`{'' if page.name in suite.benchmarks or len(page.variants) == 1 else ' (in part)'}"
        for suite in suites.values()
        if names & set(suite.benchmarks)
    ]
    return f"In the suites {', '.join(listed)}." if listed else "In no suite."


def _listing(suite: SuiteCard) -> str:
    return ", ".join(f"`{name}`" for name in suite.benchmarks)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _plain(docstring: str | None) -> str:
    import inspect

    return inspect.cleandoc(docstring or "")


def _joined(text: str) -> str:
    """A paragraph on lines that fit a screen."""
    import textwrap

    return "\n".join(textwrap.wrap(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False))


if __name__ == "__main__":
    PAGE.write_text(render(pages(), load_suites([shipped.SUITES])), encoding="utf-8")
    print(f"wrote {PAGE}")
