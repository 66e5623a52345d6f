"""Publishing a module again: every learner's progress follows at once, and nothing that was achieved is lost."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.callers import Caller
from tests.conftest import Callers, Publish, Statements


def study(caller: Caller, content_id: str, percentage: float = 100, user_id: str = "sam", **fields: Any) -> Any:
    """Send one update and return what became of the record and the enrollment."""
    update = {"userId": user_id, "contentId": content_id, "progressPercentage": percentage, **fields}
    response = caller.post("/api/progress", json=update)
    assert response.status_code in {200, 201}, response.text
    return response.get_json()


def enrollment(caller: Caller, user_id: str = "sam", module_id: str = "algebra") -> Any:
    return caller.get(f"/api/enrollments/{user_id}/{module_id}").get_json()


def counts(enrollment: Any) -> tuple[str, float, int, int]:
    """Return what the catalog decides of an enrollment."""
    names = ("status", "progressPercentage", "completedContents", "totalContents")
    status, percentage, completed, total = (enrollment[name] for name in names)
    return status, percentage, completed, total


def test_a_retired_content_counts_no_longer_but_its_record_lives_on(service: Callers, publish: Publish) -> None:
    publish("biology", ["cells"])
    publish("algebra", ["sets", "maps", "rings"])
    study(service(), "cells", 10, timeSpentSeconds=1)
    study(service(), "maps", 50, timeSpentSeconds=20)
    record = study(service(), "sets", 100, timeSpentSeconds=300)["progress"]
    study(service(), "rings", 10, user_id="uma", timeSpentSeconds=4000)
    biology, uma = enrollment(service(), "sam", "biology"), enrollment(service(), "uma")

    publish("algebra", ["maps", "rings"])

    assert counts(enrollment(service())) == ("active", 25, 0, 2)
    assert enrollment(service())["timeSpentSeconds"] == 320
    assert enrollment(service(), "sam", "biology") == biology
    assert enrollment(service(), "uma") == uma | {"totalContents": 2, "progressPercentage": 5}

    kept = study(service(), "sets", 0, timeSpentSeconds=7)
    assert (kept["progress"]["id"], kept["progress"]["timeSpentSeconds"]) == (record["id"], 307)
    assert counts(kept["enrollment"]) == ("active", 25, 0, 2)
    assert kept["enrollment"]["timeSpentSeconds"] == 327

    publish("algebra", ["rings", "sets", "maps"])

    assert counts(enrollment(service())) == ("active", 50, 1, 3)
    returned = service().get("/api/progress/sam/algebra").get_json()["contents"][1]
    assert returned["progress"] == kept["progress"]
    assert returned["progress"]["completedAt"] == record["completedAt"]


def test_a_record_begun_on_a_retired_content_counts_when_it_returns(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets", "maps"])
    publish("algebra", ["maps"])

    begun = study(service(), "sets", 80, timeSpentSeconds=60)
    assert begun["progress"]["progressPercentage"] == 80
    assert counts(begun["enrollment"]) == ("active", 0, 0, 1)
    assert begun["enrollment"]["timeSpentSeconds"] == 60

    publish("algebra", ["maps", {"id": "sets", "weight": 3}])
    assert counts(enrollment(service())) == ("active", 60, 0, 2)


def test_lists_show_current_contents_only_while_time_and_started_include_retired_ones(
    service: Callers, publish: Publish
) -> None:
    publish("algebra", [{"id": "sets", "type": "lab"}, "maps"])
    study(service(), "maps", 30, timeSpentSeconds=20)
    study(service(), "sets", 40, timeSpentSeconds=300)
    study(service(), "sets", 40, "uma", timeSpentSeconds=1)
    publish("algebra", ["maps"])

    view = service().get("/api/progress/sam/algebra").get_json()
    dashboard = service().get("/api/progress/sam").get_json()
    figures = service().get("/api/progress/stats/algebra").get_json()

    assert [one["contentId"] for one in view["contents"]] == ["maps"]
    assert [(one["type"], one["timeSpentSeconds"]) for one in view["byType"]] == [("video", 20)]
    assert dashboard["continue"]["contentId"] == "maps"
    assert dashboard["summary"]["timeSpentSeconds"] == 320
    assert service().get("/api/progress/uma").get_json()["continue"]["contentId"] == "maps"
    assert [one["contentId"] for one in figures["contents"]] == ["maps"]
    assert [one["type"] for one in figures["byType"]] == ["video"]
    assert (figures["learners"]["started"], figures["timeSpent"]["totalSeconds"]) == (2, 321)


@pytest.mark.parametrize("remaining", [["maps"], ["maps", {"id": "sets", "weight": 0}]], ids=["retired", "optional"])
@pytest.mark.parametrize("status", ["active", "paused"])
def test_an_enrollment_completes_when_what_remains_is_complete(
    status: str, remaining: list[Any], service: Callers, publish: Publish
) -> None:
    publish("biology", ["cells", "genes"])
    publish("algebra", ["maps", "sets"])
    for user_id, percentage in (("sam", 100), ("uma", 99), ("dan", 100)):
        study(service(), "maps", percentage, user_id)
        study(service(), "cells", 100, user_id)
    service().put("/api/enrollments/sam/algebra", json={"status": status})
    service().put("/api/enrollments/dan/algebra", json={"status": "dropped"})
    before = enrollment(service())

    began = datetime.now(UTC)
    publish("algebra", remaining)
    ended = datetime.now(UTC)

    completed = enrollment(service())
    assert counts(completed) == ("completed", 100, 1, 1)
    assert began <= datetime.fromisoformat(completed["completedAt"]) <= ended
    assert completed["lastActivityAt"] == before["lastActivityAt"]
    assert counts(enrollment(service(), "uma")) == ("active", 99, 0, 1)
    assert counts(enrollment(service(), "dan")) == ("dropped", 100, 1, 1)
    assert enrollment(service(), "dan")["completedAt"] is None
    assert counts(enrollment(service(), "sam", "biology")) == ("active", 50, 1, 2)


def test_a_module_left_without_weight_is_at_zero_and_completes_nobody(service: Callers, publish: Publish) -> None:
    publish("algebra", ["maps", "sets"])
    study(service(), "maps", 100)

    publish("algebra", [{"id": "maps", "weight": 0}])
    assert counts(enrollment(service())) == ("active", 0, 0, 0)

    publish("algebra", [])
    assert counts(enrollment(service())) == ("active", 0, 0, 0)


def test_changed_weights_change_every_learners_percentage(service: Callers, publish: Publish) -> None:
    publish("biology", ["cells", "genes"])
    publish("algebra", ["maps", "sets"])
    study(service(), "cells", 100)
    study(service(), "maps", 100)
    study(service(), "sets", 50)
    study(service(), "sets", 25, "uma")

    publish("algebra", [{"id": "maps", "weight": 1}, {"id": "sets", "weight": 2}])

    assert counts(enrollment(service())) == ("active", 66.66, 1, 2)
    assert counts(enrollment(service(), "uma")) == ("active", 16.66, 0, 2)
    assert counts(enrollment(service(), "sam", "biology")) == ("active", 50, 1, 2)


def test_contents_added_after_completion_show_in_the_percentage_alone(service: Callers, publish: Publish) -> None:
    publish("algebra", ["maps"])
    completed = study(service(), "maps", 100)["enrollment"]

    publish("algebra", ["maps", {"id": "sets", "weight": 3}])
    shown = completed | {"progressPercentage": 25, "totalContents": 2, "counted": True}
    assert enrollment(service()) == shown

    finished = study(service(), "sets", 100)["enrollment"]
    assert counts(finished) == ("completed", 100, 2, 2)
    assert finished["completedAt"] == completed["completedAt"]


@pytest.mark.parametrize(
    ("rule", "eased"),
    [({"completionThreshold": 90}, {"completionThreshold": 80}), ({"passingScore": 50}, {"passingScore": 40})],
    ids=["threshold", "passing score"],
)
def test_a_relaxed_rule_completes_at_once_who_fulfils_it_and_a_tightened_rule_takes_nothing_back(
    rule: dict[str, Any], eased: dict[str, Any], service: Callers, publish: Publish
) -> None:
    percentage = 85 if "completionThreshold" in rule else 100
    publish("algebra", [{"id": "maps", **rule}, {"id": "sets", "weight": 0, **rule}])
    for user_id, content_id in (("sam", "maps"), ("ann", "maps"), ("dan", "maps"), ("sam", "sets")):
        study(service(), content_id, percentage, user_id, score=4, maxScore=10)
    study(service(), "maps", percentage - 10, "low", score=3, maxScore=10)
    done = study(service(), "maps", 100, "uma", score=10, maxScore=10)
    service().put("/api/enrollments/dan/algebra", json={"status": "dropped"})
    service().put("/api/enrollments/ann/algebra", json={"counted": False})

    began = datetime.now(UTC)
    publish("algebra", [{"id": "maps", **eased}, {"id": "sets", "weight": 0, **eased}])
    ended = datetime.now(UTC)

    expected = {"sam": "completed", "ann": "completed", "dan": "dropped", "low": "active", "uma": "completed"}
    assert {user_id: enrollment(service(), user_id)["status"] for user_id in expected} == expected
    assert enrollment(service(), "uma") == done["enrollment"] | {"counted": True}
    completed = enrollment(service())
    assert began <= datetime.fromisoformat(completed["completedAt"]) <= ended
    records = [one["progress"] for one in service().get("/api/progress/sam/algebra").get_json()["contents"]]
    assert {(one["progressPercentage"], one["completedAt"]) for one in records} == {(100, completed["completedAt"])}
    figures = service().get("/api/progress/stats/algebra?stalledDays=1").get_json()
    assert (figures["learners"]["completed"], figures["completionRate"]) == (2, 66.66)
    assert [(one["started"], one["completed"]) for one in figures["contents"]] == [(4, 3), (1, 1)]
    days = (
        service()
        .get("/api/progress/stats/algebra/timeline", query_string={"from": f"{began:%F}", "to": f"{ended:%F}"})
        .get_json()["days"]
    )
    assert sum(day["contentsCompleted"] for day in days) == 4
    assert sum(day["enrollmentsCompleted"] for day in days) == 2

    publish("algebra", [{"id": "maps", "passingScore": 100}])
    assert study(service(), "maps", 0)["progress"]["status"] == "completed"
    assert enrollment(service())["completedAt"] == completed["completedAt"]


def test_a_report_from_before_moves_what_a_relaxed_rule_has_completed(service: Callers, publish: Publish) -> None:
    publish("algebra", [{"id": "maps", "passingScore": 80}])
    study(service(), "maps", 100, score=7, maxScore=10, occurredAt="2026-02-03T04:05:06Z")
    publish("algebra", [{"id": "maps", "passingScore": 70}])

    earlier = study(service(), "maps", 100, score=7, maxScore=10, occurredAt="2026-02-05T04:05:06Z")

    assert earlier["progress"]["completedAt"] == earlier["enrollment"]["completedAt"] == "2026-02-05T04:05:06Z"


def test_fifty_contents_and_learners_take_no_more_statements_than_one(
    service: Callers, publish: Publish, statements: Statements
) -> None:
    counted = set()
    for size in (1, 50):
        contents = [{"id": f"content-{size}-{place}", "weight": 1} for place in range(size)]
        publish(f"module-{size}", contents)
        updates = [{"contentId": one["id"], "userId": f"user-{place}"} for place, one in enumerate(contents)]
        assert service().post("/api/progress/batch", json={"updates": updates}).status_code == 200
        with statements() as sent:
            publish(f"module-{size}", [one | {"weight": 5} for one in contents], instructor_ids=map(str, range(size)))
        counted.add(len(sent))

    assert len(counted) == 1
