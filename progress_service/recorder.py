"""The one write path: every change of a record, an enrollment or a total goes through here.

Locks are taken in one order, so that writers queue and do not deadlock: first modules, then enrollments by user and
module. On SQLite a writer's transaction holds the only write lock from its begin, and these locks are not needed.
Whoever calls owns the transaction and commits it.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from secrets import randbits
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Executable, delete, insert, select, update

from progress_service import calculations, models, recount
from progress_service.calculations import ACTIVE, Content, Enrollment, Module, Record, Update
from progress_service.rows import Rows
from progress_service.statements import Statements, exclusive_lock, values


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


class EnrollmentChange(NamedTuple):
    """A learner is to be enrolled, or their enrollment changed; what is None stays as it is."""

    user_id: str
    module_id: str
    status: str | None = None
    enrolled_at: datetime | None = None


class Recorded(NamedTuple):
    """What became of some updates: the records and enrollments as they are now, and how many began or ended."""

    records: dict[RecordKey, Record]
    enrollments: dict[EnrollmentKey, Enrollment]
    modules: dict[str, Module]
    started: int
    completed: int
    enrollments_completed: int


class Enrolled(NamedTuple):
    """What became of some enrollment changes: the enrollments as they are now, and which of them are new."""

    enrollments: dict[EnrollmentKey, Enrollment]
    modules: dict[str, Module]
    created: set[EnrollmentKey]


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


def record(connection: Connection, updates: Sequence[Update], *, auto_enroll: bool, now: datetime) -> Recorded:
    """Fold updates into their records and enrollments, in order, all or none.

    The number of statements is the same for one update and for a thousand. Raises UnknownContent, NotEnrolled and
    calculations.CriteriaNotMet.
    """
    sql = _statements(connection)
    first: dict[RecordKey, tuple[datetime, int]] = {}
    for place, one in enumerate(updates):
        first.setdefault(RecordKey(one.user_id, one.content_id), (one.occurred_at, place))
    keys = [(key.user_id, at, key.content_id, place) for key, (at, place) in first.items()]
    # Shared with other updates, so that they run side by side; a catalog change takes it alone. Without it, an update
    # that has read the old catalog could commit after the change has recounted the module.
    held = _share_modules(connection, sql.lock_modules_of_contents, sql.keys, keys)
    locked = sql.keys.run(connection, sql.lock_enrollments_of_contents, keys, auto_enroll=auto_enroll)
    created = {EnrollmentKey(row.user_id, row.module_id) for row in locked}
    # Read only now: whatever is read before its lock may be outdated by the time the lock is held.
    contents: dict[str, Content] = {}
    modules: dict[str, Module] = {}
    enrollments: dict[EnrollmentKey, Enrollment] = {}
    records: dict[RecordKey, Record] = {}
    for row in sql.keys.run(connection, sql.read, keys):
        key, content, module, enrollment, stored = values(row, RecordKey, Content, Module, Enrollment, Record)
        if held is not None and content.module_id not in held:
            continue  # published since the locks were taken: this update came before
        contents[key.content_id], modules[content.module_id] = content, module
        enrollment_key = EnrollmentKey(key.user_id, content.module_id)
        if enrollment and (auto_enroll or enrollment_key not in created):  # which an erasure may have made necessary
            enrollments[enrollment_key] = enrollment
        if stored:
            records[key] = stored
    _refuse(UnknownContent, updates, lambda one: one.content_id in contents)
    _refuse(NotEnrolled, updates, lambda one: (one.user_id, contents[one.content_id].module_id) in enrollments)

    started = completed = enrollments_completed = 0
    for one in updates:
        content = contents[one.content_id]
        key, enrollment_key = (
            RecordKey(one.user_id, one.content_id),
            EnrollmentKey(one.user_id, content.module_id),
        )
        before, enrollment = records.get(key), enrollments[enrollment_key]
        if before is None:
            started += 1
            before = Record(
                _uuid7(now), one.user_id, content.module_id, one.content_id, one.occurred_at, one.occurred_at
            )
        after = calculations.apply(before, one, content)
        counted = calculations.count(enrollment, before, after, content)
        settled = calculations.settle(counted, modules[content.module_id], one.occurred_at)
        completed += calculations.completes(before, after)
        enrollments_completed += calculations.completes(enrollment, settled)
        records[key], enrollments[enrollment_key] = after, settled

    sql.records.run(connection, sql.store_records, [(*one, one.progress_percentage) for one in records.values()])
    sql.enrollments.run(connection, sql.store_enrollments, enrollments.values())
    return Recorded(records, enrollments, modules, started, completed, enrollments_completed)


def enroll(connection: Connection, changes: Sequence[EnrollmentChange], *, now: datetime) -> Enrolled:
    """Enroll learners, or change their enrollments; a completed enrollment keeps its status. Raises UnknownModule."""
    sql = _statements(connection)
    keys = [(*key, now) for key in {EnrollmentKey(change.user_id, change.module_id) for change in changes}]
    _share_modules(connection, sql.lock_modules, sql.enrollment_keys, keys)
    new = sql.enrollment_keys.run(connection, sql.lock_enrollments, keys)
    created = {EnrollmentKey(row.user_id, row.module_id) for row in new}
    modules: dict[str, Module] = {}
    enrollments: dict[EnrollmentKey, Enrollment] = {}
    for row in sql.enrollment_keys.run(connection, sql.read_enrollments, keys):
        module, enrollment = values(row, Module, Enrollment)
        modules[enrollment.module_id] = module
        enrollments[EnrollmentKey(enrollment.user_id, enrollment.module_id)] = enrollment
    _refuse(UnknownModule, changes, lambda change: change.module_id in modules)
    for change in changes:
        key = EnrollmentKey(change.user_id, change.module_id)
        changed = calculations.change(enrollments[key], change.status, change.enrolled_at)
        enrollments[key] = calculations.settle(changed, modules[change.module_id], now)
    sql.enrollments.run(connection, sql.store_enrollments, enrollments.values())
    return Enrolled(enrollments, modules, created)


def reset(connection: Connection, user_id: str, module_id: str) -> None:
    """Take a learner's records in a module away and start their enrollment again, where there is one."""
    sql = _statements(connection)
    _share_modules(connection, sql.lock_modules, sql.enrollment_keys, [(user_id, module_id, None)])
    ours = {"user_id": user_id, "module_id": module_id}
    locked = select(models.Enrollment.enrolled_at).filter_by(**ours).with_for_update()
    for enrolled_at in connection.execute(locked).scalars():
        connection.execute(delete(models.ProgressRecord).filter_by(**ours))
        restarted = Enrollment(user_id, module_id, ACTIVE, enrolled_at)
        sql.enrollments.run(connection, sql.store_enrollments, [restarted])


