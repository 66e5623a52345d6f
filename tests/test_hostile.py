"""Requests that nobody sends in good faith: each is answered as any other, and nothing of a refused one is stored."""

import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from flask import Flask, Request
from gunicorn.http.errors import InvalidChunkSize  # type: ignore[import-untyped]
from werkzeug.test import TestResponse, create_environ, run_wsgi_app

from tests.callers import token
from tests.conftest import Callers, Publish, stored
from tests.progress.sending import refusal
from tests.test_serving import Server, gunicorn
from tests.waiting import PATIENCE_SECONDS

MEBIBYTE = 1024 * 1024
JSON = "application/json"
MODULE = b'{"title": "Algebra", "contents": [{"id": "sets", "title": "Sets", "type": "lab"}]}'
UPDATE = '"userId": "sam", "contentId": "sets"'
ALGEBRA = "/api/catalog/modules/algebra"
LONGEST = "x" * 255


@pytest.fixture
def record(publish: Publish, service: Callers) -> str:
    """Return the id of sam's record in algebra; lea has one too."""
    publish("algebra", ["sets"])
    ids = {}
    for learner in ("lea", "sam"):
        response = service().post("/api/progress", json={"userId": learner, "contentId": "sets"})
        ids[learner] = str(response.get_json()["progress"]["id"])
    return ids["sam"]


