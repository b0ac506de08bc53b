"""Is an engine that cannot be had here measured from end to end? A session against its double, in all its tongues."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import shipped
from tests.doubles import installed
from tests.doubles.running import running
from tests.doubles.server import LOG_ENV
from tests.made_models import put, safetensors

TEST = """
import os
import pytest

APIS = os.environ["APIS"].split(",")
FORCED = os.environ["FORCED"] == "yes"

@pytest.mark.parametrize("api", APIS)
def test_it(kitt_engine, kitt_load, api):
    found = kitt_engine.generate("hello", max_tokens=5, api=api)
    assert (found.finish_reason, found.completion_tokens) == ("length", 5)
    result = kitt_load("closed:2", "synthetic:32:40", "requests:6", api=api)
    assert (result.failed, result.params["tokens_counted_by"]) == (0, "usage")
    assert result.osl.min == result.osl.max == (40 if FORCED else 24)
    assert abs(result.isl.min - 32) <= 7  # the template and the token of the beginning
    if "tokenize" in kitt_engine.capabilities:
        assert result.params["prompt_length_by"] == "tokenizer"

def test_about(kitt_engine):
    assert kitt_engine.version == os.environ["VERSION"]
    assert "".join(kitt_engine.stream("hello", max_tokens=5)) == kitt_engine.chat("hello", max_tokens=5).output
    assert "tokens are too many" in kitt_engine.lacks_room(5000)
"""


@pytest.mark.parametrize(
    "name, double, apis, version, forced",
    [
        ("vllm", "vllm", "chat,completions", "0.32.0", "yes"),
        ("sglang", "sglang", "chat,completions", "0.5.23", "yes"),
        ("tgi", "tgi", "chat,completions,tgi", "3.3.6-dev0", "no"),
        ("ollama", "ollama", "chat,completions,ollama-chat,ollama-generate", "0.33.0", "no"),
        ("exllamav2", "tabby", "chat,completions", "", "yes"),
    ],
)
def test_a_server_that_runs(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    double: str,
    apis: str,
    version: str,
    forced: str,
) -> None:
    """Every API gives the same tokens, counted by the engine; its own word on version, tokens and context is taken."""
    for key, value in {"APIS": apis, "VERSION": version, "FORCED": forced}.items():
        monkeypatch.setenv(key, value)
    pytester.makepyfile(test_it=TEST)
    spoken = apis.split(",")
    with running(double, pytester.path / "double") as served:
        args = (f"--kitt-engine={name}", f"--kitt-url={served.url}", f"--kitt-api={spoken[-1]}", "-v")
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *args, "test_it.py")
        result.assert_outcomes(passed=1 + len(spoken))
        result.stdout.fnmatch_lines([f"*test_it*{name}-*tiny*"])
        asked = [entry for entry in served.asked() if entry.get("method") == "POST"]
    assert name == "ollama" or any("token" in entry["path"] for entry in asked)
    assert not any("logprobs" in (entry["body"] or {}) for entry in asked)  # nobody asked for them


def test_keys_are_sent_to_tabby(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that wants a key says so; with it all is well."""
    pytester.makepyfile(
        test_it='def test_it(kitt_engine): assert kitt_engine.chat("hi").output and kitt_engine.context'
    )
    with running("tabby", pytester.path / "double", "--disable-auth=false") as served:
        args = ("--kitt-engine=exllamav2", f"--kitt-url={served.url}", "test_it.py")
        assert pytester.runpytest_subprocess("-p", "no:cacheprovider", *args).ret == 4
        lines = (pytester.path / "double" / "api_tokens.yml").read_text().splitlines()
        monkeypatch.setenv("KITT_API_KEY", dict(line.split(": ") for line in lines)["api_key"])
        pytester.runpytest_subprocess("-p", "no:cacheprovider", *args).assert_outcomes(passed=1)


VLLM = """serve {model} --served-model-name weights --host 127.0.0.1 --port {port} --generation-config vllm
--enable-prompt-tokens-details --max-model-len 2048 --max-num-seqs 4 --seed 7 --no-enable-prefix-caching"""
SGLANG = """--model-path {model} --served-model-name weights --host 127.0.0.1 --port {port} --nccl-port {second}
--sampling-defaults openai --enable-metrics --enable-cache-report --context-length 2048 --max-running-requests 4
--random-seed 7 --disable-radix-cache"""
SECRET = "hf_kittnobodyshouldseethis"
STARTED = """
def test_load(kitt_engine, kitt_load):
    assert kitt_engine.context == 2048
    result = kitt_load("closed:2", "synthetic:32:16", "requests:6", warmup=0)
    assert (result.failed, result.osl.max) == (0, 16)
"""
LIMITS = ("--kitt-engine-arg=context=2048", "--kitt-engine-arg=parallel=4", "--kitt-engine-arg=seed=7")
DIGEST = f"sha256:{hashlib.sha256(shipped.TINY_MODEL.read_bytes()).hexdigest()}"


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The doubles are what is found under the engines' names; the file tells what they were asked."""
    installed.install(tmp_path / "installed")
    monkeypatch.setenv("PATH", f"{tmp_path}/installed/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/installed/lib{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv(LOG_ENV, str(tmp_path / "asked.jsonl"))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return tmp_path / "asked.jsonl"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A folder of safetensors."""
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 4096}
    return str(put(tmp_path / "weights", {"config.json": config, "model.safetensors": safetensors()}))


