"""Create the table of the secrets that protect the records of turns."""

import sqlalchemy as sa
from alembic import op

from proctor.server.storage.tables import Utc

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "record_secrets",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("created", Utc(), nullable=False),
        sa.Column("expires", Utc()),
    )


def downgrade() -> None:
    op.drop_table("record_secrets")
