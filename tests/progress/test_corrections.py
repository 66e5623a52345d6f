"""Putting right: a record is corrected or removed, a learner is excused or merged; and every figure follows."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from sqlalchemy import select

from progress_service.store import database, verification
from progress_service.store.database import db
from progress_service.store.models import Change, Enrollment
from tests.callers import Caller, read
from tests.conftest import Callers, Listen, Publish, engine_of, stored
from tests.progress.sending import INVALID, instant, moment, refusal, send

SETS, MAPS, CELLS = (
    "/api/progress/sam/algebra/sets",
    "/api/progress/sam/algebra/maps",
    "/api/progress/sam/biology/cells",
)
KEYED = {"Idempotency-Key": "one"}
BY_LMS = ("lms", "service")


@pytest.fixture(autouse=True)
def _modules(app: Flask, publish: Publish, service: Callers) -> Iterator[None]:
    """Publish two modules in which uma is at work; afterwards uma's are as they were, and nothing drifts."""
    publish("algebra", ["sets", {"id": "maps", "weight": 2, "passingScore": 50}, {"id": "rings", "weight": 0}])
    publish("biology", ["cells"])
    for content_id, minute in (("sets", 1), ("maps", 2), ("cells", 3)):
        report(service(), content_id, minute, "uma", progressPercentage=70, score=3, maxScore=4, timeSpentSeconds=40)
    before = of_learner(service(), "uma")
    yield
    assert of_learner(service(), "uma") == before
    assert drifts(app) == []


def report(caller: Caller, content_id: str, minute: int, user_id: str = "sam", **fields: Any) -> dict[str, Any]:
    """Send an update about the afternoon long past, and return the record."""
    record: dict[str, Any] = send(caller, content_id, userId=user_id, occurredAt=moment(minute), **fields)["progress"]
    return record


def finish(caller: Caller, minute: int, user_id: str = "sam", *content_ids: str) -> None:
    """Complete contents of algebra, those that count where none are named."""
    for content_id in content_ids or ("sets", "maps"):
        report(caller, content_id, minute, user_id, progressPercentage=100, score=3, maxScore=4, timeSpentSeconds=60)


def of_learner(caller: Caller, user_id: str) -> Any:
    return [read(caller, f"/api/progress/{user_id}{path}") for path in ("", "/algebra", "/biology")]


def figures(caller: Caller, user_id: str = "sam") -> Any:
    """Return all that is shown of a learner and of the modules, without ids of records and times of today.

    Activity by day is left out, since corrections leave it as it was.
    """
    today = datetime.now(UTC).date()
    shown: dict[str, Any] = {"learner": of_learner(caller, user_id)}
    for module_id in ("algebra", "biology"):
        path = f"/api/progress/stats/{module_id}"
        days = Counter[str]()
        for since, until in (("2024-01-04", "2024-01-08"), (today - timedelta(1), today + timedelta(1))):
            for day in read(caller, f"{path}/timeline?from={since}&to={until}")["days"]:
                days.update({name: day[name] for name in day if name.endswith(("Started", "Completed"))})
        shown[module_id] = read(caller, path), read(caller, f"{path}/learners")["items"], days
    text = json.dumps(shown).replace(f'"{user_id}"', '"…"')
    return json.loads(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "id", re.sub(r'"(?!2024)\d{4}-[^"]*Z"', '"now"', text)))


def forget(caller: Caller, *user_ids: str) -> None:
    for user_id in user_ids:
        assert caller.delete(f"/api/progress/{user_id}").status_code == 204


def correct(caller: Caller, record: dict[str, Any], **values: Any) -> dict[str, Any]:
    response = caller.patch(f"/api/progress/{record['id']}", json=values)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def drifts(app: Flask) -> list[verification.Drift]:
    with app.app_context():
        return database.read(lambda connection: list(verification.drifts(connection)))


def journal(app: Flask) -> list[tuple[Any, ...]]:
    """Return type, learner, module, content and author of every change but those about uma."""
    with app.app_context(), db.engine.connect() as connection:
        found = connection.execute(select(Change).where(Change.user_id != "uma").order_by(Change.id)).all()
    return [(one.type, one.user_id, one.module_id, one.content_id, (one.by_sub, one.by_role)) for one in found]


def last_data(app: Flask, kind: str) -> Any:
    with app.app_context(), db.engine.connect() as connection:
        found = select(Change.data).filter_by(type=kind).order_by(Change.id.desc()).limit(1)
        return json.loads(connection.execute(found).scalar_one())


# A record is corrected.


