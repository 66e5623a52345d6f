"""Transactions on PostgreSQL and on SQLite: of which kind they are, how long they wait, and when they are tried again.

docs/architecture.md ("Transactions") explains the waiting places and the retries.
"""

import random
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from threading import BoundedSemaphore, Lock
from typing import TypeVar

from flask import Flask, current_app, has_request_context
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, false, select, update
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError

from progress_service import facts, figures
from progress_service.config import REPLICA, REPLICA_SECONDS, ConfigurationError
from progress_service.store import connections
from progress_service.store.connections import (
    AT_ONCE,
    READING,
    READING_BY_ONE_STATEMENT,
    READING_ON,
    TRYING,
    UNFIT_SQLSTATES,
    WRITING,
    Mode,
    Timeouts,
    be_patient,
    settings,
    sqlstate,
)
from progress_service.store.direct import send_command
from progress_service.store.models import Base, StoredAnswer

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
PLACES, TURN = "places-to-wait", "turn-to-write"


class Outdated(Exception):
    """What a transaction must lock has changed since it took its locks, so that it has to begin again."""


class NoTurn(TimeoutError):
    """Other threads have been writing to SQLite for longer than the transaction may wait."""


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
        patience = REPLICA_SECONDS if name == REPLICA else app.config["CONNECT_TIMEOUT"]
        connections.prepare(one, usual, patience, notes_positions=REPLICA in engines)


def timeouts(*, catalog_timeout: bool = False) -> Timeouts:
    """Return the timeouts of a request's transaction; its statements may have the time of a catalog change."""
    config = current_app.config
    return Timeouts(config["LOCK_TIMEOUT"], config["CATALOG_TIMEOUT" if catalog_timeout else "STATEMENT_TIMEOUT"])


def _soon() -> Timeouts:
    """Return the timeouts of a probe, whose caller does not wait for long."""
    usual = timeouts()
    return usual._replace(statement=min(usual.statement, current_app.config["CONNECT_TIMEOUT"]))


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
    be_patient(connection, given.patience)
    if not single_statement:
        for command in ("COMMIT", READING.postgresql, settings(given, for_transaction=True)):
            send_command(connection, command)


def allow_catalog_timeout(connection: Connection) -> None:
    """Let the next statements of this transaction take as long as those of a catalog change."""
    if connection.dialect.name == "postgresql":
        given = timeouts(catalog_timeout=True)
        be_patient(connection, given.patience)
        send_command(connection, settings(given, for_transaction=True))


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
