"""The queries for answers about a learner's progress; the number of statements is constant."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Integer, Subquery, and_, bindparam, case, func, literal_column, or_, select, true
from sqlalchemy.orm import aliased

from progress_service import calculations
from progress_service.calculations import ACTIVE, DROPPED, PAUSED
from progress_service.store import journal
from progress_service.store.direct import DirectStatement
from progress_service.store.functions import one_of
from progress_service.store.journal import Told
from progress_service.store.learning import RecordKey
from progress_service.store.models import (
    ActivityDay,
    Change,
    Content,
    Enrollment,
    ImportedEnrollment,
    Module,
    ModuleInstructor,
    ProgressRecord,
    Session,
    StoredAnswer,
)
from progress_service.store.statements import Statements
from progress_service.store.values import (
    ACTIVITY_DAY,
    CONTENT_RULE,
    ENROLLMENT,
    LINE_DATES,
    MODULE,
    RECORD,
    SESSION,
    columns,
    values,
)
from progress_service.web import idempotency
from progress_service.web.documents import ListedContent


class EnrolledModule(NamedTuple):
    """A module in which a learner is enrolled."""

    title: str
    module: calculations.Denominators
    enrollment: calculations.Enrollment


class ContentProgress(NamedTuple):
    """A content of a module with its rule, and a learner's record of it, if there is one."""

    content: ListedContent
    rule: calculations.ContentRule
    record: calculations.Record | None


class LearnerModule(NamedTuple):
    """A module with its current contents in order, and a learner's enrollment and records, if there are any."""

    title: str
    module: calculations.Denominators
    enrollment: calculations.Enrollment | None
    contents: Sequence[ContentProgress]


class Following(NamedTuple):
    """The content with which a learner continues, and their record of it, if there is one."""

    module_id: str
    content_id: str
    title: str
    progress_percentage: int
    position: str | None
    last_activity_at: datetime | None


THE_LEARNER: Any = bindparam("user_id", type_=ProgressRecord.user_id.type)
THE_MODULE: Any = bindparam("module_id", type_=Module.id.type)


def _following() -> Subquery:
    """Find the content with which the learner continues, in one row or none.

    The module is the unfinished module with the latest activity, or else with the latest enrollment. In that module the
    content of the latest update is first, if it is unfinished. Of the other unfinished contents, counted contents are
    before optional contents, and among these the contents behind that content are before the contents in front of it.
    """
    current, last, record = aliased(Content), aliased(Content), aliased(ProgressRecord)
    mine = and_(record.content_id == current.id, record.user_id == THE_LEARNER)
    is_open = and_(~current.retired, record.completed_at.is_(None), record.excused_at.is_(None))
    opened = select(current.id).outerjoin(record, mine).where(current.module_id == Enrollment.module_id, is_open)
    is_on_the_way = one_of(Enrollment.status, (ACTIVE, PAUSED))
    module = (
        select(Enrollment.module_id, Enrollment.last_content_id)
        .join(Module, Module.id == Enrollment.module_id)
        .where(
            Enrollment.user_id == THE_LEARNER,
            Enrollment.status != literal_column(f"'{DROPPED}'"),
            or_(Enrollment.completed_contents < Module.total_contents, and_(is_on_the_way, opened.exists())),
        )
        .order_by(Enrollment.last_activity_at.desc().nulls_last(), Enrollment.enrolled_at.desc(), Enrollment.module_id)
        .limit(literal_column("1"))
        .subquery("following_module")
    )
    return (
        select(
            current.module_id,
            current.id.label("content_id"),
            current.title,
            func.coalesce(record.progress_percentage, literal_column("0")).label("progress_percentage"),
            record.position,
            record.last_activity_at,
        )
        .select_from(module)
        .join(current, current.module_id == module.c.module_id)
        .outerjoin(record, mine)
        .outerjoin(last, and_(last.id == module.c.last_content_id, ~last.retired))
        .where(is_open)
        .order_by(
            case((current.id == module.c.last_content_id, 0), (current.weight > 0, 1), else_=2),
            case((current.ordinal > last.ordinal, 0), else_=1),
            current.ordinal,
        )
        .limit(literal_column("1"))
        .subquery("following")
    )


_FOLLOWING = _following()
DASHBOARD = DirectStatement(
    select(*_FOLLOWING.c, *MODULE, *ENROLLMENT, Module.title)
    .select_from(Enrollment)
    .join(Module, Module.id == Enrollment.module_id)
    .outerjoin(_FOLLOWING, true())
    .where(Enrollment.user_id == THE_LEARNER)
    .order_by(Enrollment.last_activity_at.desc().nulls_last(), Enrollment.module_id)
)
_HEAD = Module.title, *MODULE, *ENROLLMENT
LEARNER_MODULE = DirectStatement(
    select(*_HEAD, *columns(Content, ListedContent), *CONTENT_RULE, *RECORD)
    .select_from(Module)
    .outerjoin(Enrollment, and_(Enrollment.module_id == Module.id, Enrollment.user_id == THE_LEARNER))
    .outerjoin(Content, and_(Content.module_id == Module.id, ~Content.retired))
    .outerjoin(ProgressRecord, and_(ProgressRecord.content_id == Content.id, ProgressRecord.user_id == THE_LEARNER))
    .where(Module.id == THE_MODULE)
    .order_by(Content.ordinal)
)


