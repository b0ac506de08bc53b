"""Does each shipped card start its engine with the command line that the engine's documentation wants?"""

from __future__ import annotations

import shlex
import string
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_kitt import cards, shipped
from pytest_kitt.cards import EngineCard, RuntimeCard
from pytest_kitt.engine import command
from pytest_kitt.errors import UserError
from pytest_kitt.matrix import Cell
from pytest_kitt.model.reference import ModelRef

CARDS = cards.load_engines()
MODEL = ModelRef(ref="Qwen3-8B", name="Qwen3-8B", format="safetensors", path="/models/Qwen3-8B")
UNIVERSAL = {"context", "parallel", "seed"}
# engines that take no such limit: documented so in their notes
WITHOUT = {"transformers": {"context", "parallel"}, "simulated": {"parallel"}}
STARTED = [(card, name) for card in CARDS.values() for name in card.runtimes]
IDS = [f"{card.name}-{name}" for card, name in STARTED]


def cell(engine: str, runtime: str = "container", **changes: Any) -> Cell:
    """A cell of an engine with a model that lies in a container."""
    return Cell(engine, MODEL, runtime, **changes)


def line(it: Cell, card: EngineCard | None = None) -> str:
    """Its command line, on port 8123, other ports counting up from there."""
    card = card or CARDS[it.engine]
    runtime = card.runtimes[it.runtime]  # type: ignore[index]  # of a card that has it
    return shlex.join(command.argv(it, card, runtime, where(it, runtime)))


def where(it: Cell, runtime: RuntimeCard) -> dict[str, Any]:
    """What the placeholders stand for."""
    ports = {name: 8123 + index for index, name in enumerate(("port", *runtime.ports))}
    return {**command.places(it, model="/models/Qwen3-8B", host="127.0.0.1", ports=ports), "spare_cores": 7}


KNOWN = {
    "vllm": (
        "/models/Qwen3-8B --served-model-name Qwen3-8B --host 127.0.0.1 --port 8123 --generation-config vllm "
        "--enable-prompt-tokens-details --max-model-len 4096 --max-num-seqs 256 --seed 0 --no-enable-prefix-caching"
    ),
    "tgi": (
        "--model-id /models/Qwen3-8B --hostname 127.0.0.1 --port 8123 --prometheus-port 8124 --master-port 8125 "
        "--usage-stats off --enable-prefill-logprobs --max-total-tokens 4096 --max-concurrent-requests 256"
    ),
    "llama_cpp": (
        "--model /models/Qwen3-8B --alias Qwen3-8B --host 127.0.0.1 --port 8123 --cache-ram 0 --metrics --slots "
        "--jinja --ctx-size 32768 --parallel 8 --threads 7 --n-gpu-layers all --seed 0"
    ),
    "ollama": "serve",
    "sglang": (
        "python3 -m sglang.launch_server --model-path /models/Qwen3-8B --served-model-name Qwen3-8B --host 127.0.0.1 "
        "--port 8123 --nccl-port 8124 --sampling-defaults openai --enable-metrics --enable-cache-report "
        "--context-length 4096 --max-running-requests 256 --random-seed 0 --disable-radix-cache"
    ),
    "exllamav2": (
        "main.py --host 127.0.0.1 --port 8123 --disable-auth true --model-dir /models --model-name Qwen3-8B "
        "--backend exllamav2 --max-seq-len 4096 --max-batch-size 8 --cache-size 32768"
    ),
    "exllamav3": (
        "main.py --host 127.0.0.1 --port 8123 --disable-auth true --model-dir /models --model-name Qwen3-8B "
        "--max-seq-len 4096 --max-batch-size 8 --cache-size 32768"
    ),
    "tensorrt_llm": (
        "trtllm-serve serve /models/Qwen3-8B --host 127.0.0.1 --port 8123 --max_seq_len 4096 --max_batch_size 256"
    ),
}
PROCESSES = {
    "vllm": f"vllm serve {KNOWN['vllm']}",
    "llama_cpp": f"llama-server {KNOWN['llama_cpp']}",
    "ollama": "ollama serve",
    "sglang": KNOWN["sglang"].replace("python3", sys.executable),
    "transformers": "transformers serve /models/Qwen3-8B --host 127.0.0.1 --port 8123 --default-seed 0",
    "tensorrt_llm": KNOWN["tensorrt_llm"],
    "mlx": (
        "mlx_lm.server --model /models/Qwen3-8B --host 127.0.0.1 --port 8123 --temp 0.0 --max-prompt-tokens 4096 "
        "--decode-concurrency 32"
    ),
}


