"""The one write path: every change of a record, an enrollment or a total goes through here.

Locks are taken in one order, so that writers queue and do not deadlock: first modules, then enrollments by user and
module, and the rows of the tallies last. On SQLite a writer's transaction holds the only write lock from its begin, and
these locks are not needed. Whoever calls owns the transaction and commits it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from random import randrange
from secrets import randbits
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Select, delete, insert, select, text, update

from progress_service import calculations, models, recount, tallies
from progress_service.calculations import ActivityDay, Content, Enrollment, Module, Record, Update
from progress_service.prepared import Prepared
from progress_service.recount import Drift
from progress_service.statements import (
    CHANGES,
    ENROLLMENT,
    MODULE,
    MOST_LOCKS,
    REPAIRS,
    Statements,
    columns,
    exclusive_lock,
    values,
)

TALLY_PARTS = 8
"""In how many rows a tally is kept, so that writers of one module seldom wait for one another."""


class Refused(Exception):
    """A request cannot be applied because of what stands at some places in it; nothing may be committed.

    The docstring of each kind says, to the caller, what is wrong at each place.
    """

    def __init__(self, places: Sequence[int]) -> None:
        self.places = places


class UnknownContent(Refused):
    """The content is not in the catalog."""


class UnknownModule(Refused):
    """The module is not in the catalog."""


class NotEnrolled(Refused):
    """The learner is not enrolled in the content's module."""


class ContentElsewhere(Refused):
    """The content belongs to another module."""


class RecordKey(NamedTuple):
    user_id: str
    content_id: str


class EnrollmentKey(NamedTuple):
    user_id: str
    module_id: str


class DayKey(NamedTuple):
    user_id: str
    module_id: str
    day: date


class EnrollmentChange(NamedTuple):
    """A learner is to be enrolled, or their enrollment changed; what is None stays as it is."""

    user_id: str
    module_id: str
    status: str | None = None
    enrolled_at: datetime | None = None
    counted: bool | None = None


class Learning(NamedTuple):
    """What is stored about some learners: their enrollments, records and days of activity."""

    enrollments: dict[EnrollmentKey, Enrollment]
    records: dict[RecordKey, Record]
    days: dict[DayKey, ActivityDay]

    def before(self, created: Collection[EnrollmentKey]) -> "Learning":
        """Return what there was before some enrollments were made, which are in no tally yet."""
        enrollments = {key: one for key, one in self.enrollments.items() if key not in created}
        return Learning(enrollments, dict(self.records), dict(self.days))

    def without(self, other: "Learning") -> "Learning":
        """Return what is not the same in the other; of learners who now count, or no longer, all there is."""
        turned = {
            key
            for key, one in self.enrollments.items()
            if key in other.enrollments and other.enrollments[key].counted != one.counted
        }
        return Learning(
            _without(self.enrollments, other.enrollments, turned),
            _without(self.records, other.records, turned),
            _without(self.days, other.days, turned),
        )

    def shares(
        self, modules: Mapping[str, Module], enrollments: Mapping[EnrollmentKey, Enrollment]
    ) -> Iterator[tallies.Share]:
        """Yield what all of it counts in the tallies of the modules, under the learners' enrollments."""
        for enrollment in self.enrollments.values():
            if enrollment.counted:
                yield from tallies.of_enrollment(enrollment, modules[enrollment.module_id])
        for record in self.records.values():
            if enrollments[EnrollmentKey(record.user_id, record.module_id)].counted:
                yield from tallies.of_record(record)
        for day in self.days.values():
            if enrollments[EnrollmentKey(day.user_id, day.module_id)].counted:
                yield from tallies.of_day(day)


