"""The tables, with constraints that refuse impossible states.

A constraint states each rule that a table can check; `calculations` has all rules. Percentages of contents are whole
numbers, scores are in ten-thousandths of a point, passing scores in hundredths of a per cent, durations in seconds.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry

from progress_service.calculations import STATUSES
from progress_service.tallies import KINDS


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A time in UTC with its time zone, also on databases that do not store time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Any] | None:
        # On PostgreSQL the connections' own time zone is UTC (see `connections.settings`).
        return None if dialect.name == "postgresql" else super().result_processor(dialect, coltype)


# Identifiers sort by code point on every database, so that pages and locks have one order everywhere.
IDENTIFIER = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
LONG_IDENTIFIER = sa.String(280).with_variant(sa.String(280, collation="C"), "postgresql")
Identifier = Annotated[str, mapped_column(IDENTIFIER)]
Key = Annotated[str, mapped_column(IDENTIFIER, primary_key=True)]
Small = Annotated[int, mapped_column(sa.SmallInteger)]


CHANGE_TYPES = (
    "enrollment.created",
    "enrollment.changed",
    "enrollment.completed",
    "enrollment.withdrawn",
    "content.completed",
    "content.excused",
    "progress.corrected",
    "progress.reset",
    "learner.merged",
    "learner.erased",
    "module.published",
)


IS_NO_HISTORY = "NOT is_history"
IS_MERGED = "type = 'learner.merged'"
IS_BY_ANOTHER = "by_role <> 'service' AND by_sub <> coalesce(user_id, '')"
"""The conditions of indexes of the journal, as text: a query that uses an index repeats its condition."""


def where(condition: str) -> dict[str, Any]:
    """Limit an index to the rows that a condition selects."""
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


class Base(DeclarativeBase):
    # Constraints are named by one rule, so that migrations can drop them by name on every database.
    registry = registry(
        metadata=sa.MetaData(
            naming_convention={
                "ix": "ix_%(table_name)s_%(column_0_N_name)s",
                "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                "ck": "ck_%(table_name)s_%(constraint_name)s",
                "fk": "fk_%(table_name)s_%(column_0_N_name)s",
                "pk": "pk_%(table_name)s",
            }
        ),
        type_annotation_map={datetime: UtcDateTime, int: sa.BigInteger},
    )


class Module(Base):
    """A module as last published, with the denominators of its progress."""

    __tablename__ = "modules"
    __table_args__ = (sa.CheckConstraint("total_weight >= total_contents AND total_contents >= 0", "totals"),)

    id: Mapped[Key]
    title: Mapped[str] = mapped_column(sa.String(200))
    total_weight: Mapped[int]
    total_contents: Mapped[int]


class ModuleInstructor(Base):
    """An instructor teaches a module."""

    __tablename__ = "module_instructors"

    module_id: Mapped[str] = mapped_column(sa.ForeignKey(Module.id), primary_key=True)
    user_id: Mapped[str] = mapped_column(IDENTIFIER, primary_key=True, index=True)
    ordinal: Mapped[int]


class Content(Base):
    """A content of a module. It is retired while the module is published without it, and stays in its module."""

    __tablename__ = "contents"
    __table_args__ = (
        sa.UniqueConstraint("module_id", "id"),
        sa.CheckConstraint("weight BETWEEN 0 AND 10000", "weight"),
        sa.CheckConstraint("completion_threshold BETWEEN 1 AND 100", "completion_threshold"),
        sa.CheckConstraint("passing_score BETWEEN 0 AND 10000", "passing_score"),
    )

    id: Mapped[Key]
    module_id: Mapped[str] = mapped_column(sa.ForeignKey(Module.id))
    ordinal: Mapped[int]
    title: Mapped[str] = mapped_column(sa.String(200))
    type: Mapped[str] = mapped_column(sa.String(32))
    section: Mapped[str | None] = mapped_column(sa.String(200))
    weight: Mapped[Small]
    completion_threshold: Mapped[Small]
    passing_score: Mapped[Small | None]
    retired: Mapped[bool]


class Enrollment(Base):
    """One learner in one module, with the totals of their records; writers lock this row before they read."""

    __tablename__ = "enrollments"
    __table_args__ = (
        sa.CheckConstraint(f"status IN {STATUSES}", "status"),
        sa.CheckConstraint("(status = 'completed') = (completed_at IS NOT NULL)", "completed_at"),
        sa.CheckConstraint("weighted_sum >= 0 AND completed_contents >= 0 AND time_spent_seconds >= 0", "totals"),
        sa.CheckConstraint("(last_activity_at IS NULL) = (last_content_id IS NULL)", "last_content_id"),
        # One index for each order of the roster, within a status.
        sa.Index(None, "module_id", "status", "user_id"),
        sa.Index(None, "module_id", "status", "weighted_sum", "user_id"),
        sa.Index(None, "module_id", "status", "last_activity_at", "user_id", postgresql_include=["last_content_id"]),
        sa.Index(None, "module_id", "completed_at", "user_id", **where("completed_at IS NOT NULL")),
    )

    user_id: Mapped[Key]
    module_id: Mapped[str] = mapped_column(sa.ForeignKey(Module.id), primary_key=True)
    status: Mapped[str] = mapped_column(sa.String(9))
    weighted_sum: Mapped[int]
    completed_contents: Mapped[int]
    time_spent_seconds: Mapped[int]
    enrolled_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    last_activity_at: Mapped[datetime | None]
    last_content_id: Mapped[str | None] = mapped_column(IDENTIFIER)
    enrolled_by_update: Mapped[bool] = mapped_column(server_default=sa.false())
    counted: Mapped[bool] = mapped_column(server_default=sa.true())
    last_is_excused: Mapped[bool] = mapped_column(server_default=sa.false())
    credited: Mapped[bool] = mapped_column(server_default=sa.false())


class ImportedEnrollment(Base):
    """As of when imported lines have told the fields of an enrollment; a line that is older does not count."""

    __tablename__ = "imported_enrollments"
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["user_id", "module_id"], ["enrollments.user_id", "enrollments.module_id"], ondelete="CASCADE"
        ),
    )

    user_id: Mapped[Key]
    module_id: Mapped[Key]
    status_told_at: Mapped[datetime | None]
    enrolled_at_told_at: Mapped[datetime | None]
    counted_told_at: Mapped[datetime | None]
    completed_at_told_at: Mapped[datetime | None]


class ProgressRecord(Base):
    """One learner on one content: all updates about them, folded by `calculations.apply`.

    No constraint makes an `id` unique, since every key begins with the learner; it is a UUID, and never the same twice.
    """

    __tablename__ = "progress_records"
    __table_args__ = (
        sa.ForeignKeyConstraint(["user_id", "module_id"], ["enrollments.user_id", "enrollments.module_id"]),
        sa.ForeignKeyConstraint(["module_id", "content_id"], ["contents.module_id", "contents.id"], onupdate="CASCADE"),
        sa.CheckConstraint("furthest_percentage BETWEEN 0 AND 100", "furthest_percentage"),
        sa.CheckConstraint(
            "progress_percentage = CASE WHEN completed_at IS NOT NULL OR excused_at IS NOT NULL THEN 100"
            " WHEN furthest_percentage > 99 THEN 99 ELSE furthest_percentage END",
            "progress_percentage",
        ),
        sa.CheckConstraint("time_spent_seconds >= 0", "time_spent_seconds"),
        sa.CheckConstraint("(score IS NULL) = (max_score IS NULL) AND score >= 0 AND score <= max_score", "score"),
        sa.CheckConstraint("max_score BETWEEN 1 AND 10000000000", "max_score"),
        sa.CheckConstraint("(position IS NULL) = (position_at IS NULL)", "position"),
        sa.CheckConstraint("started_at <= last_activity_at", "last_activity_at"),
        sa.CheckConstraint(
            "(started_at IS NULL) = (last_activity_at IS NULL) AND (started_at IS NOT NULL OR excused_at IS NOT NULL)",
            "started_at",
        ),
        # The roster by user id looks up the status of each learner in a content, without reading the rows.
        sa.Index(None, "module_id", "content_id", "user_id", postgresql_include=["completed_at", "excused_at"]),
    )

    id: Mapped[UUID] = mapped_column(index=True)
    user_id: Mapped[Key]
    module_id: Mapped[Identifier]
    content_id: Mapped[Key]
    progress_percentage: Mapped[Small]
    furthest_percentage: Mapped[Small]
    time_spent_seconds: Mapped[int]
    score: Mapped[int | None]
    max_score: Mapped[int | None]
    position: Mapped[str | None] = mapped_column(sa.String(255))
    position_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    last_activity_at: Mapped[datetime | None]
    reached_at: Mapped[datetime | None]
    passed_at: Mapped[datetime | None]
    excused_at: Mapped[datetime | None]


class Session(Base):
    """The time of one sitting of a learner with a content. It goes with its record, and some days after it was told."""

    __tablename__ = "sessions"
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["user_id", "content_id"], ["progress_records.user_id", "progress_records.content_id"], ondelete="CASCADE"
        ),
        sa.CheckConstraint("time_spent_seconds BETWEEN 0 AND 86400", "time_spent_seconds"),
    )

    user_id: Mapped[Key]
    content_id: Mapped[Key]
    session: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    time_spent_seconds: Mapped[int] = mapped_column(sa.Integer)
    received_at: Mapped[datetime] = mapped_column(index=True)


class ActivityDay(Base):
    """One learner's activity in one module on one UTC day, by event time."""

    __tablename__ = "activity_days"
    __table_args__ = (
        sa.ForeignKeyConstraint(["user_id", "module_id"], ["enrollments.user_id", "enrollments.module_id"]),
        sa.CheckConstraint("time_spent_seconds >= 0", "time_spent_seconds"),
    )

    user_id: Mapped[Key]
    module_id: Mapped[Key]
    day: Mapped[date] = mapped_column(primary_key=True)
    time_spent_seconds: Mapped[int]


