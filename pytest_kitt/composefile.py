"""Which service of a compose file is the engine? Reads the file alone: no compose program, no Docker."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_kitt.cards import read_yaml
from pytest_kitt.errors import UserError, nearest
from pytest_kitt.settings import Settings

_DIGITS = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """A service of a compose file.

    Attributes:
        file: where it stands.
        name: in the file.
        digest: of what the file says of it.
        version: of the file's format, empty where it names none.
        profiles: in which it is.

    """

    file: Path
    name: str
    digest: str
    version: str = ""
    profiles: tuple[str, ...] = ()


def chosen(settings: Settings) -> Service:
    """The service that ``--kitt-compose`` and ``--kitt-service`` name; UserError says what is wrong with them."""
    try:
        path = Path(settings.compose).expanduser()
        content = read_yaml(path)
    except UserError as error:
        raise UserError(f"--kitt-compose: {error}") from error
    services = content.get("services")
    if not isinstance(services, dict) or not services:
        if not content.get("include"):
            raise UserError(f"--kitt-compose: {path} has no services; expected a mapping under the key 'services'")
        services = {}
    name = settings.service or _only(services, path)
    if name not in services and not content.get("include"):
        raise UserError(f"--kitt-service: {path} has no service {name!r}; {nearest(name, map(str, services))}")
    said = services.get(name) or {}
    if not isinstance(said, dict):
        raise UserError(f"--kitt-compose: {path}: service {name!r}: expected a mapping, found {type(said).__name__}")
    return Service(path.absolute(), name, _digest(said), str(content.get("version") or ""), _profiles(said))


def _only(services: Mapping[Any, Any], path: Path) -> str:
    if len(services) != 1:
        there = ", ".join(sorted(map(str, services))) or "only others' files"
        raise UserError(f"--kitt-compose: which service of {path} is the engine? it has: {there}; add --kitt-service")
    return str(next(iter(services)))


def _digest(said: Mapping[str, Any]) -> str:
    canonical = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGITS]


def _profiles(said: Mapping[str, Any]) -> tuple[str, ...]:
    profiles = said.get("profiles")
    return tuple(map(str, profiles)) if isinstance(profiles, list) else ()
