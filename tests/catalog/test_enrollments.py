"""Enrolling learners, changing, giving credit, resetting, withdrawing and erasing: what happens, and to nobody else."""

import json
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from progress_service.store import database, verification
from progress_service.store.database import db
from progress_service.store.models import Change
from tests.callers import Caller
from tests.conftest import Callers, Publish, stored
from tests.progress.sending import refusal

PATH = "/api/enrollments/sam/algebra"
ENROLLED_AT = "2026-01-05T08:30:00Z"
BAD_IDS = [".sam", "=1", "%27a", "a%20b", "%C3%A9", "a%00", "x" * 256, "a%0A"]
BAD_USER_IDS = ["me", "stats", "batch", "events", *BAD_IDS]


@pytest.fixture(autouse=True)
def modules(publish: Publish) -> None:
    """Publish two modules; uma is at work in both."""
    publish("algebra", ["sets", "maps"])
    publish("biology", ["cells"])


def study(caller: Caller, *content_ids: str, user_id: str = "sam", percentage: int = 100) -> None:
    """Spend a minute on each of the contents, and reach the percentage."""
    effort = {"userId": user_id, "progressPercentage": percentage, "timeSpentSeconds": 60}
    updates = [{"contentId": content_id, **effort} for content_id in content_ids]
    assert caller.post("/api/progress/batch", json={"updates": updates}).status_code == 200


def enroll(caller: Caller, user_id: str = "sam", module_id: str = "algebra", **change: Any) -> Any:
    response = caller.put(f"/api/enrollments/{user_id}/{module_id}", json=change)
    assert response.status_code in {200, 201}, response.text
    return response.get_json()


def others(caller: Caller) -> list[Any]:
    """Return what must stay as it is when something happens to sam in algebra."""
    paths = ("/api/progress/uma", "/api/progress/uma/algebra", "/api/progress/sam/biology", "/api/catalog/modules")
    return [caller.get(path).get_json() for path in paths]


def test_enrolling_is_201_and_starts_at_nothing(service: Callers) -> None:
    enroll(service(), "uma")

    began = datetime.now(UTC)
    response = service().put(PATH, json={})
    ended = datetime.now(UTC)

    assert response.status_code == 201
    enrollment = response.get_json()
    assert began <= datetime.fromisoformat(enrollment["enrolledAt"]) <= ended
    assert enrollment == service().get(PATH).get_json()
    assert enrollment == {
        "userId": "sam",
        "moduleId": "algebra",
        "status": "active",
        "progressPercentage": 0,
        "completedContents": 0,
        "totalContents": 2,
        "timeSpentSeconds": 0,
        "enrolledAt": enrollment["enrolledAt"],
        "completedAt": None,
        "lastActivityAt": None,
        "counted": True,
    }


@pytest.mark.parametrize(
    ("status", "enrolled_at"),
    [
        ("active", ENROLLED_AT),
        ("paused", "2026-01-05T10:00:00.250+01:30"),
        ("dropped", "2026-01-04t23:30:00-09:00"),
        ("active", "1970-01-01T00:00:00Z"),
    ],
)
def test_an_enrollment_begins_as_it_is_told(status: str, enrolled_at: str, service: Callers) -> None:
    response = service().put(PATH, json={"status": status, "enrolledAt": enrolled_at})

    assert response.status_code == 201
    assert response.get_json()["status"] == status
    assert response.get_json()["enrolledAt"].endswith("Z")
    assert datetime.fromisoformat(response.get_json()["enrolledAt"]) == datetime.fromisoformat(enrolled_at.upper())
    assert service().get(PATH).get_json() == response.get_json()


