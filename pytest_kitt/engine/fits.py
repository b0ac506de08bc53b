"""Does a model fit into the memory that its engine has? Said before anything starts, and only where it is sure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_kitt.cards import EngineCard
from pytest_kitt.engine import command
from pytest_kitt.hardware import environment, fingerprint, gpus
from pytest_kitt.matrix import Cell
from pytest_kitt.model.memory import Shape, estimate

_CHANGES = ("quant", "dtype", "offload", "4bit", "8bit", "gpu_layers", "ngl", "cache_type", "device")


def lacks_memory(
    cell: Cell, card: EngineCard, weights_bytes: int, shape: Shape, memory: Callable[[Cell, int], int | None]
) -> str:
    """Why the memory is too small for the weights and the cache of a single request; empty when it may do.

    ``memory`` is asked what there is for a cell that needs so many bytes; None means that nobody knows. An argument of
    the engine that changes how weights or caches are kept makes the estimate worthless, and nothing is said.
    """
    if any(word in name.replace("-", "_") for name in _asked(cell, card) for word in _CHANGES):
        return ""
    said = command.values(cell, card)
    context = _number(said, "context")
    needed = estimate(weights_bytes, shape, context=context, parallel=_reserved(card, said))
    there = memory(cell, needed.total_bytes)
    if there is None or needed.total_bytes <= there:
        return ""
    cache = f" and {_gb(needed.kv_bytes)} of cache for {context} tokens" if needed.kv_bytes else ""
    where = f"{cell.gpus} GPU{'s' if cell.gpus > 1 else ''}" if cell.gpus else "this machine"
    return (
        f"needs at least {_gb(needed.total_bytes)} of memory ({_gb(weights_bytes)} of weights{cache}), and {where} "
        f"{'have' if cell.gpus > 1 else 'has'} {_gb(there)}: take a smaller model or context, or --kitt-force"
    )


def memory_for(cell: Cell, needed_bytes: int) -> int | None:
    """Bytes that a cell's engine can have; None when nobody knows. GPUs are looked at only where they matter.

    With GPUs it has as many of the largest as it needs, and of GGUF files it leaves in the memory of the machine what
    does not go there. A cell that needs none may use what there is.
    """
    machine = _machine()
    if not cell.gpus and needed_bytes <= machine:
        return machine
    each = sorted((int(gpu["memory_bytes"]) for gpu in gpus.described() if gpu["memory_bytes"]), reverse=True)
    if len(each) < cell.gpus:
        return None
    if not cell.gpus:
        return machine + sum(each)
    return sum(each[: cell.gpus]) + (machine if cell.model.format == "gguf" else 0)


def _asked(cell: Cell, card: EngineCard) -> set[str]:
    """The arguments that are not as the card has them."""
    return {*dict(cell.overrides), *(card.profiles[cell.profile].arguments if cell.profile else ())}


def _machine() -> int:
    whole = int(fingerprint.read()["memory_bytes"])
    return min(whole, int(environment.limits()["memory_limit_bytes"] or whole))


def _reserved(card: EngineCard, said: Mapping[str, str]) -> int:
    """For how many requests an engine keeps the whole context free from the start: where its card multiplies."""
    times = card.arguments["context"].times if "context" in card.arguments else ""
    return max(1, _number(said, times)) if times else 1


def _number(said: Mapping[str, str], name: str) -> int:
    """An argument as it will be passed; 0 without one that is a number."""
    value = said.get(name, "")
    return int(value) if value.isdecimal() else 0


def _gb(size: int) -> str:
    return f"{size / 10**9:.1f} GB"
