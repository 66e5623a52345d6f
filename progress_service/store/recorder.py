"""The write path: every change of a record, an enrollment or a day of activity goes through here.

Each function locks, reads, refuses what cannot be applied, applies the rules of `calculations`, and stores, in this
order (docs/architecture.md, "The way of an update"). Its caller owns the transaction and commits it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from random import randrange
from secrets import randbits
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from progress_service import calculations, figures, tallies
from progress_service.calculations import (
    ActivityDay,
    Actor,
    ContentRule,
    Denominators,
    Enrollment,
    LineDates,
    Record,
    Session,
    Update,
)
from progress_service.store import journal, locks
from progress_service.store.database import Outdated, when_committed
from progress_service.store.learning import (
    DayKey,
    EnrollmentChange,
    EnrollmentKey,
    Learning,
    Recorded,
    RecordKey,
    SessionKey,
    Step,
)
from progress_service.store.statements import Statements
from progress_service.store.values import values

SESSION_DAYS = 30
"""For how many days a session is known after it was last received, if no setting says otherwise."""
TALLY_PARTS = 8
"""The number of rows of each tally. A writer adds to a random row, so that writers of a module seldom meet."""


Rows = Iterable[tuple[Any, ...]]


class Catalog(NamedTuple):
    """The contents that updates name, and the denominators of their modules, by id."""

    contents: dict[str, ContentRule]
    modules: dict[str, Denominators]


class Refused(Exception):
    """Some items of a request cannot be applied; `places` are their indexes. Nothing may be committed.

    If the reason is another thing for each item, `names` has the names of these things.
    """

    def __init__(self, places: Sequence[int], names: Sequence[str] = ()) -> None:
        self.places, self.names = places, names


class UnknownContent(Refused):
    """The content is not in the catalog."""


class UnknownModule(Refused):
    """The module is not in the catalog."""


class NoContent(Refused):
    """The module has no such content, neither current nor retired."""


class NotEnrolled(Refused):
    """The learner is not enrolled in the content's module."""


class NoRecord(Refused):
    """There is no such record, or not for this caller."""


class CriteriaNotMet(Refused):
    """The best score does not reach the content's passing score, so that the record cannot be completed."""


def record(
    connection: Connection,
    updates: Sequence[Update],
    *,
    auto_enroll: bool,
    now: datetime,
    session_days: int = SESSION_DAYS,
    each_alone: bool = False,
) -> Recorded:
    """Fold updates into their records and enrollments, in order, all or none.

    With `each_alone` each update is a request of its own, and the journal tells of them one after another. The number
    of statements is the same for one update and for a thousand. There is one more where an enrollment completes or its
    completion moves earlier, one where the journal has something to tell, and two where updates name sessions.
    Raises UnknownContent, NotEnrolled and CriteriaNotMet.
    """
    sql = Statements.of(connection)
    rows = sql.keys(_keys(updates))
    at_most = len({update.content_id for update in updates})
    shared = locks.share_modules(connection, sql.lock_modules_of_contents, rows, at_most=at_most)
    locked = sql.lock_enrollments_of_contents.send(connection, **rows)
    sessions = _send_sessions(connection, updates)
    catalog, found = _read(connection, rows, shared)
    created = created_keys(locked())
    refuse(UnknownContent, [update.content_id in catalog.contents for update in updates])
    if not auto_enroll:
        refuse(NotEnrolled, [_enrollment_key(update, catalog) not in created for update in updates])
    found.sessions.update(known_sessions(map(Session._make, sessions()), session_days, now))
    after = found.copy()
    folded = [_fold(after, update, catalog.contents[update.content_id], now) for update in updates]
    refuse(CriteriaNotMet, [step is not None for step in folded])
    steps = [step for step in folded if step is not None]
    recorded = Recorded(found.without_enrollments(created), after, catalog.modules, steps)
    _date_completions(connection, recorded, catalog.contents, rows)
    store(connection, recorded)
    journal.write(connection, journal.of_updates(steps, recorded.before, recorded.modules, each_alone=each_alone), now)
    when_committed(connection, partial(figures.own().updates.inc, len(updates)))
    return recorded


