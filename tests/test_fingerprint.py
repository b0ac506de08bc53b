"""Is a machine known by facts that stay, and is the kind of place told without names?"""

from __future__ import annotations

import hashlib
import json
import platform
import socket
import sys
import types
from pathlib import Path

import pytest

from pytest_kitt.hardware import environment, fingerprint

CGROUP, PRODUCT, VERSION = "proc/1/cgroup", "sys/class/dmi/id/product_name", "proc/version"
PLACES: dict[str, tuple[dict[str, str], dict[str, str], list[str]]] = {
    "bare": ({PRODUCT: "PowerEdge R760", "proc/cpuinfo": "flags : fpu avx2"}, {}, ["bare metal"]),
    "bare in ci": ({PRODUCT: "PowerEdge R760"}, {"CI": "true"}, ["bare metal", "ci"]),
    "no ci": ({}, {"CI": "false"}, ["bare metal"]),
    "kvm": ({PRODUCT: "KVM\n"}, {}, ["kvm"]),
    "qemu": ({"sys/class/dmi/id/sys_vendor": "QEMU"}, {}, ["kvm"]),
    "vmware": ({PRODUCT: "VMware Virtual Platform"}, {}, ["vmware"]),
    "hyper-v": ({PRODUCT: "Virtual Machine", "sys/class/dmi/id/sys_vendor": "Microsoft"}, {}, ["hyper-v"]),
    "xen": ({"sys/hypervisor/type": "xen\n"}, {}, ["xen"]),
    "rented metal": ({PRODUCT: "m7i.metal-24xl", "sys/class/dmi/id/sys_vendor": "Amazon EC2"}, {}, ["bare metal"]),
    "rented": ({PRODUCT: "m7i.large", "sys/class/dmi/id/sys_vendor": "Amazon EC2"}, {}, ["amazon"]),
    "unknown vm": ({"proc/cpuinfo": "flags : fpu hypervisor avx2"}, {}, ["vm"]),
    "docker": ({".dockerenv": "", PRODUCT: "KVM"}, {}, ["docker", "kvm"]),
    "docker by cgroup": ({CGROUP: "12:cpu:/docker/0123abcd\n"}, {}, ["docker"]),
    "podman": ({"run/.containerenv": ""}, {"container": "podman"}, ["podman"]),
    "lxc": ({}, {"container": "lxc"}, ["lxc"]),
    "nspawn": ({"run/systemd/container": "systemd-nspawn"}, {}, ["container"]),
    "another container": ({}, {"container": "oci"}, ["container"]),
    "pod": ({CGROUP: "0::/kubepods/besteffort/podab12"}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ["kubernetes"]),
    "pod by its secrets": ({"var/run/secrets/kubernetes.io/x": ""}, {"GITLAB_CI": "1"}, ["kubernetes", "ci"]),
    "wsl": ({VERSION: "Linux version 5.15 (Microsoft@Microsoft.com)", PRODUCT: "Virtual Machine"}, {}, ["wsl"]),
    "docker on wsl": ({".dockerenv": "", VERSION: "x-microsoft-standard-WSL2"}, {}, ["docker", "wsl"]),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_kind_of_place(tmp_path: Path, name: str) -> None:
    """Files and variables say what this is, the innermost first."""
    files, env, expected = PLACES[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert environment.kinds(tmp_path, env) == expected


@pytest.mark.parametrize(
    "cpu, memory, expected",
    [
        ("150000 100000\n", "1073741824\n", (1.5, 1 << 30)),
        ("max 100000\n", "max\n", (None, None)),
        ("", "", (None, None)),
        ("1 0", "x", (None, None)),
    ],
)
def test_limits(tmp_path: Path, cpu: str, memory: str, expected: tuple[float | None, int | None]) -> None:
    """What a control group allows is told; no limit is none."""
    folder = tmp_path / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "cpu.max").write_text(cpu)
    (folder / "memory.max").write_text(memory)
    found = environment.limits(tmp_path)
    assert (found["cpu_limit"], found["memory_limit_bytes"]) == expected


def test_the_key_is_made_of_the_same_facts_as_ever() -> None:
    """Five facts and no other are in the key, so that it stays what it was in earlier versions."""
    facts = fingerprint.read()
    assert list(facts) == [
        *("key", "cpu", "cores", "architecture", "memory_bytes", "system", "kernel", "python"),
    ]
    named = {name: facts[name] for name in ("cpu", "cores", "architecture", "memory_bytes", "system")}
    assert facts["key"] == hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]
    everything = fingerprint.read_all()
    assert {name: everything[name] for name in facts} == facts


def test_the_flags_that_matter() -> None:
    """Of what the CPU lists, what decides how fast a model runs, in one order."""
    x86 = ["processor\t: 0", "flags\t\t: fpu amx_int8 avx2 sse4_2 avx512f ht", "flags : sve"]
    assert fingerprint.flags(x86) == ["sse4_2", "avx2", "avx512f", "amx_int8"]
    assert fingerprint.flags(["Features\t: fp asimd sve"]) == ["asimd", "sve"]
    assert fingerprint.flags([]) == []


def test_nothing_that_names_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs are described by kind; neither their serial numbers nor the host's name are anywhere."""
    gpu = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetSerial": lambda _: "serial-number",
        "nvmlDeviceGetName": lambda _: b"NVIDIA X100",
        "nvmlDeviceGetMemoryInfo": lambda _: types.SimpleNamespace(total=80 << 30),
        "nvmlDeviceGetCudaComputeCapability": lambda _: (9, 0),
        "NVMLError": type("NVMLError", (Exception,), {}),
    }
    module = types.ModuleType("pynvml")
    vars(module).update(gpu)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(socket, "gethostname", lambda: "somebody's-host")
    monkeypatch.setattr(platform, "node", lambda: "somebody's-host")
    facts = fingerprint.read_all()
    described = {"name": "NVIDIA X100", "memory_bytes": 80 << 30, "compute_capability": "9.0", "driver": None}
    assert facts["gpus"] == [described, described]
    text = json.dumps(facts)
    assert "serial-number" not in text
    assert "GPU-" not in text
    assert "somebody" not in text
