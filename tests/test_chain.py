"""Do the same numbers stand at every place of the way: records, metrics, store, JSON, CSV, JUnit, Markdown, HTML?

The times are scripted, so that each number can be worked out by hand: ten requests, sent 100 ms apart, each with a
first token after 20 ms, then five more every 5 ms; the sixth to the tenth take 10 ms longer to their first token.
"""

from __future__ import annotations

import csv
import functools
import html as markup
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa

from pytest_kitt.load.certificate import certify
from pytest_kitt.load.result import LoadResult
from pytest_kitt.load.spec import Closed, Ending
from pytest_kitt.measure.records import CODEC, CountedBy, Phase, Records, Request, RequestTable
from pytest_kitt.measure.results import Block
from pytest_kitt.report import document, exports, files, html, junit
from pytest_kitt.settings import Settings
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened
from tests import made_run

MS = 1_000_000
REQUESTS, EVENTS, GAP_MS, EVERY_MS = 10, 6, 5, 100
ENDING = Ending("kernel", 1.0, 0.1, 1, 0, 0, 0, 60, 0, 0.0, 0, [], {}, "")
# by hand; the window is from the first send to the last token: 9 * 100 + 55 ms
KNOWN = {
    "ttft_ms.mean": 25.0,
    "ttft_ms.p50": 25.0,
    "ttft_ms.min": 20.0,
    "ttft_ms.max": 30.0,
    "ttft_ms.p90": 30.0,
    "itl_ms.mean": 5.0,
    "itl_ms.p50": 5.0,
    "tpot_ms.p50": 5.0,
    "e2e_ms.mean": 50.0,
    "e2e_ms.max": 55.0,
    "osl.mean": 6.0,
    "isl.mean": 16.0,
    "output_tps": 60 / 0.955,
    "request_rps": 10 / 0.955,
    "requests_failed": 0.0,
}


def scripted(index: int) -> Request:
    """One of the requests."""
    sent = index * EVERY_MS * MS
    first = sent + (20 if index < REQUESTS // 2 else 30) * MS
    events = [first + number * GAP_MS * MS for number in range(EVENTS)]
    return Request(
        index,
        Phase.MEASURED,
        counted_by=CountedBy.USAGE,
        status=200,
        isl=16,
        osl=EVENTS,
        planned_ns=sent,
        send_ns=sent,
        end_ns=events[-1],
        answer_event=0,
        event_ns=tuple(events),
    )


@pytest.fixture
def load() -> tuple[LoadResult, Block]:
    """The load that these requests are, and its block."""
    table = RequestTable()
    for index in range(REQUESTS):
        table.append(scripted(index))
    data = table.to_bytes()
    records = Records([data])
    result = LoadResult(records, ENDING, certify(records, Closed(1), [ENDING], held=True), {})
    return result, Block(CODEC, len(table), data)


@pytest.fixture
def store(tmp_path: Path, load: tuple[LoadResult, Block]) -> Iterator[sa.Engine]:
    """A store with the one result."""
    result, block = load
    with opened(str(tmp_path / "kitt.db")) as engine:
        made_run.write(engine, (made_run.result(metrics=result.measurements()), (block,)))
        yield engine


def test_records_give_the_known_numbers(load: tuple[LoadResult, Block]) -> None:
    """What was worked out by hand is what the metrics say."""
    found = {m.key: m.value for m in load[0].measurements()}
    assert {key: found[key] for key in KNOWN} == pytest.approx(KNOWN)


def test_every_form_says_the_same(store: sa.Engine, load: tuple[LoadResult, Block], tmp_path: Path) -> None:
    """Store, JSON, CSV and JUnit hold the very same numbers, and Markdown and HTML show them."""
    known = {m.key: m.value for m in load[0].measurements()}
    with store.connect() as connection:
        [result] = reader.show_run(connection, made_run.RUN)["results"]
        assert by_key(result["metrics"]) == known
        files.write(tmp_path / "out", connection, made_run.RUN, Settings())
        assert by_key(json.loads(text(connection, "json"))["results"][0]["metrics"]) == known
        lines = csv.DictReader(io.StringIO(text(connection, "csv"), newline=""))
        assert by_key([{**line, "name": line["metric"]} for line in lines]) == known
        told = {
            p.get("name"): p.get("value") for p in ElementTree.fromstring(text(connection, "junit")).iter("property")
        }
        page = html.render(document.read(connection, made_run.RUN), functools.partial(reader.read_samples, connection))
        summary = text(connection, "md")
    assert by_key(json.loads((tmp_path / "out" / "metrics.json").read_bytes())["results"][0]["metrics"]) == known
    assert {key: told[f"kitt.{key}"] for key in KNOWN} == {key: junit.decimal(known[key]) for key in KNOWN}
    for shown in ("25.0 ms", "5.00 ms", "50.0 ms", "62.8 tok/s", "10.5 req/s"):
        assert shown in summary
        assert shown in words(page)


def test_the_page_draws_the_known_times(store: sa.Engine) -> None:
    """The timeline and the distribution of the page come from the records, not from the metrics: they agree."""
    with store.connect() as connection:
        page = html.render(document.read(connection, made_run.RUN), functools.partial(reader.read_samples, connection))
    said = words(page)
    assert "30.0 ms" in said  # the largest TTFT
    assert "55.0 ms" in said  # the slowest request


def by_key(metrics: list[dict[str, Any]]) -> dict[str, float]:
    """Numbers by the one spelling of a metric."""
    return {m["name"] if m["stat"] == "value" else f"{m['name']}.{m['stat']}": float(m["value"]) for m in metrics}


def text(connection: sa.Connection, form: str) -> str:
    """The run in a form."""
    return b"".join(exports.pieces(connection, made_run.RUN, form, samples=False, say=lambda _: None)).decode()


def words(page: str) -> str:
    """What a reader of the page sees."""
    seen = re.sub(r"(?s)<(script|style)\b.*?</\1>|<[^>]*>", " ", page)
    return " ".join(markup.unescape(seen).split())
