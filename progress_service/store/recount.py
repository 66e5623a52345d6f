"""Totals and tallies recounted from the records, set-based: for catalog changes, and for `verification`.

The callers hold the module alone, or share it and hold the enrollments that they name (see `locks`).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy import and_, case, cast, func, literal, null, or_, select, union_all, update

from progress_service.calculations import ACTIVE, COMPLETED, DROPPED, PAUSED, Actor
from progress_service.store import journal
from progress_service.store.functions import item_of, json_text, summed_to_int, utc_day, utc_week
from progress_service.store.models import ActivityDay, Content, Enrollment, Module, ProgressRecord, Tally
from progress_service.store.statements import Statements
from progress_service.tallies import CONTENT, DAY, EXCUSED, KINDS, LAST_DAY, LAST_WEEK, PERCENTAGE, STATUS, Counts

DENOMINATORS = ("total_weight", "total_contents")
RULED_TOTALS = ("weighted_sum", "completed_contents")
"""The totals of an enrollment that depend on the catalog."""
SUMS = (*RULED_TOTALS, "time_spent_seconds")
TOTALS = (*SUMS, "enrolled_at", "last_activity_at", "last_content_id", "last_is_excused")

Weights = Mapping[str, int]
"""The weights of a module's counted contents, by their ids."""
Share = tuple[str, sa.Select[Any]]
"""A kind of groups, and a selection of the numbers that a table adds to these groups."""


def denominators(connection: sa.Connection, module_id: str) -> None:
    """Recount the module's current contents and their weights."""
    counted = recounted_denominators(module_id)
    connection.execute(
        update(Module).where(Module.id == counted.c.module_id).values({name: counted.c[name] for name in DENOMINATORS})
    )


def totals(
    connection: sa.Connection,
    module_id: str,
    now: datetime,
    by: Actor,
    names: Iterable[str] = TOTALS,
    user_ids: Collection[str] | None = None,
) -> int:
    """Recount the totals of all or some of a module's enrollments, and complete the enrollments that are complete.

    Writes only the named totals, and only where they differ. Returns how many of the completed enrollments count in
    statistics.
    """
    counted = recounted_totals(module_id)
    where = [Enrollment.module_id == module_id]
    if user_ids is not None:
        where.append(Enrollment.user_id.in_(user_ids))
    differing = [getattr(Enrollment, name).is_distinct_from(counted.c[name]) for name in names]
    connection.execute(
        update(Enrollment)
        .where(*where, Enrollment.user_id == counted.c.user_id, or_(*differing))
        .values({name: counted.c[name] for name in names})
    )
    return _complete(connection, module_id, now, by, where)


def reweigh(
    connection: sa.Connection, module_id: str, before: Weights, after: Weights, now: datetime, by: Actor
) -> int:
    """Apply new weights of a module's contents to its enrollments, and complete the enrollments that are complete.

    Reads only the records of contents whose weight has changed, and writes only enrollments that differ. The caller
    holds the module alone. Returns how many of the completed enrollments count in statistics.
    """
    sql = Statements.of(connection)
    changed = {key for key, _ in before.items() ^ after.items()}
    gains = sql.weights(
        (key, after.get(key, 0) - before.get(key, 0), (key in after) - (key in before)) for key in changed
    )
    gain, names = sql.weights.c, ["user_id", "progress_percentage", "completed_at", "excused_at"]
    source, record = sql.look_up(sql.weights.table, ProgressRecord, names, module_id=module_id, content_id=gain.id)
    completed = case((_is_done(record), gain.contents), else_=0)
    gained = (
        select(
            record.user_id,
            summed_to_int(func.sum(gain.weight * record.progress_percentage)).label("weighted_sum"),
            summed_to_int(func.sum(completed)).label("completed_contents"),
        )
        .select_from(source)
        .group_by(record.user_id)
        .subquery("gained")
    )
    differing = [gained.c[name] != 0 for name in RULED_TOTALS]
    is_enrolled = Enrollment.module_id == module_id
    connection.execute(
        update(Enrollment)
        .where(is_enrolled, Enrollment.user_id == gained.c.user_id, or_(*differing))
        .values({name: getattr(Enrollment, name) + gained.c[name] for name in RULED_TOTALS}),
        gains,
    )
    return _complete(connection, module_id, now, by, [is_enrolled])


