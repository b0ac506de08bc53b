"""Do the safetensors compute what the GGUF file computes, read as Hugging Face reads them?

``python -m tools.train_tiny.rotate_half DIR GGUF`` runs a Llama written from Hugging Face's convention, in numpy
alone, on the folder, and the training's own code on the GGUF file, and compares the logits over some held-out questions
and one long prompt.
"""

import argparse
import json
from pathlib import Path
from typing import Any, TypeAlias

import gguf
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from tools.train_tiny.model import forward
from tools.train_tiny.tasks import held_out
from tools.train_tiny.tokens import BEGIN, encode

Array: TypeAlias = npt.NDArray[np.float64]
Config: TypeAlias = dict[str, Any]
TOLERANCE = 1e-3


def hf_logits(folder: Path, tokens: list[int]) -> Array:
    """Return the logits after each token."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()}
    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        block = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        x = x + _attention(config, block, _rms(config, x, block["input_layernorm.weight"]))
        x = x + _mlp(block, _rms(config, x, block["post_attention_layernorm.weight"]))
    logits: Array = _rms(config, x, weights["model.norm.weight"]) @ weights["lm_head.weight"].T
    return logits


def _rms(config: Config, x: Array, weight: Array) -> Array:
    normal: Array = weight * x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + config["rms_norm_eps"])
    return normal


def _attention(config: Config, block: dict[str, Array], x: Array) -> Array:
    time, head_dim = len(x), config["head_dim"]

    def heads(part: str) -> Array:
        return (x @ block[f"self_attn.{part}_proj.weight"].T).reshape(time, -1, head_dim).transpose(1, 0, 2)

    queries, keys, values = _rope(config, heads("q")), _rope(config, heads("k")), heads("v")
    repeats = config["num_attention_heads"] // config["num_key_value_heads"]
    keys, values = keys.repeat(repeats, axis=0), values.repeat(repeats, axis=0)
    scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(head_dim) + np.triu(np.full((time, time), -np.inf), 1)
    chances = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (chances / chances.sum(axis=-1, keepdims=True)) @ values
    out: Array = mixed.transpose(1, 0, 2).reshape(time, -1) @ block["self_attn.o_proj.weight"].T
    return out


def _rope(config: Config, x: Array) -> Array:
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] / config["rope_theta"] ** (np.arange(half) / half)
    cos, sin = np.tile(np.cos(angles), 2), np.tile(np.sin(angles), 2)
    rotated_half = np.concatenate((-x[..., half:], x[..., :half]), axis=-1)
    turned: Array = x * cos + rotated_half * sin
    return turned


def _mlp(block: dict[str, Array], x: Array) -> Array:
    gate = x @ block["mlp.gate_proj.weight"].T
    silu = gate / (1 + np.exp(-gate))
    out: Array = (silu * (x @ block["mlp.up_proj.weight"].T)) @ block["mlp.down_proj.weight"].T
    return out


def main() -> None:
    """Print the largest difference of any logit; fail if it is more than rounding."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_tiny.rotate_half", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("gguf", type=Path, metavar="GGUF")
    options = parser.parse_args()
    trained = {t.name: jnp.asarray(t.data, jnp.float32) for t in gguf.GGUFReader(options.gguf).tensors}
    prompts = [question.prompt for asked in held_out().values() for question in asked[:10]]
    prompts.append("".join(prompts)[:500])
    worst = 0.0
    for prompt in prompts:
        tokens = [BEGIN, *encode(prompt)]
        own = np.asarray(forward(trained, jnp.asarray([tokens])))[0]
        worst = max(worst, float(np.abs(own - hf_logits(options.folder, tokens)).max()))
    print(f"{len(prompts)} prompts, largest difference of a logit {worst:.2e}")
    if worst > TOLERANCE:
        raise SystemExit(f"more than rounding ({TOLERANCE:.0e}): the two forms are different models")


if __name__ == "__main__":
    main()
