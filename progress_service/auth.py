"""Who is calling, and what each role may do: the contract's table, a policy for each of its rows."""

from collections.abc import Mapping
from enum import Flag, StrEnum, auto
from typing import Any, NamedTuple

from flask import Flask, current_app, request
from flask_jwt_extended import decode_token
from sqlalchemy import Connection, bindparam, select

from progress_service import keys
from progress_service.errors import Problem, forbidden, render
from progress_service.extensions import jwt
from progress_service.models import ModuleInstructor
from progress_service.prepared import Prepared
from progress_service.validation import is_user_id


class Role(StrEnum):
    """Who somebody is to the platform; of several, the last of these counts."""

    STUDENT = "student"
    INSTRUCTOR = "instructor"
    SERVICE = "service"
    ADMIN = "admin"


class Reach(Flag):
    """Whose data a role may touch in an operation."""

    NONE = 0
    OWN = auto()
    TAUGHT = auto()
    ANY = auto()


NONE, OWN, TAUGHT, ANY = Reach.NONE, Reach.OWN, Reach.TAUGHT, Reach.ANY


class Policy(NamedTuple):
    """How far each role reaches in an operation."""

    student: Reach
    instructor: Reach
    admin: Reach
    service: Reach


READ_DASHBOARD = Policy(student=OWN, instructor=OWN, admin=ANY, service=ANY)
READ_LEARNER_MODULE = Policy(student=OWN, instructor=OWN | TAUGHT, admin=ANY, service=ANY)
SEND_UPDATES = Policy(student=OWN, instructor=OWN, admin=ANY, service=ANY)
READ_STATISTICS = Policy(student=NONE, instructor=TAUGHT, admin=ANY, service=ANY)
READ_CATALOG = Policy(student=NONE, instructor=TAUGHT, admin=ANY, service=ANY)
WRITE_CATALOG = Policy(student=NONE, instructor=NONE, admin=ANY, service=ANY)
ERASE = Policy(student=NONE, instructor=NONE, admin=ANY, service=ANY)


TAUGHT_BY = Prepared(
    select(ModuleInstructor.module_id).where(
        ModuleInstructor.module_id == bindparam("module_id"), ModuleInstructor.user_id == bindparam("user_id")
    )
)


class Caller(NamedTuple):
    """Who is calling, by the token alone."""

    id: str
    role: Role

    @property
    def may_date(self) -> bool:
        """Only those who report for others know when something happened."""
        return self.role in (Role.ADMIN, Role.SERVICE)


def identify() -> Caller:
    """Return who is calling; 401 without a valid token, 403 for a subject or a role that this service does not know."""
    # Werkzeug would parse other schemes too, and fails at some of what may stand there.
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthorized("This needs a token.", "Bearer")
    claims = decode_token(credentials.strip())
    # What PyJWT and Flask-JWT-Extended let pass: no expiry, or one in quotes, and a token to get others with.
    is_for_access = isinstance(claims["type"], str) and claims["type"] != "refresh"
    if not isinstance(claims.get("exp"), int | float) or not is_for_access:
        raise _invalid_token("The token has no expiry, or is not for access.")
    role = _strongest_role(claims)
    if role is None:
        raise forbidden("The token's role has no rights here.")
    if not is_user_id(claims["sub"]):
        raise forbidden("The token's subject is not an identifier of a user.")
    return Caller(claims["sub"], role)


def _strongest_role(claims: Mapping[str, Any]) -> Role | None:
    """Return the role that the token gives, by the name of its claim, or by a path such as `realm_access.roles`."""
    name = current_app.config["ROLE_CLAIM"]
    given: Any = claims
    for key in [name] if name in claims else name.split("."):
        given = given.get(key) if isinstance(given, dict) else None
    held = [role for role in Role if role in (given if isinstance(given, list) else [given])]
    return held[-1] if held else None


def admit(caller: Caller, policy: Policy) -> Reach:
    """Return how far the caller reaches; 403 where the role has no part in the operation."""
    reach: Reach = getattr(policy, caller.role)
    if not reach:
        raise forbidden(f"The role {caller.role} may not do this.")
    return reach


def authorize(
    connection: Connection, caller: Caller, reach: Reach, *, learner: str | None, module: str | None = None
) -> None:
    """Refuse with 403 what is out of the caller's reach: another learner's data, a module that they do not teach."""
    if ANY in reach or (OWN in reach and learner == caller.id):
        return
    if TAUGHT in reach and module is not None and teaches(connection, caller, module):
        return
    raise forbidden("This is not yours to see or change.")


def teaches(connection: Connection, caller: Caller, module: str) -> bool:
    return bool(TAUGHT_BY.run(connection, user_id=caller.id, module_id=module))


def register(app: Flask) -> None:
    """Bind token verification to an application: every way to a bad token is 401 with a challenge (RFC 6750)."""
    jwt.init_app(app)
    app.extensions["token-keys"] = keys.finder(app.config)
    unchecked = [name for name in ("JWT_DECODE_ISSUER", "JWT_DECODE_AUDIENCE") if not app.config[name]]
    if unchecked and not app.config["JWT_SECRET_KEY"]:
        names = " and ".join(f"PROGRESS_{name}" for name in unchecked)
        app.logger.warning("tokens are accepted whoever issued them, or for whom: give %s", names)


@jwt.decode_key_loader
def _key(header: Mapping[str, Any], _claims: Mapping[str, Any]) -> Any:
    return current_app.extensions["token-keys"](header.get("kid"))


@jwt.invalid_token_loader
def _bad_token(_: str) -> Any:
    return render(_invalid_token("The token is not valid."))


@jwt.expired_token_loader
def _expired_token(_header: Mapping[str, Any], _claims: Mapping[str, Any]) -> Any:
    return render(_invalid_token("The token has expired."))


def _invalid_token(detail: str) -> Problem:
    return _unauthorized(detail, f'Bearer error="invalid_token", error_description="{detail}"')


def _unauthorized(detail: str, challenge: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})
