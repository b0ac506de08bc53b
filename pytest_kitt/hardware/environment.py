"""What kind of place is this: bare metal, a virtual machine, a container, WSL, Kubernetes, CI? Files and variables say.

Only the kind is told: no names, addresses or serial numbers leave this module.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_MAX_BYTES = 1 << 20
_BARE = "bare metal"
_CI_VARIABLES = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "BUILDKITE", "TF_BUILD", "TEAMCITY_VERSION")
# in the cgroup of the first process, or as the variable that systemd-nspawn, podman and lxc set
_CONTAINERS = {
    "docker": ("docker",),
    "podman": ("podman", "libpod"),
    "lxc": ("lxc", "lxd"),
    "container": ("containerd", "crio", "garden", "systemd-nspawn"),
}
# what hypervisors write where a vendor's name stands on real machines
_HYPERVISORS = {
    "kvm": ("kvm", "qemu", "openstack", "bochs", "google compute engine", "digitalocean", "alibaba cloud ecs"),
    "vmware": ("vmware",),
    "virtualbox": ("virtualbox", "innotek"),
    "hyper-v": ("virtual machine",),
    "xen": ("xen", "hvm domu"),
    "amazon": ("amazon ec2",),
    "parallels": ("parallels",),
    "bhyve": ("bhyve",),
}
_METAL = "metal"  # as in the product names of rented machines without a hypervisor


def kinds(root: Path = Path("/"), env: Mapping[str, str] | None = None) -> list[str]:
    """What this place is, the innermost first, as in ``["kubernetes", "docker", "kvm", "ci"]``; never empty.

    A hypervisor that only the CPU shows is ``vm``.
    """
    env = os.environ if env is None else env
    found = list(dict.fromkeys(_found(root, env)))
    real = [kind for kind in found if kind != "ci"]
    return found if real else [_BARE, *found]


def limits(root: Path = Path("/")) -> dict[str, float | None]:
    """What the control group allows: CPUs and bytes of memory; None without a limit."""
    quota, _, period = _text(root / "sys/fs/cgroup/cpu.max").partition(" ")
    memory = _text(root / "sys/fs/cgroup/memory.max").strip()
    cpus = int(quota) / int(period) if quota.isdecimal() and period.strip().isdecimal() and int(period) else None
    return {"cpu_limit": cpus, "memory_limit_bytes": int(memory) if memory.isdecimal() else None}


def _found(root: Path, env: Mapping[str, str]) -> Iterator[str]:
    if env.get("KUBERNETES_SERVICE_HOST") or (root / "var/run/secrets/kubernetes.io").exists():
        yield "kubernetes"
    if (root / ".dockerenv").exists():
        yield "docker"
    if (root / "run/.containerenv").exists():
        yield "podman"
    yield from _container(root, env)
    if "microsoft" in _text(root / "proc/version").lower() or env.get("WSL_DISTRO_NAME"):
        yield "wsl"
    else:
        yield from _machine(root)
    if any(env.get(name, "").lower() not in ("", "0", "false") for name in _CI_VARIABLES):
        yield "ci"


def _container(root: Path, env: Mapping[str, str]) -> Iterator[str]:
    first = _text(root / "proc/1/cgroup").lower()
    if "kubepods" in first:
        yield "kubernetes"
    said = f"{first} {env.get('container', '').lower()} {_text(root / 'run/systemd/container').lower()}"
    named = [kind for kind, words in _CONTAINERS.items() if any(word in said for word in words)]
    if named:
        yield named[0]
    elif env.get("container"):
        yield "container"


def _machine(root: Path) -> Iterator[str]:
    """The hypervisor, if there is one."""
    board = root / "sys/class/dmi/id"
    said = " ".join(_text(board / name).strip().lower() for name in ("product_name", "sys_vendor", "board_vendor"))
    if _METAL in said:
        return
    said += f" {_text(root / 'sys/hypervisor/type').strip().lower()}"
    named = [kind for kind, words in _HYPERVISORS.items() if any(word in said for word in words)]
    if named:
        yield named[0]
    elif " hypervisor" in _text(root / "proc/cpuinfo"):
        yield "vm"


def _text(path: Path) -> str:
    """The beginning of a file; empty when it is not there or not for us."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
