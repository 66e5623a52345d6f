"""What each learner has done in each content: what their own view of the module says, with the roster's learners."""

import csv
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest
from flask import Flask
from sqlalchemy import Uuid, func, insert, literal, select

from progress_service.analytics import matrix
from progress_service.store.models import Content, Enrollment, ProgressRecord
from tests.callers import Caller
from tests.conftest import Callers, Publish, engine_of
from tests.progress.sending import refusal

MODULE = "/api/progress/stats/algebra"
FIGURES = ("status", "progressPercentage", "scorePercentage", "timeSpentSeconds")
SORTS = ["userId", "progress", "-progress", "lastActivity", "-lastActivity"]

Document: TypeAlias = dict[str, Any]


def read(caller: Caller, path: str = f"{MODULE}/matrix", **query: Any) -> Document:
    response = caller.get(path, query_string=query)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def pages(caller: Caller, path: str, **query: Any) -> Iterator[Document]:
    page = read(caller, path, **query)
    yield page
    while page["nextCursor"] is not None:
        page = read(caller, path, **query, cursor=page["nextCursor"])
        yield page


def table(caller: Caller, **query: Any) -> list[list[str]]:
    response = caller.get(f"{MODULE}/matrix.csv", query_string=query)
    assert (response.status_code, response.mimetype) == (200, "text/csv"), response.text
    return list(csv.reader(response.text.splitlines()))


def cells(item: Document) -> list[str]:
    """Return the cells of a learner's row in the table."""
    shown = [item[name] for name in ("userId", "status", "counted", "progressPercentage")]
    for content in item["contents"]:
        shown += [content[name] for name in FIGURES] if content else [None] * 4
    return ["" if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in shown]


def send(caller: Caller, user_id: str, content_id: str, percentage: int, days: float = 0, **fields: Any) -> None:
    at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    update = {"userId": user_id, "contentId": content_id, "progressPercentage": percentage, "occurredAt": at}
    response = caller.post("/api/progress", json=update | fields)
    assert response.status_code in {200, 201}, response.text


def enroll(caller: Caller, user_id: str, **fields: Any) -> None:
    response = caller.put(f"/api/enrollments/{user_id}/algebra", json=fields)
    assert response.status_code in {200, 201}, response.text


def excuse(caller: Caller, user_id: str, content_id: str) -> None:
    assert caller.put(f"/api/progress/{user_id}/algebra/{content_id}/excuse").status_code == 200


CONTENTS = ["sets", {"id": "maps", "weight": 2}, {"id": "quiz", "type": "quiz", "passingScore": 60}, "extra"]
FILTERS: list[Document] = [
    {},
    {"status": "active", "inactiveDays": 4},
    {"maxProgress": "25"},
    {"contentId": "quiz", "contentStatus": "excused"},
    {"contentId": "maps", "contentStatus": "not_started", "userIds": "dan,cal,Zoe"},
    {"stalledOn": "extra", "stalledDays": 4},
]
CLASS = ["Zoe", "_bo", "ann", "bea", "cal", "dan", "eve", "fay"]


@pytest.fixture
def algebra(service: Callers, publish: Publish) -> None:
    """A module with eight learners of every kind, two of whom are in another module, too."""
    publish("algebra", [*CONTENTS[:3], {"id": "extra", "weight": 0}])
    publish("biology", ["cells"])
    for user_id in ("ann", "cal", "noah"):
        send(service(), user_id, "cells", 77, timeSpentSeconds=7)
    for content_id in ("sets", "maps"):
        send(service(), "Zoe", content_id, 100, days=3, timeSpentSeconds=60)
        send(service(), "ann", content_id, 100, days=20, timeSpentSeconds=14_400)
    send(service(), "Zoe", "quiz", 100, days=2, score=59.9, maxScore=100)
    send(service(), "ann", "quiz", 100, days=19, score=2, maxScore=3, timeSpentSeconds=1)
    send(service(), "_bo", "extra", 33, days=5)
    send(service(), "bea", "maps", 50, days=5, timeSpentSeconds=30)
    enroll(service(), "bea", status="dropped")
    send(service(), "cal", "sets", 0, days=1)
    enroll(service(), "cal", counted=False)
    enroll(service(), "dan", status="paused")
    excuse(service(), "eve", "quiz")
    send(service(), "fay", "quiz", 20, score=0, maxScore=5, timeSpentSeconds=9)
    excuse(service(), "fay", "quiz")


