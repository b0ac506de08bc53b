"""Which tables hold the results? One schema for SQLite and PostgreSQL.

Times are ISO-8601 texts in UTC: they sort, compare alike in both databases, and leave as they came. Numbers are in long
format (``metrics``), raw samples in blocks (``samples``). Deleting a run deletes all that hangs on it.
"""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0003"

metadata = sa.MetaData()


def _run_id() -> sa.Column[str]:
    key = sa.ForeignKey("runs.id", ondelete="CASCADE")
    return sa.Column("run_id", sa.String(40), key, nullable=False, index=True)


def _result_id() -> sa.Column[int]:
    return sa.Column("result_id", sa.Integer, sa.ForeignKey("results.id", ondelete="CASCADE"), primary_key=True)


version = sa.Table("alembic_version", metadata, sa.Column("version_num", sa.String(32), primary_key=True))

fingerprints = sa.Table(
    "fingerprints",
    metadata,
    sa.Column("key", sa.String(12), primary_key=True),
    sa.Column("facts", sa.JSON, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
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

cells = sa.Table(
    "cells",
    metadata,
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
    sa.Column("image", sa.Text, nullable=False, server_default=""),
    sa.Column("image_digest", sa.Text, nullable=False, server_default=""),
    sa.UniqueConstraint("run_id", "key", "engine_version", "image_digest", name="cells_run_key_version"),
)

results = sa.Table(
    "results",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _run_id(),
    sa.Column("cell_id", sa.Integer, sa.ForeignKey("cells.id", ondelete="CASCADE")),
    sa.Column("nodeid", sa.Text, nullable=False),
    sa.Column("key", sa.String(12), nullable=False, server_default="", index=True),
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

metrics = sa.Table(
    "metrics",
    metadata,
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

samples = sa.Table(
    "samples",
    metadata,
    _result_id(),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("codec", sa.String(40), nullable=False),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.LargeBinary, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _run_id(),
    sa.Column("at", sa.String(40), nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
)

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _run_id(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("media_type", sa.String(80), nullable=False),
    sa.Column("bytes", sa.LargeBinary, nullable=False),
)
