"""How much memory does a model need at least? Its weights, and the KV cache of its requests; pure."""

from __future__ import annotations

import dataclasses

_BYTES_PER_VALUE = 2  # FP16 or BF16, which engines keep unless told otherwise


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What the layers of a model keep of each token; all 0 when nobody knows.

    Attributes:
        values: numbers that all layers together keep of each token, however long the context is.
        windowed_values: likewise, of layers that look back over a window alone.
        window: tokens of that window.

    """

    values: int = 0
    windowed_values: int = 0
    window: int = 0


UNKNOWN = Shape()


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes that are needed at least; an engine takes more for its own buffers.

    Attributes:
        weights_bytes: as large as the files.
        kv_bytes: of the KV cache, 0 when the model does not tell its shape.

    """

    weights_bytes: int
    kv_bytes: int

    @property
    def total_bytes(self) -> int:
        """Of both."""
        return self.weights_bytes + self.kv_bytes


def estimate(weights_bytes: int, shape: Shape, *, context: int, parallel: int = 1) -> Estimate:
    """What a model needs for so many requests of so many tokens each, prompt and answer together.

    Of each token a layer keeps a key and a value for each of its KV heads: ``kv_heads * (key + value dimensions)``
    numbers, which is the shape of the cache in transformers (``[batch, kv_heads, tokens, head_dim]``, twice), of a page
    in vLLM (``2 * block_size * num_kv_heads * head_size``) and of llama.cpp's ``n_embd_k_gqa + n_embd_v_gqa``. With
    latent attention (DeepSeek's MLA) all heads share one vector of ``kv_lora_rank + qk_rope_head_dim`` numbers. A layer
    with a sliding window keeps no more tokens than the window has; linear attention and state spaces keep none.
    """
    kept = shape.values * context + shape.windowed_values * min(context, shape.window)
    return Estimate(weights_bytes, kept * parallel * _BYTES_PER_VALUE)