@pytest.mark.parametrize("engine", KNOWN)
def test_in_a_container(engine: str) -> None:
    """What the image's entry point gets."""
    assert line(cell(engine)) == KNOWN[engine]


@pytest.mark.parametrize("engine", PROCESSES)
def test_as_a_process(engine: str) -> None:
    """What is run here."""
    assert line(cell(engine, "process")) == PROCESSES[engine]


def test_every_way_to_run_an_engine_has_a_known_answer() -> None:
    """Above, or where it is run for real: the simulated engine and the embedded one."""
    shown = {(engine, "container") for engine in KNOWN} | {(engine, "process") for engine in PROCESSES}
    assert {(card.name, name) for card, name in STARTED} - shown == {
        ("simulated", "process"),
        ("llama_cpp", "embedded"),
    }


@pytest.mark.parametrize(
    "engine, words",
    {
        "vllm": "--max-model-len 8192 --max-num-seqs 16 --gpu-memory-utilization 0.8 --tensor-parallel-size 2 "
        "--quantization awq --dtype float16 --kv-cache-dtype fp8 --seed 7 --enable-prefix-caching",
        "tgi": "--max-total-tokens 8192 --max-concurrent-requests 16 --cuda-memory-fraction 0.8 --num-shard 2 "
        "--quantize awq --dtype float16 --kv-cache-dtype fp8",
        "sglang": "--context-length 8192 --max-running-requests 16 --mem-fraction-static 0.8 --tp-size 2 "
        "--quantization awq --dtype float16 --kv-cache-dtype fp8 --random-seed 7",
        "tensorrt_llm": "--max_seq_len 8192 --max_batch_size 16 --kv_cache_free_gpu_memory_fraction 0.8 --tp_size 2",
    }.items(),
)
def test_one_name_means_the_same_to_every_engine(engine: str, words: str) -> None:
    """Universal names, and what they are called there."""
    universal = (
        "context=8192 parallel=16 gpu_memory=0.8 tensor_parallel=2 quantization=awq dtype=float16 kv_cache_dtype=fp8 "
        "seed=7 prefix_cache=1"
    )
    pairs = [word.split("=") for word in universal.split()]
    asked = tuple((name, value) for name, value in pairs if name in CARDS[engine].arguments)
    assert line(cell(engine, overrides=asked)).endswith(words)


@pytest.mark.parametrize("card, name", STARTED, ids=IDS)
def test_nothing_is_left_to_a_default(card: EngineCard, name: str) -> None:
    """Host, port, context, parallelism and seed are said by every card, whatever a release thinks of them."""
    runtime = card.runtimes[name]  # type: ignore[index]
    words = " ".join([*runtime.command, *runtime.env.values()])
    assert "{host}" in words
    assert "{port}" in words or runtime.announces
    assert command.values(cell(card.name, name), card).keys() >= UNIVERSAL - WITHOUT.get(card.name, set())


@pytest.mark.parametrize("card, name", STARTED, ids=IDS)
def test_every_placeholder_is_filled(card: EngineCard, name: str) -> None:
    """In command lines, variables and defaults; and every port that is named is used."""
    it = cell(card.name, name)
    runtime = card.runtimes[name]  # type: ignore[index]
    places = where(it, runtime)
    filled = [*command.argv(it, card, runtime, places), *command.env(it, card, runtime, places).values()]
    assert not [word for word in filled if "{" in word]
    used = {
        field for word in [*runtime.command, *runtime.env.values()] for _, field, *_ in string.Formatter().parse(word)
    }
    assert set(runtime.ports) <= used


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_a_card_is_complete(card: EngineCard) -> None:
    """Who runs in a container has an image; who needs something says how to get it; each profile fills."""
    assert ("container" in card.runtimes) == bool(card.images)
    for runtime in card.runtimes.values():
        assert not (runtime.program or runtime.needs) or runtime.install or runtime.extra
        assert runtime.proven.by == "never run" or runtime.proven.version
    for profile in card.profiles:
        for name in card.runtimes:
            assert line(cell(card.name, name, profile=profile))
    for row in card.images:
        assert row.why
        assert not row.image.startswith("kitt/") or row.dockerfile
        assert ":" in row.image, "a version is named"


