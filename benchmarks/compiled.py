"""How does a C program of ours become a binary? Compiled once per source, kept in the folder for temporary files."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path


def binary(source: Path) -> Path:
    """The program made from a source; CalledProcessError when gcc refuses it."""
    key = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    program = Path(tempfile.gettempdir()) / f"{source.stem}-{key}"
    if not program.exists():
        with tempfile.TemporaryDirectory() as folder:
            built = Path(folder) / source.stem
            subprocess.run(["gcc", "-O2", "-Wall", "-o", str(built), str(source)], check=True)
            shutil.copy(built, program.with_suffix(".new"))
            program.with_suffix(".new").rename(program)
    return program
