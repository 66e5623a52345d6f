"""What support people put right: resets, removals, corrections, excuses, merged learners.

Each function locks the enrollments that it changes, reads everything under them, applies the rules of `calculations`,
recounts the enrollments, and stores the difference. The caller owns the transaction and commits it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select, update

from progress_service import calculations
from progress_service.calculations import (
    ActivityDay,
    Actor,
    ContentRule,
    Denominators,
    Enrollment,
    LineDates,
    Record,
)
from progress_service.store import journal, locks
from progress_service.store.database import Outdated
from progress_service.store.journal import (
    COMPLETIONS,
    CORRECTED,
    ERASED,
    EXCUSED,
    MERGED,
    RESET,
    WITHDRAWN,
)
from progress_service.store.learning import DayKey, EnrollmentKey, Learning, Recorded, RecordKey, SessionKey
from progress_service.store.models import Change, ProgressRecord
from progress_service.store.recorder import (
    SESSION_DAYS,
    NoContent,
    NoRecord,
    add_learning,
    created_keys,
    known_sessions,
    new_record,
    read_line_dates,
    refuse,
    store,
)
from progress_service.store.statements import Statements
from progress_service.store.values import values


class Corrected(NamedTuple):
    """A record and its enrollment, as a correction has left them, and the module's denominators."""

    record: Record
    enrollment: Enrollment
    module: Denominators


class Held(NamedTuple):
    """Everything under some enrollments, which are locked, with the rules of their modules' contents."""

    found: Learning
    before: Learning
    """What is found, without the enrollments that this transaction has made."""
    contents: dict[str, ContentRule]
    modules: dict[str, Denominators]


def reset(connection: Connection, key: EnrollmentKey, *, by: Actor, now: datetime) -> None:
    """Delete a learner's records in a module, and start their enrollment again if there is an enrollment."""
    held = _hold(connection, [key])
    if key not in held.before.enrollments:
        return
    restarted = calculations.restart(held.before.enrollments[key])
    if restarted == held.before.enrollments[key] and not held.before.records and not held.before.days:
        return
    after = Learning.nothing()
    after.enrollments[key] = restarted
    told = journal.of_removal(RESET, key, held.before, held.modules[key.module_id], by, now)
    _finish(connection, held, after, [told], now)


def withdraw(connection: Connection, key: EnrollmentKey, *, by: Actor, now: datetime) -> None:
    """Delete an enrollment with all that is recorded under it, and end its history."""
    held = _hold(connection, [key])
    if key not in held.before.enrollments:
        return
    told = journal.of_removal(WITHDRAWN, key, held.before, held.modules[key.module_id], by, now)
    _finish(connection, held, Learning.nothing(), [told], now)
    is_told = Change.user_id == key.user_id, Change.module_id == key.module_id, Change.is_history
    connection.execute(update(Change).where(*is_told).values(is_history=False))


def erase(connection: Connection, user_id: str, *, by: Actor, now: datetime) -> None:
    """Delete a learner's enrollments with all that is recorded under them, and what the journal tells of them."""
    held = _hold_learner(connection, user_id)
    is_told = journal.forget(connection, user_id)
    changes = [journal.Change(ERASED, now, by, user_id)] if held.before.enrollments or is_told else []
    _finish(connection, held, Learning.nothing(), changes, now)


def remove(connection: Connection, key: EnrollmentKey, content_id: str, *, by: Actor, now: datetime) -> None:
    """Delete a record, with its time and its excuse. Days of activity stay. Raises NoContent."""
    held = _hold(connection, [key])
    _check_content(held, content_id)
    record = held.before.records.get(RecordKey(key.user_id, content_id))
    if record is not None:
        _replace(connection, held, record, None, CORRECTED, by, now)


def correct(
    connection: Connection,
    record_id: UUID,
    given: Mapping[str, Any],
    *,
    of: str | None = None,
    by: Actor,
    now: datetime,
) -> Corrected:
    """Replace values of a record (see `calculations.correct`), of a learner if the caller knows whose it is.

    Raises NoRecord.
    """
    columns = ProgressRecord.user_id, ProgressRecord.module_id, ProgressRecord.content_id
    place = select(*columns).where(ProgressRecord.id == record_id)
    if of is not None:
        place = place.where(ProgressRecord.user_id == of)
    found = connection.execute(place).first()
    if found is None:
        raise NoRecord([0])
    user_id, module_id, content_id = found
    held = _hold(connection, [EnrollmentKey(user_id, module_id)])
    if connection.execute(place).first() != found:
        raise Outdated  # removed, merged into another learner, or moved to another module
    record = held.before.records[RecordKey(user_id, content_id)]
    corrected = calculations.correct(record, given, held.contents[content_id], now)
    return Corrected(corrected, *_replace(connection, held, record, corrected, CORRECTED, by, now))


