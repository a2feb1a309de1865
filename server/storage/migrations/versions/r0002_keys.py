"""Create the tables of API keys, reservations, spending and idempotency keys."""

import sqlalchemy as sa
from alembic import op

from proctor.server.storage.tables import Utc

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(8), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("scope", sa.String(8), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("created", Utc(), nullable=False),
        sa.Column("revoked", Utc()),
    )
    op.create_table(
        "holds",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("placed", Utc(), nullable=False),
        sa.Column("expires", Utc(), nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("nanos", sa.BigInteger, nullable=False),
    )
    op.create_index("holds_key", "holds", ["key"])
    op.create_table(
        "spend",
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("nanos", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "replays",
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("media_type", sa.String(64)),
        sa.Column("tier", sa.String(32), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("expires", Utc(), nullable=False),
    )
    op.create_index("replays_expires", "replays", ["expires"])
    op.create_index("requests_key_time", "requests", ["key", "time"])


def downgrade() -> None:
    op.drop_index("requests_key_time", "requests")
    for table in ("replays", "spend", "holds", "keys"):
        op.drop_table(table)
