"""Updates say the same in whatever order they come, however often, one by one or together: figures and every date."""

from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest
from flask import Flask
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import update as sql_update

from progress_service.store.database import db
from progress_service.store.models import Content, Enrollment
from tests.callers import Caller
from tests.conftest import Callers, Publish, examples, stored

Update: TypeAlias = dict[str, Any]

BEGIN = datetime(2026, 2, 1, 12, tzinfo=UTC)
CONTENTS: list[Any] = [
    "intro",
    {"id": "quiz", "passingScore": 50, "completionThreshold": 80},
    {"id": "extra", "weight": 0},
    {"id": "outro", "weight": 2},
]
PATHS = [
    "/api/progress/sam",
    "/api/progress/sam/algebra",
    "/api/progress/stats/algebra",
    "/api/progress/stats/algebra/timeline?from=2026-01-31&to=2026-02-14",
    "/api/progress/stats/algebra/learners",
]


def update(
    content_id: str, day: int, percentage: int = 100, score: int | None = None, session: tuple[str, int] | None = None
) -> Update:
    scored = {} if score is None else {"score": score, "maxScore": 4}
    timed = {} if session is None else {"session": session[0], "timeSpentSeconds": session[1]}
    at = (BEGIN + timedelta(days=day)).isoformat()
    return {
        "userId": "sam",
        "contentId": content_id,
        "occurredAt": at,
        "progressPercentage": percentage,
        "position": at,
        **scored,
        **timed,
    }


def send(service: Caller, updates: list[Update]) -> None:
    response = service.post("/api/progress/batch", json={"updates": updates})
    assert response.status_code == 200, response.text


def documents(service: Caller) -> list[Any]:
    """Read everything that is shown of sam, but for ids of records, and start again.

    On which day the time of a session was spent may depend on the order: the days are shown with their sum only.
    """
    answers = [service.get(path).get_json() for path in PATHS]
    days = answers[3]["days"]
    answers.append(sum(day.pop("timeSpentSeconds") for day in days))
    for one in answers[1]["contents"]:
        if one["progress"]:
            del one["progress"]["id"]
    assert service.delete("/api/progress/sam").status_code == 204
    return answers


# Of two updates at one time the order alone says which was the last: each content has days of its own.
updates = st.builds(
    lambda place, week, *reported: update(["intro", "quiz", "extra", "outro"][place], 4 * week + place, *reported),
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from([100, 100, 100, 80, 40]),
    st.sampled_from([None, 1, 3]),
    st.none() | st.tuples(st.sampled_from(["s", "t"]), st.sampled_from([0, 30, 70, 86_400])),
)
LATE: list[Update] = [
    update("extra", 11),
    update("intro", 9, session=("s", 60)),
    update("outro", 7, session=("s", 5)),
    update("quiz", 5, 100, 3),
    update("intro", 1, session=("s", 90)),
]


@pytest.mark.no_cover
def test_the_order_the_grouping_and_the_repetition_of_updates_change_no_figure_and_no_date(
    app: Flask, service: Callers, publish: Publish
) -> None:
    publish("algebra", CONTENTS)

    @settings(max_examples=examples(30), phases=set(Phase) - {Phase.shrink, Phase.explain})
    @given(st.lists(updates, min_size=1, max_size=12), st.data())
    @example(LATE, None)
    def check(reported: list[Update], data: st.DataObject | None) -> None:
        assert service().delete("/api/progress/sam").status_code == 204
        send(service(), reported)
        expected = documents(service())
        again = reported[::-1]
        if data:
            again = data.draw(st.permutations([*reported, *data.draw(st.lists(st.sampled_from(reported), max_size=4))]))
        while again:
            size = data.draw(st.integers(1, len(again))) if data else 1
            send(service(), again[:size])
            again = again[size:]
        assert documents(service()) == expected

    check()
    assert not stored(app)["enrollments"]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]])
