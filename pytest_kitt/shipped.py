"""Where does the content that ships with the package live?

In a wheel it lies under ``pytest_kitt/_shipped/``, in a checkout at the top level of the repository.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "_shipped"

ROOT = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent
ENGINES = ROOT / "engines"
SUITES = ROOT / "suites"
DATASETS = ROOT / "datasets"
REPORTS = ROOT / "reports"
SCHEMAS = REPORTS / "schemas"

TINY_MODEL = DATASETS / "tiny" / "tiny.gguf"
TINY_QUESTIONS = DATASETS / "tiny" / "questions.jsonl"
