"""Runs a double: ``python tests/doubles NAME ARGUMENTS``, the arguments as the engine itself takes them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # so that the doubles find each other from anywhere
    sys.exit(importlib.import_module(f"tests.doubles.{sys.argv[1]}").main(sys.argv[2:]))
