"""Transactions: how the service reads and writes, on PostgreSQL and on SQLite."""

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from threading import BoundedSemaphore, Lock
from typing import Any, Literal, NamedTuple, TypeVar

from flask import Flask, current_app, has_request_context
from sqlalchemy import Connection, Engine, ExceptionContext, event, false, select, update
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError, TimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from progress_service.extensions import db
from progress_service.models import StoredAnswer
from progress_service.prepared import say

Result = TypeVar("Result")

ATTEMPTS = 6
"""How often a transaction is tried that loses to another one, or whose connection was gone."""
LONGEST_PAUSE = 0.2
"""Seconds between two attempts at the most; the pause is random, so that the losers of one race do not meet again."""

# Serialization failure, deadlock, and the races of two first writes: unique and foreign keys.
TRANSIENT_SQLSTATES = {"40001", "40P01", "23505", "23503"}
LOCK_NOT_AVAILABLE = "55P03"
AT_ONCE = {"postgresql": 0.1, "sqlite": 0.5}
"""Seconds that every request waits for a lock; to wait longer it needs one of the places for those who wait."""
PLACES, TURN = "places-to-wait", "turn-to-write"

# It was opened to a server that follows another one, or that might only be read; what it has prepared does not fit the
# tables any more; something is not prepared, or is already.
UNFIT_SQLSTATES = {"25006", "0A000", "26000", "42P05"}
"""What is the fault of a connection: it is given up, and the transaction is tried again on another one."""


class NoTurn(TimeoutError):
    """Other threads have been writing to SQLite for longer than the transaction would wait."""


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
TRYING = Manner(WRITING.postgresql, READING.sqlite)
"""How a transaction begins that finds out whether it could write, and on SQLite does not wait for other writers."""


class Timeouts(NamedTuple):
    """How many seconds a statement of a transaction waits for a lock, and how many it takes; 0: for ever."""

    lock: float
    statement: float