def test_a_correction_counts_as_if_the_values_had_been_reported(service: Callers, app: Flask) -> None:
    right: dict[str, Any] = {
        "progressPercentage": 20,
        "timeSpentSeconds": 50,
        "score": 1,
        "maxScore": 4,
        "position": "3",
    }
    report(service(), "sets", 5, progressPercentage=10, timeSpentSeconds=9)
    report(service(), "maps", 6, **right)
    expected = figures(service())
    forget(service(), "sam")
    report(service(), "sets", 5, progressPercentage=10, timeSpentSeconds=9)
    wrong: dict[str, Any] = {
        "progressPercentage": 90,
        "timeSpentSeconds": 600,
        "score": 3,
        "maxScore": 3,
        "position": "9",
    }
    record = report(service(), "maps", 6, **wrong)

    answer = correct(service(), record, **right)

    assert answer["progress"] == record | right | {"scorePercentage": 25}
    view = read(service(), "/api/progress/sam/algebra")
    assert answer == {"progress": view["contents"][1]["progress"], "enrollment": view["enrollment"]}
    assert figures(service()) == expected
    assert journal(app)[-1] == ("progress.corrected", "sam", "algebra", "maps", BY_LMS)
    assert last_data(app, "progress.corrected") == {
        "before": {
            "progressPercentage": 90,
            "timeSpentSeconds": 600,
            "scorePercentage": 100,
            "completedAt": None,
            "excusedAt": None,
        },
        "after": {
            "progressPercentage": 20,
            "timeSpentSeconds": 50,
            "scorePercentage": 25,
            "completedAt": None,
            "excusedAt": None,
        },
    }


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({"progressPercentage": 33.7}, {"progressPercentage": 33}),
        ({"progressPercentage": 0}, {}),
        ({"timeSpentSeconds": 0}, {}),
        ({"timeSpentSeconds": 1_000_000_000}, {}),
        ({"score": None, "maxScore": None}, {"scorePercentage": None}),
        ({"score": 0.0001, "maxScore": 1_000_000}, {"scorePercentage": 0}),
        ({"position": None}, {}),
        ({"position": ""}, {}),
    ],
)
def test_a_correction_replaces_what_is_given_and_nothing_else(
    given: dict[str, Any], changed: dict[str, Any], service: Callers, app: Flask
) -> None:
    record = report(
        service(), "sets", 5, progressPercentage=90, timeSpentSeconds=600, score=3, maxScore=3, position="9"
    )

    answer = correct(service(), record, **given)
    after = stored(app)

    assert answer["progress"] == record | given | changed
    assert correct(service(), record, **given) == answer
    assert stored(app) == after, "a repeat changes nothing"


def test_a_record_that_no_longer_fulfils_the_rule_is_no_longer_completed(service: Callers) -> None:
    for values in ({"progressPercentage": 99}, {"score": 1, "maxScore": 4}, {"score": None, "maxScore": None}):
        finish(service(), 5)
        record = report(service(), "maps", 6)
        before = read(service(), "/api/enrollments/sam/algebra")
        assert (record["status"], before["status"]) == ("completed", "completed")

        answer = correct(service(), record, **values)

        assert answer["progress"]["status"] == "in_progress"
        assert (answer["progress"]["progressPercentage"], answer["progress"]["completedAt"]) == (99, None)
        kept = {name: before[name] for name in ("status", "completedAt", "enrolledAt", "timeSpentSeconds")}
        assert answer["enrollment"].items() >= (kept | {"progressPercentage": 99.33, "completedContents": 1}).items()
        statistics = read(service(), "/api/progress/stats/algebra")
        assert (statistics["learners"]["completed"], statistics["contents"][1]["completed"]) == (1, 0)
        forget(service(), "sam")


def test_a_completion_by_request_stays_unless_the_percentage_or_the_score_is_given(service: Callers) -> None:
    record = report(service(), "sets", 5, progressPercentage=40)
    done = service().put(f"/api/progress/{record['id']}/complete").get_json()["progress"]

    answer = correct(service(), record, timeSpentSeconds=7, position="7")
    assert answer["progress"] == done | {"timeSpentSeconds": 7, "position": "7"}
    answer = correct(service(), record, score=1, maxScore=1)
    assert (answer["progress"]["status"], answer["progress"]["progressPercentage"]) == ("in_progress", 40)


def test_a_correction_upwards_completes_as_of_now(service: Callers, app: Flask) -> None:
    finish(service(), 5, "sam", "maps")
    record = report(service(), "sets", 6, progressPercentage=40)

    began = datetime.now(UTC)
    answer = correct(service(), record, progressPercentage=100)

    progress, enrollment = answer["progress"], answer["enrollment"]
    assert (progress["status"], progress["progressPercentage"], enrollment["status"]) == ("completed", 100, "completed")
    assert began <= instant(progress["completedAt"]) == instant(enrollment["completedAt"]) <= datetime.now(UTC)
    assert [one[0] for one in journal(app)[-3:]] == [
        "progress.corrected",
        "content.completed",
        "enrollment.completed",
    ]
    report(service(), "sets", 7, progressPercentage=100)
    assert read(service(), "/api/progress/sam/algebra")["contents"][0]["progress"]["completedAt"] == moment(7)


