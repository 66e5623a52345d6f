"""Transactions: how the service reads and writes, on PostgreSQL and on SQLite."""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from flask import Flask, current_app
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError

from progress_service.extensions import db
from progress_service.prepared import say

Result = TypeVar("Result")

ATTEMPTS = 6
"""How often a transaction is tried that loses to another one, or whose connection was gone."""
LONGEST_PAUSE = 0.2
"""Seconds between two attempts at the most; the pause is random, so that the losers of one race do not meet again."""

# Serialization failure, deadlock, and the races of two first writes: unique and foreign keys.
TRANSIENT_SQLSTATES = {"40001", "40P01", "23505", "23503"}


# For one transaction, so that it holds behind a pooler too.
UNHURRIED = text(
    "SELECT set_config('statement_timeout', :timeout, true),"
    " set_config('idle_in_transaction_session_timeout', :timeout, true)"
)


READING = {"postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "sqlite": "BEGIN"}
"""How a transaction begins that reads one snapshot."""
READING_ONCE = dict.fromkeys(READING, "")
"""One statement reads one snapshot without a transaction around it."""
# On SQLite a writer takes the only write lock at once and waits for it: one that has read first cannot wait any more.
WRITING = {"postgresql": "BEGIN ISOLATION LEVEL READ COMMITTED", "sqlite": "BEGIN IMMEDIATE"}
"""How a transaction begins that writes; each of its statements sees what is committed by then."""


def prepare(app: Flask) -> None:
    """Give an application's connections their rules, and let its transactions begin as here, not as the driver does."""
    timeout = app.config["LOCK_TIMEOUT"]
    with app.app_context():
        engine = db.engine

    @event.listens_for(engine, "connect")
    def prepare_connection(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.isolation_level = None
            connection.execute(f"PRAGMA busy_timeout = {1000 * timeout}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        else:
            connection.autocommit = True

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        begins = connection.get_execution_options().get("begins", WRITING)
        if command := begins[connection.dialect.name]:
            say(connection, command)


def read(work: Callable[[Connection], Result], *, unhurried: bool = False, single_statement: bool = False) -> Result:
    """Do the work on one snapshot of the database, so that an answer of several statements is not torn.

    With `unhurried` its statements have the time that a catalog change may take. With `single_statement` the answer is
    made of one, and spares the database a transaction.
    """
    return _transact(work, unhurried, READING_ONCE if single_statement else READING)


def stream(work: Callable[[Connection], Iterator[Result]]) -> Iterator[Result]:
    """Do the work on one snapshot that lasts as long as what it yields is taken."""
    with db.engine.connect() as connection:
        connection.execution_options(begins=READING)
        with connection.begin():
            _unhurry(connection)
            yield from work(connection)


def write(work: Callable[[Connection], Result], *, unhurried: bool = False) -> Result:
    """Do the work in one transaction and commit it; what has been returned is on disk.

    The work has no effects outside its connection, since it may run more than once.
    """
    return _transact(work, unhurried, WRITING)


def _transact(work: Callable[[Connection], Result], unhurried: bool, begins: Mapping[str, str]) -> Result:
    patience = time.monotonic() + current_app.config["LOCK_TIMEOUT"]
    attempt = 0
    while True:
        attempt += 1
        finished = False
        try:
            with db.engine.connect() as connection:
                connection.execution_options(begins=begins)
                with connection.begin():
                    if unhurried:
                        _unhurry(connection)
                    result = work(connection)
                    finished = True
            return result
        except DBAPIError as error:
            # A commit whose answer was lost may have happened: the caller's Idempotency-Key finds out, not a repeat.
            if finished or attempt == ATTEMPTS or time.monotonic() > patience or not is_transient(error):
                raise
            current_app.logger.info("transaction tried again after %s", type(error.orig).__name__)
        time.sleep(random.uniform(0, LONGEST_PAUSE))


def _unhurry(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(UNHURRIED, {"timeout": f"{current_app.config['CATALOG_TIMEOUT']}s"})


def is_transient(error: DBAPIError) -> bool:
    """Tell whether the same transaction may succeed when it is tried again at once.

    It lost a race to another transaction, or its connection, which the pool had kept, was gone.
    """
    cause = error.orig
    if isinstance(cause, sqlite3.OperationalError):
        return cause.sqlite_errorname.startswith("SQLITE_BUSY")
    return error.connection_invalidated or getattr(cause, "sqlstate", None) in TRANSIENT_SQLSTATES
