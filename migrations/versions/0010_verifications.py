"""When all figures were last verified, which the metrics tell."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "verifications",
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("drifts", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("drifts >= 0", name=op.f("ck_verifications_drifts")),
        sa.PrimaryKeyConstraint("verified_at", name=op.f("pk_verifications")),
    )


def downgrade() -> None:
    op.drop_table("verifications")
