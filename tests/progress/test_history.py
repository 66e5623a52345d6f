"""The history of a learner in a module: what happened, newest first, page by page."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from flask import Flask
from psycopg import RawCursor
from sqlalchemy import text

from progress_service.calculations import COMMAND
from progress_service.progress import queries
from progress_service.store import corrections, database
from progress_service.store.learning import EnrollmentKey
from tests.callers import Caller
from tests.conftest import Callers, Publish, Statements, engine_of
from tests.progress.sending import from_now, instant, moment, refusal, send

HISTORY = "/api/progress/sam/algebra/history"
NOTHING: dict[str, Any] = {"changes": [], "nextCursor": None}


@pytest.fixture(autouse=True)
def _catalog(publish: Publish) -> None:
    publish("algebra", ["sets", "maps"])
    publish("biology", ["cells"])


def read(caller: Caller, path: str = HISTORY) -> dict[str, Any]:
    response = caller.get(path)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def told(caller: Caller, path: str = HISTORY) -> list[tuple[str, str | None]]:
    """List the types of the changes in a history, oldest first, each with its content."""
    return [(change["type"], change["contentId"]) for change in reversed(read(caller, path)["changes"])]


def correct(app: Flask, correction: Callable[..., object], **given: Any) -> None:
    """Put something right, as a command does."""
    with app.app_context():
        database.write(partial(correction, by=COMMAND, now=datetime.now(UTC), **given))


def test_a_change_says_what_happened_when_and_by_whom(service: Callers) -> None:
    before = instant(from_now(0))
    for user_id in ("nora", "sam"):
        done = {"progressPercentage": 100, "score": 2, "maxScore": 3, "occurredAt": moment(5)}
        send(service(), "sets", userId=user_id, **done)
    send(service(), "cells", userId="sam", progressPercentage=100)

    completed, enrolled = read(service())["changes"]

    recorded_at = completed.pop("recordedAt")
    assert before <= instant(recorded_at) <= instant(from_now(0))
    assert int(completed.pop("id")) > int(enrolled.pop("id"))
    assert completed == {
        "type": "content.completed",
        "time": moment(5),
        "userId": "sam",
        "moduleId": "algebra",
        "contentId": "sets",
        "by": {"sub": "lms", "role": "service"},
        "data": {"scorePercentage": 66.66},
    }
    assert enrolled == completed | {
        "type": "enrollment.created",
        "contentId": None,
        "recordedAt": recorded_at,
        "data": {"status": "active", "counted": True},
    }


def test_pages_follow_one_another_without_a_gap(service: Callers) -> None:
    send(service(), "sets", userId="sam", progressPercentage=100)
    for nth in range(5):
        body = {"status": ("paused", "active")[nth % 2]}
        assert service().put("/api/enrollments/sam/algebra", json=body).status_code == 200
    every = read(service())
    assert len(every["changes"]) == 7
    assert every["nextCursor"] is None

    for limit in (1, 3, 6, 7):
        path, pages = f"{HISTORY}?limit={limit}", []
        while True:
            pages.append(read(service(), path))
            if pages[-1]["nextCursor"] is None:
                break
            path = f"{HISTORY}?limit={limit}&cursor={pages[-1]['nextCursor']}"
        assert [change for page in pages for change in page["changes"]] == every["changes"]
        assert {len(page["changes"]) for page in pages[:-1]} <= {limit}


def test_a_page_has_50_changes_if_no_limit_is_given(app: Flask, service: Callers) -> None:
    key = EnrollmentKey("sam", "algebra")
    send(service(), "sets", userId="sam")
    for nth in range(55):
        correct(app, (corrections.excuse, corrections.withdraw_excuse)[nth % 2], key=key, content_id="sets")

    first = read(service())
    assert len(first["changes"]) == 50
    assert len(read(service(), f"{HISTORY}?cursor={first['nextCursor']}")["changes"]) == 6


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "cursor=", "cursor=0", "cursor=-1", "cursor=x", f"cursor={10**18}", "page=1"]
)
def test_a_wrong_query_is_refused(query: str, service: Callers) -> None:
    name = query.partition("=")[0]
    assert refusal(service().get(f"{HISTORY}?{query}")) == (400, "malformed-request", {f"/{name}"})


def test_the_ends_of_the_ranges_are_taken(service: Callers) -> None:
    send(service(), "sets", userId="sam")

    assert len(read(service(), f"{HISTORY}?limit=200&cursor={10**18 - 1}")["changes"]) == 1
    assert read(service(), f"{HISTORY}?limit=1&cursor=1") == NOTHING


def test_an_unknown_module_is_not_found_and_an_unknown_learner_has_no_history(service: Callers) -> None:
    assert refusal(service().get("/api/progress/sam/chess/history"))[:2] == (404, "not-found")
    assert read(service()) == NOTHING


def test_me_stands_for_the_caller(student: Callers, service: Callers) -> None:
    send(student(), "sets", progressPercentage=100)
    send(student("nora"), "sets")

    assert read(student(), "/api/progress/me/algebra/history") == read(service())
    assert told(student()) == [("enrollment.created", None), ("content.completed", "sets")]


def test_a_reset_is_in_the_history_which_goes_on(service: Callers) -> None:
    send(service(), "sets", userId="sam", progressPercentage=100)

    assert service().delete("/api/progress/sam/algebra").status_code == 204
    send(service(), "maps", userId="sam", progressPercentage=100)

    assert told(service()) == [
        ("enrollment.created", None),
        ("content.completed", "sets"),
        ("progress.reset", None),
        ("content.completed", "maps"),
    ]


def test_a_withdrawn_enrollment_has_no_history_and_a_new_one_begins_its_own(app: Flask, service: Callers) -> None:
    send(service(), "sets", userId="sam", progressPercentage=100)
    send(service(), "cells", userId="sam", progressPercentage=50)
    send(service(), "sets", userId="uma", progressPercentage=50)
    key = EnrollmentKey("sam", "algebra")

    correct(app, corrections.withdraw, key=key)

    assert read(service()) == NOTHING
    for kept in ("sam/biology", "uma/algebra"):
        assert told(service(), f"/api/progress/{kept}/history") == [("enrollment.created", None)]
    send(service(), "maps", userId="sam")
    assert told(service()) == [("enrollment.created", None)]


def test_the_changes_of_a_merged_learner_are_the_other_learners_in_their_order(app: Flask, service: Callers) -> None:
    send(service(), "sets", userId="sam-old", progressPercentage=100)
    send(service(), "maps", userId="sam", progressPercentage=30)
    send(service(), "maps", userId="sam-old", progressPercentage=50)
    old = read(service(), "/api/progress/sam-old/algebra/history")["changes"]

    correct(app, corrections.merge, user_id="sam-old", into="sam")

    assert read(service(), "/api/progress/sam-old/algebra/history") == NOTHING
    changes = read(service())["changes"]
    assert [change["type"] for change in changes] == ["enrollment.created", "content.completed", "enrollment.created"]
    assert [change | {"userId": "sam-old"} for change in changes[1:]] == old
    assert {change["userId"] for change in changes} == {"sam"}


def test_a_history_takes_one_statement_however_long_it_is(service: Callers, statements: Statements) -> None:
    sent = {}
    for user_id in ("sam", "nobody"):
        if user_id == "sam":
            send(service(), "sets", userId=user_id, progressPercentage=100)
        with statements() as sent[user_id]:
            read(service(), f"/api/progress/{user_id}/algebra/history")

    assert sent["sam"] == sent["nobody"]
    assert len(sent["sam"]) <= 2, "SQLite sets its timeout first"


OTHERS = text("""
    INSERT INTO changes (settled_after, type, time, recorded_at, user_id, module_id, by_role, data, is_history)
    SELECT 0, 'content.excused', now(), now(), 'learner-' || number, 'algebra', 'admin', '{}', true
    FROM generate_series(1, 2000) AS number
""")


def test_a_history_is_read_by_its_index(app: Flask) -> None:
    engine = engine_of(app)
    history = queries.HISTORY.compiled(engine.dialect)
    values = history.written({"user_id": "sam", "module_id": "algebra", "before": 10**9, "limit": 51})

    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {history.sql}", tuple(values)).all()
        else:
            connection.execute(OTHERS)  # since a small table is read whole
            connection.execute(text("ANALYZE changes"))
            driver: Any = connection.connection.driver_connection
            plan = RawCursor(driver).execute(f"EXPLAIN {history.numbered}", values).fetchall()

    assert "ix_changes_history" in str(plan)
