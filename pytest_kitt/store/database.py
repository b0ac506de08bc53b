"""Where is the store, and is it one of ours? Opened, created or brought up to date; a mistake is one sentence."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from pytest_kitt.errors import UserError
from pytest_kitt.settings import home
from pytest_kitt.store import schema

_BUSY_TIMEOUT_S = 10
_BETWEEN_TRIES_S = 0.05
_URL = re.compile(r"^[a-z][a-z0-9+]*://")
_PRIVATE = 0o700


def location(db: str) -> sa.URL:
    """The database URL of ``--kitt-db``: a URL, a path, or nothing for ``kitt.db`` in the user's folder."""
    if not _URL.match(db):
        path = Path(db).expanduser() if db else home() / "kitt.db"
        return sa.URL.create("sqlite", database=str(path.absolute()))
    try:
        url = sa.make_url(db)
    except ArgumentError as error:
        raise UserError("--kitt-db: not a database URL; expected a path, sqlite:///PATH or postgresql://...") from error
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    return url


def exists(db: str) -> bool:
    """Whether there is a store; one on a database server is taken to exist."""
    url = location(db)
    return url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()


@contextlib.contextmanager
def opened(db: str, *, create: bool = True) -> Iterator[sa.Engine]:
    """The store, in the current version of the schema; UserError when it cannot be had.

    Without ``create`` a store that does not exist is an error too.
    """
    url = location(db)
    engine = _engine(url, create=create)
    try:
        _bring_up_to_date(engine, _shown(url))
        yield engine
    finally:
        engine.dispose()


@contextlib.contextmanager
def read_only(db: str) -> Iterator[sa.Connection]:
    """A store as it lies there: not made, not brought up to date, no file beside it. UserError when that cannot be."""
    url = location(db)
    if url.get_backend_name() != "sqlite":
        raise UserError(f"{_shown(url)} is on a server, and none is asked")
    path = Path(url.database or "")
    if not path.is_file():
        raise UserError(f"there is no store at {path} yet")
    # without a log there is no writer, and SQLite would leave an empty log behind if it were not told so
    how = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    address = f"{path.absolute().as_uri()}?{how}"
    engine = sa.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(address, uri=True, timeout=_BUSY_TIMEOUT_S), poolclass=sa.NullPool
    )
    try:
        if (found := _revision(engine)) != schema.HEAD:
            raise UserError(f"{path} has version {found or 'none'} of the schema, and {schema.HEAD} is needed")
        with engine.connect() as connection:
            yield connection
    except DatabaseError as error:
        raise UserError(f"{path} cannot be read: {error.orig}") from error
    finally:
        engine.dispose()


def _engine(url: sa.URL, *, create: bool) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return _server(url)
    path = Path(url.database or "")
    if not create and not path.is_file():
        raise UserError(f"there is no store at {path} yet; run a benchmark first, or name another with --db")
    try:
        path.parent.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--kitt-db: {path.parent} cannot be made: {error.strerror}; name another place") from error
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _server(url: sa.URL) -> sa.Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise UserError("--kitt-db: PostgreSQL needs a driver: pip install 'pytest-kitt[postgres]'") from error
    except NoSuchModuleError as error:
        raise UserError(f"--kitt-db: {url.drivername} is no database that pytest-kitt knows") from error


def _prepare_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    # some network file systems refuse WAL: SQLite then keeps its rollback journal and says so
    with contextlib.suppress(Exception):
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _bring_up_to_date(engine: sa.Engine, shown: str) -> None:
    try:
        found = _revision(engine)
        if found == schema.HEAD:
            return
        if found is None:
            _create(engine)
            return
    except OperationalError as error:
        reason = str(error.orig).splitlines()[0]
        raise UserError(f"--kitt-db: {shown} cannot be opened: {reason}; name another place with --kitt-db") from error
    except DatabaseError as error:
        raise UserError(f"--kitt-db: {shown} is no database of pytest-kitt: {error.orig}") from error
    from pytest_kitt.store import migrations

    migrations.upgrade(engine, found, shown)


def _revision(engine: sa.Engine) -> str | None:
    """The stored version; None for an empty database."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table(schema.version.name):
            return None
        return connection.execute(sa.select(schema.version.c.version_num)).scalar()


def _create(engine: sa.Engine) -> None:
    """Makes the tables; two sessions may do so at the same time, and both find them there."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            _create_tables(engine)
        except DatabaseError:
            if _revision(engine) == schema.HEAD:
                return
            if time.monotonic() > deadline:
                raise
            time.sleep(_BETWEEN_TRIES_S)
        else:
            return


def _create_tables(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        schema.metadata.create_all(connection)
        connection.execute(schema.version.delete())
        connection.execute(schema.version.insert().values(version_num=schema.HEAD))


def _shown(url: sa.URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.render_as_string(hide_password=True)