@pytest.mark.parametrize("card", [card for card in CARDS.values() if card.images], ids=lambda card: card.name)
def test_dockerfiles_are_there(card: EngineCard) -> None:
    """Each that a card names ships beside it."""
    for row in card.images:
        assert not row.dockerfile or (shipped.ENGINES / card.name / row.dockerfile).is_file()


def test_variables_and_fields_are_arguments_too() -> None:
    """Ollama takes its arguments from the environment, or with each request."""
    asked = (("context", "9000"), ("gpu_layers", "20"), ("parallel", "2"), ("seed", "5"))
    it, card = cell("ollama", overrides=asked), CARDS["ollama"]
    runtime = card.runtimes["container"]
    assert line(it) == "serve"
    variables = command.env(it, card, runtime, where(it, runtime))
    assert variables["OLLAMA_HOST"] == "127.0.0.1:8123"
    assert (variables["OLLAMA_CONTEXT_LENGTH"], variables["OLLAMA_NUM_PARALLEL"]) == ("9000", "2")
    assert "OLLAMA_KV_CACHE_TYPE" not in variables
    assert command.request(it, card) == {"options": {"num_gpu": 20, "seed": 5}, "seed": 5}


def test_fields_of_one_request_leave_those_of_every_request() -> None:
    """What is asked of one answer is merged into the same object, and wins where both say something."""
    it, card = cell("ollama", overrides=(("gpu_layers", "20"), ("seed", "5"))), CARDS["ollama"]
    asked = command.with_request(it, card, {"options": {"stop": ["Q:"], "seed": 7}, "raw": True})
    assert asked == {"options": {"num_gpu": 20, "seed": 7, "stop": ["Q:"]}, "seed": 5, "raw": True}


def test_a_switch_says_what_the_engine_understands() -> None:
    """The same 0 and 1 are a flag here, none there, and true or false in a request."""
    assert line(cell("sglang", overrides=(("prefix_cache", "1"),))).count("radix") == 0
    assert command.request(cell("llama_cpp"), CARDS["llama_cpp"]) == {"cache_prompt": False}
    assert command.request(cell("llama_cpp", overrides=(("prefix_cache", "1"),)), CARDS["llama_cpp"]) == {
        "cache_prompt": True
    }
    tgi = CARDS["tgi"]
    assert command.env(cell("tgi"), tgi, tgi.runtimes["container"], {})["PREFIX_CACHING"] == "0"


def test_a_server_that_runs_already_gets_what_every_request_carries() -> None:
    """Flags are for engines that are started here, fields of requests are not."""
    assert command.request(cell("llama_cpp", "endpoint"), CARDS["llama_cpp"]) == {"cache_prompt": False}


def test_the_user_wins_over_the_profile_and_that_over_the_card() -> None:
    """Values by their source."""
    it = cell("vllm", profile="throughput", overrides=(("gpu_memory", "0.5"), ("--max-lora-rank", "8"), ("--x", "")))
    words = line(it)
    assert "--max-num-seqs 1024 --gpu-memory-utilization 0.5 --seed 0" in words
    assert words.endswith("--max-lora-rank 8 --x")


def test_a_default_context_is_no_more_than_the_models() -> None:
    """Engines refuse more than the model was made for; what the user says stands."""
    small = ModelRef(ref="m", name="m", format="safetensors", path="/m", context=2048)
    assert command.values(Cell("vllm", small, "container"), CARDS["vllm"])["context"] == "2048"
    asked = Cell("vllm", small, "container", overrides=(("context", "9999"),))
    assert command.values(asked, CARDS["vllm"])["context"] == "9999"


def test_braces_in_what_users_set_are_theirs() -> None:
    """Only the card's own words are filled in."""
    assert line(cell("vllm", overrides=(("quantization", "{host}"),))).count("'{host}'") == 1