def prepare(app: Flask) -> None:
    """Give an application's connections their rules, and let its transactions begin as here, not as the driver does."""
    with app.app_context():
        engine, usual = db.engine, timeouts()
    app.extensions[PLACES] = BoundedSemaphore(max(1, app.config["POOL_SIZE"] // 2))
    app.extensions[TURN] = Lock() if engine.dialect.name == "sqlite" else None
    (_prepare_sqlite if engine.dialect.name == "sqlite" else _prepare_postgresql)(engine, usual)


def _prepare_sqlite(engine: Engine, usual: Timeouts) -> None:
    @event.listens_for(engine, "connect")
    def prepare_connection(driver: sqlite3.Connection, _: Any) -> None:
        driver.isolation_level = None
        driver.execute("PRAGMA journal_mode = WAL")
        driver.execute("PRAGMA synchronous = FULL")
        driver.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        say(connection, f"PRAGMA busy_timeout = {round(1000 * options.get('timeouts', usual).lock)}")
        if command := options.get("begins", WRITING).sqlite:
            say(connection, command)


def _prepare_postgresql(engine: Engine, usual: Timeouts) -> None:
    lost = 0.0
    at_once = usual._replace(lock=AT_ONCE["postgresql"])

    @event.listens_for(engine, "connect")
    def prepare_connection(driver: Any, record: ConnectionPoolEntry) -> None:
        # A pooler that gives a client's transactions to several servers must give the client a key of its own to cancel
        # them: where the key is the server's, there is no pooler, and what a server is told or prepares it keeps.
        ((process,),) = driver.execute("SELECT pg_backend_pid()").fetchall()
        is_direct = process == driver.info.backend_pid
        record.info.update(is_direct=is_direct, seen=time.monotonic())
        if is_direct:
            driver.execute(settings("SET", at_once))
        else:
            driver.prepare_threshold = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        begins: Manner = options.get("begins", WRITING)
        given: Timeouts = options.get("timeouts", usual)
        if not connection.info["is_direct"] or given != at_once:
            say(connection, f"{begins.postgresql}; {settings('SET LOCAL', given)}")
        elif not begins.is_one_statement:  # what it relies on is set already, as most transactions need it
            say(connection, begins.postgresql)

    @event.listens_for(engine, "handle_error")
    def judge(context: ExceptionContext) -> None:
        is_unfit = _sqlstate(context.original_exception) in UNFIT_SQLSTATES
        context.is_disconnect = context.is_disconnect or is_unfit
        # What makes a connection unfit has befallen all of its age; a loss may be of this one alone.
        context.invalidate_pool_on_disconnect = is_unfit

    @event.listens_for(engine, "invalidate")
    def suspect_others(*_: Any) -> None:
        nonlocal lost
        lost = time.monotonic()

    @event.listens_for(engine, "checkout")
    def look_at_suspects(driver: Any, record: ConnectionPoolEntry, _: Any) -> None:
        if record.info["seen"] < lost:
            try:
                engine.dialect.do_ping(driver)
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error  # which lets the pool replace it
            record.info["seen"] = time.monotonic()


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
    return _transact(work, READING_ONCE if single_statement else READING, timeouts(unhurried=unhurried))


def read_on(work: Callable[[Connection], Result]) -> tuple[Result, Callable[[], None]]:
    """Do the work on one snapshot, and return also what ends it, so that what the work returns may read on."""
    result, transaction = _begin(work, READING, timeouts())
    return result, transaction.close


def unhurry(connection: Connection) -> None:
    """Give the statements that follow in this transaction the time that a catalog change may take."""
    if connection.dialect.name == "postgresql":
        say(connection, settings("SET LOCAL", timeouts(unhurried=True)))


def write(work: Callable[[Connection], Result], *, unhurried: bool = False) -> Result:
    """Do the work in one transaction and commit it; what has been returned is on disk.

    The work has no effects outside its connection, since it may run more than once.
    """
    return _transact(work, WRITING, timeouts(unhurried=unhurried))


def try_writing() -> None:
    """Write nothing, and raise what a writer would meet: a server that follows another, a file that is read-only."""
    _transact(_write_nothing, TRYING, timeouts())


def _write_nothing(connection: Connection) -> None:
    # Where the answers are kept that are repeated: other tables are locked whole by changes of the catalog.
    connection.execute(select(StoredAnswer.key).where(false()))
    try:
        connection.execute(update(StoredAnswer).where(false()).values(fingerprint=""))
    except OperationalError as error:
        # On SQLite one that has read first does not wait for a writer, and where there is one, the file can be written.
        if connection.dialect.name != "sqlite" or not is_locked(error):
            raise


def _transact(work: Callable[[Connection], Result], begins: Manner, timeouts: Timeouts) -> Result:
    result, transaction = _begin(work, begins, timeouts)
    # A commit whose answer was lost may have happened: the caller's Idempotency-Key finds out, not a repeat.
    transaction.close()
    return result


def _begin(work: Callable[[Connection], Result], begins: Manner, timeouts: Timeouts) -> tuple[Result, ExitStack]:
    """Do the work in a transaction; return also what commits and gives up the connection.

    It waits for others' locks, but of requests no more than half of the threads do so at a time. The other half is left
    to those who need not wait: probes, readers, writers of other modules and learners.
    """
    if not has_request_context():
        patience: int = current_app.config["CATALOG_TIMEOUT"]
        return _attempt(work, begins, Timeouts(patience, patience))
    places: BoundedSemaphore = current_app.extensions[PLACES]
    try:
        return _attempt(work, begins, timeouts._replace(lock=AT_ONCE[db.engine.dialect.name]))
    except (DBAPIError, TimeoutError) as error:
        if not is_locked(error) or not places.acquire(blocking=False):
            raise
    try:
        return _attempt(work, begins._replace(is_one_statement=False), timeouts)
    finally:
        places.release()


def _attempt(work: Callable[[Connection], Result], begins: Manner, timeouts: Timeouts) -> tuple[Result, ExitStack]:
    """Do the work in a transaction, again where that may help."""
    patience = time.monotonic() + max(timeouts.lock, current_app.config["LOCK_TIMEOUT"])
    attempt = 0
    while True:
        attempt += 1
        try:
            with ExitStack() as transaction:
                connection = transaction.enter_context(db.engine.connect())
                connection.execution_options(begins=begins, timeouts=timeouts)
                # Those who wait for SQLite look at times whether it is free, and are served in no order.
                if begins.sqlite == WRITING.sqlite and (turn := current_app.extensions[TURN]):
                    if not turn.acquire(timeout=timeouts.lock):
                        raise NoTurn
                    transaction.callback(turn.release)
                transaction.enter_context(connection.begin())
                return work(connection), transaction.pop_all()
        except DBAPIError as error:
            if attempt == ATTEMPTS or time.monotonic() > patience or not is_transient(error):
                raise
            current_app.logger.info("transaction tried again after %s", type(error.orig).__name__)
        time.sleep(random.uniform(0, LONGEST_PAUSE))


def is_transient(error: DBAPIError) -> bool:
    """Tell whether the same transaction may succeed when it is tried again at once.

    It lost a race to another transaction, or its connection, which the pool had kept, was gone or unfit.
    """
    return error.connection_invalidated or _sqlstate(error.orig) in TRANSIENT_SQLSTATES


def is_locked(error: DBAPIError | TimeoutError) -> bool:
    """Tell whether somebody else has held a lock for longer than the transaction would wait."""
    if isinstance(error, TimeoutError):
        return isinstance(error, NoTurn)
    if isinstance(error.orig, sqlite3.OperationalError):
        return error.orig.sqlite_errorname.startswith("SQLITE_BUSY")
    return _sqlstate(error.orig) == LOCK_NOT_AVAILABLE


def _sqlstate(cause: BaseException | None) -> str | None:
    return getattr(cause, "sqlstate", None)