def test_a_completed_record_keeps_its_date_where_it_still_fulfils_the_rule(service: Callers) -> None:
    finish(service(), 5)
    record = report(service(), "maps", 6)

    answer = correct(service(), record, progressPercentage=100, score=2, maxScore=4)

    assert answer["progress"] == record | {"score": 2, "maxScore": 4, "scorePercentage": 50}
    assert record["completedAt"] == moment(5)


def test_a_corrected_position_counts_as_of_now(service: Callers) -> None:
    record = report(service(), "sets", 5, position="1")
    correct(service(), record, position="2")

    assert report(service(), "sets", 6, position="3")["position"] == "2"
    assert send(service(), "sets", userId="sam", position="4")["progress"]["position"] == "4"


def test_the_record_of_a_retired_content_can_be_corrected(service: Callers, publish: Publish) -> None:
    record = report(service(), "rings", 5, progressPercentage=60, timeSpentSeconds=30)
    publish("algebra", ["sets", {"id": "maps", "weight": 2, "passingScore": 50}])

    answer = correct(service(), record, timeSpentSeconds=10)

    assert answer["enrollment"]["timeSpentSeconds"] == 10
    publish("algebra", ["sets", {"id": "maps", "weight": 2, "passingScore": 50}, {"id": "rings", "weight": 0}])


@pytest.mark.parametrize(
    ("values", "pointers"),
    [
        ({}, {""}),
        ({"progressPercentage": 100.5}, {"/progressPercentage"}),
        ({"progressPercentage": -1, "timeSpentSeconds": 1_000_000_001}, {"/progressPercentage", "/timeSpentSeconds"}),
        ({"progressPercentage": None, "timeSpentSeconds": None}, {"/progressPercentage", "/timeSpentSeconds"}),
        ({"progressPercentage": "40", "timeSpentSeconds": 1.5}, {"/progressPercentage", "/timeSpentSeconds"}),
        ({"score": 1}, {"/maxScore"}),
        ({"maxScore": None}, {"/score"}),
        ({"score": None, "maxScore": 5}, {"/score"}),
        ({"score": 5, "maxScore": None}, {"/score"}),
        ({"score": 5, "maxScore": 4}, {"/score"}),
        ({"score": 0, "maxScore": 0}, {"/maxScore"}),
        ({"position": "x" * 256}, {"/position"}),
        ({"occurredAt": moment(), "userId": "sam", "status": "completed"}, {"/occurredAt", "/userId", "/status"}),
    ],
)
def test_a_wrong_correction_is_refused_and_changes_nothing(
    values: dict[str, Any], pointers: set[str], service: Callers, app: Flask
) -> None:
    record = report(service(), "sets", 5, progressPercentage=40, score=1, maxScore=2)
    before = stored(app)

    assert refusal(service().patch(f"/api/progress/{record['id']}", json=values)) == (*INVALID, pointers)
    assert stored(app) == before


def test_a_record_that_does_not_exist_is_not_corrected(service: Callers, app: Flask) -> None:
    gone = report(service(), "sets", 5)
    assert service().delete(SETS).status_code == 204
    report(service(), "sets", 6)
    before = stored(app)

    for record_id in (gone["id"], str(UUID(int=7)), str(uuid4()), "sam", "stats"):
        response = service().patch(f"/api/progress/{record_id}", json={"timeSpentSeconds": 1})
        assert refusal(response)[:2] == (404, "not-found"), record_id
    assert stored(app) == before


def test_a_record_that_is_corrected_is_found_by_its_learner_too_and_not_by_another(
    service: Callers, app: Flask
) -> None:
    record = report(service(), "sets", 5)
    before = stored(app)
    response = service().patch(f"/api/progress/{record['id']}?userId=nora", json={"timeSpentSeconds": 1})
    assert refusal(response)[:2] == (404, "not-found")
    assert stored(app) == before

    response = service().patch(f"/api/progress/{record['id']}?userId=sam", json={"timeSpentSeconds": 1})
    assert response.get_json()["progress"]["timeSpentSeconds"] == 1


@pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("meanwhile", "status"), [("removed", 404), ("merged", 200)])
def test_a_correction_finds_a_record_that_was_removed_or_merged_while_it_began(
    meanwhile: str, status: int, service: Callers, app: Flask, listen: Listen
) -> None:
    record = report(service(), "sets", 5, progressPercentage=40)
    others = [partial(service().delete, SETS), partial(service().post, "/api/progress/sam/merge", json={"into": "kim"})]
    left = [others[meanwhile == "merged"]]

    def act(statement: str) -> None:
        if left and "progress_records.id = " in statement:
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(left.pop()).result().status_code == 204

    listen(engine_of(app), "after", act)
    response = service().patch(f"/api/progress/{record['id']}", json={"progressPercentage": 30})

    assert (response.status_code, left) == (status, [])
    if meanwhile == "merged":
        expected = record | {"userId": "kim", "progressPercentage": 30}
        assert response.get_json()["progress"] == expected
        assert read(service(), "/api/progress/kim/algebra")["contents"][0]["progress"] == expected


