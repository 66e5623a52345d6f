"""Answers to requests with an Idempotency-Key, for their repeats."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

IDENTIFIER = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "stored_answers",
        sa.Column("caller_id", IDENTIFIER, nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("learner_id", IDENTIFIER),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("caller_id", "key", name=op.f("pk_stored_answers")),
    )
    op.create_index("ix_stored_answers_learner_id", "stored_answers", ["learner_id"])
    op.create_index("ix_stored_answers_stored_at", "stored_answers", ["stored_at"])


def downgrade() -> None:
    op.loses("answers kept for repeats", "stored_answers")
    op.drop_table("stored_answers")
