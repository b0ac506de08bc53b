"""What was measured before? ``kitt results``."""

from __future__ import annotations

import datetime
import re
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pytest_kitt.cli import complete, stores, transfer
from pytest_kitt.cli.output import AsJson, Db, say, show_json, show_table, width
from pytest_kitt.errors import UserError, nearest

if TYPE_CHECKING:
    from pytest_kitt.measure.results import Measurement

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.command("export", short_help="Write one run in a format of your choice.")(transfer.export_results)
app.command("import", short_help="Put an exported run into the store.")(transfer.import_results)
_MAIN_STATS = ("value", "p50", "p90", "p99")
_AGO = re.compile(r"(\d{1,5})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}

RunRef = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Id of a run, the beginning of one, or 'last'.", autocompletion=complete.runs),
]


@app.callback()
def _group() -> None:
    """Show, export, import and delete stored results.

    Example: kitt results list

    Example: kitt results show last
    """


@app.command("list", short_help="List runs, newest first.")
def list_results(
    *,
    engine: Annotated[
        str,
        typer.Option("--engine", metavar="NAME", help="Only runs with this engine.", autocompletion=complete.engines),
    ] = "",
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="Only runs with this model; * stands for anything.")
    ] = "",
    suite: Annotated[
        str, typer.Option("--suite", metavar="NAME", help="Only runs of this suite.", autocompletion=complete.suites)
    ] = "",
    status: Annotated[
        str,
        typer.Option(
            "--status",
            metavar="NAME",
            help="Only runs that are running, or ended as passed, failed, error or interrupted.",
            autocompletion=complete.statuses,
        ),
    ] = "",
    since: Annotated[
        str,
        typer.Option("--since", metavar="WHEN", help="Only runs since 2026-01-31, 2026-01-31T12:00, 36h, 7d or 2w."),
    ] = "",
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Include runs on simulated engines.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many, the newest.")] = 50,
    as_json: AsJson = False,
    db: Db = "",
) -> None:
    """List runs, newest first. Times are in UTC.

    Example: kitt results list

    Example: kitt results list --engine llama_cpp --since 7d --json
    """
    from pytest_kitt.store import reader
    from pytest_kitt.store.database import exists

    if status and status not in reader.STATUSES:
        raise UserError(f"--status: {status!r} is unknown; {nearest(status, reader.STATUSES)}")
    wanted = reader.Wanted(engine=engine, model=model, suite=suite, status=status, since=_since(since))
    runs, hidden = [], 0
    if stores.meant(db) or exists(""):  # one that is named, and is not there, is a mistake
        with stores.connection(db) as connection:
            runs = reader.list_runs(connection, wanted, synthetic=synthetic, limit=limit)
            hidden = 0 if synthetic else reader.count_synthetic(connection, wanted)
    if as_json:
        show_json({"runs": runs})
        return
    head = ("run", "started (UTC)", "status", "suite", "engine and model", "results")
    nothing = "no run fits" if wanted != reader.Wanted() else "no runs yet; try: pytest --kitt-suite=quick"
    show_table(head, [_row(run) for run in runs], nothing=nothing)
    if hidden:
        what = "1 run on a simulated engine is" if hidden == 1 else f"{hidden} runs on simulated engines are"
        say(f"{what} not shown: --synthetic shows {'it' if hidden == 1 else 'them'}")


@app.command("show", short_help="Show one run with all of its numbers.")
def show_results(
    run: RunRef,
    as_json: AsJson = False,
    attempts: Annotated[
        bool, typer.Option("--attempts", help="Every attempt, not only the last of each item.")
    ] = False,
    db: Db = "",
) -> None:
    """Show one run with all of its numbers.

    Example: kitt results show last

    Example: kitt results show last --json
    """
    from pytest_kitt.report import agreement, document
    from pytest_kitt.store import reader

    with stores.connection(db) as connection:
        found = reader.show_run(connection, run, every_attempt=attempts)
        matrices = document.agreements(connection, found["run"]["id"])
    if as_json:
        show_json({**found, "agreements": [matrix.to_json() for matrix in matrices]})
        return
    _show(found)
    for matrix in matrices:
        say("\nDo the answers agree? The first is the reference.")
        head, *rows = agreement.rows(matrix)
        show_table(head, rows, nothing="")
        if left := agreement.left_out(matrix):
            say(f"and {left} more")


@app.command("delete", short_help="Delete runs with all that hangs on them.")
def delete_results(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Ids, beginnings of ids, or 'last'.", autocompletion=complete.runs),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete a run that is still running, too.")] = False,
    db: Db = "",
) -> None:
    """Delete runs with their results, numbers and raw samples. All of them, or none when one is not clear.

    Example: kitt results delete last --yes
    """
    from pytest_kitt.store import reader

    with stores.connection(db) as connection:
        found = reader.find_runs(connection, runs)
        if (running := [run["id"] for run in found if run["status"] == "running"]) and not force:
            raise UserError(f"run {running[0]} is still running; wait for its end, or delete it with --force")
        many = f"{len(found)} runs" if len(found) > 1 else "this run"
        head = ("run", "started (UTC)", "status", "suite", "engine and model", "results")
        show_table(head, [_row(run) for run in found], nothing="")
        if not yes:
            if not sys.stdin.isatty():
                raise UserError(f"nobody can be asked whether to delete {many}; say --yes")
            if not typer.confirm(f"delete {many} for good?"):
                say("nothing is deleted")
                return
        for run in found:
            reader.delete_run(connection, run["id"])
        connection.commit()
    say(f"deleted {len(found)} run{'s' * (len(found) > 1)}")


