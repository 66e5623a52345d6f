"""POST /api/progress/batch, and PUT /api/progress/{id}/complete."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.callers import Caller
from tests.conftest import Callers, Publish, Statements, application, stored
from tests.progress.sending import INVALID, instant, moment, refusal, send

QUIZ = {"id": "quiz", "type": "quiz", "passingScore": 60}


@pytest.fixture(autouse=True)
def _catalog(publish: Publish, student: Callers) -> None:
    """Two modules, and a learner who is there as noise."""
    publish("algebra", ["intro", QUIZ])
    publish("biology", ["cells"])
    send(student("nora"), "intro", progressPercentage=70, timeSpentSeconds=7)
    send(student("nora"), "cells", progressPercentage=100)


def batch(caller: Caller, *updates: Any) -> TestResponse:
    response: TestResponse = caller.post("/api/progress/batch", json={"updates": updates})
    return response


def update(content_id: Any = "intro", **fields: Any) -> dict[str, Any]:
    return {"contentId": content_id, **fields}


def read(caller: Caller, learner: str, content_id: str) -> dict[str, Any]:
    """Return a learner's record as the view of its module shows it."""
    module = "biology" if content_id == "cells" else "algebra"
    contents = caller.get(f"/api/progress/{learner}/{module}").get_json()["contents"]
    (record,) = [content["progress"] for content in contents if content["contentId"] == content_id]
    return dict(record)


def test_a_batch_reports_on_several_learners_and_modules_and_counts_what_came_of_it(service: Callers) -> None:
    response = batch(
        service(),
        update("intro", userId="sam", progressPercentage=100),
        update("quiz", userId="sam", progressPercentage=50),
        update("cells", userId="tess", progressPercentage=40),
        update("intro", userId="nora", progressPercentage=100),
        update("intro", userId="nora", progressPercentage=100),
        update("cells", userId="nora", progressPercentage=100),
        update("cells", userId="sam", progressPercentage=100),
        update("quiz", userId="sam", score=3, maxScore=5, progressPercentage=100),
    )
    assert response.status_code == 200
    answer = response.get_json()
    completions = answer.pop("completions")
    assert answer == {"received": 8, "started": 4, "completed": 4, "enrollmentsCompleted": 2}
    assert [(one["userId"], one["moduleId"], one["contentId"]) for one in completions] == [
        ("sam", "algebra", "intro"),
        ("nora", "algebra", "intro"),
        ("sam", "biology", "cells"),
        ("sam", "algebra", "quiz"),
        ("sam", "biology", None),
        ("sam", "algebra", None),
    ]
    told = service().get("/api/progress/sam/algebra/history").get_json()["changes"]
    assert {one["completedAt"] for one in completions} == {told[0]["time"]}
    shown = [read(service(), *key)["progressPercentage"] for key in (("sam", "quiz"), ("tess", "cells"))]
    assert shown == [100, 40]


def test_updates_of_a_batch_are_applied_in_order(student: Callers, service: Callers) -> None:
    steps: list[dict[str, Any]] = [
        {"position": "a", "timeSpentSeconds": 60, "progressPercentage": 33.9},
        {"position": "b", "timeSpentSeconds": 1, "progressPercentage": 20},
        {"score": 5, "maxScore": 10},
    ]
    assert batch(student(), *(update(**step) for step in steps)).status_code == 200
    shown = read(student(), "sam", "intro")
    assert [shown[name] for name in ("position", "timeSpentSeconds", "progressPercentage", "score")] == ["b", 61, 33, 5]

    dated = [update(**step, userId="tess", occurredAt=moment(9 - at)) for at, step in enumerate(steps)]
    assert batch(service(), *dated).status_code == 200
    shown = read(service(), "tess", "intro")
    assert (shown["position"], shown["startedAt"], shown["lastActivityAt"]) == ("a", moment(7), moment(9))


def test_a_batch_leaves_what_the_same_updates_leave_one_by_one(service: Callers) -> None:
    steps = [
        update("intro", progressPercentage=50, timeSpentSeconds=30, occurredAt=moment(4), position="x"),
        update("quiz", score=1, maxScore=2, progressPercentage=100, occurredAt=moment(2)),
        update("intro", progressPercentage=100, occurredAt=moment(6)),
        update("cells", timeSpentSeconds=3, occurredAt=moment(1)),
        update("quiz", score=2, maxScore=2, occurredAt=moment(5)),
        update("intro", timeSpentSeconds=9, occurredAt=moment(8), position="y"),
    ]
    for step in steps:
        assert service().post("/api/progress", json=step | {"userId": "sam"}).status_code in {200, 201}
    assert batch(service(), *(step | {"userId": "tess"} for step in steps)).status_code == 200
    for module in ("algebra", "biology"):
        alone, together = (service().get(f"/api/progress/{name}/{module}").get_json() for name in ("sam", "tess"))
        for document in (alone, together):
            for part in [document["enrollment"], *(content["progress"] for content in document["contents"])]:
                part.pop("userId"), part.pop("id", None)
        assert alone == together


