"""How do engines that load no GGUF get the tiny model? ``python -m tools.tiny_safetensors DIR`` writes it there.

The weights of datasets/tiny/tiny.gguf, number for number, as safetensors in Hugging Face's layout, with the tokenizer
and the chat template. Needs the packages gguf and safetensors.
"""

import argparse
from pathlib import Path

import gguf

from tools.train_tiny.hugging_face import write_safetensors

GGUF = Path(__file__).resolve().parents[1] / "datasets" / "tiny" / "tiny.gguf"


def convert(folder: Path, *, source: Path = GGUF) -> Path:
    """Writes the model into a folder, which is made where it is missing; returns the folder."""
    write_safetensors(folder, {tensor.name: tensor.data for tensor in gguf.GGUFReader(source).tensors})
    return folder


def main() -> None:
    """Writes it to the folder named."""
    parser = argparse.ArgumentParser(prog="python -m tools.tiny_safetensors", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    print(convert(parser.parse_args().folder))


if __name__ == "__main__":
    main()
