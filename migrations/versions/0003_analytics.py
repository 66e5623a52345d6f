"""Days of activity, tallies of every statistic, and what the roster is read by.

The tallies are empty at first: `flask progress verify --repair` fills them from what is stored. Days of activity begin
with the migration, since what came before was not kept by day.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

IDENTIFIER = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
ITEM = sa.String(160).with_variant(sa.String(160, collation="C"), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("enrollments") as enrollments:
        enrollments.drop_index("ix_enrollments_module_id_user_id")
        enrollments.add_column(sa.Column("last_content_id", IDENTIFIER))
    op.execute(
        "UPDATE enrollments SET last_content_id = ("
        " SELECT max(content_id) FROM progress_records WHERE progress_records.user_id = enrollments.user_id"
        " AND progress_records.module_id = enrollments.module_id"
        " AND progress_records.last_activity_at = enrollments.last_activity_at)"
    )
    with op.batch_alter_table("enrollments") as enrollments:
        enrollments.create_check_constraint(
            op.f("ck_enrollments_last_content_id"), "(last_activity_at IS NULL) = (last_content_id IS NULL)"
        )
        enrollments.create_index("ix_enrollments_module_id_status_user_id", ["module_id", "status", "user_id"])
        enrollments.create_index(
            "ix_enrollments_module_id_status_weighted_sum_user_id", ["module_id", "status", "weighted_sum", "user_id"]
        )
        enrollments.create_index(
            "ix_enrollments_module_id_status_last_activity_at_user_id",
            ["module_id", "status", "last_activity_at", "user_id"],
            postgresql_include=["last_content_id"],
        )
    op.create_table(
        "activity_days",
        sa.Column("user_id", IDENTIFIER, nullable=False),
        sa.Column("module_id", IDENTIFIER, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("time_spent_seconds", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("time_spent_seconds >= 0", name=op.f("ck_activity_days_time_spent_seconds")),
        sa.ForeignKeyConstraint(
            ["user_id", "module_id"],
            ["enrollments.user_id", "enrollments.module_id"],
            name=op.f("fk_activity_days_user_id_module_id"),
        ),
        sa.PrimaryKeyConstraint("module_id", "user_id", "day", name=op.f("pk_activity_days")),
    )
    op.create_table(
        "tallies",
        sa.Column("module_id", IDENTIFIER, nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("item", ITEM, nullable=False),
        sa.Column("part", sa.SmallInteger(), nullable=False),
        sa.Column("learners", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("completed", sa.BigInteger(), nullable=False),
        sa.Column("enrollments_completed", sa.BigInteger(), nullable=False),
        sa.Column("time_spent_seconds", sa.BigInteger(), nullable=False),
        sa.Column("weighted_sum", sa.BigInteger(), nullable=False),
        sa.Column("scored", sa.BigInteger(), nullable=False),
        sa.Column("score_hundredths", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('status', 'percentage', 'content', 'last_week', 'last_day', 'day')", name=op.f("ck_tallies_kind")
        ),
        sa.ForeignKeyConstraint(["module_id"], ["modules.id"], name=op.f("fk_tallies_module_id")),
        sa.PrimaryKeyConstraint("module_id", "kind", "item", "part", name=op.f("pk_tallies")),
    )


def downgrade() -> None:
    op.drop_table("tallies")
    op.drop_table("activity_days")
    with op.batch_alter_table("enrollments") as enrollments:
        enrollments.drop_index("ix_enrollments_module_id_status_last_activity_at_user_id")
        enrollments.drop_index("ix_enrollments_module_id_status_weighted_sum_user_id")
        enrollments.drop_index("ix_enrollments_module_id_status_user_id")
        enrollments.drop_constraint(op.f("ck_enrollments_last_content_id"), type_="check")
        enrollments.drop_column("last_content_id")
        enrollments.create_index("ix_enrollments_module_id_user_id", ["module_id", "user_id"])
