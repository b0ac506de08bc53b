"""Where are the files of a model? On this machine: as they were, in the hub's cache, or downloaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_kitt.errors import EngineStartError, UserError
from pytest_kitt.model import cache, hub, reference, refusal
from pytest_kitt.model.hub import Lacks, Tell
from pytest_kitt.model.reference import ModelRef

_KINDS = (("safetensors",), ("pytorch",), ("gguf",))


def cached(model: ModelRef) -> ModelRef:
    """The model with what the hub's cache has of it, of any format; as it is where that is nothing."""
    if model.hub is None or model.path:
        return model
    path = next(filter(None, (cache.found(model.hub, formats) for formats in _KINDS)), None)
    return model if path is None else _here(model, path)


def absent(model: ModelRef, formats: Sequence[str]) -> str:
    """What is not installed and would be needed to have the files, in one sentence with the cure; else nothing."""
    if model.hub is None or model.path or hub.is_installed() or cache.found(model.hub, formats):
        return ""
    return str(refusal.not_installed(model.hub))


def files(
    model: ModelRef,
    *,
    formats: Sequence[str],
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
    tell: Tell = lambda *_: None,
    lacks: Lacks = lambda *_: "",
) -> ModelRef:
    """The model with a path and what its files say of it; one that has a path, and one of Ollama, as it is.

    A model of the hub is taken from the cache when all of it is there, without asking; else it is downloaded, and
    ``say`` and ``tell`` hear of it. EngineStartError says in one sentence why it cannot be had (kind ``model``,
    ``network``, ``disk`` or ``missing``), that none of ``formats`` is (``model``), or what ``lacks`` said of the bytes
    of its weights and the shape of its cache (``memory``). ``force`` takes any format.
    """
    if model.hub is None or model.path:
        return model
    path = cache.found(model.hub, formats)
    if path is None:
        path = hub.fetched(hub.Wish(model.hub, formats, force=force, say=say, tell=tell, lacks=lacks))
    here = _here(model, path)
    if not force and not set(here.formats) & set(formats):
        raise refusal.refused(model.hub, f"is {here.format} and the engine loads {' or '.join(formats)}")
    if problem := lacks(here.size_bytes, here.shape):
        raise refusal.refused(model.hub, problem, "memory")
    return here


def _here(model: ModelRef, path: Path) -> ModelRef:
    """A model of the hub with what its files say."""
    try:
        here = reference.of_path(model.ref, path)
    except UserError as error:
        raise EngineStartError(str(error), kind="model") from error
    return dataclasses.replace(here, ref=model.ref, name=model.name, hub=model.hub, commit=cache.commit_of(path))
