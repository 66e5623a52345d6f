"""The learners of a module, page by page.

A page begins behind a position: the key of the order, and the learner's id, which decides between equal keys. Each
status has an index in each order, and a page is merged from the first rows of each: it costs the same at any depth.
"""

import base64
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, literal, select, tuple_, union_all

from progress_service import calculations
from progress_service.calculations import ACTIVE, COMPLETED, PAUSED, STATUSES
from progress_service.store.models import Enrollment
from progress_service.store.values import ENROLLMENT
from progress_service.web import serialization
from progress_service.web.validation import is_identifier, parse_json

USER_ID, PROGRESS, LAST_ACTIVITY = "userId", "progress", "lastActivity"
SORTS = (USER_ID, PROGRESS, f"-{PROGRESS}", LAST_ACTIVITY, f"-{LAST_ACTIVITY}")

PAGE = 1000
"""The number of learners that one statement reads for a table of all learners."""
MOST_STORED = 2**63 - 1
"""The largest whole number that the databases keep."""

Key = int | datetime | None


class Position(NamedTuple):
    """A learner's position in an order; the key is None in the order of user ids, and for learners without activity."""

    key: Key
    user_id: str


class Filters(NamedTuple):
    """The learners to list; a filter that is None leaves out nobody."""

    status: str | None
    inactive_since: datetime | None
    """Active and paused learners without activity since this time; the enrollment counts for learners without any."""
    most_weighted_sum: int | None
    is_weightless: bool = False
    """Whether the module has no weight: then completed learners are shown with 100 per cent, and others with 0."""
    only_counted: bool = False
    """Whether to leave out the learners who are in no statistics."""


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


def page(
    connection: Connection, module_id: str, filters: Filters, order: Order, after: Position | None, limit: int
) -> list[calculations.Enrollment]:
    """List the first learners behind a position, or from the start."""
    listed = _by_status(module_id, filters, order, after)
    segments = [segment.limit(limit).subquery().select() for segment in listed]
    if not segments:
        return []
    found = [calculations.Enrollment(*row) for row in connection.execute(union_all(*segments))]
    if filters.is_weightless:
        found = [learner._replace(weighted_sum=100 * (learner.status == COMPLETED)) for learner in found]
    return sorted(found, key=order.sort_key, reverse=order.descending)[:limit]


def pages(
    connection: Connection, module_id: str, filters: Filters, order: Order
) -> Iterator[list[calculations.Enrollment]]:
    """List all learners, a page at a time."""
    after = None
    while found := page(connection, module_id, filters, order, after, PAGE):
        yield found
        after = order.position(found[-1])


def count(connection: Connection, module_id: str, filters: Filters) -> int:
    """Count all learners."""
    segments = _by_status(module_id, filters, Order.named(LAST_ACTIVITY), None)
    counts = [segment.order_by(None).with_only_columns(func.count()).scalar_subquery() for segment in segments]
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


def _by_status(module_id: str, filters: Filters, order: Order, after: Position | None) -> Iterator[Select[Any]]:
    for status in STATUSES if filters.inactive_since is None else (ACTIVE, PAUSED):
        if filters.status in (None, status):
            yield from _segments(module_id, status, filters, order, after)


def _segments(
    module_id: str, status: str, filters: Filters, order: Order, after: Position | None
) -> Iterator[Select[Any]]:
    """Select the learners of a status behind a position, in order; learners without activity by another statement."""
    learner, since, most = Enrollment, filters.inactive_since, filters.most_weighted_sum
    active_at: Any = learner.last_activity_at
    is_done = filters.is_weightless and status == COMPLETED
    progress: Any = learner.weighted_sum + 100 if is_done else learner.weighted_sum
    listed = select(*ENROLLMENT).where(learner.module_id == module_id, learner.status == status)
    if filters.only_counted:
        listed = listed.where(learner.counted)
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
