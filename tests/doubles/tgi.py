"""A double of text-generation-inference 3.3: launcher and router in one, without a model.

Sources, in huggingface/text-generation-inference: launcher/src/main.rs (flags, log, exit codes), router/src/server.rs
(routes, streams, errors), router/src/lib.rs (documents), router/src/chat.rs (chat chunks, tool calls),
router/src/validation.rs (limits), router/src/infer/mod.rs (error types); axum's response/sse.rs (events, pings).
Quirks: one token an event, an empty text for half a character, the end of sequence as a special token; an invalid
streamed request is status 200 and an error event; no role-only beginning of a chat; streamed completions always have
usage, say ``finish_reason: ""`` before their end and ``eos_token`` at it, and show its text; any model's name is taken.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

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

VERSION = "3.3.6-dev0"
_EOS_TEXT = "</s>"
_ENV = (
    "HF_",
    "HUGGING",
    "CUDA_",
    "NVIDIA_",
    "PREFIX_CACHING",
    "USE_PREFIX",
    "ATTENTION",
    "PORT",
    "HOSTNAME",
    "MODEL_ID",
)
# launcher/src/main.rs, struct Args: what takes a value, and what does not
VALUES = (
    *("--model-id", "--revision", "--validation-workers", "--sharded", "--num-shard", "--quantize", "--speculate"),
    *("--dtype", "--kv-cache-dtype", "--max-concurrent-requests", "--max-best-of", "--max-stop-sequences"),
    *("--max-top-n-tokens", "--max-input-tokens", "--max-input-length", "--max-total-tokens", "--waiting-served-ratio"),
    *("--max-batch-prefill-tokens", "--max-batch-total-tokens", "--max-waiting-tokens", "--max-batch-size"),
    *("--cuda-graphs", "--hostname", "--port", "--prometheus-port", "--shard-uds-path", "--master-addr"),
    *("--master-port", "--huggingface-hub-cache", "--weights-cache-override", "--cuda-memory-fraction"),
    *("--rope-scaling", "--rope-factor", "--otlp-endpoint", "--otlp-service-name", "--cors-allow-origin", "--api-key"),
    *("--watermark-gamma", "--watermark-delta", "--tokenizer-config-path", "--max-client-batch-size"),
    *("--lora-adapters", "--usage-stats", "--payload-limit", "--graceful-termination-timeout"),
)
SWITCHES = (
    *("--trust-remote-code", "--disable-custom-kernels", "--json-output", "--ngrok", "--disable-grammar-support"),
    *("--enable-prefill-logprobs", "--env"),
)


class _Parser(argparse.ArgumentParser):
    """Refuses arguments in clap's words."""

    def error(self, message: str) -> NoReturn:
        log(
            f"error: {message}",
            "",
            "Usage: text-generation-launcher [OPTIONS]",
            "",
            "For more information, try '--help'.",
        )
        raise SystemExit(2)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Each argument has a variable of its name: in a container HOSTNAME is set, and is taken for ``--hostname``."""
    parser = _Parser(allow_abbrev=False, add_help=False)
    for flag in VALUES:
        variable = flag.removeprefix("--").replace("-", "_").upper()
        names = ("--port", "-p") if flag == "--port" else (flag,)
        parser.add_argument(*names, default=os.environ.get(variable))
    for flag in SWITCHES:
        parser.add_argument(flag, action="store_true")
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(f"unexpected argument '{unknown[0].partition('=')[0]}' found")
    return options


def main(argv: Sequence[str]) -> int:
    """Starts as the launcher does, and serves as the router does."""
    arguments, kind = failure(argv)
    account = Account()
    account.begin("tgi", arguments, _ENV)
    options = _parse(arguments)
    total = int(options.max_total_tokens or 4096)
    inputs = int(options.max_input_tokens or options.max_input_length or total - 1)
    if inputs >= total:
        return _fail(f'ArgumentValidation("`max_input_tokens`({inputs}) must be < `max_total_tokens`({total})")')
    address = (options.hostname or "0.0.0.0", int(options.port or 3000))
    _info(f"Starting check and download process for {options.model_id}")
    if kind == "model":
        _error("Download encountered an error: ", "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error.")
        return _fail("DownloadError")
    _info("Starting shard")
    if kind == "never-healthy":
        _info("Waiting for shard to be ready...")
        wait_forever()
    load()
    if kind in {"memory", "exit"}:
        reason = (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB." if kind == "memory" else "Killed"
        )
        _error("Shard complete standard error output:", "", reason)
        _error("Shard 0 failed to start")
        return _fail("ShardCannotStart")
    _info("Shard ready in 1.2s", "Starting Webserver", "Warming up model", "Setting max batch total tokens to 16000")
    if busy(address, kind):
        _error(f"Failed to bind to {address[0]}:{address[1]}: Address already in use (os error 98)")
        _error("Webserver Crashed")
        return _fail("WebserverFailed")
    router = Router(options, inputs, total)
    server = Server(address, router.answer, account)
    _info("Connected")
    return server.run()


def _info(*lines: str) -> None:
    log(*(f"2026-01-08T14:00:00.000000Z  INFO text_generation_launcher: {line}" for line in lines))


def _error(*lines: str) -> None:
    log(f"2026-01-08T14:00:00.000000Z ERROR text_generation_launcher: {lines[0]}", *lines[1:])


def _fail(error: str) -> int:
    log(f"Error: {error}")  # how Rust ends a main that returns an error
    return 1


class Router:
    """Answers requests."""

    def __init__(self, options: argparse.Namespace, inputs: int, total: int) -> None:
        self.model = options.model_id or "bigscience/bloom-560m"
        self.inputs, self.total = inputs, total
        self.most_likely = int(options.max_top_n_tokens or 5)
        self.key = options.api_key
        self.served = 0

    def answer(self, exchange: Exchange) -> None:
        """Finds the route; the key is asked for where text is made only."""
        known = {
            ("POST", "/generate"): self._generate,
            ("POST", "/generate_stream"): self._generate_stream,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/chat_tokenize"): self._chat_tokenize,
        }
        if route := known.get(exchange.route):
            if self.key and exchange.headers.get("Authorization", "").lower() != f"bearer {self.key}".lower():
                exchange.raw(b"", 401)
            else:
                self.served += 1
                route(exchange)
            return
        method, path = exchange.route
        if method in {"GET", "HEAD"} and path in {"/", "/health", "/ping"}:
            exchange.raw(b"")
        elif method == "GET" and path == "/info":
            exchange.json(self._info())
        elif method == "GET" and path == "/v1/models":
            model = {"id": self.model, "object": "model", "created": 0, "owned_by": self.model}
            exchange.json({"object": "list", "data": [model]})
        elif method == "GET" and path == "/metrics":
            names = ("tgi_queue_size", "tgi_batch_current_size", "tgi_batch_current_max_tokens")
            exchange.raw(metrics({**dict.fromkeys(names, 0), "tgi_request_count": self.served}), kind="text/plain")
        else:
            exchange.raw(b"", 404)

    def _info(self) -> dict[str, Any]:
        """Source: lib.rs, struct Info."""
        limits = {"max_concurrent_requests": 128, "max_best_of": 2, "max_stop_sequences": 4}
        sizes = {"max_input_tokens": self.inputs, "max_total_tokens": self.total}
        about = {"router": "text-generation-router", "version": VERSION, "sha": None, "docker_label": None}
        model = {"model_id": self.model, "model_sha": None, "model_pipeline_tag": "text-generation"}
        return {**model, **limits, **sizes, "validation_workers": 2, "max_client_batch_size": 4, **about}

    # -- its own API

    def _generate(self, exchange: Exchange) -> None:
        prompt, asked = _native(exchange)
        made, reason, length = self._made(prompt, asked)
        document: dict[str, Any] = {"generated_text": tokens.text_of(made)}
        if asked.get("details") or asked.get("decoder_input_details"):
            document["details"] = {
                "finish_reason": reason,
                "generated_tokens": len(made),
                "seed": asked.get("seed"),
                "prefill": [],
                "tokens": [_said(token) for token in made],
                **({"top_tokens": [_likely(token, n) for token in made]} if (n := asked.get("top_n_tokens")) else {}),
            }
        exchange.json(document, x_prompt_tokens=str(length), x_generated_tokens=str(len(made)))

    def _generate_stream(self, exchange: Exchange) -> None:
        prompt, asked = _native(exchange)

        def events() -> Iterator[bytes]:
            try:
                if asked.get("decoder_input_details"):
                    raise _invalid("`decoder_input_details` == true is not supported when streaming tokens")
                made, reason, length = self._made(prompt, asked)
            except Refused as refused:  # server.rs, generate_stream_internal: the status is long decided
                yield sse(refused.document)
                return
            for index, token in enumerate(made, 1):
                pace()
                if "[break]" in prompt and index == 3:
                    yield sse({"error": "Request failed during generation: shard is gone", "error_type": "generation"})
                    return
                last = index == len(made)
                counts = {"finish_reason": reason, "generated_tokens": len(made), "seed": None, "input_length": length}
                yield sse(
                    {
                        "index": index,
                        "token": _said(token),
                        **({"top_tokens": _likely(token, n)} if (n := asked.get("top_n_tokens")) else {}),
                        "generated_text": tokens.text_of(made) if last else None,
                        "details": counts if last and asked.get("details") else None,
                    }
                )

        exchange.stream(events(), X_Accel_Buffering="no", x_compute_characters=str(len(prompt)))

    def _made(self, prompt: str, asked: dict[str, Any]) -> tuple[list[Token], str, int]:
        """The answer, why it ends, and the prompt's length. Source: validation.rs, in its order."""
        if asked.get("temperature") is not None and asked["temperature"] <= 0:
            raise _invalid("`temperature` must be strictly positive")
        if (top := asked.get("top_n_tokens")) and top > self.most_likely:
            raise _invalid(f"`top_n_tokens` must be >= 0 and <= {self.most_likely}. Given: {top}")
        if asked.get("max_new_tokens") == 0:
            raise _invalid("`max_new_tokens` must be strictly positive")
        if not prompt:
            raise _invalid("`inputs` cannot be empty")
        length = tokens.count(prompt)
        most = asked.get("max_new_tokens") or max(0, self.total - length)
        if length + most > self.total:
            given = f"Given: {length} `inputs` tokens and {most} `max_new_tokens`"
            raise _invalid(f"`inputs` tokens + `max_new_tokens` must be <= {self.total}. {given}")
        if length > self.inputs:
            raise _invalid(f"`inputs` must have less than {self.inputs} tokens. Given: {length}")
        made, why = tokens.answer(prompt, most)  # nothing forces its length: ignore_eos_token is false, always
        return made, "eos_token" if why == "stop" else why, length

    def _tokenize(self, exchange: Exchange) -> None:
        """A bare list, with the token of the beginning. Source: server.rs, tokenize; lib.rs, SimpleToken."""
        prompt, _ = _native(exchange)
        exchange.json([{"id": tokens.BOS, "text": "", "start": 0, "stop": 0}, *_simple(prompt)])

    def _chat_tokenize(self, exchange: Exchange) -> None:
        """The template's text and the tokens that it spells. Source: server.rs, get_chat_tokenize."""
        prompt = tokens.templated(_object(exchange).get("messages") or [])
        text = prompt.removeprefix(tokens.BARE) if prompt.startswith(tokens.BARE) else tokens.BOS_TEXT + prompt
        exchange.json({"tokenize_response": _simple(text), "templated_text": text})

    # -- OpenAI's

    def _chat(self, exchange: Exchange) -> None:
        body = _object(exchange)
        messages = body.get("messages")
        if not isinstance(messages, list):
            raise _unreadable("missing field `messages`")
        prompt = tokens.templated(messages)
        asked = {"max_new_tokens": body.get("max_tokens", body.get("max_completion_tokens"))}
        if body.get("temperature"):
            asked["temperature"] = body["temperature"]
        asked["top_n_tokens"] = body.get("top_logprobs")
        if body.get("stream"):
            exchange.stream(self._chat_events(prompt, asked, body), X_Accel_Buffering="no")
            return
        made, reason, length = self._made(prompt, asked)
        message: dict[str, Any] = {"role": "assistant", "content": tokens.text_of(made)}
        if body.get("tools"):
            called = {"description": None, "name": "weather", "arguments": '{"city":"Köln"}'}
            message = {"role": "assistant", "tool_calls": [{"id": "0", "type": "function", "function": called}]}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _stop(reason)}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_chat_logprob(token, asked["top_n_tokens"]) for token in made]}
        about = self._about("chat.completion")
        exchange.json({**about, "choices": [choice], "usage": _usage(length, len(made))})

    def _chat_events(self, prompt: str, asked: dict[str, Any], body: dict[str, Any]) -> Iterator[bytes]:
        """Source: chat.rs, ChatState: the role in every chunk, usage behind the last where it is asked for."""
        about = self._about("chat.completion.chunk")
        try:
            made, reason, length = self._made(prompt, asked)
        except Refused as refused:  # infer/mod.rs, into_openai_event
            yield sse({"error": {"message": refused.document["error"], "http_status_code": 422}})
            yield sse("[DONE]")
            return
        fragments = [("weather", "{"), (None, '"city": '), (None, '"Köln"}')] if body.get("tools") else []
        for name, arguments in fragments:
            pace()
            call = {"index": 0, "id": "0", "type": "function", "function": {"name": name, "arguments": arguments}}
            last = _stop(reason) if arguments.endswith("}") else None
            delta = {"role": "assistant", "tool_calls": [call]}
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": last}
            yield sse({**about, "choices": [choice], "usage": None})
        for token in made if not fragments else ():
            pace()
            shown = None
            if body.get("logprobs"):
                shown = {"content": [_chat_logprob(token, asked["top_n_tokens"])]}
            delta = {"role": "assistant", "content": "" if token.end else token.text}
            ends = _stop(reason) if token is made[-1] else None
            choice = {"index": 0, "delta": delta, "logprobs": shown, "finish_reason": ends}
            yield sse({**about, "choices": [choice], "usage": None})
        if (body.get("stream_options") or {}).get("include_usage"):
            yield sse({**about, "choices": [], "usage": _usage(length, len(made))})
        yield sse("[DONE]")

    def _completions(self, exchange: Exchange) -> None:
        body = _object(exchange)
        prompt = body.get("prompt")
        if not isinstance(prompt, str):
            raise _unreadable("missing field `prompt`")
        if body.get("suffix") is not None:
            text = "Suffix is not supported and can be achieved by preprocessing the prompt."
            raise Refused(422, {"error": text, "error_type": "suffix not supported"})
        asked = {"max_new_tokens": body.get("max_tokens"), "temperature": body.get("temperature") or None}
        about = self._about("text_completion")
        if body.get("stream"):
            exchange.stream(self._completion_events(prompt, asked, about), x_accel_buffering="no")
            return
        made, reason, length = self._made(prompt, asked)
        choice = {"index": 0, "text": tokens.text_of(made), "logprobs": None, "finish_reason": _stop(reason)}
        exchange.json({**about, "choices": [choice], "usage": _usage(length, len(made))})

    def _completion_events(self, prompt: str, asked: dict[str, Any], about: dict[str, Any]) -> Iterator[bytes]:
        try:
            made, reason, length = self._made(prompt, asked)
        except Refused as refused:
            yield sse({"error": {"message": refused.document["error"], "http_status_code": 422}})
            yield sse("[DONE]")
            return
        for token in made:
            pace()
            last = token is made[-1]
            text = _EOS_TEXT if token.end else token.text
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason if last else ""}
            yield sse({**about, "choices": [choice], **({"usage": _usage(length, len(made))} if last else {})})
        yield sse("[DONE]")

    def _about(self, kind: str) -> dict[str, Any]:
        fingerprint = f"{VERSION}-native"
        about = {"object": kind, "id": "", "created": int(time.time()), "model": self.model}
        return {**about, "system_fingerprint": fingerprint}


