"""The locks of writers, in the order in which every transaction takes them (docs/architecture.md, "Locks").

First the Idempotency-Key (`idempotency.replay`), then modules by code point, then enrollments by user and module, then
groups of learners, and last the rows that `Statements.store` writes. So writers queue, and do not deadlock. Every lock
ends with its transaction. SQLite needs none of them: there a writer holds the only write lock from its begin.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any
from zlib import crc32

from sqlalchemy import Connection, func, select, text

from progress_service.store.direct import DirectStatement
from progress_service.store.models import Base, Enrollment, Module

CHANGES, REPAIRS, ENROLLING = 0, 1, 2
"""The two locks of a module, between updates and catalog changes and between repairs, and that of learners."""

LEARNER_GROUPS = [f"{number:02}" for number in range(16)]
"""The groups of learners. A transaction may enroll more learners than it can lock one by one."""

MOST_LOCKS = 50
"""How many modules a transaction locks one by one. PostgreSQL has room for 64 locks of each connection."""


def share_modules(
    connection: Connection, statement: DirectStatement, rows: Mapping[str, Any], *, at_most: int
) -> Callable[[], set[str]]:
    """Hold off catalog changes of the modules that a statement locks; return what waits for it and returns their ids.

    Updates share this lock and run side by side. Without it an update that has read the old catalog could commit after
    the change has recounted the module, and leave a stale total. The statement locks `at_most` modules, or fewer.
    """
    locked = statement.send(connection, **rows)
    if at_most > MOST_LOCKS and len(locked()) > MOST_LOCKS:
        _lock_table(connection, Module, "SHARE")  # all changes of the catalog write there
    return lambda: {module_id for (module_id,) in locked()}


def share_module(connection: Connection, statement: DirectStatement, rows: Mapping[str, Any]) -> None:
    """Hold off catalog changes of one module, for a transaction that may lock no enrollment of it."""
    share_modules(connection, statement, rows, at_most=1)
    _lock_table(connection, Enrollment, "ROW SHARE")  # a change of many modules locks this table instead of modules


def hold_modules(connection: Connection, module_ids: Collection[str]) -> None:
    """Lock modules alone: updates of them that have begun end first, and new updates wait."""
    if len(module_ids) > MOST_LOCKS:
        hold_catalog(connection)
        _lock_table(connection, Enrollment, "EXCLUSIVE")  # all updates write there before they read the catalog
        return
    _lock_table(connection, Module, "ROW EXCLUSIVE")
    for module_id in sorted(module_ids):
        _hold(connection, module_id, CHANGES)


def hold_catalog(connection: Connection) -> None:
    """Hold off all other changes of the catalog; updates run on."""
    _lock_table(connection, Module, "SHARE ROW EXCLUSIVE")


def share_enrolling(connection: Connection, statement: DirectStatement, rows: Mapping[str, Any]) -> None:
    """Wait for merges and erasures of the learners who are newly enrolled, so that these come before or after it."""
    if connection.dialect.name == "postgresql":
        statement.send(connection, **rows)


def hold_enrolling(connection: Connection, user_ids: Iterable[str]) -> None:
    """Hold off new enrollments of learners until this ends; those that are under way end first."""
    for group in sorted(map(group_of, user_ids)):
        _hold(connection, group, ENROLLING)


def group_of(user_id: str) -> str:
    """Return the group of learners to which a learner belongs."""
    return LEARNER_GROUPS[crc32(user_id.encode()) % len(LEARNER_GROUPS)]


def hold_repairs(connection: Connection, module_id: str) -> None:
    """Hold off all other repairs of a module's tallies."""
    _hold(connection, module_id, REPAIRS)


def _hold(connection: Connection, name: str, purpose: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, purpose))))


def _lock_table(connection: Connection, table: type[Base], mode: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"LOCK TABLE {table.__tablename__} IN {mode} MODE"))
