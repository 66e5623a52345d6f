"""Who may do what, on every route; and in which order a request is refused."""

import zlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from flask import Flask

from progress_service.progress.schemas import DashboardQuery
from progress_service.web.auth import READ_DASHBOARD, Role
from progress_service.web.endpoint import NOTHING, Answer, Blueprint, Call, answers, requires_token, takes_query
from tests.callers import KEY, Caller, bearing, handmade, token
from tests.conftest import Callers, Publish, Statements, stored

OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/<path:filename>"}
"""The routes that need no token."""

CALLERS: dict[str, dict[str, str]] = {
    "own student": {"sub": "lea", "role": "student"},
    "other student": {"sub": "sam", "role": "student"},
    "own instructor": {"sub": "lea", "role": "instructor"},
    "teaching": {"sub": "ines", "role": "instructor"},
    "not teaching": {"sub": "otto", "role": "instructor"},
    "unknown role": {"sub": "lea", "role": "teacher"},
    "no role": {"sub": "lea"},
    "auditor": {"sub": "aud", "role": "auditor"},
    "own auditor": {"sub": "lea", "role": "auditor"},
    "admin": {"sub": "ada", "role": "admin"},
    "service": {"sub": "lms", "role": "service"},
}
"""Those who call: lea is the learner whom the requests are about, in a module that ines teaches and otto does not."""

UPDATE = {"userId": "lea", "contentId": "sets", "timeSpentSeconds": 1}
OWN_UPDATE = {"contentId": "sets", "timeSpentSeconds": 1}
MODULE = {"title": "Algebra", "instructorIds": ["ines"], "contents": [{"id": "sets", "title": "S", "type": "lab"}]}
RECORD = "/api/progress/{record}/complete"
CORRECTED = "/api/progress/{record}"
LESSON = "/api/progress/lea/algebra/sets"
TIMELINE = "/api/progress/stats/algebra/timeline?from=2026-01-01&to=2026-01-31"
ALGEBRA = "/api/catalog/modules/algebra"
HOOK, HOOK_URL = "/api/webhooks/certificates", "https://hooks.example.org/progress"

