"""Are cells what was asked for, with stable names and keys, and reasons where they cannot work?"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import cards, shipped
from pytest_kitt.errors import UserError
from pytest_kitt.matrix import Cell, base_url, build
from pytest_kitt.settings import Settings
from tests.made_models import gguf, put, safetensors


def cells(**settings: Any) -> tuple[Cell, ...]:
    """The matrix of some settings."""
    return build(Settings(**settings), cards.load_engines())


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A folder of safetensors."""
    return str(put(tmp_path / "weights", {"config.json": {}, "model.safetensors": safetensors()}))


def test_nothing_named_is_the_tiny_model_on_llama() -> None:
    """The default cell needs nothing."""
    (cell,) = cells()
    assert (cell.id, cell.engine, cell.runtime) == ("llama_cpp-tiny", "llama_cpp", "embedded")
    assert cell.model.toy


def test_an_engine_that_does_not_speak_the_api_is_skipped() -> None:
    """With those that it speaks as the reason; alone it is refused."""
    found = {c.engine: c.skip for c in cells(engine=("simulated", "tgi"), model=("org/m",), api="tgi")}
    assert found["simulated"] == "--kitt-api: engine simulated does not speak 'tgi'; it speaks: chat, completions"
    assert "does not speak" not in found["tgi"]
    with pytest.raises(UserError, match="engine simulated does not speak 'llama-cpp'"):
        cells(engine=("simulated",), api="llama-cpp")


def test_keys_are_stable() -> None:
    """A key never changes for the same engine, model, runtime and overrides."""
    assert [c.key for c in cells(engine=("simulated",), model=("a", "b"))] == ["ca025be0e406", "03b854e1e41f"]
    (plain,) = cells(engine=("simulated",))
    (other,) = cells(engine=("simulated",), engine_arg=(("seed", "1"),))
    assert plain.key != other.key


def test_one_model_is_one_cell(tmp_path: Path) -> None:
    """Two spellings of a path are one; two files that hold the same are refused, as one key cannot be two cells."""
    first, second, link = (tmp_path / name for name in ("a.gguf", "b.gguf", "c.gguf"))
    first.write_bytes(gguf())
    second.write_bytes(gguf())
    link.symlink_to(first)
    (only,) = cells(engine=("llama_cpp",), model=(str(first), f"{tmp_path}/./a.gguf"))
    assert only.id == "llama_cpp-a"
    for other in (second, link):
        with pytest.raises(UserError, match=rf"a\.gguf and {other} are one model: .*; drop one of them, or say"):
            cells(engine=("llama_cpp", "ollama"), model=(str(first), str(other)))
    second.write_bytes(gguf({"general.name": "another"}))
    assert len({cell.key for cell in cells(engine=("llama_cpp",), model=(str(first), str(second)))}) == 2


def test_a_key_knows_no_path_and_no_address(tmp_path: Path) -> None:
    """The same file elsewhere, and the same model at another address, are the same cell."""
    copy = tmp_path / "elsewhere.gguf"
    shutil.copy(shipped.TINY_MODEL, copy)
    assert cells(model=(str(copy),))[0].key == cells()[0].key
    assert cells(model=(str(copy),))[0].model.toy
    one, two = (cells(url=f"http://h:{port}", model=("m",))[0] for port in (1, 2))
    assert one.key == two.key
    assert (one.id, one.runtime, one.url) == ("openai-m", "endpoint", "http://h:1")


def test_impossible_pairs_are_skips_in_a_matrix(weights: str) -> None:
    """In a matrix an impossible pair has its reason."""
    found = {c.engine: c for c in cells(engine=("llama_cpp", "simulated"), model=(weights,))}
    assert found["llama_cpp"].skip == "llama_cpp loads gguf and weights is safetensors"
    assert not found["simulated"].skip