def test_an_enrollment_changes_in_what_is_given_and_nothing_else(service: Callers) -> None:
    study(service(), "sets", "cells", percentage=50)
    study(service(), "sets", "cells", user_id="uma", percentage=70)
    before, untouched = service().get(PATH).get_json(), others(service())

    changes: list[dict[str, Any]] = [
        {"status": "paused"},
        {},
        {"enrolledAt": ENROLLED_AT},
        {"status": "dropped"},
        {"status": "paused", "enrolledAt": "2026-02-01T00:00:00Z"},
        {"status": "active"},
        {"counted": False},
        {"counted": True, "status": "paused"},
    ]
    for change in changes:
        response = service().put(PATH, json=change)
        assert response.status_code == 200
        assert response.get_json() == (before := before | change)
        assert service().get(PATH).get_json() == before
    assert others(service()) == untouched


def test_a_learner_enrolled_by_an_update_is_changed_and_not_enrolled_again(service: Callers) -> None:
    study(service(), "sets", percentage=50)

    response = service().put(PATH, json={})

    assert response.status_code == 200
    assert (response.get_json()["progressPercentage"], response.get_json()["timeSpentSeconds"]) == (25, 60)


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"status": "finished"}, {"/status"}),
        ({"status": "Active"}, {"/status"}),
        ({"status": None}, {"/status"}),
        ({"status": 1, "enrolledAt": 1}, {"/status", "/enrolledAt"}),
        ({"enrolledAt": None}, {"/enrolledAt"}),
        ({"enrolledAt": "2026-01-05T08:30:00"}, {"/enrolledAt"}),
        ({"enrolledAt": "2026-01-05"}, {"/enrolledAt"}),
        ({"enrolledAt": "2026-02-30T08:30:00Z"}, {"/enrolledAt"}),
        ({"enrolledAt": "1969-12-31T23:59:59Z"}, {"/enrolledAt"}),
        ({"enrolledAt": "1970-01-01T00:00:00+00:01"}, {"/enrolledAt"}),
        ({"enrolledAt": "2999-12-31T23:59:59Z"}, {"/enrolledAt"}),
        ({"completedAt": ENROLLED_AT, "progressPercentage": 100}, {"/completedAt", "/progressPercentage"}),
        ({"completedAt": ENROLLED_AT, "status": "paused"}, {"/completedAt"}),
        ({"completedAt": "2026-01-05", "status": "completed"}, {"/completedAt"}),
        ({"completedAt": "1969-12-31T23:59:59Z", "status": "completed"}, {"/completedAt"}),
        ({"completedAt": "2999-12-31T23:59:59Z"}, {"/completedAt"}),
        ({"status": "completed", "progressPercentage": 100}, {"/progressPercentage"}),
        ({"userId": "Sam", "moduleId": "biology"}, {"/userId", "/moduleId"}),
        ({"completedContents": True, "totalContents": "2"}, {"/completedContents", "/totalContents"}),
        ({"counted": None}, {"/counted"}),
        ({"counted": "false"}, {"/counted"}),
        ({"counted": 0}, {"/counted"}),
        ({"lastContentId": None}, {"/lastContentId"}),
    ],
)
@pytest.mark.parametrize("enrolled", [False, True], ids=["new", "enrolled"])
def test_what_cannot_be_set_is_refused_and_nothing_changes(
    enrolled: bool, change: dict[str, Any], pointers: set[str], service: Callers, app: Flask
) -> None:
    if enrolled:
        study(service(), "sets")
    before = stored(app)

    response = service().put(PATH, json=change)

    assert response.status_code == 422
    assert {error["pointer"] for error in response.get_json()["errors"]} == pointers
    assert stored(app) == before


@pytest.mark.parametrize("status", ["active", "paused", "dropped", "completed"])
def test_what_was_read_can_be_sent_back(status: str, service: Callers, app: Flask) -> None:
    study(service(), "sets", percentage=33)
    if status == "completed":
        study(service(), "sets", "maps")
    else:
        enroll(service(), status=status, counted=False)
    read, before = service().get(PATH).get_json(), stored(app)

    response = service().put(PATH, json=read)

    assert (response.status_code, response.get_json()) == (200, read)
    assert stored(app) == before
    other = "active" if status == "paused" else "paused"
    changed = service().put(PATH, json={**read, "status": other})
    assert changed.get_json() == (read if status == "completed" else {**read, "status": other})
    study(service(), "maps", percentage=50)
    assert service().put(PATH, json=read).status_code == 422