def _show(found: dict[str, Any]) -> None:
    from pytest_kitt.measure.results import Measurement
    from pytest_kitt.report import scores
    from pytest_kitt.report.terminal import scaled

    run = found["run"]
    say(f"run {run['id']}  {run['status']}  started {run['started_at']}  kitt {run['kitt_version']}")
    _say_command(run["argv"])
    for flag in ("toy", "synthetic"):
        if run[flag]:
            say(f"{flag}: these numbers say nothing about a product")
    if any(scores.is_sample(result["params"]) for result in found["results"]):
        say(f"sample: {scores.SAMPLE_NOTICE}")
    if cells := _cells(found["results"]):
        say()
        show_table(("cell", "engine", "version", "runs as", "image", "key"), cells, nothing="")
    for result in found["results"]:
        where = _on(result["cell"]) if result["cell"] else ""
        reason = f": {result['reason'].splitlines()[0]}" if result["reason"] else ""
        say(f"\n{_name(result)}{where}  {result['outcome'].upper()}{reason}")
        for line in _loads(result["params"]):
            say(line)
        metrics = [Measurement(**metric) for metric in result["metrics"]]
        answered = scores.of(result["params"], metrics)
        for line in answered.lines():
            say(f"  {line}")
        rows = [
            [m.name, m.stat, scaled(m.value, m.unit), _interval(m) or "-", answered.counted(m)]
            for m in metrics
            if m.stat in _MAIN_STATS
        ]
        show_table(("metric", "stat", "value", "95 % interval", "samples"), rows, nothing="no numbers")


def _interval(m: Measurement) -> str:
    """The 95 % interval of a number and how it was made."""
    from pytest_kitt.report.terminal import scaled

    if m.ci_low is None or m.ci_high is None:
        return ""
    return f"{scaled(m.ci_low, m.unit)} to {scaled(m.ci_high, m.unit)}{f' ({m.method})' if m.method else ''}"


def _cells(results: list[dict[str, Any]]) -> list[list[str]]:
    """Each cell once, with what the engine said that it is: one that was changed in mid-run is met twice."""
    met = (result["cell"] for result in results if result["cell"])
    rows = ((c["id"], c["engine"], c["engine_version"] or "-", c["runtime"], _image(c), c["key"]) for c in met)
    return [list(row) for row in dict.fromkeys(rows)]


def _image(cell: dict[str, Any]) -> str:
    digest = _short_digest(cell["image_digest"])
    return f"{cell['image']} ({digest})" if digest else cell["image"] or "-"


def _on(cell: dict[str, Any]) -> str:
    """Which row of the table of cells a result belongs to."""
    what = (cell["engine_version"], cell["runtime"], _short_digest(cell["image_digest"]), cell["key"])
    return f" on {cell['id']} ({', '.join(filter(None, what))})"


def _short_digest(digest: str) -> str:
    """``sha256:`` and twelve digits of what an image is; empty when that is not known."""
    algorithm, colon, digits = digest.rpartition("@")[2].partition(":")
    return f"{algorithm}{colon}{digits[:12]}"


def _say_command(argv: list[str]) -> None:
    """The command line that reproduces a run, fit to be copied: in a terminal each line ends as a shell wants it."""
    lines, room = ["reproduce:"], width()
    for word in map(shlex.quote, argv):
        if room and len(lines[-1]) + len(word) + len("  \\") > room and lines[-1].strip():
            lines[-1] += " \\"
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}"
    for line in lines:
        say(line)


def _name(result: dict[str, Any]) -> str:
    from pytest_kitt.measure.results import label

    name = label(result["benchmark"], result["nodeid"], result["cell"]["id"] if result["cell"] else None)
    return f"{name} (attempt {result['attempt']})" if result["attempt"] > 1 else name


def _loads(params: dict[str, Any]) -> Iterator[str]:
    """A line for each load of a test: what was asked for, and whether it was applied."""
    for key, load in params.items():
        label, _, name = key.rpartition(".")
        if name != "load":
            continue
        lead = f"{label}." if label else ""
        asked = ", ".join(str(params.get(f"{lead}{part}", "")) for part in ("workload", "stop", "api"))
        warmup = ", no warm-up" if params.get(f"{lead}warmup") == 0 else ""
        certificate = params.get(f"{lead}certificate", {})
        broken = "; ".join(certificate.get("broken", ()))
        certified = f"NOT CERTIFIED: {broken}" if broken else "certified"
        yield f"  {f'{label}: ' if label else ''}{load}, {asked}{warmup}; {certified}"


def _since(text: str) -> str:
    """A time as the store writes it; UserError when it is none. Without a zone it is UTC."""
    if not text:
        return ""
    if ago := _AGO.fullmatch(text):
        at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=int(ago[1]) * _HOURS[ago[2]])
        return _iso(at)
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"--since: {text!r} is no time; say 2026-01-31, 2026-01-31T12:00, 36h, 7d or 2w") from error
    return _iso(at if at.tzinfo else at.replace(tzinfo=datetime.UTC))


def _iso(at: datetime.datetime) -> str:
    return at.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _row(run: dict[str, Any]) -> list[str]:
    started = run["started_at"][:19].replace("T", " ")
    return [run["id"], started, run["status"], run["suite"] or "-", _where(run), _count(run)]


def _where(run: dict[str, Any]) -> str:
    mark = " (toy)" if run["toy"] else " (synthetic)" if run["synthetic"] else ""
    versions = run["engine_versions"]
    engines = ",".join(" ".join((name, "/".join(versions[name]))).strip() for name in run["engines"])
    return f"{engines or '-'} {','.join(run['models'])}{mark}"


def _count(run: dict[str, Any]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(run["results"].items())) or "none"
