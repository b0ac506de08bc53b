"""What do a model's JSON files say of it? Architecture, how the weights are packed, context, and what a cache keeps.

How weights are packed stands in ``config.json`` as ``quantization_config`` with a ``quant_method`` (transformers; EXL2
and EXL3 as exllamav2 and exllamav3 write them), as ``quantization`` without one (mlx-lm), or in a file of its own:
``quantize_config.json`` (AutoGPTQ), ``quant_config.json`` (llm-awq), ``hf_quant_config.json`` (NVIDIA's ModelOpt).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_kitt.model.memory import UNKNOWN, Shape

_MAX_JSON_BYTES = 32 << 20
_MAX_LAYERS = 4096
_MAX_COUNT = 1 << 32
_OWN_FORMATS = ("exl2", "exl3", "mlx")
_PLAIN_LAYERS = ("full_attention", "attention", "global")
_WINDOW_LAYERS = ("sliding_attention", "chunked_attention", "local")


class Damaged(Exception):
    """The folder holds no whole model; says why in a few words."""


@dataclasses.dataclass(frozen=True, slots=True)
class ConfigFacts:
    """What is said: empty or 0 where nothing is.

    Attributes:
        architecture: as ``config.json`` names it.
        method: how the weights are packed: gptq, awq, fp8, bitsandbytes, exl2, exl3, mlx, ...; empty when they are not.
        quantization: the method and its bits in words, else the type of the weights.
        context: tokens that it was trained for.
        shape: what decides how large its KV cache is.
        toy: it is our tiny model in this layout, and says so.

    """

    architecture: str = ""
    method: str = ""
    quantization: str = ""
    context: int = 0
    shape: Shape = UNKNOWN
    toy: bool = False

    @property
    def format(self) -> str:
        """The name of a format that only its own engines read; empty for what others read as safetensors too."""
        return self.method if self.method in _OWN_FORMATS else ""


def read(folder: Path) -> ConfigFacts:
    """What the JSON files of a folder say; Damaged when there is no ``config.json``, or none that can be read."""
    if not (folder / "config.json").is_file() and (folder / "params.json").is_file():
        return ConfigFacts()  # Mistral's own layout
    config = document(folder / "config.json")
    text = _mapping(config.get("text_config")) or config  # a model that sees, too, keeps its language part apart
    method, quantization = _packing(folder, config, text)
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type", "")
    return ConfigFacts(
        architecture=_word(named),
        method=method,
        quantization=quantization
        or _word(_first(config, "dtype", "torch_dtype") or _first(text, "dtype", "torch_dtype")),
        context=_count(text, "max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"),
        shape=_shape(text),
        toy=config.get("kitt_toy") is True,
    )


def document(path: Path) -> dict[str, Any]:
    """A JSON object of bounded size; Damaged says what is wrong with it."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise Damaged(f"{path.name} is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path.name} is not valid JSON") from error
    if not isinstance(content, dict):
        raise Damaged(f"{path.name} holds no JSON object")
    return content


def _packing(folder: Path, config: Mapping[str, Any], text: Mapping[str, Any]) -> tuple[str, str]:
    """The method, and it with its bits in words; both empty for weights that are not packed."""
    said = _mapping(config.get("quantization_config")) or _mapping(text.get("quantization_config"))
    ours = _mapping(config.get("quantization"))
    if ours and "quant_method" not in said:
        return "mlx", _with_bits("mlx", ours.get("bits"))
    if said:
        return _of_method(said)
    for name, method in (("quantize_config.json", "gptq"), ("quant_config.json", "awq")):
        if (folder / name).is_file():
            return _of_method({"quant_method": method, **document(folder / name)})
    if (folder / "hf_quant_config.json").is_file():
        return _of_method(
            {"quant_method": "modelopt", **_mapping(document(folder / "hf_quant_config.json").get("quantization"))}
        )
    return "", ""


def _of_method(said: Mapping[str, Any]) -> tuple[str, str]:
    method = (_word(said.get("quant_method")) or "quantized").lower()
    if method == "bitsandbytes":
        return method, _with_bits(method, 8 if said.get("load_in_8bit") is True else 4)
    if method == "modelopt":
        kind = _word(said.get("quant_algo")).lower()
        return ("fp8" if kind.startswith("fp8") else method), f"{kind} {method}".strip()
    if method == "compressed-tensors":
        kind = _compressed(said)
        return ("fp8" if kind == "fp8" else method), f"{kind} {method}".strip()
    return method, _with_bits(method, _first(said, "bits", "w_bit", "nbits"))


def _compressed(said: Mapping[str, Any]) -> str:
    """``fp8``, ``int4``, ...: type and bits of the weights in the first group that says them."""
    for group in _mapping(said.get("config_groups")).values():
        weights = _mapping(_mapping(group).get("weights"))
        bits = weights.get("num_bits")
        if isinstance(bits, int):
            return f"{'fp' if weights.get('type') == 'float' else 'int'}{bits}"
    return ""


def _with_bits(method: str, bits: object) -> str:
    told = isinstance(bits, int | float) and not isinstance(bits, bool) and 0 < bits <= 64
    return f"{method} {bits:g} bit" if told else method


def _shape(text: Mapping[str, Any]) -> Shape:
    layers = min(_count(text, "num_hidden_layers", "n_layer", "num_layers"), _MAX_LAYERS)
    heads = _count(text, "num_attention_heads", "n_head")
    if not layers or not heads:
        return UNKNOWN
    each = _per_layer(text, heads)
    window = _count(text, "sliding_window") if text.get("use_sliding_window") is not False else 0
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and kinds:
        plain = sum(kind in _PLAIN_LAYERS for kind in kinds[:_MAX_LAYERS])
        windowed = sum(kind in _WINDOW_LAYERS for kind in kinds[:_MAX_LAYERS])
        return Shape(plain * each, windowed * each, window or _count(text, "attention_chunk_size"))
    return Shape(0, layers * each, window) if window else Shape(layers * each)


def _per_layer(text: Mapping[str, Any], heads: int) -> int:
    if rank := _count(text, "kv_lora_rank"):
        return rank + _count(text, "qk_rope_head_dim")
    size = _count(text, "head_dim") or _count(text, "hidden_size", "n_embd") // heads
    return 2 * size * (_count(text, "num_key_value_heads") or heads)


def _count(said: Mapping[str, Any], *names: str) -> int:
    value = _first(said, *names)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_COUNT else 0


def _first(said: Mapping[str, Any], *names: str) -> Any:
    return next((said[name] for name in names if said.get(name) is not None), None)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str:
    return value[:60] if isinstance(value, str) else ""
