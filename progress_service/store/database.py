"""Transactions on PostgreSQL and on SQLite: how they begin, how long they wait, and when they are tried again.

docs/architecture.md ("Transactions") explains the waiting places and the retries.
"""

import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from threading import BoundedSemaphore, Lock
from typing import Any, NamedTuple, TypeVar

from flask import Flask, current_app, has_request_context
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, Engine, ExceptionContext, event, false, select, update
from sqlalchemy.exc import DBAPIError, DisconnectionError, InvalidatePoolError, OperationalError, TimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from progress_service import facts, figures
from progress_service.config import REPLICA, REPLICA_SECONDS, ConfigurationError
from progress_service.store.direct import send_command
from progress_service.store.models import Base, StoredAnswer
from progress_service.store.pipeline import PipelinedConnection, Silent

db = SQLAlchemy(model_class=Base)
migrate = Migrate()
Result = TypeVar("Result")

ATTEMPTS = 6
"""How many times a transaction is tried, if it loses to another transaction or its connection was lost."""
LONGEST_PAUSE = 0.2
"""The most seconds between two attempts. Pauses are random, so that the losers of a race do not meet again."""

# A serialization failure, a deadlock, and the races of two first writes (unique and foreign keys).
TRANSIENT_SQLSTATES = {"40001", "40P01", "23505", "23503"}
LOCK_NOT_AVAILABLE = "55P03"
AT_ONCE = {"postgresql": 0.1, "sqlite": 0.5}
"""The seconds that every request may wait for a lock. To wait longer, a request needs a waiting place."""
PLACES, TURN = "places-to-wait", "turn-to-write"

GRACE_SECONDS = 2
"""How many seconds longer than a statement may take its answer is waited for. PostgreSQL ends it by itself before."""

# A read-only server; a prepared statement that no longer fits the tables, is missing, or exists already.
UNFIT_SQLSTATES = {"25006", "0A000", "26000", "42P05"}
"""Errors of a connection, not of its transaction, which is tried again on another connection."""


class Outdated(Exception):
    """What a transaction must lock has changed since it took its locks, so that it has to begin again."""


class NoTurn(TimeoutError):
    """Other threads have been writing to SQLite for longer than the transaction may wait."""


class Mode(NamedTuple):
    """How a transaction begins, on each of the databases."""

    postgresql: str
    sqlite: str
    is_one_statement: bool = False
    """Whether it needs no BEGIN if the connection already has the settings."""
    outlives_work: bool = False
    """Whether the caller ends it."""
    is_on_replica: bool = False


READING = Mode("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN")
"""Several statements read a snapshot."""
READING_BY_ONE_STATEMENT = Mode("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", "", is_one_statement=True)
"""A single statement reads a snapshot."""
READING_ON = READING._replace(outlives_work=True)
"""Several statements read a snapshot, and more will."""
# On SQLite a writer takes the only write lock when it begins: a transaction that has read first cannot wait for it.
WRITING = Mode("BEGIN ISOLATION LEVEL READ COMMITTED", "BEGIN IMMEDIATE")
"""Statements write; each sees the transactions that were committed before it."""
TRYING = Mode(WRITING.postgresql, READING.sqlite)
"""A probe tries to write, and on SQLite does not wait for other writers."""


class Timeouts(NamedTuple):
    """The most seconds that a statement may wait for a lock, and that it may take; 0 means no limit."""

    lock: float
    statement: float

    @property
    def patience(self) -> float | None:
        """The most seconds to wait for PostgreSQL, which may have fallen silent."""
        return self.statement + GRACE_SECONDS if self.statement else None


class Tries:
    """Tries to connect. After one has failed, one thread at a time tries, and the others hardly wait for it."""

    def __init__(self) -> None:
        self._turn = Lock()
        self._has_failed = False

    @contextmanager
    def next(self) -> Iterator[None]:
        """Try. Raises Silent if another thread still tries."""
        must_wait = self._has_failed
        has_turn = must_wait and self._turn.acquire(timeout=AT_ONCE["postgresql"])
        try:
            if must_wait and not has_turn and self._has_failed:
                raise Silent("the server does not answer another thread")
            yield
            self._has_failed = False
        except BaseException:
            self._has_failed = True
            raise
        finally:
            if has_turn:
                self._turn.release()