def asked(account: Path) -> list[dict[str, Any]]:
    """What a double has written down."""
    return [json.loads(line) for line in account.read_text().splitlines()]


def measured(pytester: pytest.Pytester, account: Path, home: Path, engine: str, model: str) -> list[dict[str, Any]]:
    """What an engine was asked from start to end; a secret of the user's is nowhere but in its environment."""
    pytester.makepyfile(test_it=STARTED)
    args = (f"--kitt-engine={engine}", "--kitt-runtime=process", f"--kitt-model={model}", *LIMITS, "--kitt-output=out")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *args, "test_it.py")
    result.assert_outcomes(passed=1)
    (cell,) = json.loads((pytester.path / "out" / "config.json").read_text())["cells"]
    assert cell["runtime"] == "process"
    kept = [path.read_bytes() for folder in (home, pytester.path) for path in folder.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in content for content in kept)
    assert SECRET not in account.read_text() + result.stdout.str()
    return asked(account)


def posted(said: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    """The bodies of the requests to a path."""
    return [entry["body"] for entry in said if entry.get("method") == "POST" and entry["path"] == path]


@pytest.mark.parametrize(
    "engine, words, variable, env",
    [
        ("vllm", VLLM, "VLLM_PORT", {"VLLM_NO_USAGE_STATS": "1", "HF_TOKEN": "set"}),
        ("sglang", SGLANG, "", {"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false", "HF_TOKEN": "set"}),
    ],
)
def test_started_with_everything_said(
    pytester: pytest.Pytester,
    account: Path,
    private_home: Path,
    weights: str,
    engine: str,
    words: str,
    variable: str,
    env: dict[str, str],
) -> None:
    """Model, name, host, ports, context, parallelism, seed and prefix cache; another port for its own processes."""
    start, listens, *said = measured(pytester, account, private_home, engine, weights)
    _, port = listens["listens"]
    argv = start["argv"]
    second = start["env"][variable] if variable else argv[argv.index("--nccl-port") + 1]
    assert argv == words.format(model=weights, port=port, second=second).split()
    assert int(second) != port
    told = {name: value for name, value in start["env"].items() if name in {*env, variable}}
    assert told == env | ({variable: second} if variable else {})
    timed = posted(said, "/v1/chat/completions")
    assert len(timed) >= 6  # and some that keep the engine busy until the last of these has ended
    assert all((body["model"], body["ignore_eos"], body["temperature"]) == ("weights", True, 0) for body in timed)


def test_ollama_gets_its_model_and_loses_it_again(pytester: pytest.Pytester, account: Path, private_home: Path) -> None:
    """All is said by variables; the file is sent, named, loaded to stay, asked with a seed, and deleted at the end."""
    start, listens, *said = measured(pytester, account, private_home, "ollama", "tiny")
    assert start["argv"] == ["serve"]
    host = f"127.0.0.1:{listens['listens'][1]}"
    told = {"HOST": host, "KEEP_ALIVE": "-1", "MAX_LOADED_MODELS": "1", "NO_CLOUD": "1"}
    limits = {"CONTEXT_LENGTH": "2048", "NUM_PARALLEL": "4", "MAX_QUEUE": "512"}
    assert start["env"] == {f"OLLAMA_{name}": value for name, value in (told | limits).items()}
    ways = [(entry["method"], entry["path"]) for entry in said if entry["method"] != "GET"]
    assert [*dict.fromkeys(ways)] == [
        ("HEAD", f"/api/blobs/{DIGEST}"),
        ("POST", f"/api/blobs/{DIGEST}"),
        ("POST", "/api/create"),
        ("POST", "/api/generate"),
        ("POST", "/v1/chat/completions"),
        ("DELETE", "/api/delete"),
    ]
    assert posted(said, "/api/create") == [{"model": "tiny", "files": {"tiny.gguf": DIGEST}, "stream": False}]
    assert posted(said, "/api/generate") == [{"model": "tiny", "keep_alive": -1, "stream": False}]
    assert all((body["model"], body["seed"]) == ("tiny", 7) for body in posted(said, "/v1/chat/completions"))


def test_ollama_pulls_what_it_lacks(pytester: pytest.Pytester, account: Path, private_home: Path) -> None:
    """A tag of its registry, which stays."""
    _, _, *said = measured(pytester, account, private_home, "ollama", "ollama:llama3.2:1b")
    assert posted(said, "/api/pull") == [{"model": "llama3.2:1b", "stream": True}]
    assert all(body["model"] == "llama3.2:1b" for body in posted(said, "/v1/chat/completions"))
    assert not any(entry.get("path") == "/api/delete" for entry in said)


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("vllm", "*ended with exit code 1*there is not enough memory*"),
        ("ollama", "*reported out-of-memory during startup*"),
    ],
)
def test_a_server_that_does_not_start(
    pytester: pytest.Pytester,
    account: Path,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    sentence: str,
) -> None:
    """One error for the cell, with the class that the engine's own log shows; test_process_failures.py has them all."""
    monkeypatch.setenv("KITT_DOUBLE_FAIL", "memory")
    pytester.makepyfile(test_it="def test_it(kitt_engine): pass")
    model = "tiny" if name == "ollama" else weights
    args = (f"--kitt-engine={name}", f"--kitt-model={model}", "--kitt-runtime=process")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *args, "test_it.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([sentence])
    assert asked(account)[0]["double"] == name
