"""Is the image the one that the flag, the user's file or the platform says, in this order?"""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kitt import cards, shipped
from pytest_kitt.engine import image
from pytest_kitt.errors import UserError
from pytest_kitt.hardware.platform import Platform
from pytest_kitt.settings import Settings

CARDS = cards.load_engines()


def gpu(arch: str, capability: str, cuda: str = "13.0") -> Platform:
    """A machine with one GPU of NVIDIA's."""
    return Platform(arch, "Linux", "nvidia", compute_capability=capability, cuda=cuda, gpu_bytes=(80 * 10**9,))


CPU, ARM = Platform("x86_64", "Linux"), Platform("aarch64", "Linux")
AMD = Platform("x86_64", "Linux", "amd", gpu_bytes=(192 * 10**9,))
INTEL = Platform("x86_64", "Linux", "intel", gpu_bytes=(0,))
B200, RTX5090, H100, V100 = gpu("x86_64", "10.0"), gpu("x86_64", "12.0"), gpu("x86_64", "9.0"), gpu("x86_64", "7.0")
H100_CUDA12 = gpu("x86_64", "9.0", cuda="12.4")
SPARK, THOR, ORIN, GRACE = (gpu("aarch64", number) for number in ("12.1", "11.0", "8.7", "9.0"))
OLD_DRIVER = gpu("x86_64", "", cuda="")

TABLE: dict[str, list[tuple[Platform, str | None]]] = {
    "vllm": [
        (B200, "nvcr.io/nvidia/vllm:26.10-py3"),
        (RTX5090, "nvcr.io/nvidia/vllm:26.10-py3"),
        (SPARK, "nvcr.io/nvidia/vllm:26.10-py3"),
        (THOR, "nvcr.io/nvidia/vllm:26.10-py3"),
        (H100, "vllm/vllm-openai:v0.31.0"),
        (GRACE, "vllm/vllm-openai:v0.31.0"),
        (OLD_DRIVER, "vllm/vllm-openai:v0.31.0"),
        (AMD, "vllm/vllm-openai-rocm:v0.31.0"),
        (CPU, "vllm/vllm-openai-cpu:v0.31.0-x86_64"),
        (ARM, "vllm/vllm-openai-cpu:v0.31.0-arm64"),
        (INTEL, None),
    ],
    "llama_cpp": [
        (B200, "kitt/llama-cpp:spark"),
        (RTX5090, "kitt/llama-cpp:spark"),
        (SPARK, "kitt/llama-cpp:arm64"),
        (THOR, "kitt/llama-cpp:arm64"),
        (ORIN, "kitt/llama-cpp:orin"),
        (H100, "ghcr.io/ggml-org/llama.cpp:server-cuda13"),
        (H100_CUDA12, "ghcr.io/ggml-org/llama.cpp:server-cuda"),
        (OLD_DRIVER, "ghcr.io/ggml-org/llama.cpp:server-cuda"),
        (GRACE, "ghcr.io/ggml-org/llama.cpp:server-cuda13"),
        (AMD, "ghcr.io/ggml-org/llama.cpp:server-rocm"),
        (INTEL, "ghcr.io/ggml-org/llama.cpp:server-intel"),
        (CPU, "ghcr.io/ggml-org/llama.cpp:server"),
        (ARM, "ghcr.io/ggml-org/llama.cpp:server"),
    ],
    "ollama": [
        *((machine, "ollama/ollama:0.40.0") for machine in (B200, H100, SPARK, ORIN, INTEL, CPU, ARM)),
        (AMD, "ollama/ollama:0.40.0-rocm"),
    ],
    "tgi": [
        (H100, "ghcr.io/huggingface/text-generation-inference:3.3.5"),
        (AMD, "ghcr.io/huggingface/text-generation-inference:3.3.5-rocm"),
        (INTEL, "ghcr.io/huggingface/text-generation-inference:3.3.5-intel-xpu"),
        (CPU, "ghcr.io/huggingface/text-generation-inference:3.3.5-intel-cpu"),
    ],
    "sglang": [
        (H100, "lmsysorg/sglang:v0.5.21"),
        (H100_CUDA12, "lmsysorg/sglang:v0.5.19-cu129"),
        (SPARK, "lmsysorg/sglang:v0.5.21"),
        (CPU, "lmsysorg/sglang:v0.5.20-xeon"),
        (AMD, None),
        (ARM, None),
    ],
    "exllamav2": [(H100, "kitt/tabbyapi:exl2"), (B200, "kitt/tabbyapi:exl2"), (SPARK, None), (CPU, None)],
    "exllamav3": [
        (H100, "ghcr.io/theroyallab/tabbyapi:cu13"),
        (H100_CUDA12, "ghcr.io/theroyallab/tabbyapi:latest"),
        (CPU, None),
    ],
    "tensorrt_llm": [(H100, "nvcr.io/nvidia/tensorrt-llm/release:1.2.1"), (CPU, None)],
}
ROWS = [(engine, machine, ref) for engine, rows in TABLE.items() for machine, ref in rows]


