"""What the log tells: one line for each request and each fault, and nothing that belongs to anybody."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError, OperationalError

from progress_service import calculations, facts
from progress_service.catalog import queries
from progress_service.config import ConfigurationError
from progress_service.store.connections import AT_ONCE
from progress_service.store.database import TURN, db
from progress_service.store.models import Enrollment
from tests.callers import KEY, Caller, bearing, token
from tests.conftest import Listen, Publish, application, engine_of
from tests.test_documents import OPERATING, code, section, table
from tests.test_serving import gunicorn
from tests.waiting import PATIENCE_SECONDS

LEA = "lea-7c1e"
SAID = "what-lea-said"
UPDATE = {"contentId": "sets", "userId": LEA, "position": SAID, "timeSpentSeconds": 5}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STACK, LASTED = "error.stack_trace", "event.duration"
STATEMENTS, WAITED, RETRIES = "progress.database.statements", "progress.database.duration", "progress.retries"
TEXT_LINE = re.compile(r"[-\d]{10} [:,\d]{12} (?P<level>[A-Z]+) \S+ (?P<message>.*)")

REQUESTS: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/api/progress", {"json": UPDATE, "headers": {"Idempotency-Key": SAID}}, 201),
    ("POST", "/api/progress/batch", {"json": {"updates": [UPDATE]}}, 200),
    ("GET", f"/api/progress/{LEA}?status=active", {}, 200),
    ("GET", f"/api/progress/{LEA}/algebra", {}, 200),
    ("GET", f"/api/progress/{LEA}/export", {}, 200),
    ("PUT", f"/api/enrollments/{LEA}/algebra", {"json": {"status": "paused"}}, 200),
    ("GET", f"/api/progress/{LEA}?status={SAID}", {}, 400),
    ("POST", "/api/progress", {"data": f'{{"userId": "{LEA}", {SAID}', "content_type": "application/json"}, 400),
    ("GET", f"/api/progress/{LEA}", {"headers": {"Authorization": f"Bearer {SAID}"}}, 401),
    ("GET", f"/api/progress/{LEA}/{LEA}", {}, 404),
    ("GET", f"/api/progress/{LEA}/x/y/{SAID}?token={SAID}", {}, 404),
    ("POST", f"/api/progress/{LEA}", {"json": UPDATE}, 405),
    ("POST", "/api/progress", {"data": SAID * 100_000, "content_type": "application/json"}, 413),
    ("POST", "/api/progress", {"data": SAID, "content_type": f"text/{SAID}"}, 415),
    ("POST", "/api/progress", {"json": UPDATE | {SAID: LEA}}, 422),
    ("GET", f"/api/progress/{LEA}%0D%0A{SAID}", {"headers": {"X-Request-ID": f"{SAID} x"}}, 404),
    ("GET", f"/{SAID}%0A%1B%5B2J", {"headers": {"User-Agent": SAID, "Referer": f"/{LEA}"}}, 404),
    ("GET", "/api/catalog/modules", {"headers": {"traceparent": f"00-{TRACE}-{SAID}-01"}}, 200),
    (LEA, "/api/progress", {}, 405),
    ("DELETE", f"/api/progress/{LEA}", {}, 204),
]


class Log:
    """What was written to the log since the last look, line by line."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.text()

    def text(self) -> str:
        return "".join(self._capsys.readouterr())

    def lines(self) -> list[dict[str, Any]]:
        """Return the objects of the lines, which are all of JSON."""
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    return Log(capsys)


