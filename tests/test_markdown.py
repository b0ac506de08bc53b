"""Does the Markdown say what the store says, and does nothing in it become markup that is not ours?"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_kitt.report import markdown

markdown_it = pytest.importorskip("markdown_it")

HOSTILE = [
    "a|b||c",
    "\\|",
    "`code` ``more`` ```",
    "`",
    "``",
    "<script>alert(1)</script>",
    "<!-- hidden -->",
    "&lt;b&gt; &amp; &#x41;",
    "![image](https://example.org/x.png)",
    "[link](javascript:alert(1))",
    "<https://example.org>",
    "https://example.org/auto www.example.org",
    "@octocat @github/team",
    "fixes #1, GH-2, owner/name#3",
    "**bold** _soft_ ~~gone~~ $x^2$",
    "# heading",
    "- item\n1. item\n> quote",
    "line\r\nline\rline\u2028line\u0085line",
    "\x1b[31mred\x1b[0m \x07\x00",
    "\u202eright to left\u2066 \u200bzero",
    "\n\n---\n\n| a | b |\n|---|---|\n",
    "```\nclosed?\n```\n# out",
    "</details><h1>out</h1>",
    ":warning: \\ \\\\ \\` trailing\\",
    "\ud800 surrogate",
]


def metric(name: str, stat: str, value: float, unit: str, n: int = 100) -> dict[str, Any]:
    """A row of the store."""
    interval = {"ci_low": None, "ci_high": None, "method": None}
    return {"name": name, "stat": stat, "value": value, "unit": unit, "better": "lower", "n": n, **interval}


CELL = {
    "id": "llama-tiny",
    "key": "0123456789ab",
    "engine": "llama",
    "engine_version": "7",
    "runtime": "process",
    "model": {"name": "tiny"},
    "api": "chat",
    "overrides": {},
    "argv": ["llama", "--fast"],
    "synthetic": False,
    "toy": True,
}
CERTIFICATE = {
    "broken": [],
    "in_flight_target": 2,
    "in_flight_mean": 2.0,
    "lag_p50_ms": 0.1,
    "lag_p99_ms": 1.25,
    "cpu_share": 0.07,
    "merged_share": 0.0012,
    "clock": "kernel",
}


def result(outcome: str = "passed", reason: str = "", *, name: str = "latency", **more: Any) -> dict[str, Any]:
    """A result as the store shows it."""
    return {
        "id": 1,
        "cell": CELL,
        "benchmark": name,
        "version": "1",
        "category": "performance",
        "outcome": outcome,
        "reason": reason,
        "params": {"certificate": CERTIFICATE},
        "metrics": [metric("ttft_ms", "p50", 12.5, "ms"), metric("output_tps", "value", 1234.0, "tokens/s")],
        "samples": [],
        "key": "k",
        "nodeid": f"t.py::test_{name}[llama-tiny]",
        "started_at": "2026-01-31T12:00:00.000Z",
        "duration_s": 1.5,
        "attempt": 1,
        **more,
    }


def found(*results: dict[str, Any], **run: Any) -> dict[str, Any]:
    """A run as the store shows it."""
    about = {
        "id": "20260131-120000-3fa1c2",
        "started_at": "2026-01-31T12:00:00.000Z",
        "status": "failed",
        "suite": "quick",
        "synthetic": False,
        "toy": True,
        "argv": ["pytest", "--kitt-suite=quick", "-k", "a b"],
        "kitt_version": "0.1.0",
        "fingerprint": {"cpu": "Cheap 5", "cores": 2, "memory_bytes": 8 << 30, "system": "Linux", "python": "3.11.7"},
    }
    return {"run": {**about, **run}, "results": list(results)}


def tokens(text: str) -> Iterator[Any]:
    """Everything that a page is made of, inner parts after their outer ones."""
    for token in markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        yield token
        yield from token.children or ()


def plain(text: str) -> str:
    """A text as it may be shown on one line."""
    line = " ".join(text.split())
    return " ".join("".join(c if c.isprintable() else "·" for c in line).split())


def test_the_numbers_of_a_run() -> None:
    """Counts of verdicts, a row per result with the terminal's columns, reasons, certificate, machine and command."""
    second = {"params": {"certificate": {**CERTIFICATE, "lag_p99_ms": 2.5}}}
    failed = result("failed", "assert 12.5 < 10\n  more", name="slow", **second)
    text = markdown.render(found(result(), failed, result("skipped", "no GPU", name="big", metrics=[], params={})))
    assert text.startswith(
        "## kitt: 1 failed, 1 skipped, 1 passed\n\nRun `20260131-120000-3fa1c2`, suite `quick`: **failed**"
    )
    assert "| benchmark | TTFT p50 | output | verdict |\n| --- | ---: | ---: | --- |\n" in text
    assert "| `latency` | 12.5 ms | 1234 tok/s | PASSED |\n| `slow` | 12.5 ms | 1234 tok/s | FAILED |" in text
    assert "| `big` | - | - | SKIPPED |" in text
    assert (
        "- **FAILED** `slow` on `llama-tiny (llama 7, process)`:\n\n  ```\n  assert 12.5 < 10\n    more\n  ```" in text
    )
    assert "- certified: 2 loads, sent at most 2.5 ms late (p99), client at most 7% of a core" in text
    assert "- `big` skipped: `no GPU`" in text
    assert "the tiny model is a toy" in text
    assert "simulated" not in text
    assert "`Cheap 5`, 2 cores, 8 GiB of memory, `Linux`, Python `3.11.7`.\n" in text
    assert "```sh\npytest --kitt-suite=quick -k 'a b'\n```" in text


