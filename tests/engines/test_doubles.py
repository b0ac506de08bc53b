"""What do engines say that cannot be had here? Each double, asked in each of its tongues, with its quirks."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from pytest_kitt import cards
from pytest_kitt.cards import ContextCard, EngineCard, TokenizeCard
from pytest_kitt.dialect import apis
from pytest_kitt.dialect.answer import Answer
from pytest_kitt.dialect.details import ToolCall
from pytest_kitt.engine.base import Access, RunningEngine
from pytest_kitt.engine.ready import classify
from pytest_kitt.errors import EngineRequestError
from pytest_kitt.matrix import Cell
from pytest_kitt.measure.records import CountedBy, Failure
from pytest_kitt.model import reference
from pytest_kitt.settings import Api
from tests.doubles import sglang, tabby, tgi, tokens, vllm
from tests.doubles.running import DOUBLES, PATIENCE_S, Double, running

Start = Callable[..., Double]
Engines = Callable[..., RunningEngine]
QUICK = {"KITT_DOUBLE_LOAD_S": "0"}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
SPOKEN: dict[str, tuple[Api, ...]] = {
    "vllm": ("chat", "completions"),
    "sglang": ("chat", "completions"),
    "tgi": ("chat", "completions", "tgi"),
    "ollama": ("chat", "completions", "ollama-chat", "ollama-generate"),
    "tabby": ("chat", "completions"),
}
EVERY = [(name, api) for name, spoken in SPOKEN.items() for api in spoken]
CARDS: dict[str, dict[str, Any]] = {
    "vllm": {
        "tokenize": TokenizeCard(path="/tokenize", text="prompt"),
        "context": ContextCard(path="/v1/models", field="data.{model}.max_model_len"),
    },
    "sglang": {
        "tokenize": TokenizeCard(path="/tokenize", text="prompt"),
        "context": ContextCard(path="/v1/models", field="data.{model}.max_model_len"),
    },
    "tgi": {
        "tokenize": TokenizeCard(path="/tokenize", text="inputs", tokens=""),
        "context": ContextCard(path="/info", field="max_total_tokens"),
    },
    "ollama": {"context": ContextCard(path="/api/ps", field="models.{model}.context_length")},
    "tabby": {
        "tokenize": TokenizeCard(path="/v1/token/encode", text="text"),
        "context": ContextCard(path="/v1/model", field="parameters.max_seq_len"),
        "request": {"stream_options": {"include_usage": True}},
    },
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Doubles as they come, each started once: no test's own, so that none is blamed for what runs on."""
    doubles: dict[str, Double] = {}
    with ExitStack() as stack:

        def start(name: str) -> Double:
            if name not in doubles:
                folder = tmp_path_factory.mktemp("plain") / name
                doubles[name] = stack.enter_context(running(name, folder, env={"TEST_OF_KITT": "", **QUICK}))
            return doubles[name]

        yield start


@pytest.fixture
def start(plain: Start, tmp_path: Path) -> Iterator[Start]:
    """Starts doubles; one without arguments is the plain one."""
    with ExitStack() as stack:

        def start(name: str, *more: str, **env: str) -> Double:
            if not more and not env:
                return plain(name)
            return stack.enter_context(running(name, tmp_path / name, *more, env={**QUICK, **env}))

        yield start


@pytest.fixture
def engine() -> Iterator[Engines]:
    """The engines that doubles stand for."""
    with ExitStack() as stack:

        def engine(name: str, url: str, model: str = "tiny") -> RunningEngine:
            http = stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S))
            card = EngineCard(name=name, description="x", dialects=list(SPOKEN[name]), **CARDS[name])
            return RunningEngine(Cell(name, reference.served(model), "endpoint"), card, Access(url), http=http)

        yield engine


