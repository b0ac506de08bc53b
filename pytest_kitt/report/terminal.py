"""What does one read in the terminal? A header before, a table by cell after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_kitt import settings as settings_of
from pytest_kitt.engine.image import Image
from pytest_kitt.engine.kept import Kept
from pytest_kitt.matrix import Cell
from pytest_kitt.measure.metrics import BY_NAME
from pytest_kitt.measure.repeats import Aggregate, Spread, aggregates, repeats
from pytest_kitt.measure.results import Measurement, Result, label
from pytest_kitt.report import scores
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
_MOST_OWN = 12  # metrics of a test's own in its line; an evaluation of many parts has some for each
_MARKUP = {"passed": "green", "skipped": "yellow", "inconclusive": "yellow"}


def header(
    version: str, run_id: str, cells: Sequence[Cell], settings: Settings, images: Mapping[str, Image]
) -> list[str]:
    """Version, matrix, settings and images with their origins, and what must not be mistaken for a product's number."""
    shown = ", ".join(f"{cell.id} ({cell.runtime}{', cannot run' if cell.skip else ''})" for cell in cells)
    suite = f"suite {','.join(settings.suite)}; " if settings.suite else ""
    lines = [f"kitt {version}: {suite}{shown}; run {run_id}"]
    if given := settings_of.shown(settings):
        lines.append(f"kitt settings: {', '.join(given)}")
    lines += [f"kitt image: {engine} in {image.ref} ({image.reason})" for engine, image in images.items()]
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
    for title in dict.fromkeys(cell_title(r) for r in results):
        mine = [r for r in results if cell_title(r) == title]
        _write_cell(reporter, title, mine)
        if reporter.verbosity > 0:
            _write_all_metrics(reporter, mine)
    for notice in [*_notices(cells), *sample_notices(results)]:
        reporter.write_line(f"Note: {notice}.", yellow=True)
    if not quiet:
        reporter.write_line(where)


def sample_notices(results: Iterable[Result]) -> list[str]:
    """What must be known where a score is of a sample."""
    return [scores.SAMPLE_NOTICE] if any(scores.is_sample(r.params) for r in results) else []


def kept(reporter: pytest.TerminalReporter, engine: Kept) -> None:
    """Where the engine is that was not stopped, and how to stop it."""
    reporter.section("kitt engine kept")
    reporter.write_line(f"{engine.cell} still runs at {engine.url}")
    for name, value in engine.traces:
        reporter.write_line(f"  {name + ':':<5} {value}")


def still_up(engine: Kept) -> str:
    """What the header says of an engine that an earlier session has left running."""
    return f"kitt: {engine.cell} of an earlier session still runs at {engine.url}; to stop it: {engine.stop}"


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
    if unit.partition("/")[0] == "bytes":
        return _sized(value) + unit.removeprefix("bytes")
    return f"{_digits(value)} {unit}".rstrip()


def shortened(text: str, limit: int = 300) -> str:
    """The first line that says something, at most so many characters, cut between two words."""
    line = next(iter(text.strip().splitlines()), "").removeprefix("InvalidMeasurement: ")
    return line if len(line) <= limit else f"{line[:limit].rpartition(' ')[0]} …"


def printable(text: str) -> str:
    """A text in which nothing steers a terminal: names, labels and reasons come from anywhere."""
    return "".join(c if c.isprintable() else "\N{MIDDLE DOT}" for c in text)


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


def _sized(nbytes: float) -> str:
    """A number of bytes: 1234567 is 1.23 MB."""
    for factor, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(nbytes) >= factor:
            return f"{_digits(nbytes / factor)} {name}"
    return f"{nbytes:.0f} B"


def cell_title(result: Result) -> str:
    """Where a result was measured, with version and runtime."""
    if result.cell is None:
        return "no engine"
    version = f" {result.cell.engine_version}" if result.cell.engine_version else ""
    return f"{result.cell.id} ({result.cell.engine}{version}, {result.cell.runtime})"


def main_numbers(results: Sequence[Result]) -> tuple[list[str], list[tuple[Result, list[str]]]]:
    """The head of a table, and its rows with their results: one per load; a further load of a test has no verdict."""
    found = [(result, load, values) for result in results for load, values in _by_load(result).items()]
    columns = [(name, stat, title) for name, stat, title in _SHOWN if any((name, stat) in v for _, _, v in found)]
    head = ["benchmark", *(title for _, _, title in columns), "verdict"]
    rows = []
    for result, load, values in found:
        shown = [_value(values.get((name, stat))) for name, stat, _ in columns]
        name = f"{item_label(result)} {load}".strip()
        rows.append((result, [name, *shown, "" if load else result.outcome.upper()]))
    return head, rows


