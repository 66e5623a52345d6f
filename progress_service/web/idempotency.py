"""Repeats of a request: the answer is stored under the caller's key, in the transaction of the request's effect.

So either both are stored, or neither. A repeat that comes while the first request still runs waits for the lock of the
key, which is the first lock that a transaction takes.
"""

import hashlib
import re
from datetime import datetime, timedelta
from typing import NamedTuple

from flask import Request, Response
from sqlalchemy import ColumnElement, Connection, String, and_, bindparam, delete, func, insert, or_, select

from progress_service.store.direct import DirectStatement
from progress_service.store.models import StoredAnswer
from progress_service.web.auth import Caller
from progress_service.web.problems import IDEMPOTENCY_KEY_REUSED, MALFORMED_REQUEST, Problem
from progress_service.web.serialization import encode

LIFETIME = timedelta(hours=24)

_KEY = re.compile(r"[!-~]{1,255}", re.ASCII)
_CALLER, _NAME = bindparam("caller_id", type_=String), bindparam("key", type_=String)
LOCK = DirectStatement(select(func.pg_advisory_xact_lock(func.hashtext(_CALLER), func.hashtext(_NAME))))
FIND = DirectStatement(
    select(
        StoredAnswer.fingerprint,
        StoredAnswer.status,
        StoredAnswer.body,
        StoredAnswer.learner_id,
        StoredAnswer.stored_at,
    ).where(StoredAnswer.caller_id == _CALLER, StoredAnswer.key == _NAME)
)
KEEP = DirectStatement(
    insert(StoredAnswer).values({column.name: bindparam(column.name) for column in StoredAnswer.__table__.columns})
)


class Key(NamedTuple):
    """A caller's key of a request, and the digest of the request."""

    caller_id: str
    key: str
    fingerprint: str

    @classmethod
    def of(cls, request: Request, caller: Caller, name: str) -> "Key":
        parts = (request.method.encode(), request.path.encode(), request.query_string, request.get_data())
        return cls(caller.id, name, hashlib.sha256(b"\0".join(parts)).hexdigest())


class Replay(NamedTuple):
    """A stored answer, and the learner named in it; None if it names several."""

    response: Response
    learner: str | None


def name_of(request: Request) -> str | None:
    """Return the key of a POST or PUT. Raises 400 for anything but 1 to 255 visible ASCII characters."""
    name = request.headers.get("Idempotency-Key")
    if name is None or request.method not in ("POST", "PUT"):
        return None
    if not _KEY.fullmatch(name):
        raise Problem(MALFORMED_REQUEST, "The Idempotency-Key must have 1 to 255 visible ASCII characters.")
    return name


def replay(connection: Connection, key: Key, now: datetime) -> Replay | None:
    """Return the answer that is stored under a key. Raises 422 if the key was given to another request.

    Locks the key until the transaction ends. An answer that is older than a day is deleted.
    """
    stored_as = {"caller_id": key.caller_id, "key": key.key}
    if connection.dialect.name == "postgresql":
        LOCK.run(connection, **stored_as)
    for fingerprint, status, body, learner, stored_at in FIND.run(connection, **stored_as):
        if stored_at <= now - LIFETIME:
            connection.execute(delete(StoredAnswer).filter_by(**stored_as))
            return None
        if fingerprint != key.fingerprint:
            raise Problem(IDEMPOTENCY_KEY_REUSED)
        replayed = {"Idempotency-Replayed": "true"}
        return Replay(Response(body, status, replayed, content_type="application/json"), learner)
    return None


def keep(connection: Connection, key: Key, response: Response, learner_id: str | None, now: datetime) -> None:
    """Store an answer, and the learner named in it, in the transaction of the request's effect."""
    answer = {"status": response.status_code, "body": response.get_data(), "learner_id": learner_id, "stored_at": now}
    KEEP.run(connection, **key._asdict(), **answer)


def forget(connection: Connection, user_id: str) -> None:
    """Delete the answers to a user, and those that name that user."""
    connection.execute(delete(StoredAnswer).where(about(connection, user_id)))


def about(connection: Connection, user_id: str) -> ColumnElement[bool]:
    """Select the answers to a user and those that name the user; answers that may name several users are searched."""
    find = func.pg_catalog.position if connection.dialect.name == "postgresql" else func.instr
    names_them = and_(StoredAnswer.learner_id.is_(None), find(StoredAnswer.body, encode(user_id)) > 0)
    return or_(StoredAnswer.caller_id == user_id, StoredAnswer.learner_id == user_id, names_them)


def purge(connection: Connection, now: datetime) -> int:
    """Delete the answers that are older than a day, and return their number."""
    return connection.execute(delete(StoredAnswer).where(StoredAnswer.stored_at <= now - LIFETIME)).rowcount
