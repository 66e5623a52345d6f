"""The journal, sessions, excuses and credits, and contents that may move to another module.

Versions before it write no journal and know no excuses, so they must not run beside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

IDENTIFIER = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)
# In the order in which requests use them.
CHANGED = ("contents", "enrollments", "progress_records", "tallies")

KINDS = "'status', 'percentage', 'content', 'last_week', 'last_day', 'day'"
PERCENTAGE = (
    "progress_percentage = CASE WHEN {} THEN 100 WHEN furthest_percentage > 99 THEN 99 ELSE furthest_percentage END"
)
CHANGE_TYPES = (
    "'enrollment.created', 'enrollment.changed', 'enrollment.completed', 'enrollment.withdrawn', 'content.completed',"
    " 'content.excused', 'progress.corrected', 'progress.reset', 'learner.merged', 'learner.erased', 'module.published'"
)


def upgrade() -> None:
    _lock()
    for name in ("last_is_excused", "credited"):
        op.add_column("enrollments", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("progress_records") as records:
        records.add_column(sa.Column("excused_at", TIME))
        records.alter_column("started_at", existing_type=TIME, nullable=True)
        records.alter_column("last_activity_at", existing_type=TIME, nullable=True)
    _rule_records("completed_at IS NOT NULL OR excused_at IS NOT NULL", onupdate="CASCADE")
    with op.batch_alter_table("progress_records") as records:
        records.create_check_constraint(
            op.f("ck_progress_records_started_at"),
            "(started_at IS NULL) = (last_activity_at IS NULL) AND (started_at IS NOT NULL OR excused_at IS NOT NULL)",
        )
    _name_kinds(f"{KINDS}, 'excused'")
    op.create_table(
        "sessions",
        sa.Column("user_id", IDENTIFIER, nullable=False),
        sa.Column("content_id", IDENTIFIER, nullable=False),
        sa.Column("session", sa.String(64), nullable=False),
        sa.Column("time_spent_seconds", sa.Integer(), nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.CheckConstraint("time_spent_seconds BETWEEN 0 AND 86400", name=op.f("ck_sessions_time_spent_seconds")),
        sa.ForeignKeyConstraint(
            ["user_id", "content_id"],
            ["progress_records.user_id", "progress_records.content_id"],
            name=op.f("fk_sessions_user_id_content_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "content_id", "session", name=op.f("pk_sessions")),
    )
    op.create_index("ix_sessions_received_at", "sessions", ["received_at"])
    op.create_table(
        "imported_enrollments",
        sa.Column("user_id", IDENTIFIER, nullable=False),
        sa.Column("module_id", IDENTIFIER, nullable=False),
        *(sa.Column(f"{name}_told_at", TIME) for name in ("status", "enrolled_at", "counted", "completed_at")),
        sa.ForeignKeyConstraint(
            ["user_id", "module_id"],
            ["enrollments.user_id", "enrollments.module_id"],
            name=op.f("fk_imported_enrollments_user_id_module_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "module_id", name=op.f("pk_imported_enrollments")),
    )
    op.create_table(
        "changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("settled_after", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("time", TIME, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("user_id", IDENTIFIER),
        sa.Column("module_id", IDENTIFIER),
        sa.Column("content_id", IDENTIFIER),
        sa.Column("by_sub", IDENTIFIER),
        sa.Column("by_role", sa.String(16), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("is_history", sa.Boolean(), nullable=False),
        sa.CheckConstraint(f"type IN ({CHANGE_TYPES})", name=op.f("ck_changes_type")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_changes_settled_after_id", "changes", ["settled_after", "id"])
    op.create_index("ix_changes_history", "changes", ["user_id", "module_id", "id"])
    _create_partial_index("ix_changes_purge", "recorded_at", "NOT is_history")
    _create_partial_index("ix_changes_merged", "data", "type = 'learner.merged'")
    _create_partial_index("ix_changes_by_another", "by_sub", "by_role <> 'service' AND by_sub <> coalesce(user_id, '')")


def downgrade() -> None:
    op.loses("changes in the journal", "changes")
    op.loses("sessions", "sessions")
    op.loses("dates of imported enrollments", "imported_enrollments")
    op.loses("excuses", "progress_records WHERE excused_at IS NOT NULL")
    op.loses("marks of credits", "enrollments WHERE credited")
    _lock()
    op.drop_table("changes")
    op.drop_table("sessions")
    op.drop_table("imported_enrollments")
    op.execute("DELETE FROM progress_records WHERE started_at IS NULL")
    op.execute(
        "UPDATE progress_records SET excused_at = NULL, progress_percentage = CASE WHEN completed_at IS NOT NULL"
        " THEN 100 WHEN furthest_percentage > 99 THEN 99 ELSE furthest_percentage END WHERE excused_at IS NOT NULL"
    )
    op.execute("DELETE FROM tallies WHERE kind = 'excused'")
    _name_kinds(KINDS)
    with op.batch_alter_table("progress_records") as records:
        records.drop_constraint(op.f("ck_progress_records_started_at"), type_="check")
    _rule_records("completed_at IS NOT NULL", onupdate=None)
    with op.batch_alter_table("progress_records") as records:
        records.drop_column("excused_at")
        records.alter_column("started_at", existing_type=TIME, nullable=False)
        records.alter_column("last_activity_at", existing_type=TIME, nullable=False)
    for name in ("credited", "last_is_excused"):
        op.drop_column("enrollments", name)
    _recount_totals()
    op.get_context().script.get_revision("0003").module.fill_tallies()


def _lock() -> None:
    """Lock all tables before the first change: one by one would meet requests that use the next and want the last."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"LOCK TABLE {', '.join(CHANGED)}")