@pytest.mark.parametrize("status", ["active", "paused", "dropped"])
def test_a_completed_enrollment_keeps_its_status_and_the_answer_says_so(status: str, service: Callers) -> None:
    study(service(), "sets", "maps")
    completed = service().get(PATH).get_json()
    assert completed["status"] == "completed"

    response = service().put(PATH, json={"status": status})
    assert response.status_code == 200
    assert response.get_json() == completed

    dated = service().put(PATH, json={"status": status, "enrolledAt": ENROLLED_AT}).get_json()
    assert dated == completed | {"enrolledAt": ENROLLED_AT}
    assert service().get(PATH).get_json() == dated


@pytest.mark.parametrize("status", ["active", "paused"])
def test_a_dropped_learner_who_has_finished_completes_on_returning(status: str, service: Callers) -> None:
    for user_id, percentage in (("sam", 100), ("uma", 99)):
        enroll(service(), user_id, status="dropped")
        study(service(), "sets", user_id=user_id)
        study(service(), "maps", user_id=user_id, percentage=percentage)
    finished = service().get(PATH).get_json()
    assert (finished["status"], finished["progressPercentage"], finished["completedAt"]) == ("dropped", 100, None)

    began = datetime.now(UTC)
    returned = enroll(service(), status=status)
    ended = datetime.now(UTC)

    assert began <= datetime.fromisoformat(returned["completedAt"]) <= ended
    assert returned == finished | {"status": "completed", "completedAt": returned["completedAt"]}
    assert service().get(PATH).get_json() == returned
    assert enroll(service(), "uma", status=status)["status"] == status


def test_a_dropped_learner_who_has_finished_stays_dropped_when_only_the_date_changes(service: Callers) -> None:
    enroll(service(), status="dropped")
    study(service(), "sets", "maps")

    changed = enroll(service(), enrolledAt=ENROLLED_AT)

    assert (changed["status"], changed["completedAt"]) == ("dropped", None)


def journal(app: Flask) -> list[tuple[Any, ...]]:
    """Return type, time and data of every change about sam in algebra."""
    with app.app_context(), db.engine.connect() as connection:
        found = connection.execute(select(Change).filter_by(user_id="sam", module_id="algebra").order_by(Change.id))
        return [(one.type, one.time, json.loads(one.data)) for one in found]


def completions(caller: Caller, date: str) -> tuple[int, int]:
    """Return how many enrollments in algebra are completed, and how many were completed on a day."""
    statistics = caller.get("/api/progress/stats/algebra").get_json()
    (day,) = caller.get(f"/api/progress/stats/algebra/timeline?from={date}&to={date}").get_json()["days"]
    return statistics["learners"]["completed"], day["enrollmentsCompleted"]


def drifts(app: Flask) -> list[verification.Drift]:
    with app.app_context():
        return database.read(lambda connection: list(verification.drifts(connection)))


@pytest.mark.parametrize("status", ["", "active", "paused", "dropped"])
def test_credit_completes_an_enrollment_whatever_the_records_say(status: str, service: Callers, app: Flask) -> None:
    if status:
        study(service(), "sets", percentage=50)
        enroll(service(), status=status)
    study(service(), "sets", user_id="uma")
    untouched = others(service())

    response = service().put(PATH, json={"status": "completed", "completedAt": "2026-01-05T10:00:00+01:30"})

    assert response.status_code == (200 if status else 201)
    credited = response.get_json()
    assert (credited["status"], credited["completedAt"]) == ("completed", ENROLLED_AT)
    assert (credited["progressPercentage"], credited["completedContents"]) == (25 if status else 0, 0)
    assert service().get(PATH).get_json() == credited
    assert completions(service(), "2026-01-05") == (1, 1)
    assert service().get("/api/progress/sam").get_json()["summary"]["completedModules"] == 1
    roster = service().get("/api/progress/stats/algebra/learners?status=completed").get_json()["items"]
    assert [one["userId"] for one in roster] == ["sam"]
    kind, time, data = journal(app)[-1]
    assert (kind, time) == ("enrollment.completed", datetime.fromisoformat(ENROLLED_AT))
    assert data == {"progressPercentage": credited["progressPercentage"]}
    before = stored(app)
    assert service().put(PATH, json=credited).get_json() == credited
    assert service().put(PATH, json={"status": "completed"}).get_json() == credited
    assert stored(app)["changes"] == before["changes"], "a repeat changes nothing"
    assert others(service()) == untouched
    assert drifts(app) == []


