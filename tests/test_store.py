"""Is what was measured kept, found again, and never lost? SQLite always, PostgreSQL where it is installed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from pytest_kitt.errors import UserError
from pytest_kitt.measure.results import Block, CellFacts, Measurement, Outcome, Result, Run
from pytest_kitt.store import reader, schema
from pytest_kitt.store.database import opened, read_only
from pytest_kitt.store.writer import StoreWriter

CELL = CellFacts("abcdef012345", "e-m", "e", "1.2", "process", {"name": "m"}, "chat", {"a": "1"}, ("x",), False, False)


def run_record(number: int = 1, *, synthetic: bool = False) -> Run:
    """A run that began at second ``number``."""
    at = f"2026-01-01T00:00:{number:02}.000Z"
    return Run(
        f"20260101-0000{number:02}-aaaaaa", at, "quick", ("pytest",), "0.1.0", synthetic, False, {"key": "f" * 12}
    )


BLOCKS = tuple(Block("jsonl", 1, bytes([n]) * 10) for n in range(2))


def result_record(value: float = 31.25, *, key: str = "", outcome: Outcome = "passed", attempt: int = 1) -> Result:
    """A result with one metric."""
    metric = Measurement("ttft_ms", "p99", value, "ms", "lower", 480, 30.0, 32.0, "bootstrap")
    at = "2026-01-01T00:00:01.000Z"
    facts = ("latency", "1", "performance", outcome, "", {"concurrency": 8}, (metric,), at, 1.5, attempt)
    return Result("t.py::t", key, CELL, *facts)


def add(writer: StoreWriter, result: Result) -> int:
    """Writes a result with two blocks, as they come in a session; its id."""
    result_id = writer.start_result(run_record().id, dataclasses.replace(result, outcome="error", metrics=()))
    for seq, block in enumerate(BLOCKS):
        writer.add_samples(result_id, seq, block)
    return writer.finish_result(run_record().id, result, result_id)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL cluster of the test's own on a free port; skips where it is not installed.

    It lies beside pytest's own folders: another user has to reach it, and sessions that begin meanwhile close those.
    """
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    pytest.importorskip("psycopg")
    if not binaries:
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory(prefix="kitt-postgres-") as folder:
        yield from _cluster(Path(folder), binaries[-1].parent)


def _cluster(folder: Path, bin_: Path) -> Iterator[str]:
    data = folder / "data"
    as_user: list[str] = []
    if os.getuid() == 0:
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no runuser")
        folder.chmod(0o777)
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    make = [*as_user, str(bin_ / "initdb"), "-D", str(data), "-U", "kitt", "-A", "trust", "--no-sync"]
    subprocess.run(make, check=True, capture_output=True, cwd=folder)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -F"
    control = [*as_user, str(bin_ / "pg_ctl"), "-D", str(data), "-w", "-l", str(data / "log")]
    subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        yield f"postgresql://kitt@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd=folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store of each kind."""
    folder = tmp_path_factory.mktemp("db")
    if request.param == "sqlite":
        yield str(folder / "kitt.db")
        return
    with postgres() as url:
        yield url


def test_what_is_written_is_read(db: str) -> None:
    """A run, its cells, results, metrics and samples come back as they went in."""
    with opened(db) as engine:
        writer = StoreWriter(engine)
        writer.start_run(run_record())
        first = add(writer, result_record())
        add(writer, result_record(40.5))
        writer.add_event(run_record().id, "restart", {"cell": "x"})
        with engine.connect() as connection:
            assert reader.list_runs(connection)[0]["status"] == "running"
        writer.finish_run(run_record().id, "passed", 0)
    with opened(db) as engine, engine.connect() as connection:
        (listed,) = reader.list_runs(connection)
        shown = reader.show_run(connection, "last")
        blocks = list(reader.read_samples(connection, first))
    assert (listed["status"], listed["results"], listed["engines"]) == ("passed", {"passed": 2}, ["e"])
    assert [r["metrics"][0]["value"] for r in shown["results"]] == [31.25, 40.5]
    assert shown["results"][0]["cell"]["key"] == CELL.key
    assert shown["results"][0]["cell"]["id"] == "e-m"
    assert shown["results"][0]["samples"][1] == {"seq": 1, "codec": "jsonl", "n": 1, "bytes": 10}
    assert blocks == list(BLOCKS)
    json.dumps(shown, allow_nan=False)