def streamed(double: Double, api: Api, prompt: str = "hi", model: str = "tiny", **extra: Any) -> Answer:
    """What a load's reader makes of a streamed answer; each chunk of the body has a time of its own."""
    body = apis.request_body(api, model, prompt, max_tokens=extra.pop("max_tokens", 8), extra=extra)
    with httpx.stream("POST", double.url + apis.path(api), json=body, trust_env=False) as response:
        assert response.status_code == 200, response.read()
        reader = apis.reader(api, response.headers["content-type"].encode())
        for at, piece in enumerate(response.iter_raw()):
            reader.feed([at], [piece])
    return reader.finish()


def refused(double: Double, api: Api, prompt: str, **extra: Any) -> tuple[int, Any]:
    """Status and document of a request that is not to be answered."""
    body = apis.request_body(api, "tiny", prompt, max_tokens=8, stream=False, extra=extra)
    response = httpx.post(double.url + apis.path(api, stream=False), json=body, trust_env=False)
    return response.status_code, response.json()


@pytest.mark.parametrize("name, api", EVERY)
def test_an_answer_that_reaches_its_limit(start: Start, engine: Engines, name: str, api: Api) -> None:
    """Streamed and in one piece the same: text, counts and the end; half a character is no event."""
    double = start(name)
    answer = streamed(double, api)
    found = engine(name, double.url).generate("hi", api=api, max_tokens=8)
    assert (answer.failure, answer.detail) == (Failure.NONE, "")
    assert (answer.text, answer.osl, answer.finish) == (found.output, 8, "length")
    assert answer.counted_by is CountedBy.USAGE
    assert (found.completion_tokens, found.finish_reason) == (8, "length")
    assert "ü" in answer.text
    assert len(answer.event_ns) == 7
    assert answer.isl == (found.prompt_tokens or answer.isl) > 0  # TGI does not count the prompt of a document
    assert (found.reasoning, found.tool_calls, found.logprobs, found.token_ids) == (None, None, None, None)


@pytest.mark.parametrize("name, api", EVERY)
def test_an_answer_that_ends_by_itself(start: Start, engine: Engines, name: str, api: Api) -> None:
    """The end of sequence is counted, and is no text, though TGI's streamed completions spell it."""
    double = start(name, KITT_DOUBLE_ITL_MS="0")
    answer = streamed(double, api, max_tokens=100)
    prompt = "<|user|>hi" if api.endswith("chat") else "hi"
    made, _ = tokens.answer(prompt, 100)
    assert (answer.text, answer.osl, answer.finish) == (tokens.text_of(made), 24, "stop")
    assert engine(name, double.url).generate("hi", api=api, max_tokens=100).finish_reason == "stop"


@pytest.mark.parametrize("name", SPOKEN)
def test_what_an_engine_says_of_itself(start: Start, engine: Engines, name: str) -> None:
    """Its tokens and its context, where it tells them."""
    double = start(name) if name != "ollama" else start(name, KITT_DOUBLE_MODELS="tiny")
    found = engine(name, double.url)
    if name == "ollama":
        assert found.context is None  # nothing is loaded yet
        found = engine(name, double.url, "tiny:latest")
        found.generate("hi", max_tokens=1)
        assert found.context == 4096
        with pytest.raises(EngineRequestError, match="does not tokenize"):
            found.tokenize("hi")
        return
    assert found.context == 2048
    assert len(found.tokenize("the time")) - len(found.tokenize("the")) == 1
    assert double.asked()[0]["double"] == name


@pytest.mark.parametrize("name, api", EVERY)
def test_logprobs_and_ids(start: Start, engine: Engines, name: str, api: Api) -> None:
    """As many as tokens where an engine has them, and None where it has none."""
    double = start(name, KITT_DOUBLE_TABBY="main")
    found = engine(name, double.url).generate("hi", api=api, max_tokens=4, logprobs=2, token_ids=True)
    none = {("tgi", "completions"), ("ollama", "completions")}
    assert (found.logprobs is None) == ((name, api) in none)
    if found.logprobs is not None:
        visible = 3 if name == "ollama" else 4  # of half a character it says nothing
        assert len(found.logprobs) == visible
        assert all(entry.logprob < 0 and len(entry.top) in {0, 2} for entry in found.logprobs)
    ids = {("vllm", "chat"), ("vllm", "completions"), ("sglang", "chat"), ("sglang", "completions")}
    ids |= {("tgi", "tgi"), ("tabby", "chat")}
    prompt = "<|user|>hi" if api.endswith("chat") else "hi"
    made, _ = tokens.answer(prompt, 4)
    assert found.token_ids == (tuple(token.number for token in made) if (name, api) in ids else None)