def excuse(connection: Connection, key: EnrollmentKey, content_id: str, *, by: Actor, now: datetime) -> Corrected:
    """Excuse a learner from a content; a learner who is not enrolled is enrolled. Raises NoContent."""
    held = _hold(connection, [key], enrolling=[key], now=now)
    _check_content(held, content_id)
    record = held.before.records.get(RecordKey(key.user_id, content_id))
    base = record or new_record(key.user_id, content_id, key.module_id, now)
    excused = base._replace(excused_at=base.excused_at or now)
    return Corrected(excused, *_replace(connection, held, record, excused, EXCUSED, by, now))


def withdraw_excuse(connection: Connection, key: EnrollmentKey, content_id: str, *, by: Actor, now: datetime) -> None:
    """Withdraw an excuse: the record is what its updates made it, or goes if there are none. Raises NoContent."""
    held = _hold(connection, [key])
    _check_content(held, content_id)
    record = held.before.records.get(RecordKey(key.user_id, content_id))
    if record is not None and record.excused_at is not None:
        after = record._replace(excused_at=None) if record.started_at is not None else None
        _replace(connection, held, record, after, CORRECTED, by, now)


def merge(
    connection: Connection, user_id: str, into: str, *, session_days: int = SESSION_DAYS, by: Actor, now: datetime
) -> None:
    """Fold one learner into another: they are one person, and nothing of the first remains."""
    held = _hold_learner(connection, user_id, into, now)
    of_first = [key for key in held.before.enrollments if key.user_id == user_id]
    sessions = known_sessions(held.before.sessions.values(), session_days, now)
    after, known = held.before.copy()._replace(sessions=sessions), held.before.copy()
    for key in of_first:
        _merge_enrollment(held, key, into, after, known)
    is_told = journal.rename(connection, user_id, into)
    changes = [journal.Change(MERGED, now, by, user_id, data=journal.into(into))] if of_first or is_told else []
    changes += [
        change for change in journal.of_difference(known, after, held.modules, by, now) if change.type in COMPLETIONS
    ]
    line_dates = list(_merge_line_dates(connection, of_first, into, held.before, after))
    _finish(connection, held, after, changes, now)
    if line_dates:
        sql = Statements.of(connection)
        sql.store_line_dates.send(connection, **sql.line_dates(line_dates))


def _merge_line_dates(
    connection: Connection, keys: Iterable[EnrollmentKey], into: str, before: Learning, after: Learning
) -> Iterator[LineDates]:
    """Fold what imported lines have told of enrollments into what they have told of another learner's."""
    owners = {key: EnrollmentKey(into, key.module_id) for key in keys}
    rows = Statements.of(connection).enrollment_keys((*key, None) for key in (*owners, *owners.values()))
    known = read_line_dates(connection, rows)
    for key, mine in owners.items():
        told, other = (known.get(one, LineDates(*one)) for one in (mine, key))
        joined = calculations.join_dates(told, other, before.enrollments.get(mine), after.enrollments[mine])
        if joined != told:
            yield joined


def _merge_enrollment(held: Held, key: EnrollmentKey, into: str, after: Learning, known: Learning) -> None:
    """Fold an enrollment with everything under it into that of another learner, and note what was known of both.

    Seconds that both learners told of one session leave the first's latest days.
    """
    mine = EnrollmentKey(into, key.module_id)
    other = after.enrollments.pop(key)._replace(user_id=into)
    enrollment = held.before.enrollments.get(mine)
    others, own = _records_of(held.before, key), _records_of(held.before, mine)
    seconds_twice = 0
    for record in others:
        del after.records[_owner(record)]
        record_key = RecordKey(into, record.content_id)
        moved, content = record._replace(user_id=into), held.contents[record.content_id]
        present = after.records.get(record_key)
        counted_twice = _merge_sessions(record, into, after)
        seconds_twice += counted_twice
        merged = calculations.merge(present, moved, content, counted_twice) if present else moved
        after.records[record_key] = merged
        known.records[record_key] = present if present and present.completed_at else moved
    for day_key in sorted((one for one in after.days if one[:2] == key), reverse=True):
        moved_key = DayKey(into, *day_key[1:])
        seconds = after.days.pop(day_key).time_spent_seconds
        left_out = min(seconds, seconds_twice)
        seconds_twice -= left_out
        day = after.days.get(moved_key, ActivityDay(*moved_key))
        after.days[moved_key] = day._replace(time_spent_seconds=day.time_spent_seconds + seconds - left_out)
    merged_records = _records_of(after, mine)
    done = calculations.dates_done(merged_records, held.contents)
    if enrollment is not None:
        own_done, other_done = (calculations.dates_done(records, held.contents) for records in (own, others))
        known.enrollments[mine] = enrollment if enrollment.completed_at else other
        other = calculations.join(enrollment, other, own_done, other_done, done)
    else:
        known.enrollments[mine] = other
    joined = calculations.recount(other, merged_records, held.contents)
    if calculations.is_complete(joined, held.modules[key.module_id]):
        joined = calculations.complete(joined, (), done)
    after.enrollments[mine] = joined