DEEP, DEEPER = 900, 100_000
BODIES: dict[str, tuple[str | bytes, int]] = {
    "a byte order mark": (b"\xef\xbb\xbf{" + UPDATE.encode() + b"}", 400),
    "overlong UTF-8": (b'{"userId": "sam", "contentId": "\xc1\xb3ets"}', 400),
    "a surrogate in UTF-8": (b'{"userId": "sam", "contentId": "\xed\xa0\x80"}', 400),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03", 400),
    "arrays in arrays": (f'{{"userId": "sam", "contentId": {"[" * DEEP}{"]" * DEEP}}}', 422),
    "arrays in arrays in arrays": (f'{{"userId": "sam", "contentId": {"[" * DEEPER}{"]" * DEEPER}}}', 400),
    "objects in objects": ('{"userId": ' * DEEP + "1" + "}" * DEEP, 422),
    "a million digits": (f'{{{UPDATE}, "timeSpentSeconds": {"9" * (MEBIBYTE - 99)}}}', 400),
    "a million digits of a fraction": (f'{{{UPDATE}, "timeSpentSeconds": 9.{"9" * (MEBIBYTE - 99)}}}', 422),
    "a negative million": (f'{{{UPDATE}, "timeSpentSeconds": -{"9" * 4000}}}', 422),
    "a number in another script": (f'{{{UPDATE}, "timeSpentSeconds": ٣}}', 400),
    "a hexadecimal number": (f'{{{UPDATE}, "timeSpentSeconds": 0x10}}', 400),
    "half a million items": (f'{{"updates": [{"1," * 500_000}1]}}', 422),
    "a prototype": (f'{{{UPDATE}, "__proto__": {{"role": "admin"}}}}', 422),
    "a key that is no string": (f"{{{UPDATE}, 1: 2}}", 400),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_refused_as_any_wrong_one(name: str, service: Callers, app: Flask, record: str) -> None:
    body, status = BODIES[name]
    before = stored(app)

    for path in ("/api/progress", "/api/progress/batch"):
        response = service().post(path, data=body, content_type=JSON)
        assert refusal(response)[0] == status, path
        assert len(response.data) < 10_000
    assert stored(app) == before


HEADERS = (
    *("Accept", "Authorization", "Content-Encoding", "Content-Length", "Content-Type", "Cookie", "Expect", "Host"),
    *("Idempotency-Key", "If-Modified-Since", "If-None-Match", "Range", "Transfer-Encoding", "X-Request-ID"),
)
VALUES = [
    *(
        "",
        " ",
        "\xff",
        "\x80\xc3",
        "caf\xe9",
        "Basic \xff",
        "Basic /w==",
        "Digest \xe9",
        "Bearer \xff",
        "Bearer",
        "Basic",
    ),
    *("application/json; charset=\xff", "application/json; charset*=utf-8''%ff", "application/json; charset*0*=x''%e9"),
    *(
        "*/*; q=\xb2",
        "*/*;q=nan",
        "text/csv;q=1e999",
        "text/csv;q=-1",
        "*",
        "/",
        ";",
        ",",
        "=",
        '"',
        '"\\',
        ";q",
        "a=b;a",
    ),
    *(
        "bytes=\xb2-",
        "bytes=9-1",
        "W/\xff",
        'W/"',
        "-1",
        "\xb2",
        "9" * 5000,
        "0x1",
        "1_0",
        "Thu, 99 Foo 9999 99:99:99 GMT",
    ),
]


@pytest.mark.slow
def test_no_header_makes_a_fault(service: Callers, record: str) -> None:
    body = {"userId": "sam", "contentId": "sets"}
    faults = []
    for name in HEADERS:
        for value in VALUES:
            headers = {name: value}
            answers = [
                service().post("/api/progress", data=json.dumps(body), headers={"Content-Type": JSON} | headers),
                service().get("/api/progress/stats/algebra/learners", headers=headers),
            ]
            faults += [(name, value, answer.status_code) for answer in answers if answer.status_code >= 500]
    assert faults == []


class NoChunks(BytesIO):
    """What gunicorn gives to read where chunks are none."""

    def readinto(self, _: Any) -> int:
        raise InvalidChunkSize(b"zz")


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip", "aws-chunked", "chunked", "utf-8"])
def test_a_body_that_is_coded_is_refused_before_it_is_read(
    coding: str, service: Callers, app: Flask, record: str
) -> None:
    before = stored(app)
    body = b"{%s}" % UPDATE.encode()

    for path, method in [("/api/progress", "POST"), (f"/api/progress/{record}/complete", "PUT")]:
        for data in (body, gzip.compress(body), b" " * (MEBIBYTE + 1)):
            response = service().call(
                method, path, data=data, headers={"Content-Encoding": coding, "Content-Type": JSON}
            )
            assert refusal(response)[:2] == (415, "unsupported-media-type")
            assert response.headers["Accept-Encoding"] == "identity"
    assert stored(app) == before


@pytest.mark.parametrize("coding", ["", "identity", "Identity", "identity, identity"])
def test_a_body_that_is_coded_as_it_is_is_read(coding: str, service: Callers, record: str) -> None:
    body = b"{%s}" % UPDATE.encode()

    response = service().post("/api/progress", data=body, headers={"Content-Encoding": coding, "Content-Type": JSON})

    assert response.status_code == 200


@pytest.mark.parametrize("body", [BytesIO(b""), BytesIO(b"{}"), NoChunks()], ids=["nothing", "less", "no chunks"])
def test_a_body_that_does_not_come_whole_is_malformed(body: BytesIO, service: Callers, app: Flask, record: str) -> None:
    before = stored(app)
    headers = service().headers | {"Content-Type": JSON}
    environ = create_environ(f"/api/progress/{record}/complete", method="PUT", headers=headers)
    environ |= {"CONTENT_LENGTH": "3", "wsgi.input": body, "wsgi.input_terminated": True}

    response = TestResponse(*run_wsgi_app(app, environ, buffered=True), request=Request(environ))

    assert refusal(response)[:2] == (400, "malformed-request")
    assert stored(app) == before


def test_of_too_many_faults_the_first_are_named(service: Callers, app: Flask, record: str) -> None:
    before = stored(app)
    unknown = ", ".join(f'"{place}": 1' for place in range(80_000))
    wrong: dict[str, Any] = dict.fromkeys(("contentId", "userId", "session", "position", "occurredAt"), 1)
    wrong |= dict.fromkeys(("progressPercentage", "timeSpentSeconds", "score", "maxScore"), "1")

    response = service().post("/api/progress", data=f"{{{UPDATE}, {unknown}}}", content_type=JSON)
    assert (refusal(response)[0], len(response.get_json()["errors"])) == (422, 10_000)
    assert len(response.data) < MEBIBYTE
    response = service().post("/api/progress/batch", json={"updates": [wrong] * 1000})
    assert (refusal(response)[0], len(refusal(response)[2])) == (422, 9000), "an honest one is told all of them"
    assert stored(app) == before


def test_a_batch_may_fill_the_body_and_not_more(publish: Publish, service: Callers, app: Flask) -> None:
    publish("algebra", [LONGEST])
    numbers = {"progressPercentage": 99.99, "timeSpentSeconds": 14_400, "score": 999_999.9999, "maxScore": 1_000_000}
    dated = numbers | {"contentId": LONGEST, "occurredAt": "2026-01-31T23:59:59.999999+23:59"}
    updates = [dated | {"userId": f"{place:x>255}", "position": "é" * 128} for place in range(1000)]
    body = json.dumps({"updates": updates}, ensure_ascii=False, separators=(",", ":")).encode()
    assert 0.9 * MEBIBYTE < len(body) <= MEBIBYTE
    before = stored(app)

    longer = body.replace("é".encode(), "🎓".encode())
    assert refusal(service().post("/api/progress/batch", data=longer, content_type=JSON))[0] == 413
    assert refusal(service().post("/api/progress/batch", data=body.ljust(MEBIBYTE + 1), content_type=JSON))[0] == 413
    assert stored(app) == before
    response = service().post("/api/progress/batch", data=body.ljust(MEBIBYTE), content_type=JSON)
    counts = {"received": 1000, "started": 1000, "completed": 0, "enrollmentsCompleted": 0}
    assert response.get_json() == {**counts, "completions": []}


TIMES = [
    "2026-01-01T12:30:60Z",
    "2026-01-01T24:00:01Z",
    "2026-01-01T12:60:00Z",
    "2026-13-01T00:00:00Z",
    "2026-01-01T00:00:00+24:00",
    "2026-01-01T00:00:00-99:99",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-14:00",
    "10000-01-01T00:00:00Z",
    "-2026-01-01T00:00:00Z",
    "2026-W01-1T00:00:00Z",
    "٢٠٢٦-01-01T00:00:00Z",
    "2026-01-01T00:00:00Z\n",
    "2026-01-01T00:00:00\u2212" + "01:00",
    "2026-01-01T00:00:00." + "9" * 100_000,
]


def test_a_time_that_never_was_is_refused(service: Callers, app: Flask, record: str) -> None:
    before = stored(app)

    for time in TIMES:
        body = {"userId": "sam", "contentId": "sets", "occurredAt": time}
        assert refusal(service().post("/api/progress", json=body)) == (422, "validation-failed", {"/occurredAt"}), time
        assert refusal(service().put("/api/enrollments/sam/algebra", json={"enrolledAt": time}))[0] == 422, time
    assert stored(app) == before


PATHS = [
    *("%2e%2e", "..", "%2e%2e/%2e%2e", "sam/%2e", "sam/./algebra", "sam/../lea", "sam%2f..%2flea", "..%2f..%2fetc"),
    *("sam/", "sam//", "/sam", "%2fsam", "sam/algebra/", "sam%5calgebra", "sam;x=1", ";", "%25", "%", "%zz", "*"),
    *(
        "sam%00",
        "sam%0d%0aSet-Cookie:%20x=1",
        "sam%0a",
        "%ff%fe",
        "sam%c0%af",
        "sam%e2%80%8b",
        "%ef%bb%bfsam",
        "%u0073",
    ),
    *("sam%3fstatus=active", "sam%23", "'%20OR%201=1--", "%24%7Bsam%7D", "%3Cscript%3E", "x" * 256, "x" * 100_000),
]
NOWHERE = {(404, "not-found"), (405, "method-not-allowed")}
"""Three parts may name a learner, a module and a content: nothing but DELETE is allowed there."""
OUTSIDE = [
    "/api/..%2freadyz",
    "/api/../readyz",
    "//readyz",
    "/./readyz",
    "/readyz/",
    "/%2e/readyz",
    "/API/progress/sam",
]


def test_no_path_leads_elsewhere_than_it_says(admin: Callers, app: Flask, record: str) -> None:
    before = stored(app)

    for path in [*(f"/api/progress/{path}" for path in PATHS), *OUTSIDE]:
        for method in ("GET", "DELETE"):
            response = admin().call(method, f"http://localhost{path}")
            assert refusal(response)[:2] in NOWHERE, path
            assert "Set-Cookie" not in response.headers
    for path in PATHS:
        response = admin().put(f"/api/progress/{path}/complete", json={})
        assert refusal(response)[:2] in NOWHERE, path
    assert stored(app) == before


def test_an_encoded_slash_is_a_slash_and_opens_nothing(student: Callers, app: Flask, record: str) -> None:
    before = stored(app)

    assert student().get("/api/progress/sam%2Falgebra").data == student().get("/api/progress/sam/algebra").data
    for path in ("lea%2Falgebra", "sam%2F..%2Flea", "lea%2Fexport", "me%2F..%2Flea", "stats%2Falgebra"):
        for method in ("GET", "DELETE"):
            assert refusal(student().call(method, f"/api/progress/{path}"))[0] in {403, 404, 405}, path
    assert stored(app) == before


OVERRIDES = dict.fromkeys(["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Method"], "DELETE")
TRUSTED = {"X-Original-URL": "/api/progress/lea", "X-Rewrite-URL": "/api/progress/lea", "X-Forwarded-Prefix": "/api"}


def test_a_header_changes_neither_method_nor_path_nor_caller(admin: Callers, app: Flask, record: str) -> None:
    before = stored(app)
    headers = OVERRIDES | TRUSTED | {"X-User": "lea", "X-Forwarded-User": "lea", "X-Forwarded-Host": "evil.example"}

    response = admin().get("/api/progress/sam", headers=headers)
    assert response.get_json() == admin().get("/api/progress/sam").get_json()
    assert "evil.example" not in f"{response.headers}{response.text}"
    assert refusal(admin().post("/api/progress/sam", headers=headers, json={}))[0] == 405
    assert refusal(admin().get("/api/progress/sam?_method=DELETE"))[0] == 400
    form = {"_method": "DELETE", "contentId": "sets"}
    assert refusal(admin().post("/api/progress", data=form))[0] == 415
    assert stored(app) == before


METHODS = ["OPTIONS", "TRACE", "CONNECT", "PATCH", "PROPFIND", "BREW", "X" * 1000]


def test_on_every_route_other_methods_are_refused_and_the_right_ones_named(app: Flask, admin: Callers) -> None:
    urls = app.url_map.bind("localhost")
    allowed: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        path = urls.build(rule.endpoint, dict.fromkeys(rule.arguments, "lea"))
        allowed[path] = allowed.get(path, set()) | set(rule.methods or ())

    for path, methods in allowed.items():
        for method in METHODS:
            if urls.test(path, method):
                continue  # "batch" may also be the id of a record
            response = admin().call(method, path)
            assert refusal(response)[:2] == (405, "method-not-allowed"), (method, path)
            assert methods <= set(response.headers["Allow"].split(", ")), (method, path)


@pytest.mark.parametrize("name", ["X-Request-ID", "Idempotency-Key"])
@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\nb", "a\rb", "a\0b", "a\x1b[2Jb", "a\x85b", "a\u2028b"])
def test_a_header_that_breaks_the_line_is_not_taken(
    name: str, value: str, service: Callers, app: Flask, record: str
) -> None:
    before = stored(app)
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value.encode().decode("latin-1")}

    response = service().post("/api/progress", data=f"{{{UPDATE}}}", content_type=JSON, environ_overrides=environ)

    assert "Set-Cookie" not in response.headers
    assert value not in response.headers["X-Request-ID"]
    if name == "Idempotency-Key":
        assert refusal(response)[:2] == (400, "malformed-request")
        assert stored(app) == before


@pytest.fixture
def server(database_url: str, publish: Publish) -> Iterator[Server]:
    publish("algebra", ["sets"])
    with gunicorn(database_url) as server:
        yield server


def written(body: bytes, *headers: str, method: str = "PUT", path: str = ALGEBRA) -> bytes:
    """Write a request of an admin's as it goes over the wire."""
    head = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token('ada', 'admin')}", *headers]
    if method == "PUT":
        head.append(f"Content-Type: {JSON}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def chunks(body: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    parts = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def exchange(server: Server, request: bytes) -> tuple[int, bytes]:
    """Send a request and nothing after it; return the status and the rest of what comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as connection:
        answer = b""
        with suppress(OSError):  # the server has heard enough, and may have ended the connection
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):  # and may say so after the answer
            while piece := connection.recv(65_536):
                answer += piece
    return int(answer.split()[1]), answer


CHUNKED = "Transfer-Encoding: chunked"
CHANGED = MODULE.replace(b"Algebra", b"Changed")
WIRED: list[tuple[str, bytes, int]] = [
    ("chunks beyond a mebibyte", written(chunks(CHANGED.ljust(MEBIBYTE + 1)), CHUNKED), 413),
    ("chunks far beyond", written(chunks(b" " * 4 * MEBIBYTE), CHUNKED), 413),
    ("a length beyond", written(CHANGED, f"Content-Length: {MEBIBYTE * 4}"), 413),
    ("chunks that end too early", written(chunks(CHANGED, b""), CHUNKED), 400),
    ("a coding in the transfer", written(chunks(CHANGED), "Transfer-Encoding: gzip, chunked"), 415),
    ("a coding of the content", written(CHANGED, f"Content-Length: {len(CHANGED)}", "Content-Encoding: gzip"), 415),
    ("half a chunk", written(chunks(CHANGED)[:-40], CHUNKED), 400),
    ("chunks that are none", written(b"zz\r\n" + CHANGED, CHUNKED), 400),
    ("a chunk with more than it says", written(b"2\r\n" + CHANGED, CHUNKED), 400),
    ("a body shorter than it says", written(CHANGED, f"Content-Length: {len(CHANGED) + 9}"), 400),
    ("two tokens", written(CHANGED, f"Content-Length: {len(CHANGED)}", "Authorization: Bearer x"), 401),
    ("a broken line in a path", written(b"", method="GET", path="/api/progress/sam%0d%0ainjected%20line"), 404),
    ("an unknown method", written(b"", method="BREW", path="/api/progress"), 405),
]
UNREADABLE: list[tuple[str, bytes]] = [
    ("a length and chunks", written(chunks(CHANGED), CHUNKED, f"Content-Length: {len(CHANGED)}")),
    ("two lengths", written(CHANGED, f"Content-Length: {len(CHANGED)}", "Content-Length: 2")),
    ("two types", written(CHANGED, f"Content-Length: {len(CHANGED)}", "Content-Type: text/plain")),
    ("a folded header", written(CHANGED, f"Content-Length: {len(CHANGED)}", "X-Request-ID: a\r\n injected")),
    ("a broken header", written(CHANGED, f"Content-Length: {len(CHANGED)}", "X-Request-ID: a\ninjected: line")),
    ("two spaces behind the method", written(b"", method="GET ", path="/readyz")),
    ("a very long path", written(b"", method="GET", path="/api/progress/" + "x" * 8000)),
    ("very many headers", written(b"", *(f"X-{place}: 1" for place in range(100)), method="GET", path="/readyz")),
]
"""What gunicorn refuses itself, before the application."""


def test_the_longest_identifiers_fit_into_a_request_line(server: Server, publish: Publish, service: Callers) -> None:
    publish(LONGEST, ["maps"])
    everybody = [{"userId": f"{place:x>255}", "contentId": "maps"} for place in (1, 2)]
    assert service().post("/api/progress/batch", json={"updates": everybody}).status_code == 200
    encoded = "".join(f"%{ord(character):02x}" for character in LONGEST)
    query = "sort=-lastActivity&status=active&inactiveDays=0&maxProgress=100&limit=1"
    roster = f"/api/progress/stats/{encoded}/learners?{query}"
    first = json.loads(exchange(server, written(b"", method="GET", path=roster))[1].partition(b"\r\n\r\n")[2])

    for path in (f"{roster}&cursor={first['nextCursor']}", f"/api/enrollments/{encoded[:-3]}%31/{encoded}"):
        assert exchange(server, written(b"", method="GET", path=path))[0] == 200


def test_what_is_hostile_on_the_wire_is_refused_and_stores_nothing(server: Server, app: Flask) -> None:
    before = stored(app)

    for name, request, status in WIRED:
        answered, answer = exchange(server, request)
        assert answered == status, name
        assert b"Content-Type: application/problem+json\r\n" in answer, name
    for name, request in UNREADABLE:
        answered, answer = exchange(server, request)
        assert 400 <= answered < 500, name
        assert b"Traceback" not in answer, name
    assert stored(app) == before

    assert exchange(server, written(chunks(CHANGED.ljust(MEBIBYTE)), CHUNKED))[0] == 200
    two_keys = written(CHANGED, f"Content-Length: {len(CHANGED)}", "Idempotency-Key: a", "Idempotency-Key: b")
    assert [b"Idempotency-Replayed: true" in exchange(server, two_keys)[1] for _ in range(2)] == [False, True]
    _, output = server.stop()
    assert {json.loads(line)["log.level"] for line in output.splitlines()} == {"info", "warning"}


def test_a_client_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--timeout 5")
    silent = [b"GET /readyz HTTP/1.1\r\nAuth", written(b"{", "Content-Length: 9"), written(b"5\r\n{", CHUNKED)]

    with gunicorn("sqlite:///:memory:") as server:
        address = "127.0.0.1", server.port
        connections = [socket.create_connection(address, timeout=PATIENCE_SECONDS) for _ in silent]
        for connection, request in zip(connections, silent, strict=True):
            connection.sendall(request)
        answers = [connection.recv(65_536) for connection in connections]
        for connection in connections:
            connection.close()

    assert answers[0] == b""
    assert [answer.split()[1] for answer in answers[1:]] == [b"400", b"400"]