# A record is removed.


def test_after_a_removal_everything_is_as_if_the_content_had_never_been_begun(service: Callers, app: Flask) -> None:
    report(service(), "sets", 5, progressPercentage=10, timeSpentSeconds=9)
    expected = figures(service())
    report(service(), "maps", 6, progressPercentage=100, timeSpentSeconds=60, score=3, maxScore=4)

    response = service().delete(MAPS)

    assert (response.status_code, response.data) == (204, b"")
    assert figures(service()) == expected
    (day,) = read(service(), "/api/progress/stats/algebra/timeline?from=2024-01-05&to=2024-01-05")["days"]
    assert day["timeSpentSeconds"] == 80 + 69, "days of activity stay"
    assert journal(app)[-1] == ("progress.corrected", "sam", "algebra", "maps", BY_LMS)
    data = last_data(app, "progress.corrected")
    assert data["after"] is None
    assert data["before"] == {
        "progressPercentage": 100,
        "timeSpentSeconds": 60,
        "scorePercentage": 75,
        "completedAt": moment(6),
        "excusedAt": None,
    }
    after = stored(app)
    assert service().delete(MAPS).status_code == 204
    assert stored(app) == after, "a repeat changes nothing"
    again = service().post("/api/progress", json={"userId": "sam", "contentId": "maps"})
    assert (again.status_code, again.get_json()["progress"]["progressPercentage"]) == (201, 0)


def test_a_removal_leaves_a_completed_enrollment_completed(service: Callers) -> None:
    finish(service(), 5)
    completed = read(service(), "/api/enrollments/sam/algebra")

    assert service().delete(MAPS).status_code == 204

    changed = {"progressPercentage": 33.33, "completedContents": 1, "timeSpentSeconds": 60}
    assert read(service(), "/api/enrollments/sam/algebra") == completed | changed
    finish(service(), 9, "sam", "maps")
    assert read(service(), "/api/enrollments/sam/algebra") == completed | {"lastActivityAt": moment(9)}


def test_a_removal_of_the_only_record_leaves_the_enrollment(service: Callers) -> None:
    service().put("/api/enrollments/sam/algebra", json={"enrolledAt": moment(1)})
    expected = figures(service())
    report(service(), "sets", 5, progressPercentage=10)

    assert service().delete(SETS).status_code == 204

    assert figures(service()) == expected


def test_a_removal_takes_the_record_of_a_retired_content_too(service: Callers, publish: Publish) -> None:
    report(service(), "sets", 4)
    expected = figures(service())
    report(service(), "rings", 5, progressPercentage=60, timeSpentSeconds=30)
    publish("algebra", ["sets", {"id": "maps", "weight": 2, "passingScore": 50}])

    assert service().delete("/api/progress/sam/algebra/rings").status_code == 204

    publish("algebra", ["sets", {"id": "maps", "weight": 2, "passingScore": 50}, {"id": "rings", "weight": 0}])
    assert figures(service()) == expected


@pytest.mark.parametrize("method", ["DELETE", "PUT excuse", "DELETE excuse"])
def test_a_content_that_is_not_the_modules_is_not_found(method: str, service: Callers, app: Flask) -> None:
    report(service(), "sets", 5)
    report(service(), "cells", 5)
    before = stored(app)

    method, _, end = method.partition(" ")
    for place in ("sam/algebra/cells", "sam/algebra/unheard-of", "sam/chess/sets", "nobody/algebra/cells"):
        response = service().call(method, f"/api/progress/{place}/{end}".rstrip("/"))
        assert refusal(response)[:2] == (404, "not-found"), place
    for place, pointer in (
        ("me/algebra/sets", "/userId"),
        ("sam/a b/sets", "/moduleId"),
        ("sam/algebra/.", "/contentId"),
    ):
        response = service().call(method, f"/api/progress/{place}/{end}".rstrip("/"))
        assert refusal(response) == (404, "not-found", {pointer}), place
    assert stored(app) == before


def test_where_there_is_nothing_nothing_is_removed_or_withdrawn(service: Callers, app: Flask) -> None:
    report(service(), "sets", 5, progressPercentage=100)
    before = stored(app)

    for path in (
        MAPS,
        f"{SETS}/excuse",
        f"{MAPS}/excuse",
        CELLS,
        f"{CELLS}/excuse",
        "/api/progress/nobody/algebra/maps",
    ):
        assert service().delete(path).status_code == 204, path
    assert stored(app) == before


# A learner is excused.