def test_runs_are_listed_newest_first_synthetic_ones_on_demand(db: str) -> None:
    """Synthetic runs do not mix with real ones unless asked for."""
    with opened(db) as engine:
        writer = StoreWriter(engine)
        for number, synthetic in ((1, False), (2, True), (3, False)):
            writer.start_run(run_record(number, synthetic=synthetic))
        with engine.connect() as connection:
            plain = [r["id"] for r in reader.list_runs(connection)]
            everything = [r["id"] for r in reader.list_runs(connection, synthetic=True)]
    assert plain == [run_record(3).id, run_record(1).id]
    assert everything == [run_record(n).id for n in (3, 2, 1)]


def test_deleting_a_run_deletes_all_that_hangs_on_it(db: str) -> None:
    """No orphan rows stay."""
    with opened(db) as engine:
        writer = StoreWriter(engine)
        writer.start_run(run_record())
        add(writer, result_record())
        writer.add_event(run_record().id, "x", {})
        with engine.begin() as connection:
            assert reader.delete_run(connection, "last") == run_record().id
        with engine.connect() as connection:
            for table in (schema.runs, schema.cells, schema.results, schema.metrics, schema.samples, schema.events):
                assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0


def test_migrations_and_models_agree(db: str) -> None:
    """An upgraded empty database has the schema that a new store has."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from pytest_kitt.store import migrations
    from pytest_kitt.store.database import location

    engine = sa.create_engine(location(db))
    migrations.upgrade(engine, None, "x")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, schema.metadata)
        version = connection.execute(sa.select(schema.version.c.version_num)).scalar()
    engine.dispose()
    assert version == schema.HEAD
    assert [d for d in found if "alembic_version" not in str(d)] == []


def test_sessions_that_begin_at_once_share_the_facts_of_their_machine(db: str) -> None:
    """None of them looks first whether another has written them."""
    begin = threading.Barrier(6)
    with opened(db) as engine:

        def session(number: int) -> None:
            begin.wait(timeout=60)
            StoreWriter(engine).start_run(run_record(number))

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(session, range(6)))
        with engine.connect() as connection:
            assert len(reader.list_runs(connection, synthetic=True)) == 6
            assert connection.execute(sa.select(sa.func.count()).select_from(schema.fingerprints)).scalar() == 1


def test_a_reference_must_be_clear(tmp_path: Path) -> None:
    """Unknown and ambiguous references are sentences that list what there is."""
    with opened(str(tmp_path / "kitt.db")) as engine:
        with engine.connect() as connection, pytest.raises(UserError, match="holds no run yet"):
            reader.find_run(connection, "last")
        for number in (1, 2):
            StoreWriter(engine).start_run(run_record(number))
        with engine.connect() as connection:
            assert reader.find_run(connection, "20260101-000002") == run_record(2).id
            with pytest.raises(UserError, match="not clear"):
                reader.find_run(connection, "2026")
            with pytest.raises(UserError, match="there is no run 'x'; the latest are: 20260101-000002"):
                reader.find_run(connection, "x")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_refused(tmp_path: Path, value: float) -> None:
    """NaN never enters the store: the item stays one that has not ended."""
    with opened(str(tmp_path / "kitt.db")) as engine:
        writer = StoreWriter(engine)
        writer.start_run(run_record())
        with pytest.raises(ValueError, match=r"ttft_ms\.p99"):
            add(writer, result_record(value))
        with engine.connect() as connection:
            (found,) = reader.show_run(connection, "last")["results"]
    assert (found["outcome"], found["metrics"]) == ("error", [])


OPEN = """
import sys
from pytest_kitt.store.database import opened
sys.stdin.readline()
with opened(sys.argv[1]):
    pass
"""


def test_several_make_the_same_store_at_once(tmp_path: Path) -> None:
    """Sessions that start together on a machine where there is no store yet."""
    for turn in range(5):
        command = [sys.executable, "-c", OPEN, str(tmp_path / f"{turn}.db")]
        several = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
        time.sleep(0.5)
        for process in several:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        errors = [process.communicate(timeout=60)[1].decode() for process in several]
        assert [process.returncode for process in several] == [0] * 4, errors


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A file that is no store, and a store from the future, are named with the next step and left as they are."""
    text = tmp_path / "notes.txt"
    text.write_text("no database " * 100)
    with pytest.raises(UserError, match=r"notes\.txt"), opened(str(text)):
        pass
    assert text.read_text().startswith("no database")
    future = tmp_path / "future.db"
    with opened(str(future)) as engine, engine.begin() as connection:
        connection.execute(schema.version.update().values(version_num="9999"))
    with pytest.raises(UserError, match="newer pytest-kitt"), opened(str(future)):
        pass


