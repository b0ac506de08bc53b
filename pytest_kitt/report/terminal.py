"""What does one read in the terminal? A header before, a table by cell after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_kitt import settings as settings_of
from pytest_kitt.matrix import Cell
from pytest_kitt.measure.metrics import BY_NAME
from pytest_kitt.measure.results import Measurement, Result
from pytest_kitt.settings import Settings

if TYPE_CHECKING:
    import pytest

TOY_NOTICE = "the tiny model is a toy: its numbers measure this harness and this machine, not a product"
SYNTHETIC_NOTICE = "the simulated engine makes its tokens up: its numbers say nothing about any real engine"
# what a row shows, in this order, where it was measured
_SHOWN = (
    ("accuracy", "value", "accuracy"),
    ("ttft_ms", "p50", "TTFT p50"),
    ("ttft_ms", "p99", "TTFT p99"),
    ("itl_ms", "p50", "ITL p50"),
    ("itl_ms", "p99", "ITL p99"),
    ("e2e_ms", "p50", "E2E p50"),
    ("output_tps", "value", "output"),
    ("request_rps", "value", "requests"),
    ("requests_failed", "value", "failed"),
)
_SHOWN_NAMES = {name for name, _, _ in _SHOWN}
_MERGED_WORTH_A_WORD = 0.01
_MARKUP = {"passed": "green", "skipped": "yellow", "inconclusive": "yellow"}


def header(version: str, run_id: str, cells: Sequence[Cell], settings: Settings) -> list[str]:
    """Version, matrix, settings with their origins, and what must not be mistaken for a product's number."""
    shown = ", ".join(f"{cell.id} ({cell.runtime}{', cannot run' if cell.skip else ''})" for cell in cells)
    suite = f"suite {','.join(settings.suite)}; " if settings.suite else ""
    lines = [f"kitt {version}: {suite}{shown}; run {run_id}"]
    if given := settings_of.shown(settings):
        lines.append(f"kitt settings: {', '.join(given)}")
    return lines + [f"kitt: {notice}" for notice in _notices(cells)]


def matrix(reporter: pytest.TerminalReporter, cells: Sequence[Cell], counted: Mapping[Cell, int]) -> None:
    """The cells with their number of items and the reason of each skip."""
    reporter.section("kitt matrix")
    for cell in cells:
        what = f"SKIP: {cell.skip}" if cell.skip else f"{counted.get(cell, 0)} items"
        reporter.write_line(f"{cell.id}  {cell.runtime}  {cell.key}  {what}")


def summary(reporter: pytest.TerminalReporter, cells: Sequence[Cell], results: Sequence[Result], where: str) -> None:
    """One table per cell: a row per result, with units, verdict and, below, the reasons of what did not pass."""
    if not results:
        return
    quiet = reporter.verbosity < 0
    reporter.section("kitt results", sep="=")
    for cell_id in dict.fromkeys(_cell_id(r) for r in results):
        mine = [r for r in results if _cell_id(r) == cell_id]
        _write_cell(reporter, cell_id, mine)
        if reporter.verbosity > 0:
            _write_all_metrics(reporter, mine)
    for notice in [] if quiet else _notices(cells):
        reporter.write_line(f"Note: {notice}.", yellow=True)
    if not quiet:
        reporter.write_line(where)


def scaled(value: float, unit: str) -> str:
    """A number with a unit that suits its size: 1234 ms is 1.23 s."""
    if unit == "ms" and value >= 1000:
        return f"{_digits(value / 1000)} s"
    if unit == "ms" and 0 < value < 0.1:
        return f"{_digits(value * 1000)} µs"
    if unit == "tokens/s":
        return f"{_digits(value / 1000)} ktok/s" if value >= 10_000 else f"{_digits(value)} tok/s"
    if unit == "requests/s":
        return f"{_digits(value)} req/s"
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit in ("tokens", "requests", "count"):
        return f"{value:g}"
    return f"{_digits(value)} {unit}".rstrip()


def table(rows: Sequence[Sequence[str]], *, right: bool = True) -> list[str]:
    """Rows as lines with aligned columns; the first row is the head, columns behind the first stand right if asked."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    first, *others = (f"<{width}" for width in widths)
    formats = [first, *(other.replace("<", ">") if right else other for other in others)]
    return ["  ".join(format(cell, spec) for cell, spec in zip(row, formats, strict=True)) for row in rows]


def _digits(value: float) -> str:
    """Three significant digits without an exponent."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _cell_id(result: Result) -> str:
    if result.cell is None:
        return "no engine"
    version = f" {result.cell.engine_version}" if result.cell.engine_version else ""
    return f"{result.cell.id} ({result.cell.engine}{version}, {result.cell.runtime})"


