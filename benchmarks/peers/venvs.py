"""Where do other clients live? Each in a virtual environment of its own, made once and kept."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import venv
from pathlib import Path

_DONE = "complete"
_REQUIREMENTS = """
import importlib.metadata, sys
print("\\n".join(r for r in importlib.metadata.requires(sys.argv[1]) or () if "extra ==" not in r))
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Package:
    """A released client on the package index.

    Attributes:
        name: there.
        version: the one that is installed.
        beside: what else it needs and does not ask for: requirements as pip takes them.

    """

    name: str
    version: str
    beside: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Its environment: below KITT_PEERS_DIR, or else in the user's cache."""
        root = os.environ.get("KITT_PEERS_DIR") or Path.home() / ".cache" / "kitt-peers"
        return Path(root).resolve() / f"{self.name}-{self.version}"

    @property
    def bin(self) -> Path:
        """Its programs."""
        return self.folder / "bin"


def make(package: Package) -> None:
    """Makes a package's environment unless it is there; RuntimeError says what pip could not do.

    What the package asks of Python's version is ignored, what its requirements ask is not: of inference-perf the former
    is stricter than its code.
    """
    if (package.folder / _DONE).exists():
        return
    shutil.rmtree(package.folder, ignore_errors=True)
    venv.create(package.folder, with_pip=True)
    _pip(package, "--no-deps", "--ignore-requires-python", f"{package.name}=={package.version}")
    listing = [str(package.bin / "python"), "-c", _REQUIREMENTS, package.name]
    listed = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.splitlines()
    if listed or package.beside:
        _pip(package, *listed, *package.beside)
    (package.folder / _DONE).touch()


def _pip(package: Package, *what: str) -> None:
    command = [str(package.bin / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RuntimeError(f"pip could not install {package.name} {package.version}: {last}")
