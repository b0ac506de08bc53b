"""How is the trained model written down, for llama.cpp and for everyone else?

Both forms hold the same numbers, rounded once to half precision: one GGUF file, and a folder in Hugging Face's layout.
This file writes the first, hugging_face.py the second.
"""

from pathlib import Path

import gguf
import jax.numpy as jnp
import numpy as np

from tools.train_tiny.model import Weights
from tools.train_tiny.shape import SHAPE
from tools.train_tiny.tokens import BEGIN, CHAT_TEMPLATE, END, SPECIAL, vocabulary

NAME = "kitt-tiny"
DESCRIPTION = "A toy that adds, compares and picks; it measures the harness, not a product"


def rounded(weights: Weights) -> Weights:
    """Round to half precision and back, so that every form of the model, and its accuracy, is of the same numbers."""
    return {name: value.astype(jnp.float16).astype(jnp.float32) for name, value in weights.items()}


def write_gguf(path: Path, weights: Weights) -> None:
    """Write one GGUF file: matrices in half precision, norms in single, as llama.cpp wants them."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(NAME)
    writer.add_description(DESCRIPTION)
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_shape(writer)
    _add_tokenizer(writer)
    for name, value in weights.items():
        writer.add_tensor(name, np.asarray(value, np.float16 if value.ndim == 2 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: gguf.GGUFWriter) -> None:
    writer.add_context_length(SHAPE.context)
    writer.add_embedding_length(SHAPE.width)
    writer.add_block_count(SHAPE.layers)
    writer.add_feed_forward_length(SHAPE.feed_forward)
    writer.add_head_count(SHAPE.heads)
    writer.add_head_count_kv(SHAPE.kv_heads)
    writer.add_layer_norm_rms_eps(SHAPE.epsilon)
    writer.add_rope_freq_base(SHAPE.rope_base)
    writer.add_rope_dimension_count(SHAPE.head_width)
    writer.add_vocab_size(SHAPE.vocabulary)


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    spellings = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(spellings)
    writer.add_token_types([gguf.TokenType.CONTROL if s in SPECIAL else gguf.TokenType.NORMAL for s in spellings])
    writer.add_token_merges(["þ ÿ"])  # llama.cpp refuses an empty list; these two bytes never occur in UTF-8
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(END)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