def spread_rows(results: Sequence[Result]) -> list[list[str]]:
    """Rows for the same table: of what was measured several times, mean and half of the 95 % interval over the runs."""
    found = [values for result in results for values in _by_load(result).values()]
    columns = [(name, stat) for name, stat, _ in _SHOWN if any((name, stat) in values for values in found)]
    return [row for aggregate in aggregates(repeats(results)) for row in _spread_rows(aggregate, columns)]


def _write_line(reporter: pytest.TerminalReporter, text: str, **markup: bool) -> None:
    reporter.write_line(printable(text), **markup)


def _write_cell(reporter: pytest.TerminalReporter, title: str, results: Sequence[Result]) -> None:
    _write_line(reporter, title, bold=True)
    columns, rows = main_numbers(results)
    head, *lines = table([columns, *(row for _, row in rows), *spread_rows(results)])
    _write_line(reporter, f"  {head}")
    for line, (result, _) in zip(lines, rows, strict=False):
        _write_line(reporter, f"  {line}".rstrip(), **{_MARKUP.get(result.outcome, "red"): True})
    for line in lines[len(rows) :]:
        _write_line(reporter, f"  {line}".rstrip(), bold=True)
    for result, text in own_metrics(results):
        _write_line(reporter, f"  {item_label(result)}: {text}")
    for result in results:
        told = scores.of(result.params, result.metrics)
        for line in (*told.lines(), *told.more):
            _write_line(reporter, f"  {item_label(result)}: {line}")
    if line := all_certified(results):
        _write_line(reporter, f"  {line}")
    for result in results:
        for line in remarks(result, every_certificate=reporter.verbosity > 0):
            _write_line(reporter, f"  {line}")
        if result.reason:
            _write_line(reporter, f"  {item_label(result)}: {result.outcome}: {shortened(result.reason)}")


def remarks(result: Result, *, every_certificate: bool = False) -> Iterable[str]:
    """What must be known of a result's numbers: certificates that do not hold, and engines that had died before."""
    for load, certificate, slots in _certificates(result):
        said = result.outcome == "invalid" and bool(certificate["broken"])  # by its reason
        if every_certificate or (certificate["broken"] and result.category != "quality" and not said):
            scored = result.category == "quality" and result.outcome != "invalid"
            yield f"{item_label(result)}{load}: {_certified(certificate, slots, scored=scored)}"
    if starts := result.params.get("engine_starts"):
        yield f"{item_label(result)}: on start {starts} of the engine: {result.params['engine_died']}"
    if (drifts := drift(result.params)) and drifts not in result.reason:
        yield f"{item_label(result)}: {drifts}"


def drift(params: Mapping[str, Any]) -> str:
    """What is wrong with the prompts that a result's chats had; empty when nothing is, or when it cannot be known."""
    found = params.get("chat_template")
    if not isinstance(found, dict) or found.get("verdict", "ok") in ("ok", "unknown"):
        return ""
    return f"{found['verdict']}: {found.get('why', '')}"


