"""Which engines are there, can they be started here, and how does one get them? ``kitt engines``."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pytest_kitt.cli import complete
from pytest_kitt.cli.output import AsJson, say, show_json, show_table

if TYPE_CHECKING:
    from pytest_kitt.cards import EngineCard
    from pytest_kitt.engine.image import Image
    from pytest_kitt.engine.survey import Place

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="An engine.", autocompletion=complete.engines)]
Runtime = Annotated[
    str,
    typer.Option(
        "-r",
        "--runtime",
        metavar="NAME",
        help="Only this way to run it.",
        autocompletion=complete.runtimes,
    ),
]
ImageRef = Annotated[str, typer.Option("--image", metavar="IMAGE", help="This image of its container.")]
_TELL_EVERY_S = 5.0


@app.callback()
def _group() -> None:
    """Show, check and set up engines.

    Example: kitt engines list
    """


@app.command("list", short_help="List the engines that have a card.")
def list_engines(as_json: AsJson = False) -> None:
    """List the engines that have a card: how each runs, its image on this machine, and how it was last proven.

    Exit code 1 when a card is not valid: what is wrong with it is told, and the others are listed.

    Example: kitt engines list

    Example: kitt engines list --json
    """
    from pytest_kitt.cards import sound_engines

    cards, bad = sound_engines()
    place = _look(known=(*cards, *(path.stem for path in bad)))
    if as_json:
        about = {"platform": dataclasses.asdict(place.here), "docker": place.trouble, "not_valid": list(bad.values())}
        show_json({**about, "engines": [_as_data(card, place) for card in cards.values()]})
    else:
        head = ("engine", "runs as", "image here", "present", "formats", "what it is")
        show_table(head, [_row(card, place) for card in cards.values()], nothing="no engine cards found")
        say(f"\nthis machine: {place.here}")
        if place.trouble:
            say(f"which images are present is not known: {place.trouble}")
    for sentence in bad.values():
        say(f"kitt: {sentence}", err=True)
    if bad:
        raise typer.Exit(1)


@app.command("check", short_help="Say whether an engine can be started here.")
def check(name: Name, runtime: Runtime = "", image: ImageRef = "") -> None:
    """Say of each way to run an engine whether it can be started here, and if not, what to do.

    Exit code 0 when one of the ways can be gone, 1 when none can.

    Example: kitt engines check simulated

    Example: kitt engines check llama_cpp --runtime embedded
    """
    from pytest_kitt.engine.survey import obstacles

    card, place = _found(name, image)
    found = {way: why for way, why in obstacles(card, place).items() if way in _ways(card, runtime)}
    say(f"{card.name} on {place.here}")
    for way, why in found.items():
        proven = card.runtimes[way].proven  # type: ignore[index]  # one of its own
        say(f"  {way}: {why or 'ready'}")
        say(f"    proven by: {proven.by}{f', {proven.version}' if proven.version else ''}")
    if (chosen := place.image(card)) is not None and "container" in found:
        say(f"  image: {chosen.ref} ({chosen.reason})")
    if not found:
        say("  nothing is started: it is measured where it runs, --kitt-url=http://HOST:PORT")
    for note in card.notes:
        say(f"  note: {note}")
    if found and all(found.values()):
        raise typer.Exit(1)


@app.command("setup", short_help="Pull or build an engine's image.")
def setup(
    name: Name,
    runtime: Runtime = "",
    image: ImageRef = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command; do nothing.")] = False,
) -> None:
    """Get what an engine needs to be started here: its image is pulled or built.

    What a process needs is installed by no command of ours: the one that does it is printed.

    Example: kitt engines setup vllm --dry-run

    Example: kitt engines setup llama_cpp --image kitt/llama-cpp:cpu --dry-run

    Example: kitt engines setup transformers
    """
    from pytest_kitt.engine.preflight import misfit
    from pytest_kitt.errors import UserError

    card, place = _found(name, image)
    way = next(iter(_ways(card, runtime)), "")
    if not way:
        raise UserError(f"engine {card.name} is started by nobody: it is measured where it runs, with --kitt-url")
    chosen = place.image(card)
    if unfit := misfit(card, way, place.here, chosen):
        raise UserError(unfit)
    if way == "container":
        _set_up_container(card, place, dry_run=dry_run)
        return
    from pytest_kitt.engine.installed import absent, how_to_get

    needed = card.runtimes[way]  # type: ignore[index]  # one of its own
    if not absent(card, needed):
        say(f"{card.name} as {way}: what it needs is here")
        return
    say(f"{card.name} as {way} needs {needed.program or needed.needs}; to get it:")
    say(how_to_get(needed))


def _set_up_container(card: EngineCard, place: Place, *, dry_run: bool) -> None:
    from pytest_kitt.engine import dockerd, pull
    from pytest_kitt.engine.daemon import connected
    from pytest_kitt.engine.image import none_for
    from pytest_kitt.engine.survey import lacks_disk
    from pytest_kitt.errors import EngineStartError, UserError

    chosen = place.image(card)
    if chosen is None:
        raise UserError(none_for(card, place.here))
    if dry_run:
        say(chosen.command)
        return
    if place.trouble:
        raise UserError(place.trouble)
    if place.has(chosen):
        say(f"{chosen.ref} is here")
        return
    docker = dockerd.address()
    if short := lacks_disk(chosen, docker):
        raise UserError(short)
    try:
        with connected(docker) as client, _progress() as (say_step, tell):
            found = pull.ensured(
                client,
                chosen.ref,
                engine=card.name,
                dockerfile=chosen.dockerfile,
                auto_pull=True,
                say=say_step,
                tell=tell,
            )
    except EngineStartError as error:
        raise UserError(str(error)) from error
    say(f"{chosen.ref} is here: {found.digest}")


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[str], None], Callable[[str, int, int, int], None]]]:
    """Tells what is done and how far it is: by a bar on a terminal, elsewhere by a line now and then."""
    if sys.stderr.isatty():
        from rich import progress
        from rich.console import Console

        words = progress.TextColumn("{task.description}", markup=False)
        columns = (words, progress.BarColumn(), progress.DownloadColumn(), progress.TimeRemainingColumn())
        with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task("", total=None)
            yield (
                lambda text: bars.update(bar, description=text),
                lambda name, done, total, _: bars.update(bar, description=name, completed=done, total=total),
            )
        return
    told_at_s = float("-inf")

    def step(text: str) -> None:
        nonlocal told_at_s
        if time.monotonic() - told_at_s >= _TELL_EVERY_S:
            told_at_s = time.monotonic()
            say(text, err=True)

    yield step, lambda name, done, total, _: step(f"{name}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")


def _found(name: str, image: str) -> tuple[EngineCard, Place]:
    """The card of an engine, and what is here; UserError names the nearest one."""
    from pytest_kitt.cards import load_engines
    from pytest_kitt.errors import UserError, nearest

    cards = load_engines()
    if name not in cards:
        raise UserError(f"engine {name!r} is unknown; {nearest(name, cards)}")
    return cards[name], _look(cards, image)


def _ways(card: EngineCard, runtime: str) -> list[str]:
    """The ways to start an engine that are meant; UserError when it cannot be started so."""
    from pytest_kitt.errors import UserError, nearest

    ways: list[str] = list(card.runtimes)
    if runtime and runtime not in ways:
        raise UserError(f"--runtime: engine {card.name} is not started as {runtime!r}; {nearest(runtime, ways)}")
    return [runtime] if runtime else ways


def _look(known: Collection[str], image: str = "") -> Place:
    from pytest_kitt.engine.survey import look
    from pytest_kitt.settings import Settings

    return look(known, Settings(image=(("*", image),) if image else ()))


def _row(card: EngineCard, place: Place) -> list[str]:
    proven = {name: runtime.proven.by for name, runtime in card.runtimes.items()}
    ways = [*(f"{name} ({by})" for name, by in proven.items()), "compose", "endpoint"]
    chosen = place.image(card)
    image = chosen.ref if chosen else "none for this machine" if "container" in card.runtimes else "-"
    present = {True: "yes", False: "no", None: "?"}[place.has(chosen)] if chosen else "-"
    return [card.name, ", ".join(ways), image, present, ", ".join(card.formats) or "any", card.description]


def _as_data(card: EngineCard, place: Place) -> dict[str, Any]:
    from pytest_kitt.engine.survey import obstacles

    proven = {str(name): runtime.proven.model_dump() for name, runtime in card.runtimes.items()}
    return {
        **card.model_dump(mode="json"),
        "runtimes": card.runtime_names,
        "ways": {name: {"proven": proven[name], "obstacle": why} for name, why in obstacles(card, place).items()},
        "claims": card.claims,
        "image": _image_data(place.image(card), place),
    }


def _image_data(chosen: Image | None, place: Place) -> dict[str, Any] | None:
    if chosen is None:
        return None
    return {
        "ref": chosen.ref,
        "origin": chosen.origin,
        "why": chosen.why,
        "dockerfile": str(chosen.dockerfile) if chosen.dockerfile else None,
        "present": place.has(chosen),
    }
