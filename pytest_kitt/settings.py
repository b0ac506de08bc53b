"""What did the user ask for? One declaration per setting, the same for pytest and for the command line.

Precedence: command line > environment > ini file > ``~/.kitt/config.yaml`` > default. Building the settings reads
nothing and starts nothing: the caller hands in what it found.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pytest_kitt.errors import UserError, nearest

SECRET_ENV = "KITT_API_KEY"  # noqa: S105 - the name of a variable, not its value
MASK = "***"
Api = Literal["chat", "completions"]


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """How one setting is spelt and read.

    Attributes:
        name: field name; ``--kitt-<name>``, ``KITT_<NAME>`` and ini ``kitt_<name>`` follow from it.
        help: one sentence, capital first.
        parse: from the text (or list of texts) given to the value.
        repeats: may be given several times.
        metavar: placeholder in the help.
        secret: its values are masked wherever they are shown or stored.

    """

    name: str
    help: str
    parse: Callable[[Sequence[str]], Any]
    repeats: bool = False
    metavar: str = "VALUE"
    secret: bool = False

    @property
    def flag(self) -> str:
        """Spelling on the command line."""
        return f"--kitt-{self.name.replace('_', '-')}"

    @property
    def ini(self) -> str:
        """Spelling in an ini file; also the destination in pytest's namespace."""
        return f"kitt_{self.name}"

    @property
    def env(self) -> str:
        """Spelling in the environment."""
        return f"KITT_{self.name.upper()}"


def _text(values: Sequence[str]) -> str:
    return values[-1]


