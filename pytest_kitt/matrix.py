"""Which cells does a session measure? Settings and cards in, frozen cells out; nothing is started or fetched."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pytest_kitt.cards import EngineCard, read_yaml
from pytest_kitt.errors import UserError, nearest
from pytest_kitt.model import reference
from pytest_kitt.model.reference import ModelRef
from pytest_kitt.settings import Settings

DEFAULT_ENGINE = "llama_cpp"
UNRESOLVED_MODEL = "unresolved"


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One engine with one model: what a benchmark is run on.

    Attributes:
        engine: name of its card.
        model: the model it serves.
        runtime: embedded, process or endpoint.
        overrides: engine arguments that the user set, in order of their names.
        url: of an endpoint; an address is no part of the identity.
        synthetic: the engine is not a real one.
        skip: why it cannot work, empty when it can.
        id: as in node ids, e.g. ``llama_cpp-tiny``.

    """

    engine: str
    model: ModelRef
    runtime: str
    overrides: tuple[tuple[str, str], ...] = ()
    url: str = ""
    synthetic: bool = False
    skip: str = ""
    id: str = ""

    @property
    def key(self) -> str:
        """12 hexadecimal digits over engine, model identity, runtime and overrides: the same on every machine."""
        identity = {
            "engine": self.engine,
            "model": self.model.identity,
            "runtime": self.runtime,
            "overrides": dict(self.overrides),
        }
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        return f"<Cell {self.id} {self.key}>"


def build(settings: Settings, cards: Mapping[str, EngineCard]) -> tuple[Cell, ...]:
    """The cells that were asked for, impossible ones with their reason; UserError when none can work."""
    engines = _engines(settings, cards)
    models = {ref: reference.resolve(ref) for ref in settings.model if not settings.url} if _need_files(engines) else {}
    cells = [
        _cell(settings, card, ref, models)
        for card in engines
        for ref in (settings.model or (_default_model(settings, card),))
    ]
    if all(cell.skip for cell in cells):
        raise UserError("; ".join(dict.fromkeys(cell.skip for cell in cells)))
    return _with_ids(cells)


