"""Results know what was asked of them: the key by which a run is resumed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Results of before have no key: a run of theirs is measured anew when it is resumed."""
    op.add_column("results", sa.Column("key", sa.String(12), nullable=False, server_default=""))
    op.create_index("ix_results_key", "results", ["key"])


def downgrade() -> None:
    """Drops the key."""
    op.drop_index("ix_results_key", "results")
    op.drop_column("results", "key")