ROUTES: list[tuple[str, str, Any, str]] = [
    # student: own, other; instructor: own, teaching, not teaching; unknown role, no role; auditor: not own, own;
    # admin, service
    ("POST", "/api/progress", UPDATE, "                     200 403   200 403 403   403 403   403 403   200 200"),
    ("POST", "/api/progress", OWN_UPDATE, "                 200 201   200 201 201   403 403   403 403   201 422"),
    ("POST", "/api/progress/batch", {"updates": [UPDATE]}, "200 403   200 403 403   403 403   403 403   200 200"),
    ("PUT", RECORD, {}, "                                   200 404   200 404 404   403 403   403 403   200 200"),
    ("GET", "/api/progress/lea", None, "                    200 403   200 403 403   403 403   200 200   200 200"),
    ("GET", "/api/progress/me", None, "                     200 200   200 200 200   403 403   200 200   200 200"),
    ("GET", "/api/progress/lea/export", None, "             200 403   200 403 403   403 403   200 200   200 200"),
    ("GET", "/api/progress/me/export", None, "              200 200   200 200 200   403 403   200 200   200 200"),
    ("GET", "/api/progress/lea/algebra", None, "            200 403   200 200 403   403 403   200 200   200 200"),
    ("GET", "/api/progress/me/algebra", None, "             200 200   200 200 200   403 403   200 200   200 200"),
    ("GET", "/api/progress/lea/algebra/history", None, "    200 403   200 200 403   403 403   200 200   200 200"),
    ("GET", "/api/progress/me/algebra/history", None, "     200 200   200 200 200   403 403   200 200   200 200"),
    ("GET", "/api/changes", None, "                         403 403   403 403 403   403 403   200 200   200 200"),
    ("GET", "/api/webhooks", None, "                        403 403   403 403 403   403 403   200 200   200 200"),
    ("GET", HOOK, None, "                                   403 403   403 403 403   403 403   200 200   200 200"),
    ("PUT", HOOK, {"url": HOOK_URL}, "                      403 403   403 403 403   403 403   403 403   200 200"),
    ("POST", f"{HOOK}/secret", None, "                      403 403   403 403 403   403 403   403 403   200 200"),
    ("DELETE", HOOK, None, "                                403 403   403 403 403   403 403   403 403   204 204"),
    ("DELETE", "/api/progress/lea/algebra", None, "         403 403   403 403 403   403 403   403 403   204 204"),
    ("DELETE", "/api/progress/lea", None, "                 403 403   403 403 403   403 403   403 403   204 204"),
    ("PATCH", CORRECTED, {"position": "1"}, "403 403   403 403 403   403 403   403 403   200 200"),
    ("DELETE", LESSON, None, "                              403 403   403 403 403   403 403   403 403   204 204"),
    ("PUT", f"{LESSON}/excuse", None, "                     403 403   403 403 403   403 403   403 403   200 200"),
    ("DELETE", f"{LESSON}/excuse", None, "                  403 403   403 403 403   403 403   403 403   204 204"),
    ("POST", "/api/progress/lea/merge", {"into": "sam"}, "  403 403   403 403 403   403 403   403 403   204 204"),
    ("GET", "/api/progress/stats", None, "                  403 403   200 200 200   403 403   200 200   200 200"),
    ("GET", "/api/progress/stats/algebra", None, "          403 403   403 200 403   403 403   200 200   200 200"),
    ("GET", "/api/progress/stats/algebra/learners", None, " 403 403   403 200 403   403 403   200 200   200 200"),
    ("GET", "/api/progress/stats/algebra/learners.csv", None, " 403 403   403 200 403   403 403   200 200   200 200"),
    ("GET", "/api/progress/stats/algebra/report", None, "   403 403   403 200 403   403 403   200 200   200 200"),
    ("GET", "/api/progress/stats/algebra/matrix", None, "   403 403   403 200 403   403 403   200 200   200 200"),
    ("GET", "/api/progress/stats/algebra/matrix.csv", None, " 403 403   403 200 403   403 403   200 200   200 200"),
    ("GET", TIMELINE, None, "                               403 403   403 200 403   403 403   200 200   200 200"),
    ("GET", "/api/catalog/modules", None, "                 403 403   200 200 200   403 403   200 200   200 200"),
    ("GET", ALGEBRA, None, "                                403 403   403 200 403   403 403   200 200   200 200"),
    ("PUT", ALGEBRA, MODULE, "                              403 403   403 403 403   403 403   403 403   200 200"),
    ("GET", "/api/enrollments/lea/algebra", None, "         200 403   200 200 403   403 403   200 200   200 200"),
    ("PUT", "/api/enrollments/lea/algebra", {}, "           403 403   403 403 403   403 403   403 403   200 200"),
    ("DELETE", "/api/enrollments/lea/algebra", None, "      403 403   403 403 403   403 403   403 403   204 204"),
]


def signed(claims: dict[str, Any], key: str = KEY, algorithm: str = "HS256") -> str:
    """Return a token of exactly these claims and an expiry, which None leaves out."""
    claims = {"exp": datetime.now(UTC) + timedelta(days=1)} | claims
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm=algorithm)


def assert_unauthorized(response: Any, why: str) -> None:
    assert (response.status_code, response.content_type) == (401, "application/problem+json"), why
    assert response.get_json()["type"].endswith("unauthorized"), why
    (challenge,) = response.headers.getlist("WWW-Authenticate")
    assert challenge.startswith("Bearer"), why


