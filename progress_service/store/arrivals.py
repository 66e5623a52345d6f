"""Databases that are brought from elsewhere, or back to an earlier time: the order of all changes goes on there.

Readers and webhooks keep their places: what they have not been told yet comes next, and then what is written here. What
has happened elsewhere since the database was copied may have been told too, with the ids and places that came next. So
ids and places that are given from now on are far higher.
"""

from sqlalchemy import Connection, func, insert, select, text

from progress_service.store.functions import first_open
from progress_service.store.models import Arrival, Change, Webhook

FORGOTTEN = 10**9
"""The most transactions, and the most changes, since the database was copied."""


def settle(connection: Connection) -> None:
    """Let everything that is written from now on come after all changes that there are, whatever server wrote them."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE changes IN EXCLUSIVE MODE"))  # until now no other server counts
    last = (func.coalesce(select(func.max(table.settled_after)).scalar_subquery(), 0) for table in (Change, Webhook))
    _arrive(connection, max(connection.execute(select(*last)).one()))
    _leave_out_ids(connection)


def _arrive(connection: Connection, reached: int) -> None:
    own: int = connection.execute(select(first_open())).scalar_one()
    connection.execute(insert(Arrival).values(order_offset=max(own, reached) + FORGOTTEN))


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