class Tally(Base):
    """A part of the sums over a group of a module's learners (see `tallies`); the sum of all parts is exact.

    A writer adds to one of the parts, so that the writers of a module seldom queue. One part alone may be negative.
    """

    __tablename__ = "tallies"
    __table_args__ = (sa.CheckConstraint(f"kind IN {KINDS}", "kind"),)

    module_id: Mapped[str] = mapped_column(sa.ForeignKey(Module.id), primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(10), primary_key=True)
    item: Mapped[str] = mapped_column(LONG_IDENTIFIER, primary_key=True)
    part: Mapped[Small] = mapped_column(primary_key=True)
    learners: Mapped[int]
    started: Mapped[int]
    completed: Mapped[int]
    enrollments_completed: Mapped[int]
    time_spent_seconds: Mapped[int]
    weighted_sum: Mapped[int]
    scored: Mapped[int]
    score_hundredths: Mapped[int]


class Change(Base):
    """One line of the journal. It refers to nothing, since it tells also of what is no more.

    `id` grows in the order in which things happen to a learner in a module, since their enrollment is locked. A reader
    of all changes reads them by `settled_after` and `id`: on PostgreSQL a change is settled, and so is every change
    before it, when all transactions up to `settled_after` have ended (see `Arrival` for those of another server).
    """

    __tablename__ = "changes"
    __table_args__ = (
        sa.CheckConstraint(f"type IN {CHANGE_TYPES}", "type"),
        sa.Index(None, "settled_after", "id"),
        sa.Index("ix_changes_history", "user_id", "module_id", "id"),
        sa.Index("ix_changes_purge", "recorded_at", **where(IS_NO_HISTORY)),
        sa.Index("ix_changes_merged", "data", **where(IS_MERGED)),
        sa.Index("ix_changes_by_another", "by_sub", **where(IS_BY_ANOTHER)),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)
    settled_after: Mapped[int]
    type: Mapped[str] = mapped_column(sa.String(32))
    time: Mapped[datetime]
    recorded_at: Mapped[datetime]
    user_id: Mapped[str | None] = mapped_column(IDENTIFIER)
    module_id: Mapped[str | None] = mapped_column(IDENTIFIER)
    content_id: Mapped[str | None] = mapped_column(IDENTIFIER)
    by_sub: Mapped[str | None] = mapped_column(IDENTIFIER)
    by_role: Mapped[str] = mapped_column(sa.String(16))
    data: Mapped[str] = mapped_column(sa.Text)
    is_history: Mapped[bool]
    """Whether it belongs to an enrollment that still exists. Others are kept for some time only."""


