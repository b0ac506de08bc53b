"""Does a session leave a page that a browser shows as it should, and that nothing on it can misuse?"""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from pytest_kitt.measure.results import Block, CellFacts, Measurement, Result, Run
from pytest_kitt.report import html
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened
from pytest_kitt.store.writer import StoreWriter

SPEED = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=4", "--kitt-engine-arg=itl_ms=1")
ITEMS = """
import pytest
from pytest_kitt import Inconclusive, InvalidMeasurement

@pytest.mark.parametrize("level", [1, 2, 4])
def test_load(kitt_load, level):
    assert kitt_load(f"closed:{level}", "synthetic:8:8", "requests:24").failed == 0

def test_two(kitt_load):
    kitt_load("closed:1", "synthetic:8:4", "requests:10")
    kitt_load("closed:2", "synthetic:8:4", "requests:12", label="together")

def test_failed(kitt_measure):
    kitt_measure("answers", 3, unit="count", better="higher")
    assert False, "far too few answers"

def test_invalid(kitt_load):
    assert kitt_load("closed:1", "synthetic:8:4", "requests:10").ttft_ms.p99 < 1000

def test_inconclusive(kitt_measure):
    raise Inconclusive("who knows")

def test_skipped(kitt_engine):
    pytest.skip("not on this machine")

def test_error(kitt_engine, no_such_fixture):
    pass
"""
HOSTILE = [
    "<script>window.ran = 1</script>",
    "</script><script>window.ran = 1</script>",
    "</style><script>window.ran = 1</script>",
    "</title></head><body onload='window.ran = 1'>",
    "<img src=x onerror='window.ran = 1'>",
    "<svg onload=window.ran=1></svg>",
    "<svg><script>window.ran=1</script></svg>",
    '" onmouseover="window.ran=1" autofocus onfocus="window.ran=1" x="',
    "' onclick='window.ran=1' x='",
    "javascript:window.ran=1",
    "<a id=theme href='javascript:window.ran=1'>click</a>",
    "{{7*7}} {% raw %} ${7*7} {{''.__class__.__mro__}}",
    "<!--<script>window.ran=1</script>-->",
    "--><script>alert(1)</script><!--",
    "}</style><style>body{display:none;background:url(http://127.0.0.1:9/css)}",
    "<iframe srcdoc='<script>parent.ran=1</script>'></iframe><base href='http://127.0.0.1:9/'>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/meta'><link rel=stylesheet href=http://127.0.0.1:9/l>",
    "\u202efdp.exe\u2066\u200b\x00\x1b[31m\u2028 z" + "\u0301" * 100,
    "&lt;script&gt;window.ran=1&lt;/script&gt;",
    "long " * 20_000,
]