def _keys(updates: Sequence[Update]) -> Iterable[tuple[Any, ...]]:
    """Return each learner, content and day once, with the time, the sender and the place of the first update."""
    keys: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for place, update in enumerate(updates):
        key = update.user_id, update.content_id, update.occurred_at.date()
        keys.setdefault(key, (*key, update.occurred_at, update.by.is_instructor, place))
    return keys.values()


def created_keys(locked: Iterable[tuple[Any, ...]]) -> set[EnrollmentKey]:
    """Return the keys of the enrollments that were made when they were locked."""
    return {EnrollmentKey(*key) for key in locked}


def _read(connection: Connection, rows: Mapping[str, Any], shared: Callable[[], set[str]]) -> tuple[Catalog, Learning]:
    """Read everything that the updates build on. The locks are held: rows that are read before may be outdated."""
    catalog, found = Catalog({}, {}), Learning.nothing()
    read = Statements.of(connection).read.run(connection, **rows)
    module_ids = shared()
    for row in read:
        key, content, module, enrollment, record, day = values(
            row, RecordKey, ContentRule, Denominators, Enrollment, Record, ActivityDay
        )
        if content.module_id not in module_ids:
            raise Outdated  # published, or moved to another module, since the locks were taken
        catalog.contents[key.content_id], catalog.modules[content.module_id] = content, module
        found.enrollments[EnrollmentKey(key.user_id, content.module_id)] = enrollment
        if record:
            found.records[key] = record
        if day:
            found.days[DayKey(key.user_id, content.module_id, day.day)] = day
    return catalog, found


def _send_sessions(connection: Connection, updates: Sequence[Update]) -> Callable[[], Iterable[tuple[Any, ...]]]:
    """Read the sessions that updates name, if there are any, together with what is read next."""
    named = {SessionKey(update.user_id, update.content_id, update.session) for update in updates if update.session}
    if not named:
        return tuple
    sql = Statements.of(connection)
    return sql.read_sessions.send(connection, **sql.session_keys(named))


def known_sessions(sessions: Iterable[Session], days: int, now: datetime) -> dict[SessionKey, Session]:
    """Return the sessions that are not forgotten, whether or not those that are were deleted already."""
    since = now - timedelta(days=days)
    return {SessionKey(*session[:3]): session for session in sessions if session.received_at > since}


def _enrollment_key(update: Update, catalog: Catalog) -> EnrollmentKey:
    return EnrollmentKey(update.user_id, catalog.contents[update.content_id].module_id)


def _fold(learning: Learning, update: Update, content: ContentRule, now: datetime) -> Step | None:
    """Apply an update to its record, day of activity and enrollment; None if the passing score forbids it."""
    user_id, module_id, at = update.user_id, content.module_id, update.occurred_at
    key = RecordKey(user_id, update.content_id)
    found = learning.records.get(key)
    before = found or new_record(*key, module_id, now)
    told = update
    if update.session is not None:
        session_key = SessionKey(*key, update.session)
        session, added = calculations.sit(learning.sessions.get(session_key), update, now)
        learning.sessions[session_key], update = session, update._replace(time_spent_seconds=added)
    try:
        after = learning.records[key] = calculations.apply(before, update, content)
    except calculations.CriteriaNotMet:
        return None
    day_key = DayKey(user_id, module_id, at.date())
    day = learning.days.get(day_key, ActivityDay(*day_key))
    learning.days[day_key] = day._replace(time_spent_seconds=day.time_spent_seconds + update.time_spent_seconds)
    enrollment_key = EnrollmentKey(user_id, module_id)
    enrollment = calculations.count(learning.enrollments[enrollment_key], before, after, update, content)
    learning.enrollments[enrollment_key] = enrollment
    return Step(told, found, after, enrollment)


