"""Is a model recognised by its content, and a damaged file refused in a sentence?"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pytest_kitt import shipped
from pytest_kitt.errors import UserError
from pytest_kitt.model import gguf
from pytest_kitt.model.reference import resolve, short_name


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
    (tmp_path / "model.safetensors").write_bytes(b"x")
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


def test_short_names() -> None:
    """Names fit for node ids."""
    assert short_name("a b/ü[1]") == "a-b-1"
    assert short_name("///") == "model"
    assert shipped.TINY_MODEL.is_file()