@pytest.mark.parametrize("change", [{}, {"completedAt": None}])
def test_credit_without_a_date_is_of_now(change: dict[str, Any], service: Callers) -> None:
    for _ in ("new", "enrolled"):
        began = datetime.now(UTC)
        credited = enroll(service(), status="completed", **change)
        assert began <= datetime.fromisoformat(credited["completedAt"]) <= datetime.now(UTC)
        assert service().delete("/api/progress/sam/algebra").status_code == 204
        assert service().get(PATH).get_json()["status"] == "active", "a reset takes the credit"


def test_a_credited_date_stands_while_the_percentage_goes_on_telling_of_the_records(
    service: Callers, publish: Publish, app: Flask
) -> None:
    enroll(service(), status="completed", completedAt=ENROLLED_AT)

    early = {"userId": "sam", "progressPercentage": 100, "occurredAt": "2026-01-01T00:00:00Z"}
    for content_id, percentage in (("sets", 50), ("maps", 100)):
        response = service().post("/api/progress", json=early | {"contentId": content_id})
        enrollment = response.get_json()["enrollment"]
        assert (enrollment["completedAt"], enrollment["progressPercentage"]) == (ENROLLED_AT, percentage)
    publish("algebra", ["sets", "maps", "rings", "fields"])

    enrollment = service().get(PATH).get_json()
    assert (enrollment["status"], enrollment["completedAt"]) == ("completed", ENROLLED_AT)
    assert enrollment["progressPercentage"] == 50
    assert drifts(app) == []


def test_a_completed_enrollment_can_get_another_date(service: Callers, app: Flask) -> None:
    study(service(), "sets", "maps")
    completed = service().get(PATH).get_json()

    dated = enroll(service(), completedAt=ENROLLED_AT)

    assert dated == completed | {"completedAt": ENROLLED_AT}
    assert completions(service(), "2026-01-05") == (1, 1)
    assert completions(service(), completed["completedAt"][:10]) == (1, 0)
    kind, _, data = journal(app)[-1]
    assert kind == "enrollment.changed"
    assert {side: {name: value[:19] for name, value in one.items()} for side, one in data.items()} == {
        "before": {"completedAt": completed["completedAt"][:19]},
        "after": {"completedAt": ENROLLED_AT[:19]},
    }
    assert drifts(app) == []


def test_dates_that_are_sent_back_are_still_those_of_the_updates(service: Callers) -> None:
    for content_id in ("sets", "maps"):
        late = {"userId": "sam", "contentId": content_id, "progressPercentage": 100}
        service().post("/api/progress", json=late | {"occurredAt": "2026-01-09T00:00:00Z"})
    completed = service().get(PATH).get_json()
    assert enroll(service(), **completed) == completed

    for content_id in ("sets", "maps"):
        early = {"userId": "sam", "contentId": content_id, "progressPercentage": 100, "occurredAt": ENROLLED_AT}
        service().post("/api/progress", json=early)

    found = service().get(PATH).get_json()
    assert (found["enrolledAt"], found["completedAt"]) == (ENROLLED_AT, ENROLLED_AT)


