"""Does the page of a run say what is stored, hold what was said by others in check, and stay small?"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest

from pytest_kitt import shipped
from pytest_kitt.measure.metrics import METRICS, distributions
from pytest_kitt.measure.records import CODEC, Failure, Phase, Records, Request, RequestTable
from pytest_kitt.measure.results import Block
from pytest_kitt.measure.stats import Distribution
from pytest_kitt.report import agreement, charts, html
from pytest_kitt.report.raw import Timed
from pytest_kitt.report.tame import tame, tamed

MS = 1_000_000
HOSTILE = [
    "<script>window.ran = 1</script>",
    "</script><script>window.ran = 1</script>",
    "</style><script>window.ran = 1</script>",
    "</title><img src=x onerror='window.ran = 1'>",
    "<img src=x onerror=window.ran=1>",
    "<svg onload=window.ran=1>",
    "<svg><script>window.ran=1</script></svg>",
    '" onmouseover="window.ran=1" x="',
    "' onfocus='window.ran=1' autofocus='",
    "javascript:window.ran=1",
    "<a href='javascript:window.ran=1' id=theme>x</a>",
    "{{7*7}}{% for x in ().__class__.__base__.__subclasses__() %}{{x}}{% endfor %}${7*7}#{7*7}",
    "<!--<script>window.ran=1</script>-->",
    "]]><script>window.ran=1</script>",
    "}</style><style>*{display:none!important;background:url(http://127.0.0.1:9/x)}",
    "<iframe srcdoc='<script>parent.ran=1</script>'></iframe><base href='http://127.0.0.1:9/'>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "\u202egnp.exe\u2066\u200b\ufeff\x00\x1b[31m\u2028\ud800 z" + "\u0301" * 200,
    "&lt;script&gt;window.ran=1&lt;/script&gt;&#x3c;script&#x3e;",
    "long " * 40_000,
]


def requests(n: int = 20, events: int = 4, *, first_ms: int = 10, gap_ms: int = 2, start: int = 0) -> RequestTable:
    """Request number i gets its first token after first_ms + i, and then one every gap_ms."""
    table = RequestTable()
    for i in range(n):
        send = (start + i) * 100 * MS
        times = [send + (first_ms + i + gap_ms * k) * MS for k in range(events)]
        row = Request(i, Phase.MEASURED, planned_ns=send, send_ns=send, end_ns=times[-1], isl=8, osl=events)
        row = dataclasses.replace(row, answer_event=0, event_ns=times)
        table.append(row)
    return table


def numbers(table: RequestTable, lead: str = "") -> list[dict[str, Any]]:
    """The metrics that are stored for a load with these requests."""
    found = distributions(Records([table.to_bytes()]))
    return [
        metric(f"{lead}{m.name}", stat, value, m.unit, found[m.name].n)
        for m in METRICS
        if m.name in found
        for stat, value in found[m.name].summary().items()
    ] + [metric(f"{lead}output_tps", "value", 1234.0, "tokens/s", len(table))]


def metric(name: str, stat: str, value: float, unit: str, n: int, **more: Any) -> dict[str, Any]:
    """A row of the table of metrics."""
    row = {"name": name, "stat": stat, "value": value, "unit": unit, "better": "lower", "n": n}
    return row | {"ci_low": None, "ci_high": None, "method": None} | more


def a_cell(name: str = "e-m", **more: Any) -> dict[str, Any]:
    """A cell as the reader gives it."""
    return {
        "id": name, "key": "abcdef012345", "engine": "e", "engine_version": "1.2", "runtime": "process",
        "model": {"name": "m", "ref": "m", "quantization": "Q4"}, "api": "chat", "overrides": {"context": "2048"},
        "argv": ["serve", "--model", "a b"], "synthetic": False, "toy": False,
    } | more  # fmt: skip


CERTIFICATE = {"clock": "kernel", "lag_p99_ms": 1.25, "in_flight_target": 8, "in_flight_mean": 7.9, "broken": []}
LOAD = {"load": "closed:8", "concurrency": 8, "workload": "synthetic:8:4", "stop": "requests:20", "api": "chat"}


class Store:
    """Results in memory: what a reader gives, and which blocks were asked for."""

    def __init__(self) -> None:
        self.results: list[dict[str, Any]] = []
        self.blocks: dict[int, list[Block]] = {}
        self.read = 0

    def add(self, *blocks: Block, **more: Any) -> dict[str, Any]:
        """A result; passed and without numbers unless said otherwise."""
        number = len(self.results) + 1
        self.blocks[number] = list(blocks)
        result = {
            "id": number, "cell": a_cell(), "benchmark": "latency", "version": "1", "category": "performance",
            "outcome": "passed", "reason": "", "params": {}, "metrics": [], "key": "0" * 12,
            "nodeid": f"t.py::test_latency[e-m-v{number}]", "started_at": "2026-01-01T00:00:01.000Z",
            "duration_s": 1.5, "attempt": 1,
            "samples": [
                {"seq": seq, "codec": b.codec, "n": b.n, "bytes": len(b.data)} for seq, b in enumerate(blocks)
            ],
        } | more  # fmt: skip
        self.results.append(result)
        return result

    def add_load(self, table: RequestTable | None = None, **more: Any) -> dict[str, Any]:
        """A result of one load."""
        table = table or requests()
        params = {**LOAD, "certificate": CERTIFICATE, **more.pop("params", {})}
        return self.add(block(table), params=params, metrics=numbers(table), **more)

    def read_blocks(self, result_id: int, seqs: Sequence[int]) -> Iterable[Block]:
        """What a store's reader does."""
        for seq in seqs:
            self.read += len(self.blocks[result_id][seq].data)
            yield self.blocks[result_id][seq]

    def page(self, **run: Any) -> str:
        """The page."""
        known = {
            "id": "20260101-000001-aaaaaa", "started_at": "2026-01-01T00:00:01.000Z",
            "finished_at": "2026-01-01T00:00:05.500Z", "status": "passed", "exit_status": 0, "suite": "quick",
            "synthetic": False, "toy": False, "results": {}, "engines": ["e"], "models": ["m"],
            "argv": ["pytest", "-k", "a b"], "kitt_version": "0.1.0",
            "fingerprint": {"key": "f" * 12, "cpu": "A CPU", "cores": 2, "memory_bytes": 8 << 30},
        }  # fmt: skip
        agreements = agreement.read(self.results, self.read_blocks)
        found = {"run": known | run, "results": self.results, "agreements": agreements}
        return html.render(found, self.read_blocks)


