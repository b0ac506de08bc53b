"""Does a model of the hub get here whole, once, and is every refusal a sentence with its cure?

The hub is one of ours (tests/fake_hub.py), what asks it is the real huggingface_hub.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.errors import EngineStartError
from pytest_kitt.model import cache, hub, local
from pytest_kitt.model.reference import ModelRef, resolve
from tests.fake_hub import COMMIT, TOKEN, FakeHub, served
from tests.made_models import gguf, safetensors

pytest.importorskip("huggingface_hub")

Q4, Q8 = gguf(weights=2000), gguf({"general.file_type": 7}, weights=3000)
CONFIG = b'{"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "max_position_embeddings": 4096}'
REPOS = {
    "org/m-GGUF": {"README.md": b"hello", "m-Q4_K_M.gguf": Q4, "m-Q8_0.gguf": Q8, "mmproj-m-F16.gguf": Q4},
    "org/parts": {f"Q4_K_M/m-0000{n}-of-00002.gguf": gguf(weights=1000 + n) for n in (1, 2)},
    "org/m": {
        "config.json": CONFIG,
        "tokenizer.json": b"{}",
        "model.safetensors": safetensors((40, 40)),
        "consolidated.safetensors": safetensors((40, 40)),
        "pytorch_model.bin": b"x" * 5000,
        "onnx/model.onnx": b"x" * 5000,
        "picture.png": b"x",
    },
    "org/exl2": {
        "config.json": b'{"quantization_config": {"quant_method": "exl2", "bits": 4.25}}',
        "output.safetensors": safetensors((40, 40)),
    },
}


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub, an empty cache, and no token."""
    for name in os.environ:
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr("huggingface_hub.constants.AGENT_HARNESSES_PATH", str(tmp_path / "none"), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    with served(REPOS) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def fetch(ref: str, *formats: str, **options: Any) -> ModelRef:
    """The model with its files."""
    return local.files(resolve(ref), formats=formats or ("gguf",), **options)


def refusal(ref: str, *formats: str, **options: Any) -> EngineStartError:
    """Why it cannot be had: always one sentence, never with a token."""
    with pytest.raises(EngineStartError) as caught:
        fetch(ref, *formats, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert ref.removeprefix("hf:") in text
    assert TOKEN not in text
    return caught.value


def test_a_quantization_is_fetched_once(fake: FakeHub) -> None:
    """The one file that fits, whatever the case; known by its content, with its commit; then from the cache."""
    said: list[str] = []
    told: list[tuple[Any, ...]] = []
    model = fetch("hf:org/m-GGUF:q4_k_m", say=said.append, tell=lambda *about: told.append(about))
    path = Path(model.path)
    assert path.read_bytes() == Q4
    assert path.name == "m-Q4_K_M.gguf"
    assert (model.ref, model.name, model.format) == ("org/m-GGUF:q4_k_m", "m-GGUF-q4_k_m", "gguf")
    assert model.facts()["revision"] == f"org/m-GGUF@{COMMIT}"
    assert (model.quantization, model.parameters, model.size_bytes) == ("Q4_K_M", 2000, len(Q4))
    assert said == [f"downloads 8.2 kB of org/m-GGUF:q4_k_m from the hub to {cache.folder()}"]
    assert told[-1] == ("m-Q4_K_M.gguf", len(Q4), len(Q4), 0)
    asked = len(fake.asked)
    assert fetch("hf:org/m-GGUF:q4_k_m") == model
    assert len(fake.asked) == asked
    assert {asked.path for asked in fake.transfers("m-Q8_0.gguf")} == set()


def test_a_folder_has_what_belongs_to_its_weights(fake: FakeHub) -> None:
    """Safetensors with settings and tokenizer; not the same weights again in other forms."""
    model = fetch("org/m", "safetensors", "pytorch")
    names = sorted(path.name for path in Path(model.path).iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (model.format, model.context, model.architecture) == ("safetensors", 4096, "LlamaForCausalLM")
    asked = len(fake.asked)
    assert fetch(f"org/m@{COMMIT}", "safetensors").path == model.path
    assert len(fake.asked) == asked


def test_all_parts_are_fetched(fake: FakeHub) -> None:
    """A model in parts is named by its quantization or by one part, and given by its first."""
    model = fetch("hf:org/parts:Q4_K_M")
    assert Path(model.path).name == "m-00001-of-00002.gguf"
    assert (model.parameters, model.name) == (2003, "parts-Q4_K_M")
    asked = len(fake.asked)
    assert fetch("hf:org/parts:Q4_K_M/m-00002-of-00002.gguf").path == model.path
    assert len(fake.asked) == asked


def test_a_transfer_that_breaks_goes_on(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off in the middle: the rest alone is asked for; the store of large files is another, and gets no token."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fake.rights = {TOKEN: True}
    fake.cuts, fake.cut_bytes = 1, 3000
    assert Path(fetch("hf:org/m-GGUF:Q4_K_M").path).read_bytes() == Q4
    transfers = [asked for asked in fake.transfers("m-Q4_K_M.gguf") if asked.method == "GET"]
    assert [asked.range for asked in transfers] == ["", "bytes=3000-"]
    assert {asked.token for asked in transfers} == {""}
    assert {asked.token for asked in fake.asked if asked.path.startswith("/api/")} == {TOKEN}


def interrupted(fake: FakeHub) -> Path:
    """A session that was ended in the middle of a transfer; what it left."""

    def interrupt(name: str, done: int, *_: int) -> None:
        if name == "m-Q4_K_M.gguf" and done >= 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("hf:org/m-GGUF:Q4_K_M", tell=interrupt)
    fake.asked.clear()
    (partial,) = cache.folder().rglob("*.kitt.incomplete")
    return partial


def test_the_next_session_goes_on(fake: FakeHub) -> None:
    """What an interrupted session has fetched is not fetched again, and counts as here from the start."""
    assert interrupted(fake).stat().st_size == 2000
    told: list[tuple[Any, ...]] = []
    path = Path(fetch("hf:org/m-GGUF:Q4_K_M", tell=lambda *about: told.append(about)).path)
    assert path.read_bytes() == Q4
    assert [asked.range for asked in fake.transfers(path.name) if asked.method == "GET"] == ["bytes=2000-"]
    assert {before for *_, before in told} == {2000}
    assert not list(cache.folder().rglob("*.incomplete"))


def test_what_is_damaged_is_not_built_upon(fake: FakeHub) -> None:
    """A part that went bad on the disk is found by the digest of the whole, and fetched anew."""
    partial = interrupted(fake)
    partial.write_bytes(b"?" * 2000)
    assert "came damaged (m-Q4_K_M.gguf); run again" in str(refusal("hf:org/m-GGUF:Q4_K_M"))
    assert Path(fetch("hf:org/m-GGUF:Q4_K_M").path).read_bytes() == Q4


def test_two_sessions_fetch_one_file_once(fake: FakeHub) -> None:
    """The second waits for the first, and says that it is alive."""
    waits = threading.Event()

    def wait(*_: Any) -> None:
        assert waits.wait(60)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetch, "hf:org/m-GGUF:Q4_K_M", tell=wait)
        while not list(cache.folder().rglob("*.kitt.incomplete")):
            time.sleep(0.01)
        second = pool.submit(fetch, "hf:org/m-GGUF:Q4_K_M", tell=lambda *_: waits.set())
        assert first.result(60) == second.result(60)
    assert len([asked for asked in fake.transfers("m-Q4_K_M.gguf") if asked.method == "GET"]) == 1


def test_what_is_gated(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers are told to ask and to set a token; a token without access, to ask."""
    fake.gated, fake.rights = ("org/m",), {TOKEN: False}
    assert str(refusal("hf:org/m", "safetensors")) == (
        "model 'org/m' is gated; ask for access on its page on the hub, then set HF_TOKEN"
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert str(refusal("hf:org/m", "safetensors")) == (
        "model 'org/m' is gated; the token has no access yet: ask for it on its page on the hub"
    )
    fake.rights = {TOKEN: True}
    assert fetch("hf:org/m", "safetensors").format == "safetensors"


def test_what_is_private_or_not_there(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub does not tell the two apart, so the sentence names both; a token that it does not know is another."""
    fake.secret = ("org/m",)
    missing = "is not on the hub, or private; check the name, or"
    for name in ("org/m", "org/none"):
        assert str(refusal(f"hf:{name}")).endswith(f"{missing} set HF_TOKEN to a token that may read it")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert str(refusal("hf:org/m")).endswith("the hub does not accept the token; make a new one and set HF_TOKEN to it")
    fake.rights = {TOKEN: True}
    assert str(refusal("hf:org/none")).endswith(f"{missing} use a token that may read it")
    assert fetch("hf:org/m", "safetensors").path


@pytest.mark.parametrize(
    "ref, sentence",
    [
        ("hf:org/m@v9", "has no revision 'v9' on the hub; name a branch, a tag or a commit of it"),
        ("hf:org/m-GGUF", "is not clear: it has 2 GGUF models: name one of m-Q4_K_M.gguf, m-Q8_0.gguf"),
        (
            "hf:org/m-GGUF:Q5_K_M",
            "it has no 'Q5_K_M'; it has the GGUF models m-Q4_K_M.gguf, m-Q8_0.gguf (quantizations Q4_K_M, Q8_0)",
        ),
        ("hf:org/m", "is not clear: it has none in gguf; it has weights as bin, onnx, safetensors"),
    ],
)
def test_what_the_repository_lacks(fake: FakeHub, ref: str, sentence: str) -> None:
    """A revision, a quantization, a format: the sentence says what there is."""
    assert str(refusal(ref)).endswith(sentence)
    assert not [asked for asked in fake.asked if "/resolve/" in asked.path]


def test_a_hub_that_is_ill(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's error, too many requests, something that is no hub, and nothing at all."""
    for status, sentence in ((503, "answered with status 503; try again later"), (429, "wants fewer requests")):
        fake.status = status
        error = refusal("hf:org/m-GGUF:Q4_K_M")
        assert sentence in str(error)
        assert error.kind == "network"
    fake.status = 200
    assert "what answered is no hub; check HF_ENDPOINT" in str(refusal("hf:org/m-GGUF:Q4_K_M"))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        error = refusal("hf:org/m-GGUF:Q4_K_M")
    assert "the hub is out of reach, or the transfer was cut off; check the network" in str(error)
    assert error.kind == "network"


def test_offline(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the cache is used, what is not is refused, and the hub hears nothing."""
    fetch("hf:org/m-GGUF:Q4_K_M")
    fake.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch("hf:org/m-GGUF:Q4_K_M").path
    error = refusal("hf:org/m-GGUF:Q8_0")
    assert f"is not in the cache ({cache.folder()}) and HF_HUB_OFFLINE forbids to ask the hub; unset" in str(error)
    assert fake.asked == []


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is read without it; a download names the command that brings it."""
    fetch("hf:org/m-GGUF:Q4_K_M")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert fetch("hf:org/m-GGUF:Q4_K_M").path
    error = refusal("hf:org/m-GGUF:Q8_0")
    assert str(error).endswith("needs the package huggingface_hub: pip install 'pytest-kitt[hub]'")
    assert error.kind == "missing"


def test_a_disk_that_is_too_small(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is fetched, with both numbers and the cure; what is here already needs no room."""
    interrupted(fake)
    free = 5000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - free, free))
    error = refusal("hf:org/m-GGUF:Q4_K_M")
    assert f"needs 6.2 kB more in {cache.folder()} and 5.0 kB are free; make room, or set HF_HUB_CACHE" in str(error)
    assert error.kind == "disk"
    assert not fake.transfers("m-Q4_K_M.gguf")
    free = 7000
    assert fetch("hf:org/m-GGUF:Q4_K_M").path


def test_a_disk_that_is_full_or_not_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says of a write is a sentence, too."""
    for number, sentence in ((errno.ENOSPC, "does not fit on the disk of"), (errno.EACCES, "cannot be put into")):

        def fail(*_: Any, number: int = number, **__: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
        error = refusal("hf:org/m-GGUF:Q4_K_M")
        assert sentence in str(error)
        assert error.kind == "disk"


def test_what_the_engine_cannot_use_is_not_fetched(fake: FakeHub) -> None:
    """Format and memory are judged by the small files and the sizes, before the first large one."""
    assert str(refusal("hf:org/exl2", "safetensors")).endswith("is exl2 and the engine loads safetensors")
    assert str(refusal("hf:org/m", "exl2", "gptq")).endswith("is safetensors and the engine loads exl2 or gptq")
    error = refusal("hf:org/m", "safetensors", lacks=lambda weights, _: f"needs {weights}")
    assert (str(error), error.kind) == (f"model 'org/m' needs {len(safetensors((40, 40)))}", "memory")
    assert not [asked for asked in fake.asked if asked.path.startswith("/store/")]
    assert fetch("hf:org/exl2", "exl2").quantization == "exl2 4.25 bit"
    assert fetch("hf:org/exl2", "safetensors", force=True).format == "exl2"


def test_hostile_names(fake: FakeHub) -> None:
    """What would lie outside of the repository, or upset a terminal, is as if it were not there."""
    fake.repos["org/evil"] = {"../x-Q4_0.gguf": Q4, "/etc/y-Q4_0.gguf": Q4, "a\x1b[2J-Q4_0.gguf": Q4, "z-Q8_0.gguf": Q8}
    assert str(refusal("hf:org/evil:Q4_0")).endswith("it has the GGUF models z-Q8_0.gguf (quantizations Q8_0)")


def test_what_is_too_large_for_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library fetches it in its own way, and how far it is is told all the same."""
    monkeypatch.setattr(hub, "_MAX_HTTP_BYTES", 100)
    told: list[tuple[Any, ...]] = []
    assert Path(fetch("hf:org/m-GGUF:Q4_K_M", tell=lambda *about: told.append(about)).path).read_bytes() == Q4
    assert told[-1] == ("m-Q4_K_M.gguf", len(Q4), len(Q4), 0)


def test_parts_of_a_model_in_the_cache_are_no_model(fake: FakeHub) -> None:
    """Others fetch single files: what lacks is fetched, what is there is not."""
    snapshot = Path(fetch("hf:org/m", "safetensors").path)
    for name in ("tokenizer.json", "config.json"):
        fake.asked.clear()
        (snapshot / name).unlink()
        assert fetch("hf:org/m", "safetensors").path == str(snapshot)
        assert not fake.transfers("model.safetensors")
        assert (snapshot / name).exists()
