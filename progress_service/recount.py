"""Totals counted again from the records, set-based: for catalog changes, and to prove what is stored."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    String,
    Subquery,
    and_,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)

from progress_service.calculations import ACTIVE, COMPLETED, DROPPED, PAUSED
from progress_service.models import ActivityDay, Content, Enrollment, Module, ProgressRecord, Tally
from progress_service.statements import Statements, utc_day, utc_week, whole
from progress_service.tallies import CONTENT, KINDS, LAST_DAY, LAST_WEEK, PERCENTAGE, STATUS, Counts

DENOMINATORS = ("total_weight", "total_contents")
RULED_TOTALS = ("weighted_sum", "completed_contents")
"""The totals of an enrollment that depend on the catalog."""
SUMS = (*RULED_TOTALS, "time_spent_seconds")
TOTALS = (*SUMS, "enrolled_at", "last_activity_at", "last_content_id")

Weights = Mapping[str, int]
"""The weights of a module's counted contents, by their ids."""
Pairs = dict[str, tuple[Any, Any]]
"""The columns of stored figures and of their recounts, by the figure's name."""


class Drift(NamedTuple):
    """A stored figure that differs from its recount; the module's own where there is no learner."""

    module_id: str
    user_id: str | None
    figure: str
    stored: Any
    recounted: Any


def denominators(connection: Connection, module_id: str) -> None:
    """Count the module's current contents and their weights again."""
    counted = _denominators(module_id)
    connection.execute(
        update(Module).where(Module.id == counted.c.module_id).values({name: counted.c[name] for name in DENOMINATORS})
    )


def totals(
    connection: Connection,
    module_id: str,
    now: datetime,
    names: Iterable[str] = TOTALS,
    user_ids: Collection[str] | None = None,
) -> int:
    """Count the totals of a module's enrollments again, of all or of some, and complete what has become complete.

    Returns how many of those that count have completed. Only the named totals are written, and only where they differ.
    The caller holds the module's lock alone, or shared and the enrollments' own.
    """
    counted = _totals(module_id)
    ours = [Enrollment.module_id == module_id]
    if user_ids is not None:
        ours.append(Enrollment.user_id.in_(user_ids))
    differing = [getattr(Enrollment, name).is_distinct_from(counted.c[name]) for name in names]
    connection.execute(
        update(Enrollment)
        .where(*ours, Enrollment.user_id == counted.c.user_id, or_(*differing))
        .values({name: counted.c[name] for name in names})
    )
    return _complete(connection, module_id, now, ours)


def reweigh(
    connection: Connection, sql: Statements, module_id: str, before: Weights, after: Weights, now: datetime
) -> int:
    """Carry other weights of a module's contents over to its enrollments, and complete what has become complete.

    Returns how many of those that count have completed. Reads the records of the contents whose weight is another, and
    writes the enrollments that it changes. The caller holds the module's lock alone.
    """
    changed = {content_id for content_id, _ in before.items() ^ after.items()}
    gains = sql.weights(
        (one, after.get(one, 0) - before.get(one, 0), (one in after) - (one in before)) for one in changed
    )
    gain, names = sql.weights.c, ["user_id", "progress_percentage", "completed_at"]
    source, record = sql.look_up(sql.weights.table, ProgressRecord, names, module_id=module_id, content_id=gain.id)
    gained = (
        select(
            record.user_id,
            whole(func.sum(gain.weight * record.progress_percentage)).label("weighted_sum"),
            whole(func.sum(case((record.completed_at.is_not(None), gain.contents), else_=0))).label(
                "completed_contents"
            ),
        )
        .select_from(source)
        .group_by(record.user_id)
        .subquery("gained")
    )
    differing = [gained.c[name] != 0 for name in RULED_TOTALS]
    ours = Enrollment.module_id == module_id
    connection.execute(
        update(Enrollment)
        .where(ours, Enrollment.user_id == gained.c.user_id, or_(*differing))
        .values({name: getattr(Enrollment, name) + gained.c[name] for name in RULED_TOTALS}),
        gains,
    )
    return _complete(connection, module_id, now, [ours])