def test_exl2_says_no_logprobs(start: Start, engine: Engines) -> None:
    """The branch that serves it does not hand them on."""
    double = start("tabby")
    found = engine("tabby", double.url).chat("hi", max_tokens=4, logprobs=2)
    assert found.logprobs is None


@pytest.mark.parametrize(
    "name, api, arguments",
    [
        ("vllm", "chat", ("--reasoning-parser=qwen3",)),
        ("sglang", "chat", ("--reasoning-parser=qwen3",)),
        ("tabby", "chat", ("--reasoning=true",)),
        ("ollama", "chat", ()),
        ("ollama", "ollama-chat", ()),
        ("ollama", "ollama-generate", ()),
    ],
)
def test_thoughts(start: Start, engine: Engines, name: str, api: Api, arguments: tuple[str, ...]) -> None:
    """Apart from the answer, streamed and not; they are tokens, and no answer."""
    model = "thinking" if name == "ollama" else "tiny"
    double = start(name, *arguments, KITT_DOUBLE_MODELS="thinking")
    answer = streamed(double, api, model=model)
    found = engine(name, double.url, model).generate("hi", api=api, max_tokens=8)
    assert found.reasoning
    assert (answer.reasoning, answer.text) == (found.reasoning, found.output)
    assert answer.answer_event == 3


@pytest.mark.parametrize(
    "name, api, arguments",
    [
        ("vllm", "chat", ("--enable-auto-tool-choice", "--tool-call-parser=hermes")),
        ("sglang", "chat", ("--tool-call-parser=qwen",)),
        ("tabby", "chat", ("--tool-format=hermes",)),
        ("tgi", "chat", ()),
        ("ollama", "chat", ()),
        ("ollama", "ollama-chat", ()),
    ],
)
def test_calls(start: Start, engine: Engines, name: str, api: Api, arguments: tuple[str, ...]) -> None:
    """Whole or in fragments, by index or not: one call with its arguments; its text is tokens, and no answer."""
    double = start(name, *arguments)
    found = engine(name, double.url).chat("hi", api=api, max_tokens=8, tools=TOOLS)
    assert found.tool_calls is not None
    (call,) = found.tool_calls
    assert (call.name, call.arguments.replace(" ", "")) == ("weather", '{"city":"Köln"}')
    body = apis.request_body(api, "tiny", "hi", max_tokens=8, extra={"tools": TOOLS})
    reader = apis.reader(api, b"application/x-ndjson" if api == "ollama-chat" else b"text/event-stream", detailed=True)
    reader.feed([1], [httpx.post(double.url + apis.path(api), json=body, trust_env=False).content])
    answer = reader.finish()
    assert reader.details is not None
    assert reader.details.tool_calls is not None
    (streamed_call,) = reader.details.tool_calls
    assert streamed_call == ToolCall(
        "weather", streamed_call.arguments, call.id if name != "vllm" else streamed_call.id
    )
    assert streamed_call.arguments.replace(" ", "") == '{"city":"Köln"}'
    assert (answer.text, answer.answer_event, answer.failure) == ("", -1, Failure.NONE)


BREAKS = [
    ("vllm", "chat", Failure.ERROR_EVENT, "EngineCore encountered an issue"),
    ("sglang", "chat", Failure.ERROR_EVENT, "Generation aborted"),
    ("tgi", "tgi", Failure.ERROR_EVENT, "shard is gone"),
    ("tabby", "chat", Failure.ERROR_EVENT, "Completion aborted"),
    ("tabby", "completions", Failure.ERROR_EVENT, "Completion aborted"),
    ("ollama", "ollama-chat", Failure.ERROR_EVENT, "CUDA error"),
    ("ollama", "ollama-generate", Failure.ERROR_EVENT, "CUDA error"),
    ("ollama", "chat", Failure.BAD_STREAM, "ended without"),  # it loses the error on the way
]


