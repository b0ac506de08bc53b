"""How does a run read where Markdown is shown: on the page of a CI job, in a comment? GitHub's flavour, bounded.

All that comes from elsewhere (names of tests and models, what servers and assertions say) stands in code spans and code
blocks: nothing in there is a link, an image, a mention or HTML.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_kitt.measure.consistency import Matrix
from pytest_kitt.measure.results import Result
from pytest_kitt.report import agreement, scores, terminal
from pytest_kitt.report.terminal import printable

MAX_BYTES = 1_000_000  # GitHub takes 1 MiB
_MAX_NAME_CHARS, _MAX_REASON_CHARS = 200, 2000
_MAX_ARGV_CHARS = 8000
_VERDICTS = ("failed", "invalid", "error", "inconclusive", "skipped", "passed")
_RIGHT, _LEFT = "---:", "---"
_BACKTICKS = re.compile(r"`+")


def render(found: Mapping[str, Any], max_bytes: int = MAX_BYTES) -> str:
    """A run as ``reader.show_run`` gives it, in at most so many bytes of UTF-8: what is too much is left out, and said.

    ValueError when not even the head and the end of the page fit.
    """
    run = found["run"]
    results = [Result.from_fields(said) for said in found["results"]]
    before, after = "\n".join(_head(run, results)), "\n".join(_foot(run))
    rest = f"\nThe rest is left out, as it is too long for this page: `kitt results show {run['id']}` has all of it.\n"
    room = max_bytes - sum(len(part.encode()) + 1 for part in (before, after, rest))
    if room < 0:
        raise ValueError(f"{max_bytes} bytes are too few for the summary of a run")
    kept: list[str] = []
    for line in (*_agreements(found.get("agreements", ())), *_body(results)):
        room -= len(line.encode()) + 1
        if room < 0:
            kept.append(rest)
            break
        kept.append(line)
    return "\n".join((before, *kept, after))


def code(text: str, limit: int = _MAX_NAME_CHARS) -> str:
    """A text from elsewhere as a code span on one line, which shows it as it is; empty for no text."""
    line = _bounded(" ".join(printable(" ".join(text.split())).split()), limit)
    if not line:
        return ""
    ticks = "`" * (1 + max((len(run) for run in _BACKTICKS.findall(line)), default=0))
    space = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def block(text: str, language: str = "", limit: int = _MAX_REASON_CHARS) -> str:
    """A text from elsewhere as a code block, its lines kept."""
    lines = [printable(line) for line in _bounded(text, limit).splitlines()]
    fence = "`" * max(3, 1 + max((len(run) for line in lines for run in _BACKTICKS.findall(line)), default=0))
    return "\n".join((f"{fence}{language}", *lines, fence))


def _head(run: Mapping[str, Any], results: Sequence[Result]) -> Iterator[str]:
    counts = Counter(result.outcome for result in results)
    verdicts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _VERDICTS if counts[outcome])  # type: ignore[index]  # all six outcomes
    yield f"## kitt: {verdicts or 'no results'}\n"
    suite = f", suite {code(run['suite'])}" if run["suite"] else ""
    yield f"Run `{run['id']}`{suite}: **{run['status']}**, started {run['started_at']}, kitt {run['kitt_version']}.\n"
    notices = (("toy", terminal.TOY_NOTICE), ("synthetic", terminal.SYNTHETIC_NOTICE))
    for notice in [*(text for name, text in notices if run[name]), *terminal.sample_notices(results)]:
        yield f"> **Note:** {notice}.\n"


def _body(results: Sequence[Result]) -> Iterator[str]:
    bad = [result for result in results if result.reason and result.outcome not in ("passed", "skipped")]
    if bad:
        yield "### What did not pass\n"
    for result in bad:
        yield from _reason(result)
    for title in dict.fromkeys(map(terminal.cell_title, results)):
        yield from _cell(title, [result for result in results if terminal.cell_title(result) == title])


def _agreements(matrices: Iterable[Matrix]) -> Iterator[str]:
    """A table for each benchmark whose answers can be compared."""
    for number, matrix in enumerate(matrices):
        if not number:
            yield "### Do the answers agree?\n"
        head, *rows = agreement.rows(matrix)
        yield _row([code(head[0]).replace("|", "\\|"), *head[1:]])
        yield _row([_LEFT, *[_RIGHT] * (len(head) - 1)])
        for name, *numbers in rows:
            yield _row([code(name).replace("|", "\\|"), *numbers])
        yield f"\nand {left} more\n" if (left := agreement.left_out(matrix)) else ""


def _reason(result: Result) -> Iterator[str]:
    where = f" on {code(terminal.cell_title(result))}" if result.cell else ""
    lead = f"- **{result.outcome.upper()}** {code(terminal.item_label(result))}{where}"
    if "\n" in result.reason.strip():
        indented = block(result.reason).replace("\n", "\n  ")
        yield f"{lead}:\n\n  {indented}\n"
    else:
        yield f"{lead}: {code(result.reason, _MAX_REASON_CHARS)}\n"


def _cell(title: str, results: Sequence[Result]) -> Iterator[str]:
    yield f"### {code(title)}\n"
    head, rows = terminal.main_numbers(results)
    yield _row(head)
    yield _row([_LEFT, *[_RIGHT] * (len(head) - 2), _LEFT])
    for name, *numbers in (*(row for _, row in rows), *terminal.spread_rows(results)):
        yield _row([code(name).replace("|", "\\|"), *numbers])
    yield ""
    for line in _below(results):
        yield f"- {line}"
    yield ""


def _below(results: Sequence[Result]) -> Iterator[str]:
    for result, text in terminal.own_metrics(results):
        yield f"{code(terminal.item_label(result))}: {code(text, _MAX_REASON_CHARS)}"
    for result in results:
        told = scores.of(result.params, result.metrics)
        for line in (*told.lines(), *told.more):
            yield f"{code(terminal.item_label(result))}: {code(line, _MAX_REASON_CHARS)}"
    if line := terminal.all_certified(results):
        yield line
    for result in results:
        for remark in terminal.remarks(result):
            yield code(remark, _MAX_REASON_CHARS)
        if result.outcome == "skipped":
            yield f"{code(terminal.item_label(result))} skipped: {code(result.reason, _MAX_REASON_CHARS)}"


def _foot(run: Mapping[str, Any]) -> Iterator[str]:
    yield "### Where, and how to repeat it\n"
    if facts := ", ".join(_machine(run.get("fingerprint") or {})):
        yield f"{facts}.\n"
    yield block(shlex.join(run["argv"]), "sh", _MAX_ARGV_CHARS)
    yield f"\n`kitt results show {run['id']}` shows every number.\n"


def _machine(facts: Mapping[str, Any]) -> Iterable[str]:
    if cpu := facts.get("cpu"):
        yield code(str(cpu))
    if cores := facts.get("cores"):
        yield f"{cores} cores"
    if size := facts.get("memory_bytes"):
        yield f"{size / 2**30:.0f} GiB of memory"
    system = " ".join(str(facts[name]) for name in ("system", "kernel", "architecture") if facts.get(name))
    if system:
        yield code(system)
    if python := facts.get("python"):
        yield f"Python {code(str(python))}"


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _bounded(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