def block(table: RequestTable) -> Block:
    """Requests as a stored block."""
    return Block(CODEC, len(table), table.to_bytes())


def questions(*rows: Mapping[str, Any]) -> Block:
    """Questions as a stored block."""
    return Block("jsonl", len(rows), b"".join(json.dumps(row).encode() + b"\n" for row in rows))


class Page(HTMLParser):
    """Elements with their attributes, the text outside of script and style, and the tables as rows of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self._inside = ""
        self._in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes it."""
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self._in_cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """Leaves script and style."""
        self._inside = "" if tag == self._inside else self._inside
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        """Notes it."""
        if self._inside:
            self.raw[self._inside] = self.raw.get(self._inside, "") + data
            return
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data.strip()

    def row(self, head: str) -> list[str]:
        """The first table row that begins with this."""
        return next(row for row in self.rows if row and row[0] == head)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """Attributes of the elements of this name that have these."""
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]


def test_stored_numbers_stand_on_the_page() -> None:
    """Each metric with its statistics, n and interval; the machine, the engine's command, the command of the run."""
    store = Store()
    store.add_load()
    low_high = {"ci_low": 0.5, "ci_high": 0.75, "method": "wilson"}
    store.add(
        category="quality", benchmark="exact", metrics=[metric("accuracy", "value", 0.625, "share", 40, **low_high)]
    )
    text = store.page()
    page = Page(text)
    # requests 0..19 have their first token after 10..29 ms: mean 19.5, p50 19.5, p90 27.1
    assert page.row("ttft_ms") == [
        "ttft_ms", "19.5 ms", "5.92 ms", "10.0 ms", "19.5 ms", "27.1 ms", "28.1 ms", "29.0 ms", "20",
    ]  # fmt: skip
    assert page.row("itl_ms")[-1] == "60"
    assert page.row("output_tps") == ["output_tps", "1234 tok/s", "", "20"]
    assert page.row("accuracy") == ["accuracy", "62.5 %", "50.0 % to 75.0 % (wilson)", "40"]
    assert page.row("Sent late, p99") == ["Sent late, p99", "1.25 ms", "10.0 ms"]
    assert page.row("Requests under way, mean")[1] == "7.9 of 8"
    for said in ("pytest -k 'a b'", "serve --model 'a b'", "A CPU", "8.0 GiB", "took 4.5 s", "All 2 results passed"):
        assert said in page.text, said


