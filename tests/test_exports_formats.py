"""Does a run say the same in every format, to programs that others wrote?"""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import sqlalchemy as sa

from pytest_kitt import shipped
from pytest_kitt.errors import UserError
from pytest_kitt.measure.results import Block
from pytest_kitt.model import reference
from pytest_kitt.report import exports, files, html, imported
from pytest_kitt.settings import Settings
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened
from tests import made_run
from tests.test_store import postgres

WARM = (made_run.block([made_run.request(n, ms) for n, ms in enumerate((12, 14))]),)
PARAMS = {**made_run.PARAMS, "warm.load": "closed:1", "warm.certificate": {**made_run.CERTIFICATE, "broken": ["lag"]}}
TWO_LOADS = made_run.result(
    "two",
    metrics=(*made_run.numbers(), *made_run.numbers(WARM, "warm")),
    params=PARAMS,
)


@pytest.fixture
def db(tmp_path: Path) -> str:
    """Where the store of a test is."""
    return str(tmp_path / "kitt.db")


@pytest.fixture
def store(db: str) -> Iterator[sa.Engine]:
    """An empty store."""
    with opened(db) as engine:
        yield engine


def export(store: sa.Engine, name: str, *, samples: bool = False, said: list[str] | None = None) -> bytes:
    """The made run in a format."""
    say = said.append if said is not None else lambda _: None
    with store.connect() as connection:
        return b"".join(exports.pieces(connection, made_run.RUN, name, samples=samples, say=say))


def kitt(*args: str) -> subprocess.CompletedProcess[bytes]:
    """Runs the command."""
    return subprocess.run([sys.executable, "-m", "pytest_kitt.cli", "results", *args], capture_output=True, check=False)


def rows_of(text: bytes) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(text.decode(), newline="")))