def _complete(connection: Connection, module_id: str, now: datetime, where: Iterable[ColumnElement[bool]]) -> int:
    """Complete the enrollments that are complete, and return how many of those count."""
    is_complete = _is_complete(Enrollment.completed_contents, Module.total_contents)
    ours = [*where, select(Module.id).where(Module.id == module_id, is_complete).exists()]
    completing = connection.execute(select(func.count()).where(*ours, Enrollment.counted)).scalar_one()
    connection.execute(update(Enrollment).where(*ours).values(status=COMPLETED, completed_at=now))
    return completing


def completions(
    connection: Connection,
    sql: Statements,
    module_id: str,
    now: datetime,
    *,
    content_ids: Collection[str] | None = None,
    user_ids: Collection[str] | None = None,
) -> dict[str, int]:
    """Complete the records of a module that fulfil the rule of their content, of all or of some contents and learners.

    Returns each content of which records have completed, and how many of them count. The caller holds the module's
    lock alone, or shared and the enrollments' own, and counts the totals again.
    """
    ours = [ProgressRecord.module_id == module_id, ProgressRecord.content_id == Content.id, _is_fulfilled()]
    if content_ids is not None:
        ours.append(ProgressRecord.content_id.in_(select(sql.ids.c.id)))
    if user_ids is not None:
        ours.append(ProgressRecord.user_id.in_(user_ids))
    ids = sql.ids((content_id,) for content_id in content_ids or ())
    number = whole(func.sum(case((_counts(ProgressRecord, module_id), 1), else_=0))).label("number")
    counted = select(ProgressRecord.content_id, number).where(*ours).group_by(ProgressRecord.content_id)
    completed = connection.execute(counted, ids).all()
    connection.execute(update(ProgressRecord).where(*ours).values(completed_at=now, progress_percentage=100), ids)
    return {row.content_id: row.number for row in completed}


def tallies(connection: Connection, sql: Statements, module_id: str, kinds: Collection[str] = KINDS) -> None:
    """Count the tallies of a module again and add what they lack.

    What they lack is the same at any moment, since updates only add: they may run on while this one statement does.
    Another repair may not: both would add it.
    """
    compared = _tallies(module_id, kinds)
    lacking = [compared.c[f"recounted_{name}"] - compared.c[f"stored_{name}"] for name in Counts._fields]
    groups = literal(module_id), compared.c.kind, compared.c.item, literal(0)
    connection.execute(
        sql.add_to_tallies(
            select(*groups, *lacking)
            .where(or_(*(lack != 0 for lack in lacking)))
            .order_by(compared.c.kind, compared.c.item)
        )
    )


def drifts(connection: Connection) -> Iterator[Drift]:
    """Compare every stored total with its recount, module by module, in the snapshot that the connection reads."""
    for module_id in connection.execute(select(Module.id).order_by(Module.id)).scalars().all():
        recounted = _denominators(module_id)
        pairs: Pairs = {name: (getattr(Module, name), recounted.c[name]) for name in DENOMINATORS}
        yield from _compare(connection, module_id, Module.id == recounted.c.module_id, None, pairs)

        counted = _totals(module_id)
        pairs = {name: (getattr(Enrollment, name), counted.c[name]) for name in TOTALS}
        status = case(
            (_is_complete(counted.c.completed_contents, recounted.c.total_contents), COMPLETED), else_=Enrollment.status
        )
        pairs["status"] = (Enrollment.status, status)
        ours = and_(
            Enrollment.module_id == module_id,
            Enrollment.user_id == counted.c.user_id,
            Enrollment.module_id == recounted.c.module_id,
        )
        yield from _compare(connection, module_id, ours, Enrollment.user_id, pairs)

        ours = and_(ProgressRecord.module_id == module_id, ProgressRecord.content_id == Content.id, _is_fulfilled())
        pairs = {"progress_percentage": (ProgressRecord.progress_percentage, literal(100))}
        yield from _compare(connection, module_id, ours, ProgressRecord.user_id, pairs, ProgressRecord.content_id + " ")

        compared = _tallies(module_id, KINDS)
        pairs = {name: (compared.c[f"stored_{name}"], compared.c[f"recounted_{name}"]) for name in Counts._fields}
        group = compared.c.kind + " " + compared.c.item + " "
        yield from _compare(connection, module_id, true(), None, pairs, group)