def test_a_date_that_the_answer_would_not_show_is_refused(service: Callers, app: Flask) -> None:
    enroll(service(), status="dropped")
    study(service(), "sets", "maps")
    finished = service().get(PATH).get_json()
    before = stored(app)

    returning = service().put(PATH, json={"status": "active", "completedAt": ENROLLED_AT})
    assert refusal(returning) == (422, "validation-failed", {"/completedAt"})
    assert stored(app) == before
    returned = service().put(PATH, json=finished | {"status": "active"})
    assert (returned.status_code, returned.get_json()["status"]) == (200, "completed")
    before = stored(app)
    for change in ({"completedAt": None}, {"completedAt": None, "status": "active"}):
        assert refusal(service().put(PATH, json=change)) == (422, "validation-failed", {"/completedAt"})
    assert stored(app) == before


def test_credit_of_a_learner_who_does_not_count_is_in_no_statistic(service: Callers, app: Flask) -> None:
    enroll(service(), status="completed", completedAt=ENROLLED_AT, counted=False)

    assert completions(service(), "2026-01-05") == (0, 0)
    enroll(service(), counted=True)
    assert completions(service(), "2026-01-05") == (1, 1)
    assert drifts(app) == []


def test_after_a_withdrawal_it_is_as_if_the_enrollment_had_never_been(
    service: Callers, student: Callers, app: Flask
) -> None:
    study(service(), "cells")
    study(service(), "sets", "maps", user_id="uma")
    before = stored(app)
    figures = [service().get(f"/api/progress/{path}").get_json() for path in ("sam", "sam/algebra", "stats/algebra")]
    untouched = others(service())
    enroll(service(), enrolledAt=ENROLLED_AT)
    study(service(), "sets", percentage=40)
    study(service(), "maps")
    assert service().put("/api/progress/sam/algebra/sets/excuse").status_code == 200

    response = service().delete(PATH)

    assert (response.status_code, response.data) == (204, b"")
    kept = stored(app)
    changes = kept.pop("changes")
    assert (kept, changes) == ({name: rows for name, rows in before.items() if name != "changes"}, changes)
    paths = ("sam", "sam/algebra", "stats/algebra")
    assert [service().get(f"/api/progress/{path}").get_json() for path in paths] == figures
    assert service().get(PATH).status_code == 404
    assert others(service()) == untouched
    kind, _, data = journal(app)[-1]
    assert (kind, data["status"], data["progressPercentage"]) == ("enrollment.withdrawn", "completed", 100)
    told = {one["contentId"]: (one["progressPercentage"], one["timeSpentSeconds"]) for one in data["contents"]}
    assert told == {"sets": (100, 60), "maps": (100, 60)}
    with app.app_context(), db.engine.connect() as connection:
        is_history = select(Change.is_history).filter_by(user_id="sam", module_id="algebra")
        assert set(connection.execute(is_history).scalars()) == {False}, "the history ends"
    before = stored(app)
    assert service().delete(PATH).status_code == 204
    assert stored(app) == before, "a repeat changes nothing"
    assert drifts(app) == []
    assert student().post("/api/progress", json={"contentId": "sets"}).status_code == 201


def test_nobody_enrolls_in_an_unknown_module(service: Callers, app: Flask) -> None:
    before = stored(app)

    for path in ("/api/enrollments/sam/chemistry", "/api/enrollments/sam/sets"):
        assert service().put(path, json={}).status_code == 404
        assert service().get(path).status_code == 404
    assert stored(app) == before


def test_an_enrollment_that_does_not_exist_is_not_found(service: Callers) -> None:
    enroll(service(), "sam", "biology")
    enroll(service(), "uma", "algebra")

    assert service().get(PATH).status_code == 404


