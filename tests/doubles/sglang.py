"""A double of SGLang 0.5: its HTTP server, without a model.

Sources, in sgl-project/sglang (python/sglang/srt): server_args.py (flags), entrypoints/http_server.py (routes, health),
entrypoints/openai (documents, chunks, errors), managers/tokenizer_manager.py (limits), managers/scheduler.py and
entrypoints/engine.py (log of failures), observability/metrics_collector.py (metrics).
Quirks: it listens before it is ready, and /health is 503 until then; health is a generation of one token, and takes a
second; a chat begins with a role and an empty content, and its finish reason comes in a chunk of its own; half a
character makes no chunk of a chat; any model's name is taken, and said again; an error object is flat as a status, and
nested in a stream; metrics are off unless asked for; a failed scheduler takes everything with it by SIGKILL.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from tests.doubles import tokens
from tests.doubles.server import Account, Exchange, Refused, Server, busy, failure, load, log, metrics, pace, sse
from tests.doubles.tokens import Token

VERSION = "0.5.23"
_HEALTH_S = float(os.environ.get("KITT_DOUBLE_HEALTH_S", "1"))
_ENV = ("SGLANG_", "SGL_", "HF_", "CUDA_", "NVIDIA_")
VALUES = (
    *(
        "--host",
        "--port",
        "--served-model-name",
        "--context-length",
        "--max-running-requests",
        "--random-seed",
        "--dtype",
    ),
    *("--quantization", "--tp-size", "--tensor-parallel-size", "--dp-size", "--pp-size", "--mem-fraction-static"),
    *(
        "--max-total-tokens",
        "--chunked-prefill-size",
        "--max-prefill-tokens",
        "--api-key",
        "--admin-api-key",
        "--device",
    ),
    *("--tokenizer-path", "--tokenizer-mode", "--load-format", "--kv-cache-dtype", "--chat-template", "--download-dir"),
    *(
        "--tool-call-parser",
        "--reasoning-parser",
        "--nccl-port",
        "--dist-init-addr",
        "--nnodes",
        "--node-rank",
        "--base-gpu-id",
    ),
    *(
        "--attention-backend",
        "--sampling-backend",
        "--sampling-defaults",
        "--log-level",
        "--log-level-http",
        "--watchdog-timeout",
        "--revision",
    ),
    *(
        "--schedule-policy",
        "--schedule-conservativeness",
        "--stream-interval",
        "--grammar-backend",
        "--file-storage-path",
    ),
)
SWITCHES = (
    *(
        "--trust-remote-code",
        "--enable-metrics",
        "--disable-radix-cache",
        "--disable-cuda-graph",
        "--skip-server-warmup",
    ),
    *(
        "--enable-cache-report",
        "--log-requests",
        "--enable-torch-compile",
        "--disable-overlap-schedule",
        "--is-embedding",
    ),
)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sglang serve", allow_abbrev=False)
    parser.add_argument("--model-path", "--model", required=True)
    for flag in VALUES:
        parser.add_argument(flag)
    for flag in SWITCHES:
        parser.add_argument(flag, action="store_true")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Starts as SGLang does, and serves."""
    arguments, kind = failure(argv)
    account = Account()
    account.begin("sglang", arguments, _ENV)
    options = _parse(arguments[1:] if arguments[:1] == ["serve"] else arguments)
    if kind == "gpu":  # srt/utils/common.py, get_device, asked for by the arguments' defaults
        plugins = "No accelerator (CUDA, XPU, HPU, NPU, MUSA, MPS) or platform plugin is available."
        log("Traceback (most recent call last):", f"RuntimeError: {plugins}")
        return 1
    address = (options.host or "127.0.0.1", int(options.port or 30000))
    _say(f"server_args=ServerArgs(model_path='{options.model_path}', host='{address[0]}', port={address[1]})")
    if kind == "model":
        _scheduler_died(f"OSError: {options.model_path} does not appear to have a file named config.json.")
    _say("Load weight begin. avail mem=78.00 GB")
    load()
    if kind == "memory":
        advice = "Please try to increase --mem-fraction-static. Current value: mem_fraction_static=0.1"
        _scheduler_died(f"RuntimeError: Not enough memory. {advice}")
    if kind == "exit":
        _scheduler_died("RuntimeError: CUDA error: device-side assert triggered")
    if busy(address, kind):
        where = f"('{address[0]}', {address[1]})"
        log(f"ERROR:    [Errno 98] error while attempting to bind on address {where}: address already in use")
        return 1
    engine = Engine(options)
    server = Server(address, engine.answer, account)
    server.server_activate()
    log("INFO:     Application startup complete.", f"INFO:     Uvicorn running on http://{address[0]}:{address[1]}")
    if kind != "never-healthy":
        threading.Thread(target=engine.warm_up, daemon=True).start()
    return server.run_listening()


