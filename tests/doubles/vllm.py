"""A double of vLLM 0.32: its OpenAI server, without a model.

Sources, in vllm-project/vllm: vllm/entrypoints/cli (commands), vllm/entrypoints/openai/chat_completion and completion
(documents, chunks), vllm/entrypoints/serve (health, version, tokenize, cache reset, errors), vllm/renderers/params.py
(limits), vllm/v1 (log of failures), vllm/v1/metrics/loggers.py (metrics).
Quirks: the port is bound first and served last; a chat begins with a role and an empty content; the finish reason comes
with the last token; usage stands in a chunk of its own without choices; unknown fields are taken, ``stream_options``
without ``stream`` are not; the prefix cache can be reset in developers' mode only.
"""

from __future__ import annotations

import argparse
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from tests.doubles import tokens
from tests.doubles.server import (
    Account,
    Exchange,
    Refused,
    Server,
    busy,
    failure,
    load,
    log,
    metrics,
    pace,
    sse,
    wait_forever,
)
from tests.doubles.tokens import Token

VERSION = "0.32.0"
_ENV = ("VLLM_", "HF_", "CUDA_", "NVIDIA_", "OMP_")
VALUES = (
    *("--model", "--host", "--port", "--served-model-name", "--max-model-len", "--max-num-seqs", "--seed", "--dtype"),
    *(
        "--quantization",
        "-q",
        "--tensor-parallel-size",
        "-tp",
        "--pipeline-parallel-size",
        "--api-key",
        "--load-format",
    ),
    *("--gpu-memory-utilization", "--kv-cache-dtype", "--max-num-batched-tokens", "--tokenizer", "--tokenizer-mode"),
    *(
        "--block-size",
        "--cpu-offload-gb",
        "--download-dir",
        "--revision",
        "--chat-template",
        "--root-path",
    ),
    *("--tool-call-parser", "--reasoning-parser", "--max-logprobs", "--generation-config", "--uvicorn-log-level"),
    *("--kv-cache-memory-bytes", "--sse-keep-alive-interval", "--master-port", "--data-parallel-size", "--max-log-len"),
    *(
        "--override-generation-config",
        "--compilation-config",
        "-O",
        "--attention-backend",
        "--distributed-executor-backend",
    ),
)
SWITCHES = (
    *("--trust-remote-code", "--enforce-eager", "--enable-auto-tool-choice", "--enable-prompt-tokens-details"),
    *("--disable-log-stats", "--enable-log-requests", "--enable-force-include-usage", "--async-scheduling"),
    *("--enable-server-load-tracking", "--disable-uvicorn-access-log", "--skip-tokenizer-init"),
)
BOTH_WAYS = ("--enable-prefix-caching", "--enable-chunked-prefill", "--enable-sleep-mode")  # argparse's --no-...


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """``vllm serve [MODEL]``, or the older module, whose arguments follow at once. Underscores do for dashes."""
    if argv and not argv[0].startswith("-") and argv[0] != "serve":
        log("usage: vllm [-h] [-v] {chat,complete,serve,launch,bench,collect-env,run-batch} ...")
        log(f"vllm: error: argument subparser: invalid choice: '{argv[0]}' (choose from 'chat', 'complete', 'serve')")
        raise SystemExit(2)
    serve = argv[:1] == ["serve"]
    parser = argparse.ArgumentParser(prog="vllm serve" if serve else "api_server.py", allow_abbrev=False)
    for flag in VALUES:
        parser.add_argument(flag)
    for flag in SWITCHES:
        parser.add_argument(flag, action="store_true")
    for flag in BOTH_WAYS:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction)
    if serve:
        parser.add_argument("model_tag", nargs="?")
    dashed = [_dashed(argument) for argument in (argv[1:] if serve else argv)]
    options, unknown = parser.parse_known_args(dashed)
    if unknown:  # argparse would name the parser of the command; vLLM's main parser finds them
        log("usage: vllm [-h] [-v] {chat,complete,serve,launch,bench,collect-env,run-batch} ...")
        log(f"vllm: error: unrecognized arguments: {' '.join(unknown)}")
        raise SystemExit(2)
    return options


