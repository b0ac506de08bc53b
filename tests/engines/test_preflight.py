"""Is what cannot work on a machine told before anything starts, and only that?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import cards
from pytest_kitt.engine import preflight
from pytest_kitt.errors import UserError
from pytest_kitt.hardware.platform import Platform
from pytest_kitt.matrix import Cell, build
from pytest_kitt.model.reference import ModelRef
from pytest_kitt.settings import Settings

CARDS = cards.load_engines()
MODEL = ModelRef(ref="m", name="m", format="safetensors", path="/m")
CPU, ARM = Platform("x86_64", "Linux"), Platform("aarch64", "Linux")
H100 = Platform("x86_64", "Linux", "nvidia", "NVIDIA H100", "9.0", (80 * 10**9,), cuda="13.0")
ORIN = Platform("aarch64", "Linux", "nvidia", "Orin", "8.7", (0,), cuda="12.6")
MI300 = Platform("x86_64", "Linux", "amd", gpu_bytes=(192 * 10**9,))


def checked(here: Platform, *cells: tuple[str, str], **settings: Any) -> dict[str, str]:
    """The reasons, by engine, of a matrix of engines as runtimes."""
    matrix = tuple(Cell(engine, MODEL, runtime, id=f"{engine}-m") for engine, runtime in cells)
    return {cell.engine: cell.skip for cell in preflight.checked(matrix, CARDS, Settings(**settings), lambda: here)}


def refused(here: Platform, engine: str, runtime: str = "container", **settings: Any) -> str:
    """The sentence about the only cell of a session."""
    with pytest.raises(UserError) as caught:
        checked(here, (engine, runtime), **settings)
    return str(caught.value)


def test_an_impossible_cell_of_several_is_a_skip() -> None:
    """The others run."""
    found = checked(ARM, ("tgi", "container"), ("llama_cpp", "container"), ("mlx", "process"))
    assert found["llama_cpp"] == found["mlx"] == ""
    assert found["tgi"] == (
        "tgi cannot run as container on this machine (Linux aarch64, no GPU): there is no image for arm64; "
        "pytest --kitt-force tries it all the same"
    )


@pytest.mark.parametrize(
    "here, engine, sentence",
    [
        (CPU, "exllamav2", "it needs a GPU"),
        (ORIN, "exllamav2", "there are no kernels for arm64"),
        (ORIN, "vllm", "its images have no kernels for Jetson Orin"),
        (MI300, "sglang", "its ROCm images differ by GPU"),
        (MI300, "tensorrt_llm", "it needs a GPU of NVIDIA"),
    ],
)
def test_the_only_cell_is_a_mistake_of_the_users(here: Platform, engine: str, sentence: str) -> None:
    """One sentence, before anything starts."""
    assert f"): {sentence}" in refused(here, engine)


def test_what_is_wrong_with_images_is_not_wrong_with_the_users() -> None:
    """A named image is meant; what no image can change still holds."""
    named: dict[str, Any] = {"image": (("*", "mine:1"),)}
    assert checked(MI300, ("sglang", "container"), **named) == {"sglang": ""}
    assert checked(ARM, ("tgi", "container"), **named) == {"tgi": ""}
    assert "it needs a GPU" in refused(CPU, "exllamav2", "container", **named)


def test_an_override_in_the_users_file_counts_as_named(private_home: Path) -> None:
    """As on the command line."""
    (private_home / "engines.yaml").write_text("image_overrides: {sglang: mine:1}")
    assert checked(MI300, ("sglang", "container")) == {"sglang": ""}


def test_force_tries_it_all_the_same() -> None:
    """But a container needs an image."""
    assert checked(ORIN, ("vllm", "container"), force=True) == {"vllm": ""}
    assert "exllamav2 has no image for this machine" in refused(CPU, "exllamav2", force=True)
    assert "--kitt-image=exllamav2=IMAGE" in refused(CPU, "exllamav2", force=True)


def test_other_ways_have_their_own_reasons() -> None:
    """Images are nobody's affair but containers'."""
    assert checked(ORIN, ("vllm", "process")) == {"vllm": ""}
    assert checked(MI300, ("sglang", "endpoint")) == {"sglang": ""}


def test_the_machine_is_asked_only_where_it_matters() -> None:
    """The embedded engine and a server that runs already work on every machine."""

    def machine() -> Platform:
        raise AssertionError

    cells = build(Settings(), CARDS)
    assert preflight.checked(cells, CARDS, Settings(), machine) == cells
    assert not cells[0].skip


def test_a_bad_file_of_images_is_told_where_a_container_is_wanted(private_home: Path) -> None:
    """And only there."""
    (private_home / "engines.yaml").write_text("image_override: {}")
    assert "did you mean 'image_overrides'?" in refused(H100, "vllm")
    assert checked(H100, ("vllm", "process")) == {"vllm": ""}