def _rule_records(is_done: str, onupdate: str | None) -> None:
    """Replace the rule of the percentage, and say what becomes of records whose content moves to another module."""
    with op.batch_alter_table("progress_records") as records:
        records.drop_constraint(op.f("ck_progress_records_progress_percentage"), type_="check")
        records.create_check_constraint(op.f("ck_progress_records_progress_percentage"), PERCENTAGE.format(is_done))
        records.drop_constraint(op.f("fk_progress_records_module_id_content_id"), type_="foreignkey")
        records.create_foreign_key(
            op.f("fk_progress_records_module_id_content_id"),
            "contents",
            ["module_id", "content_id"],
            ["module_id", "id"],
            onupdate=onupdate,
        )


def _name_kinds(kinds: str) -> None:
    with op.batch_alter_table("tallies") as tallies:
        tallies.drop_constraint(op.f("ck_tallies_kind"), type_="check")
        tallies.create_check_constraint(op.f("ck_tallies_kind"), f"kind IN ({kinds})")


def _create_partial_index(name: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "changes", [column], postgresql_where=where, sqlite_where=where)


def _recount_totals() -> None:
    """Recount what excuses gave to enrollments."""
    op.execute(
        "UPDATE enrollments SET weighted_sum = counted.weighted_sum, completed_contents = counted.completed FROM ("
        " SELECT enrollments.user_id, enrollments.module_id,"
        " coalesce(sum(contents.weight * progress_records.progress_percentage), 0) AS weighted_sum,"
        " count(CASE WHEN contents.weight > 0 THEN progress_records.completed_at END) AS completed"
        " FROM enrollments LEFT JOIN (progress_records JOIN contents"
        " ON contents.id = progress_records.content_id AND NOT contents.retired)"
        " ON progress_records.user_id = enrollments.user_id AND progress_records.module_id = enrollments.module_id"
        " GROUP BY enrollments.user_id, enrollments.module_id"
        ") AS counted WHERE counted.user_id = enrollments.user_id AND counted.module_id = enrollments.module_id"
        " AND (counted.weighted_sum != enrollments.weighted_sum OR counted.completed != enrollments.completed_contents)"
    )
