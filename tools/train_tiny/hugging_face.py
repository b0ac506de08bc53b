"""How is the tiny model written down in Hugging Face's layout?

The same numbers as in the GGUF file. They differ in names, and in the order of the rows of the query and key
projections: GGUF rotates adjacent pairs of a head, Hugging Face its two halves.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from tools.train_tiny.shape import SHAPE
from tools.train_tiny.tokens import BEGIN, CHAT_TEMPLATE, END, SPECIAL, vocabulary

HF_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_safetensors(folder: Path, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Write a folder that transformers loads as LlamaForCausalLM, its tokenizer and chat template included."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {_hf_name(name): _hf_tensor(name, np.asarray(value, np.float16)) for name, value in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})  # transformers insists on the metadata
    contents = {
        "config.json": _hf_config(),
        "generation_config.json": {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": END, "do_sample": False},
        "tokenizer.json": _hf_tokenizer(),
        "tokenizer_config.json": _hf_tokenizer_config(),
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _hf_name(name: str) -> str:
    """Turn ``blk.0.attn_q.weight`` into ``model.layers.0.self_attn.q_proj.weight``."""
    match name.split("."):
        case ["blk", layer, part, "weight"]:
            return f"model.layers.{layer}.{HF_NAMES[part]}.weight"
        case [part, "weight"]:
            return f"{HF_NAMES[part]}.weight"
    raise ValueError(f"no such weight in a Llama: {name}")


def _hf_tensor(name: str, value: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """Move each query's and key's pairs (0,1)(2,3)... of a head to (0,h)(1,h+1)..., h being half its width."""
    if not name.endswith(("attn_q.weight", "attn_k.weight")):
        return value
    pairs = value.reshape(-1, SHAPE.head_width // 2, 2, SHAPE.width)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(value.shape)


def _hf_config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": SHAPE.vocabulary,
        "hidden_size": SHAPE.width,
        "intermediate_size": SHAPE.feed_forward,
        "num_hidden_layers": SHAPE.layers,
        "num_attention_heads": SHAPE.heads,
        "num_key_value_heads": SHAPE.kv_heads,
        "head_dim": SHAPE.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": SHAPE.context,
        "rms_norm_eps": SHAPE.epsilon,
        "rope_theta": SHAPE.rope_base,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": END,
        "torch_dtype": "float16",
        "kitt_toy": True,  # so that what is measured with it is known to be of a toy
    }


def _hf_tokenizer() -> dict[str, Any]:
    begin = {"SpecialToken": {"id": SPECIAL[BEGIN], "type_id": 0}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": spelling} | plain for number, spelling in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {SPECIAL[BEGIN]: {"id": SPECIAL[BEGIN], "ids": [BEGIN], "tokens": [SPECIAL[BEGIN]]}},
        },
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {s: number for number, s in enumerate(vocabulary())}, "merges": []},
    }


def _hf_tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[BEGIN],
        "eos_token": SPECIAL[END],
        "pad_token": SPECIAL[END],
        "model_max_length": SHAPE.context,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
