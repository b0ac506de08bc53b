"""What is this machine? ``kitt fingerprint``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pytest_kitt.cli.output import AsJson, show_json, show_table

_SHORT = ("key", "cpu", "cores", "cpu_flags", "memory_bytes", "os", "kernel", "environment", "gpus")
_WORDS = {
    "cpu": "CPU",
    "cores": "cores",
    "cores_usable": "cores usable",
    "cpu_flags": "CPU flags",
    "cpu_limit": "CPU limit",
    "memory_bytes": "memory",
    "memory_limit_bytes": "memory limit",
    "os": "OS",
    "gpus": "GPUs",
}


def show(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All facts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what this machine is: CPU, memory, system, kind of place, GPUs. No names, addresses or serial numbers.

    The key is stored with each run; it stays the same while CPU, cores, memory and system do.

    Example: kitt fingerprint

    Example: kitt fingerprint --json
    """
    from pytest_kitt.hardware import fingerprint

    facts = fingerprint.read_all()
    if as_json:
        show_json({"fingerprint": facts})
        return
    names = list(facts) if verbose else list(_SHORT)
    rows = [[_WORDS.get(name, name), _text(name, facts[name])] for name in names]
    show_table(("fact", "value"), rows, nothing="nothing is known of this machine")


def _text(name: str, value: Any) -> str:
    if name.endswith("_bytes") and value:
        return _gib(value)
    if name == "environment":
        return " in ".join(kind for kind in value if kind != "ci") + (", CI" if "ci" in value else "")
    if name == "gpus":
        return "; ".join(_gpu(gpu) for gpu in value) or "none that NVIDIA's driver shows"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


def _gpu(gpu: dict[str, Any]) -> str:
    about = [_gib(gpu["memory_bytes"])] if gpu["memory_bytes"] else []
    about += [f"compute {gpu['compute_capability']}"] if gpu["compute_capability"] else []
    about += [f"driver {gpu['driver']}"] if gpu["driver"] else []
    return f"{gpu['name'] or 'GPU'} ({', '.join(about)})" if about else str(gpu["name"] or "GPU")


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