class Watched:
    """A page in a browser, with all that it asked for, complained about or tried."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.goto(path.as_uri())
        self._path = path

    def _refuse(self, dialog: Any) -> None:
        self.said.append("dialog")
        dialog.dismiss()

    def column(self, number: int) -> list[str]:
        """The texts of a column of the first table of results, as they stand."""
        cells = f"table.main >> nth=0 >> tbody tr:not([hidden]) > :nth-child({number})"
        return [text.strip() for text in self.page.locator(cells).all_inner_texts()]

    def close(self) -> None:
        """Nothing left the page, and nothing went wrong on it."""
        self.context.close()
        assert set(self.asked) == {self._path.as_uri()}
        assert self.said == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium of this machine."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--disable-dev-shm-usage"])
        yield running
        running.close()


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *SPEED, "test_items.py", *args)


def stored_page(folder: Path, *results: tuple[Result, list[Block]], argv: tuple[str, ...] = ("pytest",)) -> Path:
    """The page of a run with these results, by way of a real store."""
    at = "2026-01-01T00:00:00.000Z"
    machine = {"key": "f" * 12, "cpu": argv[0]}
    record = Run("20260101-000000-aaaaaa", at, argv[0], argv, "0.1.0", False, False, machine)
    with opened(str(folder / "kitt.db")) as engine:
        writer = StoreWriter(engine)
        writer.start_run(record)
        for result, blocks in results:
            number = writer.start_result(record.id, result)
            for seq, block in enumerate(blocks):
                writer.add_samples(number, seq, block)
            writer.finish_result(record.id, result, number)
        writer.finish_run(record.id, "failed", 1)
        with engine.connect() as connection:
            found = reader.show_run(connection, "last")
            text = html.render(found, functools.partial(reader.read_samples, connection))
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    return path


def a_result(name: str, tps: float, *, outcome: Any = "passed", cell: str = "cell", reason: str = "") -> Result:
    """A result of one number."""
    facts = CellFacts(cell, cell, "e", "1", "process", {"name": "m"}, "chat", {}, ("serve",), False, False)
    numbers = (Measurement("output_tps", "value", tps, "tokens/s", "higher", 10),) if tps else ()
    at = "2026-01-01T00:00:01.000Z"
    params = {"load": "closed:2", "concurrency": 2}
    return Result(f"t.py::{name}", "", facts, name, "1", "performance", outcome, reason, params, numbers, at, 1.5)


@pytest.fixture
def sorted_page(tmp_path: Path) -> Path:
    """Three results of one cell and one of another."""
    return stored_page(
        tmp_path,
        (a_result("beta", 900), []),
        (a_result("alpha", 10_500, outcome="failed", reason="needle in a reason"), []),
        (a_result("gamma", 0, outcome="skipped", reason="cannot"), []),
        (a_result("delta", 70, cell="other"), []),
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_session_leaves_a_page(pytester: pytest.Pytester, browser: Any, scheme: str) -> None:
    """All six outcomes on it, its charts are drawn, its folder is made, and it asks for nothing."""
    pytester.makepyfile(test_items=ITEMS)
    result = run(pytester, "--kitt-html=not/there/r.html")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["report: */not/there/r.html"])
    shown = Watched(browser, pytester.path / "not/there/r.html", color_scheme=scheme)
    page = shown.page
    assert page.locator("h1").inner_text() == "3 of 9 results failed or cannot be trusted"
    chips = page.locator(".chips").inner_text().split()
    assert [(chips[i], chips[i + 1]) for i in range(0, 12, 2)] == [
        ("4", "passed"), ("1", "skipped"), ("1", "inconclusive"), ("1", "error"), ("1", "invalid"), ("1", "failed"),
    ]  # fmt: skip
    assert "Synthetic: the simulated engine" in page.locator("header").inner_text()
    attention = page.locator(".list li").all_inner_texts()
    assert [text.split()[0] for text in attention] == ["failed", "invalid", "error", "inconclusive", "skipped"]
    assert "far too few answers" in attention[0]
    page.click("#expand")
    drawn = page.locator("svg.chart:visible")
    assert drawn.count() == 2 + 4 * 6  # under load; of each load three curves and a timeline
    for box in drawn.evaluate_all("all => all.map(svg => svg.getBBox()).map(box => [box.width, box.height])"):
        assert min(box) > 50
    lengths = page.locator("svg.c0 polyline").evaluate_all("lines => lines.map(line => line.getTotalLength())")
    assert all(length > 20 for length in lengths)
    events = page.locator("svg.tl path.ev").evaluate_all("paths => paths.map(path => path.getTotalLength())")
    assert len(events) >= 60
    assert max(events) > 100
    assert page.locator("#again").inner_text().endswith("--kitt-html=not/there/r.html")
    shown.close()


def test_the_page_says_what_the_store_says(pytester: pytest.Pytester, browser: Any) -> None:
    """Each number of the table of results, to the digit."""
    from pytest_kitt.report.terminal import scaled

    pytester.makepyfile(test_items=ITEMS)
    run(pytester, "--kitt-html=r.html", "-k", "load")
    with opened("") as engine, engine.connect() as connection:
        results = reader.show_run(connection, "last")["results"]
    expected = [
        scaled(m["value"], m["unit"])
        for r in results
        for m in r["metrics"]
        if (m["name"], m["stat"]) == ("ttft_ms", "p50")
    ]
    shown = Watched(browser, pytester.path / "r.html")
    assert shown.column(4) == expected
    assert len(expected) == 3
    shown.close()


def test_headings_sort(sorted_page: Path, browser: Any) -> None:
    """By click and by key, up and down, numbers as numbers, what is missing last; the heading says how."""
    shown = Watched(browser, sorted_page)
    page = shown.page
    assert shown.column(1) == ["beta", "alpha", "gamma"]
    page.locator("table.main >> nth=0 >> th button", has_text="result").click()
    assert shown.column(1) == ["alpha", "beta", "gamma"]
    output = page.locator("table.main >> nth=0 >> th", has_text="Output")
    output.locator("button").focus()
    page.keyboard.press("Enter")
    assert (shown.column(1), output.get_attribute("aria-sort")) == (["beta", "alpha", "gamma"], "ascending")
    page.keyboard.press("Space")
    assert (shown.column(1), output.get_attribute("aria-sort")) == (["alpha", "beta", "gamma"], "descending")
    assert page.locator("table.main >> nth=0 >> th[aria-sort]").count() == 1
    page.locator("table.main >> nth=0 >> th button", has_text="verdict").click()
    assert shown.column(1) == ["alpha", "gamma", "beta"], "what needs a look first"
    shown.close()


def test_filters_narrow_down(sorted_page: Path, browser: Any) -> None:
    """By words in names, cells and reasons, by outcome, by cell; the number that is left is said."""
    shown = Watched(browser, sorted_page)
    page = shown.page
    left = functools.partial(page.locator("#count").inner_text)
    assert left() == "4 of 4 results"
    page.fill("#words", "NEEDLE")
    assert (left(), shown.column(1)) == ("1 of 4 results", ["alpha"])
    page.fill("#words", "other delta")
    assert left() == "1 of 4 results"
    assert page.locator("section.cell:visible h3").all_inner_texts() == ["other"]
    page.fill("#words", "")
    page.focus("#filter input[value=failed]")
    page.keyboard.press("Space")
    assert (left(), shown.column(1)) == ("3 of 4 results", ["beta", "gamma"])
    page.select_option("#cell", label="other")
    assert left() == "1 of 4 results"
    assert page.locator("details.result:visible").count() == 1
    page.locator(".list a", has_text="alpha").click()  # hidden by the filter
    page.wait_for_selector("#r2[open]", state="visible")
    assert left() == "4 of 4 results"
    shown.close()


def test_the_theme_is_the_systems_until_it_is_changed(sorted_page: Path, browser: Any) -> None:
    """The button says what it leads to; both themes can be read."""
    ground = "getComputedStyle(document.body).backgroundColor"
    for scheme, other in (("light", "dark"), ("dark", "light")):
        shown = Watched(browser, sorted_page, color_scheme=scheme)
        before = shown.page.evaluate(ground)
        assert shown.page.locator("#theme").inner_text() == f"{other.title()} theme"
        shown.page.focus("#theme")
        shown.page.keyboard.press("Enter")
        after = shown.page.evaluate(ground)
        assert {before, after} == {"rgb(251, 250, 247)", "rgb(20, 23, 28)"}
        assert shown.page.locator("#theme").inner_text() == f"{scheme.title()} theme"
        for _ in range(100):  # a browser may take a moment to keep it
            shown.page.reload()
            if shown.page.evaluate(ground) == after:
                break
        assert shown.page.evaluate(ground) == after, "it is remembered"
        shown.close()


def test_the_command_is_copied(sorted_page: Path, browser: Any) -> None:
    """As it stands there."""
    shown = Watched(browser, sorted_page, permissions=["clipboard-read", "clipboard-write"])
    shown.page.click("button[data-copy=again]")
    shown.page.wait_for_function("document.querySelector('[data-copy=again]').textContent === 'Copied'")
    assert shown.page.evaluate("navigator.clipboard.readText()") == "pytest"
    shown.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_hangs_over_the_side(pytester: pytest.Pytester, browser: Any, width: int) -> None:
    """Wide tables scroll by themselves, on a telephone and on a desk, with everything open; on paper too."""
    pytester.makepyfile(test_items=ITEMS)
    run(pytester, "--kitt-html=r.html", "-k", "load or failed")
    shown = Watched(browser, pytester.path / "r.html", viewport={"width": width, "height": 800})
    shown.page.click("#expand")
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    shown.page.emulate_media(media="print", color_scheme="dark")
    assert not shown.page.locator("#filter").is_visible()
    assert shown.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown.close()


def test_without_scripts_all_is_there(sorted_page: Path, browser: Any) -> None:
    """The page needs none to be read; what cannot work is not shown."""
    shown = Watched(browser, sorted_page, java_script_enabled=False)
    assert shown.page.locator("#theme").is_hidden()
    assert shown.page.locator("#filter").is_hidden()
    assert shown.page.locator("table.main").first.is_visible()
    shown.close()


def test_hostile_texts_never_run(tmp_path: Path, browser: Any) -> None:
    """Twenty of them in every place that a model, a server or a user can write to; each stands there as text."""
    results = []
    for text in HOSTILE:
        row = {"id": text, "task": text, "question": text, "answer": text, "response": text, "correct": False}
        facts = CellFacts(
            text, text, text, text, "process", {"name": text}, "chat", {text: text}, (text,), False, False
        )
        name = text[:200].replace("\x00", "")
        numbers = (
            Measurement(name, "value", 1, "count", "none", 1),
            Measurement(name, name[:40], 1, "count", "none", 1),
        )
        params = {"load": text, "workload": text, "concurrency": 2, text: text}
        at = "2026-01-01T00:00:01.000Z"
        one = Result(text, "", facts, text, "1", text, "failed", text, params, numbers, at, 1.5)
        results.append((one, [Block("jsonl", 1, orjson.dumps(row) + b"\n")]))
    path = stored_page(tmp_path, *results, argv=tuple(text.replace("\x00", "") for text in HOSTILE))
    shown = Watched(browser, path)
    page = shown.page
    page.click("#expand")
    send = """name => document.querySelectorAll('main *').forEach(
        one => one.dispatchEvent(new Event(name, {bubbles: true})))"""
    for event in ("mouseover", "focus", "click"):
        page.evaluate(send, event)
    text = page.locator("body").text_content()
    for said in HOSTILE[:17]:
        assert re.sub(r"\s+", " ", said) in re.sub(r"\s+", " ", text), said
    assert page.evaluate("window.ran") is None
    assert page.locator("#theme").count() == 1
    assert page.locator("body").is_visible()
    assert "49" not in page.locator("header").inner_text()
    assert page.evaluate("[...document.querySelectorAll('script, style')].length") == 2
    page.click("#theme")
    shown.close()


def test_the_policy_forbids_what_gets_through(sorted_page: Path, browser: Any) -> None:
    """Were there a hole in the escaping, nothing would run and nothing would leave."""
    planted = (
        "<img src=http://127.0.0.1:9/x onerror='window.ran=1'><script>window.ran=1</script><b style='color:red'>x</b>"
    )
    sorted_page.write_text(sorted_page.read_text().replace("<main>", f"<main>{planted}"))
    shown = Watched(browser, sorted_page)
    assert shown.page.evaluate("window.ran") is None
    with pytest.raises(Exception, match="Failed to fetch"):
        shown.page.evaluate("fetch('http://127.0.0.1:9/')")
    assert len([text for text in shown.said if "Content Security Policy" in text]) >= 3
    shown.context.close()


def test_workers_leave_one_page(pytester: pytest.Pytester) -> None:
    """It is written where results arrive, with those of all workers."""
    pytest.importorskip("xdist")
    pytester.makepyfile(test_items=ITEMS)
    run(pytester, "-n2", "--kitt-model=a,b", "--kitt-overlap=allowed", "--kitt-html=r.html", "-k", "load or failed")
    page = (pytester.path / "r.html").read_text()
    assert page.count('<details class="result"') == 3 * 2 + 1
    assert {"simulated-a", "simulated-b"} <= set(re.findall(r"<bdi>(simulated-\w)</bdi></h3>", page))


def test_a_resumed_run_is_one_page(pytester: pytest.Pytester) -> None:
    """With what was measured before and since, the last attempt of each."""
    pytester.makepyfile(test_items=ITEMS.replace("assert False", "import os\n    assert os.path.exists('good')"))
    assert run(pytester, "-k", "load or failed").ret == 1
    (pytester.path / "good").touch()
    assert run(pytester, "--kitt-resume", "--kitt-html=r.html", "-k", "load or failed").ret == 0
    page = (pytester.path / "r.html").read_text()
    assert "<h1>All 4 results passed</h1>" in page
    assert "failed (attempt 2)" in page


def test_a_run_without_results_has_a_page(pytester: pytest.Pytester) -> None:
    """It was begun, and nothing was measured; where no run was begun there is no page, and it is said."""
    pytest.importorskip("xdist")
    pytester.makepyfile(test_items=ITEMS)
    assert run(pytester, "-n1", "--kitt-html=r.html", "-k", "nothing_like_it").ret == 5
    assert "<h1>Nothing was measured</h1>" in (pytester.path / "r.html").read_text()
    none = run(pytester, "--kitt-html=none.html", "-k", "nothing_like_it")
    assert none.ret == 5
    none.stdout.fnmatch_lines(["no report: no benchmark ran"])
    assert not (pytester.path / "none.html").exists()


@pytest.mark.parametrize(
    "path, why",
    [("file/r.html", "file is no folder that can be written to: Not a directory"),
     ("folder", "folder is a folder; name a file in it"),
     ("/proc/none/r.html", "/proc/none is no folder that can be written to: *")],
)  # fmt: skip
def test_a_page_that_cannot_be_written_is_refused(pytester: pytest.Pytester, path: str, why: str) -> None:
    """Before anything starts, in one sentence."""
    pytester.makepyfile(test_items=ITEMS)
    (pytester.path / "file").touch()
    (pytester.path / "folder").mkdir()
    result = run(pytester, f"--kitt-html={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: kitt: --kitt-html: *{why}"])
    assert not list(Path(os.environ["KITT_HOME"]).glob("*.db"))


def test_the_tiny_model_has_a_page(pytester: pytest.Pytester, browser: Any) -> None:
    """The suite quick: a toy, and said to be; its questions with what it answered."""
    pytest.importorskip("xllamacpp")
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--kitt-suite=quick", "--kitt-html=r.html")
    shown = Watched(browser, pytester.path / "r.html")
    assert "Toy: the tiny model is a toy" in shown.page.locator("header").inner_text()
    assert shown.page.locator("tr", has_text="wrong").count() + shown.page.locator("tr", has_text="right").count() >= 50
    shown.close()


def test_a_page_that_could_not_be_written_is_no_success(pytester: pytest.Pytester) -> None:
    """The session says so and ends with an internal error; the table of results is there all the same."""
    pytester.makepyfile(test_items=ITEMS)
    pytester.makeconftest("""
        import pathlib
        def pytest_kitt_item_started():
            pathlib.Path("r.html").mkdir(exist_ok=True)
    """)
    result = run(pytester, "--kitt-html=r.html", "-k", "load and 1")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["kitt: *r.html could not be written: IsADirectoryError: *", "*kitt results*"])
