"""Days of activity, tallies of every statistic, and what the roster is read by.

The tallies are filled from what is stored. Days of activity begin with the migration, since what came before was not
kept by day.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

IDENTIFIER = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
ITEM = sa.String(160).with_variant(sa.String(160, collation="C"), "postgresql")

COUNTS = (
    "learners",
    "started",
    "completed",
    "enrollments_completed",
    "time_spent_seconds",
    "weighted_sum",
    "scored",
    "score_hundredths",
)


def upgrade() -> None:
    with op.batch_alter_table("enrollments") as enrollments:
        enrollments.drop_index("ix_enrollments_module_id_user_id")
        enrollments.add_column(sa.Column("last_content_id", IDENTIFIER))
    op.execute(
        "UPDATE enrollments SET last_content_id = latest.content_id FROM ("
        " SELECT user_id, module_id, max(content_id) AS content_id FROM progress_records"
        " JOIN enrollments USING (user_id, module_id, last_activity_at) GROUP BY user_id, module_id"
        ") AS latest WHERE latest.user_id = enrollments.user_id AND latest.module_id = enrollments.module_id"
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
    fill_tallies()


def downgrade() -> None:
    op.loses("days of activity", "activity_days")
    op.drop_table("tallies")
    op.drop_table("activity_days")
    with op.batch_alter_table("enrollments") as enrollments:
        enrollments.drop_index("ix_enrollments_module_id_status_last_activity_at_user_id")
        enrollments.drop_index("ix_enrollments_module_id_status_weighted_sum_user_id")
        enrollments.drop_index("ix_enrollments_module_id_status_user_id")
        enrollments.drop_constraint(op.f("ck_enrollments_last_content_id"), type_="check")
        enrollments.drop_column("last_content_id")
        enrollments.create_index("ix_enrollments_module_id_user_id", ["module_id", "user_id"])


def tallies_lack() -> bool:
    """Tell whether the tallies of any module lack something."""
    return bool(op.get_bind().execute(sa.text(f"SELECT EXISTS ({lacking()})")).scalar())


def fill_tallies() -> None:
    """Add what the tallies of all modules lack."""
    op.execute(
        f"INSERT INTO tallies (module_id, kind, item, part, {', '.join(COUNTS)}) {lacking()}"
        " ON CONFLICT (module_id, kind, item, part) DO UPDATE"
        f" SET {', '.join(f'{name} = tallies.{name} + excluded.{name}' for name in COUNTS)}"
    )


def lacking() -> str:
    """Return the statement that counts what the tallies of all modules lack, as rows of these.

    It is the same at any moment, since writers add to a tally in the transaction of what it tells.
    """
    is_postgresql = op.get_bind().dialect.name == "postgresql"

    def day(time: str) -> str:
        return f"to_char(timezone('UTC', {time}), 'YYYY-MM-DD')" if is_postgresql else f"substr({time}, 1, 10)"

    def week(time: str) -> str:
        monday = f"to_char(date_trunc('week', timezone('UTC', {time})), 'YYYY-MM-DD')"
        return monday if is_postgresql else f"date({day(time)}, 'weekday 0', '-6 days')"

    def group(kind: str, item: str, source: str, **counts: str) -> str:
        figures = ", ".join(counts.get(name, "0") for name in COUNTS)
        return f"SELECT module_id, '{kind}', {item}, {figures} FROM {source} GROUP BY module_id, {item}"

    percentage = "weighted_sum / coalesce(nullif(total_weight, 0), 1)"
    unfinished = "enrollments WHERE status IN ('active', 'paused') AND last_activity_at IS NOT NULL"
    activity_day = "to_char(day, 'YYYY-MM-DD')" if is_postgresql else "day"
    groups = [
        group(
            "status",
            "status",
            "enrollments",
            learners="count(*)",
            started="count(last_activity_at)",
            time_spent_seconds="sum(time_spent_seconds)",
            weighted_sum="sum(weighted_sum)",
        ),
        group(
            "percentage",
            f"CAST({percentage} AS VARCHAR)",
            "enrollments JOIN modules ON modules.id = module_id WHERE status <> 'dropped'",
            learners="count(*)",
        ),
        group("last_week", f"{week('last_activity_at')} || ' ' || last_content_id", unfinished, learners="count(*)"),
        group("last_day", f"{day('last_activity_at')} || ' ' || last_content_id", unfinished, learners="count(*)"),
        group(
            "content",
            "content_id",
            "progress_records",
            started="count(*)",
            completed="count(completed_at)",
            time_spent_seconds="sum(time_spent_seconds)",
            scored="count(score)",
            score_hundredths="coalesce(sum(score * 10000 / max_score), 0)",
        ),
        group("day", activity_day, "activity_days", learners="count(*)", time_spent_seconds="sum(time_spent_seconds)"),
        group("day", day("started_at"), "progress_records", started="count(*)"),
        group("day", day("completed_at"), "progress_records WHERE completed_at IS NOT NULL", completed="count(*)"),
        group(
            "day", day("completed_at"), "enrollments WHERE completed_at IS NOT NULL", enrollments_completed="count(*)"
        ),
    ]
    stored = f"SELECT module_id, kind, item, {', '.join(f'-{name} AS {name}' for name in COUNTS)} FROM tallies"
    return (
        f"SELECT module_id, kind, item, 0, {', '.join(f'CAST(sum({name}) AS BIGINT)' for name in COUNTS)}"
        f" FROM ({' UNION ALL '.join([stored, *groups])}) AS parts GROUP BY module_id, kind, item"
        f" HAVING {' OR '.join(f'sum({name}) <> 0' for name in COUNTS)} ORDER BY module_id, kind, item"
    )
