"""What is an engine, to us? One strict YAML card each: how to run it, ask it, and what it can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pytest_kitt import shipped
from pytest_kitt.errors import UserError, nearest
from pytest_kitt.settings import home

RuntimeName = Literal["embedded", "process", "endpoint"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RuntimeCard(_Strict):
    """One way to run the engine.

    Attributes:
        command: argv; ``{python} {model} {model_name} {host} {port}`` are filled in.
        announces: the command listens on a port of its own choice and prints ``{"url": ...}`` as its first line.
        needs: module that must be importable.
        extra: extra of pytest-kitt that brings it.
        env: environment variables to set.

    """

    command: list[str] = Field(min_length=1)
    announces: bool = False
    needs: str = ""
    extra: str = ""
    env: dict[str, str] = {}


class ArgumentCard(_Strict):
    """One argument that users may set by name: flag, default (filled in like a command, always passed), and help."""

    flag: str
    help: str
    default: str | int | float | None = None


class VersionCard(_Strict):
    """Where the engine's version is to be had: a field of a JSON answer, or an installed distribution."""

    path: str = ""
    field: str = "version"
    distribution: str = ""


class TokenizeCard(_Strict):
    """How the engine counts tokens: POST path, name of the text's field, name of the list in the answer."""

    path: str
    text: str
    tokens: str = "tokens"


class EngineCard(_Strict):
    """One engine.

    Attributes:
        name: as in ``--kitt-engine``.
        description: one sentence.
        runtimes: ways to run it, the default first; every engine can also be an endpoint.
        formats: model formats that it loads; empty when it needs no model file.
        default_model: used when no model is named.
        health: path that answers 200 when the engine is ready.
        version: where its version is.
        tokenize: how it tokenizes, if it offers that.
        force_length: request fields that make every answer as long as its limit; empty when it cannot.
        request: fields that every request carries, e.g. to switch a prompt cache off.
        arguments: what users may set with ``--kitt-engine-arg``.
        failures: class of failure -> regular expressions that show it in the log.
        synthetic: not a real engine: results are marked and kept out of comparisons.

    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    description: str
    runtimes: dict[Literal["embedded", "process"], RuntimeCard] = {}
    formats: list[str] = []
    default_model: str = ""
    health: str = "/health"
    version: VersionCard = VersionCard()
    tokenize: TokenizeCard | None = None
    force_length: dict[str, Any] = {}
    request: dict[str, Any] = {}
    arguments: dict[str, ArgumentCard] = {}
    failures: dict[str, list[str]] = {}
    synthetic: bool = False

    @property
    def runtime_names(self) -> list[str]:
        """Every way to run it, the default first."""
        return [*self.runtimes, "endpoint"]


def load_engines() -> dict[str, EngineCard]:
    """All engine cards by name: the shipped ones, then the user's (``engines/`` in KITT_HOME), which replace them."""
    cards: dict[str, EngineCard] = {}
    for folder in (shipped.ENGINES, home() / "engines"):
        for path in sorted(folder.glob("*.yaml")):
            card = read_engine(path)
            cards[card.name] = card
    return cards


def read_engine(path: Path) -> EngineCard:
    """One card; UserError names the file, the key and the nearest known one."""
    content = read_yaml(path)
    try:
        card = EngineCard.model_validate(content)
    except ValidationError as error:
        raise UserError(_explain(path, error)) from error
    if card.name != path.stem:
        raise UserError(f"{path}: the card's name is {card.name!r}; name the file {card.name}.yaml")
    return card


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping, found {type(content).__name__}")
    return content


def _explain(path: Path, error: ValidationError) -> str:
    found = error.errors()
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])  # a typo explains what is missing
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{path}: key {where!r}: {first['msg']}"
    return f"{path}: unknown key {where!r}; {nearest(str(first['loc'][-1]), _known_keys(first['loc'][:-1]))}"


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the record at this place of a card has."""
    if not loc:
        return list(EngineCard.model_fields)
    records: dict[str, type[BaseModel]] = {
        "runtimes": RuntimeCard,
        "arguments": ArgumentCard,
        "version": VersionCard,
        "tokenize": TokenizeCard,
    }
    record = records.get(str(loc[0]))
    return list(record.model_fields) if record else []
