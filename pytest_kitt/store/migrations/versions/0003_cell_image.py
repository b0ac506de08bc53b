"""Cells know the image of their container: the same engine in another image is another cell of the run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UNIQUE = "cells_run_key_version"


def upgrade() -> None:
    """Cells of before had no container."""
    with op.batch_alter_table("cells") as cells:
        cells.add_column(sa.Column("image", sa.Text, nullable=False, server_default=""))
        cells.add_column(sa.Column("image_digest", sa.Text, nullable=False, server_default=""))
        cells.drop_constraint(_UNIQUE, type_="unique")
        cells.create_unique_constraint(_UNIQUE, ["run_id", "key", "engine_version", "image_digest"])


def downgrade() -> None:
    """Drops the image."""
    with op.batch_alter_table("cells") as cells:
        cells.drop_constraint(_UNIQUE, type_="unique")
        cells.drop_column("image_digest")
        cells.drop_column("image")
        cells.create_unique_constraint(_UNIQUE, ["run_id", "key", "engine_version"])
