"""Is this item a benchmark, and which one? Name, version and category come from the marker, else from the function."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from pytest_kitt.errors import UserError, nearest

_FIXTURES = frozenset({"kitt_engine", "kitt_measure"})
_MARKER_KEYS = ("name", "version", "category", "requests", "seconds", "fresh")
_HINTS: Mapping[str, tuple[type, ...]] = {"requests": (int,), "seconds": (int, float)}
_SIMPLE = (str, int, float, bool, type(None))


@dataclasses.dataclass(frozen=True, slots=True)
class Benchmark:
    """What an item measures.

    Attributes:
        name: as in ``--kitt-benchmark``.
        version: raised whenever numbers are no longer comparable with earlier ones.
        category: performance, quality, or custom.
        params: its pytest parameters other than the cell.
        requests: about how many it sends, as its author declares; None when not said.
        seconds: about how long it takes, likewise.
        fresh: it needs an engine that no other item has used since it was started.

    """

    name: str
    version: str
    category: str
    params: Mapping[str, Any]
    requests: int | None = None
    seconds: float | None = None
    fresh: bool = False

    def key(self, cell_key: str, asked: Mapping[str, Any]) -> str:
        """12 hexadecimal digits over what is measured, where, and how it is asked: the same in every session."""
        identity = {
            "cell": cell_key,
            "benchmark": self.name,
            "version": self.version,
            "params": dict(self.params),
            **asked,
        }
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def benchmark_of(item: pytest.Item) -> Benchmark | None:
    """The benchmark that an item is; None for any other test. UserError for a marker with a typo."""
    if _FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
        return None
    marked: dict[str, Any] = {}
    for marker in item.iter_markers("kitt"):
        _check(item, marker)
        marked = {**marker.kwargs, **marked}
    function = getattr(item, "originalname", None) or item.name
    callspec = getattr(item, "callspec", None)
    params = {} if callspec is None else callspec.params
    return Benchmark(
        name=str(marked.get("name", function.removeprefix("test_"))),
        version=str(marked.get("version", "0")),
        category=str(marked.get("category", "custom")),
        params={k: v if isinstance(v, _SIMPLE) else repr(v)[:200] for k, v in params.items() if k != "kitt_engine"},
        requests=marked.get("requests"),
        seconds=marked.get("seconds"),
        fresh=marked.get("fresh", False),
    )


def _check(item: pytest.Item, marker: pytest.Mark) -> None:
    if marker.args:
        raise UserError(f"{item.nodeid}: @pytest.mark.kitt takes keywords alone: {', '.join(_MARKER_KEYS)}")
    for key, value in marker.kwargs.items():
        if key not in _MARKER_KEYS:
            raise UserError(f"{item.nodeid}: @pytest.mark.kitt has no keyword {key!r}; {nearest(key, _MARKER_KEYS)}")
        if key in _HINTS and not (type(value) in _HINTS[key] and 0 <= value < math.inf):
            raise UserError(f"{item.nodeid}: @pytest.mark.kitt: {key}={value!r} is no number of {key}")
        if key == "fresh" and not isinstance(value, bool):
            raise UserError(f"{item.nodeid}: @pytest.mark.kitt: fresh={value!r} is neither True nor False")
