"""What is an engine, to us? One strict YAML card each: how to run it, ask it, and what it can do."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pytest_kitt import shipped
from pytest_kitt.errors import UserError, nearest, why
from pytest_kitt.mistakes import explained, place
from pytest_kitt.settings import Api, home

RuntimeName = Literal["container", "compose", "process", "embedded", "endpoint"]
Startable = Literal["container", "process", "embedded"]
Vendor = Literal["nvidia", "amd", "intel", "apple", "none"]
# files and folders, how weights are packed in them, and models that Ollama's registry names
Format = Literal[
    "gguf", "safetensors", "pytorch", "gptq", "awq", "fp8", "bitsandbytes", "exl2", "exl3", "mlx", "ollama"
]
Claim = Literal[
    "logprobs",
    "prompt_logprobs",
    "echo",
    "tools",
    "reasoning",
    "token_ids",
    "token_prompts",
    "json_schema",
    "cached_tokens",
    "continuous_usage",
]
Proof = Literal["real server", "protocol double", "never run"]
FORMATS: tuple[str, ...] = get_args(Format)
# what is filled in besides ports and the values of arguments
PLACES = (
    "python", "model", "model_folder", "model_file", "model_name", "host", "spare_cores", "datasets", "engines",
)  # fmt: skip
_BOUND = re.compile(r"(>=|<|)(\d+\.\d+)")
LikelihoodWay = Literal[
    "echo", "echo_text", "input_logprobs", "prefill", "grammar", "token_by_token", "first_token_top20"
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _range(text: str) -> str:
    if not all(_BOUND.fullmatch(part.strip()) for part in text.split(",")):
        raise ValueError(f"{text!r} is no range of versions; expected for example '8.7', '>=10.0' or '>=8.0,<9.0'")
    return text


Range = Annotated[str, AfterValidator(_range)]


def within(version: str, wanted: str) -> bool:
    """Whether a version, as ``12.1``, lies in a range, as ``>=10.0``, ``>=8.0,<9.0`` or ``8.7``; an unknown one never.

    Numbers are compared, not texts: 10.0 is more than 8.7.
    """
    found = _BOUND.fullmatch(version)
    return found is not None and all(_holds(_numbers(version), part.strip()) for part in wanted.split(","))


def _holds(version: tuple[int, int], part: str) -> bool:
    bound = _BOUND.fullmatch(part)
    assert bound is not None, part
    number = _numbers(bound[2])
    return {">=": version >= number, "<": version < number, "": version == number}[bound[1]]


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


class PlatformCard(_Strict):
    """A kind of machine; what is left out may be anything.

    Attributes:
        system: as Python calls it: Linux, Darwin, Windows.
        arch: x86_64 or aarch64.
        vendor: of its GPUs; ``none`` for a machine without.
        compute_capability: of its first NVIDIA GPU, a range such as ``>=10.0``, ``>=8.0,<9.0`` or ``8.7``.
        cuda: the newest CUDA that its driver serves, likewise.

    """

    system: Literal["", "Linux", "Darwin", "Windows"] = ""
    arch: Literal["", "x86_64", "aarch64"] = ""
    vendor: Literal["", "nvidia", "amd", "intel", "apple", "none"] = ""
    compute_capability: Range | None = None
    cuda: Range | None = None


class ImageCard(_Strict):
    """One row of the table of images: the first that fits the machine is taken.

    Attributes:
        image: reference of the image.
        dockerfile: file beside the card, in a folder of the engine's name, that makes it here; else it is pulled.
        when: which machines it is for; any when empty.
        why: what speaks for it, in a few words.
        disk_gb: about what it takes on disk; 0 when nobody knows.
        entrypoint: in place of the image's own, where that is not what the command is written for.

    """

    image: str = Field(min_length=1)
    dockerfile: str = Field(default="", pattern=r"^([\w.-]+)?$")
    when: PlatformCard = PlatformCard()
    why: str = ""
    disk_gb: float = Field(default=0, ge=0)
    entrypoint: list[str] = []


class ImpossibleCard(_Strict):
    """Machines on which the engine cannot run, and why.

    Attributes:
        when: which machines.
        why: the reason, as the end of a sentence: "vllm cannot run here: ...".
        runtimes: only as one of these; as any that we start when empty. What holds for containers alone is a lack of
            images, and does not hold for one that the user names.

    """

    when: PlatformCard
    why: str = Field(min_length=1)
    runtimes: list[Startable] = []


class ProvenCard(_Strict):
    """How a way to run the engine was last proven.

    Attributes:
        by: a real server, a double of ours that speaks its protocol, or nothing.
        version: of the engine that was run, or that the double follows.

    """

    by: Proof = "never run"
    version: str = ""


class RuntimeCard(_Strict):
    """One way to run the engine.

    Attributes:
        command: argv, for a container what its image's entry point gets; ``{python} {model} {model_folder}
            {model_file} {model_name} {host} {port} {spare_cores} {datasets} {engines}`` and each name in ``ports`` are
            filled in.
        announces: the command listens on a port of its own choice and prints ``{"url": ...}`` as its first line.
        needs: module that must be importable.
        extra: extra of pytest-kitt that brings it.
        program: executable that must be on the PATH.
        install: how to get what is needed, e.g. ``pip install vllm``.
        distribution: installed distribution whose version is the engine's, where the server itself does not say.
        env: environment variables to set; filled in like the command.
        port: where it listens if that is free, 0 for any; a leased one otherwise.
        ports: further ports that it opens, by the names that the command or ``env`` uses for them.
        entrypoint: of a container, where the image's own will not do.
        models: folder in a container that holds the model, read-only.
        volumes: folders in a container that are kept between runs, e.g. for compiled kernels, by a short name.
        shm: size of /dev/shm in a container, e.g. ``16g``.
        ipc: namespace of a container's shared memory: ``host``, else its own.
        memory: most that a container may use, e.g. ``64g``; empty for no limit.
        proven: how it was last proven.

    """

    command: list[str] = []
    announces: bool = False
    needs: str = ""
    extra: str = ""
    program: str = ""
    install: str = ""
    distribution: str = ""
    env: dict[str, str] = {}
    port: int = Field(default=0, ge=0, lt=1 << 16)
    ports: list[str] = []
    entrypoint: list[str] = []
    models: str = "/models"
    volumes: dict[str, str] = {}
    shm: str = ""
    ipc: Literal["", "host"] = ""
    memory: str = ""
    proven: ProvenCard = ProvenCard()


class ArgumentCard(_Strict):
    """One argument that users may set by name.

    It ends as a flag, as an environment variable, or as a field of every request: one of the three.

    Attributes:
        flag: as on the engine's command line; several, with blanks between them, get the same value.
        env: as in the engine's environment.
        request: as in every request's body, dots between the levels; likewise.
        help: one sentence; it also says what a value must look like.
        default: filled in like a command, also with the values of other arguments by their names, and always passed;
            None leaves the argument out.
        times: name of another argument; the engine gets the product of both.
        most: ``model context`` where the default is to be no more than what the model itself allows.
        pattern: regular expression that a whole value must match.
        values: the only values; any when empty.
        switch: what the engine gets for each of the only values: a flag of its own, empty for none, or the value of
            the variable or the field.
        runtimes: only as one of these; as any when empty.

    """

    flag: str = ""
    env: str = ""
    request: str = ""
    help: str
    default: str | int | float | None = None
    times: str = ""
    most: Literal["", "model context"] = ""
    pattern: re.Pattern[str] | None = None
    values: list[str] = []
    switch: dict[str, str | bool | int] = {}
    runtimes: list[Startable] = []

    @property
    def possible(self) -> list[str]:
        """The only values that it takes; any when empty."""
        return self.values or list(self.switch)

    @model_validator(mode="after")
    def _one_target(self) -> ArgumentCard:
        targets = sum(map(bool, (self.flag, self.env, self.request)))
        if targets > 1 or (not targets and not self.switch):
            raise ValueError("expected one of flag, env and request, or a switch between flags")
        if self.flag and self.switch:
            raise ValueError("a switch between flags names them itself: leave flag out")
        return self


class VersionCard(_Strict):
    """Where the engine says its version: a field of a JSON answer."""

    path: str = ""
    field: str = "version"


class TokenizeCard(_Strict):
    """How the engine counts tokens.

    Attributes:
        path: where to POST.
        text: name of the text's field.
        tokens: name of the list in the answer; empty when the answer is that list. An entry is an id, or has one.
        special: name of the field that says whether special tokens such as BOS are added, if there is one.

    """

    path: str
    text: str
    tokens: str = "tokens"
    special: str = ""


class ContextCard(_Strict):
    """Where the engine says how many tokens a request may have: a field of a JSON answer, dots between its levels.

    ``{model}`` is the entry of a list whose ``id`` is the model that is served.
    """

    path: str
    field: str


class ChatPromptCard(_Strict):
    """Where the engine says which prompt its chat API makes of messages, without answering them.

    Attributes:
        path: where to POST model and messages.
        text: field of the answer with the prompt, if there is one.
        tokens: field with its tokens, ids or objects that have one, if there is one.
        detokenize: where to POST the tokens for their text.

    """

    path: str
    text: str = ""
    tokens: str = ""
    detokenize: str = ""


class ChatTemplateCard(_Strict):
    """Where the engine says its chat template: fields of a JSON answer.

    Attributes:
        path: of the answer.
        field: with the template.
        bos: with the text of the BOS, where it says that.
        eos: likewise.

    """

    path: str
    field: str = "chat_template"
    bos: str = ""
    eos: str = ""


class ResetCard(_Strict):
    """How the engine forgets the prompts that it has seen.

    Attributes:
        method: of the request.
        path: of the request.
        body: of the request, as JSON; none when empty.
        env: what must have been set when it was started, else it refuses.
        note: what else is to be known, one sentence.

    """

    method: Literal["GET", "POST"] = "POST"
    path: str
    body: dict[str, Any] = {}
    env: dict[str, str] = {}
    note: str = ""


class ProfileCard(_Strict):
    """A named set of arguments.

    Attributes:
        help: what it is good for, one sentence.
        arguments: values by name of the argument, or by raw ``--flag``.

    """

    help: str
    arguments: dict[str, str | int | float]


class EngineCard(_Strict):
    """One engine.

    Attributes:
        name: as in ``--kitt-engine``.
        description: one sentence.
        runtimes: ways to run it, the default first; every engine can also be an endpoint.
        images: of its container, by kind of machine.
        impossible: machines on which it cannot run.
        formats: model formats that it loads; empty when it needs no model file.
        default_model: used when no model is named.
        serves: the model's name in requests, where it is not ``{model_name}``.
        prepare: what makes the model known to a server that is up: ``ollama`` creates or pulls it there.
        health: path that answers 200 when the server is up.
        ready: path that answers 200 when the model can be asked, where health does not say.
        metrics: path of its Prometheus metrics, if it has any.
        version: where its version is.
        tokenize: how it tokenizes, if it offers that.
        chat_prompt: where it says which prompt its chat API makes of messages, if it does.
        chat_template: where it says its chat template, if it does.
        loglikelihood: by which ways it says how likely a given text is, the best first; none when it does not.
        context: where it says how many tokens a request may have, prompt and answer together.
        reset_cache: how it forgets prompts, if it can.
        force_length: request fields that make every answer as long as its limit; empty when it cannot.
        capabilities: what else its documentation claims.
        request: fields that every request carries, e.g. to switch a prompt cache off.
        dialects: APIs that it speaks, the best of each kind (chat, prompt) first.
        arguments: what users may set with ``--kitt-engine-arg``; those with the same meaning have the same name.
        profiles: named sets of arguments, ``--kitt-engine=NAME:PROFILE``.
        failures: class of failure -> regular expressions that show it in the log.
        notes: what users must know, a sentence each.
        gpus: how many GPUs a cell needs; 0 for an engine that runs on the CPU.
        synthetic: not a real engine: results are marked and kept out of comparisons.

    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    description: str
    runtimes: dict[Startable, RuntimeCard] = {}
    images: list[ImageCard] = []
    impossible: list[ImpossibleCard] = []
    formats: list[Format] = []
    default_model: str = ""
    serves: str = ""
    prepare: Literal["", "ollama"] = ""
    health: str = "/health"
    ready: str = ""
    metrics: str = ""
    version: VersionCard = VersionCard()
    tokenize: TokenizeCard | None = None
    chat_prompt: ChatPromptCard | None = None
    chat_template: ChatTemplateCard | None = None
    loglikelihood: list[LikelihoodWay] = []
    context: ContextCard | None = None
    reset_cache: ResetCard | None = None
    force_length: dict[str, Any] = {}
    capabilities: list[Claim] = []
    request: dict[str, Any] = {}
    dialects: list[Api] = Field(default=["chat", "completions"], min_length=1)
    arguments: dict[str, ArgumentCard] = {}
    profiles: dict[Annotated[str, Field(pattern=r"^[a-z0-9][\w.-]*$")], ProfileCard] = {}
    failures: dict[str, list[str]] = {}
    notes: list[str] = []
    gpus: int = Field(default=0, ge=0)
    synthetic: bool = False

    @property
    def runtime_names(self) -> list[str]:
        """Every way to run it, the default first."""
        return [*self.runtimes, "compose", "endpoint"]

    @property
    def claims(self) -> list[str]:
        """What it is said to offer beyond generating; what a session has seen of it is another matter."""
        fields = {"tokenize": self.tokenize, "force_length": self.force_length, "reset_cache": self.reset_cache}
        return sorted([*self.capabilities, *(name for name, given in fields.items() if given)])

    @model_validator(mode="after")
    def _consistent(self) -> EngineCard:
        if "container" in self.runtimes and not self.images:
            raise ValueError("a container needs images: at least one row")
        for name, profile in self.profiles.items():
            for key in profile.arguments:
                if key not in self.arguments and not key.startswith("-"):
                    raise ValueError(f"profile {name!r} sets {key!r}: {nearest(key, self.arguments)}")
        for name, argument in self.arguments.items():
            if argument.times and argument.times not in self.arguments:
                raise ValueError(
                    f"argument {name!r} times {argument.times!r}: {nearest(argument.times, self.arguments)}"
                )
        return self

    @model_validator(mode="after")
    def _placeholders_exist(self) -> EngineCard:
        for key, text, known in self._templates():
            if unknown := _unknown_place(text, known):
                raise ValueError(f"key {key!r}: {unknown}")
        return self

    def _templates(self) -> Iterator[tuple[str, str, set[str]]]:
        """Every text that is filled in: its key, itself, and the placeholders that it may have."""
        yield "serves", self.serves, {"model", "model_name"}
        for name, runtime in self.runtimes.items():
            here = {*PLACES, "port", *(() if runtime.announces else runtime.ports)}
            yield from ((f"runtimes.{name}.command.{at}", word, here) for at, word in enumerate(runtime.command))
            yield from ((f"runtimes.{name}.env.{variable}", text, here) for variable, text in runtime.env.items())
            yield from self._values(name, here)
        if not self.runtimes:
            yield from self._values("endpoint", set())

    def _values(self, runtime: str, here: set[str]) -> Iterator[tuple[str, str, set[str]]]:
        """The same for the values of arguments in one way to run it; those of requests know no more than each other."""
        taken = {name: a for name, a in self.arguments.items() if not a.runtimes or runtime in a.runtimes}
        given = {name: a.default for name, a in taken.items() if a.default is not None}
        sets: dict[str, dict[str, Any]] = {
            f"profiles.{name}.arguments": p.arguments for name, p in self.profiles.items()
        }
        for name, argument in taken.items():
            known = set(given) | (set() if argument.request else here)
            yield f"arguments.{name}.default", str(given.get(name, "")), known
            yield from ((f"{key}.{name}", str(its.get(name, "")), known | set(its)) for key, its in sets.items())

    def lacks_dialect(self, api: str) -> str:
        """Why it cannot be asked in an API, one sentence; empty when it can."""
        if api in self.dialects:
            return ""
        if api not in get_args(Api):
            return f"api {api!r} is unknown; {nearest(api, self.dialects)}"
        return f"engine {self.name} does not speak {api!r}; it speaks: {', '.join(self.dialects)}"