def erase(connection: Connection, user_id: str) -> None:
    """Take every trace of a learner away."""
    sql = _statements(connection)
    enrolled = select(models.Enrollment.module_id).filter_by(user_id=user_id).order_by(models.Enrollment.module_id)
    keys = [(user_id, module_id, None) for module_id in connection.execute(enrolled).scalars()]
    _share_modules(connection, sql.lock_modules, sql.enrollment_keys, keys)
    connection.execute(enrolled.with_for_update())
    connection.execute(delete(models.ProgressRecord).filter_by(user_id=user_id))
    connection.execute(delete(models.Enrollment).filter_by(user_id=user_id))


def publish(connection: Connection, module: PublishedModule, *, now: datetime) -> bool:
    """Publish a module whole, and recount its enrollments where what counts has changed.

    Contents left out are retired. Returns whether the module is new. Raises ContentElsewhere.
    """
    sql = _statements(connection)
    lock_module(connection, module.id)
    before = _counted_weights(connection, module.id)
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
    stored = sql.contents.run(connection, sql.store_contents, [[row[name] for name in names] for row in rows])
    ours = set(stored.scalars())
    _refuse(ContentElsewhere, module.contents, lambda content: content.id in ours)
    connection.execute(delete(models.ModuleInstructor).filter_by(module_id=module.id))
    if module.instructor_ids:
        teaching = [
            {"module_id": module.id, "user_id": user_id, "ordinal": ordinal}
            for ordinal, user_id in enumerate(module.instructor_ids)
        ]
        connection.execute(insert(models.ModuleInstructor), teaching)
    recount.denominators(connection, module.id)
    if not created and before != _counted_weights(connection, module.id):
        recount.totals(connection, module.id, now, recount.RULED_TOTALS)
    return created


def repair(connection: Connection, module_id: str, *, now: datetime) -> None:
    """Store the recounted totals of a module, while its writers wait."""
    lock_module(connection, module_id)
    recount.denominators(connection, module_id)
    recount.totals(connection, module_id, now)


def lock_module(connection: Connection, module_id: str) -> None:
    """Hold the module alone until the transaction ends: no update of it runs, and none that has begun is unfinished."""
    if connection.dialect.name == "postgresql":
        connection.execute(exclusive_lock(module_id))


def _share_modules(
    connection: Connection, locks: Executable, rows: Rows, keys: Iterable[Sequence[Any]]
) -> set[str] | None:
    """Hold off catalog changes of some modules, and return which these are: None for all."""
    # Updates share this lock and run side by side; a catalog change takes it alone. Without it, an update that has
    # read the old catalog could commit after the change has recounted the module, and leave a stale total. It is
    # taken before the catalog is read, in a statement of its own: what a statement reads is as old as its beginning.
    if connection.dialect.name != "postgresql":
        return None
    return {row.module_id for row in rows.run(connection, locks, keys)}


def _counted_weights(connection: Connection, module_id: str) -> set[Any]:
    content = models.Content
    counted = select(content.id, content.weight).where(
        content.module_id == module_id, ~content.retired, content.weight > 0
    )
    return set(connection.execute(counted))


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
