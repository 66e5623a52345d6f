"""Transactions on PostgreSQL and on SQLite: how they begin, how long they wait, and when they are tried again.

docs/architecture.md ("Transactions") explains the waiting places and the retries as a whole.
"""

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from threading import BoundedSemaphore, Lock
from typing import Any, Literal, NamedTuple, TypeVar

from flask import Flask, current_app, has_request_context
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, Engine, ExceptionContext, event, false, select, update
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError, TimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from progress_service.store.direct import execute_command
from progress_service.store.models import Base, StoredAnswer

db = SQLAlchemy(model_class=Base)
migrate = Migrate()
Result = TypeVar("Result")

ATTEMPTS = 6
"""How often a transaction is tried, if it loses to another transaction or its connection was lost."""
LONGEST_PAUSE = 0.2
"""Most seconds between two attempts. The pause is random, so that the losers of one race do not meet again."""

# A serialization failure, a deadlock, and the races of two first writes (unique and foreign keys).
TRANSIENT_SQLSTATES = {"40001", "40P01", "23505", "23503"}
LOCK_NOT_AVAILABLE = "55P03"
AT_ONCE = {"postgresql": 0.1, "sqlite": 0.5}
"""Seconds that every request may wait for a lock. To wait longer, a request needs one of the waiting places."""
PLACES, TURN = "places-to-wait", "turn-to-write"

# The server can only be read; a prepared statement does not fit the tables any more; a statement is not prepared, or is
# prepared already.
UNFIT_SQLSTATES = {"25006", "0A000", "26000", "42P05"}
"""Errors that are the fault of a connection: it is given up, and the transaction is tried again on another."""


class NoTurn(TimeoutError):
    """Other threads have been writing to SQLite for longer than the transaction may wait."""


class Mode(NamedTuple):
    """How a transaction begins, on each of the databases."""

    postgresql: str
    sqlite: str
    is_one_statement: bool = False
    """Whether it needs no BEGIN where the connection has the settings already."""


READING = Mode("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN")
"""Reads one snapshot by several statements."""
READING_BY_ONE_STATEMENT = Mode("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", "", is_one_statement=True)
"""Reads one snapshot by one statement."""
# On SQLite a writer takes the only write lock at its begin: a transaction that has read first cannot wait for it.
WRITING = Mode("BEGIN ISOLATION LEVEL READ COMMITTED", "BEGIN IMMEDIATE")
"""Writes; each statement sees what was committed before it."""
TRYING = Mode(WRITING.postgresql, READING.sqlite)
"""Finds out whether it could write, and on SQLite does not wait for other writers."""


class Timeouts(NamedTuple):
    """The most seconds that a statement may wait for a lock, and that it may take; 0 is no limit."""

    lock: float
    statement: float


def prepare(app: Flask) -> None:
    """Set up an application's connections, and begin its transactions here instead of in the driver."""
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
        execute_command(connection, f"PRAGMA busy_timeout = {round(1000 * options.get('timeouts', usual).lock)}")
        if command := options.get("begins", WRITING).sqlite:
            execute_command(connection, command)


def _prepare_postgresql(engine: Engine, usual: Timeouts) -> None:
    lost = 0.0
    at_once = usual._replace(lock=AT_ONCE["postgresql"])

    @event.listens_for(engine, "connect")
    def prepare_connection(driver: Any, record: ConnectionPoolEntry) -> None:
        # A pooler that shares servers among clients gives each client a key of its own to cancel statements. If the
        # key is the server's own, there is no pooler, and the connection keeps its settings and prepared statements.
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
        begins: Mode = options.get("begins", WRITING)
        given: Timeouts = options.get("timeouts", usual)
        if not connection.info["is_direct"] or given != at_once:
            execute_command(connection, f"{begins.postgresql}; {settings('SET LOCAL', given)}")
        elif not begins.is_one_statement:  # the connection has the settings already
            execute_command(connection, begins.postgresql)

    @event.listens_for(engine, "handle_error")
    def judge(context: ExceptionContext) -> None:
        is_unfit = _sqlstate(context.original_exception) in UNFIT_SQLSTATES
        context.is_disconnect = context.is_disconnect or is_unfit
        # If a connection is unfit, so are all others of its age; a lost connection may be the only one.
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


def timeouts(*, catalog_timeout: bool = False) -> Timeouts:
    """Return the timeouts of a request's transaction; its statements may have the time of a catalog change."""
    config = current_app.config
    return Timeouts(config["LOCK_TIMEOUT"], config["CATALOG_TIMEOUT" if catalog_timeout else "STATEMENT_TIMEOUT"])