@pytest.mark.parametrize(
    "engine, machine, ref", ROWS, ids=[f"{e}-{m.arch}-{m.vendor}-{m.compute_capability}" for e, m, _ in ROWS]
)
def test_the_table(engine: str, machine: Platform, ref: str | None) -> None:
    """Each engine on each kind of machine."""
    found = image.choose(CARDS[engine], machine, Settings(), {})
    assert (found.ref if found else None) == ref


def test_every_row_of_every_card_is_in_the_table_above() -> None:
    """No image is shipped that no machine here gets."""
    rows = {(card.name, row.image) for card in CARDS.values() for row in card.images}
    assert rows - {("llama_cpp", "kitt/llama-cpp:cpu")} == {(engine, ref) for engine, _, ref in ROWS if ref}


def test_the_image_that_needs_no_registry_is_for_those_who_name_it() -> None:
    """It is built of what lies there."""
    found = image.choose(CARDS["llama_cpp"], CPU, Settings(image=(("llama_cpp", "kitt/llama-cpp:cpu"),)), {})
    assert found is not None
    assert found.dockerfile == shipped.ENGINES / "llama_cpp" / "Dockerfile.cpu"


def test_the_flag_wins_over_the_file_and_that_over_the_table() -> None:
    """Each choice says where it was made."""
    card, file = CARDS["vllm"], {"vllm": "mine:1"}
    chosen = [
        image.choose(card, H100, Settings(image=(("vllm", "flag:1"), ("*", "all:1"))), file),
        image.choose(card, H100, Settings(image=(("*", "all:1"),)), file),
        image.choose(card, H100, Settings(image=(("tgi", "other:1"),)), file),
        image.choose(card, H100, Settings(), {}),
        image.choose(CARDS["ollama"], H100, Settings(), {}),
    ]
    assert [(found.ref, found.origin) for found in chosen if found] == [
        ("flag:1", "--kitt-image"),
        ("all:1", "--kitt-image"),
        ("mine:1", "engines.yaml"),
        ("vllm/vllm-openai:v0.31.0", "platform"),
        ("ollama/ollama:0.40.0", "default"),
    ]


def test_a_named_image_of_the_table_is_built_as_the_table_says() -> None:
    """Who asks for one of ours on another machine gets its Dockerfile with it, and NVIDIA's its entry point."""
    found = image.choose(CARDS["llama_cpp"], CPU, Settings(image=(("*", "kitt/llama-cpp:spark"),)), {})
    assert found is not None
    assert found.dockerfile == shipped.ENGINES / "llama_cpp" / "Dockerfile.spark"
    assert found.command.startswith("docker build -t kitt/llama-cpp:spark -f ")
    ngc = image.choose(CARDS["vllm"], CPU, Settings(image=(("vllm", "nvcr.io/nvidia/vllm:26.10-py3"),)), {})
    assert ngc is not None
    assert ngc.entrypoint[-2:] == ("vllm", "serve")
    assert ngc.command == "docker pull nvcr.io/nvidia/vllm:26.10-py3"


def test_a_users_dockerfile_replaces_the_shipped_one(private_home: Path) -> None:
    """It lies in the folder of the engine's name in KITT_HOME."""
    own = private_home / "engines" / "llama_cpp" / "Dockerfile.spark"
    own.parent.mkdir(parents=True)
    own.touch()
    found = image.choose(CARDS["llama_cpp"], B200, Settings(), {})
    assert found is not None
    assert found.dockerfile == own


def test_overrides_are_read(private_home: Path) -> None:
    """From engines.yaml in KITT_HOME; none without it."""
    assert image.read_overrides(CARDS) == {}
    (private_home / "engines.yaml").write_text("image_overrides:\n  vllm: mine:1\n  llama_cpp: 'x/y@sha256:0'\n")
    assert image.read_overrides(CARDS) == {"vllm": "mine:1", "llama_cpp": "x/y@sha256:0"}
    (private_home / "engines.yaml").write_text("image_overrides:\n")
    assert image.read_overrides(CARDS) == {}


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("image_override: {}", r"engines.yaml: unknown key 'image_override'; did you mean 'image_overrides'\?"),
        ("image_overrides: {vlm: x}", r"image_overrides: engine 'vlm' is unknown; did you mean 'vllm'\?"),
        ("image_overrides: {vllm: 3}", "engine vllm: expected an image as a text"),
        ("image_overrides: {vllm: ' '}", "engine vllm: expected an image as a text"),
        ("image_overrides: [vllm]", "expected engines and their images"),
        ("- vllm", "expected a mapping, found list"),
        ("image_overrides: {", r"engines.yaml:\d: not valid YAML"),
    ],
)
def test_bad_overrides(private_home: Path, text: str, sentence: str) -> None:
    """One sentence names the file and what is wrong."""
    (private_home / "engines.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        image.read_overrides(CARDS)