def base_url(url: str) -> str:
    """The address without a trailing slash or /v1; UserError when it is none, or holds credentials."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--kitt-url: {_without_credentials(url)!r} is no address; expected http://HOST:PORT")
    if parts.username or parts.password:
        raise UserError("--kitt-url: leave name and password out of the URL; set KITT_API_KEY or use --kitt-header")
    if parts.query or parts.fragment:
        raise UserError("--kitt-url: expected http://HOST:PORT without a query")
    try:
        port = parts.port
    except ValueError as error:
        raise UserError(f"--kitt-url: {error}") from error
    if port == 0:
        raise UserError("--kitt-url: port 0 is no port")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"


def _without_credentials(url: str) -> str:
    return url.rpartition("@")[2]


def _engines(settings: Settings, cards: Mapping[str, EngineCard]) -> list[EngineCard]:
    for name in settings.engine:
        if name not in cards:
            raise UserError(f"--kitt-engine: {name!r} is unknown; {nearest(name, cards)}")
    if settings.url:
        return [cards[_endpoint_engine(settings)]]
    return [cards[name] for name in settings.engine or (DEFAULT_ENGINE,)]


def _endpoint_engine(settings: Settings) -> str:
    if settings.runtime not in ("", "endpoint"):
        raise UserError(f"--kitt-url measures a server that already runs: drop --kitt-runtime={settings.runtime}")
    if len(settings.engine) > 1:
        raise UserError(f"--kitt-url is one server: name one engine, not {', '.join(settings.engine)}")
    if settings.engine_arg or settings.engine_config:
        raise UserError("--kitt-url: a running server takes no engine arguments; drop --kitt-engine-arg and -config")
    return settings.engine[0] if settings.engine else "openai"


def _need_files(engines: list[EngineCard]) -> bool:
    return any(card.formats for card in engines)


def _default_model(settings: Settings, card: EngineCard) -> str:
    if settings.url:
        return UNRESOLVED_MODEL
    if not card.default_model:
        _runtime(settings, card)
        raise UserError(f"engine {card.name} needs a model: --kitt-model=PATH")
    return card.default_model


def _cell(settings: Settings, card: EngineCard, ref: str, models: Mapping[str, ModelRef]) -> Cell:
    runtime = _runtime(settings, card)
    if runtime == "endpoint":
        return Cell(card.name, reference.served(ref), runtime, url=base_url(settings.url), synthetic=card.synthetic)
    overrides = _overrides(settings, card)
    if not card.formats:
        return Cell(card.name, reference.served(ref), runtime, overrides, synthetic=card.synthetic)
    model = models.get(ref) or reference.resolve(ref)
    return Cell(card.name, model, runtime, overrides, synthetic=card.synthetic, skip=_misfit(card, model))


def _misfit(card: EngineCard, model: ModelRef) -> str:
    loads = " or ".join(card.formats)
    if model.format and model.format not in card.formats:
        return f"{card.name} loads {loads} and {model.ref} is {model.format}"
    if not model.path:
        return f"{card.name} loads {loads} files from this machine, and {model.ref!r} is none: give a path"
    return ""


def _runtime(settings: Settings, card: EngineCard) -> str:
    if settings.url:
        return "endpoint"
    if settings.runtime == "endpoint":
        raise UserError("--kitt-runtime=endpoint needs --kitt-url=http://HOST:PORT")
    if settings.runtime and settings.runtime not in card.runtime_names:
        raise UserError(
            f"--kitt-runtime: engine {card.name} cannot run as {settings.runtime}; it can as: "
            f"{', '.join(card.runtime_names)}"
        )
    if not card.runtimes:
        raise UserError(f"engine {card.name} is measured where it already runs: add --kitt-url=http://HOST:PORT")
    return settings.runtime or card.runtime_names[0]


def _overrides(settings: Settings, card: EngineCard) -> tuple[tuple[str, str], ...]:
    asked = {**_config_arguments(settings, card), **_scoped(dict(settings.engine_arg), settings, card)}
    for key in asked:
        if key not in card.arguments and not key.startswith("-"):
            known = nearest(key, card.arguments)
            raise UserError(
                f"--kitt-engine-arg: engine {card.name} has no argument {key!r}; {known}, or a --flag of its own"
            )
    return tuple(sorted(asked.items()))


def _config_arguments(settings: Settings, card: EngineCard) -> dict[str, str]:
    if not settings.engine_config:
        return {}
    flat: dict[str, str] = {}
    for key, value in read_yaml(Path(settings.engine_config).expanduser()).items():
        inner = value if isinstance(value, dict) else {None: value}
        for name, text in inner.items():
            if isinstance(text, dict | list) or text is None:
                raise UserError(f"{settings.engine_config}: {key}: expected a number or a text")
            flat[f"{key}.{name}" if name else str(key)] = str(text)
    return _scoped(flat, settings, card)


def _scoped(arguments: Mapping[str, str], settings: Settings, card: EngineCard) -> dict[str, str]:
    """Arguments for this engine: plain keys, and those in the form ENGINE.KEY."""
    mine: dict[str, str] = {}
    for key, value in arguments.items():
        engine, dot, name = key.partition(".")
        if not dot or key.startswith("-"):
            mine.setdefault(key, value)
        elif engine == card.name:
            mine[name] = value
        elif engine not in (settings.engine or (DEFAULT_ENGINE,)):
            raise UserError(f"engine argument {key!r}: {engine!r} is not among the engines of this run")
    return mine


def _with_ids(cells: list[Cell]) -> tuple[Cell, ...]:
    plain = [f"{cell.engine}-{cell.model.name}" for cell in cells]
    count = Counter(plain)
    named = [
        dataclasses.replace(cell, id=name if count[name] == 1 else f"{name}-{cell.key[:6]}")
        for cell, name in zip(cells, plain, strict=True)
    ]
    return tuple(dict.fromkeys(named))
