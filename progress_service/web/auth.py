"""The caller of a request, and the rights of each role: a policy for each row of the contract's table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Flag, StrEnum, auto
from hashlib import sha256
from time import time
from typing import Any, NamedTuple

from flask import Flask, current_app, request
from flask_jwt_extended import JWTManager, create_access_token, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt import ExpiredSignatureError, PyJWTError
from sqlalchemy import Connection, bindparam, select

from progress_service.config import ConfigurationError
from progress_service.store.direct import DirectStatement
from progress_service.store.models import ModuleInstructor
from progress_service.web import keys
from progress_service.web.problems import FORBIDDEN, UNAUTHORIZED, Problem
from progress_service.web.validation import is_user_id

jwt = JWTManager()

MOST_VERIFIED = 8192
"""How many accepted tokens a worker remembers, in 3 to 6 MB. When there are so many, it forgets them all."""


class Role(StrEnum):
    """A caller's role. If a token has several, the strongest counts: the last in this list."""

    STUDENT = "student"
    INSTRUCTOR = "instructor"
    AUDITOR = "auditor"
    SERVICE = "service"
    ADMIN = "admin"


class Reach(Flag):
    """Whose data a role may read or change in an operation."""

    NONE = 0
    OWN = auto()
    TAUGHT = auto()
    ANY = auto()


NONE, OWN, TAUGHT, ANY = Reach.NONE, Reach.OWN, Reach.TAUGHT, Reach.ANY


class Policy(NamedTuple):
    """How far each role reaches in an operation."""

    student: Reach
    instructor: Reach
    auditor: Reach
    admin: Reach
    service: Reach


READ_DASHBOARD = Policy(student=OWN, instructor=OWN, auditor=ANY, admin=ANY, service=ANY)
READ_LEARNER_MODULE = Policy(student=OWN, instructor=OWN | TAUGHT, auditor=ANY, admin=ANY, service=ANY)
SEND_UPDATES = Policy(student=OWN, instructor=OWN, auditor=NONE, admin=ANY, service=ANY)
READ_STATISTICS = Policy(student=NONE, instructor=TAUGHT, auditor=ANY, admin=ANY, service=ANY)
READ_CATALOG = Policy(student=NONE, instructor=TAUGHT, auditor=ANY, admin=ANY, service=ANY)
WRITE_CATALOG = Policy(student=NONE, instructor=NONE, auditor=NONE, admin=ANY, service=ANY)
ERASE = Policy(student=NONE, instructor=NONE, auditor=NONE, admin=ANY, service=ANY)
READ_CHANGES = Policy(student=NONE, instructor=NONE, auditor=ANY, admin=ANY, service=ANY)
READ_WEBHOOKS = Policy(student=NONE, instructor=NONE, auditor=ANY, admin=ANY, service=ANY)
WRITE_WEBHOOKS = Policy(student=NONE, instructor=NONE, auditor=NONE, admin=ANY, service=ANY)
CORRECT = Policy(student=NONE, instructor=NONE, auditor=NONE, admin=ANY, service=ANY)


TAUGHT_BY = DirectStatement(
    select(ModuleInstructor.module_id).where(
        ModuleInstructor.module_id == bindparam("module_id"), ModuleInstructor.user_id == bindparam("user_id")
    )
)


class Caller(NamedTuple):
    """The caller that a token names."""

    id: str
    role: Role

    @property
    def may_date(self) -> bool:
        """Only admins and services may send `occurredAt`."""
        return self.role in (Role.ADMIN, Role.SERVICE)


class Verified(NamedTuple):
    """The caller of a token that was accepted, the version of the keys that verified it, and when it is valid.

    The times are in seconds since 1970, leeway included: the token is valid from `begin` until before `end`.
    """

    caller: Caller
    version: object
    begin: int
    end: int


def identify() -> Caller:
    """Return the caller. Raises 401 without a valid token, and 403 for an unknown role or an impossible subject.

    401 has a challenge (RFC 6750). A token that was accepted is not verified again while the keys stay the same and its
    time has not run out. What is refused is verified each time.
    """
    token = _sent_token()
    verified: dict[bytes, Verified] = current_app.extensions["verified-tokens"]
    # The version is read first: if the keys change while the token is verified, its next use verifies it again.
    digest, version = sha256(token.encode()).digest(), current_app.extensions["token-keys"].version
    found = verified.get(digest)
    if found and found.version is version and found.begin <= time() < found.end:
        return found.caller
    try:
        claims = decode_token(token)
    except ExpiredSignatureError as error:
        raise _invalid_token("The token has expired.") from error
    except (PyJWTError, JWTExtendedException) as error:
        raise _invalid_token("The token is not valid.") from error
    caller = _caller(claims)
    leeway = current_app.config["JWT_DECODE_LEEWAY"]
    begin = max(int(claims.get(name, 0)) for name in ("nbf", "iat"))  # PyJWT refuses tokens that were issued later
    # Threads need no lock, since each step is atomic.
    if len(verified) >= MOST_VERIFIED:
        verified.clear()
    verified[digest] = Verified(caller, version, begin - leeway, int(claims["exp"]) + leeway)
    return caller