def test_an_excused_content_counts_as_done_and_is_no_start(service: Callers, app: Flask) -> None:
    report(service(), "sets", 5, progressPercentage=40)
    before = read(service(), "/api/progress/stats/algebra")

    response = service().put(f"{MAPS}/excuse")

    assert response.status_code == 200
    record = response.get_json()["progress"]
    assert record == {
        "id": record["id"],
        "userId": "sam",
        "moduleId": "algebra",
        "contentId": "maps",
        "status": "excused",
        "progressPercentage": 100,
        "timeSpentSeconds": 0,
        "score": None,
        "maxScore": None,
        "scorePercentage": None,
        "position": None,
        "startedAt": None,
        "completedAt": None,
        "lastActivityAt": None,
    }
    view = read(service(), "/api/progress/sam/algebra")
    assert response.get_json() == {"progress": view["contents"][1]["progress"], "enrollment": view["enrollment"]}
    assert view["contents"][1]["status"] == "excused"
    assert (view["enrollment"]["progressPercentage"], view["enrollment"]["completedContents"]) == (80, 1)
    after = read(service(), "/api/progress/stats/algebra")
    for name in ("started", "completed", "completionRate", "averageTimeSpentSeconds", "averageScorePercentage"):
        assert after["contents"][1][name] == before["contents"][1][name], name
    assert after["averageProgressPercentage"] == (80 + 70) / 2
    assert read(service(), "/api/progress/sam")["continue"]["contentId"] == "sets"
    assert journal(app)[-1] == ("content.excused", "sam", "algebra", "maps", BY_LMS)
    after_all = stored(app)
    assert service().put(f"{MAPS}/excuse").get_json() == response.get_json()
    assert stored(app) == after_all, "a repeat changes nothing"


def test_an_excuse_enrolls_and_completes_as_of_now(service: Callers, app: Flask) -> None:
    began = datetime.now(UTC)
    response = service().put(f"{CELLS}/excuse")
    ended = datetime.now(UTC)

    enrollment = response.get_json()["enrollment"]
    assert (enrollment["status"], enrollment["progressPercentage"]) == ("completed", 100)
    assert (enrollment["completedContents"], enrollment["lastActivityAt"]) == (1, None)
    assert began <= instant(enrollment["enrolledAt"]) <= instant(enrollment["completedAt"]) <= ended
    statistics = read(service(), "/api/progress/stats/biology")["learners"]
    assert (statistics["enrolled"], statistics["started"], statistics["completed"]) == (2, 1, 1)
    assert [one[0] for one in journal(app)] == ["enrollment.created", "content.excused", "enrollment.completed"]
    assert service().put("/api/enrollments/sam/biology", json=enrollment).status_code == 200


def test_an_excuse_of_the_last_content_completes_what_is_active_and_not_what_is_dropped(service: Callers) -> None:
    for status, expected in (("active", "completed"), ("paused", "completed"), ("dropped", "dropped")):
        finish(service(), 5, "sam", "sets")
        service().put("/api/enrollments/sam/algebra", json={"status": status})

        enrollment = service().put(f"{MAPS}/excuse").get_json()["enrollment"]

        assert (enrollment["status"], enrollment["completedContents"]) == (expected, 2)
        forget(service(), "sam")


def test_an_excuse_that_is_withdrawn_leaves_what_the_updates_made(service: Callers, app: Flask) -> None:
    report(service(), "sets", 4, progressPercentage=10, timeSpentSeconds=9)
    report(service(), "maps", 5, progressPercentage=40, timeSpentSeconds=60, score=3, maxScore=4)
    report(service(), "maps", 6, progressPercentage=70, timeSpentSeconds=10)
    expected = figures(service())
    forget(service(), "sam")
    report(service(), "sets", 4, progressPercentage=10, timeSpentSeconds=9)
    report(service(), "maps", 5, progressPercentage=40, timeSpentSeconds=60, score=3, maxScore=4)

    record = service().put(f"{MAPS}/excuse").get_json()["progress"]
    assert (record["status"], record["progressPercentage"], record["timeSpentSeconds"]) == ("excused", 100, 60)
    assert read(service(), "/api/progress/stats/algebra")["contents"][1]["started"] == 1, "uma's"
    record = report(service(), "maps", 6, progressPercentage=70, timeSpentSeconds=10)
    assert (record["status"], record["progressPercentage"], record["timeSpentSeconds"]) == ("excused", 100, 70)

    response = service().delete(f"{MAPS}/excuse")
    assert (response.status_code, response.data) == (204, b"")
    assert figures(service()) == expected
    assert journal(app)[-1] == ("progress.corrected", "sam", "algebra", "maps", BY_LMS)
    data = last_data(app, "progress.corrected")
    assert (data["before"]["progressPercentage"], data["after"]["progressPercentage"]) == (100, 70)
    assert (data["before"]["excusedAt"] is None, data["after"]["excusedAt"]) == (False, None)