BASE = "name: x\ndescription: d\n"
BAD = [
    ("images: [{image: a, when: {archs: arm}}]", r"unknown key 'images.0.when.archs'; did you mean 'arch'\?"),
    (
        "images: [{image: a, when: {arch: arm64}}]",
        "key 'images.0.when.arch': 'arm64' is not possible; did you mean 'aarch64'",
    ),
    ("images: [{image: a, when: {compute_capability: '10'}}]", "'10' is no range of versions; expected for example"),
    (
        "images: [{image: a, when: {compute_capability: 10.0}}]",
        "compute_capability': expected a text, found 10.0; put",
    ),
    ("images: [{image: a, dockerfile: ../x}]", "key 'images.0.dockerfile': expected a text of the form"),
    ("runtimes: {container: {command: [a]}}", "a container needs images"),
    (
        "runtimes: {process: {proven: {by: hearsay}}}",
        "key 'runtimes.process.proven.by': 'hearsay' is not possible",
    ),
    ("formats: [gguf, exl4]", "key 'formats.1': 'exl4' is not possible; did you mean 'exl3'"),
    ("capabilities: [flying]", "key 'capabilities.0': 'flying' is not possible; known: cached_tokens"),
    ("arguments: {a: {help: h}}", "expected one of flag, env and request"),
    ("arguments: {a: {help: h, flag: --a, env: A}}", "expected one of flag, env and request"),
    ("arguments: {a: {help: h, flag: --a, switch: {x: --x}}}", "leave flag out"),
    ("arguments: {a: {help: h, flag: --a, times: b}}", r"argument 'a' times 'b': .*known: a"),
    ("arguments: {a: {help: h, falg: --a}}", r"unknown key 'arguments.a.falg'; did you mean 'flag'\?"),
    ("profiles: {p: {help: h, arguments: {b: 1}}}", "profile 'p' sets 'b': known: none"),
    ("profiles: {P: {help: h, arguments: {}}}", "key 'profiles.P"),
    ("impossible: [{when: {arch: aarch64}}]", "key 'impossible.0.why' is missing"),
    (
        "runtimes: {process: {command: [a, '{modelname}']}}",
        r"key 'runtimes.process.command.1': unknown placeholder \{modelname\}; did you mean 'model_name'\? known:",
    ),
    ("runtimes: {process: {command: ['{nccl_port}'], announces: true, ports: [nccl_port]}}", "placeholder {nccl_port}"),
    ("runtimes: {process: {command: ['{}']}}", "unknown placeholder {}; known"),
    ("runtimes: {process: {command: ['{model.name}']}}", "unknown placeholder {model.name}; did you mean 'model_name'"),
    ("runtimes: {process: {command: ['{\"a\": 1}']}}", "unknown placeholder .*braces that are text are doubled: {{ }}"),
    (
        "runtimes: {process: {command: ['{model']}}",
        "command.0': '{model' cannot be filled in: .*; braces that are text",
    ),
    ("runtimes: {process: {env: {A: '{prt}'}}}", r"key 'runtimes.process.env.A': .*\{prt\}; did you mean 'port'"),
    ("serves: '{host}'", r"key 'serves': unknown placeholder \{host\}; known: model, model_name"),
    (
        "runtimes: {process: {}}\narguments: {a: {help: h, flag: --a, default: '{hots}'}}",
        r"key 'arguments.a.default': unknown placeholder \{hots\}; did you mean 'host'",
    ),
    ("arguments: {a: {help: h, request: a, default: '{model}'}}", r"key 'arguments.a.default': .*\{model\}; known: a"),
    (
        "runtimes: {process: {}}\narguments: {a: {help: h, flag: --a}, b: {help: h, flag: --b, default: '{a}'}}",
        r"key 'arguments.b.default': unknown placeholder \{a\}",  # it has no value unless somebody gives one
    ),
    (
        (
            "runtimes: {process: {}}\narguments: {a: {help: h, flag: --a}}\n"
            "profiles: {p: {help: h, arguments: {a: '{x}'}}}"
        ),
        r"key 'profiles.p.arguments.a': unknown placeholder \{x\}",
    ),
    ("context: {paht: /x}", r"unknown key 'context.paht'; did you mean 'path'\?"),
]