def _compare(
    connection: Connection,
    module_id: str,
    where: ColumnElement[bool],
    learner: Any,
    pairs: Pairs,
    group: Any = "",
) -> Iterator[Drift]:
    differing = or_(*(stored.is_distinct_from(counted) for stored, counted in pairs.values()))
    flat = [column.label(None) for pair in pairs.values() for column in pair]
    learner = null() if learner is None else learner
    found = select(learner, literal(group) if isinstance(group, str) else group, *flat).where(where, differing)
    for user_id, prefix, *figures in connection.execution_options(yield_per=1000).execute(found):
        for name, stored, counted in zip(pairs, figures[::2], figures[1::2], strict=True):
            if stored != counted:
                yield Drift(module_id, user_id, prefix + name, stored, counted)


def _denominators(module_id: str) -> Subquery:
    counts = and_(Content.module_id == Module.id, ~Content.retired, Content.weight > 0)
    return (
        select(
            Module.id.label("module_id"),
            whole(func.sum(Content.weight)).label("total_weight"),
            func.count(Content.id).label("total_contents"),
        )
        .outerjoin(Content, counts)
        .where(Module.id == module_id)
        .group_by(Module.id)
        .subquery("denominators")
    )


def _totals(module_id: str) -> Subquery:
    record = ProgressRecord
    weighted = case((~Content.retired, cast(Content.weight, BigInteger) * record.progress_percentage), else_=0)
    is_completed = and_(~Content.retired, Content.weight > 0, record.completed_at.is_not(None))
    summed = (
        select(
            record.user_id,
            func.sum(weighted).label("weighted_sum"),
            func.sum(case((is_completed, 1), else_=0)).label("completed_contents"),
            func.sum(record.time_spent_seconds).label("time_spent_seconds"),
            func.min(record.started_at).label("started_at"),
            func.max(record.last_activity_at).label("last_activity_at"),
        )
        .join(Content, Content.id == record.content_id)
        .where(record.module_id == module_id)
        .group_by(record.user_id)
        .subquery("summed")
    )
    latest = record.user_id == Enrollment.user_id, record.last_activity_at == summed.c.last_activity_at
    # Of contents with the same latest time, any may have been the last one.
    is_latest = select(record.id).where(*latest, record.content_id == Enrollment.last_content_id).exists()
    a_latest = select(func.max(record.content_id)).where(*latest, record.module_id == module_id).scalar_subquery()
    return (
        select(
            Enrollment.user_id,
            *(whole(summed.c[name]).label(name) for name in SUMS),
            case(
                (
                    and_(Enrollment.enrolled_by_update, summed.c.started_at < Enrollment.enrolled_at),
                    summed.c.started_at,
                ),
                else_=Enrollment.enrolled_at,
            ).label("enrolled_at"),
            summed.c.last_activity_at,
            case(
                (summed.c.last_activity_at.is_(None), null()),
                (is_latest, Enrollment.last_content_id),
                else_=a_latest,
            ).label("last_content_id"),
        )
        .outerjoin(summed, summed.c.user_id == Enrollment.user_id)
        .where(Enrollment.module_id == module_id)
        .subquery("counted")
    )


