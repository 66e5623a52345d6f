"""What is held about a learner: they can read all of it, and erasing leaves nothing."""

import json
from datetime import UTC, date, datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import Table

from progress_service.calculations import COMMAND, Actor, Update
from progress_service.store import corrections, database, recorder
from progress_service.store.database import db
from progress_service.store.learning import EnrollmentChange, EnrollmentKey
from tests.callers import Caller
from tests.conftest import Callers, Publish, Statements, stored
from tests.progress.sending import moment, refusal, send

LEA = "lea-7c1e"
"""The learner who is exported and erased; no other text has this name in it."""
OLD = "lea-s-old-name"
"""Who was merged into that learner."""
PEOPLE = {"user_id", "caller_id", "learner_id", "by_sub"}
"""The columns that name somebody."""
NO_ONES = {"modules", "contents", "tallies", "imported_chunks", "arrivals", "verifications", "webhooks"}
"""The tables without such a column."""

SHOWN_AS = {
    "activity_days.day": "date",
    "module_instructors.module_id": "id",
    "changes.by_sub": "by.sub",
    "changes.by_role": "by.role",
    "stored_answers.key": "idempotencyKey",
    "stored_answers.fingerprint": "requestDigest",
    "stored_answers.body": "answer",
}
"""How columns are called in the export, where it is not their own name in camel case."""
NOT_SHOWN = {
    "enrollments.weighted_sum": "progressPercentage is made of it",
    "changes.settled_after": "it is an order of all changes",
    "changes.is_history": "it says how long the change is kept",
    "module_instructors.ordinal": "it is an order of the module's",
    "stored_answers.caller_id": "it is the learner, or whoever reported about them",
    "stored_answers.learner_id": "it is the learner, or nobody",
}
LISTS = {
    "enrollments": "enrollments",
    "imported_enrollments": "importedEnrollments",
    "progress_records": "records",
    "activity_days": "activityDays",
    "sessions": "sessions",
    "changes": "changes",
    "module_instructors": "teaches",
    "stored_answers": "storedAnswers",
}


def module(*contents: str) -> dict[str, Any]:
    listed = [{"id": one, "title": one.title(), "type": "video"} for one in contents]
    return {"title": "Algebra", "instructorIds": ["ines", LEA], "contents": listed}


@pytest.fixture(autouse=True)
def _traces(app: Flask, publish: Publish) -> None:
    """Let lea leave a trace wherever one can be left, beside somebody else's."""
    publish("biology", ["cells"], instructor_ids=[])
    publish("chess", ["rules"])
    learner, service = Caller(app, "student", LEA), Caller(app, "service", "lms")
    quiz = {"contentId": "quiz", "progressPercentage": 100, "score": 1.5, "maxScore": 3, "timeSpentSeconds": 9}
    updates = [
        quiz | {"userId": user_id, "occurredAt": moment(day * 1440)} for user_id in (LEA, "nora") for day in (1, 3)
    ]
    requests: list[tuple[Caller, str, str, Any]] = [
        (service, "PUT", "/api/catalog/modules/algebra", module("intro", "quiz")),
        (learner, "POST", "/api/progress", {"contentId": "intro", "progressPercentage": 33.7, "position": "00:07"}),
        (learner, "POST", "/api/progress/batch", {"updates": [{"contentId": "rules"}]}),
        (service, "POST", "/api/progress", {"contentId": "cells", "userId": LEA, "timeSpentSeconds": 60}),
        (service, "POST", "/api/progress/batch", {"updates": updates}),
        (service, "PUT", f"/api/enrollments/{LEA}/biology", {"status": "dropped"}),
        (service, "POST", "/api/progress", {"contentId": "cells", "userId": "nora", "position": "nora's"}),
        (service, "PUT", "/api/catalog/modules/algebra", module("intro")),
    ]
    for place, (caller, method, path, body) in enumerate(requests):
        response = caller.call(method, path, json=body, headers={"Idempotency-Key": f"key-{place}"})
        assert response.status_code in {200, 201}, response.text
    now = datetime.now(UTC)
    sittings = [
        Update(user_id, "rules", now, time_spent_seconds=50, session="first", by=Actor("lms", "service"))
        for user_id in (LEA, "nora", OLD)
    ]
    lines = [EnrollmentChange(LEA, "biology", "dropped", told_at=now), EnrollmentChange("nora", "biology", told_at=now)]
    with app.app_context():
        database.write(partial(recorder.record, updates=sittings, auto_enroll=True, now=now))
        database.write(partial(recorder.enroll, changes=lines, now=now, by=COMMAND))
        key = EnrollmentKey(LEA, "chess")
        database.write(partial(corrections.excuse, key=key, content_id="rules", by=COMMAND, now=now))
        database.write(partial(corrections.merge, user_id=OLD, into=LEA, by=COMMAND, now=now))


