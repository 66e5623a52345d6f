"""The learners of a module, page by page.

A page begins behind a position: the key of the order, and the learner's id, which decides between equal keys. Each
status has an index in each order, and a page is merged from the first rows of each: it costs the same at any depth.

Most filters ask more than such an index knows, so that each learner in the order has to be looked at. If many are
meant, the page is soon full. If few are meant, or none at the beginning of the order, it would look at everybody. So it
gives up after a number of learners. Then all who are meant are found by the filters' own indexes, and sorted.
"""

import base64
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    and_,
    case,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)

from progress_service import calculations
from progress_service.analytics.queries import have_stalled
from progress_service.calculations import ACTIVE, COMPLETED, PAUSED, STATUSES
from progress_service.store.functions import one_of
from progress_service.store.models import Enrollment, ProgressRecord
from progress_service.store.values import ENROLLMENT
from progress_service.web import serialization
from progress_service.web.documents import EXCUSED, IN_PROGRESS, NOT_STARTED
from progress_service.web.validation import is_identifier, parse_json

USER_ID, PROGRESS, LAST_ACTIVITY = "userId", "progress", "lastActivity"
SORTS = (USER_ID, PROGRESS, f"-{PROGRESS}", LAST_ACTIVITY, f"-{LAST_ACTIVITY}")

NEVER = datetime.min.replace(tzinfo=UTC)
"""What stands for the last activity of learners without any, where these are sorted together with others."""
PAGE = 1000
"""The number of learners that one statement reads for a table of all learners."""
MOST_LOOKED_AT = 5000
"""The number of learners that a page looks at in its order before it gives up."""
MOST_STORED = 2**63 - 1
"""The largest whole number that the databases keep."""

Key = int | datetime | None


class Position(NamedTuple):
    """A learner's position in an order; the key is None in the order of user ids, and for learners without activity."""

    key: Key
    user_id: str


class Stop(NamedTuple):
    """A content, and the learners who have stalled on it: they were not active since an instant."""

    content_id: str
    since: datetime


class Stage(NamedTuple):
    """A content, and the learners to whom it has a status."""

    content_id: str
    status: str


class Filters(NamedTuple):
    """The learners to list; a filter that is None leaves out nobody."""

    status: str | None = None
    inactive_since: datetime | None = None
    """Active and paused learners without activity since this time; the enrollment counts for learners without any."""
    most_weighted_sum: int | None = None
    is_weightless: bool = False
    """Whether the module has no weight: then completed learners are shown with 100 per cent, and others with 0."""
    only_counted: bool = False
    """Whether to leave out the learners who are in no statistics."""
    stop: Stop | None = None
    stage: Stage | None = None
    user_ids: Sequence[str] | None = None
    completed_since: datetime | None = None

    @property
    def idle_since(self) -> datetime | None:
        """The latest time at which the learners may have been active last."""
        return min(filter(None, (self.inactive_since, self.stop and self.stop.since)), default=None)

    @property
    def need_activity(self) -> bool:
        """Whether learners without any activity are left out."""
        return self.stop is not None or (self.stage is not None and self.stage.status in (IN_PROGRESS, COMPLETED))

    @property
    def statuses(self) -> list[str]:
        """The statuses that the learners may have."""
        unfinished, completed = (ACTIVE, PAUSED), (COMPLETED,)
        most = 100 if self.most_weighted_sum is None or not self.is_weightless else self.most_weighted_sum
        return [
            status
            for status in STATUSES
            if self.status in (None, status)
            and (self.inactive_since is None or status in unfinished)
            and (self.stop is None or status in unfinished)
            and (self.completed_since is None or status in completed)
            and (most >= 100 or status not in completed)
        ]


class Order(NamedTuple):
    """An order of the roster; learners without activity sort before all others."""

    by: str
    descending: bool

    @classmethod
    def named(cls, sort: str) -> "Order":
        return cls(sort.removeprefix("-"), sort.startswith("-"))

    def columns(self, learner: Any) -> list[Any]:
        """Return the columns of learners that the order compares; the last one is the user id."""
        keys = {PROGRESS: [learner.weighted_sum], LAST_ACTIVITY: [learner.last_activity_at]}
        return [*keys.get(self.by, []), learner.user_id]

    def sort(self, columns: Sequence[Any]) -> list[Any]:
        return [column.desc() if self.descending else column for column in columns]

    def position(self, enrollment: calculations.Enrollment) -> Position:
        keys: dict[str, Key] = {PROGRESS: enrollment.weighted_sum, LAST_ACTIVITY: enrollment.last_activity_at}
        return Position(keys.get(self.by), enrollment.user_id)


