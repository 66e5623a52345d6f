"""Reads from replicas of PostgreSQL, which may be behind: how far they may be, and when the primary answers instead."""

import time
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TypeVar

from flask import Flask, current_app
from sqlalchemy import Boolean, Connection, column, text
from sqlalchemy.exc import DBAPIError, TimeoutError

from progress_service import facts
from progress_service.config import REPLICA
from progress_service.store import database
from progress_service.store.connections import sqlstate
from progress_service.store.database import db
from progress_service.store.direct import DirectStatement
from progress_service.store.pipeline import Silent

Result = TypeVar("Result")

REST_SECONDS = 5
"""For how many seconds replicas that could not be reached are left alone; then one request tries again."""
LOOK_SECONDS = 0.005
"""The seconds between two looks at what a replica has replayed."""
QUERY_CANCELED = "57014"

# On an idle primary the time of the last transaction grows old. So a replica is also up to date if it has replayed all
# that it has received, and still receives.
STATE = DirectStatement(
    text(
        """
        SELECT pg_catalog.pg_is_in_recovery() AS is_replica,
            coalesce(
                pg_catalog.pg_last_wal_replay_lsn() >= pg_catalog.pg_last_wal_receive_lsn()
                AND EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver), false
            )
            OR coalesce(
                pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()
                <= pg_catalog.make_interval(secs => :lag), false
            ) AS is_fresh,
            coalesce(pg_catalog.pg_last_wal_replay_lsn() >= CAST(:position AS pg_catalog.pg_lsn), true) AS has_position
        """
    ).columns(column("is_replica", Boolean), column("is_fresh", Boolean), column("has_position", Boolean))
)


class NotFresh(Exception):
    """The server lacks what the answer must show, or is no replica any more."""


class Replicas:
    """Whether replicas can be reached, as far as this process knows."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rest_until: float | None = None

    def are_worth_a_try(self) -> bool:
        """Tell whether the caller should try; of those who ask after a rest, one should."""
        with self._lock:
            if self._rest_until is None:
                return True
            is_rested = time.monotonic() >= self._rest_until
            if is_rested:
                self._rest_until = time.monotonic() + REST_SECONDS
            return is_rested

    def note(self, *, are_reached: bool) -> None:
        """Note whether a try has reached a replica."""
        with self._lock:
            self._rest_until = None if are_reached else time.monotonic() + REST_SECONDS


def prepare(app: Flask) -> None:
    """Let an application read replicas, if its settings have any."""
    with app.app_context():
        app.extensions[REPLICA] = Replicas() if REPLICA in db.engines else None


def read(work: Callable[[Connection], Result], *, single_statement: bool, position: str | None) -> Result:
    """Do the work on a snapshot of a replica, or of the primary if no replica can do it.

    The snapshot has what was committed before the `position`, and is no older than the settings allow.
    """
    replicas: Replicas | None = current_app.extensions[REPLICA]
    if replicas and replicas.are_worth_a_try():
        on_replica = partial(_read, replicas, work, single_statement, position)
        try:
            return database.read_replica(on_replica, single_statement=single_statement)
        except (DBAPIError, TimeoutError, NotFresh) as error:
            name = sqlstate(error.orig) if isinstance(error, DBAPIError) else None
            if name == QUERY_CANCELED:
                raise  # on the primary it would take too long as well
            if isinstance(error, DBAPIError) and name is None and not _is_lost(error):
                replicas.note(are_reached=False)
            facts.current().is_from_replica = False
            facts.note_retry(error)
    return database.read(work, single_statement=single_statement)


def _is_lost(error: DBAPIError) -> bool:
    """Tell whether a server has ended the connection, so that others may work; a server that is silent has not."""
    return error.connection_invalidated and not isinstance(error.orig, Silent)


def _read(
    replicas: Replicas,
    work: Callable[[Connection], Result],
    single_statement: bool,
    position: str | None,
    connection: Connection,
) -> Result:
    _wait(replicas, connection, position)
    facts.current().is_from_replica = True
    database.begin_snapshot(connection, single_statement=single_statement)
    return work(connection)


def _wait(replicas: Replicas, connection: Connection, position: str | None) -> None:
    """Wait until the replica has replayed its log up to the position. Raises NotFresh if that takes too long."""
    config = current_app.config
    deadline = time.monotonic() + config["REPLICA_WAIT_MILLISECONDS"] / 1000
    while True:
        ((is_replica, is_fresh, has_position),) = STATE.run(
            connection, position=position, lag=config["REPLICA_LAG_SECONDS"]
        )
        replicas.note(are_reached=is_replica)
        if not is_replica:
            connection.invalidate()
            raise NotFresh
        if is_fresh and has_position:
            return
        if not is_fresh or time.monotonic() > deadline:
            raise NotFresh
        time.sleep(LOOK_SECONDS)