def _tallies(module_id: str, kinds: Collection[str]) -> Subquery:
    """Set what is stored of each group beside its recount."""
    stored = select(
        literal(False).label("recounted"), Tally.kind, Tally.item, *(getattr(Tally, name) for name in Counts._fields)
    ).where(Tally.module_id == module_id, Tally.kind.in_(kinds))
    parts = union_all(stored, *(share for kind in kinds for share in _shares(module_id, kind))).subquery("parts")
    sums = [
        whole(func.sum(case((parts.c.recounted == is_recounted, parts.c[name]), else_=0))).label(f"{prefix}_{name}")
        for prefix, is_recounted in (("stored", False), ("recounted", True))
        for name in Counts._fields
    ]
    return select(parts.c.kind, parts.c.item, *sums).group_by(parts.c.kind, parts.c.item).subquery("compared")


def _shares(module_id: str, kind: str) -> Iterator[Select[Any]]:
    """Count the groups of a kind: what `tallies` says of one enrollment, record and day, said of all of a module."""
    enrollment, record, day = Enrollment, ProgressRecord, ActivityDay

    def share(item: Any, table: Any, *where: Any, **counts: Any) -> Select[Any]:
        columns = (counts.get(name, literal(0)).label(name) for name in Counts._fields)
        item = cast(item, String)
        counted = select(literal(True).label("recounted"), literal(kind).label("kind"), item.label("item"), *columns)
        return counted.where(table.module_id == module_id, _counts(table, module_id), *where).group_by(item)

    if kind == STATUS:
        yield share(
            enrollment.status,
            enrollment,
            learners=func.count(),
            started=func.count(enrollment.last_activity_at),
            time_spent_seconds=func.sum(enrollment.time_spent_seconds),
            weighted_sum=func.sum(enrollment.weighted_sum),
        )
    elif kind == PERCENTAGE:
        total = func.coalesce(func.nullif(Module.total_weight, 0), 1)
        weight = select(total).where(Module.id == module_id).scalar_subquery()
        yield share(enrollment.weighted_sum // weight, enrollment, enrollment.status != DROPPED, learners=func.count())
    elif kind in (LAST_WEEK, LAST_DAY):
        unfinished = enrollment.status.in_((ACTIVE, PAUSED)), enrollment.last_activity_at.is_not(None)
        period = utc_week if kind == LAST_WEEK else utc_day
        item = period(enrollment.last_activity_at) + " " + enrollment.last_content_id
        yield share(item, enrollment, *unfinished, learners=func.count())
    elif kind == CONTENT:
        yield share(
            record.content_id,
            record,
            started=func.count(),
            completed=func.count(record.completed_at),
            time_spent_seconds=func.sum(record.time_spent_seconds),
            scored=func.count(record.score),
            score_hundredths=func.coalesce(func.sum(record.score * 10_000 // record.max_score), 0),
        )
    else:
        yield share(day.day, day, learners=func.count(), time_spent_seconds=func.sum(day.time_spent_seconds))
        yield share(utc_day(record.started_at), record, started=func.count())
        completed = record.completed_at.is_not(None)
        yield share(utc_day(record.completed_at), record, completed, completed=func.count())
        completed = enrollment.completed_at.is_not(None)
        yield share(utc_day(enrollment.completed_at), enrollment, completed, enrollments_completed=func.count())


def _counts(table: Any, module_id: str) -> Any:
    """Tell whether a row is of a learner who counts in the module's statistics."""
    if table is Enrollment:
        return Enrollment.counted
    uncounted = select(Enrollment.user_id).where(Enrollment.module_id == module_id, ~Enrollment.counted)
    return table.user_id.not_in(uncounted)


def _is_fulfilled() -> ColumnElement[bool]:
    """Tell whether an uncompleted record fulfils the completion rule of its content (see `calculations.apply`)."""
    record = ProgressRecord
    has_passed = or_(Content.passing_score.is_(None), record.score * 10_000 >= Content.passing_score * record.max_score)
    return and_(record.completed_at.is_(None), record.furthest_percentage >= Content.completion_threshold, has_passed)


def _is_complete(completed_contents: Any, total_contents: Any) -> ColumnElement[bool]:
    return and_(
        Enrollment.status.in_((ACTIVE, PAUSED)),
        total_contents > 0,
        completed_contents == total_contents,
    )