def page(
    connection: Connection, module_id: str, filters: Filters, order: Order, after: Position | None, limit: int
) -> list[calculations.Enrollment]:
    """List the first learners behind a position, or from the start."""
    if not filters.statuses:
        return []
    found = None if filters.user_ids is not None else _walk(connection, module_id, filters, order, after, limit)
    if found is None:
        rows = connection.execute(_sorted(_meant(module_id, filters), order, after).limit(limit))
        found = [calculations.Enrollment(*row) for row in rows]
    return found


def pages(
    connection: Connection, module_id: str, filters: Filters, order: Order
) -> Iterator[list[calculations.Enrollment]]:
    """List all learners, a page at a time; by one statement unless every learner in the order is meant."""
    if _conditions(filters, order):
        meant = _meant(module_id, filters)
        # By user id PostgreSQL finds the first rows at once, if it may.
        listed = meant.order_by(Enrollment.user_id) if order.by == USER_ID else _sorted(meant, order, None)
        rows = connection.execute(listed, execution_options={"yield_per": PAGE})
        yield from ([calculations.Enrollment(*row) for row in part] for part in rows.partitions())
        return
    after = None
    while found := page(connection, module_id, filters, order, after, PAGE):
        yield found
        after = order.position(found[-1])


def count(connection: Connection, module_id: str, filters: Filters) -> int:
    """Count all learners, by filters that the order of the last activity answers."""
    order = Order.named(LAST_ACTIVITY)
    parts = chain.from_iterable(_parts(module_id, status, filters, order, None) for status in filters.statuses)
    counts = [part.with_only_columns(func.count()).scalar_subquery() for part in parts]
    return int(connection.execute(select(sum(counts, start=literal(0)))).scalar_one())


def encode(order: Order, position: Position) -> str:
    """Write a position as a cursor."""
    written = serialization.encode([*order, *position])
    return base64.urlsafe_b64encode(written).rstrip(b"=").decode()