@pytest.fixture
def record(publish: Publish, service: Callers) -> str:
    """Return the id of a record of lea's, in algebra; there is somebody else, another module and a webhook too."""
    assert service().put(HOOK, json={"url": HOOK_URL}).status_code == 201
    publish("algebra", [{"id": "sets", "weight": 2}, "maps"], instructor_ids=["ines"])
    publish("biology", ["cells"], instructor_ids=["otto"])
    updates = [{"userId": user_id, "contentId": "cells"} for user_id in ("lea", "ines")]
    assert service().post("/api/progress/batch", json={"updates": updates}).status_code == 200
    response = service().post("/api/progress", json={"userId": "lea", "contentId": "sets"})
    return str(response.get_json()["progress"]["id"])


@pytest.mark.parametrize(("method", "path", "body", "statuses"), ROUTES, ids=[f"{row[0]} {row[1]}" for row in ROUTES])
def test_each_caller_may_do_what_the_contract_says_and_no_more(
    method: str, path: str, body: Any, statuses: str, app: Flask, record: str
) -> None:
    answers = {}
    for name, claims in CALLERS.items():
        before = stored(app)
        response = bearing(app, f"Bearer {signed(claims)}").call(method, path.format(record=record), json=body)
        answers[name] = response.status_code
        if response.status_code >= 400:
            assert stored(app) == before, name

    assert answers == dict(zip(CALLERS, map(int, statuses.split()), strict=True))


def test_a_view_that_declares_no_policy_becomes_no_route() -> None:
    with pytest.raises(
        TypeError, match=r"read_notes declares no policy: put @requires_token\(…\) or @open_to_all under"
    ):

        @Blueprint("notes", __name__).get("/notes")  # type: ignore[type-var]  # the type checker refuses it, too
        @answers(None, 204)
        def read_notes(call: Call) -> Answer:
            return NOTHING


def test_nothing_is_declared_above_the_guard_which_would_not_know_it() -> None:
    with pytest.raises(TypeError, match="read_notes is guarded already"):

        @takes_query(DashboardQuery())
        @requires_token(READ_DASHBOARD)
        @answers(None, 204)
        def read_notes(call: Call) -> Answer:
            return NOTHING


def test_every_route_is_in_the_table_or_open_on_purpose(app: Flask) -> None:
    routes = {(rule.rule, method) for rule in app.url_map.iter_rules() for method in rule.methods or ()}
    routes = {(rule, method) for rule, method in routes if rule not in OPEN and method not in {"HEAD", "OPTIONS"}}
    urls = app.url_map.bind("localhost")

    called = {(method, path.partition("?")[0]) for method, path, *_ in ROUTES}
    assert {(urls.match(path, method, return_rule=True)[0].rule, method) for method, path in called} == routes


def test_every_role_is_among_the_callers_of_the_table() -> None:
    assert {claims.get("role") for claims in CALLERS.values()} >= set(Role)


def test_without_a_token_every_method_of_every_route_is_unauthorized(
    anonymous: Caller, app: Flask, record: str
) -> None:
    guarded = [rule for rule in app.url_map.iter_rules() if rule.rule not in OPEN]
    before = stored(app)

    for rule in guarded:
        urls = app.url_map.bind("localhost")
        path = urls.build(rule.endpoint, dict.fromkeys(rule.arguments, "lea"))
        for method in rule.methods or ():
            response = anonymous.call(method, path)
            assert response.status_code == 401, (method, path)
            assert response.headers.getlist("WWW-Authenticate") == ["Bearer"], (method, path)
    assert stored(app) == before


@pytest.mark.parametrize("path", sorted(OPEN))
def test_an_open_route_asks_for_no_token_and_minds_no_bad_one(path: str, anonymous: Caller, app: Flask) -> None:
    path = path.replace("<path:filename>", "swagger-ui.css")
    assert anonymous.get(path).status_code == 200
    assert bearing(app, "Bearer nonsense").get(path).status_code == 200


