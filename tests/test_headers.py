"""The headers that every answer has, and what no header tells."""

import re
from typing import Any

import pytest
from flask import Flask, Response

from progress_service.catalog import queries
from tests.callers import Caller
from tests.conftest import Callers, Publish, application

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
INSIDE = re.compile(r"gunicorn|werkzeug|flask|python|\.py|sqlite|psycopg", re.I)
ANSWERS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/api/progress/sam", {}, 200),
    ("HEAD", "/api/progress/sam", {}, 200),
    ("GET", "/api/progress/stats/algebra/learners", {"headers": {"Accept": "text/csv"}}, 200),
    ("GET", "/api/progress/stats/algebra/learners.csv", {}, 200),
    ("GET", "/api/progress/stats/algebra/matrix.csv", {}, 200),
    ("POST", "/api/progress", {"json": {"userId": "sam", "contentId": "sets"}}, 201),
    ("DELETE", "/api/progress/sam", {}, 204),
    ("POST", "/api/progress", {"data": "{", "content_type": "application/json"}, 400),
    ("GET", "/api/catalog/modules", {"headers": {"Authorization": "Bearer x"}}, 401),
    ("GET", "/nowhere", {}, 404),
    ("PATCH", "/api/progress", {}, 405),
    ("GET", "/api/catalog/modules/algebra", {}, 500),
    ("GET", "/healthz", {}, 200),
    ("GET", "/readyz", {}, 200),
    ("GET", "/metrics", {}, 200),
]


def test_every_answer_is_to_be_kept_by_nobody_and_run_by_no_browser(
    database_url: str, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("algebra", ["sets"])
    monkeypatch.setattr(queries, "module", lambda *_: 1 / 0)

    with application(database_url, TESTING=False) as app:
        for method, path, request, status in ANSWERS:
            response = Caller(app, "service", "lms").call(method, path, **request)
            assert response.status_code == status, path
            assert {name: response.headers.getlist(name) for name in HEADERS} == {
                name: [value] for name, value in HEADERS.items()
            }, path
            assert not INSIDE.search(str(response.headers)), path


def test_a_view_may_say_otherwise(app: Flask, service: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = "default-src 'self'"
    view = lambda: Response(headers={"Content-Security-Policy": policy})  # noqa: E731
    monkeypatch.setitem(app.view_functions, "operations.healthz", view)

    response = service().get("/healthz")

    assert response.headers.getlist("Content-Security-Policy") == [policy]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