@pytest.mark.parametrize("text, sentence", BAD)
def test_bad_cards(tmp_path: Path, text: str, sentence: str) -> None:
    """A bad card names file, key and what is expected, or the nearest known key."""
    (tmp_path / "x.yaml").write_text(BASE + text)
    with pytest.raises(UserError, match=sentence) as caught:
        cards.read_engine(tmp_path / "x.yaml")
    assert str(caught.value).startswith(str(tmp_path / "x.yaml"))


def test_what_a_card_may_have_filled_in() -> None:
    """A card is checked against the names that are there when it is started."""
    it = cell("vllm", "process")
    assert set(command.places(it, model="m", host="h", ports={})) == set(cards.PLACES)


FINE = """
runtimes:
  process: {command: ["{model}", "{second}", '{{"a": {port}}}'], ports: [second], env: {A: "{second}"}}
arguments:
  a: {help: h, flag: --a, default: "{second}-{b}"}
  b: {help: h, request: b, default: 1}
  c: {help: h, flag: --c}
profiles: {p: {help: h, arguments: {a: "{host}-{c}", c: 1, --json: '{"raw": 1}'}}}
"""


def test_placeholders_that_exist(tmp_path: Path) -> None:
    """Ports by their names, doubled braces, other values; raw flags are passed as they are."""
    (tmp_path / "x.yaml").write_text(BASE + FINE)
    card = cards.read_engine(tmp_path / "x.yaml")
    assert line(cell("x", "process"), card) == """/models/Qwen3-8B 8124 '{"a": 8123}' --a 8124-1"""
    profiled = cell("x", "process", profile="p")
    assert line(profiled, card) == """/models/Qwen3-8B 8124 '{"a": 8123}' --a 127.0.0.1-1 --c 1 --json '{"raw": 1}'"""


NUMBERS = ("context", "parallel", "threads", "tensor_parallel", "seed", "gpu_memory")
PATTERNS = [
    (card, name)
    for card in CARDS.values()
    for name in NUMBERS
    if name in card.arguments
    if card.arguments[name].pattern
]


@pytest.mark.parametrize("card, name", PATTERNS, ids=[f"{card.name}-{name}" for card, name in PATTERNS])
def test_numbers_are_numbers(card: EngineCard, name: str) -> None:
    """What is said of them holds for the card's own values, and not for words."""
    argument = card.arguments[name]
    given = [argument.default, *(profile.arguments.get(name) for profile in card.profiles.values())]
    assert argument.pattern is not None
    assert all(argument.pattern.fullmatch(str(value)) for value in given if value is not None and "{" not in str(value))
    assert not any(argument.pattern.fullmatch(text) for text in ("abc", "", "1.5", "-3.5", "1 "))
    assert argument.pattern.fullmatch("1" if name == "gpu_memory" else "2")
    if name in ("parallel", "threads", "tensor_parallel", "gpu_memory"):
        assert not any(argument.pattern.fullmatch(text) for text in ("0", "0.0", "-3"))


def test_every_number_of_a_card_has_a_pattern() -> None:
    """But where the argument is a word of a list."""
    without = [
        (c.name, name) for c in CARDS.values() for name in NUMBERS if (a := c.arguments.get(name)) and not a.pattern
    ]
    assert without == [(engine, "tensor_parallel") for engine in ("exllamav2", "exllamav3", "llama_cpp")]


def test_the_c_library_reads_what_python_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is shipped, and what is wrong has the same sentence."""
    wrong = tmp_path / "x.yaml"
    wrong.write_text("name: a\nargs: [1,\n\ttwo: @x\n")
    shipped_files = sorted([*shipped.ENGINES.rglob("*.yaml"), *shipped.SUITES.rglob("*.yaml")])
    said, told = [], []
    for _ in ("the C library, where there is one", "Python"):
        said.append([cards.read_yaml(path) for path in shipped_files])
        with pytest.raises(UserError, match="not valid YAML") as caught:
            cards.read_yaml(wrong)
        told.append(str(caught.value))
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert len(said[0]) > 12
    assert said[0] == said[1]
    assert told[0] == told[1]
