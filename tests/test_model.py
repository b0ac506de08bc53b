"""Is a model recognised by its content, and a damaged file refused in a sentence?"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import shipped
from pytest_kitt.errors import UserError
from pytest_kitt.model import gguf
from pytest_kitt.model.memory import Shape, estimate
from pytest_kitt.model.reference import ModelRef, resolve, short_name
from tests.made_models import gguf as made_gguf
from tests.made_models import put, safetensors


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def head() -> bytes:
    """A minimal GGUF head: two texts, an array, one tensor of 4 x 3."""
    entries = [
        _text("general.architecture") + struct.pack("<I", 8) + _text("llama"),
        _text("general.file_type") + struct.pack("<II", 4, 7),
        _text("tokens") + struct.pack("<IIQ", 9, 8, 2) + _text("a") + _text("b"),
        _text("scores") + struct.pack("<IIQ", 9, 6, 2) + struct.pack("<ff", 1, 2),
    ]
    tensor = _text("w") + struct.pack("<IQQIQ", 2, 4, 3, 0, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, 1, len(entries)) + b"".join(entries) + tensor


def test_the_head_of_a_file(tmp_path: Path) -> None:
    """Architecture, quantization and number of weights are read."""
    path = tmp_path / "m.gguf"
    path.write_bytes(head())
    assert gguf.read(path) == gguf.GgufFacts("llama", "Q8_0", 12)


def test_the_shipped_model() -> None:
    """The tiny model is known as itself."""
    model = resolve("tiny")
    assert (model.format, model.quantization, model.parameters, model.toy) == ("gguf", "F16", 583_040, True)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """A file cut anywhere is a damaged file, never a crash."""
    whole = head()
    path = tmp_path / "m.gguf"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(gguf.NotGguf):
            gguf.read(path)


@pytest.mark.parametrize(
    "data",
    [
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
        b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _text("k") + struct.pack("<IIQ", 9, 8, 1 << 62),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + _text("w") + struct.pack("<I", 1 << 30),
    ],
)
def test_hostile_counts_are_refused(tmp_path: Path, data: bytes) -> None:
    """Numbers in a file are bounded, not believed."""
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(gguf.NotGguf):
        gguf.read(path)


def test_identity_is_the_content(tmp_path: Path) -> None:
    """Copies are the same model, one changed byte is another."""
    one, two, three = (tmp_path / name for name in ("a.gguf", "b.gguf", "c.gguf"))
    for path in (one, two):
        path.write_bytes(head() + b"\0" * 1000)
    three.write_bytes(head() + b"\0" * 999 + b"\1")
    found = [resolve(str(path)).identity for path in (one, two, three)]
    assert found[0] == found[1] != found[2]


def test_large_files_are_sampled_to_their_end(tmp_path: Path) -> None:
    """The last byte of a large file counts."""
    paths = [tmp_path / name for name in ("a.gguf", "b.gguf")]
    for path, last in zip(paths, (b"\0", b"\1"), strict=True):
        with path.open("wb") as file:
            file.write(head())
            file.seek((80 << 20) + 12_345)
            file.write(last)
    assert resolve(str(paths[0])).digest != resolve(str(paths[1])).digest


def test_folders_and_hub_ids(tmp_path: Path) -> None:
    """A folder is known by its files, a hub id by its form; an empty folder is refused."""
    put(tmp_path, {"config.json": {}, "model.safetensors": safetensors()})
    assert resolve(str(tmp_path)).format == "safetensors"
    assert resolve("org/model-7b@main").name == "model-7b"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither"):
        resolve(str(tmp_path / "empty"))
    (tmp_path / "z.gguf").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match="is no GGUF file"):
        resolve(str(tmp_path / "z.gguf"))
    with pytest.raises(UserError, match="check the path"):
        resolve("./nothing/here")


def test_the_tiny_model_for_other_engines(tmp_path: Path) -> None:
    """A folder that says it holds the toy is one, and only a plain yes says so."""
    assert said(tmp_path / "ours", {"kitt_toy": True}).toy
    assert not said(tmp_path / "other", {"kitt_toy": "no"}).toy


def test_short_names() -> None:
    """Names fit for node ids."""
    assert short_name("a b/ü[1]") == "a-b-1"
    assert short_name("///") == "model"
    assert shipped.TINY_MODEL.is_file()


def packed(**said: Any) -> dict[str, Any]:
    """A config.json with a quantization_config."""
    return {"torch_dtype": "float16", "quantization_config": said}


def said(folder: Path, config: dict[str, Any], **files: dict[str, Any]) -> ModelRef:
    """A folder of safetensors as its JSON files describe it."""
    named = {f"{name}.json": content for name, content in files.items()}
    return resolve(str(put(folder, {"config.json": config, "model.safetensors": safetensors(), **named})))


FP8_GROUP = {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}
INT4_GROUP = {"group_0": {"weights": {"num_bits": 4, "type": "int"}}}
EXL2 = {"quant_method": "exl2", "version": "0.3.2", "bits": 4.25, "head_bits": 6, "calibration": {"rows": 115}}
EXL3 = {"quant_method": "exl3", "version": "0.0.6", "bits": 3.0, "head_bits": 6}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4"}
PACKED: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "plain": ({"dtype": "bfloat16"}, ("safetensors",), "bfloat16"),
    "gptq": (packed(quant_method="gptq", bits=4, group_size=128), ("safetensors", "gptq"), "gptq 4 bit"),
    "awq": (packed(quant_method="awq", bits=4, version="gemm"), ("safetensors", "awq"), "awq 4 bit"),
    "fp8": (packed(quant_method="fp8", weight_block_size=[128, 128]), ("safetensors", "fp8"), "fp8"),
    "compressed fp8": (
        packed(quant_method="compressed-tensors", format="float-quantized", config_groups=FP8_GROUP),
        ("safetensors", "fp8"),
        "fp8 compressed-tensors",
    ),
    "compressed int4": (
        packed(quant_method="compressed-tensors", format="pack-quantized", config_groups=INT4_GROUP),
        ("safetensors", "compressed-tensors"),
        "int4 compressed-tensors",
    ),
    "bitsandbytes": (packed(**BNB), ("safetensors", "bitsandbytes"), "bitsandbytes 4 bit"),
    "exl2": (packed(**EXL2), ("exl2",), "exl2 4.25 bit"),
    "exl3": (packed(**EXL3), ("exl3",), "exl3 3 bit"),
    "mlx": ({"quantization": {"group_size": 64, "bits": 4}}, ("mlx",), "mlx 4 bit"),
    "mlx twice": (
        {"quantization": {"bits": 8}, "quantization_config": {"group_size": 64, "bits": 8}},
        ("mlx",),
        "mlx 8 bit",
    ),
    "within": ({"text_config": packed(quant_method="awq", bits=4)}, ("safetensors", "awq"), "awq 4 bit"),
    "hostile": (packed(quant_method=["x"], bits="many"), ("safetensors", "quantized"), "quantized"),
}


@pytest.mark.parametrize("name", PACKED)
def test_how_weights_are_packed(tmp_path: Path, name: str) -> None:
    """From the shapes that the tools write into config.json."""
    config, formats, quantization = PACKED[name]
    model = said(tmp_path, config)
    assert (model.formats, model.quantization) == (formats, quantization)
    assert model.parameters == (12 if name == "plain" else 0)


def test_packing_in_a_file_of_its_own(tmp_path: Path) -> None:
    """As AutoGPTQ, llm-awq and ModelOpt write it."""
    gptq = said(tmp_path / "g", {}, quantize_config={"bits": 3, "group_size": 128, "desc_act": True})
    awq = said(tmp_path / "a", {}, quant_config={"zero_point": True, "q_group_size": 128, "w_bit": 4})
    fp8 = said(tmp_path / "f", {}, hf_quant_config={"quantization": {"quant_algo": "FP8"}})
    nvfp4 = said(tmp_path / "n", {}, hf_quant_config={"quantization": {"quant_algo": "NVFP4"}})
    assert [model.quantization for model in (gptq, awq, fp8, nvfp4)] == [
        "gptq 3 bit", "awq 4 bit", "fp8 modelopt", "nvfp4 modelopt",
    ]  # fmt: skip
    assert [model.packing for model in (gptq, awq, fp8, nvfp4)] == ["gptq", "awq", "fp8", "modelopt"]


def test_the_facts_that_are_stored(tmp_path: Path) -> None:
    """Of a folder and of a GGUF file: size, architecture and trained context beside the rest."""
    config = {"architectures": ["LlamaForCausalLM"], "torch_dtype": "float16", "max_position_embeddings": 8192}
    facts = said(tmp_path / "m", config).facts()
    assert {**facts, "digest": None} == {
        "ref": "m", "name": "m", "format": "safetensors", "quantization": "float16", "parameters": 12, "digest": None,
        "size_bytes": len(safetensors()), "architecture": "LlamaForCausalLM", "context": 8192, "revision": None,
    }  # fmt: skip
    content = made_gguf({"llama.context_length": 2048})
    put(tmp_path, {"a.gguf": content})
    model = resolve(str(tmp_path / "a.gguf"))
    assert (model.architecture, model.context, model.size_bytes) == ("llama", 2048, len(content))


def test_a_gguf_model_in_parts(tmp_path: Path) -> None:
    """Any part names it; its path is the first; its digest is of all; a part that lacks is named."""
    parts = {f"m-0000{n}-of-00003.gguf": made_gguf(weights=n) for n in (1, 2, 3)}
    put(tmp_path, parts)
    found = [resolve(str(tmp_path / name)) for name in (*parts, "")]
    assert {(m.name, Path(m.path).name, m.parameters) for m in found} == {("m", "m-00001-of-00003.gguf", 6)}
    digest = found[0].digest
    put(tmp_path, {"m-00003-of-00003.gguf": made_gguf(weights=4)})
    assert resolve(str(tmp_path)).digest != digest
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    with pytest.raises(UserError, match=r"part 2 of 3 is missing \(m-00002-of-00003.gguf\); fetch it again"):
        resolve(str(tmp_path / "m-00001-of-00003.gguf"))
    put(tmp_path, {"x-00004-of-00003.gguf": made_gguf()})
    with pytest.raises(UserError, match=r"x-00004-of-00003\.gguf says that it is part 4 of 3"):
        resolve(str(tmp_path / "x-00004-of-00003.gguf"))


def test_what_is_no_model_says_what_it_is(tmp_path: Path) -> None:
    """Empty, a pointer, cut off, another format, several models: each its own sentence."""
    put(tmp_path, {
        "empty.gguf": b"",
        "pointer.gguf": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "cut.gguf": made_gguf(data=63),
        "st/config.json": {},
        "st/model.safetensors": b"version https://git-lfs.github.com/spec/v1\n",
        "pt/config.json": {},
        "pt/pytorch_model.bin": b"x",
        "pt/pytorch_model.bin.index.json": {"weight_map": {"w": "pytorch_model-2.bin"}},
        "two/a.gguf": made_gguf(),
        "two/b.gguf": made_gguf(),
        "one/a.gguf": made_gguf(),
        "one/mmproj-a.gguf": made_gguf(),
    })  # fmt: skip
    for name, sentence in (
        ("empty.gguf", "empty.gguf is empty; fetch it again"),
        ("pointer.gguf", "pointer.gguf is a pointer of Git LFS, not the file itself; run 'git lfs pull'"),
        ("cut.gguf", "cut.gguf is cut off: it has 223 bytes of at least 224; fetch it again"),
        ("st", "model.safetensors is a pointer of Git LFS"),
        ("pt", "pytorch_model-2.bin is missing; fetch it again"),
        ("two", "the folder holds 2 GGUF models; name one of them: a.gguf, b.gguf"),
    ):
        with pytest.raises(UserError, match=re.escape(sentence)):
            resolve(str(tmp_path / name))
    assert resolve(str(tmp_path / "one")).name == "a"


HEADS = {"llama.block_count": 32, "llama.embedding_length": 4096, "llama.attention.head_count": 32}
LENGTHS = {"llama.attention.key_length": 64, "llama.attention.value_length": 32}
CACHES: dict[str, tuple[dict[str, Any], Shape]] = {
    "all heads": (HEADS, Shape(2 * 32 * 32 * 128)),
    "grouped": ({**HEADS, "llama.attention.head_count_kv": 8}, Shape(2 * 32 * 8 * 128)),
    "by layer": ({**HEADS, "llama.attention.head_count_kv": [8] * 4 + [0] * 28}, Shape(2 * 4 * 8 * 128)),
    "lengths": (
        {**HEADS, "llama.attention.head_count_kv": 8, **LENGTHS},
        Shape(32 * 8 * 96),
    ),
    "latent": (
        {**HEADS, "llama.attention.kv_lora_rank": 512, "llama.rope.dimension_count": 64}, Shape(32 * 576),
    ),
    "window": ({**HEADS, "llama.attention.sliding_window": 1024}, Shape(0, 2 * 32 * 32 * 128, 1024)),
    "silent": ({}, Shape()),
}  # fmt: skip


@pytest.mark.parametrize("name", CACHES)
def test_what_a_gguf_file_says_of_its_cache(tmp_path: Path, name: str) -> None:
    """Numbers per token, by llama.cpp's keys."""
    entries, shape = CACHES[name]
    put(tmp_path, {"m.gguf": made_gguf(entries)})
    assert resolve(str(tmp_path / "m.gguf")).shape == shape