def _complete(
    connection: sa.Connection, module_id: str, now: datetime, by: Actor, where: Iterable[sa.ColumnElement[bool]]
) -> int:
    """Complete the enrollments that are complete, and return how many of them count in statistics."""
    module = select(Module.id).where(
        Module.id == module_id, is_complete(Enrollment.completed_contents, Module.total_contents)
    )
    completing = [*where, module.exists()]
    number = connection.execute(select(func.count()).where(*completing, Enrollment.counted)).scalar_one()
    data = json_text(sa.literal_column("'progressPercentage'"), sa.literal_column("100.0"))
    journal.write_selected(connection, journal.ENROLLMENT_COMPLETED, Enrollment, null(), data, completing, by, now)
    connection.execute(update(Enrollment).where(*completing).values(status=COMPLETED, completed_at=now))
    return number


def completions(
    connection: sa.Connection,
    module_id: str,
    now: datetime,
    by: Actor,
    *,
    content_ids: Collection[str] | None = None,
    user_ids: Collection[str] | None = None,
) -> dict[str, int]:
    """Complete the records of a module that fulfil the rule of their content, for all or some contents and learners.

    Returns how many of the completed records of each content count in statistics. The caller recounts the totals.
    """
    sql = Statements.of(connection)
    where = [ProgressRecord.module_id == module_id, ProgressRecord.content_id == Content.id, is_fulfilled()]
    if content_ids is not None:
        where.append(ProgressRecord.content_id.in_(select(sql.ids.c.id)))
    if user_ids is not None:
        where.append(ProgressRecord.user_id.in_(user_ids))
    ids = sql.ids((content_id,) for content_id in content_ids or ())
    record = ProgressRecord
    is_in_figures = and_(_is_counted(record, module_id), record.excused_at.is_(None))
    number = summed_to_int(func.sum(case((is_in_figures, 1), else_=0))).label("number")
    counted = select(ProgressRecord.content_id, number).where(*where).group_by(ProgressRecord.content_id)
    completed = connection.execute(counted, ids).all()
    if not completed:
        return {}
    percentage = record.score * 10_000 // record.max_score / sa.literal_column("100.0")
    data = json_text(sa.literal_column("'scorePercentage'"), percentage)
    journal.write_selected(connection, journal.CONTENT_COMPLETED, record, record.content_id, data, where, by, now, ids)
    connection.execute(update(ProgressRecord).where(*where).values(completed_at=now, progress_percentage=100), ids)
    return {row.content_id: row.number for row in completed}


def tallies(connection: sa.Connection, module_id: str, kinds: Collection[str] = KINDS) -> None:
    """Recount the tallies of a module and add the difference.

    Updates may run meanwhile: they only add, so that the difference is the same at any moment. Another repair may not
    run, since both would add the same difference.
    """
    compared = compared_tallies(module_id, kinds)
    lacking = [compared.c[f"recounted_{name}"] - compared.c[f"stored_{name}"] for name in Counts._fields]
    groups = literal(module_id), compared.c.kind, compared.c.item, literal(0)
    connection.execute(
        Statements.of(connection).add_to_tallies(
            select(*groups, *lacking)
            .where(or_(*(lack != 0 for lack in lacking)))
            .order_by(compared.c.kind, compared.c.item)
        )
    )


def recounted_denominators(module_id: str) -> sa.Subquery:
    """Count the denominators of a module from its contents."""
    counts = and_(Content.module_id == Module.id, ~Content.retired, Content.weight > 0)
    return (
        select(
            Module.id.label("module_id"),
            summed_to_int(func.sum(Content.weight)).label("total_weight"),
            func.count(Content.id).label("total_contents"),
        )
        .outerjoin(Content, counts)
        .where(Module.id == module_id)
        .group_by(Module.id)
        .subquery("denominators")
    )


