"""Which cells does a session measure? Settings and cards in, frozen cells out; nothing is started or fetched."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytest_kitt import composefile
from pytest_kitt.cards import ArgumentCard, EngineCard, read_yaml
from pytest_kitt.errors import UserError, nearest
from pytest_kitt.model import reference
from pytest_kitt.model.reference import ModelRef
from pytest_kitt.settings import EVERY_ENGINE, Settings

DEFAULT_ENGINE = "llama_cpp"
DEFAULT_RUNTIME = "embedded"
GENERIC_ENGINE = "openai"
UNRESOLVED_MODEL = "unresolved"


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One engine with one model: what a benchmark is run on.

    Attributes:
        engine: name of its card.
        model: the model it serves.
        runtime: container, compose, process, embedded or endpoint.
        overrides: engine arguments that the user set, in order of their names.
        profile: named set of arguments of its card; what the user set wins over it.
        url: of an endpoint; an address is no part of the identity.
        gpus: how many GPUs it needs; 0 for an engine that runs on the CPU, and for an endpoint.
        synthetic: the engine is not a real one.
        skip: why it cannot work, empty when it can.
        id: as in node ids, e.g. ``llama_cpp-tiny``.

    """

    engine: str
    model: ModelRef
    runtime: str
    overrides: tuple[tuple[str, str], ...] = ()
    url: str = ""
    gpus: int = 0
    synthetic: bool = False
    skip: str = ""
    id: str = ""
    profile: str = ""

    @property
    def label(self) -> str:
        """Engine and model for ids and patterns, as ``vllm-Qwen3-8B`` or ``vllm+fast-Qwen3-8B``."""
        return f"{self.engine}{f'+{self.profile}' if self.profile else ''}-{self.model.name}"

    @property
    def is_given(self) -> bool:
        """Whether somebody else says how its engine is started: it runs already, or a compose file says it."""
        return self.runtime in ("compose", "endpoint")

    @property
    def key(self) -> str:
        """12 hexadecimal digits over engine, profile, model, runtime, overrides and GPUs, the same everywhere."""
        identity = {
            "engine": self.engine,
            "model": self.model.identity,
            "runtime": self.runtime,
            "overrides": dict(self.overrides),
            **({"profile": self.profile} if self.profile else {}),
            **({"gpus": self.gpus} if self.gpus else {}),
        }
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        return f"<Cell {self.id} {self.key}>"


def build(settings: Settings, cards: Mapping[str, EngineCard]) -> tuple[Cell, ...]:
    """The cells that were asked for, impossible ones with their reason; UserError when none can work."""
    settings = dataclasses.replace(settings, model=reference.expanded(settings.model))
    _check_compose(settings)
    engines = _engines(settings, cards)
    needed = _need_files([card for card, _ in engines])
    given = settings.url or settings.compose
    models = {ref: reference.resolve(ref) for ref in settings.model} if needed and not given else {}
    cells = [
        _asked_in(settings.api, card, _cell(settings, card, profile, ref, models))
        for card, profile in engines
        for ref in (settings.model or (_default_model(settings, card),))
    ]
    if all(cell.skip for cell in cells):
        raise UserError("; ".join(dict.fromkeys(cell.skip for cell in cells)))
    return _with_ids(_distinct(cells))


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


def _engines(settings: Settings, cards: Mapping[str, EngineCard]) -> list[tuple[EngineCard, str]]:
    """The engines that were asked for, each with its profile, if any was."""
    for name in dict(settings.image):
        if name not in (EVERY_ENGINE, *cards):
            raise UserError(f"--kitt-image: engine {name!r} is unknown; {nearest(name, cards)}")
    asked = [_engine(word, cards) for word in settings.engine]
    if settings.url or settings.compose:
        profiled = next((word for word, (_, profile) in zip(settings.engine, asked, strict=True) if profile), "")
        if profiled:
            whose = "--kitt-url: a running server" if settings.url else "--kitt-compose: a service of a file"
            raise UserError(f"{whose} takes no profile; say --kitt-engine={_name(profiled)}")
        return [(cards[_given_engine(settings)], "")]
    return asked or [(cards[DEFAULT_ENGINE], "")]


def _engine(word: str, cards: Mapping[str, EngineCard]) -> tuple[EngineCard, str]:
    """What ENGINE or ENGINE:PROFILE names."""
    name, colon, profile = word.partition(":")
    if name not in cards:
        raise UserError(f"--kitt-engine: {name!r} is unknown; {nearest(name, cards)}")
    card = cards[name]
    if colon and profile not in card.profiles:
        raise UserError(f"--kitt-engine: engine {name} has no profile {profile!r}; {nearest(profile, card.profiles)}")
    return card, profile