def test_an_excuse_without_updates_leaves_no_record_when_it_is_withdrawn(service: Callers) -> None:
    report(service(), "sets", 4, progressPercentage=10, timeSpentSeconds=9)
    expected = figures(service())

    assert service().put(f"{MAPS}/excuse").status_code == 200
    assert figures(service()) != expected
    assert service().delete(f"{MAPS}/excuse").status_code == 204

    assert figures(service()) == expected


def test_the_first_update_of_an_excused_content_starts_it(service: Callers) -> None:
    record_id = service().put(f"{MAPS}/excuse").get_json()["progress"]["id"]

    update = {"userId": "sam", "contentId": "maps", "occurredAt": moment(5), "progressPercentage": 100}
    response = service().post("/api/progress", json=update | {"score": 1, "maxScore": 1})

    record = response.get_json()["progress"]
    assert (response.status_code, record["id"], record["status"]) == (201, record_id, "excused")
    assert (record["startedAt"], record["completedAt"], record["lastActivityAt"]) == (moment(5),) * 3
    assert service().post("/api/progress", json=update).status_code == 200
    assert service().delete(f"{MAPS}/excuse").status_code == 204
    assert read(service(), "/api/progress/sam/algebra")["contents"][1]["progress"] == record | {"status": "completed"}


def test_a_request_to_complete_starts_an_excused_content_too(service: Callers) -> None:
    record_id = service().put(f"{MAPS}/excuse").get_json()["progress"]["id"]
    path, body = f"/api/progress/{record_id}/complete", {"occurredAt": moment(5), "maxScore": 1}
    assert refusal(service().put(path, json=body | {"score": 0}))[:2] == (409, "completion-criteria-not-met")

    response = service().put(path, json=body | {"score": 1})

    record = response.get_json()["progress"]
    assert (response.status_code, record["id"], record["status"]) == (200, record_id, "excused")
    assert (record["startedAt"], record["completedAt"]) == (moment(5),) * 2


def test_a_removal_takes_an_excuse_too(service: Callers) -> None:
    report(service(), "sets", 4)
    expected = figures(service())
    report(service(), "maps", 5, progressPercentage=40)
    assert service().put(f"{MAPS}/excuse").status_code == 200

    assert service().delete(MAPS).status_code == 204

    assert figures(service()) == expected


def test_a_repeat_of_an_excuse_with_its_key_gets_the_stored_answer(service: Callers, app: Flask) -> None:
    first = service().put(f"{MAPS}/excuse", headers=KEYED)
    assert service().delete(f"{MAPS}/excuse").status_code == 204
    before = stored(app)

    repeat = service().put(f"{MAPS}/excuse", headers=KEYED)

    assert (repeat.status_code, repeat.data) == (200, first.data)
    assert repeat.headers["Idempotency-Replayed"] == "true"
    assert stored(app) == before
    assert refusal(service().put(f"{SETS}/excuse", headers=KEYED))[1] == "idempotency-key-reused"


# Two ids are one person's.

KIMS: list[tuple[str, int, dict[str, Any]]] = [
    ("sets", 3, {"progressPercentage": 60, "timeSpentSeconds": 30, "position": "kim's"}),
    ("maps", 7, {"progressPercentage": 100, "timeSpentSeconds": 20, "score": 1, "maxScore": 4}),
    ("cells", 2000, {"progressPercentage": 50, "timeSpentSeconds": 5}),
]
SAMS: list[tuple[str, int, dict[str, Any]]] = [
    ("sets", 5, {"progressPercentage": 40, "timeSpentSeconds": 10, "position": "sam's"}),
    ("maps", 4, {"progressPercentage": 20, "score": 3, "maxScore": 4, "timeSpentSeconds": 1}),
    ("rings", 6, {"progressPercentage": 100}),
]


@pytest.mark.parametrize(
    ("kims", "sams"),
    [(KIMS, SAMS), (SAMS, KIMS), (KIMS, []), ([], KIMS), (KIMS[:1], SAMS[1:]), (KIMS[2:], SAMS)],
    ids=["both", "the other way", "the first alone", "the second alone", "other contents", "other modules"],
)
def test_two_merged_learners_are_as_one_who_reported_everything(
    kims: Any, sams: Any, service: Callers, app: Flask
) -> None:
    def timelines() -> Any:
        return [
            read(service(), f"/api/progress/stats/{module_id}/timeline?from=2024-01-04&to=2024-01-08")
            for module_id in ("algebra", "biology")
        ]

    for content_id, minute, fields in [*sams, *kims]:
        report(service(), content_id, minute, **fields)
    expected = figures(service()), timelines()
    forget(service(), "sam")
    for user_id, updates in (("kim", kims), ("sam", sams)):
        for content_id, minute, fields in updates:
            report(service(), content_id, minute, user_id, **fields)

    response = service().post("/api/progress/kim/merge", json={"into": "sam"})

    assert (response.status_code, response.data) == (204, b"")
    assert (figures(service()), timelines()) == expected
    assert read(service(), "/api/progress/kim")["modules"] == []
    left = [(name, row) for name, rows in stored(app).items() for row in rows if "kim" in row]
    assert [name for name, _ in left] == ["changes"] * bool(kims)
    merged = ("learner.merged", "kim", None, None, BY_LMS)
    assert [one for one in journal(app) if "kim" in one] == [merged] * bool(kims)
    after = stored(app)
    assert service().post("/api/progress/kim/merge", json={"into": "sam"}).status_code == 204
    assert stored(app) == after, "a repeat changes nothing"