def prepare(app: Flask) -> None:
    """Set up an application's connections; their transactions begin here, not in the driver.

    Raises ConfigurationError if a folder for SQLite's file cannot be made.
    """
    try:
        db.init_app(app)
    except OSError as error:
        raise ConfigurationError(
            f"PROGRESS_SQLALCHEMY_DATABASE_URI: {app.instance_path!r} cannot be made for SQLite: {error.strerror}."
        ) from error
    with app.app_context():
        engine, engines, usual = db.engine, db.engines, timeouts()
    app.extensions[PLACES] = BoundedSemaphore(max(1, app.config["POOL_SIZE"] // 2))
    app.extensions[TURN] = Lock() if engine.dialect.name == "sqlite" else None
    for name, one in engines.items():
        event.listen(one, "before_cursor_execute", _count_statement)
        if one.dialect.name == "sqlite":
            _prepare_sqlite(one, usual)
        else:
            patience = REPLICA_SECONDS if name == REPLICA else app.config["CONNECT_TIMEOUT"]
            _prepare_postgresql(one, usual, patience, notes_positions=REPLICA in engines)


def _count_statement(*_: Any) -> None:
    facts.current().spent.statements += 1


class TimedCursor(sqlite3.Cursor):
    """A cursor of SQLite, which does its work while it is called."""

    execute = facts.waiting(sqlite3.Cursor.execute)
    executemany = facts.waiting(sqlite3.Cursor.executemany)
    fetchone = facts.waiting(sqlite3.Cursor.fetchone)
    fetchmany = facts.waiting(sqlite3.Cursor.fetchmany)
    fetchall = facts.waiting(sqlite3.Cursor.fetchall)


class TimedConnection(sqlite3.Connection):
    """A connection to SQLite, which does its work while it is called."""

    commit = facts.waiting(sqlite3.Connection.commit)
    rollback = facts.waiting(sqlite3.Connection.rollback)

    def cursor(self, factory: Any = TimedCursor) -> Any:
        return super().cursor(factory)


def _prepare_sqlite(engine: Engine, usual: Timeouts) -> None:
    @event.listens_for(engine, "do_connect")
    @facts.waiting
    def connect(_: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> sqlite3.Connection:
        return sqlite3.connect(*arguments, **options, factory=TimedConnection)

    @event.listens_for(engine, "connect")
    def prepare_connection(driver: sqlite3.Connection, _: Any) -> None:
        driver.isolation_level = None
        driver.execute("PRAGMA journal_mode = WAL")
        driver.execute("PRAGMA synchronous = FULL")
        driver.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        send_command(connection, f"PRAGMA busy_timeout = {round(1000 * options.get('timeouts', usual).lock)}")
        if command := options.get("mode", WRITING).sqlite:
            send_command(connection, command)


def _prepare_postgresql(engine: Engine, usual: Timeouts, patience: float, *, notes_positions: bool) -> None:
    lost, tries = 0.0, Tries()
    at_once = usual._replace(lock=AT_ONCE["postgresql"])

    @event.listens_for(engine, "do_connect")
    @facts.waiting
    def connect(_: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> PipelinedConnection:
        with tries.next():
            # psycopg would deallocate all prepared statements, its own and others, with each rollback.
            driver = PipelinedConnection.connect(*arguments, **options, prepare_threshold=None)
            driver.patience = patience
            # A pooler that shares servers among clients gives each client a key of its own to cancel statements. If
            # the key is the server's own, there is no pooler, and the connection keeps settings and statements.
            ((process,),) = driver.execute("SELECT pg_backend_pid()").fetchall()
            driver.keeps_statements = process == driver.info.backend_pid
            if driver.keeps_statements:
                driver.execute(settings(at_once, for_transaction=False))
        return driver

    @event.listens_for(engine, "connect")
    def note_time(_: Any, record: ConnectionPoolEntry) -> None:
        record.info["seen"] = time.monotonic()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        mode: Mode = options.get("mode", WRITING)
        given: Timeouts = options.get("timeouts", usual)
        driver: Any = connection.connection.driver_connection
        driver.notes_position = notes_positions and mode == WRITING
        _be_patient(connection, patience if mode.is_on_replica else given.patience)
        is_set = driver.keeps_statements and given == at_once
        if not (is_set and mode.is_one_statement):
            send_command(connection, mode.postgresql)
        if not is_set:
            send_command(connection, settings(given, for_transaction=True))

    @event.listens_for(engine, "do_execute")
    @event.listens_for(engine, "do_execute_no_params")
    @event.listens_for(engine, "do_executemany")
    def send_what_is_queued(cursor: Any, *_: Any) -> None:
        cursor.connection.send()

    @event.listens_for(engine, "handle_error")
    def judge(context: ExceptionContext) -> None:
        is_unfit = sqlstate(context.original_exception) in UNFIT_SQLSTATES
        context.is_disconnect = context.is_disconnect or is_unfit
        # If a connection is unfit or silent, so are the others of its age. If it is lost, the others may work.
        context.invalidate_pool_on_disconnect = is_unfit or isinstance(context.original_exception, Silent)

    @event.listens_for(engine, "invalidate")
    def suspect_others(*_: Any) -> None:
        nonlocal lost
        lost = time.monotonic()

    @event.listens_for(engine, "checkout")
    def check_suspect(driver: Any, record: ConnectionPoolEntry, _: Any) -> None:
        if record.info["seen"] < lost:
            driver.patience = patience
            try:
                engine.dialect.do_ping(driver)
            except Silent as error:
                raise InvalidatePoolError from error
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error  # which lets the pool replace it
            record.info["seen"] = time.monotonic()


def timeouts(*, catalog_timeout: bool = False) -> Timeouts:
    """Return the timeouts of a request's transaction; its statements may have the time of a catalog change."""
    config = current_app.config
    return Timeouts(config["LOCK_TIMEOUT"], config["CATALOG_TIMEOUT" if catalog_timeout else "STATEMENT_TIMEOUT"])


def _soon() -> Timeouts:
    """Return the timeouts of a probe, whose caller does not wait for long."""
    usual = timeouts()
    return usual._replace(statement=min(usual.statement, current_app.config["CONNECT_TIMEOUT"]))


@cache
def settings(timeouts: Timeouts, *, for_transaction: bool) -> str:
    """Return a statement that sets what the service relies on, for a transaction or for the connection.

    Servers, roles, URLs and poolers may have set others. Through a pooler, a setting lasts only for a transaction.
    """
    values = {
        "lock_timeout": round(1000 * timeouts.lock),
        "statement_timeout": round(1000 * timeouts.statement),
        "idle_in_transaction_session_timeout": round(2000 * timeouts.statement),
        "DateStyle": "ISO",
        "TimeZone": "UTC",
    }
    calls = (f"set_config('{name}', '{value}', {for_transaction})" for name, value in values.items())
    return f"SELECT {', '.join(calls)}"


def read(work: Callable[[Connection], Result], *, single_statement: bool = False) -> Result:
    """Do the work on a snapshot of the database; work that is a `single_statement` needs no BEGIN."""
    return _transact(work, READING_BY_ONE_STATEMENT if single_statement else READING, timeouts())[0]


def probe(work: Callable[[Connection], Result]) -> Result:
    """Do the work on a snapshot of the database, which must answer as soon as it must accept a connection."""
    return _transact(work, READING, _soon())[0]


def read_on(work: Callable[[Connection], Result]) -> tuple[Result, Callable[[], None]]:
    """Do the work on a snapshot, and return its result with the function that ends the snapshot."""
    result, transaction = _transact(work, READING_ON, timeouts())
    return result, transaction.close


def read_replica(work: Callable[[Connection], Result], *, single_statement: bool) -> Result:
    """Do the work on a replica, once. Each of its statements sees what was replayed before it began.

    Work that is not a `single_statement` may call `begin_snapshot`.
    """
    mode = READING_BY_ONE_STATEMENT._replace(is_one_statement=single_statement, is_on_replica=True)
    result, transaction = _try(work, mode, timeouts()._replace(lock=AT_ONCE["postgresql"]))
    transaction.close()
    return result


def begin_snapshot(connection: Connection, *, single_statement: bool) -> None:
    """Let the next statements of a replica's transaction read one snapshot, which begins with the first of them.

    From now on the replica is waited for as long as the primary would be, and no longer as for a connection.
    """
    given: Timeouts = connection.get_execution_options()["timeouts"]
    _be_patient(connection, given.patience)
    if not single_statement:
        for command in ("COMMIT", READING.postgresql, settings(given, for_transaction=True)):
            send_command(connection, command)


def allow_catalog_timeout(connection: Connection) -> None:
    """Let the next statements of this transaction take as long as those of a catalog change."""
    if connection.dialect.name == "postgresql":
        given = timeouts(catalog_timeout=True)
        _be_patient(connection, given.patience)
        send_command(connection, settings(given, for_transaction=True))


def _be_patient(connection: Connection, seconds: float | None) -> None:
    """Wait so long for each answer of PostgreSQL in this transaction."""
    driver: Any = connection.connection.driver_connection
    driver.patience = seconds


def write(work: Callable[[Connection], Result], *, catalog_timeout: bool = False) -> Result:
    """Do the work in a transaction and commit it: when this returns, the changes are on disk.

    The work may run more than once, so it must have no effect outside its connection. With `catalog_timeout` the
    statements of a request may take as long as those of a catalog change; those of commands always may.
    """
    return _transact(work, WRITING, timeouts(catalog_timeout=catalog_timeout))[0]


def write_once(work: Callable[[Connection], Result]) -> tuple[Result, Callable[[], None]]:
    """Do the work in a transaction that is tried once and hardly waits for locks; return also what commits it."""
    result, transaction = _try(work, WRITING, timeouts()._replace(lock=AT_ONCE[db.engine.dialect.name]))
    return result, transaction.close


def try_writing() -> None:
    """Write nothing, but raise the error that a writer would get, such as that of a read-only server or file."""
    _transact(_write_nothing, TRYING, _soon())


def _write_nothing(connection: Connection) -> None:
    # The table of stored answers, since changes of the catalog may lock all others.
    connection.execute(select(StoredAnswer.key).where(false()))
    try:
        connection.execute(update(StoredAnswer).where(false()).values(fingerprint=""))
    except OperationalError as error:
        # On SQLite a transaction that has read first does not wait for a writer; a writer proves that writing works.
        if connection.dialect.name != "sqlite" or not is_locked(error):
            raise


def _transact(work: Callable[[Connection], Result], mode: Mode, timeouts: Timeouts) -> tuple[Result, ExitStack]:
    """Do the work in a transaction and commit it; return the result, and the transaction if it outlives the work.

    At most half of a worker's threads wait for locks at the same time. The other half is for requests that need not
    wait: probes, readers, and writers of other modules and learners.
    """
    if not has_request_context():
        seconds: int = current_app.config["CATALOG_TIMEOUT"]
        return _attempt(work, mode, Timeouts(seconds, seconds))
    places: BoundedSemaphore = current_app.extensions[PLACES]
    try:
        return _attempt(work, mode, timeouts._replace(lock=AT_ONCE[db.engine.dialect.name]))
    except (DBAPIError, TimeoutError) as error:
        if not is_locked(error) or not places.acquire(blocking=False):
            raise
        facts.note_retry(error)
    try:
        return _attempt(work, mode._replace(is_one_statement=False), timeouts)
    finally:
        places.release()


def _attempt(work: Callable[[Connection], Result], mode: Mode, timeouts: Timeouts) -> tuple[Result, ExitStack]:
    """Do the work in a transaction and commit it; try again after a transient error.

    If the connection is lost during COMMIT, the commit may have succeeded: it is not tried again here. A caller with an
    Idempotency-Key may try again.
    """
    deadline = time.monotonic() + max(timeouts.lock, current_app.config["LOCK_TIMEOUT"])
    attempt = 0
    while True:
        attempt += 1
        is_ending = False
        try:
            result, transaction = _try(work, mode, timeouts)
            if not mode.outlives_work:
                is_ending = True
                transaction.close()
            return result, transaction
        except (DBAPIError, Outdated) as error:
            may_be_done = is_ending and not is_undone(error)
            if attempt == ATTEMPTS or time.monotonic() > deadline or may_be_done or not is_transient(error):
                raise
            current_app.logger.info("transaction tried again after %s", facts.note_retry(error))
        time.sleep(random.uniform(0, LONGEST_PAUSE))


def _try(work: Callable[[Connection], Result], mode: Mode, timeouts: Timeouts) -> tuple[Result, ExitStack]:
    """Do the work in a transaction, once; return a stack that commits and gives the connection back."""
    own, counts = figures.own(), list[Callable[[], object]]()
    with ExitStack() as transaction:
        engine = db.engines[REPLICA] if mode.is_on_replica else db.engine
        with own.pool_wait.time():
            connection = transaction.enter_context(engine.connect())
        own.connections.inc()
        transaction.callback(own.connections.dec)
        transaction.push(partial(_count, counts))
        connection.execution_options(mode=mode, timeouts=timeouts, counts=counts)
        # SQLite serves waiting writers in no order. This lock serves the threads of a worker in turn.
        if mode.sqlite == WRITING.sqlite and (turn := current_app.extensions[TURN]):
            if not turn.acquire(timeout=timeouts.lock):
                raise NoTurn
            transaction.callback(turn.release)
        transaction.enter_context(connection.begin())
        return work(connection), transaction.pop_all()


def when_committed(connection: Connection, count: Callable[[], object]) -> None:
    """Count what a transaction of this module has done, once it is certain that it is done."""
    connection.get_execution_options().get("counts", []).append(count)


def _count(counts: Iterable[Callable[[], object]], error: type[BaseException] | None, *_: object) -> None:
    if error is None:
        for count in counts:
            count()


def is_transient(error: DBAPIError | Outdated) -> bool:
    """Tell whether the transaction lost a race or its connection, so that it may succeed when it is tried again."""
    if isinstance(error, Outdated):
        return True
    return error.connection_invalidated or sqlstate(error.orig) in TRANSIENT_SQLSTATES


def is_undone(error: Exception) -> bool:
    """Tell whether it is certain that an error which came with COMMIT has undone the transaction.

    It is certain if PostgreSQL has named the error and the connection lives on. If the connection is lost, COMMIT may
    have been done before, whatever the last words were and whoever said them.
    """
    named = sqlstate(error.orig) if isinstance(error, DBAPIError) else None
    is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return named in UNFIT_SQLSTATES or (named is not None and not is_lost)


def is_locked(error: DBAPIError | TimeoutError) -> bool:
    """Tell whether another transaction has held a lock for longer than this transaction may wait."""
    if isinstance(error, TimeoutError):
        return isinstance(error, NoTurn)
    if isinstance(error.orig, sqlite3.OperationalError):
        return error.orig.sqlite_errorname.startswith("SQLITE_BUSY")
    return sqlstate(error.orig) == LOCK_NOT_AVAILABLE


def sqlstate(cause: BaseException | None) -> str | None:
    """Return PostgreSQL's name of an error; None if the server did not say anything."""
    return getattr(cause, "sqlstate", None)