def _name(word: str) -> str:
    """The engine of ENGINE:PROFILE."""
    return word.partition(":")[0]


def _check_compose(settings: Settings) -> None:
    """UserError for what does not go with a compose file, and for what goes with nothing else."""
    if not settings.compose:
        if settings.service:
            raise UserError(f"--kitt-service={settings.service} is one of a compose file: add --kitt-compose=FILE")
        if settings.runtime == "compose":
            raise UserError("--kitt-runtime=compose needs --kitt-compose=FILE, and --kitt-service=NAME")
        return
    if settings.url:
        raise UserError("--kitt-compose starts a service and --kitt-url measures what already runs: drop one of them")
    if settings.runtime not in ("", "compose"):
        raise UserError(f"--kitt-compose says how the engine is run: drop --kitt-runtime={settings.runtime}")
    if len(settings.model) > 1:
        raise UserError(f"--kitt-compose: name one model of the service at a time, not {len(settings.model)}")
    for option, value in (
        ("--kitt-engine-arg", settings.engine_arg),
        ("--kitt-engine-config", settings.engine_config),
        ("--kitt-image", settings.image),
    ):
        if value:
            raise UserError(f"--kitt-compose: image and arguments of the engine stand in the file; drop {option}")


def _given_engine(settings: Settings) -> str:
    """The engine that a server or a service is: one, or the generic card."""
    if settings.compose:
        if len(settings.engine) > 1:
            raise UserError(f"--kitt-compose is one service: name one engine, not {', '.join(settings.engine)}")
        return _name(settings.engine[0]) if settings.engine else GENERIC_ENGINE
    return _endpoint_engine(settings)


def _endpoint_engine(settings: Settings) -> str:
    if settings.runtime not in ("", "endpoint"):
        raise UserError(f"--kitt-url measures a server that already runs: drop --kitt-runtime={settings.runtime}")
    if len(settings.engine) > 1:
        raise UserError(f"--kitt-url is one server: name one engine, not {', '.join(settings.engine)}")
    if settings.engine_arg or settings.engine_config:
        raise UserError("--kitt-url: a running server takes no engine arguments; drop --kitt-engine-arg and -config")
    return _name(settings.engine[0]) if settings.engine else GENERIC_ENGINE


def _need_files(engines: list[EngineCard]) -> bool:
    return any(card.formats for card in engines)


def _default_model(settings: Settings, card: EngineCard) -> str:
    if settings.url or settings.compose:
        return UNRESOLVED_MODEL
    if not card.default_model:
        _runtime(settings, card)
        raise UserError(f"engine {card.name} needs a model: --kitt-model=PATH")
    return card.default_model


def _cell(settings: Settings, card: EngineCard, profile: str, ref: str, models: Mapping[str, ModelRef]) -> Cell:
    runtime = _runtime(settings, card)
    if runtime == "endpoint":
        return Cell(card.name, reference.served(ref), runtime, url=base_url(settings.url), synthetic=card.synthetic)
    if runtime == "compose":
        cell = Cell(card.name, _served_by(composefile.chosen(settings), ref), runtime, synthetic=card.synthetic)
        return _with_gpus(cell, settings, card)
    overrides = _overrides(settings, card, runtime)
    model = (models.get(ref) or reference.resolve(ref)) if card.formats else reference.served(ref)
    skip = _misfit(card, model, forced=settings.force) if card.formats else ""
    cell = Cell(card.name, model, runtime, overrides, synthetic=card.synthetic, skip=skip, profile=profile)
    return _with_gpus(cell, settings, card)


def _served_by(service: composefile.Service, ref: str) -> ModelRef:
    """The model of a service: the one named, else whatever it serves, which is known by what the file says of it."""
    if ref != UNRESOLVED_MODEL:
        return reference.served(ref)
    return dataclasses.replace(reference.served(service.name), ref=f"{service.name}@{service.digest}")


def _asked_in(api: str, card: EngineCard, cell: Cell) -> Cell:
    """The cell, with a reason to skip it when its engine does not speak the API that is to be loaded."""
    lacking = card.lacks_dialect(api)
    return dataclasses.replace(cell, skip=f"--kitt-api: {lacking}") if lacking and not cell.skip else cell


def _with_gpus(cell: Cell, settings: Settings, card: EngineCard) -> Cell:
    """With as many GPUs as its card says, or as the last pattern says that fits ``engine-model``."""
    name = cell.label
    asked = [number for pattern, number in settings.cell_gpus if fnmatch.fnmatchcase(name, pattern)]
    return dataclasses.replace(cell, gpus=asked[-1] if asked else card.gpus)


