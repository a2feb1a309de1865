"""Create the tables of requests and of their texts."""

import sqlalchemy as sa
from alembic import op

from proctor.server.storage.tables import Money, Utc

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("time", Utc(), nullable=False),
        sa.Column("key", sa.String(128)),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("tier", sa.String(32), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("asked_min_tokens", sa.BigInteger, nullable=False),
        sa.Column("asked_max_tokens", sa.BigInteger),
        sa.Column("min_tokens", sa.BigInteger, nullable=False),
        sa.Column("max_tokens", sa.BigInteger),
        sa.Column("clamped_by", sa.Text, nullable=False),
        sa.Column("choices", sa.Integer, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("thinking_tokens", sa.BigInteger, nullable=False),
        sa.Column("forced_tokens", sa.BigInteger, nullable=False),
        sa.Column("answer_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("continuations", sa.BigInteger, nullable=False),
        sa.Column("end_reason", sa.String(16), nullable=False),
        sa.Column("finish_reason", sa.String(16), nullable=False),
        sa.Column("first_reasoning_seconds", sa.Double),
        sa.Column("first_answer_seconds", sa.Double),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("currency", sa.String(3)),
        sa.Column("cost_prompt", Money()),
        sa.Column("cost_thinking", Money()),
        sa.Column("cost_answer", Money()),
        sa.Column("score", sa.Double),
    )
    op.create_index("requests_time", "requests", ["time"])
    op.create_index("requests_request_id", "requests", ["request_id"])
    op.create_table(
        "texts",
        sa.Column(
            "id", sa.String(64), sa.ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("thinking", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("texts")
    op.drop_table("requests")
