"""Add the tokens of probes for early exits to the requests."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("probe_tokens", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("requests", column)


def downgrade() -> None:
    op.drop_column("requests", "probe_tokens")