def test_a_cell_each_and_further_loads() -> None:
    """Each cell has a table of its own; a further load of a test has a row, and its own metrics a line."""
    other = {**CELL, "id": "other-tiny"}
    numbers = [
        metric("ttft_ms", "p50", 12.5, "ms"),
        metric("two.ttft_ms", "p50", 25.0, "ms"),
        metric("mine", "value", 3, "count"),
    ]
    text = markdown.render(
        found(result(metrics=numbers), result(cell=other), result(cell=None), toy=False, synthetic=True)
    )
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == [
        "`llama-tiny (llama 7, process)`",
        "`other-tiny (llama 7, process)`",
        "`no engine`",
        "Where, and how to repeat it",
    ]
    assert "| `latency` | 12.5 ms | PASSED |\n| `latency two` | 25.0 ms |  |" in text
    assert "- `latency`: `mine 3`" in text
    assert "makes its tokens up" in text
    assert "toy" not in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_from_elsewhere_is_markup(hostile: str) -> None:
    """Wherever a hostile text stands it is shown as text: no HTML, link, image, heading or table of its own."""
    name = f"x{hostile}x"
    cell = {**CELL, "id": hostile, "engine": hostile, "engine_version": hostile}
    bad = result(
        "failed",
        f"why {hostile} why",
        name=name,
        cell=cell,
        nodeid=f"t.py::test_x[{hostile}-{hostile}]",
        metrics=[metric(f"own{hostile}", "value", 1.0, hostile), metric(f"{name}.ttft_ms", "p50", 1.0, "ms")],
        params={"engine_starts": 2, "engine_died": hostile},
    )
    usual = found(bad, suite=hostile, argv=["pytest", hostile], fingerprint={"cpu": hostile, "python": hostile})
    text = markdown.render(usual)
    text.encode()
    kinds = {token.type for token in tokens(text)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "s_open", "em_open", "ordered_list_open"}
    outside = "".join(token.content for token in tokens(text) if token.type == "text")
    assert not re.search(r"octocat|example\.org|#\d|GH-2|\$|:warning:", outside)
    spans = [token.content for token in tokens(text) if token.type == "code_inline"]
    assert any(plain(hostile) in span for span in spans)
    rows = [token for token in tokens(text) if token.type in ("th_open", "td_open")]
    assert len(rows) == 3 * len([token for token in tokens(text) if token.type == "th_open"])
    headings = [token for token in tokens(text) if token.type == "heading_open"]
    assert len(headings) == 4
    assert text.isprintable() or set(text) - {"\n"} == {c for c in text if c.isprintable()}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_code_span_shows_what_it_holds(hostile: str) -> None:
    """The span's text is the text itself, on one line; so is that of a cell in a table."""
    (span,) = [token for token in tokens(f"a {markdown.code(hostile)} b") if token.type == "code_inline"]
    assert span.content == plain(hostile)


def test_texts_are_bounded() -> None:
    """Nobody's name or reason makes a page of its own."""
    long = result("error", "y" * 100_000, name="x" * 100_000)
    assert len(markdown.render(found(long))) < 20_000
    assert len(markdown.code("z" * 1000)) == 202


@pytest.mark.parametrize("max_bytes", [1_000_000, 100_000, 20_000, 3_000])
def test_a_long_run_is_cut_and_says_so(max_bytes: int) -> None:
    """Of thousands of results as many are shown as fit, in whole lines; head and command stay, and a sentence."""
    many = [result("failed", "µ" * 300, name=f"n{n}", nodeid=f"t.py::t{n}") for n in range(6_000)]
    text = markdown.render(found(*many), max_bytes)
    assert max_bytes * 0.8 < len(text.encode()) <= max_bytes or max_bytes < 20_000
    assert len(text.encode()) <= max_bytes
    assert text.startswith("## kitt: 6000 failed\n")
    assert text.count("The rest is left out, as it is too long for this page: `kitt results show 2026") == 1
    assert text.endswith("shows every number.\n")
    assert all(line.endswith("|") for line in text.splitlines() if line.startswith("|"))
    assert "left out" not in markdown.render(found(*many[:3]))


def test_too_little_room_is_an_error() -> None:
    """Where not even the head fits nothing is written in half."""
    with pytest.raises(ValueError, match="200 bytes are too few"):
        markdown.render(found(result()), 200)


def test_rendering_changes_nothing() -> None:
    """What was found stays as it was."""
    given = found(result(), result("invalid", "late"))
    before = copy.deepcopy(given)
    assert markdown.render(given) == markdown.render(given)
    assert given == before