def recounted_totals(module_id: str) -> sa.Subquery:
    """Count the totals of all enrollments of a module as `calculations.recount` counts those of each."""
    record = ProgressRecord
    weighted = case((~Content.retired, cast(Content.weight, sa.BigInteger) * record.progress_percentage), else_=0)
    is_completed = and_(~Content.retired, Content.weight > 0, _is_done(record))
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
    is_earlier = and_(Enrollment.enrolled_by_update, summed.c.started_at < Enrollment.enrolled_at)
    is_inactive = summed.c.last_activity_at.is_(None)
    # With an empty text behind it, the module's id is in no index, so that records are found by their learner.
    latest = (
        record.user_id == Enrollment.user_id,
        record.module_id + sa.literal_column("''") == module_id,
        record.last_activity_at == summed.c.last_activity_at,
    )
    # If several contents have the latest time, any of them may have been the last.
    is_latest = select(record.id).where(*latest, record.content_id == Enrollment.last_content_id).exists()
    some_latest = select(func.max(record.content_id)).where(*latest).scalar_subquery()
    last_content_id = case((is_inactive, null()), (is_latest, Enrollment.last_content_id), else_=some_latest)
    dated = (
        select(
            Enrollment.user_id,
            *(summed_to_int(summed.c[name]).label(name) for name in SUMS),
            case((is_earlier, summed.c.started_at), else_=Enrollment.enrolled_at).label("enrolled_at"),
            summed.c.last_activity_at,
            last_content_id.label("last_content_id"),
        )
        .outerjoin(summed, summed.c.user_id == Enrollment.user_id)
        .where(Enrollment.module_id == module_id)
        .subquery("dated")
    )
    of_last = record.user_id == dated.c.user_id, record.content_id == dated.c.last_content_id
    last_is_excused = select(record.id).where(*of_last, record.excused_at.is_not(None)).exists()
    return select(*dated.c, last_is_excused.label("last_is_excused")).subquery("counted")


def compared_tallies(module_id: str, kinds: Collection[str]) -> sa.Subquery:
    """Select the stored numbers of each group beside their recount."""
    stored = select(
        literal(False).label("recounted"), Tally.kind, Tally.item, *(getattr(Tally, name) for name in Counts._fields)
    ).where(Tally.module_id == module_id, Tally.kind.in_(kinds))
    recounted = chain(_shares_of_enrollments(module_id), _shares_of_records(module_id), _shares_of_days(module_id))
    parts = union_all(stored, *(share for kind, share in recounted if kind in kinds)).subquery("parts")
    sums = [
        summed_to_int(func.sum(case((parts.c.recounted == is_recounted, parts.c[name]), else_=0))).label(
            f"{prefix}_{name}"
        )
        for prefix, is_recounted in (("stored", False), ("recounted", True))
        for name in Counts._fields
    ]
    return select(parts.c.kind, parts.c.item, *sums).group_by(parts.c.kind, parts.c.item).subquery("compared")


def _shares_of_enrollments(module_id: str) -> Iterator[Share]:
    """Count all enrollments of a module as `tallies.of_enrollment` counts each."""
    enrollment = Enrollment
    yield _share(
        module_id,
        STATUS,
        enrollment.status,
        enrollment,
        learners=func.count(),
        started=func.count(enrollment.last_activity_at),
        time_spent_seconds=func.sum(enrollment.time_spent_seconds),
        weighted_sum=func.sum(enrollment.weighted_sum),
    )
    total_weight = func.coalesce(func.nullif(Module.total_weight, 0), 1)
    weight = select(total_weight).where(Module.id == module_id).scalar_subquery()
    percentage, is_kept = enrollment.weighted_sum // weight, enrollment.status != DROPPED
    yield _share(module_id, PERCENTAGE, percentage, enrollment, is_kept, learners=func.count())
    last, content_id = enrollment.last_activity_at, enrollment.last_content_id
    is_unfinished = and_(enrollment.status.in_((ACTIVE, PAUSED)), last.is_not(None), ~enrollment.last_is_excused)
    yield _share(
        module_id, LAST_WEEK, item_of(utc_week(last), content_id), enrollment, is_unfinished, learners=func.count()
    )
    yield _share(
        module_id, LAST_DAY, item_of(utc_day(last), content_id), enrollment, is_unfinished, learners=func.count()
    )
    completed_at = enrollment.completed_at
    is_completed = completed_at.is_not(None)
    yield _share(module_id, DAY, utc_day(completed_at), enrollment, is_completed, enrollments_completed=func.count())