def told(form: str, line: str) -> tuple[str, str]:
    """Return the level and the message of a line, of either form."""
    if form == "json":
        fields = json.loads(line)
        return fields["log.level"].upper(), ": ".join([fields["message"], *filter(None, [fields.get(STACK)])])
    found = TEXT_LINE.fullmatch(line)
    assert found, line
    return found["level"], found["message"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_tells_one_line_for_each_request_and_nothing_of_it_but_its_rule(
    form: str, database_url: str, publish: Publish, log: Log
) -> None:
    publish("algebra", ["sets"])
    log.text()
    with application(database_url, TESTING=False, LOG_FORMAT=form, LOG_LEVEL="debug") as app:
        service = Caller(app, "service", LEA)
        for method, path, request, status in REQUESTS:
            assert service.call(method, path, **request).status_code == status, path

    output = log.text()
    lines = [told(form, line) for line in output.splitlines()]
    assert [(level, int(message.split()[2])) for level, message in lines] == [
        ("INFO", status) for *_, status in REQUESTS
    ]
    assert_tells_nothing(output, service)


def assert_tells_nothing(output: str, caller: Caller) -> None:
    secrets = [LEA, SAID, KEY, "Bearer", *caller.headers["Authorization"].removeprefix("Bearer ").split(".")]
    assert [secret for secret in secrets if secret in output] == []


def test_a_line_has_the_fields_of_the_schema(database_url: str, log: Log) -> None:
    began = datetime.now(UTC)
    headers = {"X-Request-ID": "the-first", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    with application(database_url) as app:
        assert Caller(app, "instructor", LEA).get(f"/api/progress/{LEA}", headers=headers).status_code == 200

    (line,) = log.lines()
    at, lasted, waited = (line.pop(name) for name in ("@timestamp", LASTED, WAITED))
    assert 0 < waited < lasted
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at)
    assert began - timedelta(milliseconds=1) < datetime.fromisoformat(at) <= datetime.now(UTC)
    assert line.pop("message") == f"GET /api/progress/<user_id> 200 {lasted / 1e6:.1f}ms"
    assert line == {
        "log.level": "info",
        "ecs.version": "8.11.0",
        "log.logger": "progress_service",
        "process.pid": os.getpid(),
        "service.name": "progress-service",
        "service.version": version("progress-service"),
        "http.request.id": "the-first",
        "trace.id": TRACE,
        "parent.id": SPAN,
        "http.request.method": "GET",
        "http.route": "/api/progress/<user_id>",
        "http.response.status_code": 200,
        "progress.database.statements": 2 if app.extensions[TURN] else 1,
        "progress.database.replica": False,
        "progress.retries": 0,
        "progress.replayed": False,
        "user.roles": ["instructor"],
    }


def test_every_field_is_in_the_document(database_url: str, publish: Publish, log: Log) -> None:
    publish("algebra", ["sets"])
    log.text()
    with application(database_url) as app:
        service = Caller(app, "service", LEA)
        service.post("/api/progress", json=UPDATE, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        service.post("/api/progress", json=UPDATE | {"contentId": SAID})
        app.logger.error("a fault", exc_info=RuntimeError())

    documented = {name for row in table(section(OPERATING, "Logs")) for name in code(row[0])}
    assert {name for line in log.lines() for name in line} == documented


@pytest.mark.parametrize(
    "given",
    [
        *("", "0", f"01-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}-01-0"),
        *(f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE[1:]}-{SPAN}-01"),
        *(f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"),
    ],
)
def test_a_traceparent_of_another_form_is_ignored(given: str, database_url: str, log: Log) -> None:
    with application(database_url) as app:
        Caller(app, "service", "lms").get("/api/catalog/modules", headers={"traceparent": given})

    (line,) = log.lines()
    assert UUID(line["http.request.id"])
    assert "trace.id" not in line
    assert "parent.id" not in line


def test_a_line_tells_why_a_request_was_refused(database_url: str, publish: Publish, log: Log) -> None:
    publish("algebra", ["sets"])
    log.text()
    with application(database_url) as app:
        Caller(app).get("/api/catalog/modules")
        bearing(app, f"Bearer {token(LEA, 'service', exp=1)}").get("/api/catalog/modules")
        bearing(app, f"Bearer {token(LEA, 'service')}x").get("/api/catalog/modules")
        Caller(app, "student", LEA).get("/api/catalog/modules")
        Caller(app, "service", LEA).post("/api/progress", json=UPDATE | {"contentId": SAID})
        Caller(app).get("/")

    names = ("http.response.status_code", "error.code", "error.type", "user.roles")
    assert [tuple(line.get(name) for name in names) for line in log.lines()] == [
        (401, "unauthorized", None, None),
        (401, "unauthorized", "ExpiredSignatureError", None),
        (401, "unauthorized", "InvalidSignatureError", None),
        (403, "forbidden", None, ["student"]),
        (422, "unknown-content", "UnknownContent", ["service"]),
        (404, "not-found", None, None),
    ]


def test_a_line_tells_whether_the_answer_is_a_replay(database_url: str, publish: Publish, log: Log) -> None:
    publish("algebra", ["sets"])
    log.text()
    with application(database_url) as app:
        for _ in range(2):
            Caller(app, "service", LEA).post("/api/progress", json=UPDATE, headers={"Idempotency-Key": SAID})

    assert [line["progress.replayed"] for line in log.lines()] == [False, True]


def test_a_line_tells_of_all_statements_of_its_request(
    database_url: str, publish: Publish, listen: Listen, log: Log
) -> None:
    publish("algebra", ["sets", "maps"])
    with application(database_url) as app:
        service, sent = Caller(app, "service", LEA), list[str]()
        listen(engine_of(app), "before", sent.append)
        log.text()
        for method, path, body in (
            ("POST", "/api/progress", UPDATE),
            ("POST", "/api/progress/batch", {"updates": [UPDATE, UPDATE | {"contentId": "maps"}]}),
            ("PUT", f"/api/enrollments/{LEA}/algebra", {"status": "paused"}),
            ("GET", f"/api/progress/{LEA}/algebra", None),
            ("GET", "/api/progress/stats/algebra/learners", None),
            ("DELETE", f"/api/progress/{LEA}", None),
        ):
            sent.clear()
            assert service.call(method, path, json=body).status_code < 300
            (line,) = log.lines()
            assert line[STATEMENTS] == len(sent) > 0, path
            assert 0 < line[WAITED] < line[LASTED], path
            assert line.get("progress.group") == (1 if path == "/api/progress" else None)


def test_a_line_tells_how_long_its_request_waited_and_how_often_it_tried(
    database_url: str, publish: Publish, log: Log
) -> None:
    publish("algebra", ["sets"])
    with application(database_url, LOCK_TIMEOUT=1) as app, engine_of(app).connect() as other:
        service = Caller(app, "service", LEA)
        assert service.post("/api/progress", json=UPDATE).status_code == 201
        log.text()
        with other.begin():
            other.execute(update(Enrollment).values(status="paused"))
            assert service.put(f"/api/enrollments/{LEA}/algebra", json={"status": "dropped"}).status_code == 503

    (line,) = [line for line in log.lines() if "http.route" in line]
    least = 1 + AT_ONCE[other.dialect.name]  # what the database lets it wait, at the first and the second try
    assert 1e9 * least <= line[WAITED] < line[LASTED]
    assert line[RETRIES] == 1
    assert line["error.type"] == {"sqlite": "OperationalError", "postgresql": "LockNotAvailable"}[other.dialect.name]


def test_waiting_within_waiting_counts_once() -> None:
    facts.begin(facts.Facts())
    waits = facts.waiting(lambda: time.sleep(0.01))
    began = time.perf_counter()
    try:
        facts.waiting(waits)()
        waits()
        assert 0.02 <= facts.current().spent.seconds <= time.perf_counter() - began
    finally:
        facts.end()


def test_what_a_line_is_told_outside_of_requests_names_no_request(database_url: str, log: Log) -> None:
    with application(database_url) as app:
        Caller(app, "service", "lms").get("/api/catalog/modules", headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        app.logger.warning("afterwards")

    within, after = log.lines()
    assert (after["message"], after["log.level"]) == ("afterwards", "warning")
    assert set(within) - set(after) > {"http.request.id", "trace.id", "parent.id", "user.roles"}


@pytest.mark.parametrize(("level", "number"), [("info", 1), ("DEBUG", 4), ("warning", 0)])
def test_probes_and_scrapes_are_told_at_the_level_debug(level: str, number: int, database_url: str, log: Log) -> None:
    with application(database_url, LOG_LEVEL=level) as app:
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
            assert Caller(app).get(path).status_code == 200
    assert len(log.lines()) == number


@pytest.mark.parametrize(("name", "given"), [("LOG_FORMAT", "xml"), ("LOG_LEVEL", "loud"), ("LOG_LEVEL", "")])
def test_a_wrong_setting_is_refused_by_name(name: str, given: str) -> None:
    with pytest.raises(ConfigurationError, match=f"PROGRESS_{name}"), application("sqlite://", **{name: given}):
        pass


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_can_end_a_line_or_command_a_terminal(form: str, log: Log) -> None:
    with application("sqlite://", LOG_FORMAT=form) as app:
        app.logger.warning("%s", "one\r\ntwo\u2028three\x1b[2J\x85\x00\udc80ö")

    output = log.text()
    assert len(output.splitlines()) == 1
    assert re.search("[^ -~\nö]", output) is None
    assert output.index("one") < output.index("two") < output.index("three")


LOGGING = """
import logging
import warnings
from progress_service import create_app
create_app().logger.warning("here")
logging.getLogger("sqlalchemy.pool").error("there")
warnings.warn("everywhere")
"""


@pytest.mark.parametrize("given", ["", "TEXT", "Json"])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_people_at_a_terminal_read_text_and_programs_read_json_unless_the_setting_says_otherwise(
    given: str, is_terminal: bool
) -> None:
    environment = {"PROGRESS_JWT_SECRET_KEY": KEY, "PROGRESS_LOG_FORMAT": given}
    reads, writes = os.openpty() if is_terminal else os.pipe()
    subprocess.run([sys.executable, "-c", LOGGING], env=os.environ | environment, stderr=writes, check=True)
    output = os.read(reads, 10_000).decode()
    os.close(reads)
    os.close(writes)

    form = given.lower() or ("text" if is_terminal else "json")
    *lines, (level, warned) = [told(form, line) for line in output.splitlines()]
    assert lines == [("WARNING", "here"), ("ERROR", "there")]
    assert (level, "UserWarning: everywhere" in warned) == ("WARNING", True)


def failing(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    """Answer probes only, as an application for gunicorn."""
    if environ["PATH_INFO"] != "/readyz":
        raise RuntimeError(f"{LEA} {SAID}")
    logging.getLogger("library").warning("a probe")
    start_response("200 OK", [("Content-Type", "application/json")])
    return [b"{}"]


UNREADABLE = {
    f"GET /api/progress/{LEA} {SAID}": "InvalidHTTPVersion",
    f"{LEA} /api/progress HTTP/1.1": "InvalidRequestMethod",
    SAID: "InvalidRequestLine",
    f"GET /{LEA * 2000} HTTP/1.1": "LimitRequestLine",
    f"GET /{LEA} HTTP/1.1\r\n{SAID}": "InvalidHeader",
    f"GET /{LEA} HTTP/1.1\r\n{SAID}(: {LEA}": "InvalidHeaderName",
    f"GET /{LEA} HTTP/1.1\r\nTransfer-Encoding: {SAID}": "UnsupportedTransferCoding",
    f"GET /{LEA} HTTP/1.1\r\nExpect: {SAID}": "ExpectationFailed",
}
"""The heads of requests that gunicorn cannot read, and the type of its exception."""


@pytest.mark.parametrize("form", ["text", "json"])
def test_gunicorns_own_lines_have_the_same_form_and_quote_nobody(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROGRESS_LOG_FORMAT", form)
    monkeypatch.setenv("PROGRESS_LOG_LEVEL", "debug")
    unanswered = f"GET /{LEA} HTTP/1.1\r\n\r\n"
    with gunicorn("sqlite:///:memory:", workers=1, app="tests.test_logs:failing") as server:
        for sent in [*(f"{head}\r\n\r\n" for head in UNREADABLE), unanswered, f"GET /{LEA}"]:
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as connection:
                connection.sendall(sent.encode())
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
        status, output = server.stop()

    assert status == 0
    assert [secret for secret in (LEA, SAID, KEY, "ip=", "Traceback") if secret in output] == []
    lines = [told(form, line) for line in output.splitlines()]
    refused = [message for level, message in lines if level == "WARNING" and message != "a probe"]
    assert refused == [f"Invalid request: {kind}" for kind in UNREADABLE.values()]
    (failed,) = (message for level, message in lines if level == "ERROR")
    assert re.fullmatch(r"Error handling request: RuntimeError at .* > tests/test_logs\.py:\d+", failed)
    for part in ("Starting gunicorn", "Booting worker", "a probe", "Worker exiting", "Shutting down"):
        assert [message for _, message in lines if part in message], part


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_fault_is_logged_in_one_line_that_tells_where_it_was_and_quotes_nobody(
    form: str, database_url: str, publish: Publish, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError(f"{LEA}\n{SAID}") from KeyError(SAID)

    def vanish(*_: Any) -> None:
        raise OperationalError(SAID, {"user_id": LEA}, Exception(SAID))

    publish("algebra", ["sets"])
    log.text()
    monkeypatch.setattr(queries, "enrollment", fail)
    monkeypatch.setattr(queries, "module", vanish)
    monkeypatch.setattr(calculations, "count", lambda enrollment, *_: enrollment._replace(completed_contents=-1))
    with application(database_url, TESTING=False, LOG_FORMAT=form) as app:
        service = Caller(app, "service", "lms")
        assert service.get(f"/api/enrollments/{LEA}/algebra").status_code == 500
        assert service.get("/api/catalog/modules/algebra").status_code == 503
        # PostgreSQL quotes the row that it refuses, first in a group, and then alone.
        assert service.post("/api/progress", json=UPDATE).status_code == 500

    output = log.text()
    lines = [told(form, line) for line in output.splitlines()]
    assert [level for level, _ in lines] == ["ERROR", "INFO", "WARNING", "INFO", "INFO", "ERROR", "INFO"]
    (_, failed), (_, refused) = lines[0], lines[5]
    where = r"RuntimeError at .*catalog/views.py:\d+ > tests/test_logs.py:\d+; caused by KeyError"
    assert re.match(f"unexpected error: {where}", failed)
    assert re.search(r"IntegrityError at .*store/(recorder|pipeline).py:\d+.*; caused by ", refused)
    if form == "json":
        fields = [json.loads(line) for line in output.splitlines()]
        kinds = [(line.get("error.code"), line.get("error.type")) for line in fields]
        assert kinds[:4] == [
            (None, "RuntimeError"),
            ("internal-error", "RuntimeError"),
            (None, None),
            ("unavailable", "OperationalError"),
        ]
        assert kinds[5:] == [(None, "IntegrityError"), ("internal-error", "IntegrityError")]
    assert_tells_nothing(output, service)


def test_what_a_database_error_says_has_no_parameters(database_url: str) -> None:
    asked = text("SELECT nothing FROM nowhere WHERE user_id = :user_id")
    with (
        application(database_url) as app,
        app.app_context(),
        db.engine.connect() as connection,
        pytest.raises(DBAPIError) as raised,
    ):
        connection.execute(asked, {"user_id": LEA})

    assert "nowhere" in str(raised.value)
    assert LEA not in str(raised.value)