class Webhook(Base):
    """A program that is told of changes: where, of which, how far it has been told, and how the last try went.

    Its place among all changes is that of the last change that it has been told. Who delivers to it holds a lease,
    which ends by itself when its holder is killed.
    """

    __tablename__ = "webhooks"
    __table_args__ = (
        sa.CheckConstraint("(previous_secret IS NULL) = (previous_until IS NULL)", "previous_secret"),
        sa.CheckConstraint("(failing_since IS NULL) = (next_try_at IS NULL)", "failing_since"),
        sa.CheckConstraint("(leased_by IS NULL) = (leased_until IS NULL)", "leased_by"),
    )

    id: Mapped[Key]
    url: Mapped[str] = mapped_column(sa.String(2000))
    types: Mapped[list[str] | None] = mapped_column(sa.JSON(none_as_null=True))
    module_ids: Mapped[list[str] | None] = mapped_column(sa.JSON(none_as_null=True))
    active: Mapped[bool]
    secret: Mapped[str] = mapped_column(sa.Text)
    previous_secret: Mapped[str | None] = mapped_column(sa.Text)
    previous_until: Mapped[datetime | None]
    settled_after: Mapped[int]
    change_id: Mapped[int]
    failing_since: Mapped[datetime | None]
    next_try_at: Mapped[datetime | None]
    last_status: Mapped[Small | None]
    leased_by: Mapped[UUID | None]
    leased_until: Mapped[datetime | None]