def decode(cursor: str, order: Order) -> Position:
    """Read a cursor. Raises ValueError for a text that `encode` has not made for this order."""
    try:
        *_, key, user_id = parse_json(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
        position = Position(_key(order.by, key), user_id)
        is_made_by_encode = is_identifier(user_id) and encode(order, position) == cursor
    except (TypeError, OverflowError) as error:
        raise ValueError("not a cursor") from error
    if not is_made_by_encode:
        raise ValueError("a cursor for another order")
    return position


def _key(by: str, written: Any) -> Key:
    """Read a key in a cursor. Raises ValueError, TypeError or OverflowError for anything else."""
    if by == PROGRESS:
        if not 0 <= written <= MOST_STORED:
            raise ValueError("not a sum")
        return int(written)
    if by == LAST_ACTIVITY and written is not None:
        return datetime.fromisoformat(written).astimezone(UTC)
    return None


def _walk(
    connection: Connection, module_id: str, filters: Filters, order: Order, after: Position | None, limit: int
) -> list[calculations.Enrollment] | None:
    """List the first learners behind a position as they come in the order; None if too many others come before."""
    by_status = (_parts(module_id, status, filters, order, after) for status in filters.statuses)
    found: list[calculations.Enrollment] = []
    for parts in zip(*by_status, strict=True):
        rows = connection.execute(_look(parts, filters, order, limit - len(found))).all()
        if rows and rows[-1].user_id is None:
            return None
        found += (calculations.Enrollment(*row) for row in rows)
        if len(found) == limit:
            break
    return found


def _parts(module_id: str, status: str, filters: Filters, order: Order, after: Position | None) -> list[Select[Any]]:
    """Select the learners of a status behind a position; in the order of activity those without any are a part."""
    learner, since = Enrollment, filters.idle_since
    active_at: Any = learner.last_activity_at
    is_done = filters.is_weightless and status == COMPLETED
    progress: Any = learner.weighted_sum + 100 if is_done else learner.weighted_sum
    listed = _learners(module_id, filters, learner.status == status, progress)
    if order.by == USER_ID:
        return [_behind(listed, order, after, [learner.user_id])]
    if order.by == PROGRESS:
        return [_behind(listed, order, after, [progress, learner.user_id], filters.most_weighted_sum)]
    never, active = listed.where(active_at.is_(None)), listed.where(active_at.is_not(None))
    if since is not None:
        never = never.where(learner.enrolled_at <= since)
    is_never = after is not None and after.key is None
    columns, parts = [active_at, learner.user_id], []
    if not filters.need_activity and (after is None or is_never or order.descending):
        parts.append(_behind(never, order, after if is_never else None, columns))
    if after is None or not is_never or not order.descending:
        parts.append(_behind(active, order, None if is_never else after, columns, since))
    return parts[:: -1 if order.descending else 1]


def _learners(module_id: str, filters: Filters, has_status: ColumnElement[bool], progress: Any) -> Select[Any]:
    """Select learners, with the sum by which their progress is shown."""
    columns = {column.key: column for column in ENROLLMENT} | {"weighted_sum": progress.label("weighted_sum")}
    listed = select(*columns.values()).where(Enrollment.module_id == module_id, has_status)
    return listed.where(Enrollment.counted) if filters.only_counted else listed


def _look(
    parts: Sequence[Select[Any]], filters: Filters, order: Order, limit: int
) -> Select[Any] | CompoundSelect[Any]:
    """Select who is meant of the first learners of all parts; then a row without a user id, if there are more."""
    is_exact = not _conditions(filters, order)
    most = limit if is_exact else MOST_LOOKED_AT + 1
    # PostgreSQL merges what is sorted and has an end. Times are sorted where all are null, too, for the index.
    ended = (part.order_by(*order.sort(order.columns(Enrollment))).limit(most).subquery().select() for part in parts)
    merged = union_all(*ended)
    if is_exact:
        return merged.order_by(*order.sort(order.columns(merged.selected_columns))).limit(limit)
    first = merged.subquery()
    by = order.sort(order.columns(first.c))
    placed = select(first, func.row_number().over(order_by=by).label("place")).order_by(*by).limit(most).subquery()
    user_id, *others, place = placed.c
    is_looked_at = place <= MOST_LOOKED_AT
    is_meant = and_(*_conditions(filters, order, placed.c))
    found = select(case((is_looked_at, user_id)).label("user_id"), *others).where(or_(~is_looked_at, is_meant))
    return found.order_by(*order.sort(order.columns(placed.c))).limit(limit)


def _meant(module_id: str, filters: Filters) -> Select[Any]:
    """Select the learners who are meant."""
    learner = Enrollment
    progress = learner.weighted_sum + case((learner.status == COMPLETED, 100 if filters.is_weightless else 0), else_=0)
    listed = _learners(module_id, filters, one_of(learner.status, filters.statuses), progress)
    return listed.where(*_conditions(filters))


def _sorted(meant: Select[Any], order: Order, after: Position | None) -> Select[Any]:
    """Find all who are meant, and sort those behind a position."""
    # OFFSET 0 lets PostgreSQL plan for all who are meant. For the first few it would walk along the order, past
    # everybody who is not meant.
    found = meant.offset(literal_column("0")).subquery()
    columns = order.columns(found.c)
    if order.by == LAST_ACTIVITY:
        columns[0] = func.coalesce(columns[0], NEVER)
        after = after._replace(key=after.key or NEVER) if after else None
    return _behind(select(found), order, after, columns).order_by(*order.sort(columns))


def _conditions(filters: Filters, order: Order | None = None, learner: Any = Enrollment) -> list[ColumnElement[bool]]:
    """Return what is true of those who are meant, apart from their status and what the index of an order answers."""
    by = order.by if order else None
    conditions: list[ColumnElement[bool]] = []
    if filters.inactive_since is not None and by != LAST_ACTIVITY:
        is_new = and_(learner.last_activity_at.is_(None), learner.enrolled_at <= filters.inactive_since)
        conditions.append(or_(learner.last_activity_at <= filters.inactive_since, is_new))
    if filters.most_weighted_sum is not None and by != PROGRESS:
        conditions.append(learner.weighted_sum <= filters.most_weighted_sum)
    if filters.stop:
        conditions += learner.last_content_id == filters.stop.content_id, *have_stalled(filters.stop.since, learner)
    if filters.stage:
        conditions.append(_is_at(filters.stage, learner))
    if filters.user_ids is not None:
        conditions.append(learner.user_id.in_(filters.user_ids))
    if filters.completed_since is not None:
        conditions.append(learner.completed_at >= filters.completed_since)
    return conditions


def _is_at(stage: Stage, learner: Any) -> ColumnElement[bool]:
    """Return the condition of learners at a stage."""
    record = ProgressRecord
    of_content = record.module_id == learner.module_id, record.content_id == stage.content_id
    is_mine = exists().where(record.user_id == learner.user_id, *of_content)
    if stage.status == NOT_STARTED:
        return ~is_mine
    if stage.status == EXCUSED:
        return is_mine.where(record.excused_at.is_not(None))
    is_completed = record.completed_at.is_not(None)
    return is_mine.where(record.excused_at.is_(None), is_completed if stage.status == COMPLETED else ~is_completed)


def _behind(
    listed: Select[Any], order: Order, after: Position | None, columns: Sequence[Any], most: Any = None
) -> Select[Any]:
    """Keep the rows behind a position, up to a bound of the first column; the last column is the user id.

    PostgreSQL gets only the tighter of two upper bounds. With both it may begin its index scan at the looser bound.
    """
    if order.descending and after is not None and most is not None:
        after, most = (after, None) if after.key <= most else (None, most)
    if most is not None:
        listed = listed.where(columns[0] <= most)
    if after is not None:
        known = [part for part in after if part is not None]
        here, there = tuple_(*columns[-len(known) :]), tuple_(*known)
        listed = listed.where(here < there if order.descending else here > there)
    return listed
