"""The statements of the write path, built once for each dialect; docs/sql/ shows them as the databases get them.

Each takes its rows as a table (see `rows`), so the statements for one update and for a thousand are the same.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy import and_, bindparam, case, cast, delete, exists, func, literal, literal_column, or_, select, true
from sqlalchemy.dialects import postgresql, sqlite

from progress_service import calculations
from progress_service.store import models
from progress_service.store.direct import DirectStatement
from progress_service.store.functions import earlier_of, settled_after
from progress_service.store.locks import CHANGES, ENROLLING, MOST_LOCKS
from progress_service.store.models import (
    ActivityDay,
    Change,
    Content,
    Enrollment,
    ImportedEnrollment,
    Module,
    ProgressRecord,
    Session,
    StoredAnswer,
    Tally,
)
from progress_service.store.rows import Rows
from progress_service.store.values import ACTIVITY_DAY, CONTENT_RULE, ENROLLMENT, LINE_DATES, MODULE
from progress_service.tallies import Counts, Group

OWNER = ["user_id", "module_id"]
THE_LEARNER = bindparam("user_id", type_=models.IDENTIFIER)


class Statements:
    """The statements for one dialect, and the rows that they take."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect
        self._is_postgresql = dialect.name == "postgresql"
        self._insert: Any = (postgresql if self._is_postgresql else sqlite).insert
        first = {"enrolled_at": models.UtcDateTime(), "by_instructor": sa.Boolean(), "place": sa.BigInteger()}
        self.keys = self._rows("keys", ProgressRecord, "user_id", "content_id", day=sa.Date(), **first)
        """Each learner, content and day of the updates once; of the first update its time, sender and place."""
        self.record_ids = self._rows("record_ids", ProgressRecord, "id", "user_id")
        """The ids of records, each with its learner where the caller knows them."""
        self.enrollment_keys = self._rows("enrollment_keys", Enrollment, *OWNER, "enrolled_at")
        """Learners and modules, with the time of a new enrollment if it may be made."""
        self.records = self._rows("records", ProgressRecord, *calculations.Record._fields, "progress_percentage")
        self.enrollments = self._rows("enrollments", Enrollment, *calculations.Enrollment._fields)
        self.days = self._rows("days", ActivityDay, *calculations.ActivityDay._fields)
        self.sessions = self._rows("sessions", Session, *calculations.Session._fields)
        self.line_dates = self._rows("line_dates", ImportedEnrollment, *calculations.LineDates._fields)
        self.session_keys = self._rows("session_keys", Session, "user_id", "content_id", "session")
        names = (column.name for column in Change.__table__.c if column.name not in ("id", "settled_after"))
        self.changes = self._rows("changes", Change, *names, place=sa.BigInteger())
        self.tallies = self._rows("tallies", Tally, *Group._fields, "part", *Counts._fields)
        """The numbers to add to parts of tallies."""
        self.contents = self._rows("contents", Content, *(column.name for column in Content.__table__.c))
        self.ids = self._rows("ids", Content, "id")
        self.moves = self._rows("moves", Content, "id", "module_id")
        """Contents with the modules from which they move."""
        self.weights = self._rows("weights", Content, "id", weight=sa.BigInteger(), contents=sa.BigInteger())
        """Contents with their gain in weight, and in the number of counted contents (-1, 0 or 1)."""
        self.request_keys = self._rows("request_keys", StoredAnswer, "caller_id", "key")
        """Callers, and the names that they gave to requests."""
        names = (column.name for column in StoredAnswer.__table__.c if column.name != "body")
        self.answers = self._rows("answers", StoredAnswer, *names, body=sa.String())

    @classmethod
    def of(cls, connection: sa.Connection) -> "Statements":
        """Return the statements for a connection's dialect."""
        name = connection.dialect.name
        if name not in _BUILT:
            _BUILT[name] = cls(connection.dialect)
        return _BUILT[name]

    # Updates: lock, read, store.

    @cached_property
    def lock_modules_of_contents(self) -> DirectStatement:
        """Share the locks of the modules to which the contents of the keys belong."""
        source, content = self.look_up(self.keys.table, Content, ["module_id"], id=self.keys.c.content_id)
        return self._share_modules(select(content.module_id).select_from(source))

    @cached_property
    def lock_enrollments_of_contents(self) -> DirectStatement:
        """Lock the enrollments of the keys, make those that are missing, and return the keys of the new enrollments.

        Instructors who report about themselves do not count among the learners of modules that they teach.
        """
        key = self.keys.c
        source, content = self.look_up(self.keys.table, Content, ["module_id"], id=key.content_id)
        nth = func.row_number().over(partition_by=[key.user_id, content.module_id], order_by=key.place).label("nth")
        names = key.user_id, content.module_id, key.enrolled_at, key.by_instructor
        updates = select(*names, nth).select_from(source).subquery("updates")
        learners = select(updates).where(updates.c.nth == literal_column("1")).subquery("learners")
        teaching = models.ModuleInstructor
        teaches = exists().where(teaching.module_id == learners.c.module_id, teaching.user_id == learners.c.user_id)
        return self._lock_enrollments(
            learners, by_update=True, counted=sa.not_(and_(learners.c.by_instructor, teaches))
        )

    @cached_property
    def read(self) -> DirectStatement:
        """Read everything that updates of the keys change or depend on; a value that is not stored is null."""
        key = self.keys.c
        source, content = self.look_up(self.keys.table, Content, calculations.ContentRule._fields, id=key.content_id)
        owner = {"user_id": key.user_id, "module_id": content.module_id}
        source, module = self.look_up(source, Module, calculations.Denominators._fields, id=content.module_id)
        source, enrollment = self.look_up(source, Enrollment, calculations.Enrollment._fields, outer=True, **owner)
        of_record = {"user_id": key.user_id, "content_id": key.content_id}
        source, record = self.look_up(source, ProgressRecord, calculations.Record._fields, outer=True, **of_record)
        source, day = self.look_up(
            source, ActivityDay, calculations.ActivityDay._fields, outer=True, day=key.day, **owner
        )
        found = (
            (content, calculations.ContentRule),
            (module, calculations.Denominators),
            (enrollment, calculations.Enrollment),
            (record, calculations.Record),
            (day, calculations.ActivityDay),
        )
        names = [columns[name] for columns, value in found for name in value._fields]
        return DirectStatement(select(key.user_id, key.content_id, *names).select_from(source))

    @cached_property
    def read_sessions(self) -> DirectStatement:
        """Read the sessions of the keys."""
        names = calculations.Session._fields
        key: dict[str, Any] = {name: self.session_keys.c[name] for name in self.session_keys.columns}
        source, session = self.look_up(self.session_keys.table, Session, names, **key)
        return DirectStatement(select(*(session[name] for name in names)).select_from(source))

    @cached_property
    def store_sessions(self) -> DirectStatement:
        """Store sessions."""
        return DirectStatement(self._upsert(Session, self.sessions, list(self.session_keys.columns)))

    @cached_property
    def share_enrolling(self) -> DirectStatement:
        """Share the locks of groups of learners (PostgreSQL)."""
        ordered = select(self.ids.c.id).order_by(self.ids.c.id).subquery("ordered").c
        lock = func.pg_advisory_xact_lock_shared(func.hashtextextended(ordered.id, literal_column(str(ENROLLING))))
        return DirectStatement(select(lock))

    @cached_property
    def write_changes(self) -> DirectStatement:
        """Write changes in the journal, in the order of their places."""
        names = [name for name in self.changes.columns if name != "place"]
        in_order = select(settled_after(), *(self.changes.c[name] for name in names)).order_by(self.changes.c.place)
        return DirectStatement(self._insert(Change).from_select(["settled_after", *names], in_order))

    @cached_property
    def last_completions(self) -> DirectStatement:
        """Find the last completion of a counted content under each enrollment, without the contents of the keys.

        If the enrollment is completed, find the last until then.
        """
        key, record = self.enrollment_keys.c, ProgressRecord
        reported = select(self.keys.c.user_id, self.keys.c.content_id)
        done_at = earlier_of(record.completed_at, record.excused_at)
        is_until = or_(Enrollment.completed_at.is_(None), done_at <= Enrollment.completed_at)
        last = (
            select(func.max(done_at))
            .join(Content, and_(Content.id == record.content_id, ~Content.retired, Content.weight > 0))
            .join(Enrollment, self._is_of_keys(Enrollment))
            .where(record.user_id == key.user_id, record.module_id == key.module_id, is_until)
            .where(sa.tuple_(record.user_id, record.content_id).not_in(reported))
            .scalar_subquery()
        )
        return DirectStatement(select(key.user_id, key.module_id, last.label("completed_at")))

    @cached_property
    def store(self) -> list[DirectStatement]:
        """Store records, enrollments, days and tallies: in one statement on PostgreSQL, in four on SQLite."""
        changes = {
            "stored_records": self._upsert(ProgressRecord, self.records, ["user_id", "content_id"]),
            "stored_enrollments": self._upsert(Enrollment, self.enrollments, OWNER),
            "stored_days": self._upsert(ActivityDay, self.days, [*OWNER, "day"]),
            "stored_tallies": self._add_to_tallies(),
        }
        if not self._is_postgresql:
            return list(map(DirectStatement, changes.values()))
        return [DirectStatement(select(literal(1)).add_cte(*(change.cte(name) for name, change in changes.items())))]

    # Enrollments: lock, read.

    @cached_property
    def lock_modules(self) -> DirectStatement:
        """Share the locks of the modules of the enrollment keys."""
        return self._share_modules(select(self.enrollment_keys.c.module_id))

    @cached_property
    def lock_enrollments(self) -> DirectStatement:
        """Lock the enrollments of the keys, make those that are missing, and return the keys of the new ones."""
        key = self.enrollment_keys
        learners = select(key.table).where(key.c.module_id.in_(select(Module.id))).subquery("learners")
        return self._lock_enrollments(learners, by_update=False, counted=true())

    @cached_property
    def read_enrollments(self) -> DirectStatement:
        """Read the enrollments of the keys, each with its module's denominators."""
        return DirectStatement(self._enrolled())

    @cached_property
    def read_line_dates(self) -> DirectStatement:
        """Read as of when imported lines have told the fields of the enrollments of the keys."""
        return DirectStatement(
            select(*LINE_DATES).join(self.enrollment_keys.table, self._is_of_keys(ImportedEnrollment))
        )

    @cached_property
    def store_line_dates(self) -> DirectStatement:
        """Store as of when imported lines have told the fields of enrollments."""
        return DirectStatement(self._upsert(ImportedEnrollment, self.line_dates, OWNER))

    @cached_property
    def read_records(self) -> DirectStatement:
        """Read the records under the enrollments of the keys."""
        names = calculations.Record._fields
        source, record, is_under_key = self._records_of_learners(names)
        return DirectStatement(select(*(record[name] for name in names)).select_from(source).where(is_under_key))

    @cached_property
    def read_days(self) -> DirectStatement:
        """Read the days of activity under the enrollments of the keys."""
        return DirectStatement(select(*ACTIVITY_DAY).join(self.enrollment_keys.table, self._is_of_keys(ActivityDay)))

    @cached_property
    def read_contents(self) -> DirectStatement:
        """Read the rules of the contents of the modules of the keys, retired contents too."""
        keys = self.enrollment_keys.c.module_id
        return DirectStatement(select(Content.id, *CONTENT_RULE).where(Content.module_id.in_(select(keys))))

    @cached_property
    def read_sessions_of_records(self) -> DirectStatement:
        """Read the sessions of the records under the enrollments of the keys."""
        names = calculations.Session._fields
        records, record, is_under_key = self._records_of_learners([*OWNER, "content_id"])
        source, session = self.look_up(records, Session, names, user_id=record.user_id, content_id=record.content_id)
        return DirectStatement(select(*(session[name] for name in names)).select_from(source).where(is_under_key))

    @cached_property
    def find_records(self) -> DirectStatement:
        """Find the learners and the contents of records by their ids.

        Where the learner is known too, PostgreSQL searches the learner's partition alone, if there are partitions.
        """
        asked, names = self.record_ids.c, ["id", "user_id", "content_id"]
        found = []
        for is_asked, learner in (
            (asked.user_id.is_not(None), {"user_id": asked.user_id}),
            (asked.user_id.is_(None), {}),
        ):
            key: dict[str, Any] = {"id": asked.id, **learner}
            source, record = self.look_up(self.record_ids.table, ProgressRecord, names, **key)
            found.append(select(*(record[name] for name in names)).select_from(source).where(is_asked))
        return DirectStatement(sa.union_all(*found))

    # Corrections: lock, delete.

    @cached_property
    def enrolled_modules(self) -> DirectStatement:
        """List the modules in which a learner is enrolled."""
        return DirectStatement(select(Enrollment.module_id).where(Enrollment.user_id == THE_LEARNER))

    @cached_property
    def lock_known_enrollments(self) -> DirectStatement:
        """Lock those enrollments of the keys that exist."""
        in_order = self._enrolled().order_by(Enrollment.user_id, Enrollment.module_id)
        return DirectStatement(in_order.with_for_update(of=Enrollment))

    @cached_property
    def delete_records(self) -> DirectStatement:
        """Delete records, and their sessions with them."""
        return DirectStatement(self._delete(ProgressRecord, self.records, ["user_id", "content_id"]))

    @cached_property
    def delete_days(self) -> DirectStatement:
        """Delete days of activity."""
        return DirectStatement(self._delete(ActivityDay, self.days, [*OWNER, "day"]))

    @cached_property
    def delete_enrollments(self) -> DirectStatement:
        """Delete the enrollments of the keys."""
        return DirectStatement(self._delete(Enrollment, self.enrollment_keys, OWNER))

    # Catalog changes.

    @cached_property
    def store_contents(self) -> DirectStatement:
        """Store contents, and return the ids of those that belong to the module; others stay as they are."""
        return DirectStatement(self._upsert(Content, self.contents, ["id"], "module_id").returning(Content.id))

    @cached_property
    def store_tallies(self) -> DirectStatement:
        """Add the rows of tallies to those that are stored."""
        return DirectStatement(self._add_to_tallies())

    # Answers to requests with an Idempotency-Key: lock, find, keep.

    @cached_property
    def lock_request_keys(self) -> DirectStatement:
        """Lock request keys in one order (PostgreSQL)."""
        hashes = (func.hashtext(self.request_keys.c[name]).label(name) for name in ("caller_id", "key"))
        ordered = select(*hashes).order_by(literal_column("1"), literal_column("2")).subquery("ordered").c
        return DirectStatement(select(func.pg_advisory_xact_lock(ordered.caller_id, ordered.key)))

    @cached_property
    def find_answers(self) -> DirectStatement:
        """Find the answers that are stored under request keys."""
        key, names = self.request_keys.c, [column.name for column in StoredAnswer.__table__.c]
        source, answer = self.look_up(
            self.request_keys.table, StoredAnswer, names, caller_id=key.caller_id, key=key.key
        )
        return DirectStatement(select(*(answer[name] for name in names)).select_from(source))

    @cached_property
    def keep_answers(self) -> DirectStatement:
        """Store answers under their request keys."""
        body = self.answers.c.body
        as_bytes = func.convert_to(body, "UTF8") if self._is_postgresql else cast(body, sa.LargeBinary)
        names = list(self.answers.columns)
        stored = select(*(as_bytes if name == "body" else self.answers.c[name] for name in names))
        return DirectStatement(self._insert(StoredAnswer).from_select(names, stored))

    # What several statements have in common.

    def look_up(
        self, source: sa.FromClause, model: type[models.Base], names: Sequence[str], *, outer: bool = False, **key: Any
    ) -> tuple[sa.FromClause, Any]:
        """Join each row to the row with a key in another table, and return the named columns of that table too.

        PostgreSQL does not know how few rows there will be, and may choose to scan a small table. OFFSET 0 keeps the
        lookup by key a subquery of its own, which uses the index.
        """
        table = model.__table__
        is_same = and_(*(table.c[name] == value for name, value in key.items()))
        if not self._is_postgresql:
            return source.join(table, is_same, isouter=outer), table.c
        found = select(*(table.c[name] for name in names)).where(is_same).offset(literal_column("0"))
        row = found.lateral(model.__tablename__.removesuffix("s"))
        return source.join(row, true(), isouter=outer), row.c

    def add_to_tallies(self, changes: sa.Select[Any]) -> Any:
        """Add changes, selected in the order of a tally's columns, to the tallies that are stored."""
        names = [*Group._fields, "part", *Counts._fields]
        statement = self._insert(Tally).from_select(names, changes)
        return statement.on_conflict_do_update(
            index_elements=[*Group._fields, "part"],
            set_={name: getattr(Tally, name) + statement.excluded[name] for name in Counts._fields},
        )

    def _add_to_tallies(self) -> Any:
        in_order = (self.tallies.c[name] for name in Group._fields)
        return self.add_to_tallies(select(*self.tallies.c).where(true()).order_by(*in_order))

    def _rows(self, name: str, model: type[models.Base], *names: str, **others: Any) -> Rows:
        return Rows(self._dialect, name, **{name: model.__table__.c[name].type for name in names}, **others)

    def _is_of_keys(self, model: type[models.Base]) -> sa.ColumnElement[bool]:
        return and_(*(getattr(model, name) == self.enrollment_keys.c[name] for name in OWNER))

    def _records_of_learners(self, names: Sequence[str]) -> tuple[sa.FromClause, Any, sa.ColumnElement[bool]]:
        """Join the enrollment keys to all records of their learners; return also which of these are under the key.

        The module is compared after a cast, since SQLite would read all records of the module by their index.
        """
        keys = self.enrollment_keys
        source, record = self.look_up(keys.table, ProgressRecord, names, user_id=keys.c.user_id)
        return source, record, cast(record.module_id, sa.String) == keys.c.module_id

    def _delete(self, model: type[models.Base], rows: Rows, key: Sequence[str]) -> Any:
        stored = sa.tuple_(*(getattr(model, name) for name in key))
        return delete(model).where(stored.in_(select(*(rows.c[name] for name in key))))

    def _enrolled(self) -> sa.Select[Any]:
        enrolled = select(*MODULE, *ENROLLMENT).join(Enrollment, Enrollment.module_id == Module.id)
        return enrolled.join(self.enrollment_keys.table, self._is_of_keys(Enrollment))

    def _share_modules(self, modules: sa.Select[Any]) -> DirectStatement:
        """Share the locks of modules, if they are few, and return the ids of the modules (see `locks.share_modules`).

        Updates run this as a separate statement before they read the catalog: a statement reads only rows that were
        committed when it began.
        """
        if not self._is_postgresql:
            return DirectStatement(modules.distinct())
        # By code point, as Python sorts, so that every transaction takes the locks of several modules in one order.
        module_id = modules.subquery("modules").c.module_id.collate("C").label("module_id")
        ordered = select(module_id).distinct().order_by("module_id").subquery("ordered").c
        counted = select(ordered.module_id, func.count().over().label("number")).subquery("counted").c
        lock = func.pg_advisory_xact_lock_shared(func.hashtextextended(counted.module_id, literal_column(str(CHANGES))))
        is_few = counted.number <= literal_column(str(MOST_LOCKS))
        locked = select(counted.module_id, case((is_few, cast(lock, sa.String))).label("lock")).subquery("locked")
        return DirectStatement(select(locked.c.module_id))

    def _lock_enrollments(
        self, learners: sa.FromClause, *, by_update: bool, counted: sa.ColumnElement[bool]
    ) -> DirectStatement:
        """Lock the learners' enrollments in order, and make those that are missing.

        On PostgreSQL an existing row is locked by its conflict, although it is not changed. Only new rows are returned.
        """
        key = learners.c
        enrolling = {
            "user_id": key.user_id,
            "module_id": key.module_id,
            "status": literal(calculations.ACTIVE),
            "enrolled_at": key.enrolled_at,
            "enrolled_by_update": literal(by_update),
            "counted": counted,
            **{name: literal(0) for name in ("weighted_sum", "completed_contents", "time_spent_seconds")},
        }
        in_order = select(*(column.label(name) for name, column in enrolling.items())).where(true())
        return DirectStatement(
            self._insert(Enrollment)
            .from_select(list(enrolling), in_order.order_by(key.user_id, key.module_id))
            .on_conflict_do_update(index_elements=OWNER, set_={"status": Enrollment.status}, where=sa.false())
            .returning(Enrollment.user_id, Enrollment.module_id)
        )

    def _upsert(self, model: type[models.Base], rows: Rows, key: list[str], *owner: str) -> Any:
        """Insert the rows or replace those with the same key, unless they belong to another owner."""
        names = list(rows.columns)
        in_order = select(*(rows.c[name] for name in names)).where(true()).order_by(*(rows.c[name] for name in key))
        statement = self._insert(model).from_select(names, in_order)
        fixed = {*key, *owner, "id"}
        return statement.on_conflict_do_update(
            index_elements=key,
            set_={name: statement.excluded[name] for name in names if name not in fixed},
            where=and_(true(), *(getattr(model, name) == statement.excluded[name] for name in owner)),
        )


_BUILT: dict[str, Statements] = {}
