"""The queries for statistics: sums of tallies, whose number does not grow with the number of learners."""

from collections import Counter
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, String, and_, bindparam, func, literal_column, or_, select, union_all

from progress_service import calculations
from progress_service.calculations import ACTIVE, PAUSED
from progress_service.store.direct import DirectStatement
from progress_service.store.functions import content_of, one_of, summed_to_int
from progress_service.store.models import Content, Enrollment, Module, Tally
from progress_service.store.pipeline import Row
from progress_service.store.values import MODULE, columns
from progress_service.tallies import CONTENT, DAY, LAST_DAY, LAST_WEEK, PERCENTAGE, STATUS, Counts
from progress_service.web.documents import ListedContent

Groups = dict[str, dict[str, Counts]]
"""The sums of a module's groups, by kind and item."""


class TitledModule(NamedTuple):
    """A module's title, and the denominators of its progress."""

    id: str
    title: str
    module: calculations.Denominators


THE_MODULE: Any = bindparam("module_id", type_=Module.id.type)
THE_WEEK: Any = bindparam("week", type_=String)


def _groups(*where: ColumnElement[bool]) -> DirectStatement:
    sums = (summed_to_int(func.sum(getattr(Tally, name))) for name in Counts._fields)
    groups = select(Tally.kind, Tally.item, *sums).where(Tally.module_id == THE_MODULE, *where)
    return DirectStatement(groups.group_by(Tally.kind, Tally.item))


MODULE_TITLE = DirectStatement(select(Module.title, *MODULE).where(Module.id == THE_MODULE))
CONTENTS = DirectStatement(
    select(*columns(Content, ListedContent))
    .where(Content.module_id == THE_MODULE, ~Content.retired)
    .order_by(Content.ordinal)
)
GROUPS = _groups(one_of(Tally.kind, (STATUS, PERCENTAGE, CONTENT)))
DAYS = _groups(Tally.kind == DAY, Tally.item.between(bindparam("first", type_=String), bindparam("last", type_=String)))
_LAST_BEFORE = (
    select(content_of(Tally.item), summed_to_int(func.sum(Tally.learners)))
    .where(
        Tally.module_id == THE_MODULE,
        or_(
            and_(Tally.kind == LAST_WEEK, Tally.item < THE_WEEK),
            and_(Tally.kind == LAST_DAY, Tally.item >= THE_WEEK, Tally.item < bindparam("day", type_=String)),
        ),
    )
    .group_by(literal_column("1"))
)
_LAST_WITHIN = (
    select(Enrollment.last_content_id, func.count())
    .where(
        Enrollment.module_id == THE_MODULE,
        one_of(Enrollment.status, (ACTIVE, PAUSED)),
        Enrollment.counted,
        Enrollment.last_activity_at >= bindparam("midnight", type_=Enrollment.last_activity_at.type),
        Enrollment.last_activity_at <= bindparam("since", type_=Enrollment.last_activity_at.type),
    )
    .group_by(Enrollment.last_content_id)
)
LAST_UPDATES = DirectStatement(union_all(_LAST_BEFORE, _LAST_WITHIN))


def module(connection: Connection, module_id: str) -> TitledModule | None:
    """Find a module."""
    found = MODULE_TITLE.run(connection, module_id=module_id)
    return next((TitledModule(module_id, title, calculations.Denominators(*row)) for title, *row in found), None)


def contents(connection: Connection, module_id: str) -> list[ListedContent]:
    """List a module's current contents in catalog order."""
    return [ListedContent(*row) for row in CONTENTS.run(connection, module_id=module_id)]


def groups(connection: Connection, module_id: str) -> Groups:
    """Add up the tallies of a module by status, percentage and content."""
    return _added_up(GROUPS.run(connection, module_id=module_id))


def days(connection: Connection, module_id: str, first: date, last: date) -> dict[str, Counts]:
    """Add up the tallies of each day from the first to the last; days without activity are left out."""
    return _added_up(DAYS.run(connection, module_id=module_id, first=str(first), last=str(last))).get(DAY, {})


def stalled(connection: Connection, module_id: str, since: datetime) -> dict[str, int]:
    """Count the active and paused learners without activity since an instant, by the content of their last update.

    Tallies give the complete weeks before the instant's week, and its complete days before the instant's day. On that
    day itself the enrollments are counted.
    """
    counts: Counter[str] = Counter()
    for content_id, learners in LAST_UPDATES.run(
        connection,
        module_id=module_id,
        week=str(calculations.week_of(since)),
        day=str(since.date()),
        midnight=datetime.combine(since, time(), UTC),
        since=since,
    ):
        counts[content_id] += learners
    return counts


def _added_up(rows: list[Row]) -> Groups:
    found: Groups = {}
    for kind, item, *counts in rows:
        found.setdefault(kind, {})[item] = Counts(*counts)
    return found