LAYERS = {"num_hidden_layers": 4, "num_attention_heads": 8, "hidden_size": 512, "num_key_value_heads": 2}
CONFIGS: dict[str, tuple[dict[str, Any], Shape]] = {
    "grouped": (LAYERS, Shape(4 * 2 * 2 * 64)),
    "head size": ({**LAYERS, "head_dim": 128}, Shape(4 * 2 * 2 * 128)),
    "within": ({"text_config": LAYERS}, Shape(4 * 2 * 2 * 64)),
    "latent": ({**LAYERS, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, Shape(4 * 576)),
    "mixed": (
        {**LAYERS, "sliding_window": 16, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
        Shape(2 * 2 * 64, 3 * 2 * 2 * 64, 16),
    ),
    "linear": ({**LAYERS, "layer_types": ["linear_attention"] * 3 + ["full_attention"]}, Shape(2 * 2 * 64)),
    "window off": ({**LAYERS, "sliding_window": 16, "use_sliding_window": False}, Shape(4 * 2 * 2 * 64)),
    "old names": ({"n_layer": 2, "n_head": 4, "n_embd": 64}, Shape(2 * 2 * 4 * 16)),
    "hostile": ({"num_hidden_layers": 1 << 60, "num_attention_heads": -1}, Shape()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_config_says_of_its_cache(tmp_path: Path, name: str) -> None:
    """Numbers per token, by the names that transformers uses."""
    config, shape = CONFIGS[name]
    assert said(tmp_path, config).shape == shape


def test_an_estimate() -> None:
    """Llama 3.1 8B: 128 kB of cache a token; a window ends the growth; requests side by side add up."""
    llama = Shape(2 * 32 * 8 * 128)
    assert estimate(16_000, llama, context=1).kv_bytes == 128 << 10
    assert estimate(16_000, llama, context=8192, parallel=4).total_bytes == 16_000 + (4 << 30)
    assert estimate(0, Shape(10, 100, 16), context=1000).kv_bytes == 2 * (10 * 1000 + 100 * 16)


@pytest.mark.parametrize(
    "ref", ["hf:", "hf:m", "hf:a/b/c", "hf:a/b@", "hf:a/b@x/../y", "hf:a/b:", "hf:a/../b", "hf:a/b--c", "hf:a/b:\x1b"]
)
def test_what_is_no_hub_id(ref: str) -> None:
    """A reference that no hub has is refused with the forms that there are."""
    with pytest.raises(UserError, match="expected hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME:FILE"):
        resolve(ref)


def test_models_of_ollama() -> None:
    """A tag is a name that Ollama knows; nothing else is known."""
    model = resolve("ollama:hf.co/org/m-GGUF:Q4_K_M")
    assert (model.ref, model.format, model.path) == ("hf.co/org/m-GGUF:Q4_K_M", "ollama", "")
    assert resolve("ollama:llama3.2:1b").name == "llama3.2-1b"
    for ref in ("ollama:", "ollama:-x", "ollama:a b", "ollama:a:b:c"):
        with pytest.raises(UserError, match="expected ollama:NAME or ollama:NAME:TAG"):
            resolve(ref)