@pytest.mark.parametrize("name, api, failure, detail", BREAKS)
def test_a_stream_that_breaks(start: Start, name: str, api: Api, failure: Failure, detail: str) -> None:
    """Some tokens, then an error: never a good answer, and the server's sentence where it says one."""
    answer = streamed(start(name), api, "[break]")
    assert answer.failure is failure
    assert detail in answer.detail
    assert answer.event_ns


@pytest.mark.parametrize(
    "name, api, status, detail",
    [
        ("vllm", "chat", 400, "This model's maximum context length is 2048 tokens"),
        ("vllm", "completions", 400, "This model's maximum context length is 2048 tokens"),
        ("sglang", "chat", 400, "is longer than the model's context length (2048 tokens)"),
        ("tgi", "chat", 422, "`inputs` tokens + `max_new_tokens` must be <= 2048"),
        ("tgi", "tgi", 422, "`inputs` tokens + `max_new_tokens` must be <= 2048"),
        ("tabby", "chat", 400, "exceeds the available context size of 2048 tokens"),
    ],
)
def test_a_prompt_that_is_too_long(
    start: Start, engine: Engines, name: str, api: Api, status: int, detail: str
) -> None:
    """Each refuses it in its own words and status, and the sentence reaches the user; TGI's stream says it in 200."""
    double = start(name)
    found = engine(name, double.url)
    with pytest.raises(EngineRequestError, match=f"status {status}"):
        found.generate("the " * 3000, api=api, max_tokens=8)
    with pytest.raises(EngineRequestError) as raised:
        found.generate("the " * 3000, api=api, max_tokens=8)
    assert detail in str(raised.value)
    assert "2048" in found.lacks_room(3000)
    if name == "tgi":
        answer = streamed(double, api, "the " * 3000)
        assert answer.failure is Failure.ERROR_EVENT
        assert detail in answer.detail


def test_ollama_cuts_a_long_prompt_without_a_word(start: Start) -> None:
    """Only the count shows it."""
    answer = streamed(start("ollama", OLLAMA_CONTEXT_LENGTH="100"), "ollama-generate", "the " * 3000)
    assert (answer.failure, answer.isl) == (Failure.NONE, 99)


def test_vllm_shortens_an_answer_that_does_not_fit(start: Start) -> None:
    """To what the context has left, without a word."""
    answer = streamed(start("vllm"), "completions", "the " * 2040, ignore_eos=True, max_tokens=100)
    assert (answer.isl, answer.osl, answer.finish) == (2042, 6, "length")


@pytest.mark.parametrize("name", ["vllm", "sglang", "tabby"])
def test_an_answer_is_forced_to_its_limit(start: Start, name: str) -> None:
    """Beyond where it would have ended."""
    double = start(name, KITT_DOUBLE_ITL_MS="0")
    assert streamed(double, "completions", max_tokens=40, ignore_eos=True).osl == 40
    assert streamed(double, "completions", max_tokens=40).osl == 24


def test_exl3_cannot_be_forced(start: Start) -> None:
    """But by a least length that is the limit."""
    double = start("tabby", KITT_DOUBLE_TABBY="main", KITT_DOUBLE_ITL_MS="0")
    assert streamed(double, "completions", max_tokens=40, ban_eos_token=True).osl == 24
    assert streamed(double, "completions", max_tokens=40, min_tokens=40).osl == 40


def test_pings_are_nothing(start: Start) -> None:
    """Comments between events, with CRLF."""
    answer = streamed(start("tabby", KITT_DOUBLE_TABBY="main"), "chat", "[wait]")
    assert (answer.failure, answer.osl) == (Failure.NONE, 8)


