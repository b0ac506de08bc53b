"""Is the real llama.cpp server measured in containers: two models on two workers, and from a container beside it?"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import shipped
from tests.engines.contained import none_left, pytest_inside

pytestmark = pytest.mark.docker

LLAMA = ("--kitt-engine=llama_cpp", "--kitt-runtime=container", "-p", "no:cacheprovider")
BENCHMARK = """
def test_answer(kitt_engine):
    assert kitt_engine.generate("Q: 36+20=?\\nAnswer:", max_tokens=4).output == " 56"

def test_load(kitt_load):
    kitt_load("closed:2", "synthetic:8:8", "requests:8")
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the tiny model and its twin: the same weights in a file of other bytes."""
    folder = tmp_path / "models"
    folder.mkdir()
    content = shipped.TINY_MODEL.read_bytes()
    assert content.count(b"kitt-tiny") == 1
    (folder / "one.gguf").write_bytes(content)
    (folder / "twin.gguf").write_bytes(content.replace(b"kitt-tiny", b"kitt-twin"))
    return folder


def test_two_models_on_two_workers(
    pytester: pytest.Pytester, llama_image: str, models: Path, docker_client: Any
) -> None:
    """Each is served in a container of its own, at the same time, and the same weights give the same answer."""
    pytester.makepyfile(test_mine=BENCHMARK)
    both = f"--kitt-model={models / 'one.gguf'},{models / 'twin.gguf'}"
    options = (both, f"--kitt-image={llama_image}", "--kitt-output=out", "-n2", "--kitt-overlap=allowed")
    pytester.runpytest_subprocess(*LLAMA, *options, "test_mine.py").assert_outcomes(passed=4)
    cells = json.loads((pytester.path / "out" / "config.json").read_text())["cells"]
    assert {cell["id"] for cell in cells} == {"llama_cpp-one", "llama_cpp-twin"}
    assert len({cell["key"] for cell in cells}) == 2
    assert {cell["image"] for cell in cells} == {llama_image}
    assert none_left(docker_client, "llama_cpp-one")
    assert none_left(docker_client, "llama_cpp-twin")


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the image's Python is 3.11, and takes this one's packages as they are"
)
@pytest.mark.usefixtures("models")
def test_from_a_container_beside_it(tmp_path: Path, llama_image: str, private_home: Path, docker_client: Any) -> None:
    """Pytest sees its model where its container has it, Docker's host where it lies; both share one network."""
    said = pytest_inside(
        docker_client,
        llama_image,
        [*LLAMA, "--kitt-suite=quick", "--kitt-model=/work/models/one.gguf", f"--kitt-image={llama_image}"],
        seen={str(tmp_path): "/work", str(private_home): "/home-of-kitt"},
        env={"KITT_HOME": "/home-of-kitt"},
        folder="/work",
    )
    assert "4 passed" in said
    with contextlib.closing(sqlite3.connect(private_home / "kitt.db")) as store:
        assert store.execute("select value > 0.5 from metrics where name = 'accuracy'").fetchall() == [(1,)]
    assert none_left(docker_client, "llama_cpp-one")