def test_ids_that_nobody_can_have_are_not_found(service: Callers, app: Flask) -> None:
    study(service(), "sets")
    before = stored(app)

    paths = [f"{user_id}/algebra" for user_id in BAD_USER_IDS] + [f"sam/{module_id}" for module_id in BAD_IDS]
    calls: list[tuple[str, str, Any]] = [("PUT", f"/api/enrollments/{path}", {}) for path in paths]
    calls += [(method, f"/api/enrollments/{path}", None) for method in ("GET", "DELETE") for path in paths]
    calls += [("DELETE", f"/api/progress/{path}", None) for path in [*paths, *BAD_USER_IDS]]

    answers = {(method, path): refusal(service().call(method, path, json=body)) for method, path, body in calls}
    assert {answer[:2] for answer in answers.values()} == {(404, "not-found")}
    untold = {call for call, answer in answers.items() if not answer[2] & {"/userId", "/moduleId"}}
    assert untold == {("GET", "/api/enrollments/me/algebra")}, "which is the caller's own, and is not there"
    both = service().put("/api/enrollments/me/a%20b", json={})
    assert refusal(both)[2] == {"/userId", "/moduleId"}
    assert "Is a reserved word." in both.text
    assert "Must match ^" in both.text
    assert stored(app) == before


@pytest.mark.parametrize("status", ["active", "paused", "dropped", "completed"])
def test_a_reset_starts_the_enrollment_again_and_touches_nobody_else(status: str, service: Callers) -> None:
    enroll(service(), enrolledAt=ENROLLED_AT)
    study(service(), "cells", "sets", percentage=40)
    study(service(), "cells", "sets", "maps", user_id="uma")
    if status == "completed":
        study(service(), "sets", "maps")
    else:
        enroll(service(), status=status)
    record = service().get("/api/progress/sam/algebra").get_json()["contents"][0]["progress"]
    before, untouched = service().get(PATH).get_json(), others(service())
    assert before["status"] == status

    response = service().delete("/api/progress/sam/algebra")

    assert (response.status_code, response.data) == (204, b"")
    assert others(service()) == untouched
    nothing = {"progressPercentage": 0, "completedContents": 0, "timeSpentSeconds": 0}
    status = "active" if status == "completed" else status
    fresh = before | nothing | {"status": status, "completedAt": None, "lastActivityAt": None}
    assert service().get(PATH).get_json() == fresh
    view = service().get("/api/progress/sam/algebra").get_json()
    assert [(one["status"], one["progress"]) for one in view["contents"]] == [("not_started", None)] * 2
    assert view["byType"][0]["timeSpentSeconds"] == 0
    assert service().put(f"/api/progress/{record['id']}/complete").status_code == 404

    again = service().post("/api/progress", json={"userId": "sam", "contentId": "sets"})
    assert again.status_code == 201
    assert again.get_json()["progress"]["progressPercentage"] == 0
    assert again.get_json()["enrollment"]["enrolledAt"] == ENROLLED_AT


def test_a_reset_takes_the_records_of_retired_contents_too(service: Callers, publish: Publish) -> None:
    study(service(), "sets", "maps", percentage=40)
    publish("algebra", ["maps"])

    assert service().delete("/api/progress/sam/algebra").status_code == 204
    publish("algebra", ["maps", "sets"])

    assert service().get("/api/progress/stats/algebra").get_json()["learners"]["started"] == 0
    assert service().get(PATH).get_json()["progressPercentage"] == 0


def test_a_reset_takes_what_no_record_or_no_total_tells(service: Callers, publish: Publish) -> None:
    """Here these are a day whose record was removed, an excuse from a content that does not count, and credit."""
    publish("algebra", ["sets", {"id": "maps", "weight": 0}])
    study(service(), "sets", percentage=40)
    assert service().delete("/api/progress/sam/algebra/sets").status_code == 204
    assert service().put("/api/progress/uma/algebra/maps/excuse").status_code == 200
    enroll(service(), "kim", status="completed")

    for user_id in ("sam", "uma", "kim"):
        assert service().delete(f"/api/progress/{user_id}/algebra").status_code == 204

    assert service().get("/api/progress/sam/export").get_json()["activityDays"] == []
    assert service().get("/api/progress/uma/algebra").get_json()["contents"][1]["status"] == "not_started"
    assert service().get("/api/enrollments/kim/algebra").get_json()["status"] == "active"