def test_unknown_models(start: Start) -> None:
    """Refused by those that look at the name, taken by those that do not."""
    for name, status in (("vllm", 404), ("ollama", 404), ("sglang", 200), ("tgi", 200), ("tabby", 200)):
        double = start(name)
        asked = {"model": "other", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        response = httpx.post(f"{double.url}/v1/chat/completions", json=asked, trust_env=False)
        assert response.status_code == status, name
        if status == 404:
            assert "other" in response.json()["error"]["message"]


def test_bad_parameters(start: Start) -> None:
    """Each in its own form; of each the sentence is found."""
    vllm = start("vllm")
    asked = {"model": "tiny", "prompt": "hi", "stream_options": {"include_usage": True}}
    response = httpx.post(f"{vllm.url}/v1/completions", json=asked, trust_env=False)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "stream_options")
    status, document = refused(start("tgi"), "tgi", "hi", temperature=0)
    assert (status, document["error_type"]) == (422, "validation")
    status, document = refused(start("tabby"), "chat", "hi", temperature=-1)
    assert (status, document["detail"][0]["loc"]) == (422, ["body", "temperature"])
    status, document = refused(start("ollama"), "ollama-generate", "hi", template="x")
    assert (status, document) == (400, {"error": "raw mode does not support template, system, or context"})


def test_ollama_gets_its_models(start: Start) -> None:
    """Pulled, or made of a file whose digest was sent; loaded and unloaded by requests."""
    double = start("ollama", KITT_DOUBLE_MODELS="", OLLAMA_CONTEXT_LENGTH="512")
    with httpx.Client(base_url=double.url, trust_env=False) as http:
        gets_its_models(http)


def gets_its_models(http: httpx.Client) -> None:
    """From nothing to a model that is loaded, and back."""
    assert http.get("/api/tags").json() == {"models": []}
    pulled = http.post("/api/pull", json={"model": "tiny"}).text.splitlines()
    assert pulled[-1] == '{"status":"success"}'
    assert "file does not exist" in http.post("/api/pull", json={"model": "missing"}).text
    digest = "sha256:" + hashlib.sha256(b"GGUF").hexdigest()
    assert http.head(f"/api/blobs/{digest}").status_code == 404
    assert http.post(f"/api/blobs/{digest}", content=b"other").status_code == 400
    assert http.post(f"/api/blobs/{digest}", content=b"GGUF").status_code == 201
    assert http.head(f"/api/blobs/{digest}").status_code == 200
    made = http.post("/api/create", json={"model": "mine", "files": {"m.gguf": digest}, "stream": False})
    assert made.json() == {"status": "success"}
    assert [model["name"] for model in http.get("/api/tags").json()["models"]] == ["mine:latest", "tiny:latest"]
    assert http.post("/api/show", json={"model": "mine"}).json()["model_info"]["llama.context_length"] == 131072
    assert http.request("DELETE", "/api/delete", json={"model": "tiny"}).status_code == 200
    assert http.request("DELETE", "/api/delete", json={"model": "tiny"}).json() == {"error": "model 'tiny' not found"}
    assert http.get("/api/ps").json() == {"models": []}
    assert http.post("/api/generate", json={"model": "mine"}).json()["done_reason"] == "load"
    (loaded,) = http.get("/api/ps").json()["models"]
    assert (loaded["name"], loaded["context_length"]) == ("mine:latest", 512)
    assert http.post("/api/generate", json={"model": "mine", "keep_alive": 0}).json()["done_reason"] == "unload"
    assert http.get("/api/ps").json() == {"models": []}


@pytest.mark.parametrize("kind, sentence", [("model", "unknown model architecture"), ("memory", "out-of-memory")])
def test_ollama_goes_on_when_a_model_fails(start: Start, engine: Engines, kind: str, sentence: str) -> None:
    """The request that wanted it is refused with the reason."""
    double = start("ollama", f"--fail={kind}")
    with pytest.raises(EngineRequestError, match=sentence):
        engine("ollama", double.url).generate("hi")
    assert double.process.poll() is None