def test_the_numbers_are_the_same_in_every_format(
    store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Store, metrics.json, JSON, CSV, JUnit and pytest-benchmark agree to the last digit that they show."""
    monkeypatch.setattr(html, "render", lambda found, _: found["run"]["id"])
    result = made_run.result()
    made_run.write(store, (result, made_run.BLOCKS))
    known = {m.key: m.value for m in result.metrics}
    assert (known["e2e_ms.mean"], known["e2e_ms.p50"], known["accuracy"]) == (228.0, 40.0, 0.78125)
    assert known["e2e_ms.std"] == pytest.approx(math.sqrt(186370))

    def by_key(metrics: list[dict[str, Any]]) -> dict[str, float]:
        return {m["name"] if m["stat"] == "value" else f"{m['name']}.{m['stat']}": float(m["value"]) for m in metrics}

    with store.connect() as connection:
        files.write(tmp_path / "out", connection, made_run.RUN, Settings())
    assert by_key(json.loads((tmp_path / "out" / "metrics.json").read_bytes())["results"][0]["metrics"]) == known
    assert by_key(json.loads(export(store, "json"))["results"][0]["metrics"]) == known
    rows = rows_of(export(store, "csv"))
    assert by_key([{**row, "name": row["metric"]} for row in rows]) == known
    (bench,) = json.loads(export(store, "pytest-benchmark"))["benchmarks"]
    assert bench["extra_info"]["metrics"] == known
    properties = ElementTree.fromstring(export(store, "junit")).iter("property")
    junit = {str(p.get("name")).removeprefix("kitt."): p.get("value") for p in properties}
    assert {key: float(str(junit[key])) for key in known} == {key: round(value, 6) for key, value in known.items()}
    assert "78" in export(store, "md").decode()
    assert export(store, "html").decode() == made_run.RUN
    assert export(store, "junit") == (tmp_path / "out" / "junit.xml").read_bytes()


def test_json_is_the_whole_run_and_the_same_bytes_each_time(store: sa.Engine) -> None:
    """Cells once, every attempt, events; keys sorted; raw blocks if asked for."""
    first = made_run.result(outcome="failed")
    made_run.write(store, (first, made_run.BLOCKS), (made_run.result(attempt=2), made_run.BLOCKS))
    schema = json.loads((shipped.SCHEMAS / "run.schema.json").read_bytes())
    plain, whole = export(store, "json"), export(store, "json", samples=True)
    assert plain == export(store, "json")
    assert whole == export(store, "json", samples=True)
    for text in (plain, whole):
        document = json.loads(text)
        jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
        assert list(document) == sorted(document)
    assert [each["outcome"] for each in document["results"]] == ["failed", "passed"]
    assert [each["cell"] for each in document["results"]] == [0, 0]
    assert [cell["id"] for cell in document["cells"]] == ["e-m"]
    assert document["events"] == [
        {"at": "2026-01-31T12:00:01.250Z", "kind": "engine ready", "payload": {"cell": "e-m"}}
    ]
    assert json.loads(plain)["samples"] is None
    assert [(b["result"], b["seq"], b["n"]) for b in document["samples"]] == [
        (0, 0, 4),
        (0, 1, 3),
        (1, 0, 4),
        (1, 1, 3),
    ]
    assert base64.b64decode(document["samples"][1]["base64"]) == made_run.BLOCKS[1].data
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "samples": [{}]}, schema)


def test_a_result_without_cell_and_numbers_has_its_place(store: sa.Engine) -> None:
    """Nothing is invented for it: null in JSON, an empty field and one row in CSV."""
    made_run.write(store, (made_run.result(cell=None, metrics=(), params={}, outcome="error"), ()))
    document = json.loads(export(store, "json"))
    assert (document["cells"], document["results"][0]["cell"], document["results"][0]["metrics"]) == ([], None, [])
    (row,) = rows_of(export(store, "csv"))
    assert (row["outcome"], row["cell"], row["metric"], row["value"]) == ("error", "", "", "")


def test_csv_has_every_fact_of_the_model_that_json_has(store: sa.Engine) -> None:
    """Under the same names, behind ``model_``; the name itself is ``model``."""
    facts = dataclasses.replace(reference.of_path("t", shipped.TINY_MODEL), toy=False).facts()
    made_run.write(store, (made_run.result(cell=dataclasses.replace(made_run.CELL, model=facts)), made_run.BLOCKS))
    (cell,) = json.loads(export(store, "json"))["cells"]
    row = rows_of(export(store, "csv"))[0]
    told = {name: row["model" if name == "name" else f"model_{name}"] for name in cell["model"]}
    assert told == {name: "" if value is None else str(value) for name, value in cell["model"].items()}
    assert (told["ref"], told["size_bytes"]) == ("tiny.gguf", str(shipped.TINY_MODEL.stat().st_size))
    assert told["digest"]
    assert told["architecture"]


def test_csv_is_rfc_4180_and_no_formula(store: sa.Engine) -> None:
    """Lines end with CRLF, quotes are doubled, what a spreadsheet would run begins with an apostrophe."""
    names = ("=cmd|'/C calc'!A0", "+1", "-1", "@x", "\tx", 'a"b,c\r\nd', "plain=1")
    made_run.write(store, *((made_run.result(name, key=f"{n:012}"), ()) for n, name in enumerate(names)))
    text = export(store, "csv")
    assert b'"a""b,c\r\nd"' in text
    assert b"\n" not in text.replace(b"\r\n", b"")
    found = list(dict.fromkeys(row["benchmark"] for row in rows_of(text)))
    assert found == [*(f"'{name}" for name in names[:5]), *names[5:]]


def test_csv_leaves_numbers_alone(store: sa.Engine) -> None:
    """A negative number is a number; each stands beside the verdict and the certificate of its own load."""
    below = dataclasses.replace(made_run.numbers()[0], name="change_ms", value=-1.5)
    made_run.write(store, (dataclasses.replace(TWO_LOADS, metrics=(*TWO_LOADS.metrics, below)), made_run.BLOCKS))
    rows = rows_of(export(store, "csv"))
    assert {row["value"] for row in rows if row["metric"] == "change_ms"} == {"-1.5"}
    certified = {row["metric"]: row["certified"] for row in rows}
    assert certified == {"change_ms": "true", "e2e_ms": "true", "warm.e2e_ms": "false"}


def test_pytest_benchmark_has_the_times_in_seconds(store: sa.Engine) -> None:
    """Statistics of known times: 20, 30, 40, 50 and 1000 ms, of good measured requests alone."""
    made_run.write(store, (made_run.result(), made_run.BLOCKS))
    document = json.loads(export(store, "pytest-benchmark"))
    (bench,) = document["benchmarks"]
    assert bench["fullname"] == "performance/test_it.py::test_latency[e-m-c8]"
    assert (bench["name"], bench["group"], bench["param"]) == ("test_latency[e-m-c8]", "latency", "e-m-c8")
    expected = {
        "min": 0.02,
        "max": 1.0,
        "mean": 0.228,
        "stddev": math.sqrt(0.18637),
        "rounds": 5,
        "median": 0.04,
        "q1": 0.03,
        "q3": 0.05,
        "iqr": 0.02,
        "ld15iqr": 0.02,
        "hd15iqr": 0.05,
        "total": 1.14,
        "ops": 5 / 1.14,
        "iterations": 1,
        "iqr_outliers": 1,
        "stddev_outliers": 1,
    }
    stats = bench["stats"]
    assert stats.pop("outliers") == "1;1"
    assert stats == pytest.approx(expected)
    assert document["machine_info"]["cpu"]["brand_raw"] == "A CPU"
    assert bench["extra_info"]["certified"] is True


def test_pytest_benchmark_tells_the_loads_of_a_test_apart(store: sa.Engine) -> None:
    """Each load is a benchmark of its own, made of its own requests."""
    made_run.write(store, (TWO_LOADS, (*made_run.BLOCKS, *WARM)))
    found = {b["fullname"]: b for b in json.loads(export(store, "pytest-benchmark"))["benchmarks"]}
    assert {name: b["stats"]["rounds"] for name, b in found.items()} == {
        "performance/test_it.py::test_two[e-m-c8]": 5,
        "performance/test_it.py::test_two[e-m-c8] warm": 2,
    }
    assert found["performance/test_it.py::test_two[e-m-c8] warm"]["stats"]["mean"] == pytest.approx(0.013)


def test_pytest_benchmark_leaves_out_what_it_cannot_trust(store: sa.Engine) -> None:
    """Invalid numbers, and raw samples that are not those of the numbers, are left out and said; never guessed."""
    made_run.write(
        store,
        (made_run.result("good"), made_run.BLOCKS),
        (made_run.result("bad", "invalid"), made_run.BLOCKS),
        (made_run.result("lost"), made_run.BLOCKS[:1]),
        (made_run.result("wrong"), (made_run.block([made_run.request(n, 33) for n in range(5)]),)),
        (made_run.result("more"), (*made_run.BLOCKS, *WARM)),
        (made_run.result("none", metrics=()), made_run.BLOCKS),
    )
    said: list[str] = []
    (bench,) = json.loads(export(store, "pytest-benchmark", said=said))["benchmarks"]
    assert bench["group"] == "good"
    assert [sentence.partition("::test_")[2].partition("[")[0] for sentence in said] == [
        "bad",
        "lost",
        "wrong",
        "more",
        "none",
    ]
    assert "it is invalid" in said[0]
    assert "raw samples are not all there" in said[1]


def test_nothing_for_pytest_benchmark_is_no_success(store: sa.Engine) -> None:
    """A run without trusted times is refused in a sentence."""
    made_run.write(store, (made_run.result(outcome="error"), made_run.BLOCKS))
    with pytest.raises(UserError, match=f"run {made_run.RUN} has no end-to-end times that can be trusted"):
        export(store, "pytest-benchmark")


def test_the_real_pytest_benchmark_reads_it(store: sa.Engine, db: str, tmp_path: Path) -> None:
    """``pytest-benchmark compare`` shows two exported runs beside each other, with our numbers."""
    pytest.importorskip("pytest_benchmark")
    made_run.write(store, (made_run.result(), made_run.BLOCKS))
    for name in ("0001_a.json", "0002_b.json"):
        assert (
            kitt("export", "last", "--format", "pytest-benchmark", "-o", str(tmp_path / name), "--db", db).returncode
            == 0
        )
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "--csv=found.csv", "--columns=min,mean,rounds"]
    done = subprocess.run(
        [*command, "0001_a.json", "0002_b.json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "benchmark 'latency': 2 tests" in done.stdout
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rounds"] for row in rows] == ["5", "5"]
    assert [float(row[name]) for row in rows for name in ("min", "mean")] == pytest.approx([0.02, 0.228] * 2)


def test_the_command_writes_to_the_standard_output_or_a_file(store: sa.Engine, db: str, tmp_path: Path) -> None:
    """Both hold the same bytes; JSON is the default."""
    made_run.write(store, (made_run.result(), made_run.BLOCKS))
    out, path = kitt("export", made_run.RUN[:10], "--samples", "--db", db), tmp_path / "new" / "run.json"
    assert (out.returncode, out.stderr) == (0, b"")
    assert kitt("export", "last", "--samples", "-o", str(path), "--db", db).returncode == 0
    assert path.read_bytes() == out.stdout == export(store, "json", samples=True)
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    "args, sentence",
    [
        (("nothere",), "there is no run 'nothere'"),
        (("last", "--format", "jsn"), "--format: 'jsn' is unknown; did you mean 'json'?"),
        (("last", "--format", "csv", "--samples"), "--samples: csv has no room for raw samples"),
        (("last", "-o", "{file}/x/run.json"), "--output: {file}/x/run.json cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    store: sa.Engine, db: str, tmp_path: Path, args: tuple[str, ...], sentence: str
) -> None:
    """Exit code 4, no traceback, and no file."""
    made_run.write(store, (made_run.result(), made_run.BLOCKS))
    file = tmp_path / "file"
    file.touch()
    done = kitt("export", *(arg.format(file=file) for arg in args), "--db", db)
    assert done.returncode == 4
    assert sentence.format(file=file) in done.stderr.decode()
    assert len(done.stderr.decode().splitlines()) == 1
    assert done.stdout == b""


@pytest.mark.parametrize("samples", [True, False])
def test_an_imported_run_is_exported_as_it_came(store: sa.Engine, tmp_path: Path, samples: bool) -> None:
    """Export, import into another store, export: the same bytes, whatever a run consists of."""
    version = dataclasses.replace(made_run.CELL, engine_version="", overrides={})
    made_run.write(
        store,
        (made_run.result(outcome="failed"), made_run.BLOCKS),
        (made_run.result(attempt=2), (*made_run.BLOCKS, made_run.QUESTIONS)),
        (made_run.result("plain", cell=None, metrics=(), params={"b": [1, None], "a": "é"}), ()),
        (made_run.result("old", key="", cell=version), ()),
        suite="",
    )
    text = export(store, "json", samples=samples)
    (tmp_path / "run.json").write_bytes(text)
    other = str(tmp_path / "other.db")
    done = kitt("import", str(tmp_path / "run.json"), "--db", other)
    assert (done.returncode, done.stderr) == (0, b"")
    with opened(other) as engine:
        assert export(engine, "json", samples=samples) == text
        assert export(engine, "csv") == export(store, "csv")
        with engine.connect() as connection:
            assert [run["status"] for run in reader.list_runs(connection)] == ["passed"]
    again = kitt("import", str(tmp_path / "run.json"), "--db", other)
    assert again.returncode == 4
    assert f"run {made_run.RUN} is in this store already" in again.stderr.decode()


def two_sets(store: sa.Engine) -> None:
    """A run of ten questions asked at two levels: eight are right at one, and six of these at the other."""
    results = []
    for level, right in (("c1", 8), ("c8", 6)):
        rows = [
            {"id": str(n), "task": "t", "question": f"{n}?", "answer": "y", "response": said, "correct": said == "y"}
            for n, said in enumerate("y" * right + "n" * (10 - right))
        ]
        block = Block("jsonl", 10, b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        nodeid = f"quality/test_it.py::test_same[e-m-{level}]"
        key = f"{level.encode().hex():0<12}"
        results.append((made_run.result("same", nodeid=nodeid, key=key, category="quality", metrics=()), (block,)))
    made_run.write(store, *results)


@pytest.mark.parametrize("samples", [True, False])
def test_agreement_leaves_the_store_in_every_form_that_has_room(
    store: sa.Engine, tmp_path: Path, samples: bool
) -> None:
    """Known flips, in JSON, Markdown, HTML and on the command line; also where the answers stayed behind."""
    two_sets(store)
    text = export(store, "json", samples=samples)
    document = json.loads(text)
    schema = json.loads((shipped.SCHEMAS / "run.schema.json").read_bytes())
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    (matrix,) = document["agreements"]
    assert [(one["name"], one["questions"], one["right"]) for one in matrix["sets"]] == [
        ("e-m c1", 10, 8),
        ("e-m c8", 10, 6),
    ]
    (pair,) = matrix["pairs"]
    known = {"first": 0, "second": 1, "n": 10, "same": 8, "agreement": 0.8, "lost": 2, "gained": 0, "p_value": 0.5}
    assert pair.items() >= known.items()
    assert pair["difference"] == pytest.approx(-0.2)
    (tmp_path / "run.json").write_bytes(text)
    other = str(tmp_path / "other.db")
    assert kitt("import", str(tmp_path / "run.json"), "--db", other).returncode == 0
    shown = kitt("show", "last", "--db", other).stdout.decode()
    row = "2 e-m c8 60.0 % 10 2 0 0.5 -20.0 % [-43.3 to +10.0 %] 80.00 % 100 %"
    assert row in [" ".join(line.split()) for line in shown.splitlines()]
    with opened(other) as engine:
        assert export(engine, "json", samples=samples) == text
        for name in ("md", "html"):
            page = export(engine, name).decode()
            assert "Do the answers agree?" in page
            assert "-20.0 % [-43.3 to +10.0 %]" in page
    assert json.loads(kitt("show", "last", "--json", "--db", other).stdout)["agreements"] == [matrix]


@pytest.mark.parametrize("change", [{"second": 2}, {"first": 1}, {"p_value": None}, {"ci_low": None}])
def test_agreements_that_lack_something_are_refused(store: sa.Engine, tmp_path: Path, change: dict[str, Any]) -> None:
    """A table of them could not be drawn."""
    two_sets(store)
    document = json.loads(export(store, "json"))
    document["agreements"][0]["pairs"][0].update(change)
    (tmp_path / "run.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="agreements do not have each two sets of answers once"):
        imported.read(tmp_path / "run.json")


def test_postgresql_says_the_same(store: sa.Engine, tmp_path: Path) -> None:
    """A run in PostgreSQL is exported as the same bytes, block by block, and can be imported there."""
    made_run.write(store, (made_run.result(), made_run.BLOCKS), (TWO_LOADS, (*made_run.BLOCKS, *WARM)))
    text = export(store, "json", samples=True)
    (tmp_path / "run.json").write_bytes(text)
    (tmp_path / "pg").mkdir()
    with postgres() as url, opened(url) as engine:
        imported.store(engine, imported.read(tmp_path / "run.json"))
        assert export(engine, "json", samples=True) == text
        assert export(engine, "pytest-benchmark") == export(store, "pytest-benchmark")


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"schema": 2}, "schema: expected 1, found 2"),
        ({"more": 1}, "more: nobody knows this key"),
        ({"cells": []}, "a result names a cell that the document does not have"),
        ({"samples": [{"result": 9, "seq": 0, "codec": "x", "n": 1, "base64": ""}]}, "raw samples name a result"),
        ({"samples": [{"result": 0, "seq": 0, "codec": "x", "n": 1, "base64": "?"}]}, "raw samples are no base64"),
        ({"events": [{"at": "now", "kind": "x", "payload": {}}]}, "events.0.at: expected a text of the form"),
        ({"status": "running"}, f"run {made_run.RUN} was still running"),
        ({"value": "12"}, "results.0.metrics.0.value: expected a number, found '12'"),
        ({"id": "../x"}, "run.id: expected a text of the form"),
    ],
)
def test_a_document_that_is_not_whole_is_refused(
    store: sa.Engine, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    """One sentence says what and where; nothing of it gets into the store."""
    made_run.write(store, (made_run.result(), made_run.BLOCKS))
    document = json.loads(export(store, "json"))
    homes = {"status": document["run"], "id": document["run"], "value": document["results"][0]["metrics"][0]}
    for name, value in change.items():
        homes.get(name, document)[name] = value
    (tmp_path / "run.json").write_text(json.dumps(document))
    with pytest.raises(UserError) as refused:
        imported.read(tmp_path / "run.json")
    assert sentence in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_an_import_that_fails_leaves_nothing(store: sa.Engine, tmp_path: Path) -> None:
    """A document that the tables refuse half-way is not stored at all."""
    made_run.write(store, (made_run.result(), made_run.BLOCKS))
    document = json.loads(export(store, "json"))
    document["results"][0]["metrics"].append(document["results"][0]["metrics"][0])
    (tmp_path / "run.json").write_text(json.dumps(document))
    with opened(str(tmp_path / "other.db")) as engine:
        with pytest.raises(UserError, match=f"run {made_run.RUN} cannot be stored: UNIQUE"):
            imported.store(engine, imported.read(tmp_path / "run.json"))
        with engine.connect() as connection:
            assert reader.list_runs(connection) == []