@pytest.mark.parametrize(
    "outcomes, headline",
    [
        ("", "Nothing was measured"),
        ("passed", "The one result passed"),
        ("passed passed skipped", "All 2 results passed; 1 skipped"),
        ("skipped", "Everything was skipped"),
        ("passed inconclusive", "1 of 2 results passed, 1 inconclusive"),
        ("passed failed invalid error inconclusive skipped", "3 of 6 results failed or cannot be trusted"),
    ],
)
def test_the_verdict_comes_first(outcomes: str, headline: str) -> None:
    """One sentence, then what did not pass with its reason, worst first."""
    store = Store()
    for outcome in outcomes.split():
        store.add(outcome=outcome, reason="" if outcome == "passed" else f"because of {outcome}")
    page = Page(store.page())
    assert headline in page.text
    said = [page.text.find(f"because of {o}") for o in ("failed", "invalid", "error", "inconclusive", "skipped")]
    there = [place for place in said if place >= 0]
    assert there == sorted(there)
    assert len(there) == len([o for o in outcomes.split() if o != "passed"])


def test_toy_and_synthetic_are_said() -> None:
    """Neither may be mistaken for a product."""
    page = Page(Store().page(toy=True, synthetic=True)).text
    assert "Toy: the tiny model is a toy" in page
    assert "Synthetic: the simulated engine makes its tokens up" in page
    assert "Toy:" not in Page(Store().page()).text


def test_what_is_not_certified_is_said_wherever_it_stands() -> None:
    """A load that went on with a broken certificate is marked, in the head, the table and the detail."""
    store = Store()
    store.add_load(params={"certificate": CERTIFICATE | {"broken": ["it was late"], "cure": "rest"}})
    page = Page(store.page())
    assert "1 load is not certified and went on all the same" in page.text
    assert "closed:8not certified" in [row[2] for row in page.rows if len(row) > 2]
    assert "Not certified: it was late. Next: rest" in page.text


def test_curves_have_known_points() -> None:
    """The line goes through the quantiles, the marks stand where the stored percentiles are."""
    values = Distribution("ttft_ms", [float(v) for v in range(101)])
    drawn = charts.curve(values, {"p50": 50.0, "p90": 90.0})
    assert (drawn.x.low, drawn.x.high, drawn.x.ticks) == (0, 100, (0, 50, 100))
    points = [tuple(map(float, pair.split(","))) for pair in drawn.points.split()]
    assert points == [(34, 136), (312, 10)], "equally many everywhere is a straight line"
    assert drawn.marks == (("p50", 50.0, 173, 73), ("p90", 90.0, 284.2, 22.6))
    assert drawn.beyond == 0