def export(caller: Caller, learner: str = LEA) -> dict[str, Any]:
    response = caller.get(f"/api/progress/{learner}/export")
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def rows(app: Flask, table: Table) -> list[dict[str, Any]]:
    with app.app_context(), db.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(table.select())]


def shown(column: str, value: Any) -> Any:
    """Write a stored value as answers do."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | UUID) or column == "id":
        return str(value)
    if column == "data":
        return json.loads(value)
    if isinstance(value, bytes):
        return json.loads(value)
    return value / 10_000 if value is not None and column.endswith("score") else value


def flat(one: dict[str, Any]) -> dict[str, Any]:
    """Show the actor of a change as fields of the change."""
    return one | {f"by.{name}": value for name, value in one.get("by", {}).items()}


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def test_every_column_about_a_learner_is_in_their_export(app: Flask, service: Callers) -> None:
    document = export(service())
    tables = {table for table in db.metadata.sorted_tables if PEOPLE & set(table.columns.keys())}
    assert {table.name for table in set(db.metadata.sorted_tables) - tables} == NO_ONES
    assert {table.name for table in tables} == set(LISTS)

    for table in tables:
        names = {
            name: SHOWN_AS.get(f"{table.name}.{name}", camel(name))
            for name in table.columns.keys()  # noqa: SIM118  a collection of columns
            if f"{table.name}.{name}" not in NOT_SHOWN
        }
        held = [row for row in rows(app, table) if LEA in str(row.values())]
        for row in held:
            if row.get("learner_id", LEA) != LEA:
                row["body"] = None  # it names others
        found = [{"userId": document["userId"], **flat(one)} for one in document[LISTS[table.name]]]
        assert held, "there is something to find"
        assert sorted([{shown_as: one[shown_as] for shown_as in names.values()} for one in found], key=str) == sorted(
            [{shown_as: shown(name, row[name]) for name, shown_as in names.items()} for row in held], key=str
        )
    assert "nora" not in str(document)


def test_the_export_is_made_of_what_other_answers_show(app: Flask, service: Callers) -> None:
    document = export(service())
    dashboard = service().get(f"/api/progress/{LEA}").get_json()

    last = {"algebra": "intro", "biology": "cells", "chess": "rules"}
    kept = {"counted": True, "enrolledByUpdate": True, "credited": False}
    enrollments = [
        one | kept | {"lastContentId": last[one["moduleId"]], "lastIsExcused": one["moduleId"] == "chess"}
        for one in dashboard["modules"]
    ]
    assert document["enrollments"] == enrollments
    assert {one["moduleId"]: one["status"] for one in enrollments}["biology"] == "dropped"
    titles = {one["contentId"]: one["title"] for one in document["records"]}
    assert titles == {"intro": "Intro", "quiz": "Quiz", "cells": "Cells", "rules": "Rules"}
    (view,) = service().get(f"/api/progress/{LEA}/algebra").get_json()["contents"]
    (record,) = [one for one in document["records"] if one["contentId"] == "intro"]
    assert view["progress"].items() <= record.items()
    assert document["activityDays"][0] == {"moduleId": "algebra", "date": "2024-01-06", "timeSpentSeconds": 9}
    assert document["teaches"] == [{"id": "algebra", "title": "Algebra"}]
    answers = {one["idempotencyKey"]: one for one in document["storedAnswers"]}
    assert set(answers) == {f"key-{place}" for place in (0, 1, 2, 3, 4, 5, 7)}
    assert answers["key-1"]["answer"]["progress"] == view["progress"]
    assert answers["key-2"]["answer"]["received"] == 1
    assert [answers[key]["answer"] for key in ("key-0", "key-4")] == [None, None], "they name others, too"


def test_the_export_has_one_order(service: Callers) -> None:
    assert service().put("/api/progress/kim/biology/cells/excuse").status_code == 200
    updates = [
        {"userId": "kim", "contentId": content_id, "session": "first", "occurredAt": moment(minute)}
        for content_id, minute in (("rules", 1), ("intro", 2))
    ]
    assert service().post("/api/progress/batch", json={"updates": updates}).status_code == 200

    document = export(service(), "kim")

    assert [one["contentId"] for one in document["records"]] == ["rules", "intro", "cells"], (
        "what is started comes first"
    )
    assert [one["contentId"] for one in document["sessions"]] == ["intro", "rules"]


def test_me_stands_for_the_caller_who_exports(app: Flask, instructor: Callers) -> None:
    document = export(instructor("ines"), "me")

    assert document["userId"] == "ines"
    assert [one["id"] for one in document["teaches"]] == ["algebra", "chess"]
    assert {len(document[name]) for name in ("enrollments", "records", "activityDays")} == {0}


def test_of_a_learner_nobody_has_heard_of_nothing_is_held(admin: Callers) -> None:
    assert export(admin(), "nobody") == {"userId": "nobody", **{name: [] for name in LISTS.values()}}


def test_an_export_takes_as_many_statements_however_much_is_held(service: Callers, statements: Statements) -> None:
    sent = {}
    for learner in (LEA, "nobody"):
        with statements() as sent[learner]:
            export(service(), learner)

    assert len(sent[LEA]) == len(sent["nobody"]) <= 10


def test_no_module_is_called_as_the_export_is(app: Flask, admin: Callers, tmp_path: Any) -> None:
    before = stored(app)
    for method, path in [
        ("PUT", "/api/catalog/modules/export"),
        ("PUT", f"/api/enrollments/{LEA}/export"),
        ("GET", "/api/catalog/modules/export"),
        ("GET", "/api/progress/stats/export"),
        ("DELETE", f"/api/progress/{LEA}/export"),
    ]:
        body = {"title": "Export", "contents": []} if "catalog" in path else {}
        assert refusal(admin().call(method, path, json=body if method == "PUT" else None))[:2] == (404, "not-found")
    assert admin().put("/api/catalog/modules/Export", json=module("intro-2")).status_code == 201
    assert stored(app) != before


def traces_of_nora(app: Flask) -> list[Any]:
    """List the rows that name nora and not lea: an answer that names both goes with either."""
    named = [(name, row) for name, found in stored(app).items() for row in found if "nora" in str(row)]
    return [one for one in named if LEA not in str(one)]


def test_no_table_names_an_erased_learner(app: Flask, service: Callers, publish: Publish) -> None:
    before = service().get("/api/progress/stats/algebra").get_json()["learners"]
    others = traces_of_nora(app)

    assert service().delete(f"/api/progress/{LEA}").status_code == 204

    left = [(name, row) for name, found in stored(app).items() for row in found if LEA in str(row)]
    (told,) = [row for name, row in left if name == "changes"]
    assert [value for value in told if isinstance(value, str)] == ["learner.erased", LEA, "lms", "service", "{}"]
    assert [(name, row) for name, row in left if row != told] == [("module_instructors", ("algebra", LEA, 1))]
    assert OLD not in str(stored(app))
    publish("algebra", ["intro"])
    assert [row for found in stored(app).values() for row in found if LEA in str(row)] == [told]
    after = service().get("/api/progress/stats/algebra").get_json()["learners"]
    assert (before["enrolled"] - after["enrolled"], before["started"] - after["started"]) == (1, 1)
    assert traces_of_nora(app) == others
    document = export(service())
    assert [change["type"] for change in document.pop("changes")] == ["learner.erased"]
    assert document == {"userId": LEA, **{name: [] for name in LISTS.values() if name != "changes"}}


def test_what_an_erased_person_did_to_others_is_told_without_the_name(app: Flask, service: Callers) -> None:
    for caller in (Caller(app, "admin", LEA), Caller(app, "admin", "ada"), service(LEA), service()):
        for status in ("paused", "active"):
            response = caller.put("/api/enrollments/nora/biology", json={"status": status})
            assert response.status_code == 200, response.text

    assert service().delete(f"/api/progress/{LEA}").status_code == 204

    changed = [change for change in export(service(), "nora")["changes"] if change["type"] == "enrollment.changed"]
    assert [tuple(change["by"].values()) for change in changed] == [
        *2 * [(None, "admin")],
        *2 * [("ada", "admin")],
        *2 * [(LEA, "service")],  # a service is no person
        *2 * [("lms", "service")],
    ]


def test_all_names_of_an_erased_person_are_erased(app: Flask, service: Callers) -> None:
    """Somebody was merged twice, the second time with the first name in the journal, also as that of who has acted."""
    Caller(app, "admin", LEA).put("/api/enrollments/nora/biology", json={"status": "paused"})
    assert service().post(f"/api/progress/{LEA}/merge", json={"into": "lena"}).status_code == 204
    merged = [change for change in export(service(), "lena")["changes"] if change["type"] == "learner.merged"]
    assert [(change["userId"], change["data"]) for change in merged] == [
        (OLD, {"into": "lena"}),
        (LEA, {"into": "lena"}),
    ]
    assert [change["userId"] for change in export(service(), LEA)["changes"]] == [LEA]
    changed = [change for change in export(service(), "nora")["changes"] if change["type"] == "enrollment.changed"]
    assert changed[-1]["by"] == {"sub": "lena", "role": "admin"}

    assert service().delete("/api/progress/lena").status_code == 204

    left = [(name, row) for name, found in stored(app).items() for row in found if LEA in str(row) or OLD in str(row)]
    assert [name for name, _ in left if name not in ("module_instructors", "stored_answers")] == []


def test_a_person_is_erased_again_after_coming_back_and_nobody_twice_in_a_row(app: Flask, service: Callers) -> None:
    def erase() -> list[str]:
        assert service().delete(f"/api/progress/{LEA}").status_code == 204
        return [change["type"] for change in export(service())["changes"]]

    assert erase() == ["learner.erased"]
    assert erase() == ["learner.erased"]
    send(service(), "cells", userId=LEA, progressPercentage=100)
    assert erase() == ["learner.erased", "learner.erased"]