@pytest.mark.usefixtures("algebra")
def test_each_row_says_what_the_learners_own_view_of_the_module_says(service: Callers, instructor: Callers) -> None:
    found = read(instructor())

    assert [item["userId"] for item in found["items"]] == CLASS
    shown = set()
    for item in found["items"]:
        enrollment = read(service(), f"/api/enrollments/{item['userId']}/algebra")
        for name in ("userId", "status", "counted", "progressPercentage"):
            assert item[name] == enrollment[name]
        view = read(service(), f"/api/progress/{item['userId']}/algebra")["contents"]
        assert found["contents"] == [{name: content[name] for name in ("contentId", "title")} for content in view]
        records = [content["progress"] for content in view]
        assert item["contents"] == [record and {name: record[name] for name in FIGURES} for record in records]
        shown |= {content["status"] if content else "not_started" for content in item["contents"]}
    assert shown == {"not_started", "in_progress", "completed", "excused"}


@pytest.mark.usefixtures("algebra")
def test_a_cell_shows_status_percentage_score_and_time(service: Callers) -> None:
    found = {item["userId"]: item["contents"] for item in read(service())["items"]}

    def cell(*figures: Any) -> Document:
        return dict(zip(FIGURES, figures, strict=True))

    done = cell("completed", 100, None, 60)
    assert found["Zoe"] == [done, done, cell("in_progress", 99, 59.9, 0), None]
    assert found["ann"][2] == cell("completed", 100, 66.66, 1)
    assert found["_bo"] == [None, None, None, cell("in_progress", 33, None, 0)]
    assert found["dan"] == [None] * 4
    assert found["eve"] == [None, None, cell("excused", 100, None, 0), None]
    assert found["fay"][2] == cell("excused", 100, 0, 9)


def shown_learners(page: Document) -> tuple[list[str], str | None]:
    return [item["userId"] for item in page["items"]], page["nextCursor"]


@pytest.mark.usefixtures("algebra")
@pytest.mark.parametrize("sort", SORTS)
def test_pages_have_the_learners_and_cursors_of_the_roster(sort: str, service: Callers) -> None:
    for given in FILTERS:
        query: Document = {**given, "sort": sort}
        whole = read(service(), **query)
        assert whole["items"], given
        for limit in (1, 3, 200):
            found, listed = (
                list(pages(service(), f"{MODULE}/{path}", **query, limit=limit)) for path in ("matrix", "learners")
            )
            assert [item for page in found for item in page["items"]] == whole["items"]
            assert list(map(shown_learners, found)) == list(map(shown_learners, listed))
        assert table(service(), **query)[1:] == [cells(item) for item in whole["items"]]


def test_the_contents_are_the_current_ones_in_catalog_order(service: Callers, publish: Publish) -> None:
    def shown() -> tuple[list[str], list[int | None]]:
        found = read(service())
        (item,) = found["items"]
        percentages = [content and content["progressPercentage"] for content in item["contents"]]
        return [content["contentId"] for content in found["contents"]], percentages

    publish("algebra", ["sets", "maps", "rings"])
    send(service(), "sam", "sets", 10)
    send(service(), "sam", "rings", 30)
    assert shown() == (["sets", "maps", "rings"], [10, None, 30])

    publish("algebra", ["rings", "maps"])
    send(service(), "sam", "sets", 15)
    assert shown() == (["rings", "maps"], [30, None])
    assert table(service())[0][4::4] == ["rings status", "maps status"]

    publish("algebra", ["maps", "sets", "rings"])
    assert shown() == (["maps", "sets", "rings"], [None, 15, 30])
    assert shown()[0] == [one["contentId"] for one in read(service(), MODULE)["contents"]]


