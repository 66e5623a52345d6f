"""Tokens as identity providers issue them: where the role stands."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from tests.callers import KEY, bearing
from tests.conftest import application

MEMORY = "sqlite://"
ACCEPTED = 422
"""How a request that says nothing ends: it is looked at."""

ROLES = [
    ("role", {"role": "student"}, "student"),
    ("role", {"role": ["student"]}, "student"),
    ("role", {"role": ["student", "instructor"]}, "instructor"),
    ("role", {"role": ["service", "instructor", "student"]}, "service"),
    ("role", {"role": ["admin", "service"]}, "admin"),
    ("role", {"role": ["offline_access", None, 7, ["admin"], {"admin": 1}, "student"]}, "student"),
    ("role", {"role": "student admin"}, None),
    ("role", {"role": "admin,student"}, None),
    ("role", {"role": ["offline_access"]}, None),
    ("role", {"roles": ["admin"]}, None),
    ("roles", {"roles": ["admin"], "role": "student"}, "admin"),
    ("roles", {"role": "admin"}, None),
    ("https://example.org/role", {"https://example.org/role": "admin"}, "admin"),
    ("https://example.org/role", {"https://example": {"org/role": ["student"]}}, "student"),
    ("realm_access.roles", {"realm_access": {"roles": ["offline_access", "admin"]}}, "admin"),
    ("realm_access.roles", {"realm_access.roles": "student", "realm_access": {"roles": ["admin"]}}, "student"),
    ("realm_access.roles", {"realm_access": ["roles", "admin"]}, None),
    ("realm_access.roles", {"realm_access": "roles"}, None),
    ("realm_access.roles", {"realm_access": {"roles": {"admin": True}}}, None),
    ("realm_access.roles", {"realm_access": None}, None),
    ("realm_access.roles", {"role": "admin"}, None),
    ("", {"role": "admin", "": "student"}, "student"),
    (".", {"role": "admin"}, None),
]
STATUSES = {
    # An update, the catalog's modules and a module's publication, all of them wrong in the same way for everybody.
    None: [403, 403, 403],
    "student": [422, 403, 403],
    "instructor": [422, 400, 403],
    "service": [422, 400, 422],
    "admin": [422, 400, 422],
}


@pytest.mark.parametrize(("claim", "given", "role"), ROLES)
def test_the_role_is_the_strongest_that_the_claim_gives(
    claim: str, given: dict[str, Any], role: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGRESS_ROLE_CLAIM", claim)
    exp = datetime.now(UTC) + timedelta(hours=1)
    with application(MEMORY) as app:
        caller = bearing(app, f"Bearer {jwt.encode({'sub': 'kim', 'exp': exp} | given, KEY, 'HS256')}")
        responses = [
            caller.post("/api/progress", json={}),
            caller.get("/api/catalog/modules?unknown=1"),
            caller.put("/api/catalog/modules/algebra", json={}),
        ]

    assert [response.status_code for response in responses] == STATUSES[role]
    faults = responses[0].get_json().get("errors", [])
    # A service is nobody's learner: it has to say whose an update is.
    assert any(fault["pointer"] == "/userId" for fault in faults) == (role == "service")