def test_a_curve_keeps_its_bends() -> None:
    """Half of the values at one place, the others spread: a jump and a slope."""
    drawn = charts.curve(Distribution("ttft_ms", [10.0] * 50 + [10.0 + v for v in range(1, 51)]), {})
    points = [tuple(map(float, pair.split(","))) for pair in drawn.points.split()]
    assert points[0] == (34, 136)
    assert points[-1] == (312, 10)
    assert any(x == 34 and abs(y - 73) < 2.6 for x, y in points)


def test_a_long_tail_is_cut_and_said() -> None:
    """One value far away does not press all the others together."""
    values = Distribution("ttft_ms", [*map(float, range(1, 1000)), 1e6])
    drawn = charts.curve(values, {})
    assert drawn.x.high < 1200
    assert drawn.beyond == 1e6


def test_equal_values_are_drawn() -> None:
    """A distribution without any spread, and one of zeros."""
    for value in (5.0, 0.0):
        drawn = charts.curve(Distribution("itl_ms", [value] * 10), {"p50": value})
        assert drawn.x.low <= value <= drawn.x.high
        assert drawn.points


@pytest.mark.parametrize(
    "low, high, about, expected",
    [
        (0, 100, 4, (0, 50, 100)),
        (0, 10, 5, (0, 2, 4, 6, 8, 10)),
        (0.31, 0.39, 4, (0.32, 0.34, 0.36, 0.38)),
        (3, 3, 4, (3,)),
    ],
)
def test_ticks_are_round(low: float, high: float, about: int, expected: tuple[float, ...]) -> None:
    """1, 2 or 5 times a power of ten, inside of the axis."""
    assert charts.ticks(low, high, about) == expected


def test_a_timeline_has_a_vertex_for_each_event() -> None:
    """At its time; events that fall together are one, and are said to be."""
    drawn = charts.timeline([Timed("slowest", 3, (0.0, 25.0, 100.0)), Timed("fastest", 1, (50.0, 50.0))], 100)
    assert drawn is not None
    assert [(row.path, row.first, row.last) for row in drawn.rows] == [
        ("M112 18h200h600", 112, 912),
        ("M512 34", 512, 512),
    ]
    assert (drawn.shown, drawn.events) == (4, 5)
    many = charts.timeline([Timed("slowest", 0, tuple(float(i) for i in range(10_000)))], 100)
    assert many is not None
    assert many.shown <= 102
    assert charts.timeline([Timed("slowest", 0, ())], 100) is None


def test_slowest_median_and_fastest_requests_are_shown() -> None:
    """Twenty of them, a third from each place."""
    store = Store()
    store.add_load(requests(100))
    (chart,) = [a for a in Page(store.page()).all("svg", role="img") if "tl" in str(a["class"])]
    said = str(chart["aria-label"])
    places = re.findall(r"(slowest|median|fastest) ([\d.]+) ms", said)
    assert [place for place, _ in places] == ["slowest"] * 7 + ["median"] * 6 + ["fastest"] * 7
    firsts = [float(ms) for _, ms in places]
    assert (firsts[0], firsts[-1]) == (109, 10)
    assert 55 < firsts[9] < 65, "in the middle is the middle"


def test_loads_of_one_test_are_told_apart() -> None:
    """By the blocks that each says are its own; where it does not, nothing is drawn."""
    store = Store()
    first, second = requests(20), requests(40, first_ms=200)
    labelled = {f"open.{key}": value for key, value in LOAD.items()}
    params = LOAD | labelled | {"blocks": [0, 1], "open.blocks": [1, 2]}
    found = [*numbers(first), *numbers(second, "open.")]
    store.add(block(first), block(second), params=params, metrics=found)
    labels = [str(a["aria-label"]) for a in Page(store.page()).all("svg") if "TTFT" in str(a.get("aria-label"))]
    assert labels == [
        "Distribution of TTFT of latency[v1], 20 values: p50 19.5 ms, p90 27.1 ms",
        "Distribution of TTFT of latency[v1] open, 40 values: p50 220 ms, p90 235 ms",
    ]
    store.results[0]["params"] = LOAD | labelled
    page = store.page()
    assert "its raw samples cannot be told from those of the other loads" in page
    assert "Distribution of TTFT" not in page
    store.results[0]["params"] = params | {"blocks": [1, 2], "open.blocks": [0, 1]}
    assert "its raw samples are not those that its numbers rest on" in store.page()


