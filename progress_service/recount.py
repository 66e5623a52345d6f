"""Totals counted again from the records, set-based: for catalog changes, and to prove what is stored."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Subquery,
    and_,
    case,
    cast,
    func,
    or_,
    select,
    update,
)

from progress_service.calculations import ACTIVE, COMPLETED, PAUSED
from progress_service.models import Content, Enrollment, Module, ProgressRecord

DENOMINATORS = ("total_weight", "total_contents")
RULED_TOTALS = ("weighted_sum", "completed_contents")
"""The totals of an enrollment that depend on the catalog."""
TOTALS = (*RULED_TOTALS, "time_spent_seconds", "last_activity_at")


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


def totals(connection: Connection, module_id: str, now: datetime, names: Iterable[str] = TOTALS) -> None:
    """Count the totals of a module's enrollments again, and complete what has become complete.

    Only the named totals are written, and only where they differ. The caller holds the module's lock alone.
    """
    counted = _totals(module_id)
    differing = [getattr(Enrollment, name).is_distinct_from(counted.c[name]) for name in names]
    connection.execute(
        update(Enrollment)
        .where(Enrollment.module_id == module_id, Enrollment.user_id == counted.c.user_id, or_(*differing))
        .values({name: counted.c[name] for name in names})
    )
    is_complete = _is_complete(Enrollment.completed_contents, Module.total_contents)
    complete = select(Module.id).where(Module.id == module_id, is_complete)
    connection.execute(
        update(Enrollment)
        .where(Enrollment.module_id == module_id, complete.exists())
        .values(status=COMPLETED, completed_at=now)
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


def _compare(
    connection: Connection,
    module_id: str,
    where: ColumnElement[bool],
    learner: Any,
    pairs: Pairs,
) -> Iterator[Drift]:
    differing = or_(*(stored.is_distinct_from(counted) for stored, counted in pairs.values()))
    flat = [column.label(None) for pair in pairs.values() for column in pair]
    found = select(learner if learner is not None else cast(None, Module.id.type), *flat).where(where, differing)
    for user_id, *figures in connection.execution_options(yield_per=1000).execute(found):
        for name, stored, counted in zip(pairs, figures[::2], figures[1::2], strict=True):
            if stored != counted:
                yield Drift(module_id, user_id, name, stored, counted)


def _denominators(module_id: str) -> Subquery:
    counts = and_(Content.module_id == Module.id, ~Content.retired, Content.weight > 0)
    return (
        select(
            Module.id.label("module_id"),
            _whole(func.sum(Content.weight)).label("total_weight"),
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
            func.max(record.last_activity_at).label("last_activity_at"),
        )
        .join(Content, Content.id == record.content_id)
        .where(record.module_id == module_id)
        .group_by(record.user_id)
        .subquery("summed")
    )
    return (
        select(
            Enrollment.user_id,
            *(_whole(summed.c[name]).label(name) for name in TOTALS[:-1]),
            summed.c.last_activity_at,
        )
        .outerjoin(summed, summed.c.user_id == Enrollment.user_id)
        .where(Enrollment.module_id == module_id)
        .subquery("counted")
    )


def _whole(total: Any) -> ColumnElement[int]:
    """Make a sum whole again, which PostgreSQL answers as a decimal, and nothing where nothing was summed."""
    return cast(func.coalesce(total, 0), BigInteger)


def _is_complete(completed_contents: Any, total_contents: Any) -> ColumnElement[bool]:
    return and_(
        Enrollment.status.in_((ACTIVE, PAUSED)),
        total_contents > 0,
        completed_contents == total_contents,
    )
