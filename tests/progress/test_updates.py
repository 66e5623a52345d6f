"""POST /api/progress: what an update must look like, and what becomes of it."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from flask import Flask

from tests.callers import Caller
from tests.conftest import Callers, Publish, application, stored
from tests.progress.sending import INVALID, from_now, instant, moment, refusal, send, send_raw

QUIZ = {"id": "quiz", "type": "quiz", "completionThreshold": 80, "passingScore": 66.66}


@pytest.fixture(autouse=True)
def _catalog(publish: Publish, student: Callers) -> None:
    """A module of two counted contents and an optional one; a second module and learner are there as noise."""
    publish("algebra", ["intro", QUIZ, {"id": "extra", "weight": 0}])
    publish("biology", ["cells"])
    noise = {"progressPercentage": 70, "timeSpentSeconds": 7, "position": "nora's"}
    updates = [noise | {"contentId": content} for content in ("intro", "cells")]
    assert student("nora").post("/api/progress/batch", json={"updates": updates}).status_code == 200


def test_the_first_update_starts_the_record_and_enrolls_the_learner(student: Callers) -> None:
    before = datetime.now(UTC)
    response = student().post(
        "/api/progress",
        json={
            "contentId": "intro",
            "progressPercentage": 33.7,
            "timeSpentSeconds": 90,
            "score": 2,
            "maxScore": 3,
            "position": "page 3",
        },
    )
    assert response.status_code == 201
    document = response.get_json()
    now = document["progress"]["startedAt"]
    assert before <= instant(now) <= datetime.now(UTC)
    assert document == {
        "progress": {
            "id": str(UUID(document["progress"]["id"])),
            "userId": "sam",
            "moduleId": "algebra",
            "contentId": "intro",
            "status": "in_progress",
            "progressPercentage": 33,
            "timeSpentSeconds": 90,
            "score": 2,
            "maxScore": 3,
            "scorePercentage": 66.66,
            "position": "page 3",
            "startedAt": now,
            "completedAt": None,
            "lastActivityAt": now,
        },
        "enrollment": {
            "userId": "sam",
            "moduleId": "algebra",
            "status": "active",
            "progressPercentage": 16.5,
            "completedContents": 0,
            "totalContents": 2,
            "timeSpentSeconds": 90,
            "enrolledAt": now,
            "completedAt": None,
            "lastActivityAt": now,
        },
    }


def test_an_update_of_nothing_but_a_content_opens_it(student: Callers) -> None:
    response = student().post("/api/progress", json={"contentId": "intro"})
    assert response.status_code == 201
    record = response.get_json()["progress"]
    assert (record["status"], record["progressPercentage"], record["timeSpentSeconds"]) == ("in_progress", 0, 0)
    assert [record[name] for name in ("score", "maxScore", "scorePercentage", "position", "completedAt")] == [None] * 5


def test_a_later_update_answers_200_with_the_same_record(student: Callers) -> None:
    first = send(student(), "intro", progressPercentage=10, timeSpentSeconds=5)["progress"]
    response = student().post("/api/progress", json={"contentId": "intro", "progressPercentage": 20})
    assert response.status_code == 200
    second = response.get_json()["progress"]
    assert second == first | {"progressPercentage": 20, "lastActivityAt": second["lastActivityAt"]}
    assert instant(second["lastActivityAt"]) > instant(first["lastActivityAt"])


def test_an_update_touches_no_other_record_and_no_other_enrollment(app: Flask, student: Callers) -> None:
    before = stored(app)
    send(student(), "intro", progressPercentage=100, timeSpentSeconds=9)
    after = stored(app)
    for table in before.keys() - {"tallies"}:
        assert set(before[table]) <= set(after[table])


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("0", 0),
        ("0.99", 0),
        ("1e-400", 0),
        ("1.0", 1),
        ("33.7", 33),
        ("99.99999999999999999999", 99),
        ("100.0", 100),
        ("1E+2", 100),
    ],
)
def test_a_percentage_is_kept_whole_and_means_the_decimal_that_was_written(
    student: Callers, written: str, kept: int
) -> None:
    response = send_raw(student(), contentId='"intro"', progressPercentage=written)
    assert response.status_code == 201
    record = response.get_json()["progress"]
    assert (record["progressPercentage"], record["status"] == "completed") == (kept, kept == 100)


ANY_NUMBER = ["true", "false", '"1"', "null", "[1]", "{}", "-1", "-0.1", "1e999", "-1e999"]
ANY_TEXT = ["true", "1", "null", '["a"]', r'"\u0000"', r'"\ud800"']
NO_ID = [*ANY_TEXT, '""', '"+a"', '".a"', '"=a"', '"a b"', '"a/b"', '"a\\n"', '"\u00e9"', f'"{"a" * 256}"']
NO_TIME = [
    "0",
    "null",
    "true",
    '"yesterday"',
    '"2024-01-05"',
    '"2024-01-05T12:00:00"',
    '"2024-01-05 12:00:00Z"',
    '"2024-02-30T12:00:00Z"',
    '"1969-12-31T23:59:59Z"',
    '"1970-01-01T00:59:59+01:00"',
    '"9999-12-31T23:59:59-01:00"',
]


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("progressPercentage", [*ANY_NUMBER, "101", "100.00000000000000000001"]),
        ("timeSpentSeconds", [*ANY_NUMBER, "14401", "0.5", "59.99999999999999999999", "1e-400"]),
        ("score", [*ANY_NUMBER, "10.0001", "0.00001", "5.00000000000000000001"]),
        ("maxScore", [*ANY_NUMBER, "0", "0.0", "0.00001", "9.00001", "1000000.0001", "1000001"]),
        ("position", [*ANY_TEXT, f'"{"a" * 256}"']),
        ("contentId", NO_ID),
        ("userId", [*NO_ID, '"me"', '"stats"', '"batch"', '"events"']),
        ("occurredAt", NO_TIME),
        ("percentage", ["50"]),
        ("moduleId", ['"algebra"']),
    ],
)
def test_a_wrong_value_is_refused_with_its_pointer_and_changes_nothing(
    app: Flask, admin: Callers, name: str, refused: list[str]
) -> None:
    before = stored(app)
    fine = {"contentId": '"intro"', "score": "1", "maxScore": "10"}
    answers = {written: refusal(send_raw(admin(), **fine | {name: written})) for written in refused}
    assert answers == dict.fromkeys(refused, (*INVALID, {f"/{name}"}))
    assert stored(app) == before


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_are_not_json_are_refused(app: Flask, student: Callers, constant: str) -> None:
    before = stored(app)
    response = send_raw(student(), contentId='"intro"', progressPercentage=constant)
    assert refusal(response) == (400, "malformed-request", set())
    assert stored(app) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"timeSpentSeconds": 0},
        {"timeSpentSeconds": 14_400},
        {"timeSpentSeconds": 60.0},
        {"score": 0, "maxScore": 0.0001},
        {"score": 0.0001, "maxScore": 0.0001},
        {"score": 999_999.9999, "maxScore": 1_000_000},
        {"score": 1_000_000, "maxScore": 1_000_000.0},
        {"position": ""},
        {"position": "\U0001f600" * 255},
    ],
)
def test_values_at_their_bounds_are_kept_as_they_are(student: Callers, fields: dict[str, Any]) -> None:
    record = send(student(), "intro", **fields)["progress"]
    assert {name: record[name] for name in fields} == fields


@pytest.mark.parametrize("begin", ["9", "a", "_", "-"])
def test_an_identifier_may_have_255_characters_of_many_kinds(
    begin: str, publish: Publish, student: Callers, service: Callers
) -> None:
    longest = begin + "a.B_c:d@e|f+g~h'" * 15 + "12345678901234"
    assert len(longest) == 255
    module, other = longest.upper(), f"{longest[:-1]}5"
    publish(module, [longest, other])
    record = send(student(longest), longest, timeSpentSeconds=60)["progress"]
    assert (record["userId"], record["moduleId"], record["contentId"]) == (longest, module, longest)
    assert send(service(), other, userId=other, timeSpentSeconds=1)["enrollment"]["userId"] == other

    learner = quote(longest)
    assert student(longest).get("/api/progress/me").get_json()["modules"][0]["moduleId"] == module
    view = student(longest).get(f"/api/progress/{learner}/{quote(module)}").get_json()
    assert [content["timeSpentSeconds"] for content in view["byType"]] == [60]
    statistics = service().get(f"/api/progress/stats/{quote(module)}").get_json()
    assert [content["started"] for content in statistics["contents"]] == [1, 1]
    assert [content["contentId"] for content in statistics["contents"]] == [longest, other]
    roster = f"/api/progress/stats/{quote(module)}/learners"
    first = service().get(roster, query_string={"limit": 1}).get_json()
    rest = service().get(roster, query_string={"limit": 1, "cursor": first["nextCursor"]}).get_json()
    assert [one["userId"] for one in first["items"] + rest["items"]] == sorted([longest, other])
    table = csv.reader(StringIO(service().get(roster, headers={"Accept": "text/csv"}).text))
    assert [row[0] for row in table] == ["userId", *sorted([longest, other])]
    assert service().delete(f"/api/progress/{learner}/{quote(module)}").status_code == 204
    assert service().delete(f"/api/progress/{learner}").status_code == 204


def test_every_wrong_field_is_named_at_once(app: Flask, admin: Callers) -> None:
    before = stored(app)
    body = {
        "progressPercentage": True,
        "timeSpentSeconds": "60",
        "score": -1,
        "position": 3,
        "userId": "me",
        "occurredAt": "soon",
        "a/b~c": 1,
    }
    response = admin().post("/api/progress", json=body)
    wrong = {f"/{name}" for name in body if name != "a/b~c"} | {"/a~1b~0c", "/contentId", "/maxScore"}
    assert refusal(response) == (*INVALID, wrong)
    assert stored(app) == before


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"score": 5}, "/maxScore"),
        ({"maxScore": 5}, "/score"),
        ({"score": 5.0001, "maxScore": 5}, "/score"),
    ],
)
def test_a_score_comes_with_its_maximum_and_is_within_it(
    app: Flask, student: Callers, fields: dict[str, float], pointer: str
) -> None:
    before = stored(app)
    response = student().post("/api/progress", json={"contentId": "intro", **fields})
    assert refusal(response) == (*INVALID, {pointer})
    assert stored(app) == before


def test_a_content_that_is_not_in_the_catalog_is_refused(app: Flask, student: Callers) -> None:
    before = stored(app)
    response = student().post("/api/progress", json={"contentId": "algebra", "progressPercentage": 5})
    assert refusal(response) == (422, "unknown-content", {"/contentId"})
    response = student().post("/api/progress", json={"contentId": "algebra", "progressPercentage": "5"})
    assert refusal(response) == (*INVALID, {"/contentId", "/progressPercentage"})
    assert stored(app) == before


@pytest.mark.parametrize(
    ("reported", "best"),
    [
        ([(5, 10), (6, 10), (5.5, 10)], (6, 10, 60)),
        ([(50, 100), (5, 10)], (50, 100, 50)),
        ([(5, 10), (50, 100)], (50, 100, 50)),
        ([(3, 3), (99.9999, 100)], (3, 3, 100)),
        ([(99.9999, 100)], (99.9999, 100, 99.99)),
    ],
)
def test_the_best_score_is_kept_with_its_maximum(
    student: Callers, reported: list[tuple[float, float]], best: tuple[float, float, float]
) -> None:
    for score, max_score in reported:
        record = send(student(), "intro", score=score, maxScore=max_score)["progress"]
    assert (record["score"], record["maxScore"], record["scorePercentage"]) == best


def test_progress_never_falls(student: Callers) -> None:
    shown = [
        send(student(), "intro", progressPercentage=reported)["progress"]["progressPercentage"]
        for reported in (60, 20, 0, 60.9, 61, 100, 5)
    ]
    assert shown == [60, 60, 60, 60, 61, 100, 100]


def test_time_accumulates_on_the_record_and_the_enrollment_also_after_completion(student: Callers) -> None:
    send(student(), "intro", timeSpentSeconds=60, progressPercentage=100)
    send(student(), "extra", timeSpentSeconds=5)
    document = send(student(), "intro", timeSpentSeconds=14_400)
    assert document["progress"]["timeSpentSeconds"] == 14_460
    assert document["enrollment"]["timeSpentSeconds"] == 14_465


def test_the_position_is_that_of_the_latest_event_and_of_equal_times_the_one_applied_later(service: Callers) -> None:
    steps = [("first", 5), ("late", 3), ("same time", 5), (None, 9), ("newest", 7)]
    shown = []
    for position, minute in steps:
        fields = {"position": position} if position else {}
        document = send(service(), "intro", userId="sam", occurredAt=moment(minute), **fields)
        shown.append(document["progress"]["position"])
    assert shown == ["first", "first", "same time", "same time", "newest"]


@pytest.mark.parametrize(
    ("reported", "shown"),
    [
        ([{"progressPercentage": 100}], [99]),
        ([{"progressPercentage": 100, "score": 66.65, "maxScore": 100}], [99]),
        ([{"progressPercentage": 80, "score": 66.66, "maxScore": 100}], [100]),
        ([{"progressPercentage": 80, "score": 2, "maxScore": 3}], [100]),
        ([{"progressPercentage": 79, "score": 3, "maxScore": 3}, {"progressPercentage": 80}], [79, 100]),
        ([{"progressPercentage": 100, "score": 1, "maxScore": 3}, {"score": 2, "maxScore": 3}], [99, 100]),
        ([{"score": 3, "maxScore": 3}, {"score": 0, "maxScore": 3, "progressPercentage": 100}], [0, 100]),
    ],
)
def test_a_record_completes_when_threshold_and_passing_score_are_both_reached(
    student: Callers, reported: list[dict[str, float]], shown: list[int]
) -> None:
    records = [send(student(), "quiz", **fields)["progress"] for fields in reported]
    assert [record["progressPercentage"] for record in records] == shown
    for record in records:
        assert (record["progressPercentage"] == 100) == (record["status"] == "completed")
        assert (record["status"] == "completed") == (record["completedAt"] is not None)


def test_a_completed_record_stays_completed_when_the_rule_becomes_harder(publish: Publish, student: Callers) -> None:
    completed = send(student(), "cells", progressPercentage=100)["progress"]
    publish("biology", [{"id": "cells", "passingScore": 100}])
    record = send(student(), "cells", progressPercentage=5, score=1, maxScore=2)["progress"]
    assert (record["status"], record["progressPercentage"]) == ("completed", 100)
    assert record["completedAt"] == completed["completedAt"]


@pytest.mark.parametrize(("role", "learner"), [("student", "sam"), ("instructor", "ines"), ("admin", "ada")])
def test_an_update_without_a_user_is_the_callers_own(app: Flask, role: str, learner: str) -> None:
    caller = Caller(app, role, learner)
    assert send(caller, "intro")["progress"]["userId"] == learner
    assert send(caller, "quiz", userId=learner)["progress"]["userId"] == learner


@pytest.mark.parametrize("role", ["admin", "service"])
def test_admins_and_services_report_for_any_learner(app: Flask, role: str) -> None:
    document = send(Caller(app, role, "ada"), "intro", userId="sam")
    assert document["progress"]["userId"] == document["enrollment"]["userId"] == "sam"


def test_a_service_has_to_say_whose_update_it_is(app: Flask, service: Callers) -> None:
    before = stored(app)
    response = service().post("/api/progress", json={"contentId": "intro"})
    assert refusal(response) == (*INVALID, {"/userId"})
    assert stored(app) == before


@pytest.mark.parametrize("role", ["student", "instructor"])
@pytest.mark.parametrize("fields", [{"userId": "nora"}, {"occurredAt": moment()}])
def test_students_and_instructors_report_for_themselves_as_of_now(
    app: Flask, role: str, fields: dict[str, str]
) -> None:
    before = stored(app)
    response = Caller(app, role, "ines").post("/api/progress", json={"contentId": "intro", **fields})
    assert refusal(response)[:2] == (403, "forbidden")
    assert stored(app) == before


@pytest.mark.parametrize("role", ["admin", "service"])
def test_the_event_time_stands_for_now(app: Flask, role: str) -> None:
    caller = Caller(app, role, "ada")
    for minute, percentage in ((5, 10), (9, 100), (3, 100), (7, 100)):
        document = send(
            caller, "intro", userId="sam", occurredAt=moment(minute), progressPercentage=percentage, timeSpentSeconds=1
        )
    record, enrollment = document["progress"], document["enrollment"]
    assert [record[name] for name in ("startedAt", "completedAt", "lastActivityAt")] == [
        moment(minute) for minute in (3, 3, 9)
    ]
    assert (enrollment["enrolledAt"], enrollment["lastActivityAt"]) == (moment(3), moment(9))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("1969-12-31T23:00:00-01:00", "1970-01-01T00:00:00Z"),
        ("2024-01-05T14:30:00.25+02:30", "2024-01-05T12:00:00.250000Z"),
        ("2024-01-05t12:00:00z", "2024-01-05T12:00:00Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999Z"),
        ("2017-01-01T00:59:60.25+01:00", "2016-12-31T23:59:59.999999Z"),
    ],
)
def test_the_event_time_may_have_any_offset_and_is_shown_in_utc(service: Callers, written: str, meant: str) -> None:
    document = send(service(), "intro", userId="sam", occurredAt=written)
    assert instant(document["progress"]["startedAt"]) == instant(meant)
    assert instant(document["enrollment"]["enrolledAt"]) == instant(meant)


def test_the_event_time_may_be_5_minutes_ahead_and_no_more(app: Flask, service: Callers) -> None:
    ahead = from_now(4.5)
    assert send(service(), "intro", userId="sam", occurredAt=ahead)["progress"]["lastActivityAt"] == ahead
    before = stored(app)
    response = service().post("/api/progress", json={"contentId": "quiz", "userId": "sam", "occurredAt": from_now(6)})
    assert refusal(response) == (*INVALID, {"/occurredAt"})
    assert stored(app) == before


def enroll(admin: Caller, **fields: str) -> dict[str, Any]:
    response = admin.put("/api/enrollments/sam/algebra", json=fields)
    assert response.status_code in {200, 201}, response.text
    return dict(response.get_json())


@pytest.fixture
def closed(database_url: str) -> Iterator[Flask]:
    """The service as it is where learners are enrolled by the platform alone."""
    with application(database_url, AUTO_ENROLL=False) as app:
        yield app


def test_where_auto_enrollment_is_off_learners_who_are_not_enrolled_are_refused(
    app: Flask, closed: Flask, admin: Callers
) -> None:
    sam = Caller(closed, "student", "sam")
    before = stored(app)
    response = sam.post("/api/progress", json={"contentId": "intro", "progressPercentage": 50})
    assert refusal(response)[:2] == (403, "not-enrolled")
    assert stored(app) == before
    enroll(admin(), enrolledAt=moment())
    assert send(sam, "intro")["enrollment"]["enrolledAt"] == moment()
    assert refusal(sam.post("/api/progress", json={"contentId": "cells"}))[:2] == (403, "not-enrolled")


def test_finishing_the_last_content_completes_the_enrollment(service: Callers) -> None:
    send(service(), "extra", userId="sam", progressPercentage=100, occurredAt=moment(1))
    first = send(service(), "quiz", userId="sam", progressPercentage=90, score=1, maxScore=1, occurredAt=moment(9))
    half = {"status": "active", "progressPercentage": 50, "completedContents": 1, "completedAt": None}
    assert half.items() <= first["enrollment"].items()
    last = send(service(), "intro", userId="sam", progressPercentage=100, occurredAt=moment(5))
    full = {"status": "completed", "progressPercentage": 100, "completedContents": 2, "completedAt": moment(9)}
    assert (full | {"totalContents": 2, "lastActivityAt": moment(9)}).items() <= last["enrollment"].items()
    again = send(service(), "intro", userId="sam", progressPercentage=100, occurredAt=moment(7))
    assert full.items() <= again["enrollment"].items()


def test_contents_count_by_their_weight_and_optional_ones_not_at_all(publish: Publish, student: Callers) -> None:
    publish("geometry", ["lines", {"id": "area", "weight": 2}, {"id": "fun", "weight": 0}])
    shown = [
        send(student(), content, progressPercentage=percentage)["enrollment"]
        for content, percentage in (("fun", 100), ("lines", 1), ("area", 100), ("lines", 99))
    ]
    assert [one["progressPercentage"] for one in shown] == [0, 0.33, 67, 99.66]
    assert [one["completedContents"] for one in shown] == [0, 0, 1, 1]
    assert [one["totalContents"] for one in shown] == [2] * 4
    assert {one["status"] for one in shown} == {"active"}


def test_a_module_without_weight_is_at_0_and_never_completes(publish: Publish, student: Callers) -> None:
    publish("games", [{"id": "chess", "weight": 0}])
    document = send(student(), "chess", progressPercentage=100)
    assert document["progress"]["status"] == "completed"
    expected = {"status": "active", "progressPercentage": 0, "completedContents": 0, "totalContents": 0}
    assert expected.items() <= document["enrollment"].items()


@pytest.mark.parametrize(("status", "final"), [("paused", "completed"), ("dropped", "dropped")])
def test_a_paused_enrollment_completes_and_a_dropped_one_keeps_its_status(
    admin: Callers, student: Callers, status: str, final: str
) -> None:
    enroll(admin(), status=status)
    partly = send(student(), "intro", progressPercentage=100, timeSpentSeconds=5)["enrollment"]
    assert (partly["status"], partly["progressPercentage"]) == (status, 50)
    document = send(student(), "quiz", progressPercentage=100, score=1, maxScore=1)
    assert document["progress"]["status"] == "completed"
    enrollment = document["enrollment"]
    assert (enrollment["status"], enrollment["completedAt"] is None) == (final, final == "dropped")
    expected = {"progressPercentage": 100, "completedContents": 2, "timeSpentSeconds": 5}
    assert expected.items() <= enrollment.items()