def test_a_batch_enrolls_as_of_the_earliest_update_of_each_module(service: Callers) -> None:
    steps = [update("cells", occurredAt=moment(5)), update("intro", occurredAt=moment(7))]
    steps += [update("quiz", occurredAt=moment(3)), update("cells", occurredAt=moment(1))]
    assert batch(service(), *(step | {"userId": "sam"} for step in steps)).status_code == 200
    modules = service().get("/api/progress/sam").get_json()["modules"]
    assert {one["moduleId"]: one["enrolledAt"] for one in modules} == {"algebra": moment(3), "biology": moment(1)}


@pytest.mark.parametrize("size", [1, 1000])
def test_a_batch_has_1_to_1000_updates(student: Callers, size: int) -> None:
    response = batch(student(), *[update(timeSpentSeconds=14_400)] * size)
    counts = {"received": size, "started": 1, "completed": 0, "enrollmentsCompleted": 0}
    assert response.get_json() == {**counts, "completions": []}
    assert read(student(), "sam", "intro")["timeSpentSeconds"] == size * 14_400


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"updates": []}, {"/updates"}),
        ({"updates": [update()] * 1001}, {"/updates"}),
        ({"updates": update()}, {"/updates"}),
        ({"updates": None}, {"/updates"}),
        ({}, {"/updates"}),
        (update(), {"/updates", "/contentId"}),
        ({"updates": [update()], "userId": "sam"}, {"/userId"}),
    ],
)
def test_what_is_no_batch_is_refused(app: Flask, student: Callers, body: dict[str, Any], pointers: set[str]) -> None:
    before = stored(app)
    response = student().post("/api/progress/batch", json=body)
    assert refusal(response) == (*INVALID, pointers)
    assert stored(app) == before


def test_every_wrong_field_of_a_batch_is_named_and_nothing_is_applied(app: Flask, student: Callers) -> None:
    before = stored(app)
    updates: list[Any] = [update(progressPercentage=9) for _ in range(20)]
    updates[1] = update(progressPercentage=101, timeSpentSeconds=True)
    updates[3] = "intro"
    updates[4] = {}
    updates[17] = update(score=11, maxScore=10)
    updates[18] = update(score=1, colour="red")
    wrong = {"1/progressPercentage", "1/timeSpentSeconds", "3", "4/contentId", "17/score", "18/maxScore", "18/colour"}
    assert refusal(batch(student(), *updates)) == (*INVALID, {f"/updates/{place}" for place in wrong})
    assert stored(app) == before


def test_contents_that_are_not_in_the_catalog_are_named_and_nothing_is_applied(app: Flask, student: Callers) -> None:
    before = stored(app)
    response = batch(student(), update("cells"), update("Intro"), update("intro"), update("biology"))
    assert refusal(response) == (422, "unknown-content", {"/updates/1/contentId", "/updates/3/contentId"})
    assert stored(app) == before


def test_wrong_fields_and_unknown_contents_are_named_together(
    app: Flask, student: Callers, service: Callers, statements: Statements
) -> None:
    before = stored(app)
    updates = [update("Intro"), update(score=1), update("biology", progressPercentage=101), update("quiz"), update(1)]
    wrong = {"1/maxScore", "2/progressPercentage", "4/contentId"}
    unknown = {"0/contentId", "2/contentId"}
    named = (*INVALID, {f"/updates/{place}" for place in wrong | unknown})

    with statements() as sent:
        assert refusal(batch(student(), *updates)) == named
    assert len([statement for statement in sent if "SELECT" in statement]) == 1
    assert refusal(batch(service(), *(one | {"userId": "sam"} for one in updates))) == named
    alien = update("nowhere", userId="nora"), update("nowhere", userId="me")
    assert refusal(batch(student(), *updates, *alien))[2] == named[2] | {"/updates/6/userId", "/updates/6/contentId"}
    assert stored(app) == before


@pytest.mark.parametrize("role", ["student", "instructor"])
@pytest.mark.parametrize("foreign", [{"userId": "nora"}, {"occurredAt": moment()}])
def test_learners_send_only_their_own_updates_as_of_now(app: Flask, role: str, foreign: dict[str, str]) -> None:
    before = stored(app)
    response = batch(Caller(app, role, "ines"), update(userId="ines"), update(**foreign), update("cells", **foreign))
    (name,) = foreign
    assert refusal(response) == (403, "forbidden", {f"/updates/1/{name}", f"/updates/2/{name}"})
    assert stored(app) == before


