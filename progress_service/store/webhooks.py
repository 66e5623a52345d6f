"""Webhooks as they are stored: what each is to be told, how far it has been told, and who delivers to it."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Connection, delete, func, insert, or_, select, tuple_, update

from progress_service.store.functions import first_open
from progress_service.store.models import Change, Webhook
from progress_service.store.values import columns

MOST_COUNTED = 10_000
"""The most changes behind a webhook's place that are looked at, to count what waits for it."""


class Place(NamedTuple):
    """A place in the order of all changes."""

    settled_after: int
    id: int


class StoredWebhook(NamedTuple):
    """A webhook; secrets are encrypted."""

    id: str
    url: str
    types: list[str] | None
    module_ids: list[str] | None
    active: bool
    secret: str
    previous_secret: str | None
    previous_until: datetime | None
    settled_after: int
    change_id: int
    failing_since: datetime | None
    last_status: int | None
    leased_until: datetime | None

    def is_leased_until(self, time: datetime) -> bool:
        return self.leased_until is not None and time <= self.leased_until

    @property
    def place(self) -> Place:
        return Place(self.settled_after, self.change_id)


class Pending(NamedTuple):
    """How many changes wait for a webhook, of the first that may, and when the oldest of them was recorded."""

    number: int
    since: datetime | None


COLUMNS = columns(Webhook, StoredWebhook)


def behind(place: Place) -> ColumnElement[bool]:
    """Return the condition for changes behind a place."""
    return tuple_(Change.settled_after, Change.id) > tuple_(*place, types=[BigInteger, BigInteger])


def wanted(types: Iterable[str] | None, module_ids: Iterable[str] | None) -> list[Any]:
    """Return the conditions for changes of some types, and of some modules or of none; None stands for all."""
    conditions: list[Any] = [] if types is None else [Change.type.in_(types)]
    if module_ids is not None:
        conditions.append(or_(Change.module_id.in_(module_ids), Change.module_id.is_(None)))
    return conditions


def listed(connection: Connection) -> list[StoredWebhook]:
    """List the webhooks by their ids."""
    return [StoredWebhook(*row) for row in connection.execute(select(*COLUMNS).order_by(Webhook.id))]


def find(connection: Connection, id_: str) -> StoredWebhook | None:
    """Read a webhook."""
    row = connection.execute(select(*COLUMNS).where(Webhook.id == id_)).first()
    return StoredWebhook(*row) if row else None


def lock(connection: Connection, id_: str) -> StoredWebhook | None:
    """Lock a webhook and read it."""
    row = connection.execute(select(*COLUMNS).where(Webhook.id == id_).with_for_update()).first()
    return StoredWebhook(*row) if row else None


def make(connection: Connection, id_: str, behind: Place, **values: Any) -> StoredWebhook:
    """Store a new webhook, which is to be told what comes behind a place."""
    unset: dict[str, Any] = dict.fromkeys(StoredWebhook._fields)
    place = {"settled_after": behind.settled_after, "change_id": behind.id}
    webhook = StoredWebhook(**{**unset, "id": id_, **place, **values})
    connection.execute(insert(Webhook).values(**webhook._asdict()))
    return webhook


def change(connection: Connection, id_: str, *where: Any, **values: Any) -> StoredWebhook | None:
    """Change a webhook, if it exists and fulfils the conditions, and return what it has become."""
    changed = update(Webhook).where(Webhook.id == id_, *where).values(**values)
    row = connection.execute(changed.returning(*COLUMNS)).first()
    return StoredWebhook(*row) if row else None


def remove(connection: Connection, id_: str) -> None:
    """Delete a webhook, if there is one."""
    connection.execute(delete(Webhook).where(Webhook.id == id_))


def due(connection: Connection, now: datetime) -> list[str]:
    """List the webhooks that something settled waits for, that may be told now, and that nobody delivers to."""
    is_behind = tuple_(Change.settled_after, Change.id) > tuple_(Webhook.settled_after, Webhook.change_id)
    settled = Change.settled_after < select(first_open()).scalar_subquery()
    waits = select(Change.id).where(is_behind, settled).exists()
    found = select(Webhook.id).where(*_may_be_told(now), waits).order_by(Webhook.id)
    return list(connection.execute(found).scalars())


def lease(connection: Connection, id_: str, by: UUID, now: datetime, until: datetime) -> StoredWebhook | None:
    """Take the lease of a webhook, and return the webhook; None if it may not be told now, or another has the lease."""
    return change(connection, id_, *_may_be_told(now), leased_by=by, leased_until=until)


def change_leased(connection: Connection, id_: str, by: UUID, **values: Any) -> StoredWebhook | None:
    """Change a webhook, if this deliverer still has its lease, and return what it has become."""
    return change(connection, id_, Webhook.leased_by == by, **values)


def _may_be_told(now: datetime) -> tuple[ColumnElement[bool], ...]:
    is_free = or_(Webhook.leased_until.is_(None), Webhook.leased_until <= now)
    return Webhook.active.is_(True), or_(Webhook.next_try_at.is_(None), Webhook.next_try_at <= now), is_free


def pending(connection: Connection, webhook: StoredWebhook) -> Pending:
    """Count what waits for a webhook among the next changes, settled or not."""
    scanned = select(Change.id).where(behind(webhook.place)).order_by(Change.settled_after, Change.id)
    scanned = scanned.limit(MOST_COUNTED)
    found = select(func.count(), func.min(Change.recorded_at)).where(Change.id.in_(scanned))
    return Pending(*connection.execute(found.where(*wanted(webhook.types, webhook.module_ids))).one())


def delayed_since(connection: Connection) -> datetime | None:
    """Return when the first change was recorded that waits for an open transaction, or None."""
    unsettled = select(Change.recorded_at).where(Change.settled_after >= select(first_open()).scalar_subquery())
    return connection.execute(unsettled.order_by(Change.settled_after, Change.id).limit(1)).scalar()