def test_a_model_of_the_hub_is_planned_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key is its name, in any spelling, and stays when its files are here; nothing is asked or imported."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    spelt = ("org/m", "hf:org/m", "hf:org/m@main")
    keys = {cells(model=(ref,))[0].key for ref in spelt}
    assert len(keys) == 1
    (cell,) = cells(model=("hf:org/m-GGUF@v2:Q4_K_M",))
    assert (cell.id, cell.model.ref, cell.model.format) == ("llama_cpp-m-GGUF-Q4_K_M", "org/m-GGUF@v2:Q4_K_M", "gguf")
    assert not cell.skip
    assert dataclasses.replace(cell, model=dataclasses.replace(cell.model, digest="1", path="/m")).key == cell.key


def test_a_list_of_models(tmp_path: Path) -> None:
    """One reference a line; paths begin at the list; what is named twice is there once."""
    put(tmp_path, {"a.gguf": gguf(), "list.txt": b"# mine\ntiny\n\n  a.gguf\norg/m\nhf:org/m\nhf:org/m-GGUF:Q8_0\n"})
    found = cells(model=(f"@{tmp_path}/list.txt", "tiny"))
    assert [cell.model.name for cell in found] == ["tiny", "a", "m", "m-GGUF-Q8_0"]
    put(tmp_path, {"deep.txt": b"tiny\n@list.txt\n", "none.txt": b"# none\n", "bytes.txt": b"\xff"})
    for name, sentence in (
        ("deep", "'@list.txt' is a list in a list; name its models here instead"),
        ("none", "names no model; write one reference a line"),
        ("bytes", "cannot be read: it is no text in UTF-8"),
    ):
        with pytest.raises(UserError, match=sentence):
            cells(model=(f"@{tmp_path}/{name}.txt",))


