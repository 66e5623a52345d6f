"""Repeats of a request: its answer is kept under the caller's key, in the transaction of its effect.

So the effect and the answer are there together or not at all. A repeat that comes while the first request still runs
waits for it, by a lock on the key; it is the first lock that a transaction takes.
"""

import hashlib
import re
from datetime import datetime, timedelta
from typing import NamedTuple

from flask import Request, Response
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select

from progress_service.auth import Caller
from progress_service.errors import Problem, malformed
from progress_service.models import StoredAnswer
from progress_service.serialization import encode

LIFETIME = timedelta(hours=24)

_KEY = re.compile(r"[!-~]{1,255}", re.ASCII)


class Key(NamedTuple):
    """A caller's name for one request, and the digest of what that request says."""

    caller_id: str
    key: str
    fingerprint: str


def key_of(request: Request, caller: Caller) -> Key | None:
    """Return the key of a POST or PUT that has one; 400 where it is not 1 to 255 visible ASCII characters."""
    key = request.headers.get("Idempotency-Key")
    if key is None or request.method not in ("POST", "PUT"):
        return None
    if not _KEY.fullmatch(key):
        raise malformed("The Idempotency-Key must have 1 to 255 visible ASCII characters.")
    said = (request.method.encode(), request.path.encode(), request.query_string, request.get_data())
    return Key(caller.id, key, hashlib.sha256(b"\0".join(said)).hexdigest())


def replay(connection: Connection, key: Key, now: datetime) -> Response | None:
    """Return the answer that is stored under a key; 422 where the key was given to another request.

    Holds the key until the transaction ends. Answers are forgotten after a day.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(key.caller_id), func.hashtext(key.key))))
    ours = {"caller_id": key.caller_id, "key": key.key}
    stored = connection.execute(select(StoredAnswer).filter_by(**ours)).first()
    if stored is None:
        return None
    if stored.stored_at <= now - LIFETIME:
        connection.execute(delete(StoredAnswer).filter_by(**ours))
        return None
    if stored.fingerprint != key.fingerprint:
        raise Problem(422, "This Idempotency-Key was given to another request.", slug="idempotency-key-reused")
    headers = {"Idempotency-Replayed": "true"}
    return Response(stored.body, stored.status, headers, content_type="application/json")


def keep(connection: Connection, key: Key, response: Response, learner_id: str | None, now: datetime) -> None:
    """Store an answer, and whom it names, with the effect that it tells of."""
    stored = {**key._asdict(), "status": response.status_code, "body": response.get_data()}
    connection.execute(insert(StoredAnswer).values(**stored, learner_id=learner_id, stored_at=now))


def forget(connection: Connection, user_id: str) -> None:
    """Delete the answers that a user was given, and those that name them."""
    connection.execute(delete(StoredAnswer).where(about(connection, user_id)))


def about(connection: Connection, user_id: str) -> ColumnElement[bool]:
    """Tell which answers a user was given, and which name them: of those that may name several, the body says whom."""
    find = func.pg_catalog.position if connection.dialect.name == "postgresql" else func.instr
    names_them = and_(StoredAnswer.learner_id.is_(None), find(StoredAnswer.body, encode(user_id)) > 0)
    return or_(StoredAnswer.caller_id == user_id, StoredAnswer.learner_id == user_id, names_them)


def purge(connection: Connection, now: datetime) -> int:
    """Delete the answers that no repeat can get any more, and return how many they were."""
    return connection.execute(delete(StoredAnswer).where(StoredAnswer.stored_at <= now - LIFETIME)).rowcount
