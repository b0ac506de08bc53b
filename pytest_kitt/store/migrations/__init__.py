"""How does an older store become a current one? Alembic, set up from code; imported only when the version differs."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from pytest_kitt.errors import UserError

_FOLDER = Path(__file__).resolve().parent


def upgrade(engine: sa.Engine, found: str | None, shown: str) -> None:
    """Runs the migrations from the found version on; UserError for a version that is newer than this package."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise UserError(
            f"--kitt-db: {shown} was written by a newer pytest-kitt (version {found} of the store); "
            "upgrade pytest-kitt, or name another store"
        )
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