def _unknown_place(text: str, known: Iterable[str]) -> str:
    """What is wrong with the placeholders of a text; empty when all are known."""
    doubled = "braces that are text are doubled: {{ }}"
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
    except ValueError as error:
        return f"{text!r} cannot be filled in: {error}; {doubled}"
    unknown = next((field for field in fields if field not in known), None)
    return "" if unknown is None else f"unknown placeholder {{{unknown}}}; {nearest(unknown, known)}; {doubled}"


def load_engines() -> dict[str, EngineCard]:
    """All engine cards by name: the shipped ones, then the user's (``engines/`` in KITT_HOME), which replace them.

    UserError for the first that is not valid.
    """
    cards, bad = sound_engines()
    for sentence in bad.values():
        raise UserError(sentence)
    return cards


def sound_engines() -> tuple[dict[str, EngineCard], dict[Path, str]]:
    """The engine cards that are valid, by name, and what is wrong with each of the others, by file.

    A card of the user's that is not valid hides the shipped one of its name: that is not what would be measured.
    """
    cards: dict[str, EngineCard] = {}
    bad: dict[Path, str] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.yaml")):
            cards.pop(path.stem, None)
            try:
                cards[path.stem] = read_engine(path)
            except UserError as error:
                bad[path] = str(error)
    return cards, bad


def folders() -> tuple[Path, Path]:
    """Where cards lie, and beside each, in a folder of its name, what else its engine needs: shipped, the user's."""
    return shipped.ENGINES, home() / "engines"


def read_engine(path: Path) -> EngineCard:
    """One card; UserError names the file, the line, the key and the nearest known one."""
    content = read_yaml(path)
    try:
        card = EngineCard.model_validate(content)
    except ValidationError as error:
        raise UserError(explained(path, error, EngineCard)) from error
    if card.name != path.stem:
        where = place(path, "name")
        raise UserError(f"{where}: the card's name is {card.name!r}; name the file {card.name}.yaml")
    return card


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping."""
    try:
        content = _parsed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {why(error)}; check the path") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if content is None:  # an empty file, or one of comments alone
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping, found {type(content).__name__}")
    return content


def _parsed(text: str) -> Any:
    """What YAML says, by the C library where PyYAML has it: ten times as fast, and every session reads all cards."""
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders
    except yaml.YAMLError:
        return yaml.safe_load(text)  # says more exactly what is wrong