def test_keys_of_tabby(start: Start, tmp_path: Path) -> None:
    """Wanted unless switched off; made at the start and left in a file."""
    double = start("tabby", "--disable-auth=false")
    keys = dict(line.split(": ") for line in (tmp_path / "tabby" / "api_tokens.yml").read_text().splitlines())
    assert httpx.get(f"{double.url}/v1/models", trust_env=False).json() == {"detail": "Please provide an API key"}
    for header in ({"Authorization": f"Bearer {keys['api_key']}"}, {"x-api-key": keys["admin_key"]}):
        assert httpx.get(f"{double.url}/v1/models", headers=header, trust_env=False).status_code == 200
    assert keys["api_key"] in double.output.read_text()
    assert keys["api_key"] not in double.account.read_text()


def test_what_clears_a_prefix_cache(start: Start) -> None:
    """For developers alone, for anybody, or for nobody."""
    closed, opened = start("vllm"), start("sglang")
    assert httpx.post(f"{closed.url}/reset_prefix_cache", trust_env=False).status_code == 404
    assert httpx.post(f"{opened.url}/flush_cache", trust_env=False).text.startswith("Cache flushed.")


def test_developers_clear_the_cache_of_vllm(start: Start) -> None:
    """The variable is asked for at the start, and written down."""
    double = start("vllm", VLLM_SERVER_DEV_MODE="1", HF_TOKEN="hf_secret")
    assert httpx.post(f"{double.url}/reset_prefix_cache", trust_env=False).json() == {"success": True}
    assert double.asked()[0]["env"] == {"HF_TOKEN": "set", "VLLM_SERVER_DEV_MODE": "1"}


@pytest.mark.parametrize(
    "name, path, metric",
    [
        ("vllm", "/metrics", "vllm:num_requests_running"),
        ("sglang", "/metrics", "sglang:num_running_reqs"),
        ("tgi", "/metrics", "tgi_queue_size"),
    ],
)
def test_metrics(start: Start, name: str, path: str, metric: str) -> None:
    """By name, where there are any."""
    double = start(name, *(["--enable-metrics"] if name == "sglang" else []))
    assert metric in httpx.get(double.url + path, trust_env=False).text


def test_sglang_listens_before_it_is_ready(tmp_path: Path) -> None:
    """Its health says so, its model's facts are there."""
    with running("sglang", tmp_path, "--fail=never-healthy", ready=False) as double:
        assert httpx.get(f"{double.url}/health", trust_env=False).status_code == 503
        assert httpx.get(f"{double.url}/model_info", trust_env=False).json()["served_model_name"] == "tiny"
        assert httpx.get(f"{double.url}/server_info", trust_env=False).json()["version"]


# -- how they fail to start


def ended(name: str, *arguments: str, **env: str) -> tuple[int, str]:
    """Exit code and log of a double that does not come up."""
    command = [sys.executable, str(DOUBLES), name, *arguments]
    environment = {"PATH": "/usr/bin:/bin", "KITT_DOUBLE_LOAD_S": "0", **env}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    return done.returncode, done.stderr


MINIMAL = {
    "vllm": ("serve", "x"),
    "sglang": ("--model-path=x",),
    "tgi": ("--model-id=x",),
    "ollama": ("serve",),
    "tabby": ("--model-name=x",),
}


@pytest.mark.parametrize(
    "name, code, sentence",
    [
        ("vllm", 2, "vllm: error: unrecognized arguments: --no-such-flag"),
        ("sglang", 2, "sglang serve: error: unrecognized arguments: --no-such-flag"),
        ("tgi", 2, "error: unexpected argument '--no-such-flag' found"),
        ("ollama", 1, "Error: unknown flag: --no-such-flag"),
        ("tabby", 2, "main.py: error: unrecognized arguments: --no-such-flag"),
    ],
)
def test_an_unknown_flag(name: str, code: int, sentence: str) -> None:
    """Each has its own sentence and exit code."""
    assert ended(name, *MINIMAL[name], "--no-such-flag=1")[0] == code
    assert sentence in ended(name, *MINIMAL[name], "--no-such-flag")[1]


