"""Which engines are there? ``kitt engines``."""

from __future__ import annotations

import typer

from pytest_kitt.cli.output import AsJson, show_json, show_table

app = typer.Typer(no_args_is_help=True, help="Show engines.")


@app.command("list")
def list_engines(as_json: AsJson = False) -> None:
    """List the engines that have a card.

    Example: kitt engines list
    """
    from pytest_kitt.cards import load_engines

    cards = load_engines().values()
    if as_json:
        show_json({"engines": [{**card.model_dump(mode="json"), "runtimes": card.runtime_names} for card in cards]})
        return
    rows = [
        [card.name, ", ".join(card.runtime_names), ", ".join(card.formats) or "any", card.description] for card in cards
    ]
    show_table(("engine", "runs as", "formats", "what it is"), rows, nothing="no engine cards found")
