"""Databases that are brought from elsewhere, or back to an earlier time: the order of all changes goes on there.

Readers and webhooks keep their places: what they have not been told yet comes next, and then what is written here. What
has happened elsewhere since the database was copied may have been told too, with the ids and places that came next. So
ids and places that are given from now on are far higher.
"""

from typing import NamedTuple

from sqlalchemy import Connection, exists, func, insert, select, text, update

from progress_service.store import locks
from progress_service.store.functions import first_open
from progress_service.store.models import Arrival, Base, Change, Verification, Webhook
from progress_service.store.values import columns

FORGOTTEN = 10**9
"""How many transactions, and how many changes, there may have been elsewhere since the database was copied."""
NOT_BROUGHT = {Arrival.__table__, Verification.__table__}
"""What tells of this database, and not of what is in it."""
TABLES = {str(table.name): table for table in Base.metadata.sorted_tables if table not in NOT_BROUGHT}
"""All that makes an installation, in an order that foreign keys allow."""


class Restored(NamedTuple):
    """How much of a dump is restored: its first lines, and their digest."""

    lines: int
    digest: str


class NotEmpty(Exception):
    """The database has something in some tables, so that no dump can be restored into it."""

    def __init__(self, tables: list[str]) -> None:
        self.tables = tables


class Overtaken(Exception):
    """Somebody else restores a dump into the same database."""


def under_way(connection: Connection) -> Restored | None:
    """Tell how much of a dump is restored, if one has been begun and not ended."""
    found = select(*columns(Arrival, Restored)).where(Arrival.digest.is_not(None))
    row = connection.execute(found).first()
    return Restored(*row) if row else None


def begin(connection: Connection, first: Restored, first_open: int) -> Restored:
    """Begin to restore a dump, or tell how much of one is restored already. Raises NotEmpty.

    `first_open` is that of the database that was dumped.
    """
    locks.hold_catalog(connection)
    if found := under_way(connection):
        return found
    has_rows = connection.execute(select(*(exists(table.select()) for table in TABLES.values()))).one()
    if any(has_rows):
        raise NotEmpty([name for name, found in zip(TABLES, has_rows, strict=True) if found])
    _arrive(connection, first_open, **first._asdict())
    return first


def go_on(connection: Connection, before: Restored, after: Restored) -> None:
    """Note that more of a dump is restored. Raises Overtaken."""
    _change(connection, before, **after._asdict())


def end(connection: Connection, last: Restored) -> None:
    """Note that a dump is restored. Raises Overtaken."""
    _change(connection, last, lines=None, digest=None)
    _leave_out_ids(connection)
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"ANALYZE {', '.join(TABLES)}"))


def settle(connection: Connection) -> None:
    """Let everything that is written from now on come after all changes that there are, whatever server wrote them."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE changes IN EXCLUSIVE MODE"))  # until now no other server counts
    last = (func.coalesce(select(func.max(table.settled_after)).scalar_subquery(), 0) for table in (Change, Webhook))
    _arrive(connection, max(connection.execute(select(*last)).one()))
    _leave_out_ids(connection)


def _arrive(connection: Connection, reached: int, **restored: int | str) -> None:
    own: int = connection.execute(select(first_open())).scalar_one()
    connection.execute(insert(Arrival).values(order_offset=max(own, reached) + FORGOTTEN, **restored))


def _change(connection: Connection, before: Restored, **after: int | str | None) -> None:
    if not connection.execute(update(Arrival).filter_by(**before._asdict()).values(after)).rowcount:
        raise Overtaken


def _leave_out_ids(connection: Connection) -> None:
    """Leave out the ids of changes that may have been given elsewhere."""
    known = "(SELECT coalesce(max(id), 0) FROM changes), (SELECT coalesce(max(change_id), 0) FROM webhooks)"
    if connection.dialect.name == "postgresql":
        ids = "pg_get_serial_sequence('changes', 'id')"
        connection.execute(text(f"SELECT setval({ids}, greatest(nextval({ids}), {known}) + {FORGOTTEN})"))
    else:
        given = "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'changes')"
        last = connection.execute(text(f"SELECT max({given}, {known})")).scalar_one()
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = 'changes'"))
        connection.execute(text("INSERT INTO sqlite_sequence VALUES ('changes', :last)"), {"last": last + FORGOTTEN})
