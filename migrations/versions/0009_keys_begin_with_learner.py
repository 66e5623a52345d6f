"""Keys of learners' tables that begin with the learner, so that a table can be partitioned by learner."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    _lock()
    _let_sessions_go()
    with op.batch_alter_table("progress_records") as records:
        records.drop_constraint(op.f("pk_progress_records"), type_="primary")
        records.drop_constraint(op.f("uq_progress_records_user_id_content_id"), type_="unique")
        records.create_primary_key(op.f("pk_progress_records"), ["user_id", "content_id"])
    op.create_index("ix_progress_records_id", "progress_records", ["id"])
    _hold_sessions()
    _key_days("user_id", "module_id", "day")


def downgrade() -> None:
    _lock()
    _let_sessions_go()
    op.drop_index("ix_progress_records_id", "progress_records")
    with op.batch_alter_table("progress_records") as records:
        records.drop_constraint(op.f("pk_progress_records"), type_="primary")
        records.create_primary_key(op.f("pk_progress_records"), ["id"])
        records.create_unique_constraint(op.f("uq_progress_records_user_id_content_id"), ["user_id", "content_id"])
    _hold_sessions()
    _key_days("module_id", "user_id", "day")


def _lock() -> None:
    """Lock the tables in the order in which requests use them."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("LOCK TABLE progress_records, activity_days, sessions")


def _let_sessions_go() -> None:
    """Drop the foreign key of sessions, which needs the index that goes; SQLite finds the new one by itself."""
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint(op.f("fk_sessions_user_id_content_id"), "sessions", type_="foreignkey")


def _hold_sessions() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.create_foreign_key(
            op.f("fk_sessions_user_id_content_id"),
            "sessions",
            "progress_records",
            ["user_id", "content_id"],
            ["user_id", "content_id"],
            ondelete="CASCADE",
        )


def _key_days(*names: str) -> None:
    with op.batch_alter_table("activity_days") as days:
        days.drop_constraint(op.f("pk_activity_days"), type_="primary")
        days.create_primary_key(op.f("pk_activity_days"), list(names))