def test_failures_are_counted_by_reason() -> None:
    """Of the measured requests."""
    table = requests(20)
    for failure in (Failure.TIMEOUT, Failure.TIMEOUT, Failure.RESET):
        table.append(Request(99, Phase.MEASURED, failure, send_ns=5))
    table.append(Request(99, Phase.COOLDOWN, Failure.CANCELLED, send_ns=5))
    store = Store()
    store.add_load(table)
    assert "Failed: 2 TIMEOUT, 1 RESET" in Page(store.page()).text


def test_concurrency_is_compared_by_cell() -> None:
    """A series each; invalid numbers are left out and counted, quality items ask for no speed."""
    store = Store()
    for name in ("one", "two"):
        for level in (1, 2, 4):
            store.add_load(cell=a_cell(name, key=name), params={"load": f"closed:{level}", "concurrency": level})
    store.add_load(outcome="invalid", reason="no")
    store.add_load(category="quality")
    text = store.page()
    page = Page(text)
    drawn = [a for a in page.all("svg") if "against requests under way" in str(a.get("aria-label"))]
    assert [str(a["aria-label"]).partition(",")[0] for a in drawn] == [
        "Output against requests under way",
        "First token",
    ]
    assert "2 series" in str(drawn[0]["aria-label"])
    assert "1 load of results that are invalid or errors is left out" in page.text
    rows = [row for row in page.rows if len(row) == 7 and row[4] == "1234 tok/s"]
    assert [(row[0], row[3]) for row in rows] == [(name, level) for name in ("one", "two") for level in "124"]


def test_questions_come_wrong_ones_first_and_bounded() -> None:
    """With what was asked, what is right and what was said."""
    rows = [
        {"id": str(i), "task": "add", "question": f"{i}+1", "answer": str(i + 1), "response": "7", "correct": i == 6}
        for i in range(500)
    ]
    store = Store()
    store.add(questions(*rows), questions({"question": "?", "response": None}), category="quality")
    page = Page(store.page())
    shown = [row for row in page.rows if len(row) == 5 and row[0] in ("right", "wrong")]
    assert shown[0] == ["wrong", "add", "0+1", "1", "7"]
    assert len(shown) == 200
    assert {row[0] for row in shown} == {"wrong"}
    assert "500 wrong of 501" in page.text


def test_a_long_prompt_is_shown_by_its_end() -> None:
    """The question stands behind all worked examples."""
    store = Store()
    row = {"task": "maths", "question": "Example. " * 200 + "What is 7 times 8?", "answer": "56", "response": "56"}
    store.add(questions(row), category="quality")
    page = Page(store.page())
    assert "Example. What is 7 times 8?" in page.text
    assert "Example. " * 100 not in page.text


def test_unreadable_samples_cost_the_chart_alone() -> None:
    """Blocks that are none, and rows that are none."""
    store = Store()
    store.add(Block(CODEC, 3, b"\x00\x01"), params=LOAD, metrics=numbers(requests()))
    store.add(Block("jsonl", 2, b"\xff\n[1]\n"), category="quality")
    page = Page(store.page())
    assert "its raw samples cannot be read" in page.text
    assert page.row("ttft_ms")[1] == "19.5 ms"