@cache
def settings(set_: Literal["SET", "SET LOCAL"], timeouts: Timeouts) -> str:
    """Return the commands, in one message, for the settings that the service relies on.

    Servers, roles, URLs and poolers may have set others. Through a pooler a setting lasts for one transaction only.
    """
    values = {
        "lock_timeout": round(1000 * timeouts.lock),
        "statement_timeout": round(1000 * timeouts.statement),
        "idle_in_transaction_session_timeout": round(2000 * timeouts.statement),
        "DateStyle": "ISO",
        "TimeZone": "'UTC'",
    }
    return "; ".join(f"{set_} {name} = {value}" for name, value in values.items())


def read(work: Callable[[Connection], Result], *, single_statement: bool = False) -> Result:
    """Do the work on one snapshot of the database, so that its statements see the same moment.

    Work of a `single_statement` needs no BEGIN.
    """
    return _transact(work, READING_BY_ONE_STATEMENT if single_statement else READING, timeouts())


def read_on(work: Callable[[Connection], Result]) -> tuple[Result, Callable[[], None]]:
    """Do the work on one snapshot, and return its result with the function that ends the snapshot."""
    result, transaction = _begin(work, READING, timeouts())
    return result, transaction.close


def allow_catalog_timeout(connection: Connection) -> None:
    """Let the further statements of this transaction take as long as a catalog change may."""
    if connection.dialect.name == "postgresql":
        execute_command(connection, settings("SET LOCAL", timeouts(catalog_timeout=True)))


def write(work: Callable[[Connection], Result], *, catalog_timeout: bool = False) -> Result:
    """Do the work in one transaction and commit it: when this returns, the changes are on disk.

    The work may run more than once, so it must have no effects but on its connection. With `catalog_timeout` the
    statements of a request may take as long as a catalog change may; those of commands always may.
    """
    return _transact(work, WRITING, timeouts(catalog_timeout=catalog_timeout))


def try_writing() -> None:
    """Write nothing, but raise the error that a writer would get, such as that of a read-only server or file."""
    _transact(_write_nothing, TRYING, timeouts())


def _write_nothing(connection: Connection) -> None:
    # The table of stored answers, since changes of the catalog may lock all others.
    connection.execute(select(StoredAnswer.key).where(false()))
    try:
        connection.execute(update(StoredAnswer).where(false()).values(fingerprint=""))
    except OperationalError as error:
        # On SQLite a transaction that has read first does not wait for a writer; a writer proves that writing works.
        if connection.dialect.name != "sqlite" or not is_locked(error):
            raise


def _transact(work: Callable[[Connection], Result], begins: Mode, timeouts: Timeouts) -> Result:
    result, transaction = _begin(work, begins, timeouts)
    # If the connection is lost during COMMIT, the commit may have succeeded: this must not try again. With an
    # Idempotency-Key the caller may.
    transaction.close()
    return result


def _begin(work: Callable[[Connection], Result], begins: Mode, timeouts: Timeouts) -> tuple[Result, ExitStack]:
    """Do the work in a transaction; return the result, and a stack that commits and gives the connection back.

    At most half of a worker's threads wait for locks at the same time. The other half is for requests that need not
    wait: probes, readers, and writers of other modules and learners.
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


def _attempt(work: Callable[[Connection], Result], begins: Mode, timeouts: Timeouts) -> tuple[Result, ExitStack]:
    """Do the work in a transaction, and try again where that may help."""
    patience = time.monotonic() + max(timeouts.lock, current_app.config["LOCK_TIMEOUT"])
    attempt = 0
    while True:
        attempt += 1
        try:
            with ExitStack() as transaction:
                connection = transaction.enter_context(db.engine.connect())
                connection.execution_options(begins=begins, timeouts=timeouts)
                # SQLite serves its waiting writers in no order; this lock serves the threads of a worker in turn.
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

    That is so if it lost a race to another transaction, or if its pooled connection was lost or unfit.
    """
    return error.connection_invalidated or _sqlstate(error.orig) in TRANSIENT_SQLSTATES


def is_locked(error: DBAPIError | TimeoutError) -> bool:
    """Tell whether another transaction has held a lock for longer than this transaction may wait."""
    if isinstance(error, TimeoutError):
        return isinstance(error, NoTurn)
    if isinstance(error.orig, sqlite3.OperationalError):
        return error.orig.sqlite_errorname.startswith("SQLITE_BUSY")
    return _sqlstate(error.orig) == LOCK_NOT_AVAILABLE


def _sqlstate(cause: BaseException | None) -> str | None:
    return getattr(cause, "sqlstate", None)
