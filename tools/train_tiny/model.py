"""What does the tiny model compute?

A Llama as llama.cpp defines it: RMS norm, rotary positions over adjacent pairs, grouped-query attention, SwiGLU. The
weights are one flat mapping under their GGUF names, matrices as (out, in), so that a GGUF file is this mapping
written down.
"""

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from tools.train_tiny.shape import SHAPE

Weights: TypeAlias = dict[str, jax.Array]


def initial_weights(seed: int) -> Weights:
    """Draw small random matrices; norms start at one."""
    rng = np.random.default_rng(seed)
    width, ff = SHAPE.width, SHAPE.feed_forward
    matrices = {"token_embd": (SHAPE.vocabulary, width), "output": (SHAPE.vocabulary, width)}
    norms = ["output_norm"]
    for layer in range(SHAPE.layers):
        block = f"blk.{layer}"
        norms += [f"{block}.attn_norm", f"{block}.ffn_norm"]
        matrices |= {
            f"{block}.attn_q": (width, width),
            f"{block}.attn_k": (SHAPE.kv_width, width),
            f"{block}.attn_v": (SHAPE.kv_width, width),
            f"{block}.attn_output": (width, width),
            f"{block}.ffn_gate": (ff, width),
            f"{block}.ffn_up": (ff, width),
            f"{block}.ffn_down": (width, ff),
        }
    drawn = {name: rng.normal(0.0, 0.02, size) for name, size in matrices.items()}
    drawn |= {name: np.ones(width) for name in norms}
    return {f"{name}.weight": jnp.asarray(value, jnp.float32) for name, value in drawn.items()}


def forward(weights: Weights, tokens: jax.Array) -> jax.Array:
    """Return the logits after each position of (batch, time) tokens."""
    x = weights["token_embd.weight"][tokens]
    for layer in range(SHAPE.layers):
        prefix = f"blk.{layer}."
        block = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        x = x + _attend(block, _normalise(x, block["attn_norm.weight"]))
        x = x + _feed_forward(block, _normalise(x, block["ffn_norm.weight"]))
    return _normalise(x, weights["output_norm.weight"]) @ weights["output.weight"].T


def _normalise(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + SHAPE.epsilon) * scale


def _attend(block: Weights, x: jax.Array) -> jax.Array:
    batch, time, _ = x.shape
    per_group = SHAPE.heads // SHAPE.kv_heads
    query = _rotate((x @ block["attn_q.weight"].T).reshape(batch, time, SHAPE.heads, SHAPE.head_width))
    key = _rotate((x @ block["attn_k.weight"].T).reshape(batch, time, SHAPE.kv_heads, SHAPE.head_width))
    value = (x @ block["attn_v.weight"].T).reshape(batch, time, SHAPE.kv_heads, SHAPE.head_width)
    query = query.reshape(batch, time, SHAPE.kv_heads, per_group, SHAPE.head_width)
    scores = jnp.einsum("btkgd,bskd->bkgts", query, key) / math.sqrt(SHAPE.head_width)
    causal = jnp.tril(jnp.ones((time, time), bool))
    chances = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=-1)
    mixed = jnp.einsum("bkgts,bskd->btkgd", chances, value)
    return mixed.reshape(batch, time, SHAPE.width) @ block["attn_output.weight"].T


def _rotate(x: jax.Array) -> jax.Array:
    """Turn each adjacent pair (2i, 2i+1) of a head by an angle that grows with the position."""
    frequencies = SHAPE.rope_base ** -(np.arange(0, SHAPE.head_width, 2) / SHAPE.head_width)
    angles = np.outer(np.arange(x.shape[1]), frequencies)[None, :, None, :]
    cos, sin = jnp.asarray(np.cos(angles), x.dtype), jnp.asarray(np.sin(angles), x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack((even * cos - odd * sin, even * sin + odd * cos), axis=-1).reshape(x.shape)


def _feed_forward(block: Weights, x: jax.Array) -> jax.Array:
    gate, up = x @ block["ffn_gate.weight"].T, x @ block["ffn_up.weight"].T
    return (jax.nn.silu(gate) * up) @ block["ffn_down.weight"].T