class Recorded(NamedTuple):
    """What became of some updates or enrollment changes, and the denominators of the modules."""

    before: Learning
    after: Learning
    modules: dict[str, Module]

    @property
    def started(self) -> int:
        """How many records are new."""
        return len(self.after.records) - len(self.before.records)

    @property
    def enrolled(self) -> int:
        """How many enrollments are new."""
        return len(self.after.enrollments) - len(self.before.enrollments)

    @property
    def completed(self) -> int:
        """How many records have completed."""
        return _completions(self.before.records, self.after.records)

    @property
    def enrollments_completed(self) -> int:
        """How many enrollments have completed."""
        return _completions(self.before.enrollments, self.after.enrollments)


class PublishedContent(NamedTuple):
    """A content of a module, as the platform publishes it."""

    id: str
    title: str
    type: str
    section: str | None
    weight: int
    completion_threshold: int
    passing_score: int | None


class PublishedModule(NamedTuple):
    """A module with its current contents, in order."""

    id: str
    title: str
    instructor_ids: Sequence[str]
    contents: Sequence[PublishedContent]


def record(
    connection: Connection,
    updates: Sequence[Update],
    *,
    auto_enroll: bool,
    now: datetime,
    by_instructor: bool = False,
) -> Recorded:
    """Fold updates into their records and enrollments, in order, all or none.

    Instructors who report their own visits to a module that they teach do not count among its learners. The number of
    statements is the same for one update and for a thousand; where an enrollment completes, or did so earlier than was
    known, there is one more. Raises UnknownContent, NotEnrolled and calculations.CriteriaNotMet.
    """
    sql = _statements(connection)
    keys: dict[Any, Any] = {}
    for place, one in enumerate(updates):
        day = one.occurred_at.date()
        keys.setdefault((one.user_id, one.content_id, day), (one.user_id, one.content_id, day, one.occurred_at, place))
    rows = sql.keys(keys.values())
    held = _share_modules(connection, sql.lock_modules_of_contents, rows)
    locked = sql.lock_enrollments_of_contents.run(connection, by_instructor=by_instructor, **rows)
    created = {EnrollmentKey(*key) for key in locked}
    # Read only now: whatever is read before its lock may be outdated by the time the lock is held.
    contents: dict[str, Content] = {}
    modules: dict[str, Module] = {}
    after = Learning({}, {}, {})
    for row in sql.read.run(connection, **rows):
        parts = values(row, RecordKey, Content, Module, Enrollment, Record, ActivityDay)
        key, content, module, enrollment, stored, active = parts
        if content.module_id not in held:
            continue  # published since the locks were taken: this update came before
        contents[key.content_id], modules[content.module_id] = content, module
        enrollment_key = EnrollmentKey(key.user_id, content.module_id)
        if enrollment and (auto_enroll or enrollment_key not in created):
            after.enrollments[enrollment_key] = enrollment
        if stored:
            after.records[key] = stored
        if active:
            after.days[DayKey(key.user_id, content.module_id, active.day)] = active
    _refuse(UnknownContent, updates, lambda one: one.content_id in contents)
    _refuse(NotEnrolled, updates, lambda one: (one.user_id, contents[one.content_id].module_id) in after.enrollments)
    before = after.before(created)
    for one in updates:
        _fold(after, one, contents[one.content_id], now)
    recorded = Recorded(before, after, modules)
    _date_completions(connection, recorded, contents, rows)
    return _store(connection, recorded)


def _fold(learning: Learning, update: Update, content: Content, now: datetime) -> None:
    """Apply an update to its record, day of activity and enrollment."""
    user_id, module_id, at = update.user_id, content.module_id, update.occurred_at
    key = RecordKey(user_id, update.content_id)
    before = learning.records.get(key) or Record(_uuid7(now), user_id, module_id, update.content_id, at, at)
    after = learning.records[key] = calculations.apply(before, update, content)
    day_key = DayKey(user_id, module_id, at.date())
    day = learning.days.get(day_key, ActivityDay(*day_key))
    learning.days[day_key] = day._replace(time_spent_seconds=day.time_spent_seconds + update.time_spent_seconds)
    enrollment_key = EnrollmentKey(user_id, module_id)
    enrollment = learning.enrollments[enrollment_key]
    learning.enrollments[enrollment_key] = calculations.count(enrollment, before, after, update, content)


