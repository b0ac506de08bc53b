"""How does one see that a long item is alive? A bar on a terminal; nothing elsewhere, and nothing under -q."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pytest_kitt.load.run import Progress

if TYPE_CHECKING:
    import pytest


@contextlib.contextmanager
def shown(config: pytest.Config, name: str, total: int) -> Iterator[Callable[[Progress], None]]:
    """Yields what takes the counters of a load; the bar is gone when the load has ended."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.verbose < 0 or not reporter.isatty:
        yield lambda _: None
        return
    with _uncaptured(config), _bar(name, total) as update:
        yield update


@contextlib.contextmanager
def _bar(name: str, total: int) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"))
    with Bars(*columns, TimeElapsedColumn(), console=Console(), transient=True) as bars:
        task = bars.add_task(escape(name), total=total or None, said="")

        def update(now: Progress) -> None:
            failed = f", {now.failed} failed" if now.failed else ""
            bars.update(task, completed=now.done, said=f"{now.done} requests, {now.tokens} tokens{failed}")

        yield update


@contextlib.contextmanager
def _uncaptured(config: pytest.Config) -> Iterator[None]:
    capture = config.pluginmanager.get_plugin("capturemanager")
    if capture is None:
        yield
        return
    with capture.global_and_fixture_disabled():
        yield
