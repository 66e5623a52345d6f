"""The learners of a module, page by page.

A page begins behind a position: the key of the order, and the learner's id, which decides between equal keys. Each
status has an index in each order, and a page is merged from the first rows of each: it costs the same at any depth.

Selective filters may leave few learners, or none at the beginning of an order, so that a walk along it would look at
everybody. There the learners who are meant are found first, and then sorted. Only the order of user ids is walked: it
is also that of the records of a content.
"""

import base64
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    case,
    exists,
    func,
    literal,
    literal_column,
    select,
    true,
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
from progress_service.web.documents import EXCUSED, NOT_STARTED
from progress_service.web.validation import is_identifier, parse_json

USER_ID, PROGRESS, LAST_ACTIVITY = "userId", "progress", "lastActivity"
SORTS = (USER_ID, PROGRESS, f"-{PROGRESS}", LAST_ACTIVITY, f"-{LAST_ACTIVITY}")

NEVER = datetime.min.replace(tzinfo=UTC)
"""What stands for the last activity of learners without any, where these are sorted together with others."""
PAGE = 1000
"""The number of learners that one statement reads for a table of all learners."""
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
    def are_selective(self) -> bool:
        """Whether an index finds the learners, or those for whom the rest is to be looked at."""
        return any(part is not None for part in (self.stop, self.stage, self.user_ids, self.completed_since))

    @property
    def statuses(self) -> list[str]:
        """The statuses that the learners may have."""
        unfinished, completed = (ACTIVE, PAUSED), (COMPLETED,)
        return [
            status
            for status in STATUSES
            if self.status in (None, status)
            and (self.inactive_since is None or status in unfinished)
            and (self.stop is None or status in unfinished)
            and (self.completed_since is None or status in completed)
        ]


class Order(NamedTuple):
    """An order of the roster; learners without activity sort before all others."""

    by: str
    descending: bool

    @classmethod
    def named(cls, sort: str) -> "Order":
        return cls(sort.removeprefix("-"), sort.startswith("-"))

    def position(self, enrollment: calculations.Enrollment) -> Position:
        keys: dict[str, Key] = {PROGRESS: enrollment.weighted_sum, LAST_ACTIVITY: enrollment.last_activity_at}
        return Position(keys.get(self.by), enrollment.user_id)

    def sort_key(self, enrollment: calculations.Enrollment) -> tuple[Any, ...]:
        key, user_id = self.position(enrollment)
        return (False, user_id) if key is None else (True, key, user_id)


BY_USER_ID = Order.named(USER_ID)


def page(
    connection: Connection, module_id: str, filters: Filters, order: Order, after: Position | None, limit: int
) -> list[calculations.Enrollment]:
    """List the first learners behind a position, or from the start."""
    if not filters.statuses:
        return []
    if filters.are_selective:
        selected = _selected(module_id, filters, order, after).limit(limit)
        return [_shown(row, filters) for row in connection.execute(selected)]
    segments = (segment.limit(limit).subquery().select() for segment in _by_status(module_id, filters, order, after))
    found = [_shown(row, filters) for row in connection.execute(union_all(*segments))]
    return sorted(found, key=order.sort_key, reverse=order.descending)[:limit]


def pages(
    connection: Connection, module_id: str, filters: Filters, order: Order
) -> Iterator[list[calculations.Enrollment]]:
    """List all learners, a page at a time; those of selective filters by one statement."""
    if filters.are_selective:
        selected = _selected(module_id, filters, order, None)
        rows = connection.execute(selected, execution_options={"yield_per": PAGE})
        yield from ([_shown(row, filters) for row in part] for part in rows.partitions())
        return
    after = None
    while found := page(connection, module_id, filters, order, after, PAGE):
        yield found
        after = order.position(found[-1])


def count(connection: Connection, module_id: str, filters: Filters) -> int:
    """Count all learners, by filters that are not selective."""
    segments = _by_status(module_id, filters, Order.named(LAST_ACTIVITY), None)
    counts = [segment.order_by(None).with_only_columns(func.count()).scalar_subquery() for segment in segments]
    return int(connection.execute(select(sum(counts, start=literal(0)))).scalar_one())


def _shown(row: Sequence[Any], filters: Filters) -> calculations.Enrollment:
    """Return a learner as the orders see them."""
    learner = calculations.Enrollment(*row)
    return learner._replace(weighted_sum=100 * (learner.status == COMPLETED)) if filters.is_weightless else learner


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


def _by_status(module_id: str, filters: Filters, order: Order, after: Position | None) -> Iterator[Select[Any]]:
    for status in filters.statuses:
        yield from _segments(module_id, status, filters, order, after)


