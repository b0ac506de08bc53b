"""How does a run look in a browser? One file that needs nothing else, and asks for nothing."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import functools
import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_kitt import shipped
from pytest_kitt.report import agreement, charts, told
from pytest_kitt.report.compared import compared
from pytest_kitt.report.raw import Blocks, Looked, Questions, Timed, look, questions
from pytest_kitt.report.scores import SAMPLE_NOTICE, between, written
from pytest_kitt.report.tame import tame, tamed
from pytest_kitt.report.terminal import SYNTHETIC_NOTICE, TOY_NOTICE, scaled
from pytest_kitt.report.told import Told

# what the whole page may hold, shared by its results: three megabytes in all
MAX_DETAILED = 300
MAX_BYTES = 3_000_000
READ_BYTES, _READ_BYTES_EACH = 64 << 20, 16 << 20
_MARKS, _MARKS_EACH, _MARKS_LEAST = 200_000, 12_000, 240
_REASON_CHARS, _REASON_CHARS_EACH = 300_000, 6_000
_QUESTIONS, _QUESTIONS_EACH, _QUESTIONS_LEAST = 1_500, 200, 5
_TIMED = 20
_ANSWER_CHARS = 300
_TEXT_CHARS = 400
_ARGV_CHARS, _ENGINE_CHARS = 16_000, 4_000


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What one result may take of the page."""

    read_bytes: int
    marks: int
    reason_chars: int
    questions: int

    @classmethod
    def among(cls, results: int) -> Share:
        """Fewer results get more each."""
        results = max(1, results)
        return cls(
            min(_READ_BYTES_EACH, READ_BYTES // results),
            max(_MARKS_LEAST, min(_MARKS_EACH, _MARKS // results)),
            max(_TEXT_CHARS, min(_REASON_CHARS_EACH, _REASON_CHARS // results)),
            max(_QUESTIONS_LEAST, min(_QUESTIONS_EACH, _QUESTIONS // results)),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class LoadShown:
    """A load with what its raw samples show."""

    load: told.Load
    looked: Looked | None
    curves: Mapping[str, charts.Curve]
    timeline: charts.Timeline | None


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """A result with all of its loads and questions; nothing of these where the page has no room."""

    told: Told
    loads: tuple[LoadShown, ...]
    questions: Questions | None


@dataclasses.dataclass(frozen=True, slots=True)
class CellShown:
    """A cell, its table and its results."""

    place: int
    name: str
    cell: Mapping[str, Any] | None
    command: str
    columns: Sequence[tuple[str, str, str]]
    results: Sequence[Told]
    shown: Sequence[Shown]
    repeats: Sequence[Repeated]

    @property
    def scored(self) -> bool:
        """Whether some results have a score that no column of their own shows."""
        own = {name for name, _, _ in self.columns}
        return any(score.number.name not in own for one in self.results for score in one.scores.whole[:1])


@dataclasses.dataclass(frozen=True, slots=True)
class Repeated:
    """What was measured several times: a text for each column of its cell's table, empty where there is none."""

    name: str
    verdicts: str
    numbers: Sequence[str]


def render(found: Mapping[str, Any], blocks: Blocks) -> str:
    """The report of a run: ``found`` as ``reader.show_run`` gives it, ``blocks`` the raw samples of a result.

    ``agreements`` in ``found`` are the matrices of its answers, where there are any.
    """
    run = {**tamed(found["run"]), "command": _command(found["run"]["argv"], _ARGV_CHARS)}
    share = Share.among(len(found["results"]))
    places: dict[tuple[str, str, str], int] = {}
    results = [_told(result, places, share) for result in found["results"]]
    detailed = {one.id for one in _worst_first(results)[:MAX_DETAILED]}
    repeats = tamed(found.get("aggregates", []))
    cells = [_cell(place, results, detailed, blocks, share, repeats) for place in places.values()]
    counts = {outcome: sum(one.outcome == outcome for one in results) for outcome in told.OUTCOMES}
    page = {
        "run": run,
        "headline": _headline(counts, len(results)),
        "when": _when(str(run["started_at"]), run["finished_at"]),
        "cells": cells,
        "results": results,
        "counts": counts,
        "attention": [one for one in _worst_first(results) if one.outcome != "passed"],
        "notices": _notices(run, results),
        "compared": compared(results),
        "agreements": [
            (tamed(agreement.rows(m), _TEXT_CHARS), agreement.left_out(m)) for m in found.get("agreements", ())
        ],
    }
    return _fitting_page(page, results)


def _fitting_page(page: dict[str, Any], results: Sequence[Told]) -> str:
    """The page with as many details as there is room for, those of what needs a look first."""
    template = _environment().get_template("page.html.j2")
    room = min(len(results), MAX_DETAILED)
    while True:
        detailed = {one.id for one in _worst_first(results)[:room]}
        text = str(template.render(page, detailed=detailed, undetailed=len(results) - len(detailed)))
        if room == 0 or len(text.encode()) <= MAX_BYTES:
            return text
        room //= 2


def _worst_first(results: Iterable[Told]) -> list[Told]:
    return sorted(results, key=lambda one: one.rank)


def _headline(counts: Mapping[str, int], total: int) -> str:
    """The verdict in one sentence."""
    bad = sum(counts[outcome] for outcome in ("failed", "invalid", "error"))
    passed, skipped = counts["passed"], counts["skipped"]
    if not total:
        return "Nothing was measured"
    if bad:
        return f"{bad} of {total} results failed or cannot be trusted"
    if skipped == total:
        return "Everything was skipped"
    rest = f"; {skipped} skipped" if skipped else ""
    if passed + skipped == total:
        return f"{'The one result' if passed == 1 else f'All {passed} results'} passed{rest}"
    return f"{passed} of {total} results passed, {counts['inconclusive']} inconclusive{rest}"


def _notices(run: Mapping[str, Any], results: Sequence[Told]) -> list[tuple[str, str]]:
    """What must not be overlooked, each under its word."""
    believed = [load for one in results for load in one.loads if load.broken and one.outcome != "invalid"]
    loads = "1 load is" if len(believed) == 1 else f"{len(believed)} loads are"
    record = f"{loads} not certified and went on all the same (--kitt-certify=record)"
    drifting = [one for one in results if one.drift]
    where = "1 result" if len(drifting) == 1 else f"{len(drifting)} results"
    drifts = f"not as the model asks for ({where}): {drifting[0].drift}" if drifting else ""
    sampled = [one for one in results if one.scores.sample]
    found = [("Toy", TOY_NOTICE, run["toy"]), ("Synthetic", SYNTHETIC_NOTICE, run["synthetic"])]
    more = [("Sample", SAMPLE_NOTICE, sampled), ("Not certified", record, believed), ("Prompts", drifts, drifting)]
    return [(word, text) for word, text, said in [*found, *more] if said]


def _when(started: str, finished: str | None) -> str:
    began = f"began {started[:19].replace('T', ' ')} UTC"
    try:
        begin, end = map(datetime.datetime.fromisoformat, (started, finished or ""))
    except ValueError:
        return f"{began}, has not ended"
    took_s = (end - begin).total_seconds()
    return f"{began}, took {datetime.timedelta(seconds=round(took_s)) if took_s >= 100 else f'{took_s:.1f} s'}"


def _told(result: Mapping[str, Any], places: dict[tuple[str, str, str], int], share: Share) -> Told:
    plain = {name: value for name, value in result.items() if name not in ("samples", "reason")}
    reason = tame(str(result["reason"]), share.reason_chars)
    clean = {**tamed(plain, _TEXT_CHARS), "reason": reason, "samples": result["samples"]}
    cell = clean["cell"]
    if cell:
        cell["argv"] = result["cell"]["argv"]
    key = (cell["key"], cell["id"], cell["engine_version"]) if cell else ("", "", "")
    return told.told(clean, places.setdefault(key, len(places)))


def _cell(
    place: int,
    results: Sequence[Told],
    detailed: set[int],
    blocks: Blocks,
    share: Share,
    repeats: Sequence[Mapping[str, Any]],
) -> CellShown:
    mine = [one for one in results if one.place == place]
    cell = mine[0].cell
    shown = [_shown(one, blocks, share) for one in mine if one.id in detailed]
    command = _command(cell["argv"], _ENGINE_CHARS) if cell else ""
    columns = told.columns(mine)
    key = cell["key"] if cell else ""
    repeated = [_repeated(one, columns) for one in repeats if one["cell"] == key and one["spreads"]]
    return CellShown(place, told.cell_name(cell), cell, command, columns, mine, shown, repeated)


def _repeated(one: Mapping[str, Any], columns: Sequence[tuple[str, str, str]]) -> Repeated:
    spreads = {(spread["name"], spread["stat"]): spread for spread in one["spreads"]}
    verdicts = ", ".join(f"{count} {outcome}" for outcome, count in one["outcomes"].items())
    return Repeated(one["name"], verdicts, [_spread(spreads.get((name, stat))) for name, stat, _ in columns])


def _spread(spread: Mapping[str, Any] | None) -> str:
    if spread is None:
        return ""
    mean = scaled(spread["mean"], spread["unit"])
    if spread["ci_high"] is None:
        return mean
    return f"{mean} ± {scaled(spread['ci_high'] - spread['mean'], spread['unit'])}"


def _shown(one: Told, blocks: Blocks, share: Share) -> Shown:
    labels = [load.label for load in one.loads if load.asked]
    looked = look(one.result, blocks, labels, max_bytes=share.read_bytes, timed=_TIMED)
    asked = questions(one.result, blocks, max_bytes=share.read_bytes, rows=share.questions)
    if asked is not None:
        asked = dataclasses.replace(asked, rows=[tamed(_asked_last(row), _ANSWER_CHARS) for row in asked.rows])
    loads = tuple(_load(load, looked.get(load.label), share.marks // len(one.loads)) for load in one.loads)
    return Shown(one, loads, asked)


def _asked_last(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row with the end of its prompt, where that is long: the question stands behind all worked examples."""
    text = row.get("question")
    if not isinstance(text, str) or len(text) <= _ANSWER_CHARS:
        return row
    return {**row, "question": f"… {text[2 - _ANSWER_CHARS :]}"}


def _load(load: told.Load, looked: Looked | None, marks: int) -> LoadShown:
    if looked is None or looked.trouble:
        return LoadShown(load, looked, {}, None)
    stored_n = {name: number.n for (name, _), number in load.numbers.items()}
    if not looked.partly and any(d.n != stored_n.get(name, d.n) for name, d in looked.distributions.items()):
        return LoadShown(load, Looked(trouble="its raw samples are not those that its numbers rest on"), {}, None)
    curves = {}
    for name, values in looked.distributions.items():
        stored = {stat: number.value for (metric, stat), number in load.numbers.items() if metric == name}
        if values.n and stored:
            curves[name] = charts.curve(values, stored)
    return LoadShown(load, looked, curves, charts.timeline(_fitting(looked.timed, marks), marks))


def _fitting(timed: Sequence[Timed], marks: int) -> Sequence[Timed]:
    """As many requests as there is room for with each of their events; two of each place at least."""
    slowest, median, fastest = ([t for t in timed if t.place == place] for place in ("slowest", "median", "fastest"))
    kept: Sequence[Timed] = timed
    for each in range(len(slowest), 1, -1):
        middle = max(0, len(median) - each) // 2
        kept = [*slowest[:each], *median[middle : middle + each], *fastest[-each:]]
        if sum(len(t.events_ms) for t in kept) <= marks:
            break
    return kept


@functools.cache
def _environment() -> Any:
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader
    from markupsafe import Markup

    folder = shipped.REPORTS / "html"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=ChainableUndefined,  # what is stored may lack a field
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment.globals |= {
        "style": Markup(style),  # noqa: S704 - a file of ours
        "script": Markup(script),  # noqa: S704 - likewise
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
        "outcomes": told.OUTCOMES,
        "stat_names": told.STATS,
    }
    environment.filters |= {"scaled": scaled, "tick": _tick, "written": written, "between": between}
    return environment


def _command(argv: Iterable[object], limit: int) -> str:
    return tame(shlex.join(map(str, argv)), limit)


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _tick(value: float) -> str:
    """A round number at an axis: 0.5, 20, 1500, 20k."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"