def _names(values: Sequence[str]) -> tuple[str, ...]:
    words = (word.strip() for value in values for word in value.split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def _pairs(values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{value!r} is not KEY=VALUE")
        pairs.append((key.strip(), text.strip()))
    return tuple(dict(pairs).items())


def _headers(values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        key, colon, text = value.partition(":")
        if not colon or not key.strip() or not value.isprintable():
            raise ValueError("a header is 'Name: value' on one line")
        pairs.append((key.strip(), text.strip()))
    return tuple(pairs)


def _seconds(values: Sequence[str]) -> float:
    number = float(values[-1])
    if not 0 < number < 1e9:
        raise ValueError(f"{values[-1]!r} is not a positive number of seconds")
    return number


def _whole(values: Sequence[str]) -> int:
    return int(values[-1])


def _choice(*choices: str) -> Callable[[Sequence[str]], str]:
    def parse(values: Sequence[str]) -> str:
        if values[-1] not in choices:
            raise ValueError(f"{values[-1]!r} is unknown; {nearest(values[-1], choices)}")
        return values[-1]

    return parse


def _option(
    default: Any,
    help_: str,
    parse: Callable[[Sequence[str]], Any] = _text,
    *,
    repeats: bool = False,
    metavar: str = "VALUE",
    secret: bool = False,
) -> Any:
    declared = {"help": help_, "parse": parse, "repeats": repeats, "metavar": metavar, "secret": secret}
    return dataclasses.field(default=default, metadata=declared)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a user can set; each field is one option.

    Attributes:
        origins: for every field that is not at its default, where its value came from (cli, env, ini, file).
        api_key: the bearer token from KITT_API_KEY or the key file; never shown, stored or passed on a command line.

    """

    suite: tuple[str, ...] = _option((), "Suites to run", _names, repeats=True, metavar="NAME")
    benchmark: tuple[str, ...] = _option((), "Run only these benchmarks", _names, repeats=True, metavar="NAME")
    engine: tuple[str, ...] = _option((), "Engines to measure", _names, repeats=True, metavar="NAME")
    model: tuple[str, ...] = _option(
        (), "Models to serve: a path, a hub id, or a name that the server knows", _names, repeats=True, metavar="REF"
    )
    runtime: str = _option(
        "",
        "How to run the engine: embedded, process or endpoint (default: the first that its card lists)",
        _choice("embedded", "process", "endpoint"),
        metavar="NAME",
    )
    url: str = _option("", "Measure a server that already runs there", metavar="URL")
    api: Api = _option("chat", "API to load: chat or completions", _choice("chat", "completions"), metavar="NAME")
    engine_arg: tuple[tuple[str, str], ...] = _option(
        (), "Argument of the engine: a name from its card, or --flag", _pairs, repeats=True, metavar="KEY=VALUE"
    )
    engine_config: str = _option("", "YAML file of engine arguments", metavar="FILE")
    api_key_file: str = _option("", f"File that holds the API key (or set {SECRET_ENV})", metavar="FILE")
    header: tuple[tuple[str, str], ...] = _option(
        (), "Extra HTTP header of each request", _headers, repeats=True, metavar="'NAME: VALUE'", secret=True
    )
    ca_file: str = _option("", "PEM file of the certificate authority to trust for https", metavar="FILE")
    prompts: str = _option("", "Prompts for quality items: JSON lines with question and answer", metavar="FILE")
    seed: int = _option(0, "Seed of every random choice", _whole, metavar="N")
    db: str = _option("", "Store of results: a path or a database URL (default: kitt.db in KITT_HOME)", metavar="URL")
    inconclusive: str = _option(
        "xfail",
        "Outcome when the evidence straddles the threshold: xfail, fail or skip",
        _choice("xfail", "fail", "skip"),
        metavar="NAME",
    )
    start_timeout: float = _option(600.0, "Seconds that an engine may take to become ready", _seconds, metavar="S")
    request_timeout: float = _option(120.0, "Seconds that one request may take", _seconds, metavar="S")
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    api_key: str = dataclasses.field(default="", repr=False)


OPTIONS: tuple[Option, ...] = tuple(
    Option(name=field.name, **field.metadata) for field in dataclasses.fields(Settings) if field.metadata
)


def home() -> Path:
    """The folder of the user's own configuration and store: KITT_HOME, else ``~/.kitt``."""
    return Path(os.environ.get("KITT_HOME") or "~/.kitt").expanduser()


def resolve(
    *,
    cli: Mapping[str, Any],
    env: Mapping[str, str],
    ini: Mapping[str, Any],
    file: Mapping[str, Any],
) -> Settings:
    """Merges what was found in the four places; UserError names the option and the place of a bad value."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for option in OPTIONS:
        places = (
            ("cli", cli.get(option.name), option.flag),
            ("env", _from_env(env, option), f"environment variable {option.env}"),
            ("ini", ini.get(option.name), f"ini key {option.ini}"),
            ("file", file.get(option.name), f"key {option.name} of {home() / 'config.yaml'}"),
        )
        for origin, raw, where in places:
            if raw is None:
                continue
            values[option.name] = _parse(option, raw, where)
            origins[option.name] = origin
            break
    settings = Settings(**values, origins=origins)
    return dataclasses.replace(settings, api_key=_api_key(settings, env))


def read_config_file() -> dict[str, Any]:
    """Reads ``config.yaml`` in the user's folder; empty when there is none."""
    path = home() / "config.yaml"
    if not path.is_file():
        return {}
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of settings, found {type(content).__name__}")
    known = {option.name for option in OPTIONS}
    normal = {str(key).replace("-", "_"): value for key, value in content.items()}
    for key in normal:
        if key not in known:
            raise UserError(f"{path}: unknown key {key!r}; {nearest(key, known)}")
    return normal


def shown(settings: Settings) -> list[str]:
    """Every setting that is not at its default, as ``name=value (origin)``, secrets masked."""
    by_name = {option.name: option for option in OPTIONS}
    return [
        f"{name}={_display(by_name[name], getattr(settings, name))} ({origin})"
        for name, origin in settings.origins.items()
    ]


def _display(option: Option, value: Any) -> str:
    if option.secret:
        return MASK
    if isinstance(value, tuple):
        return ",".join("=".join(item) if isinstance(item, tuple) else str(item) for item in value)
    return str(value)


def masked_argv(argv: Sequence[str]) -> list[str]:
    """The command line with the values of secret options masked."""
    secret = {spelling for option in OPTIONS if option.secret for spelling in (option.flag, option.ini)}
    result: list[str] = []
    mask_next = False
    for word in argv:
        name, equals, _ = word.partition("=")
        if mask_next:
            result.append(MASK)
        elif equals and name.removeprefix("-o") in secret:
            result.append(f"{name}={MASK}")
        else:
            result.append(word)
        mask_next = not mask_next and word in secret
    return result


def _from_env(env: Mapping[str, str], option: Option) -> list[str] | None:
    raw = env.get(option.env)
    if raw is None or not raw.strip():
        return None
    return raw.splitlines() if option.repeats else [raw]


def _parse(option: Option, raw: Any, where: str) -> Any:
    values = [str(value) for value in raw] if isinstance(raw, list | tuple) else _flat(raw)
    try:
        return option.parse(values)
    except ValueError as error:
        text = str(error)
        if "could not convert" in text or "invalid literal" in text:
            text = f"{values[-1]!r} is not a number"
        raise UserError(f"{where}: {text}") from error


def _flat(raw: Any) -> list[str]:
    if isinstance(raw, dict):
        return [f"{key}={value}" for key, value in raw.items()]
    return [str(raw)]


def _api_key(settings: Settings, env: Mapping[str, str]) -> str:
    if not settings.api_key_file:
        return env.get(SECRET_ENV, "").strip()
    path = Path(settings.api_key_file).expanduser()
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--kitt-api-key-file: {path} cannot be read: {error}") from error
    if not key or not key.isprintable() or " " in key:
        raise UserError(f"--kitt-api-key-file: {path} holds no usable key; expected one line with the key alone")
    return key
