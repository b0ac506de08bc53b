"""Are the GPUs those that were named, by whoever names them first?"""

from __future__ import annotations

import sys
import types

import pytest

from pytest_kitt.errors import UserError
from pytest_kitt.hardware import gpus


class NVMLError(Exception):
    """The driver's no."""


def driver(*uuids: str, absent: bool = False) -> types.ModuleType:
    """A library that shows these GPUs, or fails for want of a driver."""
    module = types.ModuleType("pynvml")

    def init() -> None:
        if absent:
            raise NVMLError

    vars(module).update(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(uuids),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: uuids[handle],
    )
    return module


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every machine here has two GPUs."""
    monkeypatch.setitem(sys.modules, "pynvml", driver("GPU-aa11", "GPU-ab22"))


@pytest.mark.parametrize(
    "setting,visible,expected",
    [
        ("4", None, "0 1 2 3"),
        ("0", None, ""),
        ("3,", None, "3"),
        (" 2, 0,2 ", "5", "2 0"),
        ("GPU-aa11,MIG-GPU-aa11/1/0", None, "GPU-aa11 MIG-GPU-aa11/1/0"),
        ("", "2,3", "2 3"),
        ("", "GPU-ab22, 0", "GPU-ab22 0"),
        ("", "", ""),
        ("", "1,-1,0", "1"),
        ("", "NoDevFiles", ""),
        (" ", None, "0 1"),
    ],
)
def test_inventory(setting: str, visible: str | None, expected: str) -> None:
    """The setting comes first, then CUDA_VISIBLE_DEVICES as CUDA reads it, then the driver."""
    env = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert gpus.inventory(setting, env) == tuple(expected.split())


@pytest.mark.parametrize("setting", ["every", "-1", "0;1", "99999", "0,../x", "4.0"])
def test_no_list_of_gpus(setting: str) -> None:
    """One sentence."""
    with pytest.raises(
        UserError,
        match=r"^--kitt-gpus: '.*' is no GPU; expected a number of GPUs, indices \(0,1\), UUIDs \(GPU-\.\.\.\), or all",
    ):
        gpus.inventory(setting, {})


@pytest.mark.parametrize("library", [None, driver("GPU-x", absent=True)])
def test_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch, library: types.ModuleType | None) -> None:
    """Nor without its library."""
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert gpus.inventory("", {}) == ()
    assert gpus.devices(["0", "GPU-x"]) == {"0": "0", "GPU-x": "GPU-x"}


def test_devices() -> None:
    """An index and the beginning of a UUID, if it is clear, mean the device; what the driver does not know, itself."""
    assert gpus.devices(["1", "GPU-aa", "GPU-a", "7", "GPU-ab22"]) == {
        "1": "GPU-ab22",
        "GPU-aa": "GPU-aa11",
        "GPU-a": "GPU-a",
        "7": "7",
        "GPU-ab22": "GPU-ab22",
    }


def test_all_gpus_whatever_their_number() -> None:
    """Where nobody here can count them."""
    assert gpus.inventory("all", {}) == gpus.ALL
