"""Create the table of gateways with leases, so that others can settle what a lost gateway left.

Gateways that run during this migration do not renew a lease: the reservations and idempotency keys
of their running requests are released.
"""

import sqlalchemy as sa
from alembic import op

from proctor.server.storage.tables import Utc

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "gateways",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("host", sa.String(128), nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("birth", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    estimated = sa.Column("estimated", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("requests", estimated)
    op.execute("DELETE FROM holds")
    with op.batch_alter_table("holds") as holds:
        holds.drop_column("expires")
        holds.add_column(sa.Column("gateway", sa.String(32), nullable=False))
        settled = sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.false())
        holds.add_column(settled)
        holds.add_column(sa.Column("draft", sa.Text))
        holds.create_index("holds_gateway", ["gateway"])
    op.execute("DELETE FROM replays WHERE media_type IS NULL")
    with op.batch_alter_table("replays") as replays:
        replays.alter_column("expires", existing_type=Utc(), nullable=True)
        replays.add_column(sa.Column("gateway", sa.String(32)))
        replays.create_index("replays_gateway", ["gateway"])


def downgrade() -> None:
    op.execute("DELETE FROM replays WHERE media_type IS NULL")
    with op.batch_alter_table("replays") as replays:
        replays.drop_index("replays_gateway")
        replays.drop_column("gateway")
        replays.alter_column("expires", existing_type=Utc(), nullable=False)
    op.execute("DELETE FROM holds")
    with op.batch_alter_table("holds") as holds:
        holds.drop_index("holds_gateway")
        holds.drop_column("draft")
        holds.drop_column("settled")
        holds.drop_column("gateway")
        holds.add_column(sa.Column("expires", Utc(), nullable=False))
    op.drop_column("requests", "estimated")
    op.drop_table("gateways")