_CHANGE = columns(Change, Told)
_TOLD = (
    select(*_CHANGE)
    .where(Change.user_id == THE_LEARNER, Change.module_id == THE_MODULE, Change.is_history)
    .where(Change.id < bindparam("before", type_=Change.id.type))
    .order_by(Change.id.desc())
    .limit(bindparam("limit", type_=Integer()))
    .subquery("told")
)
HISTORY = DirectStatement(
    select(*_TOLD.c)
    .select_from(Module)
    .outerjoin(_TOLD, true())
    .where(Module.id == THE_MODULE)
    .order_by(_TOLD.c.id.desc())
)


def dashboard(connection: Connection, user_id: str) -> tuple[list[EnrolledModule], Following | None]:
    """List a learner's modules, latest activity first, and find the content with which they continue."""
    modules: list[EnrolledModule] = []
    following = None
    for *row, title in DASHBOARD.run(connection, user_id=user_id):
        following, module, enrollment = values(row, Following, calculations.Denominators, calculations.Enrollment)
        modules.append(EnrolledModule(title, module, enrollment))
    return modules, following


def learner_module(connection: Connection, user_id: str, module_id: str) -> LearnerModule | None:
    """Find a module with its contents, and a learner's records of them."""
    rows = LEARNER_MODULE.run(connection, user_id=user_id, module_id=module_id)
    if not rows:
        return None
    title, *row = rows[0]
    module, enrollment = values(row, calculations.Denominators, calculations.Enrollment)
    kinds = ListedContent, calculations.ContentRule, calculations.Record
    progress = [ContentProgress(*values(row[len(_HEAD) :], *kinds)) for row in rows]
    return LearnerModule(title, module, enrollment, [content for content in progress if content.content])


def history(connection: Connection, user_id: str, module_id: str, before: int, limit: int) -> list[Told] | None:
    """List what happened to a learner in a module before a change, newest first; None if there is no such module."""
    rows = HISTORY.run(connection, user_id=user_id, module_id=module_id, before=before, limit=limit)
    return [told for row in rows for told in values(row, Told) if told] if rows else None


def record_keys(connection: Connection, asked: Sequence[tuple[UUID | None, str | None]]) -> list[RecordKey | None]:
    """Find the learner and the content of each record by its id, and by its learner where the caller knows them.

    None stands for a record that is not there, or is another learner's.
    """
    sql = Statements.of(connection)
    rows = sql.record_ids((record_id, user_id) for record_id, user_id in asked if record_id)
    found: dict[UUID | None, RecordKey] = {
        record_id: RecordKey(*key) for record_id, *key in sql.find_records.run(connection, **rows)
    }
    return [
        key if (key := found.get(record_id)) and user_id in (None, key.user_id) else None
        for record_id, user_id in asked
    ]


def known_contents(connection: Connection, content_ids: Collection[str]) -> set[str]:
    """Return the ids of contents that are in the catalog."""
    return set(connection.execute(select(Content.id).where(Content.id.in_(content_ids))).scalars())


def line_dates(connection: Connection, user_id: str) -> list[calculations.LineDates]:
    """List as of when imported lines have told the fields of a learner's enrollments."""
    found = select(*LINE_DATES).where(ImportedEnrollment.user_id == user_id).order_by(ImportedEnrollment.module_id)
    return [calculations.LineDates(*row) for row in connection.execute(found)]


def records(connection: Connection, user_id: str) -> list[tuple[str, calculations.Record]]:
    """List all records of a learner by their start, of retired contents too, each with the content's title."""
    found = (
        select(Content.title, *RECORD)
        .join(ProgressRecord, ProgressRecord.content_id == Content.id)
        .where(ProgressRecord.user_id == user_id)
        .order_by(ProgressRecord.started_at.nulls_last(), ProgressRecord.id)
    )
    return [(title, calculations.Record(*row)) for title, *row in connection.execute(found)]


def activity_days(connection: Connection, user_id: str) -> list[calculations.ActivityDay]:
    """List a learner's days of activity."""
    found = select(*ACTIVITY_DAY).where(ActivityDay.user_id == user_id).order_by(ActivityDay.day, ActivityDay.module_id)
    return [calculations.ActivityDay(*row) for row in connection.execute(found)]


def sessions(connection: Connection, user_id: str) -> list[calculations.Session]:
    """List the sessions of a learner that are still known."""
    found = (
        select(*SESSION)
        .where(Session.user_id == user_id)
        .order_by(Session.received_at, Session.content_id, Session.session)
    )
    return [calculations.Session(*row) for row in connection.execute(found)]


def changes(connection: Connection, user_id: str) -> list[Told]:
    """List what happened to a learner, and to those who were merged into the learner, in the order of recording."""
    found = select(*_CHANGE).where(journal.is_about(user_id)).order_by(Change.id)
    return [Told(*row) for row in connection.execute(found)]


def taught_modules(connection: Connection, user_id: str) -> Sequence[Any]:
    """List the modules that a user teaches."""
    found = select(Module.id, Module.title).join(ModuleInstructor).where(ModuleInstructor.user_id == user_id)
    return connection.execute(found.order_by(Module.id)).all()


def stored_answers(connection: Connection, user_id: str) -> Sequence[Any]:
    """List the stored answers that a user got, and those that name the user."""
    found = select(*StoredAnswer.__table__.columns).where(idempotency.about(connection, user_id))
    return connection.execute(found.order_by(StoredAnswer.stored_at, StoredAnswer.key)).all()
