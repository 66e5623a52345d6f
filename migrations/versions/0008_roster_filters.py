"""What the filters of the roster are read by: the status of each learner in a content, and dates of completion."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

BY_CONTENT = "ix_progress_records_module_id_content_id"
STAGES = "ix_progress_records_module_id_content_id_user_id"
COMPLETIONS = "ix_enrollments_module_id_completed_at_user_id"
IS_COMPLETED = sa.text("completed_at IS NOT NULL")


def upgrade() -> None:
    _lock()
    if op.get_bind().dialect.name == "postgresql":
        _drop_what_was_interrupted()
    # One or both may have been built before, while requests were served.
    op.create_index(
        STAGES,
        "progress_records",
        ["module_id", "content_id", "user_id"],
        postgresql_include=["completed_at", "excused_at"],
        if_not_exists=True,
    )
    op.create_index(
        COMPLETIONS,
        "enrollments",
        ["module_id", "completed_at", "user_id"],
        postgresql_where=IS_COMPLETED,
        sqlite_where=IS_COMPLETED,
        if_not_exists=True,
    )
    op.drop_index(BY_CONTENT, "progress_records")


def downgrade() -> None:
    _lock()
    op.create_index(BY_CONTENT, "progress_records", ["module_id", "content_id"])
    op.drop_index(COMPLETIONS, "enrollments")
    op.drop_index(STAGES, "progress_records")


def _lock() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("LOCK TABLE enrollments, progress_records")


def _drop_what_was_interrupted() -> None:
    """Drop those of the indexes that CREATE INDEX CONCURRENTLY has begun and not finished."""
    broken = "SELECT CAST(CAST(indexrelid AS regclass) AS text) FROM pg_index WHERE NOT indisvalid"
    for name in op.get_bind().execute(sa.text(broken)).scalars().all():
        if name in (STAGES, COMPLETIONS):
            op.execute(f"DROP INDEX {name}")
