"""Repeats of a request: the answer is stored under the caller's key, in the transaction of the request's effect.

So either both are stored, or neither. A repeat that comes while the first request still runs waits for the lock of the
key, which is the first lock that a transaction takes.
"""

import hashlib
import re
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import NamedTuple

from flask import Request, Response
from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_

from progress_service.store.housekeeping import ANSWERS_KEPT
from progress_service.store.models import StoredAnswer
from progress_service.store.statements import Statements
from progress_service.web.auth import Caller
from progress_service.web.problems import IDEMPOTENCY_KEY_REUSED, MALFORMED_REQUEST, Problem
from progress_service.web.serialization import encode

ANSWER = [column.name for column in StoredAnswer.__table__.c]

_KEY = re.compile(r"[!-~]{1,255}", re.ASCII)


class Key(NamedTuple):
    """A caller's key of a request, and the digest of the request."""

    caller_id: str
    key: str
    fingerprint: str

    @classmethod
    def of(cls, request: Request, caller: Caller, name: str) -> "Key":
        parts = (request.method.encode(), request.path.encode(), request.query_string, request.get_data())
        return cls(caller.id, name, hashlib.sha256(b"\0".join(parts)).hexdigest())

    @property
    def name(self) -> tuple[str, str]:
        """The caller and their name for the request; all repeats have it, whatever they ask for."""
        return self.caller_id, self.key


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


def replay(connection: Connection, keys: Collection[Key], now: datetime) -> dict[Key, Replay | Problem]:
    """Return the answers that are stored under some keys; the problem 422 if a key was given to another request.

    Locks the keys until the transaction ends. Answers that are older than a day are deleted.
    """
    if not keys:
        return {}
    sql = Statements.of(connection)
    given = {key.name: key for key in keys}
    rows = sql.request_keys(given)
    if connection.dialect.name == "postgresql":
        sql.lock_request_keys.send(connection, **rows)
    found: dict[Key, Replay | Problem] = {}
    for row in sql.find_answers.run(connection, **rows):
        answer = dict(zip(ANSWER, row, strict=True))
        key = given[answer["caller_id"], answer["key"]]
        if answer["stored_at"] <= now - ANSWERS_KEPT:
            connection.execute(delete(StoredAnswer).filter_by(caller_id=key.caller_id, key=key.key))
        elif answer["fingerprint"] != key.fingerprint:
            found[key] = Problem(IDEMPOTENCY_KEY_REUSED)
        else:
            replayed = {"Idempotency-Replayed": "true"}
            response = Response(answer["body"], answer["status"], replayed, content_type="application/json")
            if not answer["body"]:
                del response.headers["Content-Type"]
            found[key] = Replay(response, answer["learner_id"])
    return found


def keep(connection: Connection, answers: Iterable[tuple[Key, Response, str | None]], now: datetime) -> None:
    """Store answers, each with the learner whom it names, in the transaction of the requests' effects."""
    sql = Statements.of(connection)
    names = list(sql.answers.columns)
    rows = []
    for key, response, learner_id in answers:
        answer = {"status": response.status_code, "body": response.get_data(as_text=True), "learner_id": learner_id}
        stored = {**key._asdict(), **answer, "stored_at": now}
        rows.append([stored[name] for name in names])
    if rows:
        sql.keep_answers.send(connection, **sql.answers(rows))


def forget(connection: Connection, user_id: str) -> None:
    """Delete the answers to a user, and those that name that user."""
    connection.execute(delete(StoredAnswer).where(about(connection, user_id)))


def about(connection: Connection, user_id: str) -> ColumnElement[bool]:
    """Select the answers to a user and those that name the user; answers that may name several users are searched."""
    find = func.pg_catalog.position if connection.dialect.name == "postgresql" else func.instr
    names_them = and_(StoredAnswer.learner_id.is_(None), find(StoredAnswer.body, encode(user_id)) > 0)
    return or_(StoredAnswer.caller_id == user_id, StoredAnswer.learner_id == user_id, names_them)