def _segments(
    module_id: str, status: str, filters: Filters, order: Order, after: Position | None
) -> Iterator[Select[Any]]:
    """Select the learners of a status behind a position, in order; learners without activity by another statement."""
    learner, since, most = Enrollment, filters.inactive_since, filters.most_weighted_sum
    active_at: Any = learner.last_activity_at
    is_done = filters.is_weightless and status == COMPLETED
    progress: Any = learner.weighted_sum + 100 if is_done else learner.weighted_sum
    listed = _learners(module_id, filters, learner.status == status)
    if most is not None and order.by != PROGRESS:
        listed = listed.where(progress <= most)
    if order.by == LAST_ACTIVITY:
        never, active = listed.where(active_at.is_(None)), listed.where(active_at.is_not(None))
        if since is not None:
            never = never.where(learner.enrolled_at <= since)
        is_never = after is not None and after.key is None
        # Ordered by the times that are all null, too, so that the index of this order is used.
        columns = [active_at, learner.user_id]
        if after is None or is_never or order.descending:
            yield _behind(never, order, after if is_never else None, columns)
        if after is None or not is_never or not order.descending:
            yield _behind(active, order, None if is_never else after, columns, since)
    else:
        if since is not None:
            listed = listed.where(func.coalesce(active_at, learner.enrolled_at) <= since)
        if order.by == PROGRESS:
            yield _behind(listed, order, after, [progress, learner.user_id], most)
        else:
            yield _behind(listed, order, after, [learner.user_id])


def _learners(module_id: str, filters: Filters, has_status: ColumnElement[bool]) -> Select[Any]:
    listed = select(*ENROLLMENT).where(Enrollment.module_id == module_id, has_status)
    return listed.where(Enrollment.counted) if filters.only_counted else listed


def _selected(module_id: str, filters: Filters, order: Order, after: Position | None) -> Select[Any]:
    """Select the learners of selective filters behind a position, in order."""
    learner, since, most = Enrollment, filters.inactive_since, filters.most_weighted_sum
    done = 100 if filters.is_weightless else 0
    progress = learner.weighted_sum + case((learner.status == COMPLETED, done), else_=0)
    listed = _learners(module_id, filters, one_of(learner.status, filters.statuses))
    if since is not None:
        listed = listed.where(func.coalesce(learner.last_activity_at, learner.enrolled_at) <= since)
    if most is not None:
        listed = listed.where(progress <= most)
    if filters.stop:
        listed = listed.where(learner.last_content_id == filters.stop.content_id, *have_stalled(filters.stop.since))
    if filters.stage:
        # Learners and records are both read in the order of user ids, neither of them from the first on.
        is_rest = ProgressRecord.user_id > after.user_id if after and order == BY_USER_ID else true()
        listed = listed.where(_is_at(filters.stage, is_rest))
    if filters.user_ids is not None:
        listed = listed.where(learner.user_id.in_(filters.user_ids))
    if filters.completed_since is not None:
        listed = listed.where(learner.completed_at >= filters.completed_since)
    if order.by == USER_ID:
        return _behind(listed, order, after, [learner.user_id])
    key = progress if order.by == PROGRESS else func.coalesce(learner.last_activity_at, NEVER)
    # OFFSET 0 lets PostgreSQL plan for all who are meant. For the first few it would walk along the order, past
    # everybody who is not meant.
    found = listed.add_columns(key.label("key")).offset(literal_column("0")).subquery()
    *shown, key = found.c
    if after and after.key is None:
        after = after._replace(key=NEVER)
    return _behind(select(*shown), order, after, [key, found.c.user_id])


def _is_at(stage: Stage, is_rest: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition of learners at a stage; one about their records is known to hold."""
    learner, record = Enrollment, ProgressRecord
    of_content = record.module_id == learner.module_id, record.content_id == stage.content_id
    is_mine = exists().where(record.user_id == learner.user_id, *of_content, is_rest)
    if stage.status == NOT_STARTED:
        return ~is_mine
    if stage.status == EXCUSED:
        return is_mine.where(record.excused_at.is_not(None))
    is_completed = record.completed_at.is_not(None)
    return is_mine.where(record.excused_at.is_(None), is_completed if stage.status == COMPLETED else ~is_completed)


def _behind(
    listed: Select[Any], order: Order, after: Position | None, columns: Sequence[Any], most: Any = None
) -> Select[Any]:
    """Order by columns that end with the user id; keep rows behind a position, up to a bound of the first column.

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
    return listed.order_by(*(column.desc() if order.descending else column for column in columns))
