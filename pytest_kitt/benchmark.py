"""Is this item a benchmark, and which one? Name, version and category come from the marker, else from the function."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from pytest_kitt.errors import UserError, nearest

_FIXTURES = frozenset({"kitt_engine", "kitt_measure"})
_MARKER_KEYS = ("name", "version", "category")
_SIMPLE = (str, int, float, bool, type(None))


@dataclasses.dataclass(frozen=True, slots=True)
class Benchmark:
    """What an item measures.

    Attributes:
        name: as in ``--kitt-benchmark``.
        version: raised whenever numbers are no longer comparable with earlier ones.
        category: performance, quality, or custom.
        params: its pytest parameters other than the cell.

    """

    name: str
    version: str
    category: str
    params: Mapping[str, Any]


def benchmark_of(item: pytest.Item) -> Benchmark | None:
    """The benchmark that an item is; None for any other test. UserError for a marker with a typo."""
    if _FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
        return None
    marked: dict[str, str] = {}
    for marker in item.iter_markers("kitt"):
        _check(item, marker)
        marked = {**{key: str(value) for key, value in marker.kwargs.items()}, **marked}
    function = getattr(item, "originalname", None) or item.name
    callspec = getattr(item, "callspec", None)
    params = {} if callspec is None else callspec.params
    return Benchmark(
        name=marked.get("name", function.removeprefix("test_")),
        version=marked.get("version", "0"),
        category=marked.get("category", "custom"),
        params={k: v if isinstance(v, _SIMPLE) else repr(v)[:200] for k, v in params.items() if k != "kitt_engine"},
    )


def _check(item: pytest.Item, marker: pytest.Mark) -> None:
    if marker.args:
        raise UserError(f"{item.nodeid}: @pytest.mark.kitt takes keywords alone: {', '.join(_MARKER_KEYS)}")
    for key in marker.kwargs:
        if key not in _MARKER_KEYS:
            raise UserError(f"{item.nodeid}: @pytest.mark.kitt has no keyword {key!r}; {nearest(key, _MARKER_KEYS)}")
