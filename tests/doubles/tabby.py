"""A double of TabbyAPI, without a model: of its branch ``exl2-checkpoint``, the last that serves EXL2, or of ``main``.

``KITT_DOUBLE_TABBY=main`` says which. Sources, in theroyallab/tabbyAPI: main.py (start, ports), common/args.py and
common/config_models.py (arguments), common/auth.py (keys), common/errors.py (limits), endpoints/core/router.py (health,
models, tokens), endpoints/OAI (documents, chunks), sse-starlette (events end in CRLF, pings are comments).
Quirks: each argument wants a value, even a switch; a busy port is left for the next one, and when that is busy too it
ends with exit code 0; nothing listens before the model is loaded; keys are wanted unless switched off, and are made and
printed at the start; no role in a chat's chunks; usage comes on request alone, streamed or not, in a chunk that has a
choice and takes the finish reason from the one before; the model's name in a request is not looked at.
"""

from __future__ import annotations

import argparse
import os
import secrets
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.doubles import tokens
from tests.doubles.server import Account, Exchange, Refused, Server, busy, failure, load, log, pace, sse, wait_forever
from tests.doubles.tokens import Token

MAIN = os.environ.get("KITT_DOUBLE_TABBY", "") == "main"
KEYS = "api_tokens.yml"
_ENV = ("CUDA_", "NVIDIA_", "HF_", "EXLLAMA_", "PYTORCH_")
_CRLF = "\r\n\r\n"
FLAGS = (
    *(
        "config",
        "host",
        "port",
        "disable-auth",
        "disable-fetch-requests",
        "send-tracebacks",
        "log-prompt",
        "log-requests",
    ),
    *("log-generation-params", "log-chat-completion-requests", "model-dir", "inline-model-loading", "use-dummy-models"),
    *("model-name", "backend", "max-seq-len", "cache-size", "cache-mode", "tensor-parallel", "tensor-parallel-backend"),
    *(
        "gpu-split-auto",
        "rope-scale",
        "rope-alpha",
        "chunk-size",
        "output-chunking",
        "max-batch-size",
        "prompt-template",
    ),
    *("vision", "force-enable-thinking", "reasoning", "reasoning-start-token", "reasoning-end-token", "tool-format"),
    *("draft-mode", "draft-model-dir", "draft-model-name", "draft-rope-scale", "draft-rope-alpha", "draft-cache-mode"),
    *("draft-num-tokens", "ngram-match-min", "override-preset", "lora-dir", "embedding-model-dir", "embeddings-device"),
    *(
        "embedding-model-name",
        "sysmem-recurrent-cache",
        "cuda-malloc-async",
        "unsafe-launch",
        "disable-request-streaming",
    ),
    *("realtime-process-priority", "seqlog", "seqlog-server-url", "seqlog-api-key"),
)
OF_MAIN = ("sse-ping-interval", "cpu-moe-offload-layers", "start-in-reasoning", "dynamic-draft", "sysmem-kv-cache")
LISTS = (
    "api-servers",
    "dummy-model-names",
    "use-as-default",
    "autosplit-reserve",
    "gpu-split",
    "draft-gpu-split",
    "loras",
)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Source: common/args.py: no argument has a type, none is a switch."""
    parser = argparse.ArgumentParser(prog="main.py", description="TabbyAPI server", allow_abbrev=False)
    for name in (*FLAGS, *(OF_MAIN if MAIN else ())):
        parser.add_argument(f"--{name}")
    for name in LISTS:
        parser.add_argument(f"--{name}", nargs="+")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Starts as main.py does, and serves."""
    arguments, kind = failure(argv)
    account = Account()
    account.begin("tabby", arguments, _ENV)
    options = _parse(arguments)
    host, port = options.host or "127.0.0.1", int(options.port or 5000)
    if busy((host, port), kind):
        if busy((host, port + 1), kind):
            _log("ERROR", f"Ports {port} and {port + 1} are in use by different services.")
            log("Please free up those ports or specify a different one.", "Exiting.")
            return 0
        _log("WARNING", f"Port {port} is currently in use. Switching to {port + 1}.")
        port += 1
    folder = Path(options.model_dir or "models") / (options.model_name or "")
    if kind == "model":
        log("Traceback (most recent call last):", f"ValueError: Failed to load config.json from {folder}")
        return 1
    if kind == "never-healthy":
        wait_forever()
    load()
    if kind in {"memory", "exit"}:
        reason = (
            "CUDA out of memory. Tried to allocate 2.00 GiB."
            if kind == "memory"
            else "CUDA error: unspecified launch failure"
        )
        log(
            "Traceback (most recent call last):",
            f"torch.{'OutOfMemoryError' if kind == 'memory' else 'AcceleratorError'}: {reason}",
        )
        return 1
    _log("INFO", "Model successfully loaded.")
    engine = Engine(options, folder.name)
    server = Server((host, port), engine.answer, account)
    _log("INFO", f"Completions: http://{host}:{port}/v1/completions")
    log(f"INFO:     Uvicorn running on http://{host}:{port} (Press CTRL+C to quit)")
    return server.run()