def _date_completions(
    connection: Connection, recorded: Recorded, contents: Mapping[str, Content], rows: Mapping[str, Any]
) -> None:
    """Complete the enrollments that are complete, and date those whose completion a late report moves earlier."""
    before, after, modules = recorded
    completing = {
        key for key, one in after.enrollments.items() if calculations.is_complete(one, modules[key.module_id])
    }
    moved = {
        EnrollmentKey(record.user_id, record.module_id)
        for key, record in before.records.items()
        if record.completed_at not in (None, after.records[key].completed_at)
    }
    dated = completing | {key for key in moved if after.enrollments[key].completed_at is not None}
    if not dated:
        return
    sql = _statements(connection)
    keys = sql.enrollment_keys((*key, None) for key in dated)
    others = {EnrollmentKey(*key): at for *key, at in sql.last_completions.run(connection, **keys, **rows) if at}
    was, last = (_last_completions(records, contents, others) for records in (before.records, after.records))
    for key in dated:
        after.enrollments[key] = calculations.complete(after.enrollments[key], was.get(key), last.get(key))


def _last_completions(
    records: Mapping[RecordKey, Record], contents: Mapping[str, Content], others: Mapping[EnrollmentKey, datetime]
) -> dict[EnrollmentKey, datetime]:
    """Return the last completion of a counted content under each enrollment, of these records and the others."""
    last = dict(others)
    for record in records.values():
        if record.completed_at is not None and contents[record.content_id].counted_weight:
            key = EnrollmentKey(record.user_id, record.module_id)
            last[key] = max(record.completed_at, last.get(key, record.completed_at))
    return last


def enroll(connection: Connection, changes: Sequence[EnrollmentChange], *, now: datetime) -> Recorded:
    """Enroll learners, or change their enrollments; a completed enrollment keeps its status. Raises UnknownModule."""
    sql = _statements(connection)
    keys = {EnrollmentKey(change.user_id, change.module_id) for change in changes}
    rows = sql.enrollment_keys((*key, now) for key in keys)
    _share_modules(connection, sql.lock_modules, rows)
    created = {EnrollmentKey(*key) for key in sql.lock_enrollments.run(connection, **rows)}
    modules: dict[str, Module] = {}
    after = Learning({}, {}, {})
    for row in sql.read_enrollments.run(connection, **rows):
        module, enrollment = values(row, Module, Enrollment)
        modules[enrollment.module_id] = module
        after.enrollments[EnrollmentKey(enrollment.user_id, enrollment.module_id)] = enrollment
    _refuse(UnknownModule, changes, lambda change: change.module_id in modules)
    before = after.before(created)
    for change in changes:
        key = EnrollmentKey(change.user_id, change.module_id)
        changed = calculations.change(after.enrollments[key], change.status, change.enrolled_at, change.counted)
        after.enrollments[key] = calculations.settle(changed, modules[change.module_id], now)
    if turned := [key for key, one in before.enrollments.items() if one.counted != after.enrollments[key].counted]:
        _read_learning(connection, turned, before, after)
    return _store(connection, Recorded(before, after, modules))


def _read_learning(connection: Connection, keys: Iterable[EnrollmentKey], *learnings: Learning) -> None:
    """Add the records and days of activity under some enrollments, whose locks are held."""
    sql = _statements(connection)
    rows = sql.enrollment_keys((*key, None) for key in keys)
    for row in sql.read_records.run(connection, **rows):
        record = Record(*row)
        for learning in learnings:
            learning.records[RecordKey(record.user_id, record.content_id)] = record
    for row in sql.read_days.run(connection, **rows):
        day = ActivityDay(*row)
        for learning in learnings:
            learning.days[DayKey(day.user_id, day.module_id, day.day)] = day


def reset(connection: Connection, user_id: str, module_id: str) -> None:
    """Take a learner's records in a module away and start their enrollment again, where there is one."""
    removed = _remove(connection, user_id, [module_id])
    restarted = {key: calculations.restart(enrollment) for key, enrollment in removed.before.enrollments.items()}
    _store(connection, removed._replace(after=Learning(restarted, {}, {})))