def test_a_content_that_moves_takes_its_column_along(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets", "maps"])
    publish("biology", ["cells"])
    send(service(), "sam", "sets", 10)
    send(service(), "sam", "maps", 20)
    send(service(), "kim", "cells", 70)

    publish("algebra", ["sets"])
    publish("biology", ["cells", "maps"])

    def percentages(module_id: str) -> dict[str, list[int | None]]:
        items = read(service(), f"/api/progress/stats/{module_id}/matrix")["items"]
        return {one["userId"]: [cell and cell["progressPercentage"] for cell in one["contents"]] for one in items}

    assert percentages("algebra") == {"sam": [10]}
    assert percentages("biology") == {"kim": [70, None], "sam": [None, 20]}


def test_a_withdrawn_excuse_and_a_reset_leave_nothing_in_the_cells(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets", "maps"])
    excuse(service(), "sam", "sets")
    send(service(), "sam", "maps", 20)

    assert service().delete("/api/progress/sam/algebra/sets/excuse").status_code == 204
    (item,) = read(service())["items"]
    assert (item["contents"][0], item["contents"][1]["progressPercentage"]) == (None, 20)

    assert service().delete("/api/progress/sam/algebra").status_code == 204
    (item,) = read(service())["items"]
    assert item["contents"] == [None, None]


def test_a_module_without_contents_or_learners_has_an_empty_matrix(service: Callers, publish: Publish) -> None:
    publish("algebra", [])
    assert read(service()) == {"contents": [], "items": [], "nextCursor": None}
    assert table(service()) == [["userId", "status", "counted", "progressPercentage"]]

    enroll(service(), "sam")
    sam = {"userId": "sam", "status": "active", "counted": True, "progressPercentage": 0, "contents": []}
    assert read(service())["items"] == [sam]
    assert table(service())[1:] == [["sam", "active", "true", "0.0"]]


def test_who_has_completed_a_module_without_weight_is_shown_as_in_the_roster(
    service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    send(service(), "ann", "sets", 100)
    send(service(), "bob", "sets", 50)
    publish("algebra", [{"id": "sets", "weight": 0}])

    assert [one["progressPercentage"] for one in read(service(), sort="-progress")["items"]] == [100, 0]


def test_the_table_has_four_columns_for_each_content(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets", "maps"])
    send(service(), "ann", "maps", 40, timeSpentSeconds=61, score=1, maxScore=3)
    enroll(service(), "-b", status="paused", counted=False)

    response = service().get(f"{MODULE}/matrix.csv")

    assert response.content_type == "text/csv; charset=utf-8; header=present"
    assert response.headers["Content-Disposition"] == 'attachment; filename="algebra-matrix.csv"'
    assert response.data == (
        b"userId,status,counted,progressPercentage,"
        b"sets status,sets progressPercentage,sets scorePercentage,sets timeSpentSeconds,"
        b"maps status,maps progressPercentage,maps scorePercentage,maps timeSpentSeconds\r\n"
        b"-b,paused,false,0.0,,,,,,,,\r\n"
        b"ann,active,true,20.0,,,,,in_progress,40,33.33,61\r\n"
    )


@pytest.mark.usefixtures("algebra")
@pytest.mark.parametrize("most", [1, 8, 9, 20])
def test_the_table_is_whole_however_few_learners_are_read_at_a_time(
    most: int, service: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [cells(item) for item in read(service(), sort="-lastActivity")["items"]]
    monkeypatch.setattr(matrix, "CELLS", most)

    assert table(service(), sort="-lastActivity")[1:] == expected


def test_a_table_has_no_pages_and_takes_the_filters_of_the_roster(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])

    for query in ({"limit": 50}, {"cursor": "x"}):
        response = service().get(f"{MODULE}/matrix.csv", query_string=query)
        assert refusal(response) == (400, "malformed-request", {f"/{name}" for name in query})
    for path in ("matrix", "matrix.csv"):
        response = service().get(f"{MODULE}/{path}", query_string={"status": "finished", "sort": "title"})
        assert refusal(response) == (400, "malformed-request", {"/status", "/sort"})


def test_there_is_no_matrix_of_an_unknown_module(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])

    for path in ("matrix", "matrix.csv"):
        response = service().get(f"/api/progress/stats/alchemy/{path}")
        assert refusal(response) == (404, "not-found", set())
        assert "Content-Disposition" not in response.headers


def fill(app: Flask, learners: int) -> None:
    """Enroll learners, each with a record of every content."""
    now = datetime.now(UTC)
    key = (
        func.gen_random_uuid()
        if engine_of(app).dialect.name == "postgresql"
        else func.lower(func.hex(func.randomblob(16)))
    )
    enrollment = {"module_id": "algebra", "status": "active", "weighted_sum": 0, "completed_contents": 0}
    enrollment |= {"time_spent_seconds": 0, "enrolled_at": now, "last_activity_at": now, "last_content_id": "c0"}
    record = {
        "progress_percentage": 50,
        "furthest_percentage": 50,
        "time_spent_seconds": 60,
        "score": 2,
        "max_score": 3,
    }
    columns = [*record, "started_at", "last_activity_at", "user_id", "module_id", "content_id", "id"]
    at = literal(now, Enrollment.enrolled_at.type)
    records = select(
        *map(literal, record.values()), at, at, Enrollment.user_id, Content.module_id, Content.id, key.cast(Uuid)
    ).join(Content, Content.module_id == Enrollment.module_id)
    with engine_of(app).begin() as connection:
        connection.execute(insert(Enrollment), [enrollment | {"user_id": f"u{nth:05}"} for nth in range(learners)])
        connection.execute(insert(ProgressRecord).from_select(columns, records))


@pytest.mark.slow
def test_memory_does_not_grow_while_the_matrix_of_a_thousand_learners_is_saved(
    app: Flask, service: Callers, publish: Publish
) -> None:
    publish("algebra", [f"c{place}" for place in range(60)])
    fill(app, 1000)
    response = service().get(f"{MODULE}/matrix.csv", buffered=False)
    parts = response.iter_encoded()

    tracemalloc.start()
    first = [next(parts).count(b"\r\n") for _ in range(4)]
    most_at_first = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    rest = [part.count(b"\r\n") for part in parts]
    most_later = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    response.close()

    assert sum(first + rest) == 1001
    assert most_later < 1.1 * most_at_first
