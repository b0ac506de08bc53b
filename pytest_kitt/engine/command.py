"""How is a cell's engine started and asked, in its own words? The card's template, its arguments and what users set."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from pytest_kitt import shipped
from pytest_kitt.cards import ArgumentCard, EngineCard, RuntimeCard
from pytest_kitt.matrix import Cell

_YES, _NO = ("true", "yes"), ("false", "no")


def places(cell: Cell, *, model: str, host: str, ports: Mapping[str, int]) -> dict[str, Any]:
    """What a card's placeholders stand for.

    Args:
        cell: which engine and model.
        model: path of the model where the engine sees it, or what else names it to the engine.
        host: address that it is to listen on.
        ports: where it is to listen, by the names on the card: ``port``, 0 for one of its own choice, and others.

    """
    path = PurePath(model)
    return {
        "python": sys.executable,
        "model": model,
        "model_folder": str(path.parent),
        "model_file": path.name,
        "model_name": cell.model.name,
        "host": host,
        "spare_cores": _spare_cores(),
        "datasets": str(shipped.DATASETS),
        "engines": str(shipped.ENGINES),
        **ports,
    }


def argv(cell: Cell, card: EngineCard, runtime: RuntimeCard, where: Mapping[str, Any]) -> list[str]:
    """The command line: the card's template, every argument with a value, then raw flags.

    Flags of the user's that take no value are given with an empty one.
    """
    words = [word.format_map(where) for word in runtime.command]
    for argument, text in _set(cell, card, lambda argument: not argument.env and not argument.request, where):
        if argument.switch:
            words += [str(flag) for flag in (argument.switch[text],) if flag]
        else:
            words += [word for flag in argument.flag.split() for word in (flag, text)]
    for flag, value in _raw(cell, card).items():
        words += [flag, value] if value else [flag]
    return words


def env(cell: Cell, card: EngineCard, runtime: RuntimeCard, where: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables that it needs besides those that it inherits."""
    found = {name: text.format_map(where) for name, text in runtime.env.items()}
    arguments = _set(cell, card, lambda argument: bool(argument.env), where)
    return found | {argument.env: str(argument.switch.get(text, text)) for argument, text in arguments}


def request(cell: Cell, card: EngineCard) -> dict[str, Any]:
    """The fields that every request to it carries."""
    found: dict[str, Any] = dict(card.request)
    for argument, text in _set(cell, card, lambda argument: bool(argument.request), {}):
        for field in argument.request.split():
            *above, name = field.split(".")
            inner = found
            for part in above:
                inner[part] = inner = dict(inner.get(part, {}))
            inner[name] = argument.switch.get(text, _value(text))
    return found


def with_request(cell: Cell, card: EngineCard, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one request, over those that every request carries; objects inside are merged too."""
    beside = request(cell, card)
    inside = {name: {**beside[name], **value} for name, value in fields.items() if isinstance(beside.get(name), dict)}
    return {**beside, **fields, **inside}


def served_name(cell: Cell, card: EngineCard) -> str:
    """The model's name in requests to an engine that is started here."""
    model = cell.model
    if model.format == "ollama":
        return model.ref
    if card.prepare == "ollama":
        return model.name.replace("+", "-")  # not among the letters of its names
    return card.serves.format(model=model.path, model_name=model.name) if card.serves else model.name


def values(cell: Cell, card: EngineCard) -> dict[str, str]:
    """Every argument that has a value, by name: the user's, else the profile's, else the card's."""
    asked, found = _asked(cell, card), {}
    for name, argument in card.arguments.items():
        if argument.runtimes and cell.runtime not in argument.runtimes:
            continue
        if name in asked:
            found[name] = asked[name]
        elif argument.default is not None:
            found[name] = _at_most(argument, cell)
    return found


def _at_most(argument: ArgumentCard, cell: Cell) -> str:
    """An argument's default, but no more than the model allows, where the card says so."""
    limit = cell.model.context if argument.most else 0
    return str(min(int(argument.default), limit) if limit and argument.default else argument.default)


def _set(
    cell: Cell, card: EngineCard, wanted: Callable[[ArgumentCard], bool], where: Mapping[str, Any]
) -> Iterator[tuple[ArgumentCard, str]]:
    """Each argument of a kind that has a value, and what the engine gets for it."""
    found = values(cell, card)
    for name, text in found.items():
        argument = card.arguments[name]
        if wanted(argument):
            filled = text if name in dict(cell.overrides) else text.format_map({**where, **found})
            yield argument, _product(filled, found.get(argument.times))


def _product(text: str, times: str | None) -> str:
    """The value of an argument, or its product with another where the engine wants one number for both."""
    return str(int(text) * int(times)) if times and text.isdecimal() and times.isdecimal() else text


def _raw(cell: Cell, card: EngineCard) -> dict[str, str]:
    """Flags of the engine's own, which the card does not know."""
    return {name: text for name, text in _asked(cell, card).items() if name not in card.arguments}


def _asked(cell: Cell, card: EngineCard) -> dict[str, str]:
    """What the profile sets, and the user over it."""
    profile = card.profiles[cell.profile].arguments if cell.profile else {}
    return {**{name: str(value) for name, value in profile.items()}, **dict(cell.overrides)}


def _spare_cores() -> int:
    """All cores but one, which is the client's: threads that spin collapse when they share a core with anything."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
    return max(1, usable - 1)


def _value(text: str) -> Any:
    """A text as JSON has it: a number, true, false, or itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    lower = text.lower()
    return lower in _YES if lower in (*_YES, *_NO) else text
