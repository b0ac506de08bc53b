"""Is a model refused only where its memory surely does not do? Known shapes, known memories."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pytest_kitt.cards import ArgumentCard, EngineCard
from pytest_kitt.engine import fits
from pytest_kitt.engine.fits import lacks_memory, memory_for
from pytest_kitt.matrix import Cell
from pytest_kitt.model.memory import Shape
from pytest_kitt.model.reference import ModelRef

GB = 10**9
LLAMA = Shape(2 * 32 * 8 * 128)  # 8B: 131072 bytes a token
CONTEXT = ArgumentCard(flag="--context", default=8192, help="x")
CARD = EngineCard(name="mine", description="x", arguments={"context": CONTEXT})
RESERVES = CARD.model_copy(
    update={
        "arguments": {
            "context": ArgumentCard(flag="--context", default=8192, times="parallel", help="x"),
            "parallel": ArgumentCard(flag="--parallel", default=8, help="x"),
        }
    }
)
CELL = Cell("mine", ModelRef("m", "m", "safetensors"), "process")


def lacks(
    there: int | None, card: EngineCard = CARD, cell: Cell = CELL, override: tuple[str, str] | None = None
) -> str:
    """What is said of 16 GB of weights where there are so many bytes."""
    cell = dataclasses.replace(cell, overrides=(override,) if override else ())
    return lacks_memory(cell, card, 16 * GB, LLAMA, lambda _cell, _needed: there)


def test_weights_and_the_cache_of_one_request() -> None:
    """16 GB of weights and 1.07 GB for 8192 tokens: to the byte; who knows nothing says nothing."""
    needed = 16 * GB + 8192 * 131_072
    assert not lacks(needed)
    assert not lacks(None)
    assert lacks(needed - 1) == (
        "needs at least 17.1 GB of memory (16.0 GB of weights and 1.1 GB of cache for 8192 tokens), "
        "and this machine has 17.1 GB: take a smaller model or context, or --kitt-force"
    )
    assert not lacks(needed - 1, override=("context", "1024"))
    assert "and 2 GPUs have 10.0 GB" in lacks(10 * GB, cell=dataclasses.replace(CELL, gpus=2))


def test_an_engine_that_reserves() -> None:
    """Where the card multiplies the context, all slots count."""
    assert "8.6 GB of cache" in lacks(20 * GB, RESERVES)
    assert not lacks(20 * GB, RESERVES, override=("parallel", "1"))


@pytest.mark.parametrize("name", ["quantization", "dtype", "kv_cache_dtype", "gpu_layers", "--cpu-offload-gb"])
def test_what_changes_everything(name: str) -> None:
    """An argument that makes weights or caches smaller, or leaves them elsewhere: nothing is sure any more."""
    assert lacks(GB)
    assert not lacks(GB, override=(name, "1"))


@pytest.mark.parametrize(
    "gpus, format_, needed, there",
    [
        (0, "gguf", 10, 64),
        (0, "safetensors", 100, 64 + 24 + 24 + 80),
        (1, "safetensors", 10, 80),
        (2, "safetensors", 10, 80 + 24),
        (2, "gguf", 10, 80 + 24 + 64),
        (4, "safetensors", 10, None),
    ],
)
def test_what_there_is(
    monkeypatch: pytest.MonkeyPatch, gpus: int, format_: str, needed: int, there: int | None
) -> None:
    """The machine's memory, the largest GPUs, both for what may lie in both; a card that does not tell is none."""
    known: list[dict[str, Any]] = [{"memory_bytes": size} for size in (24 * GB, None, 80 * GB, 24 * GB)]
    monkeypatch.setattr(fits, "_machine", lambda: 64 * GB)
    monkeypatch.setattr("pytest_kitt.hardware.gpus.described", lambda: known)
    cell = dataclasses.replace(CELL, gpus=gpus, model=ModelRef("m", "m", format_))
    assert memory_for(cell, needed * GB) == (None if there is None else there * GB)
