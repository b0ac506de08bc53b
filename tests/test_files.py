"""Do the files of a run say what its store says, whole, in their place, and whatever the names are?"""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import sqlalchemy as sa

from pytest_kitt import shipped
from pytest_kitt.errors import UserError
from pytest_kitt.measure.results import Block, Outcome
from pytest_kitt.report import document, files, html, junit_xml, outputs
from pytest_kitt.report.atomic import replaced
from pytest_kitt.settings import Settings, masked_words
from pytest_kitt.store.database import opened
from tests import made_run

HOSTILE = "a/../../b.py::test_x[../../etc/\x1b[31m\x01<&\"'>]]>|=cmd()]"


@pytest.fixture(autouse=True)
def browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report for a browser has tests of its own."""
    monkeypatch.setattr(html, "render", lambda found, _: found["run"]["id"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty store."""
    with opened(str(tmp_path / "kitt.db")) as engine:
        yield engine


def write(store: sa.Engine, folder: Path, run_id: str = made_run.RUN) -> None:
    """Writes the files of a run."""
    with store.connect() as connection:
        assert files.write(folder, connection, run_id, Settings(inconclusive="xfail"))


def valid(document: Any, name: str) -> Any:
    """A document that is what its schema says."""
    schema = json.loads((shipped.SCHEMAS / f"{name}.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    return document


def read(folder: Path, name: str) -> Any:
    """A JSON file of a folder, checked."""
    return valid(json.loads((folder / f"{name}.json").read_bytes()), name)


def test_the_files_hold_the_known_numbers(store: sa.Engine, tmp_path: Path) -> None:
    """Numbers, machine, settings and cells are those that were stored, null where something is unknown."""
    made_run.write(store, (made_run.result(), made_run.BLOCKS))
    write(store, tmp_path / "out")
    found = read(tmp_path / "out", "metrics")
    assert found["run"]["id"] == made_run.RUN
    (result,) = found["results"]
    values = {(m["name"], m["stat"]): (m["value"], m["n"]) for m in result["metrics"]}
    assert values["e2e_ms", "mean"] == (228.0, 5)
    assert values["e2e_ms", "max"] == (1000.0, 5)
    assert values["accuracy", "value"] == (0.78125, 32)
    assert result["reason"] is None
    assert result["cell"]["model"] == made_run.MODEL
    assert result["outputs"] == "outputs/0001-latency-e-m-c8.jsonl.gz"
    assert read(tmp_path / "out", "hardware")["machine"] == made_run.MACHINE
    config = read(tmp_path / "out", "config")
    assert config["reproduce"] == "pytest --kitt-suite=quick"
    assert config["settings"]["inconclusive"] == {"value": "xfail", "origin": "default"}
    assert config["cells"] == [result["cell"]]
    assert (tmp_path / "out" / "report.html").read_text() == made_run.RUN
    assert "228" not in (tmp_path / "out" / "summary.md").read_text()  # a mean is none of its columns
    assert "78" in (tmp_path / "out" / "summary.md").read_text()


def test_each_request_and_question_is_a_line(store: sa.Engine, tmp_path: Path) -> None:
    """Raw samples come out with names for their numbers; a failed request says why; questions are as they were."""
    made_run.write(store, (made_run.result(), (*made_run.BLOCKS, made_run.QUESTIONS)))
    write(store, tmp_path)
    with gzip.open(tmp_path / read(tmp_path, "metrics")["results"][0]["outputs"]) as lines:
        rows = [valid(json.loads(line), "output-line") for line in lines]
    assert len(rows) == 8
    assert (rows[0]["phase"], rows[1]["phase"], rows[6]["failure"]) == ("warmup", "measured", "reset")
    assert [row["block"] for row in rows[:7]] == [0, 0, 0, 0, 1, 1, 1]
    assert [row["event_ns"][-1] // made_run.MS for row in rows[1:6]] == list(made_run.TIMES_MS)
    assert (rows[6]["osl"], rows[6]["event_ns"], rows[6]["prefill_ns"]) == (None, [], None)
    assert (rows[1]["counted_by"], rows[1]["status"], rows[1]["failure"]) == ("usage", 200, None)
    assert rows[7] == made_run.QUESTION


def test_a_block_that_cannot_be_read_is_kept_as_it_is() -> None:
    """Broken and unknown blocks hide nothing and stop nothing."""
    blocks = [
        Block("jsonl", 1, b"{"),
        Block("kitt-columns-1", 1, b"\1\0"),
        Block("other-1", 3, b"\0"),
        Block("jsonl", 1, b"{}"),
    ]
    rows = [json.loads(line) for line in b"".join(outputs.lines(blocks)).splitlines()]
    assert [row.get("base64") for row in rows] == ["ew==", "AQA=", "AA==", None]
    for row in rows[:3]:
        valid(row, "output-line")


def test_the_schemas_refuse_what_is_not_theirs(store: sa.Engine, tmp_path: Path) -> None:
    """A further key, a missing one, a number as text: each is refused, so that a passing check means something."""
    made_run.write(store, (made_run.result(), made_run.BLOCKS))
    write(store, tmp_path)
    for name in ("metrics", "hardware", "config"):
        document = read(tmp_path, name)
        for wrong in (
            {**document, "more": 1},
            {**document, "schema": 2},
            {k: v for k, v in document.items() if k != "run"},
        ):
            with pytest.raises(jsonschema.ValidationError):
                valid(wrong, name)
    document = read(tmp_path, "metrics")
    document["results"][0]["metrics"][0]["value"] = "12"
    with pytest.raises(jsonschema.ValidationError):
        valid(document, "metrics")
    with pytest.raises(jsonschema.ValidationError):
        valid({"index": 1}, "output-line")


def test_hostile_names_stay_inside_the_folder(store: sa.Engine, tmp_path: Path) -> None:
    """Whatever an id holds: its file lies in outputs/, has a name of its own, and JUnit is well-formed."""
    long = "x" * 3000
    ids = (HOSTILE, HOSTILE, "..", f"t.py::test[{long}]", "t.py::test[\u202e\U0001f600]")
    results = [
        made_run.result(f"../{n}", nodeid=nodeid, reason=HOSTILE, outcome="failed") for n, nodeid in enumerate(ids)
    ]
    made_run.write(store, *((each, made_run.BLOCKS) for each in results))
    write(store, tmp_path / "a" / "out")
    written = sorted(path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*.gz"))
    assert len(written) == len(ids)
    assert [Path(name).parent.as_posix() for name in written] == ["out/outputs"] * len(ids)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("kitt.db")) == ["a"]
    found = read(tmp_path / "a" / "out", "metrics")["results"]
    assert [f"out/{each['outputs']}" for each in found] == written
    assert [each["nodeid"] for each in found] == list(ids)
    cases = list(ElementTree.parse(tmp_path / "a" / "out" / "junit.xml").iter("testcase"))
    assert [case.get("name") for case in cases][1] == "test_x[../../etc/#x1B[31m#x01<&\"'>]]>|=cmd()]"


def test_what_json_and_utf8_cannot_hold_is_replaced(store: sa.Engine, tmp_path: Path) -> None:
    """Half a character from a server's JSON, an endless number and one too long leave every file readable."""
    cell = dataclasses.replace(made_run.CELL, model={**made_run.MODEL, "name": "m\ud800"})
    params = {"endless": float("inf"), "none": float("nan"), "long": 1 << 70}
    made_run.write(store, (made_run.result(cell=cell, params=params), made_run.BLOCKS))
    write(store, tmp_path)
    (result,) = read(tmp_path, "metrics")["results"]
    assert result["cell"]["model"]["name"] == "m?"
    assert result["params"] == {"endless": None, "none": None, "long": str(1 << 70)}
    assert b"NaN" not in (tmp_path / "metrics.json").read_bytes()


def test_junit_has_the_elements_that_pytest_has(store: sa.Engine) -> None:
    """A failure, two errors, two skips; an invalid result has no numbers that could be charted."""
    outcomes: tuple[Outcome, ...] = ("passed", "failed", "error", "invalid", "inconclusive", "skipped")
    made_run.write(store, *((made_run.result(each, each), ()) for each in outcomes))
    with store.connect() as connection:
        found = document.read(connection, made_run.RUN)
    suite = ElementTree.fromstring(junit_xml.render(found)).find("testsuite")
    assert suite is not None
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "1", "errors": "2", "skipped": "2"}
    elements = [
        [(each.tag, each.get("type")) for each in case if each.tag != "properties"] for case in suite.iter("testcase")
    ]
    assert elements == [
        [],
        [("failure", None)],
        [("error", None)],
        [("error", None)],
        [("skipped", "pytest.xfail")],
        [("skipped", "pytest.skip")],
    ]
    numbers = [{p.get("name"): p.get("value") for p in case.iter("property")} for case in suite.iter("testcase")]
    assert numbers[1]["kitt.e2e_ms.mean"] == "228"
    assert numbers[1]["kitt.certified"] == "true"
    assert "kitt.e2e_ms.mean" not in numbers[3]
    assert numbers[3]["kitt.model"] == "m-7B"
    failed = ElementTree.fromstring(junit_xml.render(found, inconclusive="fail")).find("testsuite")
    assert failed is not None
    assert failed.get("failures") == "2"


def test_names_are_split_as_pytest_splits_them() -> None:
    """Class and name of a case are those of pytest's own file, brackets and colons in parameters left alone."""
    assert junit_xml.address("a/b.py::T::test_y[x::/y.py]") == ("a.b.T", "test_y[x::/y.py]")
    assert junit_xml.address("b.py::test_y") == ("b", "test_y")


def test_no_secret_leaves_in_a_file(store: sa.Engine, tmp_path: Path) -> None:
    """Keys and passwords are masked wherever a command line or an argument is written."""
    secret = "sk-123"
    cell = dataclasses.replace(
        made_run.CELL, argv=("e", "--api-key", secret, f"--hf-token={secret}"), overrides={"api-key": secret, "n": "1"}
    )
    argv = ("pytest", f"--kitt-engine-arg=--api-key={secret}=", f"--kitt-url=http://u:{secret}@h/?token={secret}")
    made_run.write(store, (made_run.result(cell=cell), made_run.BLOCKS), argv=argv)
    with store.connect() as connection:
        settings = Settings(
            header=(("X-Key", secret),), engine_arg=(("api_key", secret),), db=f"postgresql://u:{secret}@h/d"
        )
        files.write(tmp_path / "out", connection, made_run.RUN, settings)
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert secret.encode() not in content, path.name
    config = read(tmp_path / "out", "config")
    assert config["cells"][0]["argv"] == ["e", "--api-key", "***", "--hf-token=***"]
    assert config["cells"][0]["overrides"] == {"api-key": "***", "n": "1"}
    assert config["settings"]["header"]["value"] == ["***"]


def test_what_is_no_secret_is_left_alone() -> None:
    """Limits in tokens and files of keys are no secrets."""
    words = ["--max-tokens=5", "--kitt-api-key-file=k.txt", "--tokens", "64", "token", "x", "http://h/v1?n=1"]
    assert masked_words(words) == words


def test_a_folder_of_an_earlier_run_is_ours_to_replace(store: sa.Engine, tmp_path: Path) -> None:
    """What an earlier run left goes, so that no two runs mix; what others put beside it stays."""
    second = "20260131-130000-000000"
    made_run.write(store, (made_run.result(), made_run.BLOCKS), (made_run.result("more"), made_run.BLOCKS))
    made_run.write(store, (made_run.result("other"), made_run.BLOCKS), run_id=second)
    write(store, tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    files.require_usable(tmp_path / "out", "--kitt-output")
    write(store, tmp_path / "out", second)
    assert read(tmp_path / "out", "metrics")["run"]["id"] == second
    assert [path.name for path in (tmp_path / "out" / "outputs").iterdir()] == ["0001-other-e-m-c8.jsonl.gz"]
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["metrics.json", "outputs", "config.json"])
def test_files_of_others_are_never_replaced(tmp_path: Path, name: str) -> None:
    """A folder that holds a file of one of our names, but not from us, is refused in one sentence."""
    (tmp_path / name).write_text("{}")
    with pytest.raises(
        UserError, match=rf"--kitt-output: .* holds {name}, which pytest-kitt did not write; name another"
    ):
        files.require_usable(tmp_path, "--kitt-output")


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    """A file is no folder, nor is what would lie in it; a folder still to be made is one."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(UserError, match="is no folder that can be written to"):
            files.require_usable(place, "--kitt-output")
    files.require_usable(tmp_path / "a" / "b", "--kitt-output")
    assert not (tmp_path / "a").exists()


def test_the_run_stands_in_for_its_placeholder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``{run}`` is the run's id, any number of times; a folder without it is taken as it is, from where we are."""
    monkeypatch.chdir(tmp_path)
    assert files.place("a/{run}/{run}", "r1") == tmp_path / "a/r1/r1"
    assert files.place("{x}", "r1") == tmp_path / "{x}"


def test_only_the_last_attempt_counts(store: sa.Engine, tmp_path: Path) -> None:
    """What was tried again is one result in the files: the last."""
    first, last = made_run.result(outcome="failed"), made_run.result(attempt=2)
    made_run.write(store, (first, made_run.BLOCKS), (last, made_run.BLOCKS))
    write(store, tmp_path)
    (result,) = read(tmp_path, "metrics")["results"]
    assert (result["outcome"], result["attempt"]) == ("passed", 2)
    assert len(list((tmp_path / "outputs").iterdir())) == 1


def test_raw_samples_give_way_when_time_is_short(store: sa.Engine, tmp_path: Path) -> None:
    """When a signal hurries, no half file of samples is left; everything else is there and says so."""
    made_run.write(store, (made_run.result(), made_run.BLOCKS))
    with store.connect() as connection:
        assert not files.write(tmp_path / "out", connection, made_run.RUN, Settings(), hurried=lambda: True)
    assert read(tmp_path / "out", "metrics")["results"][0]["outputs"] is None
    assert list((tmp_path / "out" / "outputs").iterdir()) == []
    assert (tmp_path / "out" / "junit.xml").is_file()


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    """An error while writing leaves what was there, and nothing beside it; a link leads to the file it means."""
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(TypeError), replaced(path) as file:
        file.writelines([b"half", "no bytes"])  # type: ignore[list-item]  # the error under test
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"
    link = tmp_path / "link"
    link.symlink_to(path)
    with replaced(link) as file:
        file.write(b"after")
    assert (path.read_text(), link.is_symlink()) == ("after", True)