def erase(connection: Connection, user_id: str) -> bool:
    """Take away a learner's enrollments, with all that is recorded under them; return whether there were any.

    What is listed is older than its locks: a batch that they have waited for may have enrolled the learner in more
    modules. So whoever wants all of it gone goes on until there are none.
    """
    enrolled = select(models.Enrollment.module_id).filter_by(user_id=user_id)
    module_ids = connection.execute(enrolled).scalars().all()
    removed = _remove(connection, user_id, module_ids)
    _take(connection, models.Enrollment, Enrollment, user_id, removed.modules)
    _store(connection, removed)
    return bool(module_ids)


def _remove(connection: Connection, user_id: str, module_ids: Sequence[str]) -> Recorded:
    """Delete a learner's records and days of activity in some modules, and return what there was."""
    sql = _statements(connection)
    rows = sql.enrollment_keys((user_id, module_id, None) for module_id in module_ids)
    _share_modules(connection, sql.lock_modules, rows)
    before = Learning({}, {}, {})
    modules = {}
    enrolled = (
        select(*MODULE, *ENROLLMENT)
        .join(models.Enrollment, models.Enrollment.module_id == models.Module.id)
        .where(models.Enrollment.user_id == user_id, models.Enrollment.module_id.in_(_module_ids(sql)))
        .order_by(models.Enrollment.module_id)
        .with_for_update(of=models.Enrollment)
    )
    for row in connection.execute(enrolled, rows):
        module, enrollment = values(row, Module, Enrollment)
        modules[enrollment.module_id] = module
        before.enrollments[EnrollmentKey(user_id, enrollment.module_id)] = enrollment
    # Of these modules only: an enrollment that was made since, after another erasure, is not locked.
    for record in _take(connection, models.ProgressRecord, Record, user_id, modules):
        before.records[RecordKey(user_id, record.content_id)] = record
    for day in _take(connection, models.ActivityDay, ActivityDay, user_id, modules):
        before.days[DayKey(user_id, day.module_id, day.day)] = day
    return Recorded(before, Learning({}, {}, {}), modules)


def _take(connection: Connection, table: Any, kind: Any, user_id: str, module_ids: Iterable[str]) -> list[Any]:
    """Delete a learner's rows in some modules, and return them."""
    sql = _statements(connection)
    theirs = table.user_id == user_id, table.module_id.in_(_module_ids(sql))
    taken = delete(table).where(*theirs).returning(*columns(table, kind))
    rows = sql.enrollment_keys((user_id, module_id, None) for module_id in module_ids)
    return [kind(*row) for row in connection.execute(taken, rows)]


def _module_ids(sql: Statements) -> Select[Any]:
    return select(sql.enrollment_keys.c.module_id)


def _without(ours: dict[Any, Any], theirs: dict[Any, Any], turned: Collection[EnrollmentKey]) -> dict[Any, Any]:
    return {key: one for key, one in ours.items() if theirs.get(key) != one or (one.user_id, one.module_id) in turned}


