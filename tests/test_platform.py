"""Is a machine seen as its driver and its kernel tell, and does it fit what a card means?"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.cards import PlatformCard, within
from pytest_kitt.hardware import platform
from pytest_kitt.hardware.platform import Platform

GB = 10**9


class NVMLError(Exception):
    """The driver's no."""


def unknown(*_: object) -> Any:
    """What a driver answers that cannot tell."""
    raise NVMLError


def nvml(
    *sizes: int | None, name: str = "NVIDIA H100", capability: tuple[int, int] = (9, 0), cuda: int | None = 13000
) -> types.ModuleType:
    """A library that shows GPUs of these sizes."""
    module = types.ModuleType("pynvml")
    vars(module).update(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(sizes),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda _: name,
        nvmlDeviceGetMemoryInfo=lambda i: types.SimpleNamespace(total=sizes[i]) if sizes[i] else unknown(),
        nvmlDeviceGetCudaComputeCapability=lambda _: capability,
        nvmlSystemGetDriverVersion=lambda: "580.95.05",
        nvmlSystemGetCudaDriverVersion=lambda: unknown() if cuda is None else cuda,
    )
    return module


@pytest.fixture(autouse=True)
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every machine here runs Linux on x86-64, has 64 GB, and no driver of NVIDIA's."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("pytest_kitt.hardware.platform._memory_bytes", lambda: 64 * GB)
    monkeypatch.setitem(sys.modules, "pynvml", None)


def machine(root: Path, cards: dict[str, str], *, kfd: bool = False) -> Path:
    """A file system whose kernel shows graphics cards: PCI address -> vendor."""
    for index, (address, vendor) in enumerate(cards.items()):
        device = root / "sys/devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "mem_info_vram_total").write_text("206141652992\n")
        card = root / f"sys/class/drm/card{index}"
        card.mkdir(parents=True)
        (card / "device").symlink_to(device)
        (root / f"sys/class/drm/card{index}-DP-1").mkdir()
    if kfd:
        (root / "dev").mkdir()
        (root / "dev/kfd").touch()
    return root


def test_a_machine_without_gpus(tmp_path: Path) -> None:
    """No driver, no device of the kernel's."""
    assert platform.read(tmp_path) == Platform("x86_64", "Linux", memory_bytes=64 * GB)
    assert str(platform.read(tmp_path)) == "Linux x86_64, no GPU"


def test_gpus_of_nvidia(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The driver's library tells name, compute capability, memory, driver and CUDA."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml(80 * GB, 80 * GB))
    found = platform.read(tmp_path)
    assert (found.vendor, found.compute_capability, found.gpu_bytes) == ("nvidia", "9.0", (80 * GB, 80 * GB))
    assert (found.driver, found.cuda, found.unified) == ("580.95.05", "13.0", False)
    assert str(found) == "Linux x86_64, 2 x NVIDIA H100 (compute capability 9.0, CUDA 13.0)"


def test_memory_of_a_board_is_not_a_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU with less than the machine has its own; one that names none shares it."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml(24 * GB))
    assert not platform.read(tmp_path).unified
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setitem(sys.modules, "pynvml", nvml(None, name="NVIDIA GB10", capability=(12, 1), cuda=13010))
    found = platform.read(tmp_path)
    assert (found.arch, found.compute_capability, found.gpu_bytes, found.unified) == ("aarch64", "12.1", (0,), True)
    assert found.cuda == "13.1"


def test_an_old_driver_tells_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it does not tell is unknown, and no reason to fail."""
    old = nvml(24 * GB, cuda=None)
    del old.nvmlDeviceGetCudaComputeCapability
    monkeypatch.setitem(sys.modules, "pynvml", old)
    found = platform.read(tmp_path)
    assert (found.vendor, found.compute_capability, found.cuda) == ("nvidia", "", "")
    assert not found.fits(PlatformCard(compute_capability=">=7.0"))
    assert found.fits(PlatformCard(vendor="nvidia"))


def test_gpus_of_amd(tmp_path: Path) -> None:
    """The kernel shows them, and the device that computing needs."""
    found = platform.read(machine(tmp_path, {"0000:03:00.0": "0x1002", "0000:04:00.0": "0x1002"}, kfd=True))
    assert (found.vendor, found.gpu_bytes) == ("amd", (206141652992,) * 2)
    assert str(found) == "Linux x86_64, 2 x amd"


def test_an_amd_card_that_cannot_compute_is_none(tmp_path: Path) -> None:
    """Without /dev/kfd it only draws."""
    assert platform.read(machine(tmp_path, {"0000:03:00.0": "0x1002"})).vendor == "none"


def test_graphics_within_an_intel_cpu_are_none(tmp_path: Path) -> None:
    """They are on the first bus; a card is not."""
    assert platform.read(machine(tmp_path / "a", {"0000:00:02.0": "0x8086"})).vendor == "none"
    assert (
        platform.read(machine(tmp_path / "b", {"0000:00:02.0": "0x8086", "0000:03:00.0": "0x8086"})).vendor == "intel"
    )


@pytest.mark.parametrize("said, known", [("AMD64", "x86_64"), ("arm64", "aarch64"), ("riscv64", "riscv64")])
def test_architectures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, known: str) -> None:
    """Systems spell them differently."""
    monkeypatch.setattr("platform.machine", lambda: said)
    assert platform.read(tmp_path).arch == known


def test_apple_silicon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its GPU shares the machine's memory."""
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    found = platform.read(tmp_path)
    assert (found.vendor, found.unified, str(found)) == ("apple", True, "Darwin aarch64, Apple silicon")


@pytest.mark.parametrize(
    "version, wanted, expected",
    [
        ("10.0", ">=10.0", True),
        ("9.0", ">=10.0", False),
        ("12.1", ">=10.0", True),
        ("8.7", "8.7", True),
        ("8.9", "8.7", False),
        ("8.10", ">=8.9", True),
        ("8.9", ">=8.0,<9.0", True),
        ("9.0", ">=8.0, <9.0", False),
        ("", ">=1.0", False),
        ("twelve", ">=1.0", False),
    ],
)
def test_ranges_compare_numbers(version: str, wanted: str, expected: bool) -> None:
    """Ten is more than nine, and what is not known lies in no range."""
    assert within(version, wanted) is expected
