"""What statistics are made of: sums of tallies, whose number does not grow with the number of learners."""

from collections.abc import Collection
from datetime import UTC, date, datetime, time
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from progress_service import calculations
from progress_service.calculations import ACTIVE, PAUSED
from progress_service.models import Content, Enrollment, Module, Tally
from progress_service.statements import MODULE, whole
from progress_service.tallies import CONTENT, DAY, LAST_DAY, LAST_WEEK, PERCENTAGE, STATUS, Counts

Groups = dict[str, dict[str, Counts]]
"""What the groups of a module add up to, by kind and item."""


class TitledModule(NamedTuple):
    """What a module is called, and the denominators of its progress."""

    id: str
    title: str
    module: calculations.Module


class ListedContent(NamedTuple):
    """A current content of a module."""

    id: str
    title: str
    type: str
    section: str | None
    weight: int


def module(connection: Connection, module_id: str) -> TitledModule | None:
    """Find a module."""
    for title, *row in connection.execute(select(Module.title, *MODULE).where(Module.id == module_id)):
        return TitledModule(module_id, title, calculations.Module(*row))
    return None


def contents(connection: Connection, module_id: str) -> list[ListedContent]:
    """List a module's current contents in catalog order."""
    found = (
        select(Content.id, Content.title, Content.type, Content.section, Content.weight)
        .where(Content.module_id == module_id, ~Content.retired)
        .order_by(Content.ordinal)
    )
    return [ListedContent(*row) for row in connection.execute(found)]


def groups(connection: Connection, module_id: str, kinds: Collection[str] = (STATUS, PERCENTAGE, CONTENT)) -> Groups:
    """Add up the groups of some kinds."""
    return _added_up(connection, Tally.module_id == module_id, Tally.kind.in_(kinds))


def days(connection: Connection, module_id: str, first: date, last: date) -> dict[str, Counts]:
    """Add up what happened on each day from the first to the last; days without activity are left out."""
    between = Tally.item.between(str(first), str(last))
    return _added_up(connection, Tally.module_id == module_id, Tally.kind == DAY, between).get(DAY, {})


def stalled(connection: Connection, module_id: str, since: datetime) -> dict[str, int]:
    """Count, by the content of their last update, the unfinished learners without activity since an instant.

    Whole weeks, and the whole days since, come from the tallies; of the instant's own day the enrollments are counted.
    """
    week, day = str(calculations.week_of(since)), str(since.date())
    content_id = func.substr(Tally.item, len(f"{day} ") + 1)
    weeks = and_(Tally.kind == LAST_WEEK, Tally.item < week)
    days = and_(Tally.kind == LAST_DAY, Tally.item >= week, Tally.item < day)
    before = (
        select(content_id, whole(func.sum(Tally.learners)))
        .where(Tally.module_id == module_id, or_(weeks, days))
        .group_by(content_id)
    )
    within = (
        select(Enrollment.last_content_id, func.count())
        .where(
            Enrollment.module_id == module_id,
            Enrollment.status.in_((ACTIVE, PAUSED)),
            Enrollment.last_activity_at >= datetime.combine(since, time(), UTC),
            Enrollment.last_activity_at <= since,
        )
        .group_by(Enrollment.last_content_id)
    )
    counts: dict[str, int] = {}
    for found in (before, within):
        for content, learners in connection.execute(found):
            counts[content] = counts.get(content, 0) + learners
    return counts


def _added_up(connection: Connection, *where: ColumnElement[bool]) -> Groups:
    sums = (whole(func.sum(getattr(Tally, name))) for name in Counts._fields)
    found: Groups = {}
    for kind, item, *counts in connection.execute(
        select(Tally.kind, Tally.item, *sums).where(*where).group_by(Tally.kind, Tally.item)
    ):
        found.setdefault(kind, {})[item] = Counts(*counts)
    return found
