"""Is what was measured kept, found again, and never lost? SQLite always, PostgreSQL where it is installed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from pytest_kitt.errors import UserError
from pytest_kitt.measure.results import Block, CellFacts, Measurement, Result, Run
from pytest_kitt.store import reader, schema
from pytest_kitt.store.database import opened
from pytest_kitt.store.writer import StoreWriter

CELL = CellFacts("abcdef012345", "e-m", "e", "1.2", "process", {"name": "m"}, "chat", {"a": "1"}, ("x",), False, False)


def run_record(number: int = 1, *, synthetic: bool = False) -> Run:
    """A run that began at second ``number``."""
    at = f"2026-01-01T00:00:{number:02}.000Z"
    return Run(
        f"20260101-0000{number:02}-aaaaaa", at, "quick", ("pytest",), "0.1.0", synthetic, False, {"key": "f" * 12}
    )


def result_record(value: float = 31.25, *, blocks: int = 2) -> Result:
    """A result with one metric and some samples."""
    metric = Measurement("ttft_ms", "p99", value, "ms", "lower", 480, 30.0, 32.0, "bootstrap")
    samples = tuple(Block("jsonl", 1, bytes([n]) * 10) for n in range(blocks))
    params = {"concurrency": 8}
    at = "2026-01-01T00:00:01.000Z"
    return Result("t.py::t", CELL, "latency", "1", "performance", "passed", "", params, (metric,), samples, at, 1.5)


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL cluster of the test's own on a free port; skips where it is not installed."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    pytest.importorskip("psycopg")
    if not binaries:
        pytest.skip("PostgreSQL is not installed")
    data, bin_ = folder / "data", binaries[-1].parent
    as_user: list[str] = []
    if os.getuid() == 0:
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no runuser")
        folder.chmod(0o777)
        for parent in folder.parents:
            if parent.stat().st_uid == os.getuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
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
    with postgres(folder) as url:
        yield url


def test_what_is_written_is_read(db: str) -> None:
    """A run, its cells, results, metrics and samples come back as they went in."""
    with opened(db) as engine:
        writer = StoreWriter(engine)
        writer.start_run(run_record())
        first = writer.add_result(run_record().id, result_record())
        writer.add_result(run_record().id, result_record(40.5))
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
    assert blocks == list(result_record().samples)
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
        writer.add_result(run_record().id, result_record())
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
    """NaN never enters the store, and nothing of its result does."""
    with opened(str(tmp_path / "kitt.db")) as engine:
        writer = StoreWriter(engine)
        writer.start_run(run_record())
        with pytest.raises(ValueError, match=r"ttft_ms\.p99"):
            writer.add_result(run_record().id, result_record(value))
        with engine.connect() as connection:
            assert reader.show_run(connection, "last")["results"] == []


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
from test_store import opened, StoreWriter, run_record, result_record
with opened(sys.argv[1]) as engine:
    writer = StoreWriter(engine)
    writer.start_run(run_record())
    for n in range(10_000):
        writer.add_result(run_record().id, result_record(float(n)))
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
