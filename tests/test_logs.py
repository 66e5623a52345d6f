"""What the log tells: one line for each request, and nothing that belongs to anybody."""

import re
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from progress_service import calculations
from progress_service.catalog import queries
from progress_service.store.database import db
from tests.callers import KEY, Caller
from tests.conftest import Publish, application

LEA = "lea-7c1e"
SAID = "what-lea-said"
UPDATE = {"contentId": "sets", "userId": LEA, "position": SAID, "timeSpentSeconds": 5}
LINE = re.compile(r"[-\d]{10} [:,\d]{12} (INFO|WARNING|ERROR) \S+ .*")

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
    ("DELETE", f"/api/progress/{LEA}", {}, 204),
]


def test_the_log_tells_one_line_for_each_request_and_nothing_of_it_but_its_rule(
    database_url: str, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    publish("algebra", ["sets"])
    capsys.readouterr()
    with application(database_url, TESTING=False) as app:
        service = Caller(app, "service", LEA)
        for method, path, request, status in REQUESTS:
            assert service.call(method, path, **request).status_code == status, path

    output = "".join(capsys.readouterr())
    lines = output.splitlines()
    statuses = [int(line.split()[-2]) for line in lines]
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert statuses == [status for *_, status in REQUESTS]
    assert_tells_nothing(output, service)


def assert_tells_nothing(output: str, caller: Caller) -> None:
    secrets = [LEA, SAID, KEY, "Bearer", *caller.headers["Authorization"].removeprefix("Bearer ").split(".")]
    assert [secret for secret in secrets if secret in output] == []


def test_a_fault_is_logged_in_one_line_that_tells_where_it_was_and_quotes_nobody(
    database_url: str, publish: Publish, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError(f"{LEA}\n{SAID}") from KeyError(SAID)

    def vanish(*_: Any) -> None:
        raise OperationalError(SAID, {"user_id": LEA}, Exception(SAID))

    publish("algebra", ["sets"])
    capsys.readouterr()
    monkeypatch.setattr(queries, "enrollment", fail)
    monkeypatch.setattr(queries, "module", vanish)
    monkeypatch.setattr(calculations, "count", lambda enrollment, *_: enrollment._replace(completed_contents=-1))
    with application(database_url, TESTING=False) as app:
        service = Caller(app, "service", "lms")
        assert service.get(f"/api/enrollments/{LEA}/algebra").status_code == 500
        assert service.get("/api/catalog/modules/algebra").status_code == 503
        # PostgreSQL quotes the row that it refuses, first in a group, and then alone.
        assert service.post("/api/progress", json=UPDATE).status_code == 500

    output = "".join(capsys.readouterr())
    lines = output.splitlines()
    assert [line.split()[2] for line in lines] == ["ERROR", "INFO", "WARNING", "INFO", "INFO", "ERROR", "INFO"]
    assert re.search(r"RuntimeError at .*catalog/views.py:\d+ > tests/test_logs.py:\d+; caused by KeyError", lines[0])
    assert re.search(r"IntegrityError at .*store/(recorder|pipeline).py:\d+.*; caused by ", lines[5])
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