VALID = {"sub": "lea", "role": "admin"}
NOW, DAY = datetime.now(UTC), timedelta(days=1)  # longer than all tests together
EXP = int((NOW + DAY).timestamp())
BAD_TOKENS = {
    "expired": signed(VALID | {"exp": NOW - DAY}),
    "wrong key": signed(VALID, key=KEY[::-1]),
    "another algorithm": signed(VALID, algorithm="HS384"),
    "no algorithm": signed(VALID, key="", algorithm="none"),
    "signature cut off": signed(VALID).rpartition(".")[0] + ".",
    "no expiry": signed(VALID | {"exp": None}),
    "an expiry that is no time": handmade(VALID | {"exp": "tomorrow"}),
    "an expiry in quotes": handmade(VALID | {"exp": "9999999999"}),
    "an expiry that is a list": handmade(VALID | {"exp": [9_999_999_999]}),
    "an expiry that is a boolean": handmade(VALID | {"exp": True}),
    "an expiry that is null": handmade(VALID | {"exp": None}),
    "an expiry that is no number": handmade(VALID | {"exp": float("nan")}),
    "an expiry without end": handmade(VALID | {"exp": float("inf")}),
    "an expiry before all time": handmade(VALID | {"exp": -1e300}),
    "an expiry of too many digits": handmade(b'{"sub": "lea", "role": "admin", "exp": %s}' % (b"9" * 5000)),
    "an expiry, and then another": handmade(b'{"sub": "lea", "role": "admin", "exp": 9999999999, "exp": 1}'),
    "not valid yet": signed(VALID | {"nbf": NOW + DAY}),
    "issued in the future": signed(VALID | {"iat": NOW + DAY}),
    "times that are lists": handmade(VALID | {"exp": EXP, "iat": [], "nbf": []}),
    "a refresh token": signed(VALID | {"type": "refresh"}),
    "a type that is a list": signed(VALID | {"type": ["refresh"]}),
    "a type that is a number": signed(VALID | {"type": 1}),
    "a type that is null": handmade(VALID | {"exp": EXP, "type": None}),
    "no subject": signed({"role": "admin"}),
    "a subject that is null": handmade(VALID | {"exp": EXP, "sub": None}),
    "a subject that is a number": handmade(VALID | {"exp": EXP, "sub": 7}),
    "a subject that is a boolean": handmade(VALID | {"exp": EXP, "sub": True}),
    "a subject that is a list": handmade(VALID | {"exp": EXP, "sub": ["lea"]}),
    "a subject that is an object": handmade(VALID | {"exp": EXP, "sub": {"id": "lea"}}),
    "an id that is a number": handmade(VALID | {"exp": EXP, "jti": 7}),
    "claims that are a list": handmade([VALID]),
    "claims that are a string": handmade("lea"),
    "claims that are null": handmade(None),
    "claims that are not JSON": handmade(b"{'sub': 'lea'}"),
    "claims that are not UTF-8": handmade(b'{"sub": "\xff"}'),
    "claims that are too deep": handmade(b"[" * 100_000),
    "a header that is a list": handmade(VALID | {"exp": EXP}, ["HS256"]),
    "a header that is a string": handmade(VALID | {"exp": EXP}, "HS256"),
    "an extension that must be known": handmade(VALID | {"exp": EXP}, {"crit": ["exp"], "exp": 1}),
    "nothing that must be known": handmade(VALID | {"exp": EXP}, {"crit": []}),
    "claims that are elsewhere": handmade(VALID | {"exp": EXP}, {"crit": ["b64"], "b64": False}),
    "compressed": handmade(zlib.compress(b"{}"), {"zip": "DEF"}),
    "an algorithm that is null": handmade(VALID | {"exp": EXP}, {"alg": None}),
    "an algorithm that is a list": handmade(VALID | {"exp": EXP}, {"alg": ["HS256"]}),
    "an algorithm in small letters": handmade(VALID | {"exp": EXP}, {"alg": "hs256"}),
    "a key id that is a number": handmade(VALID | {"exp": EXP}, {"kid": 7}),
    "a key id that is null": handmade(VALID | {"exp": EXP}, {"kid": None}),
    "a key id that is a list": handmade(VALID | {"exp": EXP}, {"kid": ["1"]}),
    "encrypted": ".".join([signed(VALID), "dGFn", "dGFn"]),
    "half a token": signed(VALID).rpartition(".")[0],
    "a longer signature": signed(VALID) + "AAAA",
    "other claims": ".".join([signed(VALID).split(".")[0], *signed(VALID | {"sub": "sam"}, KEY[::-1]).split(".")[1:]]),
    "large": "a" * 300_000,
    "large claims of another key": handmade({"sub": "l" * 300_000}, key="x"),
    "a parameter": "token=lea",
    "garbage": "garbage",
    "dots": "..",
    "not base64": "é.é.é",
    "not even Latin": "\u00ff\u0080.\u00ff",
    "two tokens": f"{signed(VALID)} {signed(VALID)}",
    "none": "",
}