def _log(level: str, line: str) -> None:
    log(f"2026-11-21 17:00:00.000 {level}:     {line}")


def _keys() -> tuple[str, str]:
    """The API key and the admin's, from the file in the working directory, or made and written there."""
    file = Path(KEYS)
    if file.exists():
        found = dict(line.split(": ", 1) for line in file.read_text(encoding="utf-8").splitlines() if ": " in line)
        return found["api_key"], found["admin_key"]
    made = secrets.token_hex(16), secrets.token_hex(16)
    file.write_text(f"api_key: {made[0]}\nadmin_key: {made[1]}\n", encoding="utf-8")
    _log("INFO", f"Your API key is: {made[0]}")
    log(f"Your admin key is: {made[1]}")
    log("If these keys get compromised, make sure to delete api_tokens.yml and restart the server. Have fun!")
    return made


class Engine:
    """Answers requests."""

    def __init__(self, options: argparse.Namespace, model: str) -> None:
        self.model = model
        self.context = int(options.max_seq_len or 4096)
        self.cache = int(options.cache_size or self.context)
        self.open = str(options.disable_auth).lower() in {"true", "1", "yes", "on"}
        self.reasons = str(options.reasoning).lower() == "true"
        self.calls = bool(options.tool_format)
        self.key, self.admin = ("", "") if self.open else _keys()

    def answer(self, exchange: Exchange) -> None:
        """Finds the route; all but health and what it is wants a key."""
        method, path = exchange.route
        if method == "GET" and path == "/health":
            exchange.json({"status": "healthy", "issues": []})
            return
        if method == "GET" and path == "/.well-known/serviceinfo":
            exchange.json({"version": 0.1, "software": {"name": "TabbyAPI"}, "api": {"openai": {"version": 1}}})
            return
        known = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/v1/token/encode"): self._encode,
            ("GET", "/v1/models"): self._models,
            ("GET", "/v1/model"): self._model,
        }
        if (route := known.get(exchange.route)) is None:
            exchange.json({"detail": "Not Found"}, 404)
            return
        self._require_key(exchange)
        route(exchange)

    def _require_key(self, exchange: Exchange) -> None:
        """Source: common/auth.py, check_api_key."""
        if self.open:
            return
        key = exchange.headers.get("x-api-key")
        if key is None:
            if "authorization" not in exchange.headers:
                raise Refused(401, {"detail": "Please provide an API key"})
            scheme, _, key = exchange.headers["authorization"].partition(" ")
            key = key if scheme.lower() == "bearer" else ""
        if key not in {self.key, self.admin}:
            raise Refused(401, {"detail": "Invalid API key"})

    def _models(self, exchange: Exchange) -> None:
        """To whoever has no admin key, the one that is loaded."""
        exchange.json({"object": "list", "data": [self._card()]})

    def _model(self, exchange: Exchange) -> None:
        exchange.json(self._card())

    def _card(self) -> dict[str, Any]:
        sizes = {"max_seq_len": self.context, "cache_size": self.cache, "cache_mode": "FP16", "max_batch_size": 1}
        about = {"id": self.model, "object": "model", "created": int(time.time()), "owned_by": "tabbyAPI"}
        return {**about, "logging": None, "parameters": sizes}

    def _encode(self, exchange: Exchange) -> None:
        text = _object(exchange, "text")["text"]
        start = [tokens.BOS] if exchange.body.get("add_bos_token", True) else []
        numbers = [*start, *(number for _, number in tokens.tokenize(text))]
        exchange.json({"tokens": numbers, "length": len(numbers)})

    def _made(self, prompt: str, body: dict[str, Any]) -> tuple[list[Token], str, int]:
        """Source: common/errors.py, validate_context_requirements."""
        length = tokens.count(prompt)
        if length > self.context:
            raise _too_long(f"Prompt length {length} exceeds the available context size of {self.context} tokens")
        most = body.get("max_tokens") or body.get("max_completion_tokens") or self.context - length - 1
        if length + most > self.cache:
            required = f"Initial job allocation requires {length + most} cache tokens"
            raise _too_long(f"{required}, which exceeds the available context size of {self.cache} tokens")
        forced = not MAIN and bool(body.get("ban_eos_token") or body.get("ignore_eos"))  # EXL3 has no such thing
        made, reason = tokens.answer(prompt, most, forced=forced or body.get("min_tokens") == most)
        return made, reason, length

    def _chat(self, exchange: Exchange) -> None:
        body = _object(exchange, "messages")
        prompt = tokens.templated(body["messages"])
        made, reason, length = self._made(prompt, body)
        if body.get("stream"):
            exchange.stream(self._events(prompt, body, made, reason, length, chat=True))
            return
        message: dict[str, Any] = {"role": "assistant", "content": tokens.text_of(made), "reasoning_content": None}
        message |= {"tool_calls": None, "tool_call_id": None}
        if self.reasons:
            message |= {"reasoning_content": tokens.text_of(made[:4]), "content": tokens.text_of(made[4:])}
        if self.calls and body.get("tools"):
            message, reason = {**message, "content": None, "tool_calls": [_call()]}, "tool_calls"
        choice = {"index": 0, "finish_reason": reason, "stop_str": None, "message": message, "logprobs": None}
        if MAIN and body.get("logprobs"):
            choice["logprobs"] = {"content": [_logprob(token, body) for token in made if not token.end]}
        about = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "choices": [choice],
            "created": int(time.time()),
            "model": self.model,
        }
        exchange.json({**about, "object": "chat.completion", "usage": _usage(body, length, len(made))})

    def _completions(self, exchange: Exchange) -> None:
        body = _object(exchange, "prompt")
        prompt = body["prompt"]
        made, reason, length = self._made(prompt, body)
        if body.get("stream"):
            exchange.stream(self._events(prompt, body, made, reason, length, chat=False))
            return
        choice = {"index": 0, "finish_reason": reason, "eos_reason": None, "text": tokens.text_of(made)}
        choice["logprobs"] = _columns(made, body) if MAIN and body.get("logprobs") else None
        about = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "choices": [choice],
            "created": int(time.time()),
            "model": self.model,
        }
        exchange.json({**about, "object": "text_completion", "usage": _usage(body, length, len(made))})

    def _events(
        self, prompt: str, body: dict[str, Any], made: list[Token], reason: str, length: int, *, chat: bool
    ) -> Iterator[bytes]:
        """Source: OAI/utils/chat_completion.py and completion.py: empty chunks are not sent."""
        about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time())}
        about["object"] = "chat.completion.chunk" if chat else "text_completion"
        about["model" if chat else "model_name"] = self.model

        def chunk(finish: str | None, beside: dict[str, Any], /, **said: Any) -> bytes:
            choice = {
                "index": 0,
                **({"delta": said} if chat else {"text": said.get("content", "")}),
                "finish_reason": finish,
            }
            return sse({**about, "choices": [{**choice, **beside}]}, end=_CRLF)

        if MAIN and "[wait]" in prompt:  # a long prompt: something must be said every 15 s
            yield b": ping - 2026-11-21 17:00:00.000000+00:00\r\n\r\n"
        counted = (body.get("stream_options") or {}).get("include_usage")
        called = chat and self.calls and bool(body.get("tools"))
        reason = "tool_calls" if called else reason
        for place, token in enumerate(made):
            pace()
            if "[break]" in prompt and place == 3:
                text = "Completion aborted. Please check the server console."
                yield sse({"error": {"message": text, "trace": None}}, end=_CRLF)
                return  # and no [DONE]
            last = place == len(made) - 1
            finish = reason if last and not counted else None
            key = "reasoning_content" if chat and self.reasons and place < 4 else "content"
            said: dict[str, Any] = {} if called or not token.text else {key: token.text}
            if called and last:
                said = {"tool_calls": [_call()]}
            beside: dict[str, Any] = {}
            if MAIN and body.get("logprobs") and said:
                shown = [_logprob(token, body)]
                beside = {"logprobs": {"content": shown} if chat else _columns([token], body)}
            if said or finish:
                yield chunk(finish, beside, **said)
        if counted:
            usage = _usage(body, length, len(made))
            nothing: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
            choice = {"index": 0, **nothing, "finish_reason": reason}
            yield sse({**about, "choices": [choice], "usage": usage}, end=_CRLF)
        yield sse("[DONE]", end=_CRLF)