def test_what_a_benchmark_cost_before(db: str) -> None:
    """Only what passed counts, newest first, with the request records of all blocks."""
    requests = tuple(Block("kitt-columns-1", n, b"x") for n in (20, 2))
    passed = result_record()
    at = "2026-01-01T00:00:{:02}.000Z".format
    with opened(db) as engine:
        writer = StoreWriter(engine)
        writer.start_run(run_record())
        for result in (
            dataclasses.replace(passed, started_at=at(1), attempt=2),
            dataclasses.replace(passed, started_at=at(3), duration_s=2.5, cell=None, params={}),
            dataclasses.replace(passed, started_at=at(4), outcome="failed"),
            dataclasses.replace(passed, started_at=at(5), version="2"),
            dataclasses.replace(passed, started_at=at(6), benchmark="other"),
        ):
            result_id = writer.finish_result(run_record().id, result)
            for seq, block in enumerate((*requests, *BLOCKS) if result.attempt == 2 else ()):
                writer.add_samples(result_id, seq, block)
        with engine.connect() as connection:
            images = reader.measured_images(connection, run_record().id)
            found = reader.passed_before(connection, "latency", "1")
            first = reader.show_run(connection, "last")["results"][0]
    assert found == [
        reader.Past("", synthetic=False, toy=False, params={}, duration_s=2.5, requests=None),
        reader.Past(CELL.key, synthetic=False, toy=False, params={"concurrency": 8}, duration_s=1.5, requests=22),
    ]
    assert first["attempt"] == 2
    assert images == ({CELL.key: [CELL.image]} if CELL.image else {})


def test_a_look_at_a_store_leaves_no_trace(tmp_path: Path) -> None:
    """Nothing is made, changed or left beside it; what another process is writing is seen."""
    path = tmp_path / "kitt.db"
    with pytest.raises(UserError, match="there is no store at"), read_only(str(path)):
        pass
    assert not list(tmp_path.iterdir())
    with opened(str(path)) as engine:
        StoreWriter(engine).start_run(run_record())
        with read_only(str(path)) as connection:
            assert len(reader.list_runs(connection)) == 1
    before = path.read_bytes()
    with read_only(str(path)) as connection:
        assert len(reader.list_runs(connection)) == 1
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            connection.execute(schema.runs.delete())
    assert [file.name for file in tmp_path.iterdir()] == ["kitt.db"]
    assert path.read_bytes() == before


def test_a_store_that_cannot_be_looked_at_is_a_sentence(tmp_path: Path) -> None:
    """It is on a server, no store, or of another version: said, and left as it is."""
    with pytest.raises(UserError, match="is on a server") as caught, read_only("postgresql://me:hush@host/x"):
        pass
    assert "hush" not in str(caught.value)
    (tmp_path / "other").write_text("not a database, " * 100)
    with pytest.raises(UserError, match="cannot be read"), read_only(str(tmp_path / "other")):
        pass
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="version none of the schema"), read_only(str(tmp_path / "empty")):
        pass
    assert (tmp_path / "empty").read_bytes() == b""


def test_bad_locations() -> None:
    """A place that cannot be had is one sentence; a password never shows."""
    with pytest.raises(UserError, match="name another place"), opened("/proc/nothing/here.db"):
        pass
    with pytest.raises(UserError) as caught, opened("postgresql://me:hush@127.0.0.1:1/x"):
        pass
    assert "hush" not in str(caught.value)
    with pytest.raises(UserError, match="no database"), opened("mongo://x/y"):
        pass


WRITE = """
import sys
sys.path.insert(0, sys.argv[2])
from test_store import add, opened, StoreWriter, run_record, result_record
with opened(sys.argv[1]) as engine:
    writer = StoreWriter(engine)
    writer.start_run(run_record())
    for n in range(10_000):
        add(writer, result_record(float(n)))
        print(n, flush=True)
"""


def test_what_was_acknowledged_survives_kill_nine(tmp_path: Path) -> None:
    """After kill -9 of the writer the store opens, holds every acknowledged result, and the run is interrupted."""
    path = str(tmp_path / "kitt.db")
    command = [sys.executable, "-c", WRITE, path, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = -1
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged >= 20:
                process.send_signal(signal.SIGKILL)
    with opened(path) as engine, engine.connect() as connection:
        shown = reader.show_run(connection, "last")
    values = {r["metrics"][0]["value"] for r in shown["results"]}
    assert values >= {float(n) for n in range(acknowledged + 1)}
    assert shown["run"]["status"] == "interrupted"
