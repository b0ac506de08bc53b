"""Is what the docs say true? Tables are compared with the code, examples are run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_kitt.cards import EngineCard, ImageCard, RuntimeCard, load_engines, read_engine
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
        row = next(line for line in options.splitlines() if line.startswith(f"| `{o.flag}{'' if o.switch else '='}"))
        assert all(part in row for part in (o.env, o.ini, o.help))


def engine_rows(known: dict[str, EngineCard]) -> list[str]:
    """What docs/engines.md says of each engine that can be started."""
    return [
        f"| `{card.name}` | {card.description} | {', '.join(card.formats) or 'any'} | {', '.join(card.dialects)} | "
        + "; ".join(f"{name}: {_proof(runtime)}" for name, runtime in card.runtimes.items())
        + " |"
        for card in known.values()
        if card.runtimes
    ]


def _proof(runtime: RuntimeCard) -> str:
    version = f" ({runtime.proven.version})" if runtime.proven.version else ""
    return f"{runtime.proven.by}{version}"


def image_rows(known: dict[str, EngineCard]) -> list[str]:
    """What docs/engines.md says of each image, in the order in which they are looked through."""
    return [f"| `{card.name}` | {_machine(row)} | `{row.image}` |" for card in known.values() for row in card.images]


def _machine(row: ImageCard) -> str:
    when = row.when
    gpu = "no GPU" if when.vendor == "none" else when.vendor
    bounds = {"compute capability": when.compute_capability, "CUDA": when.cuda}
    said = [when.arch, gpu, *(f"{name} {bound}" for name, bound in bounds.items() if bound)]
    return ", ".join(word for word in said if word) or "any"


def test_the_page_on_engines_says_what_the_cards_say() -> None:
    """docs/engines.md has a row for each engine and for each image, and no others."""
    page = (DOCS / "engines.md").read_text().splitlines()
    known = load_engines()
    rows = [*engine_rows(known), *image_rows(known)]
    assert [line for line in page if re.match(r"\| `(" + "|".join(known) + r")` \|", line)] == rows


def test_the_card_on_that_page_is_one(tmp_path: Path) -> None:
    """What is shown as an engine of one's own is read without a complaint, and fills its command line."""
    (text,) = re.findall(
        r"```yaml\n# ~/.kitt/engines/small.yaml\n(.*?)```", (DOCS / "engines.md").read_text(), re.DOTALL
    )
    (tmp_path / "small.yaml").write_text(text)
    card = read_engine(tmp_path / "small.yaml")
    assert card.profiles["latency"].arguments == {"parallel": 1}
    assert set(card.arguments) == {"context", "parallel", "seed"}


def test_the_examples_run(pytester: pytest.Pytester) -> None:
    """Every example of docs/writing-benchmarks.md and docs/loads.md passes as it stands there."""
    pages = (DOCS / "writing-benchmarks.md", DOCS / "loads.md")
    blocks = dict(block for page in pages for block in BLOCK.findall(page.read_text()))
    files = {name: text for name, text in blocks.items() if "/" not in name}
    assert len(files) >= 5
    for name, text in files.items():
        (pytester.path / name).write_text(text)
    tests = sorted(name for name in files if name.startswith("test_"))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-s", "--kitt-engine=simulated", *tests)
    result.assert_outcomes(passed=13)
    result.stdout.fnmatch_lines(["*stability on simulated-simulated: passed*"])


PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{page.name}" for page in sorted(DOCS.glob("*.md")))]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    """A relative link names a file that is there."""
    path = DOCS.parent / name
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
