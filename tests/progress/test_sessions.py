"""`session`: the time of a sitting is reported as a total, so that no report is missed and none counts twice."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import permutations
from threading import Barrier
from typing import Any, TypeAlias

import pytest
from flask import Flask
from sqlalchemy import update

from progress_service.store.database import db
from progress_service.store.models import Session
from tests.callers import Caller
from tests.conftest import Callers, Publish, application, stored
from tests.progress.sending import INVALID, moment, refusal, send

Report: TypeAlias = tuple[str, str, int]
"""A content, the name of a session, and its seconds so far."""


@pytest.fixture(autouse=True)
def _catalog(app: Flask, publish: Publish, student: Callers) -> Iterator[None]:
    """Two modules, and another learner whose session has the same name; at the end every figure is exact."""
    publish("algebra", ["intro", "outro"])
    publish("biology", ["cells"])
    send(student("nora"), "intro", session="s", timeSpentSeconds=7000)
    yield
    assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0


def tell(caller: Caller, session: str, seconds: int, content_id: str = "intro", **fields: Any) -> int:
    """Report the seconds of a session so far, and return the time of the record."""
    document = send(caller, content_id, session=session, timeSpentSeconds=seconds, **fields)
    return int(document["progress"]["timeSpentSeconds"])


def times(caller: Caller, user_id: str = "sam") -> dict[str, int]:
    """Return the time of each record of a learner, and of the enrollment in each module."""
    found: dict[str, int] = {}
    for module_id in ("algebra", "biology"):
        view = caller.get(f"/api/progress/{user_id}/{module_id}").get_json()
        records = [one["progress"] for one in view["contents"] if one["progress"]]
        found |= {one["contentId"]: one["timeSpentSeconds"] for one in records}
        if view["enrollment"]:
            found[module_id] = view["enrollment"]["timeSpentSeconds"]
    return found


@pytest.mark.parametrize(
    ("totals", "shown"),
    [
        ([60, 120, 180], [60, 120, 180]),
        ([60, 60, 60], [60, 60, 60]),
        ([180], [180]),
        ([180, 60, 120], [180, 180, 180]),
        ([0, 0, 30], [0, 0, 30]),
        ([86_400, 1, 86_400], [86_400, 86_400, 86_400]),
    ],
)
def test_lost_late_and_repeated_reports_of_a_session_do_not_change_its_time(
    totals: list[int], shown: list[int], student: Callers, service: Callers
) -> None:
    assert [tell(student(), "s", seconds) for seconds in totals] == shown
    assert times(service()) == {"intro": max(totals), "algebra": max(totals)}
    assert times(service(), "nora") == {"intro": 7000, "algebra": 7000}


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_each_session_of_each_content_counts_by_itself_however_reports_are_grouped(
    size: int, service: Callers, app: Flask
) -> None:
    reports: list[Report] = [
        ("intro", "s", 60),
        ("intro", "t", 100),
        ("outro", "s", 30),
        ("intro", "s", 50),
        ("cells", "s", 5),
        ("intro", "t", 101),
        ("outro", "s", 40),
        ("intro", "s", 61),
        ("cells", "S", 5),
    ]
    updates = [
        {"userId": "sam", "contentId": content_id, "session": session, "timeSpentSeconds": seconds}
        for content_id, session, seconds in reports
    ]
    for start in range(0, len(updates), size):
        body = {"updates": updates[start : start + size]}
        assert service().post("/api/progress/batch", json=body).status_code == 200

    expected = {"intro": 61 + 101, "outro": 40, "algebra": 61 + 101 + 40, "cells": 10, "biology": 10}
    assert times(service()) == expected
    kept = {row[:4] for row in stored(app)["sessions"] if row[0] == "sam"}
    assert kept == {("sam", *report) for report in reports[4:]}


def test_time_with_and_without_a_session_adds_up(student: Callers) -> None:
    assert tell(student(), "s", 60) == 60
    assert send(student(), "intro", timeSpentSeconds=10)["progress"]["timeSpentSeconds"] == 70
    assert tell(student(), "s", 61) == 71
    document = send(student(), "intro", session="s", progressPercentage=100)
    assert (document["progress"]["timeSpentSeconds"], document["progress"]["status"]) == (71, "completed")
    path = f"/api/progress/{document['progress']['id']}/complete"
    for _ in range(2):
        answer = student().put(path, json={"session": "s", "timeSpentSeconds": 90}).get_json()
        assert answer["progress"]["timeSpentSeconds"] == answer["enrollment"]["timeSpentSeconds"] == 100


NAMES = ["s", ".", "+1", "~'@|:", "2026-01-31T12:00:00+01:00", "9" * 64]
NO_NAMES: list[Any] = ["", "a b", "é", "a\n", "a/b", "9" * 65, 1, None, True, []]


@pytest.mark.parametrize("name", NAMES)
def test_a_session_is_named_by_up_to_64_characters_of_identifiers(name: str, student: Callers) -> None:
    assert [tell(student(), name, seconds) for seconds in (5, 9, 7)] == [5, 9, 9]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        *(({"session": name}, ["session"]) for name in NO_NAMES),
        ({"timeSpentSeconds": 14_401}, ["timeSpentSeconds"]),
        ({"session": "s", "timeSpentSeconds": 86_401}, ["timeSpentSeconds"]),
        ({"session": "s", "timeSpentSeconds": -1}, ["timeSpentSeconds"]),
        ({"session": "s", "timeSpentSeconds": "60"}, ["timeSpentSeconds"]),
        ({"session": "", "timeSpentSeconds": 86_401}, ["session", "timeSpentSeconds"]),
        ({"session": "", "timeSpentSeconds": 14_401}, ["session"]),
    ],
)
def test_a_wrong_name_and_a_wrong_time_are_refused_wherever_time_is_reported(
    fields: dict[str, Any], wrong: list[str], app: Flask, student: Callers
) -> None:
    record_id = send(student(), "intro")["progress"]["id"]
    before = stored(app)
    update = {"contentId": "intro", **fields}

    answers = [
        (student().post("/api/progress", json=update), ""),
        (student().post("/api/progress/batch", json={"updates": [{"contentId": "intro"}, update]}), "/updates/1"),
        (student().put(f"/api/progress/{record_id}/complete", json=fields), ""),
    ]

    for answer, pointer in answers:
        assert refusal(answer) == (*INVALID, {f"{pointer}/{name}" for name in wrong})
    assert stored(app) == before


@pytest.mark.parametrize(("session", "most"), [({}, 14_400), ({"session": "s"}, 86_400)])
def test_a_refused_time_is_told_its_bound(session: dict[str, str], most: int, student: Callers) -> None:
    body = {"contentId": "intro", "timeSpentSeconds": 99_999, **session}
    (error,) = student().post("/api/progress", json=body).get_json()["errors"]
    assert error["detail"] == f"Must be from 0 to {most}."


def days(caller: Caller) -> dict[str, int]:
    answer = caller.get("/api/progress/stats/algebra/timeline?from=2024-01-05&to=2024-01-07").get_json()
    return {one["date"][-2:]: one["timeSpentSeconds"] for one in answer["days"] if one["activeLearners"]}


def test_what_a_report_adds_counts_for_the_day_of_its_event_time(service: Callers) -> None:
    night = 12 * 60  # minutes after noon
    for minute, seconds in ((night - 1, 100), (night + 1, 160), (night - 1, 160), (night + 1440, 150)):
        tell(service(), "s", seconds, userId="sam", occurredAt=moment(minute))

    assert days(service()) == {"05": 100, "06": 60, "07": 0}


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_days_may_depend_on_the_order_and_the_sum_does_not(order: Sequence[int], service: Callers) -> None:
    for place in order:
        tell(service(), "s", 100 * (place + 1), userId="sam", occurredAt=moment(place * 1440))

    found = days(service())
    assert (set(found), sum(found.values())) == ({"05", "06", "07"}, 300)
    assert service().get("/api/progress/stats/algebra").get_json()["timeSpent"]["totalSeconds"] == 7300


def test_the_days_of_merged_learners_add_up_to_the_time_of_their_sessions(service: Callers) -> None:
    for minute, seconds in ((0, 60), (1440, 100)):
        tell(service(), "s", seconds, userId="kim", occurredAt=moment(minute))
    tell(service(), "s", 50, userId="sam", occurredAt=moment(2880))
    assert service().post("/api/progress/kim/merge", json={"into": "sam"}).status_code == 204

    assert times(service())["intro"] == sum(days(service()).values()) == 100


@pytest.mark.parametrize(
    "forget", ["/api/progress/sam/algebra/intro", "/api/progress/sam/algebra", "/api/enrollments/sam/algebra"]
)
def test_a_session_is_forgotten_with_its_record(forget: str, student: Callers, service: Callers) -> None:
    tell(student(), "s", 60)
    tell(student(), "s", 5, "cells")
    assert service().delete(forget).status_code == 204

    assert [tell(student(), "s", seconds) for seconds in (40, 60, 50)] == [40, 60, 60]
    assert tell(student(), "s", 6, "cells") == 6
    assert tell(student("nora"), "s", 7001) == 7001


def test_a_session_goes_on_after_a_corrected_time_and_an_excuse(student: Callers, service: Callers) -> None:
    record_id = send(student(), "intro", session="s", timeSpentSeconds=60)["progress"]["id"]
    excuse = "/api/progress/sam/algebra/intro/excuse"
    assert service().patch(f"/api/progress/{record_id}", json={"timeSpentSeconds": 10}).status_code == 200
    assert [tell(student(), "s", seconds) for seconds in (60, 75)] == [10, 25]
    assert service().put(excuse).status_code == 200
    assert tell(student(), "s", 80) == 30
    assert service().delete(excuse).status_code == 204
    assert [tell(student(), "s", seconds) for seconds in (80, 81)] == [30, 31]


def now() -> datetime:
    return datetime.now(UTC)


def age(app: Flask, **ago: float) -> None:
    """Set back the time at which sam's sessions were last received."""
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(update(Session).filter_by(user_id="sam").values(received_at=now() - timedelta(**ago)))