def _completions(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> int:
    return sum(calculations.completes(before.get(key), one) for key, one in after.items())


def _store(connection: Connection, recorded: Recorded) -> Recorded:
    """Write what has changed, and carry it over to the tallies."""
    sql = _statements(connection)
    before, after, modules = recorded
    gone, come = before.without(after), after.without(before)
    changes = tallies.Changes()
    changes.replace(gone.shares(modules, before.enrollments), come.shares(modules, after.enrollments))
    rows = {
        **sql.records((*one, one.progress_percentage) for one in come.records.values()),
        **sql.enrollments(come.enrollments.values()),
        **sql.days(come.days.values()),
        **sql.tallies(_parts(changes)),
    }
    for statement in sql.store:
        statement.run(connection, **rows)
    return recorded


def _parts(changes: tallies.Changes) -> list[tuple[Any, ...]]:
    """Return what is to be added to one of the parts of each tally."""
    part = randrange(TALLY_PARTS)
    return [(*group, part, *counts) for group, counts in changes.items() if any(counts)]


def publish(connection: Connection, module: PublishedModule, *, now: datetime) -> bool:
    """Hold a module alone and publish it."""
    lock_modules(connection, [module.id])
    return publish_held(connection, module, now=now)


def publish_held(connection: Connection, module: PublishedModule, *, now: datetime) -> bool:
    """Publish a module whole, and recount its enrollments where what counts has changed; the caller holds it alone.

    Contents left out are retired. Returns whether the module is new. Raises ContentElsewhere.
    """
    sql = _statements(connection)
    weights, rules = _counted_weights(connection, module.id), _rules(connection, module.id)
    titled = update(models.Module).filter_by(id=module.id).values(title=module.title)
    created = not connection.execute(titled).rowcount
    if created:
        empty = Module(total_weight=0, total_contents=0)._asdict()
        connection.execute(insert(models.Module).values(id=module.id, title=module.title, **empty))
    connection.execute(update(models.Content).filter_by(module_id=module.id).values(retired=True))
    rows = [
        {"module_id": module.id, "ordinal": ordinal, "retired": False, **content._asdict()}
        for ordinal, content in enumerate(module.contents)
    ]
    names = sql.contents.columns
    stored = sql.store_contents.run(connection, **sql.contents([row[name] for name in names] for row in rows))
    ours = {content_id for (content_id,) in stored}
    _refuse(ContentElsewhere, module.contents, lambda content: content.id in ours)
    connection.execute(delete(models.ModuleInstructor).filter_by(module_id=module.id))
    if module.instructor_ids:
        teaching = [
            {"module_id": module.id, "user_id": user_id, "ordinal": ordinal}
            for ordinal, user_id in enumerate(module.instructor_ids)
        ]
        connection.execute(insert(models.ModuleInstructor), teaching)
    recount.denominators(connection, module.id)
    if not created:
        new_weights, new_rules = _counted_weights(connection, module.id), _rules(connection, module.id)
        changed = [content_id for content_id, rule in rules.items() if new_rules[content_id] != rule]
        completed = recount.completions(connection, sql, module.id, now, content_ids=changed) if changed else {}
        if completed:
            enrollments_completed = recount.totals(connection, module.id, now, recount.RULED_TOTALS)
        elif weights != new_weights:
            enrollments_completed = recount.reweigh(connection, sql, module.id, weights, new_weights, now)
        else:
            return created
        _recount_tallies(connection, module.id, completed, enrollments_completed, now)
    return created


def _recount_tallies(
    connection: Connection, module_id: str, completed: Mapping[str, int], enrollments_completed: int, now: datetime
) -> None:
    """Carry over what a catalog change has completed, records of each content and enrollments, and what weighs anew."""
    sql = _statements(connection)
    of_unfinished = (tallies.LAST_WEEK, tallies.LAST_DAY) if enrollments_completed else ()
    recount.tallies(connection, sql, module_id, (tallies.STATUS, tallies.PERCENTAGE, *of_unfinished))
    today = tallies.Group(module_id, tallies.DAY, str(now.date()))
    changes = tallies.Changes()
    changes.replace(
        [],
        [
            (today, tallies.Counts(completed=sum(completed.values()), enrollments_completed=enrollments_completed)),
            *(
                (tallies.Group(module_id, tallies.CONTENT, content_id), tallies.Counts(completed=number))
                for content_id, number in completed.items()
            ),
        ],
    )
    sql.store_tallies.run(connection, **sql.tallies(_parts(changes)))


def repair(connection: Connection, module_id: str, drifts: Collection[Drift], *, now: datetime) -> None:
    """Store the totals that the recount found; updates run on, but for those of the learners who have drifted.

    Where the module's denominators have drifted, it is held alone and recounted whole.
    """
    sql = _statements(connection)
    user_ids = sorted({drift.user_id for drift in drifts if drift.user_id is not None})
    if any(drift.figure in recount.DENOMINATORS for drift in drifts):
        lock_modules(connection, [module_id])
        recount.denominators(connection, module_id)
        recount.completions(connection, sql, module_id, now)
        recount.totals(connection, module_id, now)
    else:
        sql.lock_modules.run(connection, **sql.enrollment_keys([("", module_id, None)]))
        ours = models.Enrollment.module_id == module_id, models.Enrollment.user_id.in_(user_ids)
        locked = select(models.Enrollment.user_id).where(*ours).order_by(models.Enrollment.user_id).with_for_update()
        connection.execute(locked)
        recount.completions(connection, sql, module_id, now, user_ids=user_ids)
        recount.totals(connection, module_id, now, user_ids=user_ids)


def repair_tallies(connection: Connection, module_id: str) -> None:
    """Add to a module's tallies what the recount finds lacking, one repair after another; updates run on."""
    sql = _statements(connection)
    _lock(connection, module_id, REPAIRS)  # before the statement that counts: what another one has added is not lacking
    sql.lock_modules.run(connection, **sql.enrollment_keys([("", module_id, None)]))
    _lock_table(connection, models.Enrollment, "ROW SHARE")
    recount.tallies(connection, sql, module_id)


def lock_catalog(connection: Connection) -> None:
    """Hold off all other changes of the catalog until the transaction ends; updates run on."""
    _lock_table(connection, models.Module, "SHARE ROW EXCLUSIVE")


def lock_modules(connection: Connection, module_ids: Collection[str]) -> None:
    """Hold modules alone until the transaction ends: no update of them runs, and none that has begun is unfinished."""
    if len(module_ids) > MOST_LOCKS:
        lock_catalog(connection)
        _lock_table(connection, models.Enrollment, "EXCLUSIVE")  # where all updates write before they read the catalog
        return
    _lock_table(connection, models.Module, "ROW EXCLUSIVE")
    for module_id in sorted(module_ids):
        _lock(connection, module_id, CHANGES)


def _share_modules(connection: Connection, lock: Prepared, rows: Mapping[str, Any]) -> set[str]:
    """Hold off catalog changes of modules until the transaction ends, and return the modules' ids."""
    module_ids = {module_id for (module_id,) in lock.run(connection, **rows)}
    if len(module_ids) > MOST_LOCKS:
        _lock_table(connection, models.Module, "SHARE")  # where all changes of the catalog write
    return module_ids


def _lock_table(connection: Connection, table: type[models.Base], mode: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"LOCK TABLE {table.__tablename__} IN {mode} MODE"))