class StoredAnswer(Base):
    """The answer to a request with an Idempotency-Key, for repeats of the request, and the learner named in it.

    Without a learner it may name several people: a catalog change names instructors.
    """

    __tablename__ = "stored_answers"

    caller_id: Mapped[Key]
    key: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(sa.String(64))
    status: Mapped[Small]
    body: Mapped[bytes]
    learner_id: Mapped[str | None] = mapped_column(IDENTIFIER, index=True)
    stored_at: Mapped[datetime] = mapped_column(index=True)


class Arrival(Base):
    """The database was brought here from elsewhere, or back to an earlier time: so it is not part of a dump.

    The highest `order_offset` is added to the transactions by which new changes are ordered, so that they come after
    those that were brought along. While a dump is being restored, its first `lines` lines are stored, and `digest` is
    theirs.
    """

    __tablename__ = "arrivals"
    __table_args__ = (sa.CheckConstraint("(digest IS NULL) = (lines IS NULL)", "digest"),)

    order_offset: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str | None] = mapped_column(sa.String(64))
    lines: Mapped[int | None]


class Verification(Base):
    """When all figures were last compared with their recount, and how many differed. It is not part of a dump."""

    __tablename__ = "verifications"
    __table_args__ = (sa.CheckConstraint("drifts >= 0", "drifts"),)

    verified_at: Mapped[datetime] = mapped_column(primary_key=True)
    drifts: Mapped[int]


class ImportedChunk(Base):
    """The digest of a file's content up to the end of a chunk that an import has applied.

    `behind` is the digest of the content before the chunk, and `line_digests` has a few bytes of the digest up to each
    of its lines, for files that end within the chunk. Chunks that earlier versions have applied have neither.
    """

    __tablename__ = "imported_chunks"

    digest: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    lines: Mapped[int]
    imported_at: Mapped[datetime]
    behind: Mapped[str | None] = mapped_column(sa.String(64), index=True)
    line_digests: Mapped[bytes | None]