def _shares_of_records(module_id: str) -> Iterator[Share]:
    """Count all records of a module as `tallies.of_record` counts each."""
    record = ProgressRecord
    is_excused, is_kept = record.excused_at.is_not(None), record.excused_at.is_(None)
    yield _share(module_id, EXCUSED, record.content_id, record, is_excused, learners=func.count())
    yield _share(
        module_id,
        CONTENT,
        record.content_id,
        record,
        is_kept,
        started=func.count(),
        completed=func.count(record.completed_at),
        time_spent_seconds=func.sum(record.time_spent_seconds),
        scored=func.count(record.score),
        score_hundredths=func.coalesce(func.sum(record.score * 10_000 // record.max_score), 0),
    )
    yield _share(module_id, DAY, utc_day(record.started_at), record, is_kept, started=func.count())
    is_completed = and_(record.completed_at.is_not(None), is_kept)
    yield _share(module_id, DAY, utc_day(record.completed_at), record, is_completed, completed=func.count())


def _shares_of_days(module_id: str) -> Iterator[Share]:
    """Count all days of activity in a module as `tallies.of_day` counts each.

    They are found through the enrollments, since no index of theirs begins with the module.
    """
    day, of_learner = ActivityDay, Enrollment.user_id == ActivityDay.user_id
    yield _share(
        module_id,
        DAY,
        day.day,
        Enrollment,
        and_(of_learner, day.module_id == module_id),
        learners=func.count(),
        time_spent_seconds=func.sum(day.time_spent_seconds),
    )


def _share(module_id: str, kind: str, item: Any, table: Any, *where: Any, **counts: Any) -> Share:
    """Select the numbers that the rows of a table add to the groups of a kind."""
    item = cast(item, sa.String)
    columns = (counts.get(name, literal(0)).label(name) for name in Counts._fields)
    share = select(literal(True).label("recounted"), literal(kind).label("kind"), item.label("item"), *columns)
    return kind, share.where(table.module_id == module_id, _is_counted(table, module_id), *where).group_by(item)


def _is_counted(table: Any, module_id: str) -> Any:
    """Tell whether a row is of a learner who counts in the module's statistics."""
    if table is Enrollment:
        return Enrollment.counted
    uncounted = select(Enrollment.user_id).where(Enrollment.module_id == module_id, ~Enrollment.counted)
    return table.user_id.not_in(uncounted)


def is_fulfilled() -> sa.ColumnElement[bool]:
    """Tell whether an uncompleted record fulfils the completion rule of its content (see `calculations.apply`)."""
    record = ProgressRecord
    has_passed = or_(Content.passing_score.is_(None), record.score * 10_000 >= Content.passing_score * record.max_score)
    return and_(record.completed_at.is_(None), record.furthest_percentage >= Content.completion_threshold, has_passed)


def _is_done(record: Any) -> sa.ColumnElement[bool]:
    return or_(record.completed_at.is_not(None), record.excused_at.is_not(None))


def is_complete(completed_contents: Any, total_contents: Any) -> sa.ColumnElement[bool]:
    """Tell whether an enrollment completes with these numbers of contents (see `calculations.is_complete`)."""
    return and_(Enrollment.status.in_((ACTIVE, PAUSED)), total_contents > 0, completed_contents == total_contents)