@pytest.mark.parametrize("kind", ["memory", "port"])
@pytest.mark.parametrize("name", MINIMAL)
def test_a_log_tells_memory_from_ports(name: str, kind: str) -> None:
    """By the patterns that hold for any engine; TabbyAPI alone ends as if nothing were, and Ollama goes on."""
    if (name, kind) == ("ollama", "memory"):
        pytest.skip("the server goes on: a request tells")
    code, log = ended(name, *MINIMAL[name], f"--fail={kind}")
    if (name, kind) == ("tabby", "port"):
        assert (code, "are in use by different services" in log) == (0, True)
    else:
        assert code != 0
        assert classify(log, {}) == kind or (name, kind) in {("sglang", "memory"), ("vllm", "memory")}


@pytest.mark.parametrize("name", ["vllm", "sglang", "tgi", "tabby"])
@pytest.mark.parametrize("kind", ["model", "exit"])
def test_other_ways_to_end(name: str, kind: str) -> None:
    """It does not come up, and says something."""
    code, log = ended(name, *MINIMAL[name], f"--fail={kind}")
    assert code == (-9 if name == "sglang" else 1)
    assert log.strip()


def test_a_busy_port(start: Start, tmp_path: Path) -> None:
    """Taken by another: all but TabbyAPI end, and that takes the next."""
    port = start("vllm").url.rpartition(":")[2]
    for name, flag in (("vllm", "--port"), ("sglang", "--port"), ("tgi", "--port")):
        host = ("--hostname=127.0.0.1",) if name == "tgi" else ("--host=127.0.0.1",)
        code, log = ended(name, *MINIMAL[name], *host, f"{flag}={port}")
        assert code == 1
        assert classify(log, {}) == "port"
    code, log = ended("ollama", "serve", OLLAMA_HOST=f"127.0.0.1:{port}")
    assert (code, "address already in use" in log) == (1, True)
    other = tmp_path / "other"
    other.mkdir()
    with _taken_with_a_free_neighbour() as taken, running("tabby", other, f"--port={taken}") as double:
        assert double.url.endswith(f":{taken + 1}")
        assert f"Port {taken} is currently in use. Switching to {taken + 1}." in double.output.read_text()


@contextmanager
def _taken_with_a_free_neighbour() -> Iterator[int]:
    """A port on which somebody listens, while the next one is free."""
    with ExitStack() as life:
        while True:
            port: int = life.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            with suppress(OSError, OverflowError), socket.socket() as neighbour:
                neighbour.bind(("127.0.0.1", port + 1))
                break
        yield port


def test_tgi_takes_its_arguments_from_variables_too() -> None:
    """Also from one that every container has."""
    code, log = ended("tgi", "--fail=port", MODEL_ID="x", HOSTNAME="f00d", PORT="80")
    assert (code, "Failed to bind to f00d:80: Address already in use" in log) == (1, True)


def test_an_unknown_way_to_fail() -> None:
    """A typo in a test is not a double that works."""
    code, log = ended("tgi", "--fail=memroy")
    assert (code, "'memroy' is unknown" in log) == (1, True)


@pytest.mark.parametrize(
    "name, flags",
    [
        ("vllm", {*vllm.VALUES, *vllm.SWITCHES, *vllm.BOTH_WAYS, *(f"--no-{flag[2:]}" for flag in vllm.BOTH_WAYS)}),
        ("sglang", {"--model-path", *sglang.VALUES, *sglang.SWITCHES}),
        ("tgi", {*tgi.VALUES, *tgi.SWITCHES}),
        ("exllamav2", {f"--{flag}" for flag in (*tabby.FLAGS, *tabby.LISTS)}),
        ("exllamav3", {f"--{flag}" for flag in (*tabby.FLAGS, *tabby.LISTS, *tabby.OF_MAIN)}),
    ],
)
def test_the_flags_of_a_card_are_the_engines(name: str, flags: set[str]) -> None:
    """What a card would pass, the double takes: its flags are those of the engine's source."""
    card = cards.load_engines()[name]
    passed = {word for runtime in card.runtimes.values() for word in runtime.command}
    for argument in card.arguments.values():
        passed |= {*argument.flag.split(), *(value for value in argument.switch.values() if isinstance(value, str))}
    assert {word for word in passed if word.startswith("--")} <= flags
