"""Which image does an engine's container run? The flag's, else the user's file's, else the table's on the card."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path

from pytest_kitt import cards
from pytest_kitt.cards import EngineCard
from pytest_kitt.errors import UserError, nearest
from pytest_kitt.hardware import platform
from pytest_kitt.hardware.platform import Platform
from pytest_kitt.settings import Settings, home

_FLAG, _FILE = "--kitt-image", "engines.yaml"
_OVERRIDES = "image_overrides"


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """An image, and why it is this one.

    Attributes:
        ref: its reference.
        origin: where the choice was made: ``--kitt-image``, ``engines.yaml``, ``platform``, or ``default``.
        why: in a few words, empty where the user chose it.
        dockerfile: file that makes it here; None for one that is pulled.
        entrypoint: in place of its own; empty for that.
        disk_gb: about what it takes on disk; 0 when nobody knows.

    """

    ref: str
    origin: str
    why: str = ""
    dockerfile: Path | None = None
    entrypoint: tuple[str, ...] = ()
    disk_gb: float = 0

    @property
    def reason(self) -> str:
        """Where the choice was made, and why."""
        return f"{self.origin}: {self.why}" if self.why else self.origin

    @property
    def is_named(self) -> bool:
        """Whether the user named it, and so knows what it is for."""
        return self.origin in (_FLAG, _FILE)

    @property
    def command(self) -> str:
        """The command that brings it here by hand."""
        if self.dockerfile is None:
            return f"docker pull {self.ref}"
        return f"docker build -t {self.ref} -f {self.dockerfile} {self.dockerfile.parent}"


def choose(card: EngineCard, here: Platform, settings: Settings, overrides: Mapping[str, str]) -> Image | None:
    """The image of an engine on a machine; None where its card has none for such machines.

    Args:
        card: of the engine.
        here: the machine that runs it.
        settings: ``--kitt-image`` wins over everything.
        overrides: what ``read_overrides`` found, which wins over the card.

    """
    asked = dict(settings.image)
    if ref := asked.get(card.name) or asked.get("*"):
        return _named(card, here, ref, _FLAG)
    if ref := overrides.get(card.name):
        return _named(card, here, ref, _FILE)
    return next((_of_row(card, row) for row in card.images if here.fits(row.when)), None)


def chosen_here(card: EngineCard, settings: Settings) -> Image:
    """The image of an engine on this machine; UserError where there is none."""
    here = platform.read()
    chosen = choose(card, here, settings, read_overrides(cards.load_engines()))
    if chosen is None:
        raise UserError(none_for(card, here))
    return chosen


def none_for(card: EngineCard, here: Platform) -> str:
    """That a card has no image for a machine, in one sentence with the cure."""
    others = [name for name in card.runtimes if name != "container"]
    otherwise = f"run it otherwise: --kitt-runtime={' or '.join(others)}" if others else "measure one elsewhere"
    return (
        f"{card.name} has no image for this machine ({here}): name one with --kitt-image={card.name}=IMAGE, or "
        f"{otherwise}, --kitt-url"
    )


def read_overrides(known: Collection[str]) -> dict[str, str]:
    """The images that the user's ``engines.yaml`` names, by engine; UserError names the file and what is wrong."""
    path = home() / _FILE
    if not path.is_file():
        return {}
    content = cards.read_yaml(path)
    for key in content:
        if key != _OVERRIDES:
            raise UserError(f"{path}: unknown key {key!r}; {nearest(str(key), [_OVERRIDES])}")
    found = content.get(_OVERRIDES) or {}
    if not isinstance(found, dict):
        raise UserError(f"{path}: key {_OVERRIDES!r}: expected engines and their images")
    for engine, ref in found.items():
        if engine not in known:
            raise UserError(f"{path}: {_OVERRIDES}: engine {engine!r} is unknown; {nearest(str(engine), known)}")
        if not isinstance(ref, str) or not ref.strip():
            raise UserError(f"{path}: {_OVERRIDES}: engine {engine}: expected an image as a text")
    return {engine: ref.strip() for engine, ref in found.items()}


def _named(card: EngineCard, here: Platform, ref: str, origin: str) -> Image:
    """An image that the user named: with what the card knows of it, if it is in its table."""
    rows = [row for row in card.images if row.image == ref]
    fitting = [row for row in rows if here.fits(row.when)] or rows
    found = _of_row(card, fitting[0]) if fitting else Image(ref, origin)
    return dataclasses.replace(found, origin=origin, why="")


def _of_row(card: EngineCard, row: cards.ImageCard) -> Image:
    return Image(
        row.image,
        origin="default" if row.when == cards.PlatformCard() else "platform",
        why=row.why,
        dockerfile=_dockerfile(card, row.dockerfile) if row.dockerfile else None,
        entrypoint=tuple(row.entrypoint),
        disk_gb=row.disk_gb,
    )


def _dockerfile(card: EngineCard, name: str) -> Path:
    """The file in the folder of the engine's name: the user's, else the shipped one."""
    shipped, own = (folder / card.name / name for folder in cards.folders())
    return own if own.is_file() else shipped
