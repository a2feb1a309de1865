"""Create the tables of the stored responses of the Responses API, and of their events."""

import sqlalchemy as sa
from alembic import op

from proctor.server.storage.tables import Utc

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "responses",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("gateway", sa.String(32)),
        sa.Column("expires", Utc()),
    )
    op.create_index("responses_expires", "responses", ["expires"])
    op.create_index("responses_gateway", "responses", ["gateway"])
    op.create_table(
        "response_events",
        sa.Column(
            "id",
            sa.String(64),
            sa.ForeignKey("responses.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("response_events")
    op.drop_table("responses")
