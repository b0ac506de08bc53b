"""Is every model in a folder found, once, and what is broken told, however hostile the folder is?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.model import catalog
from pytest_kitt.model.catalog import Found, find
from tests.made_models import gguf, put, safetensors


def named(folder: Path, **options: Any) -> dict[str, Found]:
    """What is found, by path below the folder."""
    return {str(found.path.relative_to(folder)): found for found in find(folder, **options).models}


def test_models_of_both_kinds(tmp_path: Path) -> None:
    """Files by their first bytes, whatever they are called; folders by config.json; nothing else."""
    config = {"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"}
    put(
        tmp_path,
        {
            "a/m.gguf": gguf(),
            "a/notes.txt": b"GGUF is a format",
            "blobs/sha256-1234": gguf(weights=7),
            "st/config.json": config,
            "st/model-1.safetensors": safetensors(),
            "st/model-2.safetensors": safetensors((5,)),
            "pt/config.json": {"model_type": "gpt2"},
            "pt/pytorch_model.bin": b"x" * 10,
            "other/data.bin": b"x",
            "empty/config.json": config,
        },
    )
    found = named(tmp_path)
    assert list(found) == ["a/m.gguf", "blobs/sha256-1234", "pt", "st"]
    assert found["a/m.gguf"] == Found(
        tmp_path / "a/m.gguf", "gguf", len(gguf()), architecture="llama", quantization="Q4_K_M", parameters=16
    )
    st = found["st"]
    assert (st.format, st.architecture, st.quantization) == ("safetensors", "LlamaForCausalLM", "bfloat16")
    assert (st.parameters, st.size_bytes) == (17, len(safetensors()) + len(safetensors((5,))))
    assert (found["pt"].format, found["pt"].architecture, found["pt"].parameters) == ("pytorch", "gpt2", 0)


def test_packed_weights_are_not_counted(tmp_path: Path) -> None:
    """The tensors of a quantized model do not tell how many weights it has."""
    config = {"model_type": "qwen3", "quantization_config": {"quant_method": "awq", "bits": 4}}
    put(tmp_path, {"config.json": config, "model.safetensors": safetensors()})
    (model,) = find(tmp_path).models
    assert (model.quantization, model.parameters, model.problem) == ("awq 4 bit", 0, "")


def test_parts_are_one_model(tmp_path: Path) -> None:
    """A model in parts is named by the first, and one that lacks a part cannot be used."""
    put(tmp_path, {f"m-0000{n}-of-00002.gguf": gguf(weights=n) for n in (1, 2)} | {"n-00002-of-00002.gguf": gguf()})
    found = named(tmp_path)
    assert found["m-00001-of-00002.gguf"].parameters == 3
    assert found["m-00001-of-00002.gguf"].size_bytes == len(gguf(weights=1)) + len(gguf(weights=2))
    assert found["n-00002-of-00002.gguf"].problem == "part 1 of 2 is missing (n-00001-of-00002.gguf)"
    assert len(found) == 2


BROKEN: dict[str, tuple[dict[str, bytes | dict[str, Any]], str]] = {
    "no gguf": ({"m.gguf": b"PK\3\4"}, "is no GGUF file"),
    "empty": ({"m.gguf": b""}, "is empty; fetch it again"),
    "head": ({"m.gguf": gguf()[:30]}, "is a damaged GGUF file"),
    "cut off": ({"m.gguf": gguf(data=63)}, "is cut off: it has"),
    "pointer": ({"m.gguf": b"version https://git-lfs.github.com/spec/v1\n"}, "is a pointer of Git LFS, not the file"),
    "impossible": ({"m.gguf": gguf(weights=1 << 62, data=64, kind=99)}, "claims more weights than there can be"),
    "no config": ({"model.safetensors": safetensors()}, "config.json is missing"),
    "bad config": ({"config.json": b"{", "model.safetensors": safetensors()}, "config.json is not valid JSON"),
    "list": ({"config.json": b"[]", "model.safetensors": safetensors()}, "config.json holds no JSON object"),
    "deep": ({"config.json": b"[" * 99_999, "model.safetensors": safetensors()}, "config.json is not valid JSON"),
    "no head": ({"config.json": {}, "model.safetensors": b"x"}, "model.safetensors is no safetensors file"),
    "size": ({"config.json": {}, "model.safetensors": b"\xff" * 99}, "model.safetensors is no safetensors file"),
    "shape": (
        {"config.json": {}, "model.safetensors": safetensors((-1,), b"")},
        "model.safetensors is a damaged safetensors file",
    ),
    "data": ({"config.json": {}, "model.safetensors": safetensors(data=b"")}, "model.safetensors is cut off"),
    "part": (
        {
            "config.json": {},
            "a.safetensors": safetensors(),
            "model.safetensors.index.json": {"weight_map": {"w": "a.safetensors", "v": "../b.safetensors"}},
        },
        "b.safetensors is missing",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_listed_with_its_reason(tmp_path: Path, name: str) -> None:
    """A damaged model is one entry that says what is wrong, not a gap and not a crash."""
    files, reason = BROKEN[name]
    put(tmp_path, files)
    (found,) = find(tmp_path).models
    assert found.problem.startswith(reason)
    assert str(tmp_path) not in found.problem


def test_links_are_followed_once(tmp_path: Path) -> None:
    """A cache of files and named links shows each model under its name; a loop ends; a link to nothing is nothing."""
    put(tmp_path, {"hub/blobs/00ff": gguf()})
    snapshot = tmp_path / "hub" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "m.gguf").symlink_to("../../blobs/00ff")
    (snapshot / "gone.gguf").symlink_to("../../blobs/none")
    (snapshot / "loop").symlink_to(tmp_path, target_is_directory=True)
    (snapshot / "self").symlink_to("self")
    assert list(named(tmp_path)) == ["hub/snapshots/1/m.gguf"]


def test_a_huge_tree_is_cut_off_and_says_so(tmp_path: Path) -> None:
    """At most so many entries are looked at; a pipe with a model's name is not opened."""
    put(tmp_path, {f"{n:03}/m.gguf": gguf() for n in range(30)})
    os.mkfifo(tmp_path / "pipe.gguf")
    whole, part = find(tmp_path), find(tmp_path, limit=20)
    assert (whole.complete, len(whole.models)) == (True, 30)
    assert part.complete is False
    assert len(part.models) < 20


def test_where_models_lie(private_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KITT_MODEL_DIR, else the folder in the user's home."""
    assert catalog.folder() == private_home / "models"
    monkeypatch.setenv("KITT_MODEL_DIR", "/there")
    assert catalog.folder() == Path("/there")
