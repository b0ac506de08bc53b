"""What did the user ask for? One declaration per setting, the same for pytest and for the command line.

Precedence: command line > environment > ini file > ``~/.kitt/config.yaml`` > default. Building the settings reads
nothing and starts nothing: the caller hands in what it found.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pytest_kitt.errors import UserError, nearest, why

SECRET_ENV = "KITT_API_KEY"  # noqa: S105 - the name of a variable, not its value
MASK = "***"
EVERY_ENGINE = "*"  # what an image is for that names no engine
_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s]*(?=@)")
_SECRET_NAME = r"(?:^|[-_.=?&])(?:api[-_]?key|token|password|passwd|secret|credentials?)"  # noqa: S105 - no secret
_SECRET_VALUE = re.compile(f"({_SECRET_NAME}=).*", re.DOTALL | re.IGNORECASE)
_SECRET_FLAG = re.compile(f"-.*{_SECRET_NAME}", re.IGNORECASE)
# what Docker takes for the name of an image: registry and path, then a tag, a digest or both; or an id
_IMAGE = re.compile(r"[a-zA-Z0-9][\w.-]*(:\d+)?(/[\w.-]+)*(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?|sha256:[0-9a-f]{64}")
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")
Api = Literal["chat", "completions", "ollama-chat", "ollama-generate", "tgi", "llama-cpp"]


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """How one setting is spelt and read.

    Attributes:
        name: field name; ``--kitt-<name>``, ``KITT_<NAME>`` and ini ``kitt_<name>`` follow from it.
        help: one sentence, capital first.
        parse: from the text (or list of texts) given to the value.
        repeats: may be given several times.
        metavar: placeholder in the help.
        switch: a flag without a value; elsewhere 1, true, yes or on.
        secret: its values are masked wherever they are shown or stored.
        alone: what the flag means on the command line without a value; empty when it needs one.

    """

    name: str
    help: str
    parse: Callable[[Sequence[str]], Any]
    repeats: bool = False
    metavar: str = "VALUE"
    switch: bool = False
    secret: bool = False
    alone: str = ""

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
            flag = f"; a flag without a value is passed as '{value}='" if value.startswith("-") else ""
            raise ValueError(f"{value!r} is not KEY=VALUE{flag}")
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


def _seconds_or_none(values: Sequence[str]) -> float:
    return 0.0 if float(values[-1]) == 0 else _seconds(values)


def _share(values: Sequence[str]) -> float:
    number = float(values[-1])
    if not 0 < number <= 1:
        raise ValueError(f"{values[-1]!r} is no share above 0 and up to 1")
    return number


def _whole(values: Sequence[str]) -> int:
    return int(values[-1])


def _between(low: int, high: int) -> Callable[[Sequence[str]], int]:
    def parse(values: Sequence[str]) -> int:
        number = int(values[-1])
        if not low <= number <= high:
            raise ValueError(f"{number} is not between {low} and {high}")
        return number

    return parse


def _number_or_auto(values: Sequence[str]) -> int | Literal["auto"]:
    if values[-1] == "auto":
        return "auto"
    number = int(values[-1])
    if number < 1:
        raise ValueError(f"{number} is neither auto nor at least 1")
    return number


def _gpu_needs(values: Sequence[str]) -> tuple[tuple[str, int], ...]:
    needs = []
    for value in (word.strip() for text in values for word in text.split(",")):
        cell, _, number = value.rpartition("=")
        if not number.strip().isdecimal():
            raise ValueError(f"{value!r} is not N or CELL=N, a number of GPUs")
        needs.append((cell.strip() or "*", int(number)))
    return tuple(needs)


def _images(values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    images = {}
    for value in (word.strip() for text in values for word in text.split(",")):
        engine, equals, image = value.rpartition("=")
        if (equals and not engine) or not _IMAGE.fullmatch(image):
            raise ValueError(f"{value!r} is not IMAGE or ENGINE=IMAGE")
        images[engine or EVERY_ENGINE] = image
    return tuple(images.items())


def _yes(values: Sequence[str]) -> bool:
    word = values[-1].strip().lower()
    if word not in (*_YES, *_NO):
        raise ValueError(f"{values[-1]!r} is neither yes nor no; say {', '.join(_YES)}, or {', '.join(_NO)}")
    return word in _YES


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
    alone: str = "",
) -> Any:
    declared = {"help": help_, "parse": parse, "repeats": repeats, "metavar": metavar, "secret": secret, "alone": alone}
    return dataclasses.field(default=default, metadata=declared)


def _switch(help_: str) -> Any:
    declared = {"help": help_, "parse": _yes, "switch": True}
    return dataclasses.field(default=False, metadata=declared)


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
        (),
        "Models to serve: a path, hf:OWNER/NAME, ollama:TAG, @LIST, or a name that the server knows",
        _names,
        repeats=True,
        metavar="REF",
    )
    runtime: str = _option(
        "",
        "How to run the engine: container, compose, process, embedded or endpoint (default: the first on its card)",
        _choice("container", "compose", "process", "embedded", "endpoint"),
        metavar="NAME",
    )
    url: str = _option("", "Measure a server that already runs there", metavar="URL")
    api: Api = _option(
        "chat",
        "API to load: chat, completions, ollama-chat, ollama-generate, tgi or llama-cpp",
        _choice(*get_args(Api)),
        metavar="NAME",
    )
    clients: int = _option(
        1, "Client processes that share a load, where one core is not enough", _between(1, 64), metavar="N"
    )
    skip_warmup: bool = _switch("Send no uncounted warm-up requests, whatever a test asks for; stored with each load")
    engine_arg: tuple[tuple[str, str], ...] = _option(
        (), "Argument of the engine: a name from its card, or --flag", _pairs, repeats=True, metavar="KEY=VALUE"
    )
    engine_config: str = _option("", "YAML file of engine arguments", metavar="FILE")
    image: tuple[tuple[str, str], ...] = _option(
        (), "Image of the engine's container, for all or by engine", _images, repeats=True, metavar="[ENGINE=]IMAGE"
    )
    auto_pull: bool = _switch("Pull or build an engine's image when it is not there")
    network: str = _option(
        "host",
        "Network of containers: host, or bridge with a port published on 127.0.0.1",
        _choice("host", "bridge"),
        metavar="NAME",
    )
    compose: str = _option("", "Compose file that brings the engine up", metavar="FILE")
    service: str = _option("", "Service of the compose file that is the engine", metavar="NAME")
    force: bool = _switch("Try what the cards call impossible: this platform, this model format")
    api_key_file: str = _option("", f"File that holds the API key (or set {SECRET_ENV})", metavar="FILE")
    header: tuple[tuple[str, str], ...] = _option(
        (), "Extra HTTP header of each request", _headers, repeats=True, metavar="'NAME: VALUE'", secret=True
    )
    ca_file: str = _option("", "PEM file of the certificate authority to trust for https", metavar="FILE")
    prompts: str = _option("", "Prompts for quality items: JSON lines with question and answer", metavar="FILE")
    limit: int = _option(
        0,
        "Most questions of an evaluation, from each of its parts in proportion (0: all)",
        _between(0, 1 << 31),
        metavar="N",
    )
    offline: bool = _switch("Take questions from caches and shipped samples alone; the result says which")
    eval_concurrency: int | Literal["auto"] = _option(
        "auto",
        "Requests of an evaluation under way, where its test does not say: as many as the server takes, or a number",
        _number_or_auto,
        metavar="auto|N",
    )
    seed: int = _option(0, "Seed of every random choice", _whole, metavar="N")
    runs: int = _option(
        1,
        "How often each benchmark is measured on its warm engine, each time with a seed of its own",
        _between(1, 1000),
        metavar="N",
    )
    db: str = _option("", "Store of results: a path or a database URL (default: kitt.db in KITT_HOME)", metavar="URL")
    gpus: str = _option(
        "",
        "GPUs to use: a number, ids as in CUDA_VISIBLE_DEVICES, or all of Docker's (default: that variable, else all)",
        metavar="IDS",
    )
    cell_gpus: tuple[tuple[str, int], ...] = _option(
        (), "GPUs that a cell needs, for all or for cells by pattern", _gpu_needs, repeats=True, metavar="[CELL=]N"
    )
    overlap: str = _option(
        "never",
        "Timed loads on the CPU, or on one server, at the same time: never, or allowed where that is the question",
        _choice("never", "allowed"),
        metavar="NAME",
    )
    resume: str = _option(
        "", "Go on with a run: measure what it lacks, or what failed in it", metavar="RUN", alone="last"
    )
    bundled: bool = _switch(
        "Accept servers that send several tokens together: itl_ms is left out, and the load says so"
    )
    inconclusive: str = _option(
        "xfail",
        "Outcome when the evidence straddles the threshold: xfail, fail or skip",
        _choice("xfail", "fail", "skip"),
        metavar="NAME",
    )
    consistency: float = _option(
        0.0,
        "Least share of questions that each set of answers in a run answers as the first does; less fails the session",
        _share,
        metavar="SHARE",
    )
    certify: str = _option(
        "require",
        "When the client cannot prove that it applied the load: require makes it invalid, record says so and goes on",
        _choice("require", "record"),
        metavar="NAME",
    )
    start_timeout: float = _option(600.0, "Seconds that an engine may take to become ready", _seconds, metavar="S")
    restart: int = _option(
        0, "How often a cell's engine is started again after it died or hung in mid-run", _between(0, 100), metavar="N"
    )
    item_timeout: float = _option(
        0.0,
        "Seconds that one item may take, its engine's start included (0: no limit)",
        _seconds_or_none,
        metavar="S",
    )
    request_timeout: float = _option(120.0, "Seconds that one request may take", _seconds, metavar="S")
    html: str = _option("", "Write a report of the run as one HTML file", metavar="FILE")
    output: str = _option(
        "",
        "Write numbers, machine, settings, raw samples and reports into a folder; {run} is the run's id",
        metavar="DIR",
    )
    dry_run: bool = _switch("Show the matrix, the items and what they would cost; start nothing")
    keep_engine: bool = _switch("Leave the last engine running when the session ends, for debugging")
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
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {why(error)}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: cannot be read as YAML: {getattr(error, 'problem', error)}") from error
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


def as_data(settings: Settings) -> dict[str, dict[str, Any]]:
    """Every setting with its ``value``, secrets masked, and its ``origin``: cli, env, ini, file or default."""
    return {
        option.name: {
            "value": _data(option, getattr(settings, option.name)),
            "origin": settings.origins.get(option.name, "default"),
        }
        for option in OPTIONS
    }


def _data(option: Option, value: Any) -> Any:
    if isinstance(value, tuple):
        words = ("=".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in value)
        return [MASK for _ in value] if option.secret else masked_words(words)
    return _without_password(value) if isinstance(value, str) else value


def masked_words(words: Iterable[str]) -> list[str]:
    """The words of any command line: passwords in URLs, and what is named like a secret (``--api-key``), masked."""
    result: list[str] = []
    mask_next = False
    for word in words:
        result.append(MASK if mask_next else _SECRET_VALUE.sub(rf"\1{MASK}", _without_password(word)))
        mask_next = not mask_next and bool(_SECRET_FLAG.fullmatch(word))
    return result


def masked_pairs(pairs: Mapping[str, str]) -> dict[str, str]:
    """Arguments by name, those that look like secrets masked."""
    return {name: masked_words([f"{name}={value}"])[0].removeprefix(f"{name}=") for name, value in pairs.items()}


def _display(option: Option, value: Any) -> str:
    if option.secret:
        return MASK
    if isinstance(value, tuple):
        return ",".join(
            masked_words("=".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in value)
        )
    return _without_password(str(value))


def _without_password(text: str) -> str:
    """A text with the password of each URL in it masked."""
    return _PASSWORD.sub(rf"\1{MASK}", text)


def masked_argv(argv: Sequence[str]) -> list[str]:
    """The command line with the values of secret options, and what looks like a secret, masked."""
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
    return masked_words(result)


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
        raise UserError(f"--kitt-api-key-file: {path} cannot be read: {why(error)}; check the path") from error
    if not key or not key.isprintable() or " " in key:
        raise UserError(f"--kitt-api-key-file: {path} holds no usable key; expected one line with the key alone")
    return key
