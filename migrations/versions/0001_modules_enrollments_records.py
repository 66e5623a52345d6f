"""Modules with their contents and instructors, enrollments, progress records, and what imports have applied."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Identifiers sort by code point on every database.
IDENTIFIER = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "imported_chunks",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("imported_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_imported_chunks")),
    )
    op.create_table(
        "modules",
        sa.Column("id", IDENTIFIER, nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("total_weight", sa.BigInteger(), nullable=False),
        sa.Column("total_contents", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("total_weight >= total_contents AND total_contents >= 0", name=op.f("ck_modules_totals")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_modules")),
    )
    op.create_table(
        "contents",
        sa.Column("id", IDENTIFIER, nullable=False),
        sa.Column("module_id", IDENTIFIER, nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("section", sa.String(length=200)),
        sa.Column("weight", sa.SmallInteger(), nullable=False),
        sa.Column("completion_threshold", sa.SmallInteger(), nullable=False),
        sa.Column("passing_score", sa.SmallInteger()),
        sa.Column("retired", sa.Boolean(), nullable=False),
        sa.CheckConstraint("completion_threshold BETWEEN 1 AND 100", name=op.f("ck_contents_completion_threshold")),
        sa.CheckConstraint("passing_score BETWEEN 0 AND 10000", name=op.f("ck_contents_passing_score")),
        sa.CheckConstraint("weight BETWEEN 0 AND 10000", name=op.f("ck_contents_weight")),
        sa.ForeignKeyConstraint(["module_id"], ["modules.id"], name=op.f("fk_contents_module_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contents")),
        sa.UniqueConstraint("module_id", "id", name=op.f("uq_contents_module_id_id")),
    )
    op.create_table(
        "enrollments",
        sa.Column("user_id", IDENTIFIER, nullable=False),
        sa.Column("module_id", IDENTIFIER, nullable=False),
        sa.Column("status", sa.String(length=9), nullable=False),
        sa.Column("weighted_sum", sa.BigInteger(), nullable=False),
        sa.Column("completed_contents", sa.BigInteger(), nullable=False),
        sa.Column("time_spent_seconds", sa.BigInteger(), nullable=False),
        sa.Column("enrolled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("last_activity_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "(status = 'completed') = (completed_at IS NOT NULL)", name=op.f("ck_enrollments_completed_at")
        ),
        sa.CheckConstraint(
            "status IN ('active', 'paused', 'dropped', 'completed')", name=op.f("ck_enrollments_status")
        ),
        sa.CheckConstraint(
            "weighted_sum >= 0 AND completed_contents >= 0 AND time_spent_seconds >= 0",
            name=op.f("ck_enrollments_totals"),
        ),
        sa.ForeignKeyConstraint(["module_id"], ["modules.id"], name=op.f("fk_enrollments_module_id")),
        sa.PrimaryKeyConstraint("user_id", "module_id", name=op.f("pk_enrollments")),
    )
    op.create_index("ix_enrollments_module_id_user_id", "enrollments", ["module_id", "user_id"])
    op.create_table(
        "module_instructors",
        sa.Column("module_id", IDENTIFIER, nullable=False),
        sa.Column("user_id", IDENTIFIER, nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["module_id"], ["modules.id"], name=op.f("fk_module_instructors_module_id")),
        sa.PrimaryKeyConstraint("module_id", "user_id", name=op.f("pk_module_instructors")),
    )
    op.create_index("ix_module_instructors_user_id", "module_instructors", ["user_id"])
    op.create_table(
        "progress_records",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", IDENTIFIER, nullable=False),
        sa.Column("module_id", IDENTIFIER, nullable=False),
        sa.Column("content_id", IDENTIFIER, nullable=False),
        sa.Column("progress_percentage", sa.SmallInteger(), nullable=False),
        sa.Column("furthest_percentage", sa.SmallInteger(), nullable=False),
        sa.Column("time_spent_seconds", sa.BigInteger(), nullable=False),
        sa.Column("score", sa.BigInteger()),
        sa.Column("max_score", sa.BigInteger()),
        sa.Column("position", sa.String(length=255)),
        sa.Column("position_at", sa.DateTime(timezone=True)),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("last_activity_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(position IS NULL) = (position_at IS NULL)", name=op.f("ck_progress_records_position")),
        sa.CheckConstraint(
            "(score IS NULL) = (max_score IS NULL) AND score >= 0 AND score <= max_score",
            name=op.f("ck_progress_records_score"),
        ),
        sa.CheckConstraint(
            "furthest_percentage BETWEEN 0 AND 100", name=op.f("ck_progress_records_furthest_percentage")
        ),
        sa.CheckConstraint("max_score BETWEEN 1 AND 10000000000", name=op.f("ck_progress_records_max_score")),
        sa.CheckConstraint(
            "progress_percentage = CASE WHEN completed_at IS NOT NULL THEN 100"
            " WHEN furthest_percentage > 99 THEN 99 ELSE furthest_percentage END",
            name=op.f("ck_progress_records_progress_percentage"),
        ),
        sa.CheckConstraint("started_at <= last_activity_at", name=op.f("ck_progress_records_last_activity_at")),
        sa.CheckConstraint("time_spent_seconds >= 0", name=op.f("ck_progress_records_time_spent_seconds")),
        sa.ForeignKeyConstraint(
            ["module_id", "content_id"],
            ["contents.module_id", "contents.id"],
            name=op.f("fk_progress_records_module_id_content_id"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id", "module_id"],
            ["enrollments.user_id", "enrollments.module_id"],
            name=op.f("fk_progress_records_user_id_module_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_progress_records")),
        sa.UniqueConstraint("user_id", "content_id", name=op.f("uq_progress_records_user_id_content_id")),
    )
    op.create_index("ix_progress_records_module_id_content_id", "progress_records", ["module_id", "content_id"])


def downgrade() -> None:
    op.loses("modules", "modules")
    op.loses("contents", "contents")
    op.loses("instructors of modules", "module_instructors")
    op.loses("enrollments", "enrollments")
    op.loses("progress records", "progress_records")
    op.loses("chunks of imported files", "imported_chunks")
    op.drop_table("progress_records")
    op.drop_table("module_instructors")
    op.drop_table("enrollments")
    op.drop_table("contents")
    op.drop_table("modules")
    op.drop_table("imported_chunks")
