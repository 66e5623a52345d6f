"""Transactions: how the service reads and writes, on PostgreSQL and on SQLite."""

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError

from progress_service.extensions import db

Result = TypeVar("Result")

ATTEMPTS = 8
"""How often a transaction that lost to another one is tried before the caller is told to come back."""

# Serialization failure, deadlock, and the races of two first writes: unique and foreign keys.
TRANSIENT_SQLSTATES = {"40001", "40P01", "23505", "23503"}


def prepare(app: Flask) -> None:
    """Give an application's SQLite connections their rules; PostgreSQL needs none."""
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            event.listen(db.engine, "connect", _prepare_sqlite_connection)
            event.listen(db.engine, "begin", _begin_sqlite_transaction)


def _prepare_sqlite_connection(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own: see below
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite_transaction(connection: Connection) -> None:
    # A writer takes the only write lock at once and waits for it: one that had read first could not wait any more.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def read(work: Callable[[Connection], Result]) -> Result:
    """Do the work on one snapshot of the database, so that an answer of several statements is not torn."""
    with db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.execution_options(reading=True)
        else:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            return work(connection)


def write(work: Callable[[Connection], Result]) -> Result:
    """Do the work in one transaction and commit it, again where it lost a race to another transaction.

    The work has no effects outside its connection, since it may run more than once.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            with db.engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            if not is_transient(error):
                raise
        time.sleep(random.uniform(0, 0.01 * 2**attempt))
    with db.engine.begin() as connection:
        return work(connection)


def is_transient(error: BaseException) -> bool:
    """Tell whether the same transaction may succeed when it is tried again."""
    cause = getattr(error, "orig", None)
    if isinstance(cause, sqlite3.OperationalError):
        return cause.sqlite_errorname.startswith("SQLITE_BUSY")
    return getattr(cause, "sqlstate", None) in TRANSIENT_SQLSTATES