def test_of_two_records_the_one_of_the_learner_who_remains_keeps_its_id(service: Callers) -> None:
    kims = [report(service(), content_id, 5, "kim")["id"] for content_id in ("sets", "maps")]
    sams = report(service(), "maps", 5)["id"]

    service().post("/api/progress/kim/merge", json={"into": "sam"})

    sets, maps, _ = read(service(), "/api/progress/sam/algebra")["contents"]
    assert (sets["progress"]["id"], maps["progress"]["id"]) == (kims[0], sams)
    assert service().put(f"/api/progress/{kims[1]}/complete").status_code == 404


def test_the_changes_of_a_merged_learner_become_the_others(service: Callers, student: Callers, app: Flask) -> None:
    finish(service(), 5, "kim")
    send(student("kim"), "cells", progressPercentage=100)
    told = journal(app)

    service().post("/api/progress/kim/merge", json={"into": "sam"})

    sams = [(kind, "sam", *place, ("sam" if by[0] == "kim" else by[0], by[1])) for kind, _, *place, by in told]
    assert journal(app) == [*sams, ("learner.merged", "kim", None, None, BY_LMS)]
    assert last_data(app, "learner.merged") == {"into": "sam"}


def test_nobody_is_told_to_be_merged_into_themselves(service: Callers) -> None:
    report(service(), "sets", 5, "kim")
    service().post("/api/progress/kim/merge", json={"into": "sam"})
    service().post("/api/progress/sam/merge", json={"into": "kim"})

    told = read(service(), "/api/progress/kim/export")["changes"]
    merged = [(change["userId"], change["data"]["into"]) for change in told if change["type"] == "learner.merged"]
    assert merged == [("kim", "sam"), ("sam", "kim")]


def test_a_completion_that_only_the_merge_makes_is_told(service: Callers, app: Flask) -> None:
    report(service(), "maps", 7, "kim", progressPercentage=100, score=1, maxScore=4)
    report(service(), "maps", 5, score=3, maxScore=4)
    finish(service(), 6, "sam", "sets")
    told = len(journal(app))

    service().post("/api/progress/kim/merge", json={"into": "sam"})

    assert [one[:4] for one in journal(app)[told:]] == [
        ("learner.merged", "kim", None, None),
        ("content.completed", "sam", "algebra", "maps"),
        ("enrollment.completed", "sam", "algebra", None),
    ]
    assert read(service(), "/api/enrollments/sam/algebra")["completedAt"] == moment(7)


@pytest.mark.parametrize(("first", "second"), [("kim", "sam"), ("sam", "kim")])
def test_a_completion_that_one_of_two_merged_learners_had_is_not_told_again(
    first: str, second: str, service: Callers, app: Flask
) -> None:
    finish(service(), 5, "kim")
    report(service(), "sets", 7, "sam", progressPercentage=50)
    service().put(f"/api/progress/{second}/algebra/sets/excuse")
    told = len(journal(app))

    service().post(f"/api/progress/{first}/merge", json={"into": second})

    assert [one[0] for one in journal(app)[told:]] == ["learner.merged"]
    assert read(service(), f"/api/enrollments/{second}/algebra")["status"] == "completed"


def test_a_merge_keeps_excuses_credits_and_who_counts(service: Callers, app: Flask) -> None:
    report(service(), "sets", 5)
    service().put("/api/enrollments/sam/algebra", json={"counted": False, "status": "paused"})
    service().put("/api/progress/kim/algebra/sets/excuse")
    credit = {"status": "completed", "completedAt": moment(1), "enrolledAt": moment(0)}
    service().put("/api/enrollments/kim/biology", json=credit)
    service().put("/api/enrollments/kim/algebra", json={"enrolledAt": moment(2)})
    told = len(journal(app))

    service().post("/api/progress/kim/merge", json={"into": "sam"})

    assert [one[0] for one in journal(app)[told:]] == ["learner.merged"]
    algebra, biology = (read(service(), f"/api/enrollments/sam/{module_id}") for module_id in ("algebra", "biology"))
    assert (algebra["status"], algebra["counted"], algebra["enrolledAt"]) == ("paused", False, moment(2))
    assert read(service(), "/api/progress/sam/algebra")["contents"][0]["status"] == "excused"
    assert biology.items() >= credit.items()
    finish(service(), 0, "sam", "cells")
    assert read(service(), "/api/enrollments/sam/biology")["completedAt"] == moment(1), "the platform's date stands"


