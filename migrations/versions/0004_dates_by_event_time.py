"""What makes dates independent of the order of updates, who counts in statistics, and longer identifiers.

Records whose threshold or passing score was reached before have no date for it: the rules take the latest it can be.
An enrollment counts as made by an update where it begins with the first update; the date of another one is the
platform's.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# In the order in which requests use them.
IDENTIFIERS = {
    "stored_answers": ["caller_id", "learner_id"],
    "modules": ["id"],
    "module_instructors": ["module_id", "user_id"],
    "contents": ["id", "module_id"],
    "enrollments": ["user_id", "module_id", "last_content_id"],
    "progress_records": ["user_id", "module_id", "content_id"],
    "activity_days": ["user_id", "module_id"],
    "tallies": ["module_id", "item"],
}


def upgrade() -> None:
    # Where 0003 left the tallies empty, as it once did, they are filled: look for that before others have to wait.
    analytics = op.get_context().script.get_revision("0003").module
    tallies_lack = analytics.tallies_lack()
    _lock()
    if tallies_lack:
        analytics.fill_tallies()
    op.add_column(
        "enrollments", sa.Column("enrolled_by_update", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("enrollments", sa.Column("counted", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("progress_records", sa.Column("reached_at", sa.DateTime(timezone=True)))
    op.add_column("progress_records", sa.Column("passed_at", sa.DateTime(timezone=True)))
    op.execute(
        "UPDATE enrollments SET enrolled_by_update = true FROM ("
        " SELECT user_id, module_id, min(started_at) AS started_at FROM progress_records GROUP BY user_id, module_id"
        ") AS begun WHERE begun.user_id = enrollments.user_id AND begun.module_id = enrollments.module_id"
        " AND begun.started_at = enrollments.enrolled_at"
    )
    _resize({"item": 280}, 255)


def downgrade() -> None:
    op.loses("marks of enrollments that do not count", "enrollments WHERE NOT counted")
    op.loses(
        "dates of thresholds and passing scores",
        "progress_records WHERE reached_at IS NOT NULL OR passed_at IS NOT NULL",
    )
    _lock()
    for table, column in (
        ("progress_records", "passed_at"),
        ("progress_records", "reached_at"),
        ("enrollments", "counted"),
        ("enrollments", "enrolled_by_update"),
    ):
        op.drop_column(table, column)
    _resize({"item": 160}, 128)
    op.get_context().script.get_revision("0003").module.fill_tallies()  # with those who did not count


def _lock() -> None:
    """Lock all tables before the first change: one by one would meet requests that use the next and want the last."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"LOCK TABLE {', '.join(IDENTIFIERS)}")


def _resize(lengths: dict[str, int], usual: int) -> None:
    for table, names in IDENTIFIERS.items():
        with op.batch_alter_table(table) as altered:
            for name in names:
                length = lengths.get(name, usual)
                kind = sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
                altered.alter_column(name, type_=kind)
    if op.get_bind().dialect.name == "postgresql":  # which forgets what it knows of the values of altered columns
        op.execute(f"ANALYZE {', '.join(IDENTIFIERS)}")
