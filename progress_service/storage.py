"""Transactions: how the service reads and writes, on PostgreSQL and on SQLite."""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar

from flask import Flask, current_app
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from progress_service.extensions import db
from progress_service.prepared import say

Result = TypeVar("Result")

ATTEMPTS = 6
"""How often a transaction is tried that loses to another one, or whose connection was gone."""
LONGEST_PAUSE = 0.2
"""Seconds between two attempts at the most; the pause is random, so that the losers of one race do not meet again."""

# Serialization failure, deadlock, and the races of two first writes: unique and foreign keys.
TRANSIENT_SQLSTATES = {"40001", "40P01", "23505", "23503"}

IS_DIRECT = "is_direct"
"""What the pool knows of a connection: that there is no pooler between it and its server."""


class Manner(NamedTuple):
    """How a transaction begins, on each kind of database."""

    postgresql: str
    sqlite: str
    is_one_statement: bool = False
    """It needs no transaction around it where the connection itself has the settings."""


READING = Manner("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN")
"""How a transaction begins that reads one snapshot."""
READING_ONCE = Manner("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", "", is_one_statement=True)
"""One statement reads one snapshot."""
# On SQLite a writer takes the only write lock at once and waits for it: one that has read first cannot wait any more.
WRITING = Manner("BEGIN ISOLATION LEVEL READ COMMITTED", "BEGIN IMMEDIATE")
"""How a transaction begins that writes; each of its statements sees what is committed by then."""


class Timeouts(NamedTuple):
    """How many seconds a statement of a transaction waits for a lock, and how many it takes; 0: for ever."""

    lock: float
    statement: float


def prepare(app: Flask) -> None:
    """Give an application's connections their rules, and let its transactions begin as here, not as the driver does."""
    with app.app_context():
        engine, usual = db.engine, timeouts()

    @event.listens_for(engine, "connect")
    def prepare_connection(connection: Any, record: ConnectionPoolEntry) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.isolation_level = None
            connection.execute(f"PRAGMA busy_timeout = {1000 * usual.lock}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            return
        # A pooler that gives a client's transactions to several servers must give the client a key of its own to cancel
        # them: where the key is the server's, there is no pooler, and what a server is told or prepares it keeps.
        ((process,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
        record.info[IS_DIRECT] = process == connection.info.backend_pid
        if record.info[IS_DIRECT]:
            connection.execute(settings("SET", usual))
        else:
            connection.prepare_threshold = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        begins: Manner = options.get("begins", WRITING)
        if connection.dialect.name == "sqlite":
            command = begins.sqlite
        elif begins.is_one_statement and connection.info[IS_DIRECT]:
            command = ""
        else:
            command = f"{begins.postgresql}; {settings('SET LOCAL', options.get('timeouts', usual))}"
        if command:
            say(connection, command)


def timeouts(*, unhurried: bool = False) -> Timeouts:
    """Return the application's timeouts; those who are `unhurried` have the time that a catalog change may take."""
    config = current_app.config
    return Timeouts(config["LOCK_TIMEOUT"], config["CATALOG_TIMEOUT" if unhurried else "STATEMENT_TIMEOUT"])


@cache
def settings(set_: Literal["SET", "SET LOCAL"], timeouts: Timeouts) -> str:
    """Return the commands that set what the service relies on, whatever a server, role, URL or pooler has set.

    Through a pooler they hold for one transaction only; one message takes them all.
    """
    values = {
        "lock_timeout": round(1000 * timeouts.lock),
        "statement_timeout": round(1000 * timeouts.statement),
        "idle_in_transaction_session_timeout": round(2000 * timeouts.statement),
        "DateStyle": "ISO",
        "TimeZone": "'UTC'",
    }
    return "; ".join(f"{set_} {name} = {value}" for name, value in values.items())


def read(work: Callable[[Connection], Result], *, unhurried: bool = False, single_statement: bool = False) -> Result:
    """Do the work on one snapshot of the database, so that an answer of several statements is not torn.

    With `unhurried` its statements have the time that a catalog change may take. With `single_statement` the answer is
    made of one, and spares the database a transaction.
    """
    return _transact(work, unhurried, READING_ONCE if single_statement else READING)


def stream(work: Callable[[Connection], Iterator[Result]]) -> Iterator[Result]:
    """Do the work on one snapshot that lasts as long as what it yields is taken."""
    with db.engine.connect() as connection:
        connection.execution_options(begins=READING, timeouts=timeouts(unhurried=True))
        with connection.begin():
            yield from work(connection)


def write(work: Callable[[Connection], Result], *, unhurried: bool = False) -> Result:
    """Do the work in one transaction and commit it; what has been returned is on disk.

    The work has no effects outside its connection, since it may run more than once.
    """
    return _transact(work, unhurried, WRITING)


def _transact(work: Callable[[Connection], Result], unhurried: bool, begins: Manner) -> Result:
    patience = time.monotonic() + current_app.config["LOCK_TIMEOUT"]
    attempt = 0
    while True:
        attempt += 1
        finished = False
        try:
            with db.engine.connect() as connection:
                connection.execution_options(begins=begins, timeouts=timeouts(unhurried=unhurried))
                with connection.begin():
                    result = work(connection)
                    finished = True
            return result
        except DBAPIError as error:
            # A commit whose answer was lost may have happened: the caller's Idempotency-Key finds out, not a repeat.
            if finished or attempt == ATTEMPTS or time.monotonic() > patience or not is_transient(error):
                raise
            current_app.logger.info("transaction tried again after %s", type(error.orig).__name__)
        time.sleep(random.uniform(0, LONGEST_PAUSE))


def is_transient(error: DBAPIError) -> bool:
    """Tell whether the same transaction may succeed when it is tried again at once.

    It lost a race to another transaction, or its connection, which the pool had kept, was gone.
    """
    cause = error.orig
    if isinstance(cause, sqlite3.OperationalError):
        return cause.sqlite_errorname.startswith("SQLITE_BUSY")
    return error.connection_invalidated or getattr(cause, "sqlstate", None) in TRANSIENT_SQLSTATES