def _date_completions(
    connection: Connection, recorded: Recorded, contents: Mapping[str, ContentRule], rows: Mapping[str, Any]
) -> None:
    """Complete the enrollments that are complete, and date those whose completion a late report moves earlier.

    This goes update by update, so that each step has the enrollment as its update has left it.
    """
    before, after, modules, steps = recorded
    dated = {
        step.enrollment_key
        for step in steps
        if calculations.is_complete(step.enrollment, modules[step.enrollment.module_id])
        or (step.moves_completion and step.enrollment.completed_at is not None)
    }
    if not dated:
        return
    sql = Statements.of(connection)
    keys = sql.enrollment_keys((*key, None) for key in dated)
    others = sql.last_completions.run(connection, **keys, **rows)
    dates = {EnrollmentKey(user_id, module_id): {"": at} if at else {} for user_id, module_id, at in others}
    for record in before.records.values():
        _note_completion(record, contents, dates)
    completed: dict[EnrollmentKey, Enrollment] = {}
    for place, step in enumerate(steps):
        key, enrollment = step.enrollment_key, step.enrollment
        if key not in dated:
            continue
        if key in completed:
            known = completed[key]
            enrollment = enrollment._replace(status=known.status, completed_at=known.completed_at)
        done = list(dates[key].values())
        _note_completion(step.record, contents, dates)
        if enrollment.completed_at is not None or calculations.is_complete(enrollment, modules[key.module_id]):
            enrollment = calculations.complete(enrollment, done, dates[key].values())
        completed[key] = enrollment
        steps[place] = step._replace(enrollment=enrollment)
    after.enrollments.update(completed)


def _note_completion(
    record: Record, contents: Mapping[str, ContentRule], dates: Mapping[EnrollmentKey, dict[str, datetime]]
) -> None:
    """Note when a counted content was completed, under the enrollments whose dates are noted."""
    noted = dates.get(EnrollmentKey(record.user_id, record.module_id))
    if noted is not None and record.done_at is not None and contents[record.content_id].counted_weight:
        noted[record.content_id] = record.done_at


def enroll(connection: Connection, changes: Sequence[EnrollmentChange], *, now: datetime, by: Actor) -> Recorded:
    """Enroll learners, or change their enrollments; a completed enrollment keeps its status. Raises UnknownModule.

    Of what imported lines tell of a field of an enrollment, the latest counts, in whatever order they are given.
    """
    sql = Statements.of(connection)
    keys = {EnrollmentKey(change.user_id, change.module_id) for change in changes}
    rows = sql.enrollment_keys((*key, now) for key in keys)
    locks.share_modules(connection, sql.lock_modules, rows, at_most=len(keys))
    locked = sql.lock_enrollments.send(connection, **rows)
    modules: dict[str, Denominators] = {}
    found = Learning.nothing()
    for row in sql.read_enrollments.run(connection, **rows):
        module, enrollment = values(row, Denominators, Enrollment)
        modules[enrollment.module_id] = module
        found.enrollments[EnrollmentKey(enrollment.user_id, enrollment.module_id)] = enrollment
    refuse(UnknownModule, [change.module_id in modules for change in changes])
    enrollments = dict(found.enrollments)
    if any(change.told_at for change in changes):
        changes = _heed(connection, changes, rows, now)
    for change in changes:
        key = EnrollmentKey(change.user_id, change.module_id)
        changed = calculations.change(enrollments[key], **change.given, now=now)
        enrollments[key] = calculations.settle(changed, modules[change.module_id], now)
    before = found.without_enrollments(created_keys(locked()))
    toggled = [key for key, enrollment in before.enrollments.items() if enrollment.counted != enrollments[key].counted]
    if toggled:
        rows = sql.enrollment_keys((*key, None) for key in toggled)
        records, days = sql.read_records.send(connection, **rows), sql.read_days.send(connection, **rows)
        add_learning(before, records(), days())
    recorded = Recorded(before, before._replace(enrollments=enrollments), modules, [])
    store(connection, recorded)
    dates = {EnrollmentKey(change.user_id, change.module_id): change.told_at or now for change in changes}
    journal.write(connection, journal.of_difference(*recorded[:3], by, now, dates), now)
    return recorded


def _heed(
    connection: Connection, lines: Sequence[EnrollmentChange], rows: Mapping[str, Any], now: datetime
) -> list[EnrollmentChange]:
    """Return imported lines in the order of their dates, without what later lines have told; note their dates."""
    sql = Statements.of(connection)
    known = read_line_dates(connection, rows)
    told, heeded = dict(known), []
    for line in sorted(lines, key=lambda line: line.told_at or now):
        key = EnrollmentKey(line.user_id, line.module_id)
        told[key], outdated = calculations.heed(told.get(key, LineDates(*key)), line.given, line.told_at or now)
        nothing: dict[str, Any] = dict.fromkeys(outdated)
        heeded.append(line._replace(**nothing))
    changed = (one for key, one in told.items() if one != known.get(key, LineDates(*key)))
    sql.store_line_dates.send(connection, **sql.line_dates(changed))
    return heeded


