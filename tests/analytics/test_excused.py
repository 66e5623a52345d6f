"""Who is excused from a content has done with it, and is in no figure of the content but the number of the excused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from progress_service.analytics import queries
from progress_service.store import database
from tests.callers import Caller, read
from tests.conftest import Callers, Publish

MONDAY = datetime(2026, 3, 2, 8, tzinfo=UTC)


def excuse(caller: Caller, content_id: str) -> None:
    """Excuse sam from a content."""
    assert caller.put(f"/api/progress/sam/algebra/{content_id}/excuse").status_code == 200


def withdraw_excuse(caller: Caller, content_id: str) -> None:
    assert caller.delete(f"/api/progress/sam/algebra/{content_id}/excuse").status_code == 204


def send(caller: Caller, user_id: str, content_id: str, percentage: float = 100, **fields: Any) -> Any:
    update = {"userId": user_id, "contentId": content_id, "progressPercentage": percentage, **fields}
    if "occurredAt" not in fields:
        update["occurredAt"] = MONDAY.isoformat()
    response = caller.post("/api/progress", json=update)
    assert response.status_code in {200, 201}, response.text
    return response.get_json()


def figures(caller: Caller) -> tuple[Any, Any]:
    """Read the statistics and a week of the timeline."""
    path = "/api/progress/stats/algebra"
    return read(caller, path), read(caller, f"{path}/timeline?from=2026-03-01&to=2026-03-07")["days"]


def of_content(statistics: Any, content_id: str) -> Any:
    return next(one for one in statistics["contents"] if one["contentId"] == content_id)


@pytest.fixture(autouse=True)
def algebra(publish: Publish) -> None:
    publish("algebra", ["sets", "maps", "rings", {"id": "quiz", "type": "quiz", "weight": 2}])


def test_an_excused_learner_leaves_the_figures_of_the_content_and_returns_when_the_excuse_is_withdrawn(
    app: Flask, service: Callers
) -> None:
    send(service(), "kim", "quiz", 40, timeSpentSeconds=10, score=5, maxScore=10)
    send(service(), "sam", "sets", 50, timeSpentSeconds=7)
    without, _ = figures(service())
    send(service(), "sam", "quiz", 100, timeSpentSeconds=100, score=9, maxScore=10)
    before = figures(service())

    excuse(service(), "quiz")

    statistics, days = figures(service())
    assert of_content(statistics, "quiz") == of_content(without, "quiz") | {"excused": 1}
    assert statistics["byType"] == without["byType"]
    assert statistics["timeSpent"] == before[0]["timeSpent"]
    assert statistics["learners"] == before[0]["learners"]
    assert statistics["averageProgressPercentage"] == before[0]["averageProgressPercentage"]
    (monday,) = [day for day in days if day["activeLearners"]]
    assert (monday["activeLearners"], monday["contentsStarted"], monday["contentsCompleted"]) == (2, 2, 0)
    assert monday["timeSpentSeconds"] == 117

    withdraw_excuse(service(), "quiz")
    assert figures(service()) == before
    assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0


def test_who_is_only_excused_counts_as_done_and_not_as_started(app: Flask, service: Callers, publish: Publish) -> None:
    excuse(service(), "quiz")

    statistics, days = figures(service())
    assert (statistics["learners"]["enrolled"], statistics["learners"]["started"]) == (1, 0)
    assert statistics["averageProgressPercentage"] == 40
    assert statistics["progressDistribution"] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert of_content(statistics, "quiz")["excused"] == 1
    assert all(value == 0 for day in days for name, value in day.items() if name != "date")
    enrollment = read(service(), "/api/enrollments/sam/algebra")
    assert (enrollment["completedContents"], enrollment["lastActivityAt"]) == (1, None)

    publish("algebra", [{"id": "quiz", "type": "quiz", "weight": 2}])
    assert read(service(), "/api/enrollments/sam/algebra")["status"] == "completed"
    assert figures(service())[0]["completionRate"] == 100

    withdraw_excuse(service(), "quiz")
    statistics = figures(service())[0]
    assert statistics["averageProgressPercentage"] == 0
    assert of_content(statistics, "quiz")["excused"] == 0
    assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0


@pytest.mark.parametrize("since", [timedelta(weeks=2), timedelta(days=1), timedelta(hours=1)])
def test_nobody_stalls_on_a_content_from_which_they_are_excused(since: timedelta, app: Flask, service: Callers) -> None:
    def stalled() -> dict[str, int]:
        with app.app_context():
            found = database.read(lambda connection: queries.statistics(connection, "algebra", MONDAY + since))
        assert found
        return {content_id: learners for content_id, learners in found.stalled.items() if learners}

    send(service(), "sam", "sets", 20, occurredAt=(MONDAY - timedelta(minutes=1)).isoformat())
    send(service(), "sam", "quiz", 20)
    send(service(), "kim", "quiz", 20)
    assert stalled() == {"quiz": 2}

    excuse(service(), "quiz")
    assert stalled() == {"quiz": 1}
    send(service(), "sam", "quiz", 30, occurredAt=(MONDAY + timedelta(minutes=1)).isoformat())
    assert stalled() == {"quiz": 1}
    withdraw_excuse(service(), "quiz")
    assert stalled() == {"quiz": 2}
    excuse(service(), "quiz")
    send(service(), "sam", "sets", 30, occurredAt=(MONDAY + timedelta(minutes=2)).isoformat())
    assert stalled() == {"quiz": 1, "sets": 1}
    assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0


def test_a_relaxed_rule_completes_an_excused_record_in_no_figure(
    app: Flask, service: Callers, publish: Publish
) -> None:
    send(service(), "sam", "quiz", 60)
    excuse(service(), "quiz")
    before = figures(service())

    publish(
        "algebra", ["sets", "maps", "rings", {"id": "quiz", "type": "quiz", "weight": 2, "completionThreshold": 50}]
    )

    assert read(service(), "/api/progress/sam/algebra")["contents"][3]["progress"]["completedAt"] is not None
    assert figures(service()) == before
    assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0


def test_a_learner_continues_behind_what_they_are_excused_from(service: Callers) -> None:
    def resume() -> Any:
        found = read(service(), "/api/progress/sam")["continue"]
        return found and found["contentId"]

    excuse(service(), "sets")
    assert resume() == "maps"
    send(service(), "sam", "maps", 20)
    assert resume() == "maps"
    excuse(service(), "maps")
    assert resume() == "rings"
    excuse(service(), "rings")
    assert resume() == "quiz"
    withdraw_excuse(service(), "maps")
    assert resume() == "maps"
    excuse(service(), "maps")
    excuse(service(), "quiz")
    assert resume() is None
    assert read(service(), "/api/enrollments/sam/algebra")["status"] == "completed"
    (view,) = [one for one in read(service(), "/api/progress/sam/algebra")["byType"] if one["type"] == "video"]
    assert (view["totalContents"], view["completedContents"]) == (3, 3)


@pytest.mark.parametrize(("place", "step"), [*((place, 1) for place in range(5)), (0, -1)])
def test_an_excuse_and_reports_from_before_it_give_the_same_dates_in_whatever_order(
    place: int, step: int, app: Flask, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets", "maps"])
    reports = [("sets", 9), ("maps", 3), ("sets", 5), ("maps", 2)][::step]
    for content_id, day in reports[:place]:
        send(service(), "sam", content_id, occurredAt=(MONDAY + timedelta(days=day)).isoformat())
    excuse(service(), "sets")
    for content_id, day in reports[place:]:
        send(service(), "sam", content_id, occurredAt=(MONDAY + timedelta(days=day)).isoformat())

    enrollment = read(service(), "/api/enrollments/sam/algebra")
    record = read(service(), "/api/progress/sam/algebra")["contents"][0]["progress"]
    completed_at = [datetime.fromisoformat(one["completedAt"]) for one in (enrollment, record)]
    assert completed_at == [MONDAY + timedelta(days=5)] * 2
    assert record["status"] == "excused"
    assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0


@pytest.mark.parametrize("percentage", [50, 100])
def test_a_content_was_done_when_the_learner_was_excused_whatever_is_reported_afterwards(
    percentage: int, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets", "maps"])
    began = datetime.now(UTC)
    excuse(service(), "sets")
    ended = datetime.now(UTC)

    updates = [
        {"userId": "sam", "contentId": "sets", "progressPercentage": percentage},
        {"userId": "sam", "contentId": "maps", "progressPercentage": 100, "occurredAt": MONDAY.isoformat()},
    ]
    assert service().post("/api/progress/batch", json={"updates": updates}).status_code == 200

    completed_at = read(service(), "/api/enrollments/sam/algebra")["completedAt"]
    assert began <= datetime.fromisoformat(completed_at) <= ended