def _dashed(argument: str) -> str:
    """Source: vllm/utils/argparse_utils.py, FlexibleArgumentParser."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def main(argv: Sequence[str]) -> int:
    """Starts as vLLM does, and serves."""
    arguments, kind = failure(argv)
    account = Account()
    account.begin("vllm", arguments, _ENV)
    if kind == "gpu":
        return _no_gpu()
    options = _parse(arguments)
    model = getattr(options, "model_tag", None) or options.model or "Qwen/Qwen3-0.6B"
    address = (options.host or "0.0.0.0", int(options.port or 8000))
    if busy(address, kind):
        log("Traceback (most recent call last):", "    sock.bind(addr)", "OSError: [Errno 98] Address already in use")
        return 1
    engine = Engine(options, model)
    server = Server(address, engine.answer, account)
    _info(f"vLLM server version {VERSION}, serving model {model}")
    if kind == "model":
        log(f"OSError: {model} does not appear to have a file named config.json.")
        return 1
    if kind == "never-healthy":
        _info("Starting to load model ...")
        wait_forever()
    load()
    if kind in {"memory", "exit"}:
        if kind == "memory":
            advice = "Try increasing `gpu_memory_utilization` when initializing the engine"
            log(f"(EngineCore pid=7) ValueError: No available memory for the cache blocks. {advice}")
        log("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
        return 1
    _info(f"Starting vLLM server on http://{address[0]}:{address[1]}")
    log("INFO:     Application startup complete.")
    return server.run()


def _no_gpu() -> int:
    """Source: config/device.py, DeviceConfig, of which the parser of arguments makes one for its defaults."""
    advice = "please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging"
    log("Traceback (most recent call last):", f"RuntimeError: Failed to infer device type, {advice} to help debug ...")
    return 1


def _info(line: str) -> None:
    log(f"(APIServer pid=1) INFO 11-21 17:00:00 [api_server.py:1] {line}")


class Engine:
    """Answers requests."""

    def __init__(self, options: argparse.Namespace, model: str) -> None:
        self.model = options.served_model_name or model
        self.context = int(options.max_model_len or 4096)
        self.key = options.api_key or os.environ.get("VLLM_API_KEY", "")
        self.reasons = bool(options.reasoning_parser)
        self.calls = options.enable_auto_tool_choice
        self.served = 0

    def answer(self, exchange: Exchange) -> None:
        """Finds the route; the key is asked for under /v1."""
        method, path = exchange.route
        if self.key and path.startswith("/v1") and exchange.headers.get("Authorization") != f"Bearer {self.key}":
            raise Refused(401, {"error": "Unauthorized"})
        posts = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completions,
            "/tokenize": self._tokenize,
            "/detokenize": self._detokenize,
        }
        if method == "POST" and path in posts:
            posts[path](exchange)
        elif method == "GET" and path == "/health":
            exchange.raw(b"")
        elif method == "GET" and path == "/version":
            exchange.json({"version": VERSION})
        elif method == "GET" and path == "/v1/models":
            about = {"id": self.model, "object": "model", "created": int(time.time()), "owned_by": "vllm"}
            more: dict[str, Any] = {"root": self.model, "parent": None, "max_model_len": self.context, "permission": []}
            exchange.json({"object": "list", "data": [{**about, **more}]})
        elif method == "GET" and path == "/metrics":
            label = f'{{engine="0",model_name="{self.model}"}}'
            names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_hits_total")
            exchange.raw(metrics({f"vllm:{name}{label}": 0 for name in names}), kind="text/plain; version=0.0.4")
        elif method == "POST" and path == "/reset_prefix_cache" and os.environ.get("VLLM_SERVER_DEV_MODE") == "1":
            exchange.json({"success": True})
        else:
            exchange.json({"detail": "Not Found"}, 404)

    def _tokenize(self, exchange: Exchange) -> None:
        """Of a prompt or of a chat. Source: serve/tokenize/protocol.py."""
        body = self._asked(exchange)
        if "messages" in body:
            numbers = tokens.ids(tokens.templated(body["messages"]))
        else:
            front = "" if body.get("add_special_tokens", True) else tokens.BARE
            numbers = tokens.ids(front + str(body.get("prompt")))
        exchange.json({"count": len(numbers), "max_model_len": self.context, "tokens": numbers, "token_strs": None})

    def _detokenize(self, exchange: Exchange) -> None:
        exchange.json({"prompt": tokens.spelled(self._asked(exchange)["tokens"])})

    def _asked(self, exchange: Exchange) -> dict[str, Any]:
        """Source: chat_completion/protocol.py (stream options), serve/engine/serving.py (the model's name)."""
        body = exchange.body
        if not isinstance(body, dict):
            raise _bad(
                "1 validation error:\n  {'type': 'json_invalid', 'loc': ('body', 0), 'msg': 'JSON decode error'}"
            )
        if body.get("stream_options") and not body.get("stream"):
            raise _bad(
                "1 validation error:\n  Stream options can only be defined when `stream=True`.", "stream_options"
            )
        if body.get("model") not in {None, "", self.model}:
            text = f"The model `{body['model']}` does not exist. Valid aliases: {self.model}."
            raise Refused(404, _error(text, "NotFoundError", 404, "model"))
        temperature = body.get("temperature")
        if isinstance(temperature, int | float) and temperature < 0:
            raise _bad(f"temperature must be non-negative, got {temperature}.", "temperature")
        return body

    def _made(self, prompt: str, body: dict[str, Any]) -> tuple[list[Token], str, int]:
        """Too long a prompt is refused; too long an answer is cut to what is left, without a word (get_max_tokens)."""
        length = tokens.count(prompt)
        most = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        if most > self.context:
            raise _bad(
                f"max_tokens={most} cannot be greater than max_model_len={self.context}. Please request fewer ..."
            )
        if length > self.context:
            limit = (
                f"This model's maximum context length is {self.context} tokens. However, your prompt contains {length}"
            )
            rest = "exceeds this limit even without any output tokens. Please reduce the length of the input prompt."
            raise _bad(f"{limit} input tokens, which {rest}", "input_tokens")
        if length == self.context:
            text = f"The decoder prompt (length {length}) plus the number of requested output tokens (at least 1)"
            raise _bad(f"{text} is longer than the maximum model length of {self.context}.")
        most = min(most, self.context - length)
        made, reason = tokens.answer(prompt, most, forced=bool(body.get("ignore_eos")))
        self.served += 1
        return made, reason, length

    # -- chat

    def _chat(self, exchange: Exchange) -> None:
        body = self._asked(exchange)
        prompt = tokens.templated(body.get("messages", []))
        made, reason, length = self._made(prompt, body)
        if body.get("stream"):
            exchange.stream(
                self._chat_events(prompt, body, made, reason, length), kind="text/event-stream; charset=utf-8"
            )
            return
        message: dict[str, Any] = {"role": "assistant", "content": tokens.text_of(made), "refusal": None}
        message |= {"annotations": None, "audio": None, "function_call": None, "tool_calls": [], "reasoning": None}
        if self.calls and body.get("tools"):
            function = {"name": "weather", "arguments": '{"city": "Köln"}'}
            message |= {
                "content": None,
                "tool_calls": [{"id": "chatcmpl-tool-1", "type": "function", "function": function}],
            }
            reason = "tool_calls"
        elif self.reasons:
            message |= {"reasoning": tokens.text_of(made[:4]), "content": tokens.text_of(made[4:])}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason, "stop_reason": None}
        choice["token_ids"] = [t.number for t in made] if body.get("return_token_ids") else None
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_logprob(token, body) for token in made]}
        exchange.json({**self._about("chat.completion"), "choices": [choice], "usage": _usage(length, len(made))})

    def _chat_events(
        self, prompt: str, body: dict[str, Any], made: list[Token], reason: str, length: int
    ) -> Iterator[bytes]:
        about = self._about("chat.completion.chunk")
        first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        yield sse({**about, "choices": [first]})
        called = self.calls and body.get("tools")
        for place, token in enumerate(made):
            pace()
            if "[break]" in prompt and place == 2:
                yield sse(_error("EngineCore encountered an issue.", "InternalServerError", 500))
                yield sse("[DONE]")
                return
            delta: dict[str, Any] = {"content": token.text}
            if called:
                delta = _called(place)
                if not delta:
                    continue
            elif self.reasons and place < 4:
                delta = {"reasoning": token.text}
            last = place == len(made) - 1 or (called and place == 3)
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [_logprob(token, body)]}
            if last:
                choice |= {"finish_reason": "tool_calls" if called else reason, "stop_reason": None}
            choice["token_ids"] = [token.number] if body.get("return_token_ids") else None
            yield sse({**about, "choices": [choice], **_so_far(body, length, place + 1)})
        yield from _end(body, about, length, len(made))

    # -- completions

    def _completions(self, exchange: Exchange) -> None:
        body = self._asked(exchange)
        if not isinstance(body.get("prompt"), str):
            raise _bad("Either prompt or prompt_embeds must be provided and non-empty.")
        made, reason, length = self._made(body["prompt"], body)
        if body.get("stream"):
            exchange.stream(
                self._completion_events(body, made, reason, length), kind="text/event-stream; charset=utf-8"
            )
            return
        choice = {"index": 0, "text": tokens.text_of(made), "logprobs": _columns(made, body), "finish_reason": reason}
        choice |= {"stop_reason": None, "token_ids": [t.number for t in made] if body.get("return_token_ids") else None}
        exchange.json({**self._about("text_completion"), "choices": [choice], "usage": _usage(length, len(made))})

    def _completion_events(self, body: dict[str, Any], made: list[Token], reason: str, length: int) -> Iterator[bytes]:
        about = self._about("text_completion")
        for place, token in enumerate(made):
            pace()
            ends = reason if place == len(made) - 1 else None
            choice = {"index": 0, "text": token.text, "logprobs": _columns([token], body), "finish_reason": ends}
            choice |= {"stop_reason": None, "prompt_token_ids": None}
            choice["token_ids"] = [token.number] if body.get("return_token_ids") else None
            yield sse({**about, "choices": [choice], **_so_far(body, length, place + 1)})
        yield from _end(body, about, length, len(made))

    def _about(self, kind: str) -> dict[str, Any]:
        name = f"{'chatcmpl' if kind.startswith('chat') else 'cmpl'}-{uuid.uuid4().hex}"
        return {"id": name, "object": kind, "created": int(time.time()), "model": self.model}


