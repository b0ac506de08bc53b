"""What was measured before? ``kitt results``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pytest_kitt.cli.output import AsJson, Db, show_json, show_table
from pytest_kitt.report.terminal import scaled

app = typer.Typer(no_args_is_help=True, help="Show stored results.")
_MAIN_STATS = ("value", "p50", "p99")


@app.command("list")
def list_results(
    as_json: AsJson = False,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Include runs on simulated engines.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")] = 50,
    db: Db = "",
) -> None:
    """List runs, newest first.

    Example: kitt results list --json
    """
    from pytest_kitt.store import reader
    from pytest_kitt.store.database import exists, opened

    runs = []
    if exists(_db(db)):
        with opened(_db(db)) as engine, engine.connect() as connection:
            runs = reader.list_runs(connection, synthetic=synthetic, limit=limit)
    if as_json:
        show_json({"runs": runs})
        return
    rows = [
        [
            run["id"],
            run["started_at"][:19].replace("T", " "),
            run["status"],
            run["suite"] or "-",
            _where(run),
            _count(run),
        ]
        for run in runs
    ]
    head = ("run", "started (UTC)", "status", "suite", "engine and model", "results")
    show_table(head, rows, nothing="no runs yet; try: pytest --kitt-suite=quick")


@app.command("show")
def show_results(
    run: Annotated[str, typer.Argument(help="Id of a run, the beginning of one, or 'last'.")],
    as_json: AsJson = False,
    db: Db = "",
) -> None:
    """Show one run with all of its numbers.

    Example: kitt results show last
    """
    from pytest_kitt.store import reader
    from pytest_kitt.store.database import opened

    with opened(_db(db), create=False) as engine, engine.connect() as connection:
        found = reader.show_run(connection, run)
    if as_json:
        show_json(found)
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    run = found["run"]
    typer.echo(f"run {run['id']}  {run['status']}  started {run['started_at']}  kitt {run['kitt_version']}")
    typer.echo(f"reproduce: {' '.join(run['argv'])}")
    for flag in ("toy", "synthetic"):
        if run[flag]:
            typer.echo(f"{flag}: these numbers say nothing about a product")
    for result in found["results"]:
        cell = result["cell"]
        where = f" on {cell['id']} ({cell['runtime']}, {cell['key']})" if cell else ""
        reason = f": {result['reason'].splitlines()[0]}" if result["reason"] else ""
        typer.echo(f"\n{result['benchmark']}{where}  {result['outcome'].upper()}{reason}")
        rows = [
            [metric["name"], metric["stat"], scaled(metric["value"], metric["unit"]), f"n={metric['n']}"]
            for metric in result["metrics"]
            if metric["stat"] in _MAIN_STATS
        ]
        show_table(("metric", "stat", "value", "samples"), rows, nothing="no numbers")


def _db(db: str) -> str:
    """The store that pytest would use, unless another one is named."""
    from pytest_kitt.settings import read_config_file

    return db or str(read_config_file().get("db", ""))


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")


def _where(run: dict[str, Any]) -> str:
    mark = " (toy)" if run["toy"] else " (synthetic)" if run["synthetic"] else ""
    return f"{','.join(run['engines']) or '-'} {','.join(run['models'])}{mark}"


def _count(run: dict[str, Any]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(run["results"].items())) or "none"
