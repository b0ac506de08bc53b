"""Which models are on this machine? ``kitt models``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pytest_kitt.cli import complete
from pytest_kitt.cli.output import AsJson, say, show_json, show_table
from pytest_kitt.errors import UserError

if TYPE_CHECKING:
    from pytest_kitt.model.catalog import Catalog

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_TINY = "the tiny model is always there: kitt run -m tiny"


@app.callback()
def _group() -> None:
    """Show the models on this machine.

    Example: kitt models list
    """


@app.command("list", short_help="List the models in a folder.")
def list_models(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Where to look: KITT_MODEL_DIR, else ~/.kitt/models.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the models in a folder and all below it: GGUF files, and folders of safetensors.

    Example: kitt models list

    Example: kitt models list . --json
    """
    from pytest_kitt.model import catalog

    named = folder.expanduser() if folder else None
    if named is not None and not named.is_dir():
        raise UserError(f"{named} is no folder; name one that holds models")
    found = catalog.find(named or catalog.folder())
    if as_json:
        show_json(_document(found))
        return
    rows = [
        [
            str(model.path.relative_to(found.folder)),
            model.format,
            model.architecture or "-",
            model.quantization or "-",
            _count(model.parameters),
            _size(model.size_bytes),
        ]
        for model in found.models
        if not model.problem
    ]
    head = ("model", "format", "architecture", "quantization", "parameters", "size")
    show_table(head, rows, nothing=f"no models in {found.folder}; {_TINY}")
    for model in found.models:
        if model.problem:
            say(f"{model.path.relative_to(found.folder)} cannot be used: {model.problem}")
    if rows:
        say(f"in {found.folder}; to measure one: kitt run -m PATH")
    if not found.complete:
        say(f"kitt: {found.folder} holds too many files to look at all of them; name a folder further down", err=True)


@app.command("show", short_help="Show what a model is, and what it needs.")
def show_model(
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="As --kitt-model takes it.", autocompletion=complete.models)
    ],
    context: Annotated[int, typer.Option(metavar="TOKENS", min=1, help="Prompt and answer of a request.")] = 4096,
    parallel: Annotated[int, typer.Option(metavar="N", min=1, help="Requests at the same time.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Show what is known of a model, and how much memory it needs at least. Nothing is downloaded.

    Example: kitt models show tiny

    Example: kitt models show tiny --context 2048 --parallel 8 --json
    """
    from pytest_kitt.model import local, memory, reference

    model = local.cached(reference.resolve(ref))
    if not model.path:
        raise UserError(f"model {ref!r} is not on this machine, so that nothing is known of it; a run fetches it")
    needed = memory.estimate(model.size_bytes, model.shape, context=context, parallel=parallel)
    facts = {**model.facts(), "path": _valid(model.path)}
    estimate = {"weights_bytes": needed.weights_bytes, "kv_bytes": needed.kv_bytes or None}
    if as_json:
        show_json({"model": facts, "needs": {"context": context, "parallel": parallel, **estimate}})
        return
    shown = {**facts, "parameters": _count(model.parameters), "size_bytes": _size(model.size_bytes)}
    rows = [[name.removesuffix("_bytes"), str(value)] for name, value in shown.items() if value is not None]
    cache = f"{_size(needed.kv_bytes)} of cache" if needed.kv_bytes else "a cache of unknown size"
    rows.append(
        ["memory", f"at least {_size(needed.weights_bytes)} of weights and {cache} for {context} x {parallel} tokens"]
    )
    show_table(("fact", "value"), rows, nothing="")


def _document(found: Catalog) -> dict[str, object]:
    return {
        "folder": _valid(str(found.folder)),
        "complete": found.complete,
        "models": [
            {
                "path": _valid(str(model.path)),
                "format": model.format,
                "architecture": model.architecture or None,
                "quantization": model.quantization or None,
                "parameters": model.parameters or None,
                "context": model.context or None,
                "size_bytes": model.size_bytes,
                "problem": _valid(model.problem) or None,
            }
            for model in found.models
        ],
    }


def _valid(path: str) -> str:
    """A path as JSON can hold it: what is no UTF-8 is spelt out."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _count(parameters: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return str(parameters or "-")


def _size(size_bytes: int) -> str:
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} B"