def _misfit(card: EngineCard, model: ModelRef, *, forced: bool) -> str:
    """Why an engine cannot load a model, as far as that is known; of one on the hub little is, before it is here."""
    if forced or not model.formats or set(model.formats) & set(card.formats):
        return ""
    return f"{card.name} loads {' or '.join(card.formats)} and {model.ref} is {model.format}"


def _runtime(settings: Settings, card: EngineCard) -> str:
    if settings.url:
        return "endpoint"
    if settings.compose:
        return "compose"
    if settings.runtime == "endpoint":
        raise UserError("--kitt-runtime=endpoint needs --kitt-url=http://HOST:PORT")
    if settings.runtime and settings.runtime not in card.runtime_names:
        raise UserError(
            f"--kitt-runtime: engine {card.name} cannot run as {settings.runtime}; it can as: "
            f"{', '.join(card.runtime_names)}"
        )
    if not card.runtimes:
        raise UserError(f"engine {card.name} is measured where it already runs: add --kitt-url=http://HOST:PORT")
    # nothing named is to work anywhere: no Docker, no download
    plain = DEFAULT_RUNTIME if not settings.engine and DEFAULT_RUNTIME in card.runtimes else card.runtime_names[0]
    return settings.runtime or plain


def _overrides(settings: Settings, card: EngineCard, runtime: str) -> tuple[tuple[str, str], ...]:
    asked = {**_config_arguments(settings, card), **_scoped(dict(settings.engine_arg), settings, card)}
    for key, value in asked.items():
        if key in card.arguments:
            if (only := card.arguments[key].runtimes) and runtime not in only:
                raise UserError(
                    f"--kitt-engine-arg: engine {card.name} takes {key!r} as {' or '.join(only)}, not as {runtime}"
                )
            _check_value(f"--kitt-engine-arg: engine {card.name}: {key}", value, card.arguments[key])
        elif not key.startswith("-"):
            known = nearest(key, card.arguments)
            raise UserError(
                f"--kitt-engine-arg: engine {card.name} has no argument {key!r}; {known}, or a --flag of its own"
            )
    return tuple(sorted(asked.items()))


def _check_value(where: str, value: str, argument: ArgumentCard) -> None:
    if argument.possible and value not in argument.possible:
        raise UserError(f"{where}: {value!r} is not possible; {nearest(value, argument.possible)}")
    if argument.pattern is not None and argument.pattern.fullmatch(value) is None:
        raise UserError(f"{where}: {value!r} is not possible; expected: {argument.help}")


def _config_arguments(settings: Settings, card: EngineCard) -> dict[str, str]:
    if not settings.engine_config:
        return {}
    flat: dict[str, str] = {}
    for key, value in _read_config(settings.engine_config).items():
        inner = value if isinstance(value, dict) else {None: value}
        for name, text in inner.items():
            if isinstance(text, dict | list) or text is None:
                raise UserError(f"--kitt-engine-config: {settings.engine_config}: {key}: expected a number or a text")
            flat[f"{key}.{name}" if name else str(key)] = str(text)
    return _scoped(flat, settings, card)


def _read_config(path: str) -> dict[str, Any]:
    try:
        return read_yaml(Path(path).expanduser())
    except UserError as error:
        raise UserError(f"--kitt-engine-config: {error}") from error


def _scoped(arguments: Mapping[str, str], settings: Settings, card: EngineCard) -> dict[str, str]:
    """Arguments for this engine: plain keys, and those in the form ENGINE.KEY."""
    mine: dict[str, str] = {}
    for key, value in arguments.items():
        engine, dot, name = key.partition(".")
        if not dot or key.startswith("-"):
            mine.setdefault(key, value)
        elif engine == card.name:
            mine[name] = value
        elif engine not in (*map(_name, settings.engine), *(() if settings.engine else (DEFAULT_ENGINE,))):
            raise UserError(f"engine argument {key!r}: {engine!r} is not among the engines of this run")
    return mine


def _distinct(cells: list[Cell]) -> list[Cell]:
    """Each cell once, however often it is named; UserError for two files of one content, which would be one cell twice.

    Its key is what a result is found again by, and one key for two cells would mix them up, in a resumed run too.
    """
    known: dict[str, Cell] = {}
    for cell in dict.fromkeys(cells):
        if (same := known.setdefault(cell.key, cell)) is not cell:
            raise UserError(
                f"--kitt-model: {same.model.path} and {cell.model.path} are one model: they hold the same; drop one of "
                "them, or say --kitt-runs=2 to measure it twice"
            )
    return list(known.values())


def _with_ids(cells: list[Cell]) -> tuple[Cell, ...]:
    plain = [cell.label for cell in cells]
    count = Counter(plain)
    named = [
        dataclasses.replace(cell, id=name if count[name] == 1 else f"{name}-{cell.key[:6]}")
        for cell, name in zip(cells, plain, strict=True)
    ]
    return tuple(named)
