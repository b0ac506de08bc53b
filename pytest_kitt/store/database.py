"""Where is the store, and is it one of ours? Opened, created or brought up to date; a mistake is one sentence."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from pytest_kitt.errors import UserError
from pytest_kitt.settings import home
from pytest_kitt.store import schema

_BUSY_TIMEOUT_S = 10
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
    with engine.begin() as connection:
        schema.metadata.create_all(connection)
        connection.execute(schema.version.delete())
        connection.execute(schema.version.insert().values(version_num=schema.HEAD))


def _shown(url: sa.URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.render_as_string(hide_password=True)