def _write_cell(reporter: pytest.TerminalReporter, cell_id: str, results: Sequence[Result]) -> None:
    reporter.write_line(cell_id, bold=True)
    found = [(result, label, values) for result in results for label, values in _by_load(result).items()]
    columns = [(name, stat, title) for name, stat, title in _SHOWN if any((name, stat) in v for _, _, v in found)]
    rows = [["benchmark", *(title for _, _, title in columns), "verdict"]]
    for result, label, values in found:
        shown = [_value(values.get((name, stat))) for name, stat, _ in columns]
        rows.append([f"{_label(result)} {label}".strip(), *shown, "" if label else result.outcome.upper()])
    head, *lines = table(rows)
    reporter.write_line(f"  {head}")
    for line, (result, _, _) in zip(lines, found, strict=True):
        reporter.write_line(f"  {line}".rstrip(), **{_MARKUP.get(result.outcome, "red"): True})
    for result, text in _own_metrics(results):
        reporter.write_line(f"  {_label(result)}: {text}")
    for result in results:
        if merged := _merged_share(result):
            reporter.write_line(
                f"  {_label(result)}: {merged:.0%} of the ITL gaps are 0, their tokens came in one read"
            )
        if result.reason:
            reporter.write_line(f"  {_label(result)}: {result.outcome}: {result.reason.splitlines()[0][:300]}")


def _by_load(result: Result) -> dict[str, dict[tuple[str, str], Measurement]]:
    """The numbers of each load of a test by its label; the first load has none."""
    loads: dict[str, dict[tuple[str, str], Measurement]] = {"": {}}
    for m in result.metrics:
        label, _, name = m.name.rpartition(".")
        loads.setdefault(label if name in BY_NAME else "", {})[name, m.stat] = m
    return loads


def _own_metrics(results: Iterable[Result]) -> Iterable[tuple[Result, str]]:
    """What a test recorded beside the standard metrics, unless the columns show it."""
    for result in results:
        own = [m for m in result.metrics if m.name.rpartition(".")[2] not in BY_NAME and m.name not in _SHOWN_NAMES]
        if own:
            yield result, ", ".join(f"{m.key} {_value(m)}{_interval(m)}" for m in own)


def _write_all_metrics(reporter: pytest.TerminalReporter, results: Sequence[Result]) -> None:
    """A line per metric with all of its statistics."""
    for result in results:
        reporter.write_line(f"  {_label(result)}")
        for name in dict.fromkeys(m.name for m in result.metrics):
            mine = [m for m in result.metrics if m.name == name]
            stats = ", ".join(f"{'' if m.stat == 'value' else m.stat + ' '}{_value(m)}{_interval(m)}" for m in mine)
            reporter.write_line(f"    {name}: {stats} (n={mine[0].n})")


def _merged_share(result: Result) -> float:
    """Share of gaps between tokens that one read brought together, 0 when it is too small to matter."""
    merged = result.params.get("client", {}).get("merged_reads", 0)
    gaps = next((m.n for m in result.metrics if m.name == "itl_ms"), 0)
    share = min(1.0, merged / gaps) if gaps else 0.0
    return share if share >= _MERGED_WORTH_A_WORD else 0.0


def _interval(m: Measurement) -> str:
    if m.ci_low is None or m.ci_high is None:
        return ""
    return f" [{scaled(m.ci_low, m.unit)} to {scaled(m.ci_high, m.unit)}]"


def _label(result: Result) -> str:
    params = "-".join(str(value) for value in _own_params(result))
    return f"{result.benchmark}[{params}]" if params else result.benchmark


def _own_params(result: Result) -> list[object]:
    _, bracket, inside = result.nodeid.rpartition("[")
    if not bracket or result.cell is None:
        return []
    rest = inside.rstrip("]").removeprefix(result.cell.id).strip("-")
    return [rest] if rest else []


def _value(m: Measurement | None) -> str:
    return "-" if m is None else scaled(m.value, m.unit)


def _notices(cells: Sequence[Cell]) -> list[str]:
    toy = [TOY_NOTICE] if any(cell.model.toy for cell in cells) else []
    synthetic = [SYNTHETIC_NOTICE] if any(cell.synthetic for cell in cells) else []
    return toy + synthetic
