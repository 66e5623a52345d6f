"""The feed of changes: who goes on from a cursor gets every change once, in order, however transactions overlap."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, text

from progress_service.changes import queries
from progress_service.changes.documents import Cursor
from progress_service.store.database import db
from tests.callers import Caller
from tests.conftest import Callers, Publish, Statements, empty, engine_of, wait_until_settled

FEED = "/api/changes"
Changes = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def catalog(publish: Publish) -> None:
    publish("algebra", ["sets", "sums"])
    publish("biology", ["cells"])


@pytest.fixture
def lms(service: Callers) -> Caller:
    return service()


def read(caller: Caller, **query: Any) -> dict[str, Any]:
    """Read when everything that has happened is to be read."""
    wait_until_settled(caller.app)
    return read_at_once(caller, **query)


def read_at_once(caller: Caller, **query: Any) -> dict[str, Any]:
    response = caller.get(FEED, query_string=query)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def read_all(caller: Caller, **query: Any) -> Changes:
    """Read page by page until there is no more."""
    found: Changes = []
    page = read(caller, **query)
    while page["more"]:
        found += page["changes"]
        page = read(caller, **query | {"after": page["cursor"]})
    return [*found, *page["changes"]]


def finish(caller: Caller, user_id: str, content_id: str) -> None:
    update = {"userId": user_id, "contentId": content_id, "progressPercentage": 100}
    assert caller.post("/api/progress", json=update).status_code in {200, 201}


def told(changes: Changes) -> list[tuple[str, Any, Any]]:
    return [(change["type"], change["userId"], change["contentId"] or change["moduleId"]) for change in changes]


SAM = [("enrollment.created", "sam", "algebra"), ("content.completed", "sam", "sets")]
KIM = [
    ("enrollment.created", "kim", "biology"),
    ("content.completed", "kim", "cells"),
    ("enrollment.completed", "kim", "biology"),
]
PUBLISHED = [("module.published", None, "algebra"), ("module.published", None, "biology")]


def test_a_reader_gets_what_happened_page_by_page_and_then_only_what_is_new(lms: Caller) -> None:
    begun = read(lms, after="now")
    assert (begun["changes"], begun["more"]) == ([], False)
    finish(lms, "sam", "sets")
    finish(lms, "kim", "cells")

    assert told(read_all(lms)) == [*PUBLISHED, *SAM, *KIM]
    assert told(read_all(lms, after=begun["cursor"], limit=2)) == [*SAM, *KIM]
    page = read(lms, after=begun["cursor"], limit=3)
    assert (told(page["changes"]), page["more"]) == ([*SAM, KIM[0]], True)
    caught_up = read(lms, after=page["cursor"])
    assert (told(caught_up["changes"]), caught_up["more"]) == (KIM[1:], False)
    assert read(lms, after=caught_up["cursor"])["changes"] == []

    finish(lms, "sam", "sets")
    assert read(lms, after=caught_up["cursor"])["changes"] == [], "nothing has changed"


def test_a_change_is_shown_as_in_the_history(lms: Caller) -> None:
    finish(lms, "sam", "sets")
    history = lms.get("/api/progress/sam/algebra/history").get_json()["changes"]
    assert [change for change in read_all(lms) if change["userId"] == "sam"] == history[::-1]


def test_a_reader_may_want_some_types_and_a_module(lms: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(lms, "sam", "sets")
    finish(lms, "kim", "cells")
    assert lms.delete("/api/progress/kim").status_code == 204
    erased = ("learner.erased", "kim", None)

    assert told(read_all(lms, types="content.completed,learner.erased")) == [SAM[1], erased]
    assert told(read_all(lms, moduleId="algebra")) == [PUBLISHED[0], *SAM, erased]
    assert told(read_all(lms, moduleId="algebra", types="module.published", limit=1)) == [PUBLISHED[0]]
    assert read(lms, moduleId="algebra", types="progress.reset")["changes"] == []

    monkeypatch.setattr(queries, "MOST_SCANNED", 2)
    page = read(lms, types="learner.erased")
    assert (page["changes"], page["more"]) == ([], True), "nothing was found among those that were looked at"
    assert told(read_all(lms, types="content.completed,learner.erased")) == [SAM[1], erased]


@pytest.mark.parametrize(
    "query",
    ["after=0", "after=1.2", "after=then", "limit=0", "limit=1001", "types=", "types=a", "moduleId=export", "x=1"],
)
def test_a_wrong_query_is_refused(query: str, lms: Caller) -> None:
    response = lms.get(f"{FEED}?{query}")
    assert (response.status_code, response.get_json()["type"].rpartition(":")[2]) == (400, "malformed-request")


def test_a_cursor_is_gone_when_changes_behind_it_may_be_gone(app: Flask, lms: Caller) -> None:
    cursor = Cursor.read(read(lms)["cursor"])
    days = timedelta(days=app.config["CHANGES_DAYS"]).total_seconds()
    for seconds, status in ((cursor.seconds - days - 60, 410), (cursor.seconds - days + 60, 200)):
        response = lms.get(FEED, query_string={"after": cursor._replace(seconds=int(seconds)).written})
        assert response.status_code == status
    of_another_server = cursor._replace(place=cursor.place._replace(settled_after=10**17))
    response = lms.get(FEED, query_string={"after": of_another_server.written})
    assert (response.status_code, response.get_json()["type"]) == (410, "urn:progress-service:problem:gone")


@pytest.mark.parametrize("caught_up", [True, False])
def test_reading_takes_as_many_statements_however_much_was_read_before(
    caught_up: bool, lms: Caller, statements: Statements
) -> None:
    def count(number: int) -> int:
        for place in range(number):
            finish(lms, f"learner-{place}", "sets")
        after = {"after": read(lms, limit=1000)["cursor"]} if caught_up else {}
        with statements() as sent:
            read(lms, **after)
        return len(sent)

    assert count(1) == count(30)


@contextmanager
def writing(app: Flask) -> Iterator[Connection]:
    """A transaction that has written something, and has not ended."""
    with engine_of(app).connect() as connection, connection.begin():
        connection.execute(text("SELECT pg_current_xact_id()"))
        yield connection


@pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
def test_a_change_waits_for_transactions_that_began_before_it(app: Flask, lms: Caller) -> None:
    begun = read(lms, after="now")["cursor"]
    with writing(app):
        finish(lms, "sam", "sets")
        waiting = read_at_once(lms, after=begun)
        assert (waiting["changes"], waiting["more"]) == ([], False)

    assert told(read(lms, after=waiting["cursor"])["changes"]) == SAM


def test_readers_beside_writers_get_every_change_once_and_each_learners_in_order(app: Flask, lms: Caller) -> None:
    learners = [f"learner-{number}" for number in range(6)]

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(12):
            updates = [
                {"userId": user_id, "contentId": content_id, "progressPercentage": 100}
                for user_id in chance.sample(learners, 3)
                for content_id in ("sets", "sums", "cells")
            ]
            assert lms.post("/api/progress/batch", json={"updates": updates}).status_code == 200
            assert lms.delete(f"/api/progress/{chance.choice(learners)}/algebra").status_code == 204

    begun = read(lms, after="now")["cursor"]
    found: Changes = []
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, seed) for seed in range(4)]
        cursor = begun
        while not all(writer.done() for writer in writers):
            page = read_at_once(lms, after=cursor, limit=7)
            found, cursor = found + page["changes"], page["cursor"]
        for writer in writers:
            writer.result()
    found += read_all(lms, after=cursor)

    ids = [change["id"] for change in found]
    assert len(set(ids)) == len(ids)
    assert sorted(ids) == sorted(change["id"] for change in read_all(lms, after=begun, limit=1000))
    for user_id in learners:
        for module_id in ("algebra", "biology"):
            history = lms.get(f"/api/progress/{user_id}/{module_id}/history?limit=200").get_json()["changes"]
            of_learner = [one for one in found if (one["userId"], one["moduleId"]) == (user_id, module_id)]
            assert of_learner == history[::-1]


def test_what_another_server_has_written_is_read_once_it_is_settled(app: Flask, lms: Caller) -> None:
    hook = {"url": "https://hooks.example.org/progress"}
    assert lms.put("/api/webhooks/certificates", json=hook).status_code == 201
    finish(lms, "sam", "sets")
    with engine_of(app).begin() as connection:
        for table in ("changes", "webhooks"):
            connection.execute(text(f"UPDATE {table} SET settled_after = settled_after + 500000000"))
        # A transaction that began later wrote first.
        connection.execute(
            text("UPDATE changes SET settled_after = settled_after + 1 WHERE type = 'enrollment.created'")
        )
    assert read_at_once(lms)["changes"] == []

    result = app.test_cli_runner().invoke(args=["progress", "settle"])
    assert (result.exit_code, result.stdout) == (0, "What is written from now on comes after all changes so far.\n")
    in_order = [*PUBLISHED, SAM[1], SAM[0]]
    assert told(read_all(lms)) == in_order
    finish(lms, "kim", "cells")
    assert told(read_all(lms)) == [*in_order, *KIM]
    assert lms.get("/api/webhooks/certificates").get_json()["pending"] == len([*SAM, *KIM])


def test_what_was_read_before_the_database_went_back_in_time_hides_nothing(app: Flask, lms: Caller) -> None:
    finish(lms, "sam", "sets")
    with engine_of(app).connect() as connection:
        rows = {table.name: connection.execute(table.select()).mappings().all() for table in db.metadata.sorted_tables}
    for number in range(5):
        finish(lms, f"lost-{number}", "cells")
    lost = read(lms, limit=1000)
    empty(app)
    with engine_of(app).begin() as connection:
        for table in db.metadata.sorted_tables:
            if rows[table.name]:
                connection.execute(table.insert(), list(map(dict, rows[table.name])))

    for _ in range(2):
        assert app.test_cli_runner().invoke(args=["progress", "settle"]).exit_code == 0
    finish(lms, "kim", "cells")
    new = read(lms, after=lost["cursor"])["changes"]
    assert told(new) == KIM
    assert not {change["id"] for change in new} & {change["id"] for change in lost["changes"]}
