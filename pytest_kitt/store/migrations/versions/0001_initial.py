"""What does the first version of the store hold?"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Creates all tables."""
    op.create_table(
        "fingerprints",
        sa.Column("key", sa.String(12), primary_key=True),
        sa.Column("facts", sa.JSON, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("started_at", sa.String(40), nullable=False, index=True),
        sa.Column("finished_at", sa.String(40)),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("exit_status", sa.Integer),
        sa.Column("suite", sa.Text, nullable=False),
        sa.Column("argv", sa.JSON, nullable=False),
        sa.Column("kitt_version", sa.String(40), nullable=False),
        sa.Column("synthetic", sa.Boolean, nullable=False),
        sa.Column("toy", sa.Boolean, nullable=False),
        sa.Column("owner", sa.JSON, nullable=False),
        sa.Column("fingerprint_key", sa.String(12), sa.ForeignKey("fingerprints.key"), nullable=False),
    )
    _create_cells_and_results()
    _create_what_hangs_on_results()
    _create_what_hangs_on_runs()


def downgrade() -> None:
    """Drops all tables."""
    for table in ("artifacts", "events", "samples", "metrics", "results", "cells", "runs", "fingerprints"):
        op.drop_table(table)


def _create_cells_and_results() -> None:
    op.create_table(
        "cells",
        sa.Column("id", sa.Integer, primary_key=True),
        _run_id(),
        sa.Column("key", sa.String(12), nullable=False, index=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("engine_version", sa.Text, nullable=False),
        sa.Column("runtime", sa.String(20), nullable=False),
        sa.Column("model", sa.JSON, nullable=False),
        sa.Column("api", sa.String(20), nullable=False),
        sa.Column("overrides", sa.JSON, nullable=False),
        sa.Column("argv", sa.JSON, nullable=False),
        sa.Column("synthetic", sa.Boolean, nullable=False),
        sa.Column("toy", sa.Boolean, nullable=False),
        sa.UniqueConstraint("run_id", "key", "engine_version", name="cells_run_key_version"),
    )
    op.create_table(
        "results",
        sa.Column("id", sa.Integer, primary_key=True),
        _run_id(),
        sa.Column("cell_id", sa.Integer, sa.ForeignKey("cells.id", ondelete="CASCADE")),
        sa.Column("nodeid", sa.Text, nullable=False),
        sa.Column("benchmark", sa.Text, nullable=False, index=True),
        sa.Column("version", sa.String(40), nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("started_at", sa.String(40), nullable=False),
        sa.Column("duration_s", sa.Float, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
    )


def _create_what_hangs_on_results() -> None:
    op.create_table(
        "metrics",
        _result_id(),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("stat", sa.String(40), primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("unit", sa.String(40), nullable=False),
        sa.Column("better", sa.String(10), nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("ci_low", sa.Double),
        sa.Column("ci_high", sa.Double),
        sa.Column("method", sa.String(40)),
    )
    op.create_table(
        "samples",
        _result_id(),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("codec", sa.String(40), nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.LargeBinary, nullable=False),
    )


def _create_what_hangs_on_runs() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True),
        _run_id(),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
    )
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Integer, primary_key=True),
        _run_id(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("media_type", sa.String(80), nullable=False),
        sa.Column("bytes", sa.LargeBinary, nullable=False),
    )


def _run_id() -> sa.Column[str]:
    key = sa.ForeignKey("runs.id", ondelete="CASCADE")
    return sa.Column("run_id", sa.String(40), key, nullable=False, index=True)


def _result_id() -> sa.Column[int]:
    return sa.Column("result_id", sa.Integer, sa.ForeignKey("results.id", ondelete="CASCADE"), primary_key=True)