def test_a_merge_forgets_the_stored_answers_of_the_first_learner(
    service: Callers, student: Callers, app: Flask
) -> None:
    student("kim").post("/api/progress", json={"contentId": "sets"}, headers=KEYED)
    service().post("/api/progress", json={"contentId": "maps", "userId": "kim"}, headers=KEYED)
    service().post("/api/progress", json={"contentId": "maps", "userId": "sam"}, headers={"Idempotency-Key": "two"})

    service().post("/api/progress/kim/merge", json={"into": "sam"})

    assert [row[:2] for row in stored(app)["stored_answers"]] == [("lms", "two")]


def test_a_repeat_of_a_merge_with_its_key_gets_the_stored_answer(service: Callers, app: Flask) -> None:
    report(service(), "sets", 5, "kim")
    first = service().post("/api/progress/kim/merge", json={"into": "sam"}, headers=KEYED)
    report(service(), "sets", 6, "kim")
    before = stored(app)

    repeat = service().post("/api/progress/kim/merge", json={"into": "sam"}, headers=KEYED)

    assert (first.status_code, repeat.status_code, repeat.data) == (204, 204, b"")
    assert repeat.headers["Idempotency-Replayed"] == "true"
    assert "Content-Type" not in repeat.headers
    assert stored(app) == before
    assert service().post("/api/progress/kim/merge", json={"into": "sam"}).status_code == 204
    assert stored(app) != before


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"/into"}),
        ({"into": "kim"}, {"/into"}),
        ({"into": "me"}, {"/into"}),
        ({"into": ""}, {"/into"}),
        ({"into": None}, {"/into"}),
        ({"into": "sam", "from": "kim"}, {"/from"}),
    ],
)
def test_a_wrong_merge_is_refused_and_changes_nothing(
    body: dict[str, Any], pointers: set[str], service: Callers, app: Flask
) -> None:
    report(service(), "sets", 5, "kim")
    before = stored(app)

    assert refusal(service().post("/api/progress/kim/merge", json=body, headers=KEYED)) == (*INVALID, pointers)
    assert refusal(service().post("/api/progress/me/merge", json={"into": "sam"}))[:2] == (404, "not-found")
    assert stored(app) == before


# Who puts right is named, and rights are no wider than the contract's table.


def test_the_journal_names_whoever_puts_right(service: Callers, admin: Callers, app: Flask) -> None:
    record = report(service(), "sets", 5, progressPercentage=40)
    correct(admin(), record, progressPercentage=30)
    admin("eve").put(f"{SETS}/excuse")
    admin().delete(SETS)
    admin().post("/api/progress/sam/merge", json={"into": "kim"})
    admin("eve").delete("/api/enrollments/kim/algebra")

    assert [(one[0], one[-1][0]) for one in journal(app)] == [
        ("enrollment.created", "lms"),
        ("progress.corrected", "ada"),
        ("content.excused", "eve"),
        ("progress.corrected", "ada"),
        ("learner.merged", "ada"),
        ("enrollment.withdrawn", "eve"),
    ]


def test_what_is_put_right_under_an_enrollment_that_does_not_count_is_in_no_statistic(service: Callers) -> None:
    def statistics() -> Any:
        return {name: shown for name, shown in figures(service()).items() if name != "learner"}

    record = report(service(), "sets", 5, progressPercentage=40, timeSpentSeconds=10)
    service().put("/api/enrollments/sam/algebra", json={"counted": False})
    roster = statistics()["algebra"][1]
    before = [statistics()["algebra"][0], statistics()["algebra"][2]]

    correct(service(), record, progressPercentage=100, timeSpentSeconds=20)
    service().put(f"{MAPS}/excuse")

    assert [statistics()["algebra"][0], statistics()["algebra"][2]] == before
    assert statistics()["algebra"][1] != roster, "the roster shows everybody"


def test_corrections_of_a_learner_change_nothing_in_another_of_their_modules(service: Callers, app: Flask) -> None:
    report(service(), "cells", 4, progressPercentage=40)
    record = report(service(), "sets", 5, progressPercentage=40)
    with app.app_context(), db.engine.connect() as connection:
        before = connection.execute(select(Enrollment).filter_by(user_id="sam", module_id="biology")).all()

    correct(service(), record, progressPercentage=30)
    service().put(f"{MAPS}/excuse")
    service().delete(SETS)
    service().delete("/api/enrollments/sam/algebra")

    with app.app_context(), db.engine.connect() as connection:
        assert connection.execute(select(Enrollment).filter_by(user_id="sam")).all() == before
