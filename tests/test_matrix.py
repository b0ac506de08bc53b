"""Are cells what was asked for, with stable names and keys, and reasons where they cannot work?"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import cards, shipped
from pytest_kitt.errors import UserError
from pytest_kitt.matrix import Cell, base_url, build
from pytest_kitt.settings import Settings


def cells(**settings: Any) -> tuple[Cell, ...]:
    """The matrix of some settings."""
    return build(Settings(**settings), cards.load_engines())


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A folder of safetensors."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    return str(folder)


def test_nothing_named_is_the_tiny_model_on_llama() -> None:
    """The default cell needs nothing."""
    (cell,) = cells()
    assert (cell.id, cell.engine, cell.runtime) == ("llama_cpp-tiny", "llama_cpp", "embedded")
    assert cell.model.toy


def test_keys_are_stable() -> None:
    """A key never changes for the same engine, model, runtime and overrides."""
    assert [c.key for c in cells(engine=("simulated",), model=("a", "b"))] == ["ca025be0e406", "03b854e1e41f"]
    (plain,) = cells(engine=("simulated",))
    (other,) = cells(engine=("simulated",), engine_arg=(("seed", "1"),))
    assert plain.key != other.key


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


def test_ids_are_unique_and_plain() -> None:
    """Only harmless characters; models of one short name are told apart."""
    found = cells(engine=("simulated",), model=("a/b c", "x y=[z]", "a-b-c"))
    assert len({c.id for c in found}) == 3
    assert all(set(c.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.+-") for c in found)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"engine": ("vlm",)}, "--kitt-engine: 'vlm' is unknown; did you mean 'vllm'"),
    ({"engine": ("vllm",)}, "measured where it already runs: add --kitt-url"),
    ({"engine": ("simulated",), "runtime": "embedded"}, "cannot run as embedded; it can as: process, endpoint"),
    ({"runtime": "endpoint"}, "needs --kitt-url"),
    ({"url": "http://h", "runtime": "process"}, "drop --kitt-runtime=process"),
    ({"url": "http://h", "engine": ("openai", "vllm")}, "name one engine, not openai, vllm"),
    ({"url": "http://h", "engine_arg": (("a", "1"),)}, "takes no engine arguments"),
    ({"model": ("nothere.gguf",)}, "there is no such file or folder"),
    ({"model": ("org/model",)}, "loads gguf files from this machine, and 'org/model' is none"),
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
    ("name: x\ndescription: d\nhelth: /", "x.yaml: unknown key 'helth'; did you mean 'health'"),
    (
        "name: x\ndescription: d\nruntimes: {process: {comand: [a]}}",
        "unknown key 'runtimes.process.comand'; did you mean",
    ),
    ("name: x\n", "key 'description'"),
    ("name: y\ndescription: d", "the card's name is 'y'; name the file y.yaml"),
    ("name: [\n", "x.yaml:2: not valid YAML"),
    ("- a", "expected a mapping, found list"),
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