def test_a_bad_token_is_unauthorized_and_the_challenge_says_so(app: Flask, record: str) -> None:
    before = stored(app)

    for name, bad in BAD_TOKENS.items():
        for method in ("GET", "DELETE"):
            response = bearing(app, f"Bearer {bad}").call(method, "/api/progress/lea")
            assert_unauthorized(response, name)
            assert 'error="invalid_token"' in response.headers["WWW-Authenticate"], name
    assert stored(app) == before


@pytest.mark.parametrize(
    "credentials",
    [
        "{}",
        "Token {}",
        "Basic bGVhOmxlYQ==",
        "Basic \xff",
        "Basic l\xe9a:{}",
        "Digest \xff",
        "",
        ",",
        "Bearer,,{}",
        "x,,{}",
    ],
)
def test_what_is_no_bearer_token_is_unauthorized(credentials: str, app: Flask) -> None:
    response = bearing(app, credentials.format(token("lea", "admin"))).get("/api/progress/lea")

    assert_unauthorized(response, credentials)
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("credentials", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {} "])
def test_the_scheme_of_a_token_may_be_written_in_any_case(credentials: str, app: Flask) -> None:
    assert bearing(app, credentials.format(token("lea", "admin"))).get("/api/progress/lea").status_code == 200


def test_a_subject_that_nobody_can_have_is_forbidden(app: Flask, record: str) -> None:
    subjects = ["", ".lea", "'lea", "l e a", "léa", "lea\n", "x" * 256, "me", "stats", "batch", "events"]
    before = stored(app)

    for caller in [bearing(app, f"Bearer {token(sub, role)}") for sub in subjects for role in ("student", "service")]:
        responses = caller.get("/api/progress/me"), caller.post("/api/progress", json=UPDATE)
        assert [response.status_code for response in responses] == [403, 403], caller.headers
    assert stored(app) == before


@pytest.mark.parametrize(
    "role", ["", "ADMIN", "admin\t", "admin,student", "*", 1, True, [], [["admin"]], ["admins", 1, None], {"admin": 1}]
)
def test_a_role_that_the_service_does_not_know_has_no_rights(role: Any, app: Flask) -> None:
    response = bearing(app, f"Bearer {signed({'sub': 'lea', 'role': role})}").get("/api/progress/me")

    assert response.status_code == 403
    assert response.get_json()["type"].endswith("forbidden")


BROKEN = {"data": "{", "content_type": "application/json"}
TOO_LARGE = {"data": b" " * (1024 * 1024 + 1), "content_type": "application/json"}
NO_JSON = {"data": "{}", "content_type": "text/plain"}
DATED = {"occurredAt": "2026-01-01T00:00:00Z"}
STUDENT, ADMIN = token("sam", "student"), token("ada", "admin")
BATCH = {"updates": [{**UPDATE, "contentId": "unheard-of"}, {**UPDATE, "score": 2, "maxScore": 1}]}

ORDER: list[tuple[str, str, str, dict[str, Any], int, str]] = [
    # The token comes first,
    ("", "PUT", ALGEBRA, BROKEN, 401, "unauthorized"),
    ("garbage", "POST", "/api/progress?x=1", NO_JSON, 401, "unauthorized"),
    (BAD_TOKENS["expired"], "POST", "/api/progress", TOO_LARGE, 401, "unauthorized"),
    (signed({"role": "nobody"}), "POST", "/api/progress", {"json": []}, 401, "unauthorized"),
    # then the role,
    (STUDENT, "PUT", ALGEBRA, BROKEN, 403, "forbidden"),
    (STUDENT, "PUT", ALGEBRA, NO_JSON, 403, "forbidden"),
    (STUDENT, "PUT", ALGEBRA, TOO_LARGE, 403, "forbidden"),
    (STUDENT, "PUT", ALGEBRA, {"json": {}}, 403, "forbidden"),
    (STUDENT, "GET", "/api/progress/stats/unheard-of?x=1", {}, 403, "forbidden"),
    (token("ines", "instructor"), "PUT", "/api/enrollments/lea/unheard-of", {"json": {"status": 1}}, 403, "forbidden"),
    (STUDENT, "PATCH", CORRECTED, NO_JSON, 403, "forbidden"),
    (STUDENT, "POST", "/api/progress/lea/merge", {"json": {"into": "me"}}, 403, "forbidden"),
    (STUDENT, "DELETE", "/api/progress/lea/algebra/.", {}, 403, "forbidden"),
    (token("sam", "nobody"), "POST", "/api/progress", BROKEN, 403, "forbidden"),
    (token(".", "student"), "POST", "/api/progress", BROKEN, 403, "forbidden"),
    # then the shape of the request,
    (STUDENT, "POST", "/api/progress", BROKEN, 400, "malformed-request"),
    (STUDENT, "POST", "/api/progress", TOO_LARGE, 413, "payload-too-large"),
    (STUDENT, "POST", "/api/progress", NO_JSON, 415, "unsupported-media-type"),
    (STUDENT, "POST", "/api/progress", {"json": UPDATE | {"score": 1}}, 422, "validation-failed"),
    (STUDENT, "POST", "/api/progress", {"json": UPDATE | DATED | {"position": 1}}, 422, "validation-failed"),
    (STUDENT, "POST", "/api/progress/batch", {"json": BATCH}, 422, "validation-failed"),
    (STUDENT, "PUT", RECORD, {"json": {"score": 1}}, 422, "validation-failed"),
    (STUDENT, "PUT", RECORD, NO_JSON, 415, "unsupported-media-type"),
    (STUDENT, "GET", "/api/progress/lea?status=finished", {}, 400, "malformed-request"),
    (STUDENT, "GET", "/api/progress/lea/unheard-of?x=1", {}, 400, "malformed-request"),
    (token("otto", "instructor"), "GET", "/api/progress/stats/algebra?x=1", {}, 400, "malformed-request"),
    (ADMIN, "PUT", "/api/enrollments/lea/unheard-of", {"json": {"status": "finished"}}, 422, "validation-failed"),
    (ADMIN, "PATCH", "/api/progress/unheard-of", {"json": {}}, 422, "validation-failed"),
    (ADMIN, "POST", "/api/progress/lea/merge", {"json": {"into": "me"}}, 422, "validation-failed"),
    (ADMIN, "PUT", f"{LESSON}/excuse?x=1", {}, 400, "malformed-request"),
    # then whose data it is,
    (STUDENT, "POST", "/api/progress", {"json": UPDATE | {"contentId": "unheard-of"}}, 403, "forbidden"),
    (STUDENT, "POST", "/api/progress", {"json": {"contentId": "unheard-of"} | DATED}, 403, "forbidden"),
    (STUDENT, "GET", "/api/progress/lea/unheard-of", {}, 403, "forbidden"),
    (token("otto", "instructor"), "GET", "/api/progress/stats/unheard-of", {}, 403, "forbidden"),
    (STUDENT, "PUT", RECORD, {"json": {}}, 404, "not-found"),
    (
        ADMIN,
        "PUT",
        "/api/enrollments/lea/unheard-of",
        {"json": {"completedAt": "2026-01-01T00:00:00Z"}},
        404,
        "not-found",
    ),
    (ADMIN, "PATCH", "/api/progress/unheard-of", {"json": {"position": None}}, 404, "not-found"),
    (ADMIN, "PUT", "/api/progress/lea/algebra/cells/excuse", {}, 404, "not-found"),
    # and then its content.
    (STUDENT, "POST", "/api/progress", {"json": {"contentId": "unheard-of"}}, 422, "unknown-content"),
    (ADMIN, "PUT", RECORD, {"json": {}}, 409, "completion-criteria-not-met"),
    (ADMIN, "POST", "/api/progress/lea/merge", {"json": {"into": "lea"}}, 422, "validation-failed"),
    (
        ADMIN,
        "PUT",
        "/api/enrollments/lea/algebra",
        {"json": {"completedAt": DATED["occurredAt"]}},
        422,
        "validation-failed",
    ),
]


def test_of_several_refusals_the_first_in_order_is_given(app: Flask, publish: Publish, record: str) -> None:
    publish("algebra", [{"id": "sets", "passingScore": 50}], instructor_ids=["ines"])
    before = stored(app)

    answers, expected = {}, {}
    for place, (credentials, method, path, request, status, slug) in enumerate(ORDER):
        caller = bearing(app, f"Bearer {credentials}") if credentials else Caller(app)
        response = caller.call(method, path.format(record=record), **request)
        answers[place, method, path] = response.status_code, response.get_json()["type"].rpartition(":")[2]
        expected[place, method, path] = status, slug
        assert stored(app) == before, (place, method, path)

    assert answers == expected


def answer_of(caller: Caller, method: str, path: str, **request: Any) -> tuple[Any, ...]:
    """Return all of an answer but for what is its own: the request's id."""
    response = caller.call(method, path, **request)
    headers = sorted((name, value) for name, value in response.headers if name != "X-Request-ID")
    return response.status_code, response.get_json() | {"requestId": ""}, headers


@pytest.mark.parametrize("name", ["other student", "teaching", "not teaching"])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "key"}], ids=["without a key", "with a key"])
def test_nothing_tells_whether_another_learners_record_exists(
    name: str, headers: dict[str, str], app: Flask, record: str, statements: Statements
) -> None:
    caller = bearing(app, f"Bearer {signed(CALLERS[name])}")
    before = stored(app)

    answers, work = {}, {}
    for record_id in (record, record.upper(), str(UUID(int=7)), str(uuid4())):
        with statements() as work[record_id]:
            answers[record_id] = answer_of(caller, "PUT", RECORD.format(record=record_id), json={}, headers=headers)
    answers["malformed"] = answer_of(caller, "PUT", RECORD.format(record="lea"), json={}, headers=headers)

    assert [status for status, *_ in answers.values()] == [404] * 5
    assert len({repr(answer) for answer in answers.values()}) == 1
    assert len({tuple(sent) for sent in work.values()}) == 1, "the same work is done"
    assert stored(app) == before


@pytest.mark.parametrize("name", ["other student", "not teaching"])
def test_nothing_tells_whether_another_learner_or_a_module_exists(
    name: str, app: Flask, record: str, statements: Statements
) -> None:
    caller = bearing(app, f"Bearer {signed(CALLERS[name])}")

    for path in (
        "/api/progress/{}",
        "/api/progress/{}/export",
        "/api/progress/{}/algebra",
        "/api/enrollments/{}/algebra",
    ):
        answers, work = {}, {}
        for learner in ("lea", "nobody"):
            with statements() as work[learner]:
                answers[learner] = answer_of(caller, "GET", path.format(learner))
        assert answers["lea"] == answers["nobody"], path
        assert answers["lea"][0] == 403, path
        assert work["lea"] == work["nobody"], path
    for path in ("/api/progress/lea/{}", "/api/progress/stats/{}", "/api/catalog/modules/{}"):
        answers = {module: answer_of(caller, "GET", path.format(module)) for module in ("algebra", "alchemy")}
        assert answers["algebra"] == answers["alchemy"], path
        assert answers["algebra"][0] == 403, path
