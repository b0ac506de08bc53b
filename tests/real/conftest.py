"""What do the tests of real engines share? They run where the engine is: ``tox -e vllm``, ``tox -e transformers``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_NEEDS = {
    "real_vllm": ("vllm", ["vllm"]),
    "real_transformers": ("transformers", ["transformers", "torch", "uvicorn", "fastapi"]),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests of what is not installed."""
    for item in items:
        for marker, (environment, modules) in _NEEDS.items():
            absent = [module for module in modules if importlib.util.find_spec(module) is None]
            if absent and item.get_closest_marker(marker):
                reason = f"{', '.join(absent)} not installed: tox -e {environment}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as these engines load it."""
    from tools.tiny_safetensors import convert

    return convert(tmp_path_factory.mktemp("model") / "tiny")
