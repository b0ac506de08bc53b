"""What can be known to fail before anything is started? Engine, model and machine in, a reason out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping

from pytest_kitt.cards import EngineCard
from pytest_kitt.engine import image
from pytest_kitt.engine.image import Image
from pytest_kitt.errors import UserError
from pytest_kitt.hardware import platform
from pytest_kitt.hardware.platform import Platform
from pytest_kitt.matrix import Cell
from pytest_kitt.settings import Settings

_FORCE = "pytest --kitt-force tries it all the same"
_STARTED = ("container", "process", "embedded")


def checked(
    cells: tuple[Cell, ...],
    cards: Mapping[str, EngineCard],
    settings: Settings,
    machine: Callable[[], Platform] = platform.read,
) -> tuple[Cell, ...]:
    """The cells, those that cannot work on this machine with the reason; UserError when that is all of them."""
    here = functools.cache(machine)
    overrides = functools.cache(lambda: image.read_overrides(cards))

    def reason(cell: Cell) -> str:
        if cell.skip or cell.runtime not in _STARTED:
            return cell.skip
        card = cards[cell.engine]
        contained = cell.runtime == "container"
        if not contained and not card.impossible:
            return ""
        chosen = image.choose(card, here(), settings, overrides()) if contained else None
        unfit = "" if settings.force else misfit(card, cell.runtime, here(), chosen)
        return unfit or (image.none_for(card, here()) if contained and chosen is None else "")

    reasons = {cell: reason(cell) for cell in cells}
    if all(reasons.values()):
        raise UserError("; ".join(dict.fromkeys(reasons.values())))
    return tuple(dataclasses.replace(cell, skip=why) for cell, why in reasons.items())


def images(
    cells: Iterable[Cell],
    cards: Mapping[str, EngineCard],
    settings: Settings,
    machine: Callable[[], Platform] = platform.read,
) -> dict[str, Image]:
    """The images that the containers of a session run, by engine."""
    contained = {cell.engine: cards[cell.engine] for cell in cells if cell.runtime == "container" and not cell.skip}
    if not contained:
        return {}
    here, overrides = machine(), image.read_overrides(cards)
    chosen = {name: image.choose(card, here, settings, overrides) for name, card in contained.items()}
    return {name: found for name, found in chosen.items() if found is not None}


def misfit(card: EngineCard, runtime: str, here: Platform, chosen: Image | None) -> str:
    """Why an engine cannot run on a machine in a way, in one sentence with the cure; empty when it can.

    What is wrong with its images alone does not hold for an image that the user named.
    """
    named = chosen is not None and chosen.is_named
    rows = (
        row
        for row in card.impossible
        if (not row.runtimes or runtime in row.runtimes) and not (named and row.runtimes == ["container"])
    )
    unfit = next((row.why for row in rows if here.fits(row.when)), "")
    return f"{card.name} cannot run as {runtime} on this machine ({here}): {unfit}; {_FORCE}" if unfit else ""