def _merge_sessions(record: Record, into: str, after: Learning) -> int:
    """Give the sessions of a record to another learner; return the seconds of those that both learners told."""
    counted_twice = 0
    for key in [one for one in after.sessions if one[:2] == (record.user_id, record.content_id)]:
        session = after.sessions.pop(key)._replace(user_id=into)
        moved_key = SessionKey(into, *key[1:])
        if present := after.sessions.get(moved_key):
            counted_twice += min(session.time_spent_seconds, present.time_spent_seconds)
            session = max(session, present, key=lambda one: one.time_spent_seconds)._replace(
                received_at=max(session.received_at, present.received_at)
            )
        after.sessions[moved_key] = session
    return counted_twice


def _hold_learner(connection: Connection, user_id: str, into: str | None = None, now: datetime | None = None) -> Held:
    """Lock all enrollments of a learner, and those of another learner in the same modules, until nobody makes more."""
    keys = _enrollments_of(connection, user_id)
    enrolling = [EnrollmentKey(into, key.module_id) for key in keys] if into else []
    held = _hold(connection, keys, enrolling=enrolling, now=now)
    locks.hold_enrolling(connection, filter(None, (user_id, into)))
    locked = sorted(key for key in held.found.enrollments if key.user_id == user_id)
    if not keys == locked == _enrollments_of(connection, user_id):
        raise Outdated  # enrolled, or withdrawn, since the enrollments were listed
    return held


def _enrollments_of(connection: Connection, user_id: str) -> list[EnrollmentKey]:
    found = Statements.of(connection).enrolled_modules.run(connection, user_id=user_id)
    return sorted(EnrollmentKey(user_id, module_id) for (module_id,) in found)


def _hold(
    connection: Connection,
    keys: Collection[EnrollmentKey],
    *,
    enrolling: Collection[EnrollmentKey] = (),
    now: datetime | None = None,
) -> Held:
    """Lock enrollments, those that are missing and wanted too, and read everything under them."""
    sql = Statements.of(connection)
    wanted = {*keys, *enrolling}
    rows = sql.enrollment_keys((*key, now) for key in wanted)
    locks.share_modules(connection, sql.lock_modules, rows, at_most=len(wanted))
    locking, enrolled = [], []
    for user_id in sorted({key.user_id for key in wanted}):  # so that all are locked in the order of every writer
        of_user = sql.enrollment_keys((*key, now) for key in wanted if key.user_id == user_id)
        if any(key.user_id == user_id for key in enrolling):
            locking.append(sql.lock_enrollments.send(connection, **of_user))
            enrolled.append(sql.read_enrollments.send(connection, **of_user))
        else:
            enrolled.append(sql.lock_known_enrollments.send(connection, **of_user))
    records, days = sql.read_records.send(connection, **rows), sql.read_days.send(connection, **rows)
    sessions = sql.read_sessions_of_records.send(connection, **rows)
    contents = {content_id: ContentRule(*rule) for content_id, *rule in sql.read_contents.run(connection, **rows)}

    found, modules = Learning.nothing(), {}
    for module, enrollment in (values(row, Denominators, Enrollment) for read in enrolled for row in read()):
        modules[enrollment.module_id] = module
        found.enrollments[EnrollmentKey(enrollment.user_id, enrollment.module_id)] = enrollment
    add_learning(found, records(), days(), sessions())
    found = found.under_enrollments()  # others were deleted and made again while this waited: they come afterwards
    created = {key for locked in locking for key in created_keys(locked())}
    return Held(found, found.without_enrollments(created), contents, modules)


def _check_content(held: Held, content_id: str) -> None:
    refuse(NoContent, [content_id in held.contents])


def _replace(
    connection: Connection,
    held: Held,
    record: Record | None,
    corrected: Record | None,
    kind: str,
    by: Actor,
    now: datetime,
) -> tuple[Enrollment, Denominators]:
    """Store a corrected record in place of a record, either of which may be missing, and recount its enrollment."""
    some = corrected or record
    assert some is not None
    owner = _owner(some)
    key = EnrollmentKey(some.user_id, some.module_id)
    after = held.found.copy()
    after.records.pop(owner, None)
    if corrected is not None:
        after.records[owner] = corrected
    recounted = calculations.recount(held.found.enrollments[key], _records_of(after, key), held.contents)
    module = held.modules[key.module_id]
    enrollment = after.enrollments[key] = calculations.settle(recounted, module, now)
    told = list(journal.of_difference(held.before, after, held.modules, by, now))
    if corrected != record:
        data = {
            side: journal.facts_of_record(one) if one else None
            for side, one in (("before", record), ("after", corrected))
        }
        place = sum(change.type == journal.ENROLLED for change in told)
        told.insert(place, journal.Change(kind, now, by, *key, some.content_id, data))
    _finish(connection, held, after, told, now)
    return enrollment, module


def _finish(
    connection: Connection, held: Held, after: Learning, changes: Iterable[journal.Change], now: datetime
) -> None:
    """Store the difference, and tell of it."""
    store(connection, Recorded(held.before, after, held.modules, []))
    journal.write(connection, changes, now)


def _owner(record: Record) -> RecordKey:
    return RecordKey(record.user_id, record.content_id)


def _records_of(learning: Learning, key: EnrollmentKey) -> list[Record]:
    return [record for record in learning.records.values() if (record.user_id, record.module_id) == key]