def test_ids_are_unique_and_plain() -> None:
    """Only harmless characters; models of one short name are told apart."""
    found = cells(engine=("simulated",), model=("a/b c", "x y=[z]", "a-b-c"))
    assert len({c.id for c in found}) == 3
    assert all(set(c.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.+-") for c in found)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"engine": ("vlm",)}, "--kitt-engine: 'vlm' is unknown; did you mean 'vllm'"),
    ({"engine": ("openai",)}, "measured where it already runs: add --kitt-url"),
    ({"engine": ("vllm",)}, "engine vllm needs a model: --kitt-model=PATH"),
    ({"engine": ("vllm:fats",)}, "engine vllm has no profile 'fats'; known: latency, quick, throughput"),
    ({"engine": ("vllm:latency",), "url": "http://h"}, "a running server takes no profile; say --kitt-engine=vllm"),
    (
        {"engine": ("llama_cpp",), "runtime": "embedded", "engine_arg": (("gpu_layers", "1"),)},
        "takes 'gpu_layers' as container or process, not as embedded",
    ),
    (
        {"engine": ("simulated",), "runtime": "embedded"},
        "cannot run as embedded; it can as: process, compose, endpoint",
    ),
    ({"runtime": "endpoint"}, "needs --kitt-url"),
    ({"url": "http://h", "runtime": "process"}, "drop --kitt-runtime=process"),
    ({"url": "http://h", "engine": ("openai", "vllm")}, "name one engine, not openai, vllm"),
    ({"url": "http://h", "engine_arg": (("a", "1"),)}, "takes no engine arguments"),
    ({"model": ("nothere.gguf",)}, "there is no such file or folder"),
    ({"model": ("ollama:llama3.2:1b",)}, "llama_cpp loads gguf and llama3.2:1b is ollama"),
    ({"model": ("@no.txt",)}, "model list no.txt cannot be read: No such file or directory; check the path"),
    ({"model": ("hf:gpt2",)}, "model 'hf:gpt2': this is no model of the hub; expected hf:OWNER/NAME"),
    ({"engine_arg": (("context", "abc"),)}, "llama_cpp: context: 'abc' is not possible; expected: .* a whole number"),
    ({"engine_arg": (("parallel", "0"),)}, "llama_cpp: parallel: '0' is not possible; expected: .* of at least 1"),
    ({"engine_arg": (("parallel", "-3"),)}, "llama_cpp: parallel: '-3' is not possible; expected: .* of at least 1"),
    ({"engine_arg": (("contxt", "1"),)}, "no argument 'contxt'; did you mean 'context'"),
    ({"engine_arg": (("simulated.seed", "1"),)}, "'simulated' is not among the engines"),
]


@pytest.mark.parametrize("settings, sentence", BAD)
def test_what_cannot_be(settings: dict[str, Any], sentence: str) -> None:
    """A matrix in which nothing can work is a mistake of the user's, in one sentence."""
    with pytest.raises(UserError, match=sentence):
        cells(**settings)


@pytest.mark.parametrize(
    "url, base",
    [
        ("http://h:8000", "http://h:8000"),
        ("http://h:8000/v1/", "http://h:8000"),
        ("https://h/prefix/v1", "https://h/prefix"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_addresses(url: str, base: str) -> None:
    """/v1 and a trailing slash are taken off."""
    assert base_url(url) == base


@pytest.mark.parametrize(
    "url", ["h:8000", "ftp://h", "http://", "http://me:hush@h", "http://h?key=hush", "http://h:99999", "http://h:x"]
)
def test_bad_addresses(url: str) -> None:
    """What is no address is refused, and a password in it is not repeated."""
    with pytest.raises(UserError, match="--kitt-url") as caught:
        base_url(url)
    assert "hush" not in str(caught.value)


def test_arguments_by_engine_and_from_a_file(tmp_path: Path) -> None:
    """ENGINE.KEY is for one engine; the command line wins over the file."""
    config = tmp_path / "args.yaml"
    config.write_text("seed: 1\nsimulated:\n  ttft_ms: 3\nllama_cpp:\n  context: 99\n")
    asked = {"engine": ("simulated", "llama_cpp"), "engine_config": str(config), "engine_arg": (("seed", "2"),)}
    found = {c.engine: dict(c.overrides) for c in cells(**asked) if not c.skip}
    assert found == {"simulated": {"seed": "2", "ttft_ms": "3"}, "llama_cpp": {"seed": "2", "context": "99"}}


def test_all_shipped_cards_are_valid() -> None:
    """Each shipped card loads under its file's name."""
    found = cards.load_engines()
    assert {"llama_cpp", "openai", "simulated", "vllm"} <= set(found)
    assert found["simulated"].synthetic


CARDS = [
    ("name: x\ndescription: d\nhelth: /", "x.yaml:3: unknown key 'helth'; did you mean 'health'"),
    (
        "name: x\ndescription: d\nruntimes: {process: {comand: [a]}}",
        "unknown key 'runtimes.process.comand'; did you mean",
    ),
    ("name: x\n", "key 'description'"),
    ("name: y\ndescription: d", "the card's name is 'y'; name the file y.yaml"),
    ("name: [\n", "x.yaml:2: not valid YAML"),
    ("- a", "expected a mapping, found list"),
    (
        "name: x\ndescription: d\narguments: {a: {flag: --a, help: h, pattern: '('}}",
        r"key 'arguments.a.pattern': .* is no regular expression",
    ),
]


@pytest.mark.parametrize("text, sentence", CARDS)
def test_bad_cards(text: str, sentence: str) -> None:
    """A bad card names file and key, and the nearest known key."""
    folder = Path(os.environ["KITT_HOME"]) / "engines"
    folder.mkdir()
    (folder / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        cards.load_engines()


def test_a_users_card_replaces_a_shipped_one() -> None:
    """The folder in KITT_HOME wins."""
    folder = Path(os.environ["KITT_HOME"]) / "engines"
    folder.mkdir()
    (folder / "openai.yaml").write_text("name: openai\ndescription: mine\n")
    assert cards.load_engines()["openai"].description == "mine"
