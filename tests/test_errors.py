"""Refusals and faults: one shape for all, and nothing of the inside in any."""

import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from werkzeug.exceptions import Gone, RequestEntityTooLarge
from werkzeug.test import create_environ
from werkzeug.wrappers import Response

from progress_service.analytics import queries as analytics_queries
from progress_service.catalog import queries as catalog_queries
from progress_service.store import recount
from progress_service.web import problems
from tests.callers import Caller
from tests.conftest import Callers, Publish, application, stored

MODULES, ALGEBRA = "/api/catalog/modules", "/api/catalog/modules/algebra"
JSON, PROBLEM = "application/json", "application/problem+json"
MEBIBYTE = 1024 * 1024


def assert_problem(response: Any, status: int, slug: str, request: Any = None) -> dict[str, Any]:
    """Check the one shape of a refusal or a fault, and return the document."""
    assert response.status_code == status, (request, response.text)
    assert response.content_type == PROBLEM
    problem: dict[str, Any] = response.get_json()
    assert set(problem) - {"errors"} == {"type", "title", "status", "detail", "requestId"}
    assert problem["type"].endswith(slug)
    assert problem["status"] == status
    assert problem["requestId"] == response.headers["X-Request-ID"]
    for name in ("type", "title", "detail", "requestId"):
        assert isinstance(problem[name], str), name
        assert problem[name], name
    for error in problem.get("errors", []):
        assert set(error) == {"pointer", "detail"}
        assert error["detail"]
        assert error["pointer"] == "" or error["pointer"].startswith("/")
    return problem


def publication(size: int) -> bytes:
    """Return a module as JSON of exactly so many bytes, of which the last are blank."""
    return b'{"title": "Algebra", "contents": []}'.ljust(size)


BROKEN_BODIES = [
    b"",
    b'{"title": ',
    b"{} {}",
    b'{"title": "Algebra",}',
    b"{'title': 'Algebra'}",
    b"{} // nothing",
    b'{"title": "Algebra", "contents": NaN}',
    b'{"title": "Algebra", "contents": -Infinity}',
    b'{"title": "\xff"}',
    '{"title": "Algebra"}'.encode("utf-16"),
    b"[" * 100_000,
    b"[]",
    b'"title"',
    b"1",
    b"null",
]


def test_a_body_that_is_no_json_object_is_malformed(service: Callers, app: Flask) -> None:
    for body in BROKEN_BODIES:
        for method, path in (("PUT", ALGEBRA), ("POST", "/api/progress"), ("POST", "/api/progress/batch")):
            assert_problem(service().call(method, path, data=body, content_type=JSON), 400, "malformed-request", body)
    assert not any(stored(app).values())


@pytest.mark.parametrize("number", ["1" * 5000, "1e999999999", "1e-999999999", "-0.0e1000000000000000000000"])
def test_a_number_beyond_measure_is_refused_as_any_other(number: str, service: Callers, app: Flask) -> None:
    contents = f'[{{"id": "sets", "title": "Sets", "type": "lab", "weight": {number}}}]'
    body = f'{{"title": "Algebra", "contents": {contents}}}'

    response = service().put(ALGEBRA, data=body, content_type=JSON)

    assert response.status_code in {400, 422}
    assert_problem(response, response.status_code, "malformed-request" if response.status_code == 400 else "failed")
    assert not any(stored(app).values())


QUERIES = [
    ("GET", "/api/progress/sam?nonsense=1"),
    ("GET", "/api/progress/sam?status=active&status=active"),
    ("GET", "/api/progress/sam?status=active&status=paused"),
    ("GET", "/api/progress/sam?status=finished"),
    ("GET", "/api/progress/sam?status="),
    ("GET", "/api/progress/sam?Status=active"),
    ("GET", "/api/progress/sam?%FF=%ED%A0%80"),
    ("GET", "/api/progress/sam/algebra?status=active"),
    ("GET", "/api/progress/stats/algebra?limit=1"),
    ("GET", f"{MODULES}?page=2"),
    ("GET", f"{ALGEBRA}?x"),
    ("GET", "/api/enrollments/sam/algebra?x=1"),
    ("PUT", "/api/enrollments/sam/algebra?status=paused"),
    ("PUT", f"{ALGEBRA}?dry=1"),
    ("POST", "/api/progress?contentId=sets"),
    ("POST", "/api/progress/batch?x=1"),
    ("DELETE", "/api/progress/sam?confirm=1"),
    ("DELETE", "/api/progress/sam/algebra?x=1&x=2"),
]


def test_a_query_parameter_that_is_unknown_repeated_or_wrong_is_malformed(
    service: Callers, publish: Publish, app: Flask
) -> None:
    publish("algebra", ["sets"])
    service().post("/api/progress", json={"userId": "sam", "contentId": "sets"})
    before = stored(app)

    bodies = {"PUT": {"title": "Changed", "contents": []}, "POST": {"userId": "sam", "contentId": "sets"}}
    for method, path in QUERIES:
        response = service().call(method, path, json={} if "enrollments" in path else bodies.get(method))
        assert_problem(response, 400, "malformed-request", (method, path))
        assert stored(app) == before, (method, path)


