"""Create the tables of sessions, and record the session of requests and reservations."""

import sqlalchemy as sa
from alembic import op

from proctor.server.storage.tables import Utc

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COUNTS = (
    "requests",
    "prompt_tokens",
    "thinking_tokens",
    "answer_tokens",
    "completion_tokens",
    "nanos",
    "thinking_nanos",
    "answer_nanos",
)


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("created", Utc(), nullable=False),
        sa.Column("requested", sa.Text, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
    )
    op.create_table(
        "session_usage",
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("session", sa.String(128), primary_key=True),
        sa.Column("tier", sa.String(32), primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTS),
        sa.Column("first", Utc(), nullable=False),
        sa.Column("last", Utc(), nullable=False),
    )
    op.create_index("session_usage_last", "session_usage", ["last"])
    op.add_column("requests", sa.Column("session", sa.String(128)))
    op.add_column("holds", sa.Column("session", sa.String(128)))
    op.add_column("holds", sa.Column("tier", sa.String(32)))
    thinking = sa.Column("thinking", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("holds", thinking)
    op.create_index("holds_session", "holds", ["key", "session"])


def downgrade() -> None:
    op.drop_index("holds_session", "holds")
    with op.batch_alter_table("holds") as holds:
        for name in ("thinking", "tier", "session"):
            holds.drop_column(name)
    with op.batch_alter_table("requests") as requests:
        requests.drop_column("session")
    op.drop_table("session_usage")
    op.drop_table("sessions")
