"""Which GPUs may a session use? Those of the setting, else of CUDA_VISIBLE_DEVICES, else all that the driver shows."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pytest_kitt.errors import UserError

_ID = re.compile(r"\d{1,4}|(GPU|MIG)-[0-9A-Za-z/-]{1,100}")
_MAX_COUNT = 1024
ALL = ("all",)  # of which nobody here knows how many they are, as in a container beside that of the engine
T = TypeVar("T")


def inventory(setting: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """The ids of the GPUs to use, as CUDA_VISIBLE_DEVICES spells them; UserError when the setting cannot be read.

    The setting is a list (``0,2`` or UUIDs; ``2,`` is GPU 2 alone) or a number of GPUs (``4`` is 0 to 3), or ``all``:
    so many as Docker has. A CUDA_VISIBLE_DEVICES that is set but empty means none.
    """
    if setting.strip():
        return _from_setting(setting)
    if (visible := env.get("CUDA_VISIBLE_DEVICES")) is not None:
        words = (word.strip() for word in visible.split(","))
        # as CUDA reads it: the first id that is none, such as -1 or NoDevFiles, ends the list
        return tuple(dict.fromkeys(itertools.takewhile(_ID.fullmatch, words)))
    return tuple(str(index) for index in range(len(_uuids())))


def devices(ids: Sequence[str]) -> dict[str, str]:
    """Each id's device: its UUID where the driver knows it, so that an index and a UUID of one device are the same."""
    known = _uuids()
    return {gpu: _device(gpu, known) for gpu in ids}


def _from_setting(setting: str) -> tuple[str, ...]:
    words = [word.strip() for word in setting.split(",")]
    if words == [*ALL]:
        return ALL
    if len(words) == 1 and words[0].isdecimal() and int(words[0]) <= _MAX_COUNT:
        return tuple(str(index) for index in range(int(words[0])))
    ids = tuple(dict.fromkeys(word for word in words if word))
    for word in ids:
        if not _ID.fullmatch(word):
            raise UserError(
                f"--kitt-gpus: {word!r} is no GPU; expected a number of GPUs, indices (0,1), UUIDs (GPU-...), or all"
            )
    return ids


def _device(gpu: str, known: Sequence[str]) -> str:
    if gpu.isdecimal():
        return known[int(gpu)] if int(gpu) < len(known) else gpu
    beginning = [uuid for uuid in known if uuid.startswith(gpu)]  # CUDA takes the beginning of a UUID for the whole
    return beginning[0] if len(beginning) == 1 else gpu


def described() -> list[dict[str, Any]]:
    """What each GPU is, by index: name, memory, compute capability, driver; nothing that tells two of a kind apart."""
    return list(_of_each(_description))


def cuda() -> str:
    """The newest CUDA that the driver serves, as ``13.0``; empty without a driver, or one that does not say."""
    said: list[int] = []
    with contextlib.suppress(AttributeError):  # of an older library
        said = _of_each(lambda nvml, _: int(nvml.nvmlSystemGetCudaDriverVersion()))
    return f"{said[0] // 1000}.{said[0] % 1000 // 10}" if said else ""


def _uuids() -> tuple[str, ...]:
    """The UUIDs of all GPUs by index; none without the driver or its library."""
    return tuple(_of_each(lambda nvml, handle: str(nvml.nvmlDeviceGetUUID(handle))))


def _of_each(read: Callable[[Any, Any], T]) -> list[T]:
    """What is read of each GPU, by index; nothing without the driver or its library."""
    try:
        import pynvml
    except ImportError:
        return []
    with contextlib.suppress(pynvml.NVMLError), contextlib.ExitStack() as stack:
        pynvml.nvmlInit()
        stack.callback(pynvml.nvmlShutdown)
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [read(pynvml, handle) for handle in handles]
    return []


def _description(nvml: Any, handle: Any) -> dict[str, Any]:
    def said(read: Callable[[], Any]) -> Any:
        """None for what this driver or this GPU does not tell."""
        with contextlib.suppress(nvml.NVMLError, AttributeError):
            found = read()
            return found.decode("utf-8", "replace") if isinstance(found, bytes) else found
        return None

    capability = said(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
    return {
        "name": said(lambda: nvml.nvmlDeviceGetName(handle)),
        "memory_bytes": said(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total),
        "compute_capability": ".".join(map(str, capability)) if capability else None,
        "driver": said(lambda: str(nvml.nvmlSystemGetDriverVersion())),
    }
