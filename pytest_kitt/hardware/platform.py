"""What kind of machine is this, to an engine? Architecture, GPUs and driver, as far as they are known."""

from __future__ import annotations

import dataclasses
import os
import platform as of_python
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_kitt.cards import PlatformCard, Vendor, within

_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_AMD, _INTEL = "0x1002", "0x8086"  # vendors' numbers on the PCI bus


@dataclasses.dataclass(frozen=True, slots=True)
class Platform:
    """A machine as far as it decides what can run on it.

    Attributes:
        arch: x86_64, aarch64, or as the system says.
        system: as Python calls it: Linux, Darwin.
        vendor: of its GPUs; ``none`` without any.
        name: of its first GPU, empty when unknown.
        compute_capability: of its first NVIDIA GPU, as ``8.7``; empty when unknown.
        gpu_bytes: memory of each GPU, 0 for one that does not say or shares the machine's.
        driver: version of the GPUs' driver, empty when unknown.
        cuda: the newest CUDA that the driver serves, as ``13.0``; empty when unknown.
        memory_bytes: of the machine, 0 when unknown.
        unified: GPU and CPU share their memory.

    """

    arch: str
    system: str
    vendor: Vendor = "none"
    name: str = ""
    compute_capability: str = ""
    gpu_bytes: tuple[int, ...] = ()
    driver: str = ""
    cuda: str = ""
    memory_bytes: int = 0
    unified: bool = False

    def fits(self, when: PlatformCard) -> bool:
        """Whether it is one of the machines that a card means; what is not known fits no bound."""
        return (
            when.system in ("", self.system)
            and when.arch in ("", self.arch)
            and when.vendor in ("", self.vendor)
            and (when.compute_capability is None or within(self.compute_capability, when.compute_capability))
            and (when.cuda is None or within(self.cuda, when.cuda))
        )

    def __str__(self) -> str:
        """In a few words, as in ``Linux x86_64, 2 x NVIDIA H100 (compute capability 9.0, CUDA 13.0)``."""
        if self.vendor == "none":
            return f"{self.system} {self.arch}, no GPU"
        count = f"{len(self.gpu_bytes)} x " if len(self.gpu_bytes) > 1 else ""
        facts = {"compute capability": self.compute_capability, "CUDA": self.cuda}
        known = ", ".join(f"{word} {value}" for word, value in facts.items() if value)
        return f"{self.system} {self.arch}, {count}{self.name or self.vendor}{f' ({known})' if known else ''}"


def read(root: Path = Path("/")) -> Platform:
    """The machine that this runs on: NVIDIA's GPUs as its driver's library tells, others as the kernel's files do."""
    here = Platform(
        arch=_ARCHITECTURES.get(of_python.machine().lower(), of_python.machine()),
        system=of_python.system(),
        memory_bytes=_memory_bytes(),
    )
    if told := _nvidia():
        return dataclasses.replace(here, **told)
    if (here.system, here.arch) == ("Darwin", "aarch64"):
        return dataclasses.replace(here, vendor="apple", name="Apple silicon", unified=True)
    return dataclasses.replace(here, **_of_kernel(root))


def _nvidia() -> Mapping[str, Any]:
    """What the driver says of its GPUs; nothing without a driver or a GPU."""
    from pytest_kitt.hardware import gpus

    found = gpus.described()
    if not found:
        return {}
    first = found[0]
    sizes = tuple(gpu["memory_bytes"] or 0 for gpu in found)
    return {
        "vendor": "nvidia",
        "name": first["name"] or "",
        "compute_capability": first["compute_capability"] or "",
        "driver": first["driver"] or "",
        "cuda": gpus.cuda(),
        "gpu_bytes": sizes,
        "unified": not sizes[0],  # GB10 and its like have no memory of their own, and the driver names none
    }


def _of_kernel(root: Path) -> Mapping[str, Any]:
    """GPUs of AMD, by the driver that computing needs, else discrete ones of Intel."""
    devices = [card for card in sorted((root / "sys/class/drm").glob("card[0-9]*")) if card.name[4:].isdecimal()]
    made = [(_text(card / "device/vendor"), card) for card in devices]
    amd = [card for vendor, card in made if vendor == _AMD]
    if amd and (root / "dev/kfd").exists():
        sizes = tuple(_number(card / "device/mem_info_vram_total") for card in amd)
        driver = _text(root / "sys/module/amdgpu/version")
        return {"vendor": "amd", "name": _text(amd[0] / "device/product_name"), "gpu_bytes": sizes, "driver": driver}
    # the graphics inside a CPU are of the same vendor, and always on the first bus
    intel = [card for vendor, card in made if vendor == _INTEL and not _address(card).startswith("0000:00:")]
    return {"vendor": "intel", "gpu_bytes": (0,) * len(intel)} if intel else {}


def _address(card: Path) -> str:
    """Where a device is on the PCI bus, as ``0000:03:00.0``."""
    return (card / "device").resolve().name


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdecimal() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()[:200]
    except OSError:
        return ""