def _say(line: str) -> None:
    log(f"[2026-11-21 17:00:00] {line}")


def _scheduler_died(error: str) -> None:
    """Source: scheduler.py, run_scheduler_process; engine.py, launch_phase_sigquit_handler."""
    _say(f"Scheduler hit an exception: Traceback (most recent call last):\n{error}\n")
    _say("Received sigquit from a child process. It usually means the child failed.")
    os.kill(os.getpid(), signal.SIGKILL)


class Engine:
    """Answers requests."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.path = options.model_path
        self.model = options.served_model_name or options.model_path
        self.context = int(options.context_length or 4096)
        self.key = options.api_key
        self.reasons, self.calls = bool(options.reasoning_parser), bool(options.tool_call_parser)
        self.counts = options.enable_metrics
        self.ready = False

    def warm_up(self) -> None:
        """What makes it ready, after it listens."""
        load()
        self.ready = True
        _say("The server is fired up and ready to roll!")

    def answer(self, exchange: Exchange) -> None:
        """Finds the route; the key is asked for everywhere but for health and metrics."""
        method, path = exchange.route
        free = path.startswith(("/health", "/metrics"))
        if self.key and not free and exchange.headers.get("Authorization") != f"Bearer {self.key}":
            raise Refused(401, {"error": "Unauthorized"})
        posts = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completions,
            "/tokenize": self._tokenize,
            "/v1/tokenize": self._tokenize,
        }
        if method == "POST" and path in posts:
            posts[path](exchange)
        elif method == "GET" and path in {"/health", "/health_generate"}:
            self._health(exchange)
        elif method == "GET" and path == "/ready":
            exchange.raw(b"", 200 if self.ready else 503)
        elif method == "GET" and path in {"/model_info", "/get_model_info"}:
            exchange.json({"model_path": self.path, "served_model_name": self.model, "is_generation": True})
        elif method == "GET" and path in {"/server_info", "/get_server_info"}:
            exchange.json({"model_path": self.path, "version": VERSION, "internal_states": [{}], "frontend": "python"})
        elif method == "GET" and path == "/v1/models":
            about = {"id": self.model, "object": "model", "created": int(time.time()), "owned_by": "sglang"}
            model = {**about, "root": self.model, "parent": None, "max_model_len": self.context}
            exchange.json({"object": "list", "data": [model]})
        elif method in {"GET", "POST"} and path == "/flush_cache":
            exchange.raw(b"Cache flushed.\nPlease check backend logs for more details.\n")
        elif method == "GET" and path == "/metrics" and self.counts:
            label = f'{{model_name="{self.model}"}}'
            names = ("num_running_reqs", "num_queue_reqs", "token_usage", "cache_hit_rate")
            exchange.raw(metrics({f"sglang:{name}{label}": 0 for name in names}), kind="text/plain; version=0.0.4")
        else:
            exchange.json({"detail": "Not Found"}, 404)

    def _health(self, exchange: Exchange) -> None:
        """Source: http_server.py, health_generate: it looks once a second whether its token has come."""
        if not self.ready:
            exchange.raw(b"", 503)
            return
        plain = os.environ.get("SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION", "true").lower() in {"false", "0"}
        if exchange.route[1] == "/health_generate" or not plain:
            time.sleep(_HEALTH_S)
        exchange.raw(b"")

    def _tokenize(self, exchange: Exchange) -> None:
        body = _asked(exchange)
        front = "" if body.get("add_special_tokens", True) else tokens.BARE
        numbers = tokens.ids(front + str(body.get("prompt")))
        exchange.json({"tokens": numbers, "count": len(numbers), "max_model_len": self.context})

    def _made(self, prompt: str, body: dict[str, Any]) -> tuple[list[Token], str, int]:
        """Source: tokenizer_manager.py; of a stream too before its status is sent."""
        length = tokens.count(prompt)
        if length >= self.context:
            text = f"The input ({length} tokens) is longer than the model's context length ({self.context} tokens)."
            raise _bad(text)
        most = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        if length + most > self.context:
            text = f"Requested token count exceeds the model's maximum context length of {self.context} tokens."
            raise _bad(f"{text} You requested a total of {length + most} tokens")
        made, reason = tokens.answer(prompt, most, forced=bool(body.get("ignore_eos")))
        return made, reason, length

    # -- chat

    def _chat(self, exchange: Exchange) -> None:
        body = _asked(exchange)
        prompt = tokens.templated(body.get("messages", []))
        made, reason, length = self._made(prompt, body)
        if body.get("stream"):
            exchange.stream(
                self._chat_events(prompt, body, made, reason, length), kind="text/event-stream; charset=utf-8"
            )
            return
        message: dict[str, Any] = {"role": "assistant", "content": tokens.text_of(made), "reasoning_content": None}
        if self.calls and body.get("tools"):
            function = {"name": "weather", "arguments": '{"city": "Köln"}'}
            call = {"id": "call_1", "index": 0, "type": "function", "function": function}
            message, reason = {**message, "content": None, "tool_calls": [call]}, "tool_calls"
        elif self.reasons:
            message |= {"reasoning_content": tokens.text_of(made[:4]), "content": tokens.text_of(made[4:])}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason, "matched_stop": None}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_logprob(token, body) for token in made]}
        if body.get("return_token_ids"):
            choice["response_token_ids"] = [token.number for token in made]
        about = _about("chat.completion", body)
        exchange.json(
            {
                **about,
                "choices": [choice],
                "usage": _usage(length, len(made)),
                "metadata": {"weight_version": "default"},
            }
        )

    def _chat_events(
        self, prompt: str, body: dict[str, Any], made: list[Token], reason: str, length: int
    ) -> Iterator[bytes]:
        about = _about("chat.completion.chunk", body)

        def chunk(finish: str | None = None, logprobs: Any = None, /, **delta: Any) -> bytes:
            said = {"role": None, "content": None, "reasoning_content": None, **delta}
            choice = {"index": 0, "delta": said, "logprobs": logprobs, "finish_reason": finish, "matched_stop": None}
            return sse({**about, "choices": [choice], "usage": None})

        yield chunk(role="assistant", content="")
        called = self.calls and bool(body.get("tools"))
        for place, token in enumerate(made):
            pace()
            if "[break]" in prompt and place == 2:
                yield sse({"error": _flat("Generation aborted.", "INTERNAL_SERVER_ERROR", 500)})
                break
            shown = {"content": [_logprob(token, body)]} if body.get("logprobs") else None
            if called:
                if place < 3:
                    yield chunk(None, shown, tool_calls=[_fragment(place)])
            elif token.text:
                key = "reasoning_content" if self.reasons and place < 4 else "content"
                yield chunk(None, shown, **{key: token.text})
        else:
            yield chunk("tool_calls" if called else reason)
            yield from _usage_chunk(body, about, length, len(made))
        yield sse("[DONE]")

    # -- completions

    def _completions(self, exchange: Exchange) -> None:
        body = _asked(exchange)
        if not isinstance(body.get("prompt"), str):
            raise _bad("Prompt cannot be None")
        made, reason, length = self._made(body["prompt"], body)
        if body.get("stream"):
            exchange.stream(_completion_events(body, made, reason, length), kind="text/event-stream; charset=utf-8")
            return
        choice = {"index": 0, "text": tokens.text_of(made), "logprobs": _columns(made, body), "finish_reason": reason}
        choice |= {"matched_stop": None, **_ids(made, body)}
        exchange.json({**_about("text_completion", body), "choices": [choice], "usage": _usage(length, len(made))})


def _completion_events(body: dict[str, Any], made: list[Token], reason: str, length: int) -> Iterator[bytes]:
    about = _about("text_completion", body)
    for place, token in enumerate(made):
        pace()
        ends = reason if place == len(made) - 1 else None
        choice = {"index": 0, "text": token.text, "logprobs": _columns([token], body), "finish_reason": ends}
        choice |= {"matched_stop": None, **_ids([token], body)}
        yield sse({**about, "choices": [choice], "usage": None})
    yield from _usage_chunk(body, about, length, len(made))
    yield sse("[DONE]")


def _usage_chunk(body: dict[str, Any], about: dict[str, Any], prompt: int, completion: int) -> Iterator[bytes]:
    if (body.get("stream_options") or {}).get("include_usage"):
        yield sse({**about, "choices": [], "usage": _usage(prompt, completion)})


def _asked(exchange: Exchange) -> dict[str, Any]:
    """Source: http_server.py, validate_json_request."""
    if exchange.headers.get("Content-Type", "").partition(";")[0].lower() != "application/json":
        raise Refused(400, _flat("Unsupported Media Type: Only 'application/json' is allowed", "Bad Request", 400))
    if not isinstance(exchange.body, dict):
        raise Refused(
            400, _flat("[{'type': 'json_invalid', 'loc': ('body', 0), 'msg': 'JSON decode error'}]", "Bad Request", 400)
        )
    return exchange.body


def _about(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """The model's name is the request's. Source: serving_chat.py, ``model=request.model``."""
    return {"id": uuid.uuid4().hex, "object": kind, "created": int(time.time()), "model": body.get("model", "default")}


def _fragment(place: int) -> dict[str, Any]:
    name = "weather" if place == 0 else None
    arguments = ("", '{"city": ', '"Köln"}')[place]
    function = {"name": name, "arguments": arguments}
    return {"id": "call_1" if place == 0 else None, "index": 0, "type": "function", "function": function}


def _logprob(token: Token, body: dict[str, Any]) -> dict[str, Any]:
    top = tokens.likely(token, body.get("top_logprobs") or 0)
    entries = [{"token": text, "bytes": list(text.encode()), "logprob": value} for text, _, value in top]
    return {"token": token.text, "bytes": list(token.text.encode()), "logprob": token.logprob, "top_logprobs": entries}


def _columns(made: Sequence[Token], body: dict[str, Any]) -> dict[str, Any] | None:
    most = body.get("logprobs")
    if most is None:
        return None
    top = [{text: value for text, _, value in tokens.likely(token, most)} for token in made]
    columns = {"token_logprobs": [token.logprob for token in made], "tokens": [token.text for token in made]}
    return {"text_offset": [-1] * len(made), **columns, "top_logprobs": top}


def _ids(made: Sequence[Token], body: dict[str, Any]) -> dict[str, Any]:
    return {"token_ids": [token.number for token in made]} if body.get("return_token_ids") else {}


def _flat(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


def _bad(message: str) -> Refused:
    return Refused(400, _flat(message, "BadRequestError", 400))


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    total = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
    return {**total, "prompt_tokens_details": None, "reasoning_tokens": 0}
