"""How does a double take its engine's place? Commands and modules of the engines' names."""

from __future__ import annotations

import sys
from pathlib import Path

_DOUBLES = Path(__file__).resolve().parent
_SCRIPT = (
    "#!{python}\nimport runpy, sys\nsys.argv[1:1] = [{name!r}]\nrunpy.run_path({doubles!r}, run_name='__main__')\n"
)
_FILES = {
    "bin/vllm": "vllm",
    "bin/ollama": "ollama",
    "bin/text-generation-launcher": "tgi",
    "bin/sglang": "sglang",
    "lib/vllm/entrypoints/openai/api_server.py": "vllm",
    "lib/sglang/launch_server.py": "sglang",
    "tabbyAPI/main.py": "tabby",
}


def install(folder: Path) -> None:
    """Writes commands into ``bin`` for the PATH, modules into ``lib`` for PYTHONPATH, and ``tabbyAPI/main.py``."""
    for file, name in _FILES.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_SCRIPT.format(python=sys.executable, name=name, doubles=str(_DOUBLES)), encoding="utf-8")
        path.chmod(0o755)
