"""Can an engine be started here, in which ways, and if not, why not? Docker is asked what it has."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from pytest_kitt.cards import EngineCard
from pytest_kitt.engine import dockerd, image, installed, preflight, pull
from pytest_kitt.engine.dockerd import Docker
from pytest_kitt.engine.image import Image
from pytest_kitt.errors import UserError
from pytest_kitt.hardware import platform
from pytest_kitt.hardware.platform import Platform
from pytest_kitt.settings import Settings

_ASK_TIMEOUT_S = 5.0
_GB = 10**9


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """What is here for all engines.

    Attributes:
        here: the machine.
        images: references that Docker has; None when it cannot be asked.
        trouble: why it cannot, in one sentence with the cure; empty when it can.
        overrides: images of the user's file, by engine.
        settings: which images were asked for.

    """

    here: Platform
    images: frozenset[str] | None
    trouble: str
    overrides: Mapping[str, str]
    settings: Settings

    def image(self, card: EngineCard) -> Image | None:
        """The image of an engine on this machine, if it has one."""
        return image.choose(card, self.here, self.settings, self.overrides) if "container" in card.runtimes else None

    def has(self, chosen: Image) -> bool | None:
        """Whether Docker has an image; None when it cannot be asked."""
        return None if self.images is None else bool({chosen.ref, f"{chosen.ref}:latest"} & self.images)


def look(known: Collection[str], settings: Settings) -> Place:
    """What is here; UserError for a file of the user's that cannot be read, never for a Docker that is not there."""
    try:
        docker = dockerd.address()
        trouble = dockerd.trouble(docker)
    except UserError as error:
        trouble = str(error)
    images = None if trouble else _images(docker)
    return Place(platform.read(), images, trouble, image.read_overrides(known), settings)


def obstacles(card: EngineCard, place: Place) -> dict[str, str]:
    """Each way to start an engine, and why it cannot be gone here: one sentence with the cure, empty when it can."""
    return {runtime: _obstacle(card, runtime, place) for runtime in card.runtimes}


def lacks_disk(chosen: Image, docker: Docker) -> str:
    """That an image will not fit where Docker keeps them; empty when it may, or when nobody knows."""
    root = _root(docker)
    if not chosen.disk_gb or root is None:
        return ""
    found = os.statvfs(root)
    free_gb = found.f_bavail * found.f_frsize / _GB
    if free_gb >= chosen.disk_gb:
        return ""
    return (
        f"image {chosen.ref} takes about {chosen.disk_gb:g} GB, and {root} has {free_gb:.1f} GB left: docker system df "
        "shows what takes the room, docker image prune frees some (--kitt-force tries it all the same)"
    )


def _obstacle(card: EngineCard, runtime: str, place: Place) -> str:
    chosen = place.image(card)
    if unfit := preflight.misfit(card, runtime, place.here, chosen):
        return unfit
    if runtime != "container":
        return installed.absent(card, card.runtimes[runtime])  # type: ignore[index]  # one of its own
    if chosen is None:
        return image.none_for(card, place.here)
    if place.trouble:
        return place.trouble
    return "" if place.has(chosen) else pull.absent(chosen.ref, card.name, chosen.dockerfile)


def _images(docker: Docker) -> frozenset[str]:
    """Every name of every image; none when Docker does not say."""
    try:
        status, said = docker.ask("GET", "/images/json", timeout_s=_ASK_TIMEOUT_S)
    except OSError:
        return frozenset()
    listed = said if status == 200 and isinstance(said, list) else []
    return frozenset(name for entry in listed for key in ("RepoTags", "RepoDigests") for name in (entry.get(key) or ()))


def _root(docker: Docker) -> Path | None:
    """Where Docker keeps images, if that is on this machine and can be seen."""
    if not docker.is_here:
        return None
    try:
        status, said = docker.ask("GET", "/info", timeout_s=_ASK_TIMEOUT_S)
        root = Path(str(said["DockerRootDir"])) if status == 200 else None
        return root if root is not None and root.is_dir() else None
    except (OSError, KeyError, TypeError):
        return None