def _native(exchange: Exchange) -> tuple[str, dict[str, Any]]:
    """The prompt and the parameters; without any it samples, which the double cannot tell from greedy."""
    body = _object(exchange)
    if not isinstance(body.get("inputs"), str):
        raise _unreadable("missing field `inputs`")
    return body["inputs"], body.get("parameters") or {}


def _simple(text: str) -> list[dict[str, Any]]:
    """The tokens of a text, each with where it stands. Source: lib.rs, SimpleToken."""
    found, at = [], 0
    for piece, number in tokens.tokenize(text):
        found.append({"id": number, "text": piece, "start": at, "stop": at + len(piece)})
        at += len(piece)
    return found


def _object(exchange: Exchange) -> dict[str, Any]:
    if not isinstance(exchange.body, dict):
        raise _unreadable("expected value at line 1 column 1")
    return exchange.body


def _unreadable(why: str) -> Refused:
    """As axum refuses JSON that does not fit: in plain text."""
    return Refused(422, f"Failed to deserialize the JSON body into the target type: {why}")


def _invalid(why: str) -> Refused:
    return Refused(422, {"error": f"Input validation error: {why}", "error_type": "validation"})


def _said(token: Token) -> dict[str, Any]:
    text = _EOS_TEXT if token.end else token.text
    return {"id": token.number, "text": text, "logprob": token.logprob, "special": token.end}


def _likely(token: Token, most: int) -> list[dict[str, Any]]:
    return [
        {"id": number, "text": text, "logprob": logprob, "special": False}
        for text, number, logprob in tokens.likely(token, most)
    ]


def _chat_logprob(token: Token, most: int | None) -> dict[str, Any]:
    top = [{"token": text, "logprob": logprob} for text, _, logprob in tokens.likely(token, most or 0)]
    return {"token": _EOS_TEXT if token.end else token.text, "logprob": token.logprob, "top_logprobs": top}


def _stop(reason: str) -> str:
    """Source: lib.rs, FinishReason::format."""
    return "stop" if reason == "eos_token" else reason


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
