"""Comparison of the stored figures with a recount, and the repair of those that differ: `flask progress verify`."""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, case, delete, insert, literal, null, or_, select, true

from progress_service.calculations import COMMAND, COMPLETED
from progress_service.store import locks, recount
from progress_service.store.models import Content, Enrollment, Module, ProgressRecord, Verification
from progress_service.store.recount import DENOMINATORS, TOTALS
from progress_service.store.statements import Statements
from progress_service.tallies import KINDS, Counts

NO_GROUP = literal("")
Pairs = dict[str, tuple[Any, Any]]
"""Of each figure, by its name, the stored column and the recounted column."""


class Drift(NamedTuple):
    """A stored figure that differs from its recount; a figure of the module has no learner."""

    module_id: str
    user_id: str | None
    figure: str
    stored: Any
    recounted: Any


class Verified(NamedTuple):
    """When all figures were last compared with their recount, and how many differed."""

    at: datetime
    drifts: int


def last(connection: Connection) -> Verified | None:
    """Return the last comparison, if there is one."""
    found = select(Verification.verified_at, Verification.drifts).order_by(Verification.verified_at.desc()).limit(1)
    row = connection.execute(found).first()
    return Verified(*row) if row else None


def note(connection: Connection, verified: Verified) -> None:
    """Store the last comparison in the place of earlier ones."""
    connection.execute(delete(Verification).where(Verification.verified_at <= verified.at))
    connection.execute(insert(Verification).values(verified_at=verified.at, drifts=verified.drifts))


def drifts(connection: Connection) -> Iterator[Drift]:
    """Compare every stored total with its recount, module by module, in the snapshot that the connection reads."""
    for module_id in connection.execute(select(Module.id).order_by(Module.id)).scalars().all():
        denominators = recount.recounted_denominators(module_id)
        pairs: Pairs = {name: (getattr(Module, name), denominators.c[name]) for name in DENOMINATORS}
        yield from _compare(connection, module_id, Module.id == denominators.c.module_id, null(), pairs)

        totals = recount.recounted_totals(module_id)
        pairs = {name: (getattr(Enrollment, name), totals.c[name]) for name in TOTALS}
        is_complete = recount.is_complete(totals.c.completed_contents, denominators.c.total_contents)
        pairs["status"] = (Enrollment.status, case((is_complete, COMPLETED), else_=Enrollment.status))
        is_same = and_(
            Enrollment.module_id == module_id,
            Enrollment.user_id == totals.c.user_id,
            Enrollment.module_id == denominators.c.module_id,
        )
        yield from _compare(connection, module_id, is_same, Enrollment.user_id, pairs)

        record = ProgressRecord
        is_late = and_(record.module_id == module_id, record.content_id == Content.id, recount.is_fulfilled())
        pairs = {"progress_percentage": (record.progress_percentage, literal(100))}
        yield from _compare(connection, module_id, is_late, record.user_id, pairs, record.content_id + " ")

        tallies = recount.compared_tallies(module_id, KINDS)
        pairs = {name: (tallies.c[f"stored_{name}"], tallies.c[f"recounted_{name}"]) for name in Counts._fields}
        group = tallies.c.kind + " " + tallies.c.item + " "
        yield from _compare(connection, module_id, true(), null(), pairs, group)


def _compare(
    connection: Connection,
    module_id: str,
    where: ColumnElement[bool],
    learner: Any,
    pairs: Pairs,
    group: Any = NO_GROUP,
) -> Iterator[Drift]:
    differing = or_(*(stored.is_distinct_from(recounted) for stored, recounted in pairs.values()))
    flat = [column.label(None) for pair in pairs.values() for column in pair]
    found = select(learner, group, *flat).where(where, differing)
    for user_id, prefix, *figures in connection.execution_options(yield_per=1000).execute(found):
        for name, stored, recounted in zip(pairs, figures[::2], figures[1::2], strict=True):
            if stored != recounted:
                yield Drift(module_id, user_id, prefix + name, stored, recounted)


def repair(connection: Connection, module_id: str, drifts: Collection[Drift], *, now: datetime) -> None:
    """Store the recount of a module's totals where they differ.

    Only updates of learners whose figures differ wait. If the module's denominators differ, this holds the module alone
    and recounts all its learners.
    """
    if any(drift.figure in DENOMINATORS for drift in drifts):
        locks.hold_modules(connection, [module_id])
        recount.denominators(connection, module_id)
        user_ids = None
    else:
        user_ids = sorted({drift.user_id for drift in drifts if drift.user_id is not None})
        _share(connection, module_id)
        drifted = Enrollment.module_id == module_id, Enrollment.user_id.in_(user_ids)
        connection.execute(select(Enrollment.user_id).where(*drifted).order_by(Enrollment.user_id).with_for_update())
    recount.completions(connection, module_id, now, COMMAND, user_ids=user_ids)
    recount.totals(connection, module_id, now, COMMAND, user_ids=user_ids)


def repair_tallies(connection: Connection, module_id: str) -> None:
    """Add to a module's tallies what their recount lacks; updates run on, and other repairs of the module wait."""
    locks.hold_repairs(connection, module_id)  # before the statement that counts, so that it sees an earlier repair
    _share(connection, module_id)
    recount.tallies(connection, module_id)


def _share(connection: Connection, module_id: str) -> None:
    sql = Statements.of(connection)
    locks.share_module(connection, sql.lock_modules, sql.enrollment_keys([("", module_id, None)]))