@pytest.fixture(scope="module")
def hostile() -> str:
    """A page on which every text is hostile."""
    store = Store()
    for text in HOSTILE:
        rows = [{"id": text, "task": text, "question": text, "answer": text, "response": text, "correct": False}]
        cell = a_cell(text, key=text, engine=text, engine_version=text, argv=[text], overrides={text: text}, api=text,
                      model={text: text, "name": text}, runtime=text)  # fmt: skip
        params = LOAD | {"workload": text, text: {text: text}, "certificate": CERTIFICATE | {"broken": [text]}}
        found = [*numbers(requests()), metric(text, "value", 1, text, 1), metric(text, text, 1, text, 1)]
        more = {"benchmark": text, "version": text, "category": text, "nodeid": text, "reason": text}
        store.add(
            block(requests()), questions(*rows), cell=cell, params=params, metrics=found, outcome="failed", **more
        )
    every = " ".join(HOSTILE)
    machine = {"key": every, "cpu": every, every: every}
    return store.page(id=every, suite=every, argv=HOSTILE, fingerprint=machine, status=every, kitt_version=every)


ATTRIBUTES = {
    "href": re.compile(r"#[a-z]+\d*|data:,"),
    "src": re.compile(r"(?!)"),
    "style": re.compile(r"(?!)"),
    "action": re.compile(r"(?!)"),
}


def test_hostile_texts_are_text(hostile: str) -> None:
    """Not one element, handler, link or style comes of them, and what they said can be read."""
    page = Page(hostile)
    names = [name for name, _ in page.elements]
    assert names.count("script") == names.count("style") == 1
    assert not {"img", "iframe", "base", "object", "embed", "foreignobject"} & set(names)
    assert len(page.all("meta")) == 5
    for name, attributes in page.elements:
        assert not [a for a in attributes if a.startswith("on")], (name, attributes)
        for attribute, allowed in ATTRIBUTES.items():
            assert allowed.fullmatch(attributes.get(attribute) or "data:,") or attribute not in attributes, attributes
    for text in HOSTILE[:17]:
        assert text in page.text
    assert "49" not in page.raw["script"]
    assert "{{7*7}}" in page.text
    assert not re.search("[\u202e\u2066\u200b\ufeff\u2028\x00\x1b\ud800]", hostile)
    assert "\\u202egnp.exe\\u2066" in page.text
    assert "long " * 4000 not in page.text
    assert "(200,000 characters)" in page.text
    assert len(hostile.encode()) < 3_000_000


def test_nothing_but_its_own_script_and_style_may_run(hostile: str) -> None:
    """The policy names them by their hashes and forbids all else."""
    page = Page(hostile)
    (policy,) = [str(a["content"]) for a in page.all("meta") if a.get("http-equiv")]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.raw[kind].encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"


def test_ids_are_unique_and_links_have_their_target(hostile: str) -> None:
    """So that a reader with a keyboard or a screen reader arrives."""
    page = Page(hostile)
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"]).removeprefix("#") for a in page.all("a")}
    labels = {str(a["aria-labelledby"]) for _, a in page.elements if "aria-labelledby" in a}
    assert targets | labels <= set(ids)


def test_tables_and_charts_say_what_they_are() -> None:
    """Each table has a caption, each heading a scope, each chart a text."""
    store = Store()
    store.add_load()
    page = Page(store.page())
    assert len(page.all("table")) == len(page.all("caption")) > 3
    assert all(a.get("scope") in ("row", "col") for a in page.all("th"))
    drawn = [a for a in page.all("svg") if a.get("aria-hidden") != "true"]
    assert len(drawn) > 5
    assert all(a["role"] == "img" and a["aria-label"] for a in drawn)


def many(each: Callable[[Store, int], object]) -> Store:
    """Two hundred results."""
    store = Store()
    for number in range(200):
        each(store, number)
    return store


