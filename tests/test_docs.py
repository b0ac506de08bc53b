"""Is what the docs say true? Tables are compared with the code, examples are run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_kitt.measure.metrics import METRICS
from pytest_kitt.settings import OPTIONS

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"```python\n# file: (\S+)\n(.*?)```", re.DOTALL)


def test_terms_list_every_metric_with_its_formula() -> None:
    """docs/terms.md is the table of metrics."""
    terms = (DOCS / "terms.md").read_text()
    for m in METRICS:
        assert f"| `{m.name}` | {m.unit} | {m.better} | {m.formula} |" in terms


def test_options_are_all_listed() -> None:
    """docs/options.md names each flag, variable and ini key with its help."""
    options = (DOCS / "options.md").read_text()
    for o in OPTIONS:
        row = next(line for line in options.splitlines() if line.startswith(f"| `{o.flag}="))
        assert all(part in row for part in (o.env, o.ini, o.help))


def test_the_examples_run(pytester: pytest.Pytester) -> None:
    """Every example of docs/writing-benchmarks.md passes as it stands there."""
    blocks = dict(BLOCK.findall((DOCS / "writing-benchmarks.md").read_text()))
    files = {name: text for name, text in blocks.items() if "/" not in name}
    assert len(files) >= 4
    for name, text in files.items():
        (pytester.path / name).write_text(text)
    tests = sorted(name for name in files if name.startswith("test_"))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-s", "--kitt-engine=simulated", *tests)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*stability on simulated-simulated: passed*"])


PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{page.name}" for page in sorted(DOCS.glob("*.md")))]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    """A relative link names a file that is there."""
    path = DOCS.parent / name
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
