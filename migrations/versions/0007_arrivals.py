"""Databases that were brought from elsewhere: the order of changes goes on."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "arrivals",
        sa.Column("order_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(64)),
        sa.Column("lines", sa.BigInteger()),
        sa.CheckConstraint("(digest IS NULL) = (lines IS NULL)", name=op.f("ck_arrivals_digest")),
        sa.PrimaryKeyConstraint("order_offset", name=op.f("pk_arrivals")),
    )


def downgrade() -> None:
    # Earlier versions order by the server's own transactions: what was brought from elsewhere is put before them all.
    own = "settled_after - coalesce((SELECT max(order_offset) FROM arrivals), 0)"
    for table in ("changes", "webhooks"):
        op.execute(
            f"UPDATE {table} SET settled_after = CASE WHEN {own} > 0 THEN {own} ELSE 0 END"
            " WHERE EXISTS (SELECT 1 FROM arrivals)"
        )
    op.drop_table("arrivals")