def _spread_rows(aggregate: Aggregate, columns: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The mean over the runs, and below it half of its 95 % interval; nothing where no run gave a number."""
    if not aggregate.spreads:
        return []
    spreads = {(spread.name, spread.stat): spread for spread in aggregate.spreads}
    found = [spreads.get(column) for column in columns]
    counted = ", ".join(f"{count} {outcome}" for outcome, count in aggregate.outcomes.items())
    means = ["-" if s is None else scaled(s.mean, s.unit) for s in found]
    return [[f"{aggregate.name} mean", *means, counted], ["  ± (95 %)", *map(_half_interval, found), ""]]


def _half_interval(spread: Spread | None) -> str:
    if spread is None or spread.ci_high is None:
        return "-"
    return scaled(spread.ci_high - spread.mean, spread.unit)


def _by_load(result: Result) -> dict[str, dict[tuple[str, str], Measurement]]:
    """The numbers of each load of a test by its label; the first load has none."""
    loads: dict[str, dict[tuple[str, str], Measurement]] = {"": {}}
    for m in result.metrics:
        label, _, name = m.name.rpartition(".")
        loads.setdefault(label if name in BY_NAME else "", {})[name, m.stat] = m
    return loads


def own_metrics(results: Iterable[Result]) -> Iterable[tuple[Result, str]]:
    """What a test recorded beside the standard metrics and the scores of an evaluation, unless the columns show it."""
    for result in results:
        told = _SHOWN_NAMES | scores.of(result.params, result.metrics).names
        own = [m for m in result.metrics if m.name.rpartition(".")[2] not in BY_NAME and m.name not in told]
        if own:
            more = f", and {len(own) - _MOST_OWN} more" if len(own) > _MOST_OWN else ""
            yield result, ", ".join(f"{m.key} {_value(m)}{_interval(m)}" for m in own[:_MOST_OWN]) + more


def _write_all_metrics(reporter: pytest.TerminalReporter, results: Sequence[Result]) -> None:
    """A line per metric with all of its statistics."""
    for result in results:
        told = scores.of(result.params, result.metrics)
        _write_line(reporter, f"  {item_label(result)}")
        for name in dict.fromkeys(m.name for m in result.metrics):
            mine = [m for m in result.metrics if m.name == name]
            stats = ", ".join(f"{'' if m.stat == 'value' else m.stat + ' '}{_value(m)}{_interval(m)}" for m in mine)
            _write_line(reporter, f"    {name}: {stats} ({told.counted(mine[0])})")


def _certificates(result: Result) -> Iterable[tuple[str, Mapping[str, Any], int]]:
    """The certificate of each load of a test, behind its label; and the slots that an adaptive one found, else 0."""
    for key, value in result.params.items():
        label, dot, name = key.rpartition(".")
        if name == "certificate" and isinstance(value, dict):
            yield f" {label}" if label else "", value, result.params.get(f"{label}{dot}concurrency_found", 0)


def all_certified(results: Iterable[Result]) -> str:
    """What all the loads whose certificates hold have in common, in one line: the worst of each."""
    timed = (result for result in results if result.category != "quality")
    found = [c for result in timed for _, c, _ in _certificates(result) if not c["broken"]]
    if not found:
        return ""
    clocks = ", ".join(sorted({f"{c['clock']} clock" for c in found}))
    return (
        f"certified: {len(found)} load{'s' * (len(found) > 1)}, sent at most "
        f"{max(c['lag_p99_ms'] for c in found):.2g} ms late (p99), client at most "
        f"{max(c['cpu_share'] for c in found):.0%} of a core, at most {max(c['merged_share'] for c in found):.2%} "
        f"of the tokens merged, {clocks}"
    )


def _certified(c: Mapping[str, Any], slots: int, *, scored: bool) -> str:
    """What a client proves of itself, in one line; scores do not depend on it."""
    load = f"{c['rate_sent_rps']:.4g} requests/s sent of {c['rate_asked_rps']:.4g} due"
    if slots:
        load = f"{slots} requests at a time found, {c['in_flight_mean']:.3g} under way on average"
    elif c["in_flight_target"]:
        load = f"{c['in_flight_mean']:.3g} of {c['in_flight_target']} requests under way"
    word = "certified"
    if c["broken"]:
        then = "its times are in doubt, its scores are not" if scored else f"Next: {c['cure']}"
        word = f"NOT CERTIFIED ({'; '.join(c['broken'])}. {then})"
    return (
        f"{word}: {load}, sent {c['lag_p50_ms']:.2g} ms late at p50, "
        f"{c['lag_p99_ms']:.2g} at p99, client at {c['cpu_share']:.0%} of a core, "
        f"{c['merged_share']:.2%} of the tokens merged, {c['clock']} clock"
    )


def _interval(m: Measurement) -> str:
    if m.ci_low is None or m.ci_high is None:
        return ""
    return f" [{scaled(m.ci_low, m.unit)} to {scaled(m.ci_high, m.unit)}]"


def item_label(result: Result) -> str:
    """What a result is called in a table of its cell."""
    name = label(result.benchmark, result.nodeid, result.cell.id if result.cell else None)
    return f"{name} (attempt {result.attempt})" if result.attempt > 1 else name


def _value(m: Measurement | None) -> str:
    return "-" if m is None else scaled(m.value, m.unit)


def _notices(cells: Sequence[Cell]) -> list[str]:
    toy = [TOY_NOTICE] if any(cell.model.toy for cell in cells) else []
    synthetic = [SYNTHETIC_NOTICE] if any(cell.synthetic for cell in cells) else []
    return toy + synthetic
