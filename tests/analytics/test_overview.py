"""The modules with their main figures: those of the statistics, page by page, for those who may see them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.callers import Caller
from tests.conftest import Callers, Publish
from tests.progress.sending import refusal

PATH = "/api/progress/stats"
FIGURES = ("moduleId", "title", "completionRate", "averageProgressPercentage")
NOBODY = {
    "enrolled": 0,
    "started": 0,
    "completed": 0,
    "completionRate": None,
    "averageProgressPercentage": None,
    "lastActivityAt": None,
}
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def read(caller: Caller, path: str = PATH, **query: Any) -> Any:
    response = caller.get(path, query_string=query)
    assert response.status_code == 200, response.text
    return response.get_json()


def pages(caller: Caller, **query: Any) -> list[list[str]]:
    """Read the ids of the modules, page by page."""
    found = read(caller, **query)
    read_so_far = [[one["moduleId"] for one in found["modules"]]]
    while found["nextCursor"] is not None:
        found = read(caller, **query, cursor=found["nextCursor"])
        read_so_far.append([one["moduleId"] for one in found["modules"]])
    return read_so_far


def send(caller: Caller, user_id: str, content_id: str, percentage: int, hours: int = 0) -> None:
    update = {"userId": user_id, "contentId": content_id, "progressPercentage": percentage}
    response = caller.post("/api/progress", json=update | {"occurredAt": (NOON + timedelta(hours=hours)).isoformat()})
    assert response.status_code in {200, 201}, response.text


def enroll(caller: Caller, user_id: str, module_id: str, **fields: Any) -> None:
    response = caller.put(f"/api/enrollments/{user_id}/{module_id}", json=fields)
    assert response.status_code in {200, 201}, response.text


def assert_as_in_the_statistics(caller: Caller, summary: Any) -> None:
    statistics = read(caller, f"{PATH}/{summary['moduleId']}")
    learners = {name: statistics["learners"][name] for name in ("enrolled", "started", "completed")}
    expected = {name: statistics[name] for name in FIGURES} | learners
    assert {name: value for name, value in summary.items() if name != "lastActivityAt"} == expected


def test_a_module_has_the_figures_of_its_statistics(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets", {"id": "maps", "weight": 2}], title="Algebra I")
    publish("biology", ["cells"])
    for user_id, percentages in {"ann": (100, 100), "bob": (50, 33), "cal": (100, 0), "dan": (7, 0)}.items():
        for content_id, percentage in zip(("sets", "maps"), percentages, strict=True):
            send(service(), user_id, content_id, percentage)
    enroll(service(), "bob", "algebra", status="paused")
    enroll(service(), "cal", "algebra", status="dropped")
    enroll(service(), "eve", "algebra")
    send(service(), "dan", "cells", 40)

    algebra, biology = read(service())["modules"]

    assert algebra == {
        "moduleId": "algebra",
        "title": "Algebra I",
        "enrolled": 5,
        "started": 4,
        "completed": 1,
        "completionRate": 25,
        "averageProgressPercentage": 35.25,  # of 300, 116, 7 and 0, out of 4 x 3 x 100
        "lastActivityAt": "2026-01-31T12:00:00Z",
    }
    for summary in (algebra, biology):
        assert_as_in_the_statistics(service(), summary)


def test_a_module_without_learners_has_no_rate_and_no_average(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    publish("biology", [])

    assert read(service())["modules"] == [
        {"moduleId": "algebra", "title": "Algebra", **NOBODY},
        {"moduleId": "biology", "title": "Biology", **NOBODY},
    ]


def test_a_module_without_weight_has_a_rate_and_no_average(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    send(service(), "ann", "sets", 100)
    send(service(), "bob", "sets", 50)
    publish("algebra", [{"id": "sets", "weight": 0}])

    (algebra,) = read(service())["modules"]

    assert (algebra["completionRate"], algebra["averageProgressPercentage"]) == (50, None)
    assert_as_in_the_statistics(service(), algebra)


def test_where_all_have_dropped_there_is_nobody_to_average(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    send(service(), "ann", "sets", 50)
    enroll(service(), "ann", "algebra", status="dropped")

    (algebra,) = read(service())["modules"]

    assert (algebra["enrolled"], algebra["completionRate"], algebra["averageProgressPercentage"]) == (1, None, None)
    assert algebra["lastActivityAt"] == "2026-01-31T12:00:00Z"


def test_the_last_activity_is_the_latest_of_the_counted_learners_of_any_status(
    service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    publish("biology", ["cells"])

    def last_activity() -> str | None:
        (algebra,) = [one for one in read(service())["modules"] if one["moduleId"] == "algebra"]
        assert_as_in_the_statistics(service(), algebra)
        return None if algebra["lastActivityAt"] is None else str(algebra["lastActivityAt"])[11:13]

    enroll(service(), "fay", "algebra")
    send(service(), "ann", "cells", 50, hours=9)
    assert last_activity() is None
    send(service(), "ann", "sets", 50, hours=1)
    send(service(), "bob", "sets", 50, hours=0)
    assert last_activity() == "13"
    for place, status in enumerate(("paused", "dropped", "active"), 2):
        send(service(), "bob", "sets", 60, hours=place)
        enroll(service(), "bob", "algebra", status=status)
        assert last_activity() == f"{12 + place}"
    send(service(), "cal", "sets", 100, hours=5)
    assert last_activity() == "17"

    enroll(service(), "cal", "algebra", counted=False)
    assert last_activity() == "16"
    assert service().delete("/api/progress/bob/algebra").status_code == 204
    assert last_activity() == "13"
    enroll(service(), "cal", "algebra", counted=True)
    assert last_activity() == "17"


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 200])
def test_pages_of_any_size_join_to_all_modules_by_code_point(limit: int, service: Callers, publish: Publish) -> None:
    ids = ["-a", "1a", "Z~+|'@", "a", "b"]
    for module_id in reversed(ids):
        publish(module_id, [f"{module_id}-content"])

    found = pages(service(), limit=limit)

    assert [module_id for page in found for module_id in page] == ids
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert len(found) == -(-len(ids) // limit)


def test_without_a_limit_a_page_has_fifty_modules(service: Callers, publish: Publish) -> None:
    for place in range(51):
        publish(f"m{place:02}", [])

    assert [len(page) for page in pages(service())] == [50, 1]


def test_instructors_see_the_modules_that_they_teach_page_by_page(
    service: Callers, instructor: Callers, publish: Publish
) -> None:
    for module_id, instructor_ids in {"a": ["ines"], "b": ["otto"], "c": ["otto", "ines"], "d": ["ines"]}.items():
        publish(module_id, [f"{module_id}-content"], instructor_ids=instructor_ids)
        send(service(), "sam", f"{module_id}-content", 50)

    everything = {one["moduleId"]: one for one in read(service())["modules"]}
    assert list(everything) == ["a", "b", "c", "d"]
    assert read(instructor()) == {"modules": [everything[name] for name in ("a", "c", "d")], "nextCursor": None}
    assert pages(instructor(), limit=2) == [["a", "c"], ["d"]]
    assert pages(instructor("otto"), limit=1) == [["b"], ["c"]]
    assert read(instructor("una")) == {"modules": [], "nextCursor": None}


def test_behind_the_last_module_there_is_none(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])

    assert read(service(), cursor="algebra") == {"modules": [], "nextCursor": None}
    assert [one["moduleId"] for one in read(service(), cursor="alchemy")["modules"]] == ["algebra"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": ".a"}, "cursor"),
        ({"cursor": "export"}, "cursor"),
        ({"cursor": "a" * 256}, "cursor"),
        ({"sort": "title"}, "sort"),
    ],
)
def test_a_wrong_parameter_is_refused(query: dict[str, Any], name: str, service: Callers) -> None:
    assert refusal(service().get(PATH, query_string=query)) == (400, "malformed-request", {f"/{name}"})