def test_the_statistics_and_the_dashboard_follow_a_reset_and_an_erasure(service: Callers) -> None:
    study(service(), "sets", "maps", "cells")
    study(service(), "sets", user_id="uma", percentage=20)

    def figures() -> tuple[Any, ...]:
        """Return what the statistics of algebra and sam's dashboard say."""
        stats = service().get("/api/progress/stats/algebra").get_json()
        summary = service().get("/api/progress/sam").get_json()["summary"]
        learners = [stats["learners"][name] for name in ("enrolled", "completed", "started")]
        seconds = stats["timeSpent"]["totalSeconds"]
        starts = [content["started"] for content in stats["contents"]]
        return learners, seconds, starts, summary["enrolledModules"], summary["timeSpentSeconds"]

    assert figures() == ([2, 1, 2], 180, [2, 1], 2, 180)
    service().delete("/api/progress/sam/algebra")
    assert figures() == ([2, 0, 1], 60, [1, 0], 2, 60)
    service().delete("/api/progress/sam")
    assert figures() == ([1, 0, 1], 60, [1, 0], 0, 0)


def test_an_erasure_leaves_no_trace_of_the_learner_and_every_trace_of_the_others(
    service: Callers, student: Callers, app: Flask
) -> None:
    update, keys = {"contentId": "sets", "progressPercentage": 30}, map(str, count())

    def keyed(caller: Caller, method: str, path: str, body: dict[str, Any]) -> None:
        response = caller.call(method, path, json=body, headers={"Idempotency-Key": next(keys)})
        assert response.status_code in {200, 201}, response.text

    study(service(), "sets", "maps", "cells", user_id="uma")
    study(service(), "sets", user_id="sam2")
    keyed(service(), "POST", "/api/progress", update | {"userId": "uma"})
    keyed(student("uma"), "POST", "/api/progress", update)
    before = stored(app)
    study(service(), "sets", "maps", "cells")
    keyed(service(), "POST", "/api/progress", update | {"userId": "sam"})
    keyed(service(), "PUT", PATH, {"status": "dropped"})
    keyed(student(), "POST", "/api/progress", update)
    keyed(student(), "POST", "/api/progress/batch", {"updates": [update]})
    assert "sam" in str(stored(app)).split("'")

    response = service().delete("/api/progress/sam")

    assert (response.status_code, response.data) == (204, b"")
    after = stored(app)
    (told,) = [change for change in after["changes"] if change not in before["changes"]]
    assert [value for value in told if value in ("learner.erased", "sam", "lms")] == ["learner.erased", "sam", "lms"]
    assert after | {"changes": before["changes"]} == before
    dashboard = service().get("/api/progress/sam").get_json()
    assert (dashboard["modules"], dashboard["continue"], dashboard["summary"]["enrolledModules"]) == ([], None, 0)
    assert service().get(PATH).status_code == 404


@pytest.mark.parametrize("path", ["dan/algebra", "sam/biology", "sam/chemistry", "dan/chemistry"])
def test_where_there_is_no_enrollment_nothing_is_withdrawn(path: str, service: Callers, app: Flask) -> None:
    study(service(), "sets")
    study(service(), "cells", user_id="uma")
    before = stored(app)

    assert service().delete(f"/api/enrollments/{path}").status_code == 204
    assert stored(app) == before


@pytest.mark.parametrize("path", ["dan", "dan/algebra", "sam/biology", "sam/chemistry", "dan/chemistry"])
def test_where_there_is_nothing_a_deletion_changes_nothing(path: str, service: Callers, app: Flask) -> None:
    study(service(), "sets")
    study(service(), "cells", user_id="uma")
    before = stored(app)

    assert service().delete(f"/api/progress/{path}").status_code == 204
    assert stored(app) == before
