#!/usr/bin/env python3
"""What is llama-server where llama.cpp is not built? Its own HTTP server from the xllamacpp wheel, under its own flags.

Flags, their environment variables, defaults and exit codes are llama-server's (tools/server/README.md of llama.cpp);
a flag that is not in the table below is refused, as llama-server refuses one that it does not know. With ``--port 0``
it prints ``{"url": ...}`` as a line of its own when the model is loaded. It needs Python and xllamacpp, nothing else.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import xllamacpp

_TRUE, _FALSE = ("on", "enabled", "true", "1"), ("off", "disabled", "false", "0")


class Refused(Exception):
    """A command line that llama-server would not take."""


@dataclass(frozen=True)
class Flag:
    """One flag of llama-server.

    Attributes:
        names: how it is spelled.
        into: where its value goes in llama.cpp's parameters, dots between their levels; several get the same value.
        read: from its text to its value; None for a switch.
        off: spellings that switch it off.
        env: variable that holds its value where the command line does not.

    """

    names: str
    into: str
    read: Callable[[str], Any] | None = None
    off: str = ""
    env: str = ""

    def __str__(self) -> str:
        spelled = ", ".join(f"{self.names} {self.off}".split())
        return spelled if self.read is None else f"{spelled} VALUE"

    def put(self, value: object, params: Any) -> None:
        """Sets the value."""
        for place in self.into.split():
            *path, last = place.split(".")
            record = params
            for name in path:
                record = getattr(record, name)
            setattr(record, last, value)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _layers(text: str) -> int:
    return {"auto": -1, "all": -2}.get(text) or int(text)


def _seed(text: str) -> int:
    return int(text) % (1 << 32)  # -1 means a random one and is kept as the largest


def _one_of(**values: object) -> Callable[[str], Any]:
    def read(text: str) -> object:
        if text not in values:
            raise ValueError(f"expected one of {', '.join(values)}, not {text!r}")
        return values[text]

    return read


_attention = xllamacpp.llama_flash_attn_type
_split = xllamacpp.llama_split_mode
_types = {
    name: getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}")
    for name in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
}

FLAGS = (
    Flag("-m --model", "model.path", str, env="LLAMA_ARG_MODEL"),
    Flag("-a --alias", "model_alias", lambda text: set(_parts(text)), env="LLAMA_ARG_ALIAS"),
    Flag("--host", "hostnames", _parts, env="LLAMA_ARG_HOST"),
    Flag("--port", "port", int, env="LLAMA_ARG_PORT"),
    Flag("-c --ctx-size", "n_ctx", int, env="LLAMA_ARG_CTX_SIZE"),
    Flag("-np --parallel", "n_parallel", int, env="LLAMA_ARG_N_PARALLEL"),
    Flag("-t --threads", "cpuparams.n_threads", int, env="LLAMA_ARG_THREADS"),
    Flag("-tb --threads-batch", "cpuparams_batch.n_threads", int),
    Flag("--threads-http", "n_threads_http", int, env="LLAMA_ARG_THREADS_HTTP"),
    Flag("-s --seed", "sampling.seed", _seed),
    Flag("-n --predict --n-predict", "n_predict", int, env="LLAMA_ARG_N_PREDICT"),
    Flag("-b --batch-size", "n_batch", int, env="LLAMA_ARG_BATCH"),
    Flag("-ub --ubatch-size", "n_ubatch", int, env="LLAMA_ARG_UBATCH"),
    Flag("-ngl --gpu-layers --n-gpu-layers", "n_gpu_layers", _layers, env="LLAMA_ARG_N_GPU_LAYERS"),
    Flag("-mg --main-gpu", "main_gpu", int, env="LLAMA_ARG_MAIN_GPU"),
    Flag(
        "-sm --split-mode",
        "split_mode",
        _one_of(
            none=_split.LLAMA_SPLIT_MODE_NONE, layer=_split.LLAMA_SPLIT_MODE_LAYER, row=_split.LLAMA_SPLIT_MODE_ROW
        ),
        env="LLAMA_ARG_SPLIT_MODE",
    ),
    Flag(
        "-fa --flash-attn",
        "flash_attn_type",
        _one_of(
            on=_attention.LLAMA_FLASH_ATTN_TYPE_ENABLED,
            off=_attention.LLAMA_FLASH_ATTN_TYPE_DISABLED,
            auto=_attention.LLAMA_FLASH_ATTN_TYPE_AUTO,
        ),
        env="LLAMA_ARG_FLASH_ATTN",
    ),
    Flag("-ctk --cache-type-k", "cache_type_k", _one_of(**_types), env="LLAMA_ARG_CACHE_TYPE_K"),
    Flag("-ctv --cache-type-v", "cache_type_v", _one_of(**_types), env="LLAMA_ARG_CACHE_TYPE_V"),
    Flag("-cram --cache-ram", "cache_ram_mib", int, env="LLAMA_ARG_CACHE_RAM"),
    Flag("--temp --temperature", "sampling.temp", float, env="LLAMA_ARG_TEMPERATURE"),
    Flag("--top-k", "sampling.top_k", int, env="LLAMA_ARG_TOP_K"),
    Flag("--top-p", "sampling.top_p", float, env="LLAMA_ARG_TOP_P"),
    Flag("--min-p", "sampling.min_p", float, env="LLAMA_ARG_MIN_P"),
    Flag("--repeat-penalty", "sampling.penalty_repeat", float, env="LLAMA_ARG_REPEAT_PENALTY"),
    Flag("--chat-template", "chat_template", str, env="LLAMA_ARG_CHAT_TEMPLATE"),
    Flag("--api-key", "api_keys", _parts, env="LLAMA_API_KEY"),
    Flag("-to --timeout", "timeout_read timeout_write", int, env="LLAMA_ARG_TIMEOUT"),
    Flag("-lv --verbosity --log-verbosity", "verbosity", int, env="LLAMA_ARG_LOG_VERBOSITY"),
    Flag("--metrics", "endpoint_metrics", env="LLAMA_ARG_ENDPOINT_METRICS"),
    Flag("--props", "endpoint_props", env="LLAMA_ARG_ENDPOINT_PROPS"),
    Flag("--slots", "endpoint_slots", off="--no-slots", env="LLAMA_ARG_ENDPOINT_SLOTS"),
    Flag("--jinja", "use_jinja", off="--no-jinja", env="LLAMA_ARG_JINJA"),
    Flag("--ui --webui", "ui", off="--no-ui --no-webui", env="LLAMA_ARG_UI"),
    Flag("-cb --cont-batching", "cont_batching", off="-nocb --no-cont-batching", env="LLAMA_ARG_CONT_BATCHING"),
    Flag("-kvu --kv-unified", "kv_unified", off="-no-kvu --no-kv-unified", env="LLAMA_ARG_KV_UNIFIED"),
    Flag("--cache-prompt", "cache_prompt", off="--no-cache-prompt", env="LLAMA_ARG_CACHE_PROMPT"),
    Flag("--context-shift", "ctx_shift", off="--no-context-shift", env="LLAMA_ARG_CONTEXT_SHIFT"),
    Flag("--warmup", "warmup", off="--no-warmup"),
    Flag("--embedding --embeddings", "embedding", env="LLAMA_ARG_EMBEDDINGS"),
)


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Serves until SIGTERM or SIGINT; 1 for what it refuses and for a model that cannot be loaded (standard error)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while a model loads, Python's own handler would not be run
    if {"-h", "--help", "--usage"} & {*argv}:
        sys.stdout.write("usage: llama-server -m FNAME [flags]\n\n" + "".join(f"  {flag}\n" for flag in FLAGS))
        return 0
    if "--version" in argv:
        sys.stderr.write(f"version: xllamacpp {importlib.metadata.version('xllamacpp')}\n")
        return 0
    try:
        params = parameters(argv, env)
    except Refused as error:
        sys.stderr.write(f"{error}\n")
        return 1
    any_port = params.port == 0
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.stderr.write(f"llama.cpp could not start: {error}\n")
        return 1
    if any_port:
        port = urlsplit(server.listening_address).port
        sys.stdout.write(json.dumps({"url": f"http://{params.hostnames[0]}:{port}"}) + "\n")
        sys.stdout.flush()
    _wait()
    os._exit(0)  # nothing is kept that a slow shutdown could save


def parameters(argv: Sequence[str], env: Mapping[str, str]) -> Any:
    """llama.cpp's parameters: llama-server's defaults, the environment, then the command line; Refused says why."""
    params = xllamacpp.CommonParams()
    params.port, params.n_parallel = 9931, -1  # the program's defaults, where they are not the library's
    for flag in FLAGS:
        if flag.env and flag.env in env:
            _take(flag, flag.env, env[flag.env], params)
    words = iter(argv)
    for word in words:
        name = word.replace("_", "-") if word.startswith("--") else word
        if name not in _NAMED:
            raise Refused(f"error: invalid argument: {name}")
        named = _NAMED[name]
        if named.read is None:
            named.put(name not in named.off.split(), params)
        elif (text := next(words, None)) is None:
            raise Refused(f'error while handling argument "{name}": expected value for argument')
        else:
            _take(named, name, text, params)
    if not params.model.path:
        raise Refused("error: --model is required")
    _share_threads(params)
    return params


_NAMED = {name: flag for flag in FLAGS for name in f"{flag.names} {flag.off}".split()}


def _take(flag: Flag, name: str, text: str, params: Any) -> None:
    try:
        flag.put((flag.read or _switched)(text), params)
    except (ValueError, OverflowError) as error:
        raise Refused(f'error while handling argument "{name}": {error}') from error


def _switched(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError(f"expected on or off, not {text!r}")
    return text.lower() in _TRUE


def _share_threads(params: Any) -> None:
    """All cores where no number is given, and as many for prompts as for answers."""
    if params.cpuparams.n_threads <= 0:
        params.cpuparams.n_threads = os.cpu_count() or 1
    if params.cpuparams_batch.n_threads <= 0:
        params.cpuparams_batch.n_threads = params.cpuparams.n_threads


def _wait() -> None:
    """Until SIGTERM or SIGINT, whichever thread the kernel gives it to; as a container's first process, too."""
    heard, hears = os.pipe()
    os.set_blocking(hears, False)
    signal.set_wakeup_fd(hears)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    os.read(heard, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