def test_a_session_is_forgotten_30_days_after_it_was_last_received(app: Flask, student: Callers) -> None:
    tell(student(), "s", 60)
    for _ in range(2):  # a report that adds nothing is received too
        age(app, days=30, minutes=-1)
        assert tell(student(), "s", 60) == 60
    age(app, days=30)
    assert tell(student(), "s", 70) == 60 + 70
    assert tell(student(), "s", 75) == 60 + 75


def test_a_merge_takes_no_time_away_for_a_forgotten_session(app: Flask, student: Callers, service: Callers) -> None:
    tell(student(), "s", 500)
    age(app, days=30)
    tell(student("kim"), "s", 100)
    assert service().post("/api/progress/sam/merge", json={"into": "kim"}).status_code == 204

    assert [tell(student("kim"), "s", seconds) for seconds in (100, 150)] == [600, 650]


@pytest.mark.parametrize(("first", "second"), [("kim", "sam"), ("sam", "kim")])
def test_a_merged_session_is_known_from_when_either_learner_last_told_it(
    first: str, second: str, app: Flask, student: Callers, service: Callers
) -> None:
    def sessions(user_id: str) -> Any:
        return service().get(f"/api/progress/{user_id}/export").get_json()["sessions"]

    tell(student(), "s", 100)
    age(app, days=29)
    tell(student("kim"), "s", 50)
    (told,) = sessions("kim")
    assert service().post(f"/api/progress/{first}/merge", json={"into": second}).status_code == 204

    assert sessions(second) == [told | {"timeSpentSeconds": 100}]


