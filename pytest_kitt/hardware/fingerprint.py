"""Which machine is this? A few facts without names or addresses, and a key over them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# the instructions that decide how fast a model runs on a CPU, as /proc/cpuinfo spells them
_FLAGS = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


def read() -> dict[str, Any]:
    """CPU, memory and operating system; ``key`` is the same for the same machine as long as these stay."""
    facts = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "memory_bytes": _memory_bytes(),
        "system": platform.system(),
        "kernel": platform.release(),
    }
    canonical = json.dumps({k: v for k, v in facts.items() if k != "kernel"}, sort_keys=True)
    key = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    return {"key": key, **facts, "python": platform.python_version()}


def read_all() -> dict[str, Any]:
    """What ``read`` gives, and more that is worth knowing; none of that is in the key.

    Cores that this process may use, CPU flags that matter, name of the operating system, kind of place, limits, GPUs.
    """
    from pytest_kitt.hardware import environment, gpus

    return {
        **read(),
        "cores_usable": _cores_usable(),
        "cpu_flags": flags(_lines("/proc/cpuinfo")),
        "os": _os_name(_lines("/etc/os-release")),
        "environment": environment.kinds(),
        **environment.limits(),
        "gpus": gpus.described(),
    }


def flags(cpuinfo: Iterable[str]) -> list[str]:
    """Of the first core's flags those that decide how fast a model runs."""
    for line in cpuinfo:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            there = set(value.split())
            return [flag for flag in _FLAGS if flag in there]
    return []


def _cpu() -> str:
    names = (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    return next(names, platform.processor())


def _os_name(lines: Iterable[str]) -> str:
    """The name and version of the distribution."""
    for line in lines:
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip().strip("\"'")
    return platform.system()


def _cores_usable() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