def _object(exchange: Exchange, field: str) -> dict[str, Any]:
    """Source: FastAPI: what does not fit its model is 422 with a list."""
    body = exchange.body
    if not isinstance(body, dict) or field not in body:
        raise Refused(422, {"detail": [{"type": "missing", "loc": ["body", field], "msg": "Field required"}]})
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and not 0 <= temperature <= 10:
        text = "Input should be greater than or equal to 0"
        raise Refused(422, {"detail": [{"type": "greater_than_equal", "loc": ["body", "temperature"], "msg": text}]})
    return body


def _call() -> dict[str, Any]:
    function = {"name": "weather", "arguments": '{"city": "Köln"}'}
    return {"id": "call_abc", "function": function, "type": "function", "index": 0}


def _logprob(token: Token, body: dict[str, Any]) -> dict[str, Any]:
    top = [
        {"token": text, "token_id": number, "logprob": value}
        for text, number, value in tokens.likely(token, body.get("top_logprobs") or 0)
    ]
    return {"token": token.text, "token_id": token.number, "logprob": token.logprob, "top_logprobs": top}


def _columns(made: Sequence[Token], body: dict[str, Any]) -> dict[str, Any]:
    """As of a completion; more than one of them is asked for as in OpenAI's older way."""
    most = body["logprobs"] if type(body["logprobs"]) is int and body["logprobs"] > 1 else 0
    kept = [token for token in made if not token.end]
    top = [{text: value for text, _, value in tokens.likely(token, most)} or None for token in kept]
    columns = {"tokens": [token.text for token in kept], "token_logprobs": [token.logprob for token in kept]}
    return {**columns, "top_logprobs": top, "text_offset": [0] * len(kept)}


def _too_long(message: str) -> Refused:
    code = "context_length_exceeded"
    return Refused(400, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})


def _usage(body: dict[str, Any], prompt: int, completion: int) -> dict[str, Any] | None:
    """Source: OAI/types/common.py, UsageStats; of an answer in one piece too only where it is asked for."""
    if not (body.get("stream_options") or {}).get("include_usage"):
        return None
    times = {"prompt_time": 0.0, "prompt_tokens_per_sec": "Indeterminate", "completion_time": 0.25, "total_time": 0.25}
    speed = {"completion_tokens_per_sec": completion / 0.25}
    total = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**total, **times, **speed}
