"""Webhooks: the programs that are told of changes."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

IDENTIFIER = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", IDENTIFIER, nullable=False),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("types", sa.JSON()),
        sa.Column("module_ids", sa.JSON()),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.Text()),
        sa.Column("previous_until", TIME),
        sa.Column("settled_after", sa.BigInteger(), nullable=False),
        sa.Column("change_id", sa.BigInteger(), nullable=False),
        sa.Column("failing_since", TIME),
        sa.Column("next_try_at", TIME),
        sa.Column("last_status", sa.SmallInteger()),
        sa.Column("leased_by", sa.Uuid()),
        sa.Column("leased_until", TIME),
        sa.CheckConstraint(
            "(previous_secret IS NULL) = (previous_until IS NULL)", name=op.f("ck_webhooks_previous_secret")
        ),
        sa.CheckConstraint("(failing_since IS NULL) = (next_try_at IS NULL)", name=op.f("ck_webhooks_failing_since")),
        sa.CheckConstraint("(leased_by IS NULL) = (leased_until IS NULL)", name=op.f("ck_webhooks_leased_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )


def downgrade() -> None:
    op.loses("webhooks", "webhooks")
    op.drop_table("webhooks")