def _lock(connection: Connection, module_id: str, purpose: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(exclusive_lock(module_id, purpose))


def _counted_weights(connection: Connection, module_id: str) -> recount.Weights:
    content = models.Content
    counted = select(content.id, content.weight).where(
        content.module_id == module_id, ~content.retired, content.weight > 0
    )
    return dict(connection.execute(counted).all())


def _rules(connection: Connection, module_id: str) -> dict[str, tuple[int, int | None]]:
    content = models.Content
    rules = select(content.id, content.completion_threshold, content.passing_score).filter_by(module_id=module_id)
    return {content_id: (threshold, passing) for content_id, threshold, passing in connection.execute(rules)}


def _refuse(refusal: type[Refused], items: Sequence[Any], is_fine: Callable[[Any], bool]) -> None:
    places = [place for place, item in enumerate(items) if not is_fine(item)]
    if places:
        raise refusal(places)


def _uuid7(now: datetime) -> UUID:
    """Return a UUID that sorts by time (RFC 9562, version 7), so that new records stand together in their index."""
    milliseconds = int(now.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | randbits(12) << 64 | 2 << 62 | randbits(62))


def _statements(connection: Connection) -> Statements:
    name = connection.dialect.name
    if name not in _built:
        _built[name] = Statements(connection.dialect)
    return _built[name]


_built: dict[str, Statements] = {}