def test_two_hundred_results_are_less_than_three_megabytes_and_always_the_same() -> None:
    """With charts and timelines of all of them, and long reasons; the same input gives the same bytes."""
    table = requests(200, 128)
    found, data = numbers(table), block(table)

    def add(store: Store, number: int) -> None:
        outcome = "failed" if number % 3 == 0 else "passed"
        params = LOAD | {"concurrency": 1 << number % 8, "certificate": CERTIFICATE}
        cell = a_cell(f"engine-model-{number % 8}", key=str(number % 8))
        store.add(data, cell=cell, params=params, metrics=found, outcome=outcome, reason="why " * 5000)

    text = many(add).page()
    assert len(text.encode()) < 3_000_000
    assert text.count("Distribution of TTFT") == 200
    assert text.count("Timeline</summary>") == 200
    assert many(add).page() == text


def test_long_loads_are_sampled_and_it_is_said() -> None:
    """Of 200 results with 100,000 requests each, a bounded part is read."""
    part = requests(1000, 64)
    data, found = block(part), numbers(part)
    store = many(lambda store, _: store.add(*[data] * 100, params=LOAD, metrics=found))
    size = sum(sample["bytes"] for result in store.results for sample in result["samples"])
    text = store.page()
    assert store.read <= html.READ_BYTES + 200 * len(data.data)
    assert store.read < size / 50
    assert re.search(r"drawn from [\d,]+ of 100,000 requests", text)
    assert len(text.encode()) < 3_000_000


def test_more_results_than_there_is_room_for() -> None:
    """Those that need a look keep their details; the rest stays in the tables, and it is said."""
    store = Store()
    for number in range(html.MAX_DETAILED + 50):
        store.add(outcome="failed" if number >= html.MAX_DETAILED else "passed")
    page = Page(store.page())
    assert len(page.all("details", **{"class": "result"})) == html.MAX_DETAILED
    kept = {a["id"] for a in page.all("details", **{"class": "result"})}
    assert {f"r{number}" for number in range(html.MAX_DETAILED + 1, html.MAX_DETAILED + 51)} <= kept
    assert "no room for the details of 50 more results" in page.text


def test_texts_are_tamed() -> None:
    """Cut, with what cannot be seen spelt out; numbers stay numbers."""
    assert tame("a" * 30, 10) == "a" * 10 + " … (30 characters)"
    assert tame("a\u202eb\x07\r\nc\td") == "a\\u202eb\\x07\nc\td"
    assert tame("e" + "\u0301" * 50) == "e" + "\u0301" * 3
    assert tame("Größe 日本語 🙂") == "Größe 日本語 🙂"
    assert tamed({"k\x00": [1, 2.5, None, True, "\u200b"]}) == {"k\\x00": [1, 2.5, None, True, "\\u200b"]}
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    assert "…" in json.dumps(tamed(deep), ensure_ascii=False)


STYLE = (shipped.REPORTS / "html" / "page.css").read_text()
COLOURS = {
    name: (light, dark)
    for name, light, dark in re.findall(r"--(\w+):light-dark\((#[0-9a-f]{6}),(#[0-9a-f]{6})\)", STYLE)
}
TEXTS = ("text", "muted", "link", "passed", "failed", "invalid", "error", "inconclusive", "skipped")


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast(theme: int) -> None:
    """Text stands out by 4.5 to 1 from every ground that it stands on, lines of charts by 3 to 1."""
    grounds = [COLOURS[name][theme] for name in ("ground", "raised", "sunk")]
    for name in TEXTS:
        for ground in grounds:
            assert contrast(COLOURS[name][theme], ground) >= 4.5, name
    assert contrast(COLOURS["text"][theme], COLOURS["notice"][theme]) >= 4.5
    for number in range(charts.SERIES):
        assert contrast(COLOURS[f"s{number}"][theme], grounds[0]) >= 3


def test_what_is_drawn_from_afar_has_its_style() -> None:
    """The axis that all curves share lies outside of their SVG: no rule for it may ask for an SVG around it."""
    assert re.search(r"^text\{", STYLE, re.MULTILINE)
    assert re.search(r"^\.grid\{", STYLE, re.MULTILINE)
    assert not re.search(r"svg (text|\.grid)\b", STYLE)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
