"""How is the tiny model made? ``python -m tools.train_tiny`` (needs the extra ``train``; a few minutes on one core).

It writes ``tiny.gguf`` and ``questions.jsonl`` to ``--out`` (the shipped folder unless told) and, with
``--safetensors DIR``, the same weights in Hugging Face's layout. On one machine, with one set of installed versions,
the same ``--seed`` and ``--steps`` make the same bytes: all randomness is seeded and one thread does the sums in a
fixed order. Another processor may round differently.

Beside it: ``python -m tools.train_tiny.ask URL`` scores a running server, and
``python -m tools.train_tiny.rotate_half DIR GGUF`` checks the safetensors. ``python -m tools.tiny_safetensors`` makes
them from the GGUF file, without training.
"""

import argparse
import hashlib
import os
from pathlib import Path

SHIPPED = Path(__file__).parents[2] / "datasets" / "tiny"


def main() -> None:
    """Train, score, and write the files."""
    options = _options()
    _use_one_thread()
    import numpy as np

    from tools.train_tiny.export import rounded, write_gguf
    from tools.train_tiny.hugging_face import write_safetensors
    from tools.train_tiny.tasks import held_out, write_questions
    from tools.train_tiny.training import accuracy, train

    kept = held_out()
    weights = rounded(train(kept, steps=options.steps, seed=options.seed, report=lambda line: print(line, flush=True)))

    options.out.mkdir(parents=True, exist_ok=True)
    write_questions(options.out / "questions.jsonl", kept)
    model = options.out / "tiny.gguf"
    write_gguf(model, weights)
    if options.safetensors:
        write_safetensors(options.safetensors, {name: np.asarray(value) for name, value in weights.items()})

    print(f"{sum(value.size for value in weights.values())} parameters, {model.stat().st_size} bytes")
    print(f"sha256 {hashlib.sha256(model.read_bytes()).hexdigest()}")
    print("held-out accuracy", " ".join(f"{task}={share:.3f}" for task, share in accuracy(weights, kept).items()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.train_tiny", description="Train the tiny model.")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder for tiny.gguf and questions.jsonl")
    parser.add_argument("--safetensors", type=Path, metavar="DIR", help="also write Hugging Face's layout there")
    parser.add_argument("--steps", type=int, default=320, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order of questions")
    return parser.parse_args()


def _use_one_thread() -> None:
    """Keep XLA to one core, before it is loaded: threads share out a sum differently from run to run."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if hasattr(os, "sched_setaffinity"):  # Linux only; XLA has as many threads as cores it may use
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


if __name__ == "__main__":
    main()