def _sent_token() -> str:
    """Return the token of the request. Raises 401 if there is none."""
    # Werkzeug would parse other schemes too, and fails at some of their values.
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthorized("This request needs a token.", "Bearer")
    return credentials.strip()


def _caller(claims: Mapping[str, Any]) -> Caller:
    """Return the caller whom claims name. Raises 401 and 403."""
    # PyJWT and Flask-JWT-Extended accept refresh tokens, and tokens without an expiry or with a string for it.
    is_for_access = isinstance(claims["type"], str) and claims["type"] != "refresh"
    if not isinstance(claims.get("exp"), int | float) or not is_for_access:
        raise _invalid_token("The token has no expiry, or is not an access token.")
    user_id = _claim(claims, current_app.config["USER_CLAIM"])
    if not isinstance(user_id, str):
        raise _invalid_token("The token does not name the caller.")
    role = _strongest_role(claims)
    if role is None:
        raise Problem(FORBIDDEN, "The token names no role that this service knows.")
    if not is_user_id(user_id):
        raise Problem(FORBIDDEN, "The name of the caller in the token is not an identifier of a user.")
    return Caller(user_id, role)


def _strongest_role(claims: Mapping[str, Any]) -> Role | None:
    """Return the strongest role that a token names, in a list or in a string with spaces."""
    given = _claim(claims, current_app.config["ROLE_CLAIM"])
    names: Mapping[str, Role] = current_app.extensions["role-names"]
    if isinstance(given, str):
        given = [given] if given in names else given.split(" ")
    named = [names.get(name, name) for name in given if isinstance(name, str)] if isinstance(given, list) else []
    return next((role for role in reversed(Role) if role in named), None)


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """Return the claim with a name, or at a path such as `realm_access.roles`; None if there is none."""
    return next(_reachable(claims, path.split(".")), None)


def _reachable(value: Any, steps: Sequence[str]) -> Iterator[Any]:
    """Yield the values at the end of a path; a name may contain dots, and the value under the longest name is first."""
    if not steps:
        yield value
    elif isinstance(value, dict):
        for count in range(len(steps), 0, -1):
            name = ".".join(steps[:count])
            if name in value:
                yield from _reachable(value[name], steps[count:])


def admit(caller: Caller, policy: Policy) -> Reach:
    """Return the reach of the caller's role. Raises 403 for a role that may not use the operation at all."""
    reach: Reach = getattr(policy, caller.role)
    if not reach:
        raise Problem(FORBIDDEN, f"The role {caller.role} may not do this.")
    return reach


def authorize(connection: Connection, caller: Caller, reach: Reach, *, learner: str | None, module: str | None) -> None:
    """Raise 403 for data beyond the caller's reach: of another learner, or of a module that others teach."""
    if ANY in reach or (OWN in reach and learner == caller.id):
        return
    if TAUGHT in reach and module is not None and TAUGHT_BY.run(connection, user_id=caller.id, module_id=module):
        return
    raise Problem(FORBIDDEN, "You may not see or change this.")


def issue(caller: Caller, lifetime: timedelta) -> str:
    """Return a token of a caller, signed with the configured secret."""
    config, names = current_app.config, current_app.extensions["role-names"]
    role = next((name for name, meant in names.items() if meant is caller.role), caller.role.value)
    claims = {config["USER_CLAIM"]: caller.id, config["ROLE_CLAIM"]: role}
    token: str = create_access_token(caller.id, additional_claims=claims, expires_delta=lifetime)
    return token


def register(app: Flask) -> None:
    """Bind token verification to an application."""
    jwt.init_app(app)
    app.extensions["token-keys"] = keys.configured(app.config)
    app.extensions["verified-tokens"] = dict[bytes, Verified]()
    app.extensions["role-names"] = _role_names(app.config["ROLE_NAMES"])
    unchecked = [name for name in ("JWT_DECODE_ISSUER", "JWT_DECODE_AUDIENCE") if not app.config[name]]
    if unchecked and not app.config["JWT_SECRET_KEY"]:
        names = " and ".join(f"PROGRESS_{name}" for name in unchecked)
        app.logger.warning("tokens of every issuer, or for every audience, are accepted: set %s", names)


def _role_names(written: str) -> dict[str, Role]:
    """Parse the roles that an identity provider's names stand for."""
    try:
        pairs = json.loads(written, object_pairs_hook=tuple)
        names = {name: Role(role) for name, role in pairs}
        if not isinstance(pairs, tuple) or len(names) < len(pairs):
            raise ValueError("not an object, or a repeated name")
    except (ValueError, TypeError) as error:
        detail = f"PROGRESS_ROLE_NAMES must be a JSON object of names, each with one of {', '.join(Role)}."
        raise ConfigurationError(detail) from error
    return names


@jwt.decode_key_loader
def _key(header: Mapping[str, Any], _claims: Mapping[str, Any]) -> Any:
    return current_app.extensions["token-keys"].find(header.get("kid"), _sent_token())


def _invalid_token(detail: str) -> Problem:
    return _unauthorized(detail, f'Bearer error="invalid_token", error_description="{detail}"')


def _unauthorized(detail: str, challenge: str) -> Problem:
    return Problem(UNAUTHORIZED, detail, headers={"WWW-Authenticate": challenge})