def test_an_enrollment_is_completed_with_its_last_content_and_enrolled_with_its_first(
    order: list[int], service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets", "maps", "rings"])
    days = {"sets": 20, "maps": 25, "rings": 10}
    reported = [update(content_id, day) for content_id, day in days.items()]

    for place in order:
        send(service(), [reported[place]])

    enrollment = service().get("/api/enrollments/sam/algebra").get_json()
    assert (enrollment["enrolledAt"], enrollment["completedAt"]) == ("2026-02-11T12:00:00Z", "2026-02-26T12:00:00Z")


def test_a_late_report_moves_the_completion_of_the_enrollment_with_that_of_its_last_content(
    service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets", "maps", "rings"])
    send(service(), [update("sets", 3), update("maps", 5), update("rings", 9)])

    def completed() -> int:
        at = datetime.fromisoformat(service().get("/api/enrollments/sam/algebra").get_json()["completedAt"])
        return (at - BEGIN).days

    moved = {}
    for late in (update("sets", 1), update("rings", 12), update("rings", 7), update("rings", 2), update("maps", 4)):
        send(service(), [late])
        moved[late["contentId"], (datetime.fromisoformat(late["occurredAt"]) - BEGIN).days] = completed()
    assert moved == {("sets", 1): 9, ("rings", 12): 9, ("rings", 7): 7, ("rings", 2): 5, ("maps", 4): 4}


def test_a_module_that_has_grown_is_completed_as_of_the_contents_that_it_had(
    service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets", "maps"])
    send(service(), [update("sets", 3), update("maps", 5)])
    publish("algebra", ["sets", "maps", "rings"])

    completed = []
    for late in (update("rings", 9), update("rings", 7), update("maps", 4), update("maps", 2), update("sets", 1)):
        send(service(), [late])
        completed.append(service().get("/api/enrollments/sam/algebra").get_json()["completedAt"][:10])
    assert completed == ["2026-02-06", "2026-02-06", "2026-02-05", "2026-02-04", "2026-02-03"]
    days = service().get(PATHS[3]).get_json()["days"]
    assert [day["date"] for day in days if day["enrollmentsCompleted"]] == ["2026-02-03"]


def test_what_a_catalog_change_or_a_change_of_status_has_completed_keeps_that_date(
    service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets", "maps"])
    send(service(), [update("sets", 3)])
    publish("algebra", ["sets"])
    by_catalog = service().get("/api/enrollments/sam/algebra").get_json()["completedAt"]
    publish("biology", ["cells"])
    service().put("/api/enrollments/sam/biology", json={"status": "dropped"})
    send(service(), [update("cells", 3)])
    by_status = service().put("/api/enrollments/sam/biology", json={"status": "active"}).get_json()["completedAt"]

    send(service(), [update("sets", 1), update("cells", 1)])

    for module_id, completed_at in (("algebra", by_catalog), ("biology", by_status)):
        enrollment = service().get(f"/api/enrollments/sam/{module_id}").get_json()
        assert enrollment["completedAt"] == completed_at > "2026-11"
        record = service().get(f"/api/progress/sam/{module_id}").get_json()["contents"][0]["progress"]
        assert record["completedAt"] == "2026-02-02T12:00:00Z"


@pytest.mark.parametrize("cause", ["catalog", "correction", "excuse"])
def test_a_late_report_about_the_content_that_a_change_has_completed_moves_the_date_all_the_same(
    cause: str, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    send(service(), [update("sets", 3, 60)])
    (content,) = service().get("/api/progress/sam/algebra").get_json()["contents"]
    match cause:
        case "catalog":
            publish("algebra", [{"id": "sets", "completionThreshold": 50}])
        case "correction":
            service().patch(f"/api/progress/{content['progress']['id']}", json={"progressPercentage": 100})
        case "excuse":
            service().put("/api/progress/sam/algebra/sets/excuse")
    assert service().get("/api/enrollments/sam/algebra").get_json()["completedAt"] > "2026-11"

    send(service(), [update("sets", 5)])

    record = service().get("/api/progress/sam/algebra").get_json()["contents"][0]["progress"]
    enrollment = service().get("/api/enrollments/sam/algebra").get_json()
    assert record["completedAt"] == enrollment["completedAt"] == "2026-02-06T12:00:00Z"


def test_the_date_that_the_platform_gives_stays_and_that_of_an_update_moves(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    path = "/api/enrollments/sam/algebra"
    enrolled = []
    for day in (5, 3, 4):
        send(service(), [update("sets", day, 10)])
        enrolled.append(service().get(path).get_json()["enrolledAt"])
    assert [one[:10] for one in enrolled] == ["2026-02-06", "2026-02-04", "2026-02-04"]

    service().put(path, json={"status": "paused"})
    send(service(), [update("sets", 2, 10)])
    assert service().get(path).get_json()["enrolledAt"][:10] == "2026-02-03"
    service().put(path, json={"enrolledAt": "2026-02-20T00:00:00Z"})
    send(service(), [update("sets", 1, 10)])
    assert service().get(path).get_json()["enrolledAt"] == "2026-02-20T00:00:00Z"


def test_a_repair_mends_what_the_records_say_of_dates_and_completions(
    app: Flask, service: Callers, publish: Publish
) -> None:
    publish("algebra", [{"id": "sets", "completionThreshold": 60}, {"id": "maps", "weight": 0}])
    send(service(), [update("sets", 3, 50), update("maps", 5, 60)])
    with app.app_context(), db.engine.begin() as connection:
        # As if an earlier version had run on: it knows neither relaxed rules nor moving dates.
        connection.execute(sql_update(Enrollment).values(enrolled_at=BEGIN + timedelta(days=5)))
        connection.execute(sql_update(Content).filter_by(id="sets").values(completion_threshold=50))

    repaired = app.test_cli_runner().invoke(args=["progress", "verify", "--repair"])

    assert repaired.exit_code == 1
    assert "learner sam: sets progress_percentage is 50, recounted 100" in repaired.output
    assert "learner sam: enrolled_at is 2026-02-06" in repaired.output
    assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0
    enrollment = service().get("/api/enrollments/sam/algebra").get_json()
    assert (enrollment["status"], enrollment["enrolledAt"]) == ("completed", "2026-02-04T12:00:00Z")