SLASHES = ["http://localhost//healthz", "/api//progress/sam", "/api/progress//", "/api/progress//sam/algebra"]


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/progres", "/api/progress/", f"{MODULES}/", f"{ALGEBRA}/x", "/%00", *SLASHES]
)
def test_an_unknown_path_is_not_found(path: str, service: Callers, anonymous: Caller) -> None:
    assert_problem(service().get(path), 404, "not-found")
    assert_problem(anonymous.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/api/progress", {"POST"}),
        ("GET", "/api/progress", {"POST"}),
        ("PUT", "/api/progress/sam", {"GET", "HEAD", "DELETE", "PATCH"}),
        ("POST", "/api/progress/sam/algebra", {"GET", "HEAD", "DELETE"}),
        ("POST", MODULES, {"GET", "HEAD"}),
        ("DELETE", ALGEBRA, {"GET", "HEAD", "PUT"}),
        ("POST", "/api/enrollments/sam/algebra", {"GET", "HEAD", "PUT", "DELETE"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("TRACE", ALGEBRA, {"GET", "HEAD", "PUT"}),
    ],
)
def test_a_method_that_a_route_does_not_have_is_not_allowed(
    method: str, path: str, allowed: set[str], service: Callers
) -> None:
    response = service().call(method, path)

    assert_problem(response, 405, "method-not-allowed")
    assert set(response.headers["Allow"].split(", ")) - {"OPTIONS"} == allowed


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
@pytest.mark.parametrize(("size", "status"), [(MEBIBYTE, 201), (MEBIBYTE + 1, 413), (8 * MEBIBYTE, 413)])
def test_a_body_has_at_most_a_mebibyte(chunked: bool, size: int, status: int, service: Callers, app: Flask) -> None:
    environ = create_environ(ALGEBRA, method="PUT", headers={**service().headers, "Content-Type": JSON})
    environ["wsgi.input"] = BytesIO(publication(size))
    if chunked:
        environ["wsgi.input_terminated"] = True
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
        environ.pop("CONTENT_LENGTH", None)
    else:
        environ["CONTENT_LENGTH"] = str(size)

    response = Response.from_app(app, environ, buffered=True)

    assert response.status_code == status
    assert bool(stored(app)["modules"]) == (status == 201)
    if status == 413:
        assert_problem(response, 413, "payload-too-large")


def test_only_json_in_utf_8_is_supported(service: Callers, app: Flask) -> None:
    others = ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"]
    others += [
        "application/jsonp",
        "application/json-patch+json",
        f"{JSON}; charset=latin-1",
        f"{JSON}; charset=utf-16",
    ]

    for headers in ({}, *({"Content-Type": content_type} for content_type in others)):
        response = service().put(ALGEBRA, data=publication(99), headers=headers)
        assert_problem(response, 415, "unsupported-media-type", headers)
    assert not any(stored(app).values())


@pytest.mark.parametrize(
    "content_type", [JSON, "Application/JSON", f"{JSON};charset=UTF-8", f'{JSON}; charset="utf-8"']
)
def test_json_in_utf_8_is_supported_however_it_is_written(content_type: str, service: Callers) -> None:
    assert service().put(ALGEBRA, data=publication(99), content_type=content_type).status_code == 201


def test_every_wrong_field_is_named(service: Callers, publish: Publish, app: Flask) -> None:
    publish("algebra", ["sets"])
    before = stored(app)
    update = {"contentId": "", "progressPercentage": 101, "timeSpentSeconds": "1", "position": 1, "a/b": 1, "~": 1}

    problem = assert_problem(service().post("/api/progress", json=update), 422, "validation-failed")
    pointers = {"/contentId", "/progressPercentage", "/timeSpentSeconds", "/position", "/userId", "/a~1b", "/~0"}
    assert {error["pointer"] for error in problem["errors"]} == pointers

    updates = [{"contentId": "sets", "userId": "sam"}, update]
    problem = assert_problem(service().post("/api/progress/batch", json={"updates": updates}), 422, "validation-failed")
    assert {error["pointer"] for error in problem["errors"]} == {f"/updates/1{pointer}" for pointer in pointers}
    assert stored(app) == before


def test_of_a_name_that_is_given_twice_the_last_counts(service: Callers) -> None:
    body = '{"title": "Algebra", "contents": [], "title": "Biology"}'

    assert service().put(ALGEBRA, data=body, content_type=JSON).get_json()["title"] == "Biology"


@pytest.mark.parametrize("name", [r"\ud800", r"\u0000", r"a\udc00/~", "", " "])
def test_an_unknown_field_is_refused_whatever_its_name(name: str, service: Callers) -> None:
    body = f'{{"title": "Algebra", "contents": [], "{name}": 1}}'

    problem = assert_problem(service().put(ALGEBRA, data=body, content_type=JSON), 422, "validation-failed")

    assert len(problem["errors"]) == 1


@pytest.mark.parametrize("value", [1, None, {"_schema": [1]}])
def test_an_unknown_field_is_pointed_to_even_where_marshmallow_has_a_meaning_for_its_name(
    value: Any, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    update = {"userId": "sam", "contentId": "sets", "_schema": value}
    answers = [service().post("/api/progress", json=update)]
    answers += [service().post("/api/progress/batch", json={"updates": [update, 1]})]

    problems = [assert_problem(answer, 422, "validation-failed")["errors"] for answer in answers]
    assert problems[0] == [{"pointer": "/_schema", "detail": "Unknown field."}]
    assert problems[1] == [
        {"pointer": "/updates/0/_schema", "detail": "Unknown field."},
        {"pointer": "/updates/1", "detail": "Invalid input type."},
    ]


@pytest.mark.parametrize(
    "given", ["abc-123", "!", "~" * 100, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]
)
def test_the_request_id_of_the_gateway_is_taken(given: str, service: Callers) -> None:
    headers = {"X-Request-ID": given}

    assert service().get(MODULES, headers=headers).headers.getlist("X-Request-ID") == [given]
    assert assert_problem(service().get("/nowhere", headers=headers), 404, "not-found")["requestId"] == given


@pytest.mark.parametrize("given", [None, "", " ", "a b", "é", "x" * 10_000, "a\tb", "\x7f"])
def test_a_request_without_a_proper_id_is_given_one_of_its_own(given: str | None, service: Callers) -> None:
    headers = {} if given is None else {"X-Request-ID": given}

    responses = [service().get(path, headers=headers) for path in (MODULES, "/nowhere", "/healthz")]

    made = [response.headers["X-Request-ID"] for response in responses]
    assert len({str(UUID(request_id)) for request_id in made}) == 3
    assert_problem(responses[1], 404, "not-found")


SECRET = "SELECT password FROM /work/service.py at 10.0.0.1"


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch, publish: Publish) -> None:
    """Let two queries and a part of a publication fail as nothing should."""

    def fail(*_: Any) -> None:
        raise RuntimeError(SECRET)

    publish("algebra", ["sets"])
    monkeypatch.setattr(catalog_queries, "modules", fail)
    monkeypatch.setattr(recount, "denominators", fail)
    monkeypatch.setattr(analytics_queries, "statistics", fail)


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("testing", [False, True], ids=["in production", "in tests"])
def test_a_fault_of_our_own_shows_nothing_of_the_inside_and_changes_nothing(testing: bool, database_url: str) -> None:
    with application(database_url, TESTING=testing) as app:
        service = Caller(app, "service", "lms")
        before = stored(app)
        responses = [service.get(MODULES), service.get("/api/progress/stats/algebra")]
        responses += [service.put(ALGEBRA, data=publication(99), content_type=JSON)]
        assert service.get("/healthz").status_code == 200
        assert stored(app) == before

    for response in responses:
        assert_problem(response, 500, "internal-error")
        inside = f"{response.text} {response.headers}"
        assert not [word for word in (SECRET, "SELECT", "RuntimeError", "Traceback", ".py") if word in inside]


@pytest.fixture(params=["sqlite", "postgresql"])
def away(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    """The application on a database that cannot be reached."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # held, so that nobody else takes the port, and not listening
        urls = {
            "sqlite": f"sqlite:///{tmp_path}/missing/progress.db",
            "postgresql": f"postgresql+psycopg://progress:s3cret@127.0.0.1:{nobody.getsockname()[1]}/progress",
        }
        with application(urls[request.param], TESTING=False) as app:
            yield app


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/progress/sam", None),
        ("GET", "/api/progress/stats/algebra", None),
        ("GET", MODULES, None),
        ("POST", "/api/progress", {"userId": "sam", "contentId": "sets"}),
        ("PUT", ALGEBRA, {"title": "Algebra", "contents": []}),
        ("PUT", "/api/enrollments/sam/algebra", {}),
        ("DELETE", "/api/progress/sam", None),
        ("GET", "/readyz", None),
    ],
)
def test_without_its_database_the_service_is_unavailable_for_a_while(
    method: str, path: str, body: Any, away: Flask
) -> None:
    response = Caller(away, "service", "lms").call(method, path, json=body)

    assert_problem(response, 503, "unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert not [word for word in ("s3cret", "127.0.0.1", "missing", "sqlite", "psycopg") if word in response.text]


def test_without_its_database_the_process_lives_and_refuses_as_ever(away: Flask) -> None:
    service = Caller(away, "service", "lms")

    assert Caller(away).get("/healthz").status_code == 200
    assert_problem(Caller(away).get(MODULES), 401, "unauthorized")
    assert_problem(Caller(away, "student", "sam").get(MODULES), 403, "forbidden")
    assert_problem(service.put(ALGEBRA, json={}), 422, "validation-failed")
    assert_problem(service.get("/nowhere"), 404, "not-found")


def test_a_status_that_this_service_does_not_give_itself_is_named_by_its_phrase(app: Flask) -> None:
    with app.test_request_context():
        app.preprocess_request()
        response = problems.render(RequestEntityTooLarge()), problems.render(Gone())

    assert [one.get_json()["type"].rpartition(":")[2] for one in response] == ["payload-too-large", "gone"]
