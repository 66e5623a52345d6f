"""Connections to PostgreSQL and to SQLite: how they begin, how transactions on them begin, and when they are given up.

docs/operating.md ("Connections, poolers, failover") tells what operators see of it.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from progress_service import facts
from progress_service.store.direct import send_command
from progress_service.store.pipeline import PipelinedConnection, Silent

AT_ONCE = {"postgresql": 0.1, "sqlite": 0.5}
"""The seconds that every request may wait for a lock. To wait longer, a request needs a waiting place."""

GRACE_SECONDS = 2
"""How many seconds longer than a statement may take its answer is waited for. PostgreSQL ends it by itself before."""

# A read-only server; a prepared statement that no longer fits the tables, is missing, or exists already.
UNFIT_SQLSTATES = {"25006", "0A000", "26000", "42P05"}
"""Errors of a connection, not of its transaction, which is tried again on another connection."""


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


def prepare(engine: Engine, usual: Timeouts, patience: float, *, notes_positions: bool) -> None:
    """Set up an engine, whose transactions have the `usual` timeouts unless their options say otherwise.

    With PostgreSQL, `patience` is how many seconds a server may take to answer a new connection or a look at a replica,
    and `notes_positions` whether writers note where its log is.
    """
    event.listen(engine, "before_cursor_execute", _count_statement)
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, usual)
    else:
        _Postgresql(engine, usual, patience, notes_positions=notes_positions).listen()


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
    """Set up an engine for SQLite."""

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


class _Postgresql:
    """What happens to the connections of an engine for PostgreSQL."""

    def __init__(self, engine: Engine, usual: Timeouts, patience: float, *, notes_positions: bool) -> None:
        self._engine, self._usual, self._patience = engine, usual, patience
        self._notes_positions = notes_positions
        self._at_once = usual._replace(lock=AT_ONCE["postgresql"])
        self._tries = Tries()
        self._lost = 0.0

    def listen(self) -> None:
        """Hear of what happens to the engine's connections."""
        event.listen(self._engine, "do_connect", self._connect)
        event.listen(self._engine, "connect", self._note_time)
        event.listen(self._engine, "begin", self._begin)
        for name in ("do_execute", "do_execute_no_params", "do_executemany"):
            event.listen(self._engine, name, self._send_what_is_queued)
        event.listen(self._engine, "handle_error", self._judge)
        event.listen(self._engine, "invalidate", self._suspect_others)
        event.listen(self._engine, "checkout", self._check_suspect)

    @facts.waiting
    def _connect(self, _: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> PipelinedConnection:
        with self._tries.next():
            # psycopg would deallocate all prepared statements, its own and others, with each rollback.
            driver = PipelinedConnection.connect(*arguments, **options, prepare_threshold=None)
            driver.patience = self._patience
            # A pooler that shares servers among clients gives each client a key of its own to cancel statements. If
            # the key is the server's own, there is no pooler, and the connection keeps settings and statements.
            ((process,),) = driver.execute("SELECT pg_backend_pid()").fetchall()
            driver.keeps_statements = process == driver.info.backend_pid
            if driver.keeps_statements:
                driver.execute(settings(self._at_once, for_transaction=False))
        return driver

    def _note_time(self, _: Any, record: ConnectionPoolEntry) -> None:
        record.info["seen"] = time.monotonic()

    def _begin(self, connection: Connection) -> None:
        options = connection.get_execution_options()
        mode: Mode = options.get("mode", WRITING)
        given: Timeouts = options.get("timeouts", self._usual)
        driver: Any = connection.connection.driver_connection
        driver.notes_position = self._notes_positions and mode == WRITING
        be_patient(connection, self._patience if mode.is_on_replica else given.patience)
        is_set = driver.keeps_statements and given == self._at_once
        if not (is_set and mode.is_one_statement):
            send_command(connection, mode.postgresql)
        if not is_set:
            send_command(connection, settings(given, for_transaction=True))

    def _send_what_is_queued(self, cursor: Any, *_: Any) -> None:
        cursor.connection.send()

    def _judge(self, context: ExceptionContext) -> None:
        is_unfit = sqlstate(context.original_exception) in UNFIT_SQLSTATES
        context.is_disconnect = context.is_disconnect or is_unfit
        # If a connection is unfit or silent, so are the others of its age. If it is lost, the others may work.
        context.invalidate_pool_on_disconnect = is_unfit or isinstance(context.original_exception, Silent)

    def _suspect_others(self, *_: Any) -> None:
        self._lost = time.monotonic()

    def _check_suspect(self, driver: Any, record: ConnectionPoolEntry, _: Any) -> None:
        if record.info["seen"] < self._lost:
            driver.patience = self._patience
            try:
                self._engine.dialect.do_ping(driver)
            except Silent as error:
                raise InvalidatePoolError from error
            except self._engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error  # which lets the pool replace it
            record.info["seen"] = time.monotonic()


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


def be_patient(connection: Connection, seconds: float | None) -> None:
    """Wait so long for each answer of PostgreSQL in this transaction."""
    driver: Any = connection.connection.driver_connection
    driver.patience = seconds


def sqlstate(cause: BaseException | None) -> str | None:
    """Return PostgreSQL's name of an error; None if the server did not say anything."""
    return getattr(cause, "sqlstate", None)