def test_the_setting_says_for_how_many_days_a_session_is_known(app: Flask, database_url: str) -> None:
    with application(database_url, SESSION_DAYS=2) as forgetful:
        sam = Caller(forgetful, "student", "sam")
        record_id = send(sam, "intro", session="s", timeSpentSeconds=60)["progress"]["id"]
        for ago, shown in ((timedelta(days=2, minutes=-1), 60), (timedelta(days=2), 120)):
            age(app, seconds=ago.total_seconds())
            answer = sam.put(f"/api/progress/{record_id}/complete", json={"session": "s", "timeSpentSeconds": 60})
            assert answer.get_json()["progress"]["timeSpentSeconds"] == shown

        age(app, days=2)
        tell(Caller(forgetful, "student", "kim"), "s", 7)
        service = Caller(forgetful, "service", "lms")
        assert service.post("/api/progress/sam/merge", json={"into": "kim"}).status_code == 204
        assert tell(Caller(forgetful, "student", "kim"), "s", 7) == 127


THREADS = 4


def test_reports_of_one_session_at_once_never_add_twice(app: Flask, service: Callers) -> None:
    start = Barrier(THREADS)

    def report(thread: int) -> None:
        caller = Caller(app, "service", f"lms-{thread}")
        for step in range(1, 9):
            start.wait(30)
            tell(caller, "s", 10 * step, userId="sam")
            body = {
                "updates": [
                    {"userId": "sam", "contentId": content_id, "session": session, "timeSpentSeconds": 10 * step}
                    for content_id, session in [("outro", "s"), ("intro", "t"), ("cells", "s")][:: 1 - thread % 2 * 2]
                ]
            }
            assert caller.post("/api/progress/batch", json=body).status_code == 200

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(report, range(THREADS)))

    assert times(service()) == {"intro": 160, "outro": 80, "algebra": 240, "cells": 80, "biology": 80}