def read_line_dates(connection: Connection, rows: Mapping[str, Any]) -> dict[EnrollmentKey, LineDates]:
    """Read as of when imported lines have told the fields of enrollments."""
    read = Statements.of(connection).read_line_dates.run(connection, **rows)
    return {EnrollmentKey(*row[:2]): LineDates._make(row) for row in read}


def add_learning(learning: Learning, records: Rows, days: Rows, sessions: Rows = ()) -> None:
    """Add rows of records, days of activity and sessions, but for those of enrollments that are not there.

    Such an enrollment was made after the others were locked.
    """
    learning.records.update(
        (RecordKey(record.user_id, record.content_id), record)
        for record in map(Record._make, records)
        if EnrollmentKey(record.user_id, record.module_id) in learning.enrollments
    )
    learning.days.update(
        (DayKey(*day[:3]), day)
        for day in map(ActivityDay._make, days)
        if EnrollmentKey(day.user_id, day.module_id) in learning.enrollments
    )
    learning.sessions.update(
        (SessionKey(*session[:3]), session)
        for session in map(Session._make, sessions)
        if RecordKey(session.user_id, session.content_id) in learning.records
    )


def store(connection: Connection, recorded: Recorded) -> None:
    """Write the values that have changed, delete those that are gone, and carry the changes over to the tallies."""
    sql = Statements.of(connection)
    before, after, modules, _ = recorded
    enrolled = {locks.group_of(key.user_id) for key in after.enrollments.keys() - before.enrollments.keys()}
    if enrolled:
        locks.share_enrolling(connection, sql.share_enrolling, sql.ids((group,) for group in enrolled))
    removed, added = before.difference(after), after.difference(before)
    _delete(connection, removed.without(after))
    changes = tallies.Changes()
    changes.replace(removed.shares(modules, before.enrollments), added.shares(modules, after.enrollments))
    rows = {
        **record_rows(connection, added),
        **sql.enrollments(added.enrollments.values()),
        **sql.days(added.days.values()),
        **sql.tallies(tally_rows(changes)),
    }
    for statement in sql.store:
        statement.send(connection, **rows)
    if added.sessions:
        sql.store_sessions.send(connection, **sql.sessions(added.sessions.values()))


def _delete(connection: Connection, gone: Learning) -> None:
    sql = Statements.of(connection)
    if gone.records:
        sql.delete_records.send(connection, **record_rows(connection, gone))
    if gone.days:
        sql.delete_days.send(connection, **sql.days(gone.days.values()))
    if gone.enrollments:
        sql.delete_enrollments.send(connection, **sql.enrollment_keys((*key, None) for key in gone.enrollments))


def record_rows(connection: Connection, learning: Learning) -> dict[str, str]:
    """Return the records as rows of statements."""
    records = learning.records.values()
    return Statements.of(connection).records((*record, record.progress_percentage) for record in records)


def tally_rows(changes: tallies.Changes) -> list[tuple[Any, ...]]:
    """Return the rows that add changes to one of the parts of each tally."""
    part = randrange(TALLY_PARTS)
    return [(*group, part, *counts) for group, counts in changes.items() if any(counts)]


def refuse(refusal: type[Refused], are_fine: Sequence[bool]) -> None:
    """Raise a refusal that names the places of the items that are not fine, if there are any."""
    places = [place for place, is_fine in enumerate(are_fine) if not is_fine]
    if places:
        raise refusal(places)


def new_record(user_id: str, content_id: str, module_id: str, now: datetime) -> Record:
    """Return a record without any update."""
    return Record(_uuid7(now), user_id, module_id, content_id, None, None)


def _uuid7(now: datetime) -> UUID:
    """Return a UUID that sorts by time (RFC 9562, version 7), so that new records stand together in their index."""
    milliseconds = int(now.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | randbits(12) << 64 | 2 << 62 | randbits(62))
