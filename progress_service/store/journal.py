"""The journal: what happens to learners and modules, told in the transaction in which it happens.

It tells of completions and of what people do, not of every update, so that it grows with these. docs/contract.md
lists the types of changes and what the data of each type has.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, case, delete, insert, literal, or_, select, text, true, update

from progress_service import calculations, figures
from progress_service.calculations import Actor, Denominators, Enrollment, Record
from progress_service.store.database import when_committed
from progress_service.store.functions import settled_after
from progress_service.store.learning import EnrollmentKey, Learning, Step
from progress_service.store.models import CHANGE_TYPES, IDENTIFIER, IS_BY_ANOTHER, IS_MERGED, UtcDateTime
from progress_service.store.models import Change as StoredChange
from progress_service.store.statements import Statements

(
    ENROLLED,
    ENROLLMENT_CHANGED,
    ENROLLMENT_COMPLETED,
    WITHDRAWN,
    CONTENT_COMPLETED,
    EXCUSED,
    CORRECTED,
    RESET,
    MERGED,
    ERASED,
    PUBLISHED,
) = CHANGE_TYPES
COMPLETIONS = (CONTENT_COMPLETED, ENROLLMENT_COMPLETED)
SETTABLE = {"status": "status", "enrolled_at": "enrolledAt", "completed_at": "completedAt", "counted": "counted"}
"""The fields of an enrollment that the platform may change, with their names in the data of a change."""


class Change(NamedTuple):
    """One line of the journal, before it is written."""

    type: str
    time: datetime
    by: Actor
    user_id: str | None = None
    module_id: str | None = None
    content_id: str | None = None
    data: Mapping[str, Any] = {}

    @property
    def is_history(self) -> bool:
        """Whether it belongs to an enrollment, and is kept as long."""
        return self.user_id is not None and self.module_id is not None and self.type != WITHDRAWN


class Told(NamedTuple):
    """One line of the journal, as it is stored; `data` is a JSON object."""

    id: int
    type: str
    time: datetime
    recorded_at: datetime
    user_id: str | None
    module_id: str | None
    content_id: str | None
    by_sub: str | None
    by_role: str
    data: str


def write(connection: Connection, changes: Iterable[Change], now: datetime) -> None:
    """Write changes in their order; the enrollments that they are about are locked."""
    rows = [
        (
            change.type,
            change.time,
            now,
            change.user_id,
            change.module_id,
            change.content_id,
            *change.by,
            _data(change.data),
            change.is_history,
            place,
        )
        for place, change in enumerate(changes)
    ]
    if rows:
        sql = Statements.of(connection)
        sql.write_changes.send(connection, **sql.changes(rows))
    for kind, number in Counter(row[0] for row in rows).items():
        _count(connection, kind, number)


def write_selected(
    connection: Connection,
    kind: str,
    table: Any,
    content_id: Any,
    data: Any,
    where: Iterable[Any],
    by: Actor,
    now: datetime,
    rows: Mapping[str, Any] | None = None,
    *,
    time: Any = None,
) -> None:
    """Write a change of a kind for each of the enrollments or records that the conditions select, as of now.

    Another time is given as a column.
    """
    columns = {
        "settled_after": settled_after(),
        "type": literal(kind),
        "time": literal(now, UtcDateTime()) if time is None else time,
        "recorded_at": literal(now, UtcDateTime()),
        "user_id": table.user_id,
        "module_id": table.module_id,
        "content_id": content_id,
        "by_sub": literal(by.sub, IDENTIFIER),
        "by_role": literal(by.role),
        "data": data,
        "is_history": true(),
    }
    selected = select(*(column.label(name) for name, column in columns.items())).where(*where)
    in_order = selected.order_by(text("user_id"), text("content_id"))
    counted = insert(StoredChange).execution_options(preserve_rowcount=True)
    written = connection.execute(counted.from_select(list(columns), in_order), rows)
    _count(connection, kind, written.rowcount)


def _count(connection: Connection, kind: str, number: int) -> None:
    when_committed(connection, partial(figures.own().changes.labels(kind).inc, number))


def rename(connection: Connection, user_id: str, other: str) -> bool:
    """Give another learner what the journal tells of a learner and of who was merged into the learner; keep erasures.

    What the learner did is the other's too, unless the name is that of a service, which is no person. Returns whether
    there was anything to tell of the learner.
    """
    did = update(StoredChange).where(text(IS_BY_ANOTHER), StoredChange.by_sub == user_id)
    connection.execute(did.values(by_sub=other))
    merged = update(StoredChange).where(_is_merged_into(user_id), StoredChange.user_id != other)
    connection.execute(merged.values(data=_data(into(other))))
    is_told = StoredChange.user_id == user_id, StoredChange.type.not_in((ERASED, MERGED))
    by_sub = case((StoredChange.by_sub == user_id, other), else_=StoredChange.by_sub)
    told = connection.execute(update(StoredChange).where(*is_told).values(user_id=other, by_sub=by_sub))
    return bool(told.rowcount)


def forget(connection: Connection, user_id: str) -> bool:
    """Delete what the journal tells of a learner, and of those who were merged into the learner; keep erasures.

    What the learner did to others is told without the name, unless it is that of a service, which is no person.
    Returns whether there was anything to delete.
    """
    told = connection.execute(delete(StoredChange).where(StoredChange.user_id == user_id, StoredChange.type != ERASED))
    names = [user_id]
    for name in names:
        merged = delete(StoredChange).where(_is_merged_into(name))
        names += filter(None, connection.execute(merged.returning(StoredChange.user_id)).scalars())
    did = update(StoredChange).where(text(IS_BY_ANOTHER), StoredChange.by_sub == user_id)
    connection.execute(did.values(by_sub=None))
    return bool(told.rowcount)


def is_about(user_id: str) -> ColumnElement[bool]:
    """Select the changes about a learner, and those that tell who was merged into the learner."""
    return or_(StoredChange.user_id == user_id, _is_merged_into(user_id))


def _is_merged_into(user_id: str) -> ColumnElement[bool]:
    return and_(text(IS_MERGED), StoredChange.data == _data(into(user_id)))


def into(user_id: str) -> dict[str, Any]:
    """Return the data of a change that tells into whom a learner was merged."""
    return {"into": user_id}


def of_updates(
    steps: Sequence[Step], before: Learning, modules: Mapping[str, Denominators], *, each_alone: bool
) -> Iterator[Change]:
    """Tell what updates have done, request by request: enrolled, completed contents, completed enrollments.

    The updates are of one request, or each is a request of its own. An enrollment that is not in `before` is new. The
    dates are those that the request leaves: a later update in it may have moved them earlier.
    """
    known = {key: enrollment.completed_at is not None for key, enrollment in before.enrollments.items()}
    for request in [[step] for step in steps] if each_alone else [steps]:
        enrolled, completed, enrollments_completed = [], [], []
        records = {step.record.id: step.record for step in request}
        enrollments = {step.enrollment_key: step.enrollment for step in request}
        for step in request:
            key, by = step.enrollment_key, step.update.by
            if key not in known:
                known[key] = False
                enrolled.append(_enrolled(enrollments[key], by))
            if calculations.completes(step.before, step.record):
                completed.append(_content_completed(records[step.record.id], by))
            if not known[key] and step.enrollment.completed_at is not None:
                known[key] = True
                enrollments_completed.append(_enrollment_completed(enrollments[key], modules[key.module_id], by))
        yield from (*enrolled, *completed, *enrollments_completed)


def of_difference(
    before: Learning,
    after: Learning,
    modules: Mapping[str, Denominators],
    by: Actor,
    at: datetime,
    dates: Mapping[EnrollmentKey, datetime] = {},
) -> Iterator[Change]:
    """Tell what has become of learners: enrolled, changed, completed contents, completed enrollments.

    A change of an enrollment happened at its own date, if it has any.
    """
    for key, enrollment in after.enrollments.items():
        known = before.enrollments.get(key)
        if known is None:
            yield _enrolled(enrollment, by)
        elif changed := _changed(known, enrollment):
            yield _about(enrollment, ENROLLMENT_CHANGED, dates.get(key, at), by, changed)
    for record_key, record in after.records.items():
        if calculations.completes(before.records.get(record_key), record):
            yield _content_completed(record, by)
    for key, enrollment in after.enrollments.items():
        if calculations.completes(before.enrollments.get(key), enrollment):
            yield _enrollment_completed(enrollment, modules[key.module_id], by)


def of_removal(
    kind: str, key: EnrollmentKey, before: Learning, module: Denominators, by: Actor, at: datetime
) -> Change:
    """Tell what was recorded under an enrollment that is reset or withdrawn."""
    records = [record for record in before.records.values() if record.module_id == key.module_id]
    data = {
        **_facts_of_enrollment(before.enrollments[key], module),
        "contents": [{"contentId": record.content_id, **facts_of_record(record)} for record in records],
    }
    return Change(kind, at, by, *key, data=data)


def facts_of_record(record: Record) -> dict[str, Any]:
    """Return what a reader must know of a record."""
    return {
        "progressPercentage": record.progress_percentage,
        "timeSpentSeconds": record.time_spent_seconds,
        "scorePercentage": calculations.score_percentage(record.score, record.max_score),
        "completedAt": record.completed_at,
        "excusedAt": record.excused_at,
    }


def _facts_of_enrollment(enrollment: Enrollment, module: Denominators) -> dict[str, Any]:
    return {
        "status": enrollment.status,
        "progressPercentage": calculations.module_percentage(enrollment, module),
        "timeSpentSeconds": enrollment.time_spent_seconds,
        "completedAt": enrollment.completed_at,
    }


def _data(data: Mapping[str, Any]) -> str:
    return msgspec.json.encode(data).decode()


def _enrolled(enrollment: Enrollment, by: Actor) -> Change:
    status = calculations.ACTIVE if enrollment.status == calculations.COMPLETED else enrollment.status  # told by itself
    data = {"status": status, "counted": enrollment.counted}
    return _about(enrollment, ENROLLED, enrollment.enrolled_at, by, data)


def _changed(before: Enrollment, after: Enrollment) -> dict[str, Any]:
    """Return the fields that the platform has changed, before and after; a completion is told by itself."""
    names = [
        name
        for name in SETTABLE
        if getattr(before, name) != getattr(after, name)
        and not (name in ("status", "completed_at") and calculations.completes(before, after))
    ]
    if not names:
        return {}
    return {
        side: {SETTABLE[name]: getattr(enrollment, name) for name in names}
        for side, enrollment in (("before", before), ("after", after))
    }


def _content_completed(record: Record, by: Actor) -> Change:
    score_percentage = calculations.score_percentage(record.score, record.max_score)
    owner = record.user_id, record.module_id, record.content_id
    assert record.completed_at is not None
    return Change(CONTENT_COMPLETED, record.completed_at, by, *owner, {"scorePercentage": score_percentage})


def _enrollment_completed(enrollment: Enrollment, module: Denominators, by: Actor) -> Change:
    percentage = calculations.module_percentage(enrollment, module)
    assert enrollment.completed_at is not None
    return _about(enrollment, ENROLLMENT_COMPLETED, enrollment.completed_at, by, {"progressPercentage": percentage})


def _about(enrollment: Enrollment, kind: str, time: datetime, by: Actor, data: Mapping[str, Any]) -> Change:
    return Change(kind, time, by, enrollment.user_id, enrollment.module_id, None, data)
