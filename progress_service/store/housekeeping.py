"""What is kept for some time only is deleted afterwards: stored answers, sessions, and changes that are no history.

Nobody has to schedule it. Now and then, when the answer to a write has been sent, its thread deletes a few rows in a
transaction of its own. It waits for nobody: rows that others hold are left for the next time. Whether a row has expired
is asked wherever that matters, so nothing depends on when the row is deleted.
"""

import math
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

from flask import Flask, current_app
from sqlalchemy import Connection, delete, func, select, text, tuple_

from progress_service import figures
from progress_service.store import database
from progress_service.store.models import IS_NO_HISTORY, Change, Session, StoredAnswer

ANSWERS_KEPT = timedelta(hours=24)
"""For how long the answer to a request is kept for its repeats."""
UNREAD = timedelta(hours=1)
"""How much longer changes are kept than readers may stay away: some appear only when a long transaction has ended."""
STEP = 100
"""How many rows of each kind are deleted at most after a write."""
PAUSE = 0.1
"""The least seconds between two steps of a worker, while there is more to delete than a step."""
HOUSEKEEPER = "housekeeper"


class Purged(NamedTuple):
    """How many rows were deleted, of each kind."""

    answers: int
    sessions: int
    changes: int


class Housekeeper:
    """Purges an application's database now and then."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._rest: int = app.config["PURGE_SECONDS"]
        self._due = 0.0 if self._rest else math.inf

    def tidy(self) -> None:
        """Delete a step of what has expired, if it is time; a failure is logged, and harms nobody.

        Threads that find at the same moment that it is time delete different rows.
        """
        if monotonic() < self._due:
            return
        self._due = monotonic() + self._rest
        try:
            with self._app.app_context():
                purged, commit = database.write_once(partial(purge, now=datetime.now(UTC), most=STEP))
                commit()
        except Exception as error:
            self._app.logger.warning("nothing is purged after %s", type(error).__name__)
            figures.own().purge_failures.inc()
            return
        for kind, rows in purged._asdict().items():
            figures.own().purged.labels(kind).inc(rows)
        if STEP in purged:
            self._due = monotonic() + PAUSE


def prepare(app: Flask) -> None:
    """Give an application its housekeeper."""
    app.extensions[HOUSEKEEPER] = Housekeeper(app)


def purge(connection: Connection, now: datetime, most: int) -> Purged:
    """Delete the oldest rows that have expired, at most `most` of each kind."""
    sessions_until, changes_until = (
        now - timedelta(days=current_app.config[name]) for name in ("SESSION_DAYS", "CHANGES_DAYS")
    )
    return Purged(
        answers=_delete(connection, StoredAnswer.stored_at, now - ANSWERS_KEPT, most),
        sessions=_delete(connection, Session.received_at, sessions_until, most),
        changes=_delete(connection, Change.recorded_at, changes_until - UNREAD, most, text(IS_NO_HISTORY)),
    )


def count_answers(connection: Connection) -> int:
    """Return how many answers are stored; PostgreSQL tells what it has last estimated, which costs nothing."""
    if connection.dialect.name == "postgresql":
        estimated = text("SELECT reltuples FROM pg_class WHERE oid = CAST('stored_answers' AS regclass)")
        return max(0, int(connection.execute(estimated).scalar_one()))  # -1: never yet
    return connection.execute(select(func.count()).select_from(StoredAnswer)).scalar_one()


def _delete(connection: Connection, at: Any, until: datetime, most: int, *where: Any) -> int:
    """Delete the oldest rows of a table up to a time, but none that others hold, and return how many were deleted."""
    key = list(at.class_.__table__.primary_key)
    oldest = select(*key).where(at <= until, *where).order_by(at).limit(most).with_for_update(skip_locked=True)
    expired = oldest.cte("expired")  # which PostgreSQL runs once; it might run a subquery again, and delete more
    deleted = delete(at.class_).where(tuple_(*key).in_(select(expired))).returning(at)
    return len(connection.execute(deleted).all())