def _so_far(body: dict[str, Any], prompt: int, completion: int) -> dict[str, Any]:
    options = body.get("stream_options") or {}
    if options.get("include_usage") and options.get("continuous_usage_stats"):
        return {"usage": _usage(prompt, completion)}
    return {}


def _end(body: dict[str, Any], about: dict[str, Any], prompt: int, completion: int) -> Iterator[bytes]:
    if (body.get("stream_options") or {}).get("include_usage"):
        yield sse({**about, "choices": [], "usage": _usage(prompt, completion)})
    yield sse("[DONE]")


def _called(place: int) -> dict[str, Any]:
    """A call in fragments; empty where it is over."""
    first = {"id": "chatcmpl-tool-1", "type": "function", "index": 0, "function": {"name": "weather"}}
    fragments = [first, *({"index": 0, "function": {"arguments": text}} for text in ('{"city"', ": ", '"Köln"}'))]
    return {"tool_calls": [fragments[place]]} if place < len(fragments) else {}


def _logprob(token: Token, body: dict[str, Any]) -> dict[str, Any]:
    top = tokens.likely(token, body.get("top_logprobs") or 0)
    entries = [{"token": text, "logprob": value, "bytes": list(text.encode())} for text, _, value in top]
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.text.encode()), "top_logprobs": entries}


def _columns(made: Sequence[Token], body: dict[str, Any]) -> dict[str, Any] | None:
    most = body.get("logprobs")
    if most is None:
        return None
    top = [{text: value for text, _, value in tokens.likely(token, most)} for token in made]
    columns = {"tokens": [token.text for token in made], "token_logprobs": [token.logprob for token in made]}
    return {"text_offset": [0] * len(made), **columns, "top_logprobs": top}


def _error(message: str, kind: str, code: int, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _bad(message: str, param: str | None = None) -> Refused:
    return Refused(400, _error(message, "BadRequestError", 400, param))


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    total = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
    return {**total, "prompt_tokens_details": None}
