"""The feed of changes: a reader that goes on from its place gets every change once.

Changes are read in the order of `settled_after` and `id`, up to the first transaction that has not ended: whatever is
still to be written has a later place in that order.
"""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from progress_service.store.functions import first_open
from progress_service.store.journal import Told
from progress_service.store.models import Change
from progress_service.store.values import columns
from progress_service.store.webhooks import Place, behind, wanted

MOST_SCANNED = 10_000
"""The most changes that a request looks at, to find those of some types or of a module."""
ORDER = Change.settled_after, Change.id
START = Place(0, 0)
"""The place in front of every change."""


class Feed(NamedTuple):
    """Changes and their places, the place behind the last that was looked at, and whether there are more to look at."""

    changes: list[Told]
    places: list[Place]
    place: Place
    has_more: bool


def is_known(connection: Connection, place: Place) -> bool:
    """Tell whether a place is in this server's order; a place from another server may not be."""
    return place.settled_after < _first_open(connection)


def end(connection: Connection) -> Place:
    """Return the place behind the last change."""
    last = select(*ORDER).where(Change.settled_after < _first_open(connection))
    found = connection.execute(last.order_by(*(column.desc() for column in ORDER)).limit(1)).first()
    return Place(*found) if found else START


def feed(
    connection: Connection,
    after: Place,
    limit: int,
    types: Collection[str] | None,
    module_ids: Collection[str] | None,
) -> Feed:
    """List the first changes behind a place: those of some types, if any are given, and of some modules or of none."""
    conditions = wanted(types, module_ids)
    most = MOST_SCANNED if conditions else limit + 1
    is_settled = Change.settled_after < _first_open(connection)
    scanned = select(Change.id).where(behind(after), is_settled).order_by(*ORDER).limit(most)
    found = select(*ORDER, *columns(Change, Told)).where(Change.id.in_(scanned), *conditions).order_by(*ORDER)
    rows = connection.execute(found.limit(limit + 1)).all()
    told, places = [Told(*row[2:]) for row in rows[:limit]], [Place(*row[:2]) for row in rows[:limit]]
    if len(rows) > limit:
        return Feed(told, places, places[-1], has_more=True)
    looked_at = scanned.add_columns(Change.settled_after).subquery("looked_at").c
    number = func.count().over()
    last = select(looked_at.settled_after, looked_at.id, number)
    last = last.order_by(looked_at.settled_after.desc(), looked_at.id.desc()).limit(1)
    *place, number_found = connection.execute(last).first() or (*after, 0)
    return Feed(told, places, Place(*place), has_more=number_found == most)


def _first_open(connection: Connection) -> int:
    """Return the first transaction that has not ended; it is the same in all statements of a snapshot."""
    return connection.execute(select(first_open())).scalar_one()