def test_the_shape_of_a_batch_is_looked_at_before_whose_it_is(student: Callers) -> None:
    response = batch(student(), update(userId="nora"), update(score=1))
    assert refusal(response) == (*INVALID, {"/updates/1/maxScore"})


def test_a_service_says_whose_each_update_is(app: Flask, service: Callers) -> None:
    before = stored(app)
    response = batch(service(), update(userId="sam"), update(), update("cells"))
    assert refusal(response) == (*INVALID, {"/updates/1/userId", "/updates/2/userId"})
    assert stored(app) == before


@pytest.fixture
def closed(database_url: str) -> Iterator[Flask]:
    """The service as it is where learners are enrolled by the platform alone."""
    with application(database_url, AUTO_ENROLL=False) as app:
        yield app


def test_one_update_that_needs_an_enrollment_refuses_the_whole_batch(app: Flask, closed: Flask) -> None:
    before = stored(app)
    updates = [update("cells", userId="nora"), update("cells", userId="sam"), update("intro", userId="tess")]
    status, slug, pointers = refusal(batch(Caller(closed, "service", "lms"), *updates))
    assert (status, slug) == (403, "not-enrolled")
    assert {pointer.split("/")[2] for pointer in pointers} == {"1", "2"}
    assert stored(app) == before


def complete(caller: Caller, record: dict[str, Any], **kwargs: Any) -> TestResponse:
    response: TestResponse = caller.put(f"/api/progress/{record['id']}/complete", **kwargs)
    return response


@pytest.mark.parametrize(
    "body", [{}, {"data": b"", "content_type": "application/json"}, {"json": {}}], ids=["none", "empty", "object"]
)
def test_a_record_is_completed_whatever_its_percentage(student: Callers, body: dict[str, Any]) -> None:
    record = send(student(), "cells", progressPercentage=3, timeSpentSeconds=5, position="here")["progress"]
    before = datetime.now(UTC)
    response = complete(student(), record, **body)
    assert response.status_code == 200
    document = response.get_json()
    now = document["progress"]["completedAt"]
    assert before <= instant(now) <= datetime.now(UTC)
    completed = {"status": "completed", "progressPercentage": 100, "completedAt": now, "lastActivityAt": now}
    assert document["progress"] == record | completed
    assert (completed | {"completedContents": 1}).items() <= document["enrollment"].items()


def test_effort_sent_along_with_a_completion_is_recorded(student: Callers) -> None:
    record = send(student(), "intro", timeSpentSeconds=5, position="here")["progress"]
    effort = {"score": 4, "maxScore": 5, "position": "end"}
    document = complete(student(), record, json={**effort, "timeSpentSeconds": 9}).get_json()
    assert (effort | {"timeSpentSeconds": 14, "scorePercentage": 80}).items() <= document["progress"].items()
    assert document["enrollment"]["timeSpentSeconds"] == 14


@pytest.mark.parametrize("reported", [{}, {"score": 5.9999, "maxScore": 10}])
@pytest.mark.parametrize("sent", [{}, {"score": 1, "maxScore": 2, "timeSpentSeconds": 60, "position": "end"}])
def test_a_completion_needs_the_passing_score_and_is_otherwise_refused(
    app: Flask, student: Callers, reported: dict[str, float], sent: dict[str, Any]
) -> None:
    record = send(student(), "quiz", progressPercentage=100, **reported)["progress"]
    before = stored(app)
    assert refusal(complete(student(), record, json=sent))[:2] == (409, "completion-criteria-not-met")
    assert stored(app) == before


@pytest.mark.parametrize(
    ("reported", "sent"),
    [
        ({}, {"score": 6, "maxScore": 10}),
        ({"score": 5, "maxScore": 10}, {"score": 6, "maxScore": 10}),
        ({"score": 6, "maxScore": 10}, {}),
        ({"score": 6, "maxScore": 10}, {"score": 0, "maxScore": 10}),
    ],
)
def test_the_best_score_decides_whether_a_completion_passes(
    student: Callers, reported: dict[str, float], sent: dict[str, float]
) -> None:
    record = send(student(), "quiz", progressPercentage=5, **reported)["progress"]
    shown = complete(student(), record, json=sent).get_json()["progress"]
    assert (shown["status"], shown["progressPercentage"], shown["scorePercentage"]) == ("completed", 100, 60)


def test_on_a_completed_record_it_is_an_ordinary_update(publish: Publish, student: Callers) -> None:
    record = send(student(), "cells", progressPercentage=100, timeSpentSeconds=5)
    publish("biology", [{"id": "cells", "passingScore": 100}])
    document = complete(student(), record["progress"], json={"score": 1, "maxScore": 2, "timeSpentSeconds": 9})
    shown = document.get_json()
    assert {"timeSpentSeconds": 14, "scorePercentage": 50}.items() <= shown["progress"].items()
    for part in ("progress", "enrollment"):
        assert shown[part]["completedAt"] == record[part]["completedAt"]
        assert instant(shown[part]["lastActivityAt"]) > instant(record[part]["lastActivityAt"])


