"""A double of Ollama 0.33: ``ollama serve``, without a model.

Sources, in ollama/ollama: cmd/cmd.go and envconfig/config.go (start, host), server/routes.go (routes, streams, errors),
server/create.go (creation, blobs), server/images.go (pull), api/types.go (documents), openai/openai.go and
middleware/openai.go (the OpenAI way), llm/llama_server.go (load failures).
Quirks: no arguments, all is said by the environment; it is up before it has any model, and a model is loaded by the
request that first names it; JSON lines; half a character makes no line; a long prompt is cut without a word; streamed
completions say a usage of zeros in every chunk, chats in one of their own; an error in mid-stream is a line, and in
OpenAI's form an empty chunk after which nothing comes; no tokenizer, no metrics, no way to force a length.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.doubles import tokens
from tests.doubles.server import Account, Exchange, Refused, Server, busy, failure, load, log, pace, sse, wait_forever
from tests.doubles.tokens import Token

VERSION = "0.33.0"
MODELS_ENV = "KITT_DOUBLE_MODELS"  # what it has from the start; a model named thinking-... thinks
_ENV = ("OLLAMA_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_")
_NDJSON = "application/x-ndjson"


def main(argv: Sequence[str]) -> int:
    """Starts as the command does, and serves."""
    arguments, kind = failure(argv)
    account = Account()
    account.begin("ollama", arguments, _ENV)
    if arguments[:1] in (["--version"], ["-v"]):
        sys.stdout.write(f"ollama version is {VERSION}\n")
        return 0
    if arguments[:1] not in (["serve"], ["start"]):
        log(f'Error: unknown command "{arguments[0] if arguments else ""}" for "ollama"')
        return 1
    if len(arguments) > 1:
        extra = arguments[1]
        said = (
            f"unknown flag: {extra.partition('=')[0]}"
            if extra.startswith("--")
            else f"accepts 0 arg(s), received {len(arguments) - 1}"
        )
        log(f"Error: {said}")
        return 1
    address = _host()
    if busy(address, kind):
        log(f"Error: listen tcp {address[0]}:{address[1]}: bind: address already in use")
        return 1
    if kind == "exit":
        log("Error: could not create directory mkdir /root/.ollama: permission denied")
        return 1
    if kind == "never-healthy":
        wait_forever()
    daemon = Daemon(kind)
    server = Server(address, daemon.answer, account)
    now = "2026-11-21T17:00:00.000Z"
    log(f'time={now} level=INFO source=routes.go:1951 msg="server config" env="map[]"')
    log(f'time={now} level=INFO source=routes.go:2008 msg="Listening on {address[0]}:{address[1]} (version {VERSION})"')
    return server.run()


def _host() -> tuple[str, int]:
    """Source: envconfig/config.go, Host."""
    scheme, _, rest = os.environ.get("OLLAMA_HOST", "").strip().rpartition("://")
    host, colon, port = rest.partition("/")[0].rpartition(":")
    if not colon:
        host, port = port, {"http": "80", "https": "443"}.get(scheme, "11434")
    return host or ("0.0.0.0" if colon else "127.0.0.1"), int(port)


class Daemon:
    """Answers requests.

    Attributes:
        models: names of those it has.
        loaded: names of those in memory.

    """

    def __init__(self, kind: str) -> None:
        self.models = {_full(name) for name in os.environ.get(MODELS_ENV, "tiny").split(",") if name}
        self.loaded: set[str] = set()
        self.context = int(os.environ.get("OLLAMA_CONTEXT_LENGTH", "0")) or 4096
        self._blobs: set[str] = set()
        self._fail = kind
        self._lock = threading.Lock()

    def answer(self, exchange: Exchange) -> None:
        """Finds the route."""
        method, path = exchange.route
        known = {
            ("POST", "/api/generate"): self._generate,
            ("POST", "/api/chat"): self._chat,
            ("POST", "/api/pull"): self._pull,
            ("POST", "/api/create"): self._create,
            ("POST", "/api/show"): self._show,
            ("DELETE", "/api/delete"): self._delete,
            ("GET", "/api/tags"): self._tags,
            ("GET", "/api/ps"): self._ps,
            ("POST", "/v1/chat/completions"): self._openai_chat,
            ("POST", "/v1/completions"): self._openai_completions,
        }
        if route := known.get(exchange.route):
            route(exchange)
        elif method in {"GET", "HEAD"} and path == "/":
            exchange.raw(b"Ollama is running")
        elif method in {"GET", "HEAD"} and path == "/api/version":
            exchange.json({"version": VERSION})
        elif method == "GET" and path == "/v1/models":
            models = [
                {"id": name, "object": "model", "created": 1, "owned_by": "library"} for name in sorted(self.models)
            ]
            exchange.json({"object": "list", "data": models or None})
        elif path.startswith("/api/blobs/"):
            self._blob(exchange, path.removeprefix("/api/blobs/"))
        else:
            exchange.raw(b"404 page not found", 404, kind="text/plain")

    # -- models

    def _tags(self, exchange: Exchange) -> None:
        exchange.json({"models": [self._about(name) for name in sorted(self.models)]})

    def _ps(self, exchange: Exchange) -> None:
        """Source: routes.go, PsHandler: what is in memory, with its context."""
        beside = {"expires_at": _now(), "size_vram": 0, "context_length": self.context}
        exchange.json({"models": [{**self._about(name), **beside} for name in sorted(self.loaded)]})

    def _show(self, exchange: Exchange) -> None:
        name = self._existing(exchange)
        info = {"general.architecture": "llama", "llama.context_length": 131072}
        capabilities = ["completion", "tools", *(["thinking"] if _thinks(name) else [])]
        about = {"details": self._about(name)["details"], "model_info": info, "capabilities": capabilities}
        exchange.json({"modelfile": f"FROM {name}\n", "parameters": "", "template": "", **about, "modified_at": _now()})

    def _delete(self, exchange: Exchange) -> None:
        name = self._existing(exchange)
        self.models.discard(name)
        self.loaded.discard(name)
        exchange.raw(b"")

    def _about(self, name: str) -> dict[str, Any]:
        digest = hashlib.sha256(name.encode()).hexdigest()
        details = {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "0.6M",
        }
        about = {"name": name, "model": name, "modified_at": _now(), "size": 1_180_000, "digest": digest}
        return {**about, "details": {**details, "quantization_level": "F16"}}

    def _pull(self, exchange: Exchange) -> None:
        body = _object(exchange)
        name = _full(body.get("model") or body.get("name") or "")

        def states() -> Iterator[dict[str, Any]]:
            yield {"status": "pulling manifest"}
            if "missing" in name:
                yield {"error": "pull model manifest: file does not exist"}
                return
            digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
            for completed in (0, 600_000, 1_180_000):
                yield {
                    "status": f"pulling {digest[7:19]}",
                    "digest": digest,
                    "total": 1_180_000,
                    "completed": completed,
                }
            yield {"status": "verifying sha256 digest"}
            yield {"status": "writing manifest"}
            self.models.add(name)
            yield {"status": "success"}

        _progress(exchange, body, states())

    def _create(self, exchange: Exchange) -> None:
        body = _object(exchange)
        files: dict[str, str] = body.get("files") or {}
        for file, digest in files.items():
            if file.startswith("/") or ".." in file:
                raise Refused(400, {"error": "file path must be relative"})
            if digest not in self._blobs:
                raise Refused(400, {"error": f'blob "{digest}" not found'})

        def states() -> Iterator[dict[str, Any]]:
            if not files and not body.get("from"):
                yield {"error": "neither 'from' or 'files' was specified", "status": 400}
                return
            yield {"status": "parsing GGUF"}
            yield {"status": "writing manifest"}
            self.models.add(_full(body.get("model") or body.get("name") or ""))
            yield {"status": "success"}

        _progress(exchange, body, states())

    def _blob(self, exchange: Exchange, digest: str) -> None:
        """Source: routes.go, HeadBlobHandler and CreateBlobHandler."""
        if exchange.command == "HEAD":
            exchange.raw(b"", 200 if digest in self._blobs else 404)
            return
        if digest in self._blobs:
            exchange.raw(b"")
            return
        found = "sha256:" + hashlib.sha256(exchange.sent).hexdigest()
        if found != digest:
            raise Refused(400, {"error": f'digest mismatch, expected "{digest}", got "{found}"'})
        self._blobs.add(digest)
        exchange.raw(b"", 201)

    def _existing(self, exchange: Exchange) -> str:
        """The model that is named; Refused when it is not there."""
        name = str(_object(exchange).get("model") or "")
        if not name:
            raise Refused(400, {"error": "model is required"})
        if _full(name) not in self.models:
            raise Refused(404, {"error": f"model '{name}' not found"})
        return _full(name)

    def _load(self, name: str) -> None:
        """Source: llm/llama_server.go, WaitUntilRunning; the status is that of the request that wanted it."""
        with self._lock:
            if name in self.loaded:
                return
            if self._fail == "model":
                text = "exit status 1: error loading model: unknown model architecture: 'x'"
                raise Refused(500, {"error": f"llama-server process has terminated: {text}"})
            if self._fail == "memory":
                text = "cudaMalloc failed: out of memory"
                raise Refused(500, {"error": f"llama-server reported out-of-memory during startup: {text}"})
            load()
            self.loaded.add(name)

    # -- its own API

    def _generate(self, exchange: Exchange) -> None:
        body = _object(exchange)
        name = self._existing(exchange)
        head = {"model": body["model"], "created_at": _now(), "response": ""}
        if not body.get("prompt"):
            if body.get("keep_alive") in {0, "0"}:
                self.loaded.discard(name)
                exchange.json({**head, "done": True, "done_reason": "unload"})
            else:
                self._load(name)
                exchange.json({**head, "done": True, "done_reason": "load"})
            return
        if body.get("raw") and (body.get("template") or body.get("system") or body.get("context")):
            raise Refused(400, {"error": "raw mode does not support template, system, or context"})
        self._answer(exchange, body, name, body["prompt"], chat=False)

    def _chat(self, exchange: Exchange) -> None:
        body = _object(exchange)
        name = self._existing(exchange)
        self._answer(exchange, body, name, _rendered(body), chat=True)

    def _answer(self, exchange: Exchange, body: dict[str, Any], name: str, prompt: str, *, chat: bool) -> None:
        lines = self._lines(body, name, prompt, chat=chat)
        if body.get("stream") is False:
            exchange.json(_joined(list(lines), chat=chat), kind="application/json; charset=utf-8")
        else:
            exchange.stream((sse(line, lead="", end="\n") for line in lines), kind=_NDJSON)

    def _lines(self, body: dict[str, Any], name: str, prompt: str, *, chat: bool) -> Iterator[dict[str, Any]]:
        """The documents of a stream; Refused before the first."""
        likely = body.get("top_logprobs") or 0
        if not 0 <= likely <= 20:
            raise Refused(400, {"error": "top_logprobs must be between 0 and 20"})
        if body.get("think") and not _thinks(name):
            raise Refused(400, {"error": f'"{body["model"]}" does not support thinking'})
        began = time.monotonic_ns()
        self._load(name)
        loaded = time.monotonic_ns()
        options = body.get("options") or {}
        context = int(options.get("num_ctx") or self.context)
        length = tokens.count(prompt)
        if length > context - 1:
            if body.get("shift") is False:
                text = "the prompt is longer than the context length currently available to the model"
                raise Refused(400, {"error": f"{text}; shorten the prompt, adjust the context length in settings, ..."})
            length = context - 1  # the rest is cut away
        asked = options.get("num_predict", -1)
        made, reason = tokens.answer(prompt, min(asked, 10 * context) if asked > 0 else 10 * context)
        calls = chat and bool(body.get("tools"))
        for place, token in enumerate(made):
            pace()
            if "[break]" in prompt and place == 3:
                yield {"error": "an error was encountered while running the model: CUDA error"}
                return
            if token.end or calls or not token.text:
                continue
            thinks = place < 4 and _thinks(name) and body.get("think") is not False
            beside = _logprobs([token], likely) if body.get("logprobs") else {}
            yield {**_piece(body, token.text, chat=chat, thinks=thinks), "done": False, **beside}
        if calls:
            function = {"index": 0, "name": "weather", "arguments": {"city": "Köln"}}
            message = {"role": "assistant", "content": "", "tool_calls": [{"id": "call_abc", "function": function}]}
            yield {"model": body["model"], "created_at": _now(), "message": message, "done": False}
        ended = time.monotonic_ns()
        times = {"total_duration": ended - began, "load_duration": loaded - began}
        prefill = {"prompt_eval_count": length, "prompt_eval_duration": 130_079_000}
        decode = {"eval_count": len(made), "eval_duration": ended - loaded}
        tail = {} if chat or body.get("raw") else {"context": [number for _, number in tokens.tokenize(prompt)]}
        last = {**_piece(body, "", chat=chat), "done": True, "done_reason": reason}
        yield {**last, **tail, **times, **prefill, **decode}

    # -- OpenAI's

    def _openai_chat(self, exchange: Exchange) -> None:
        body = _object(exchange)
        native = _native(body) | {"messages": body.get("messages", []), "tools": body.get("tools")}
        if "reasoning_effort" in body:
            native["think"] = body["reasoning_effort"] != "none"
        with _as_openai():
            name = self._existing(exchange)
            lines = self._lines(native, name, _rendered(native), chat=True)
            first = next(lines)
        if body.get("stream"):
            exchange.stream(_chat_chunks(body, _from(first, lines)))
            return
        whole = _joined([first, *lines], chat=True)
        message = whole["message"]
        said = {"role": "assistant", "content": message.get("content", "")}
        said |= {"reasoning": message["thinking"]} if message.get("thinking") else {}
        calls = _openai_calls(message.get("tool_calls") or [])
        choice = {"index": 0, "message": {**said, **({"tool_calls": calls} if calls else {})}}
        choice["finish_reason"] = "tool_calls" if calls else whole["done_reason"]
        if whole.get("logprobs"):
            choice["logprobs"] = {"content": whole["logprobs"]}
        exchange.json({**_about("chat.completion", body), "choices": [choice], "usage": _usage(whole)})

    def _openai_completions(self, exchange: Exchange) -> None:
        body = _object(exchange)
        native = _native(body) | {"prompt": body.get("prompt", "")}
        with _as_openai():
            name = self._existing(exchange)
            lines = self._lines(native, name, native["prompt"], chat=False)
            first = next(lines)
        if body.get("stream"):
            exchange.stream(_completion_chunks(body, _from(first, lines)))
            return
        whole = _joined([first, *lines], chat=False)
        choice = {"text": whole["response"], "index": 0, "finish_reason": whole["done_reason"]}
        exchange.json({**_about("text_completion", body), "choices": [choice], "usage": _usage(whole)})


class _as_openai:  # noqa: N801 - it reads as a statement
    """Errors in OpenAI's form. Source: openai.go, NewError."""

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Makes another one of it."""
        if isinstance(error, Refused):
            kinds = {400: "invalid_request_error", 404: "not_found_error"}
            said = {"message": error.document["error"], "type": kinds.get(error.status, "api_error")}
            raise Refused(error.status, {"error": {**said, "param": None, "code": None}}) from None


def _from(first: dict[str, Any], rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield first
    yield from rest


def _chat_chunks(body: dict[str, Any], lines: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Source: middleware/openai.go, ChatWriter: the role in the first chunk, the finish reason in one of its own."""
    about = _about("chat.completion.chunk", body)
    role, called = {"role": "assistant"}, False
    for line in lines:
        message = line.get("message", {"content": ""})  # an error is read as a message that says nothing
        calls = _openai_calls(message.get("tool_calls") or [])
        called = called or bool(calls)
        empty = line.get("done") and not role and not message.get("content")
        if not empty:
            delta = {**role, "content": message.get("content", "")}
            delta |= {"reasoning": message["thinking"]} if message.get("thinking") else {}
            delta |= {"tool_calls": calls} if calls else {}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            choice |= {"logprobs": {"content": line["logprobs"]}} if line.get("logprobs") else {}
            yield sse({**about, "choices": [choice]})
            role = {}
        if line.get("done"):
            reason = "tool_calls" if called and line["done_reason"] == "stop" else line["done_reason"]
            yield sse({**about, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
            if (body.get("stream_options") or {}).get("include_usage"):
                yield sse({**about, "choices": [], "usage": _usage(line)})
            yield sse("[DONE]")


def _completion_chunks(body: dict[str, Any], lines: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Source: middleware/openai.go, CompleteWriter: where usage is wanted, each chunk has one of zeros."""
    about = _about("text_completion", body)
    counted = (body.get("stream_options") or {}).get("include_usage")
    zeros = {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}} if counted else {}
    for line in lines:
        choice = {"text": line.get("response", ""), "index": 0, "finish_reason": line.get("done_reason")}
        yield sse({**about, "choices": [choice], **zeros})
        if line.get("done"):
            if counted:
                yield sse({**about, "choices": [], "usage": _usage(line)})
            yield sse("[DONE]")


def _native(body: dict[str, Any]) -> dict[str, Any]:
    """Source: openai.go, FromChatRequest and FromCompleteRequest."""
    options = {"num_predict": body["max_tokens"]} if body.get("max_tokens") is not None else {}
    logprobs = body.get("logprobs")
    return {
        "model": body.get("model"),
        "options": options,
        "logprobs": bool(logprobs),
        "top_logprobs": body.get("top_logprobs") or (logprobs if type(logprobs) is int else 0),
    }


def _piece(body: dict[str, Any], text: str, *, chat: bool, thinks: bool = False) -> dict[str, Any]:
    head = {"model": body["model"], "created_at": _now()}
    if not chat:
        return {**head, "response": "", "thinking": text} if thinks else {**head, "response": text}
    beside = {"content": "", "thinking": text} if thinks else {"content": text}
    return {**head, "message": {"role": "assistant", **beside}}


def _joined(lines: list[dict[str, Any]], *, chat: bool) -> dict[str, Any]:
    """One document of a whole answer. Source: routes.go, the end of GenerateHandler."""
    last = lines[-1]
    if "error" in last:
        raise Refused(500, last)
    logprobs = [entry for line in lines for entry in line.get("logprobs", [])]
    beside = {"logprobs": logprobs} if logprobs else {}
    if not chat:
        thought = "".join(line.get("thinking", "") for line in lines)
        text = "".join(line["response"] for line in lines)
        return {**last, "response": text, **({"thinking": thought} if thought else {}), **beside}
    messages = [line["message"] for line in lines]
    whole: dict[str, Any] = {"role": "assistant", "content": "".join(message["content"] for message in messages)}
    if thought := "".join(message.get("thinking", "") for message in messages):
        whole["thinking"] = thought
    if calls := [call for message in messages for call in message.get("tool_calls", [])]:
        whole["tool_calls"] = calls
    return {**last, "message": whole, **beside}


def _logprobs(made: Sequence[Token], most: int) -> dict[str, Any]:
    entries = []
    for token in made:
        top = [
            {"token": text, "bytes": list(text.encode()), "logprob": value}
            for text, _, value in tokens.likely(token, most)
        ]
        entry = {"token": token.text, "bytes": list(token.text.encode()), "logprob": token.logprob}
        entries.append({**entry, **({"top_logprobs": top} if top else {})})
    return {"logprobs": entries}


def _openai_calls(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Arguments become a text. Source: openai.go, ToToolCalls."""
    return [
        {
            "id": call["id"],
            "index": call["function"]["index"],
            "type": "function",
            "function": {"name": call["function"]["name"], "arguments": '{"city":"Köln"}'},
        }
        for call in calls
    ]


def _progress(exchange: Exchange, body: dict[str, Any], states: Iterator[dict[str, Any]]) -> None:
    """Source: routes.go, streamResponse and waitForStream: an error before anything else is a status."""
    first = next(states)
    if "error" in first:
        raise Refused(first.get("status", 500), {"error": first["error"]})
    if body.get("stream") is False:
        *_, last = [first, *states]
        if "error" in last:
            raise Refused(500, last)
        exchange.json(last)
    else:
        exchange.stream((sse(state, lead="", end="\n") for state in _from(first, states)), kind=_NDJSON)


def _object(exchange: Exchange) -> dict[str, Any]:
    if not exchange.sent:
        raise Refused(400, {"error": "missing request body"})
    if not isinstance(exchange.body, dict):
        raise Refused(400, {"error": "invalid character 'x' looking for beginning of value"})
    return exchange.body


def _rendered(body: dict[str, Any]) -> str:
    return tokens.templated(body.get("messages") or [])


def _about(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    name = "chatcmpl-123" if kind.startswith("chat") else "cmpl-123"
    return {
        "id": name,
        "object": kind,
        "created": int(time.time()),
        "model": body["model"],
        "system_fingerprint": "fp_ollama",
    }


def _usage(line: dict[str, Any]) -> dict[str, int]:
    prompt, completion = line.get("prompt_eval_count", 0), line.get("eval_count", 0)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _full(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _thinks(name: str) -> bool:
    return name.startswith("thinking")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
