"""Which store does a command mean? The one that pytest would use, unless ``--db`` names another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_kitt.errors import UserError

if TYPE_CHECKING:
    import sqlalchemy as sa


def meant(db: str) -> str:
    """What ``--db`` says, else what config.yaml says; empty for the default."""
    from pytest_kitt.settings import read_config_file

    return db or str(read_config_file().get("db", ""))


@contextlib.contextmanager
def engine(db: str, *, create: bool = False) -> Iterator[sa.Engine]:
    """The store; its sentences name this command's flag instead of pytest's."""
    from pytest_kitt.store.database import opened

    try:
        with opened(meant(db), create=create) as found:
            yield found
    except UserError as error:
        raise UserError(str(error).replace("--kitt-db", "--db")) from error


@contextlib.contextmanager
def connection(db: str) -> Iterator[sa.Connection]:
    """A connection to a store that is there."""
    with engine(db) as found, found.connect() as connected:
        yield connected