def test_a_service_says_when_a_record_was_completed_which_may_be_earlier_but_not_later(
    app: Flask, service: Callers, student: Callers
) -> None:
    record = send(service(), "intro", userId="sam", occurredAt=moment(1))["progress"]
    shown = [
        complete(service(), record, json={"occurredAt": moment(minute)}).get_json()["progress"]["completedAt"]
        for minute in (5, 9, 3)
    ]
    assert shown == [moment(5), moment(5), moment(3)]
    before = stored(app)
    assert refusal(complete(student(), record, json={"occurredAt": moment(2)}))[:2] == (403, "forbidden")
    assert stored(app) == before


@pytest.mark.parametrize("role", ["student", "instructor"])
def test_another_learners_record_is_not_to_be_found(app: Flask, role: str) -> None:
    record = read(Caller(app, "admin", "ada"), "nora", "intro")
    before = stored(app)
    refused = [complete(Caller(app, role, "ines"), one, json={}) for one in (record, {"id": uuid4()})]
    for response in refused:
        assert refusal(response) == (404, "not-found", set())
    theirs, nobodys = (response.get_json() | {"requestId": None} for response in refused)
    assert theirs == nobodys
    assert stored(app) == before


@pytest.mark.parametrize("role", ["admin", "service"])
def test_admins_and_services_complete_anybodys_record(app: Flask, role: str) -> None:
    caller = Caller(app, role, "ada")
    document = complete(caller, read(caller, "nora", "intro")).get_json()
    assert (document["progress"]["userId"], document["progress"]["status"]) == ("nora", "completed")


@pytest.mark.parametrize("role", ["admin", "service", "student"])
def test_a_record_is_found_by_its_learner_too_and_not_by_another(app: Flask, student: Callers, role: str) -> None:
    caller, record = Caller(app, role, "sam"), send(student("sam"), "intro")["progress"]
    before = stored(app)
    for query in ("userId=nora", "userId=tess"):
        response = caller.put(f"/api/progress/{record['id']}/complete?{query}")
        assert refusal(response) == (404, "not-found", set())
    assert stored(app) == before
    assert refusal(caller.put(f"/api/progress/{record['id']}/complete?userId=*"))[:2] == (400, "malformed-request")

    document = caller.put(f"/api/progress/{record['id']}/complete?userId=sam").get_json()
    assert (document["progress"]["id"], document["progress"]["status"]) == (record["id"], "completed")


def test_what_is_no_records_id_is_not_found(app: Flask, admin: Callers) -> None:
    before = stored(app)
    for record_id in ("1", "nora", "0" * 31, "g" * 32, "a" * 200, "batch", "me"):
        assert refusal(complete(admin(), {"id": record_id})) == (404, "not-found", set())
    assert refusal(complete(admin(), {"id": "%00"})) == (404, "not-found", {"/recordId"})
    assert stored(app) == before


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"progressPercentage": 100}, {"/progressPercentage"}),
        ({"userId": "sam", "occurredAt": "soon"}, {"/userId", "/occurredAt"}),
        ({"contentId": "intro", "completes": False}, {"/contentId", "/completes"}),
        ({"score": 1, "timeSpentSeconds": -1, "position": None}, {"/maxScore", "/timeSpentSeconds", "/position"}),
    ],
)
def test_a_wrong_completion_is_refused_before_it_is_asked_whose_it_is(
    app: Flask, student: Callers, admin: Callers, body: dict[str, Any], pointers: set[str]
) -> None:
    own, others = send(student(), "intro")["progress"], read(admin(), "nora", "intro")
    before = stored(app)
    for record in (own, others, {"id": uuid4()}):
        assert refusal(complete(student(), record, json=body)) == (*INVALID, pointers)
    assert stored(app) == before


@pytest.mark.parametrize("erased", ["sam", "nora"])
def test_a_stored_answer_that_names_several_learners_goes_with_each(service: Callers, erased: str) -> None:
    updates = [update("intro", userId=user_id, progressPercentage=100) for user_id in ("sam", "nora")]

    def send_once() -> TestResponse:
        key = {"Idempotency-Key": "once"}
        response: TestResponse = service().post("/api/progress/batch", json={"updates": updates}, headers=key)
        return response

    named = [completion["userId"] for completion in send_once().get_json()["completions"]]
    assert named == ["sam", "nora"]
    assert "Idempotency-Replayed" in send_once().headers
    assert service().delete(f"/api/progress/{erased}").status_code == 204
    assert [completion["userId"] for completion in send_once().get_json()["completions"]] == [erased]
