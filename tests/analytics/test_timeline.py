"""What happened in a module, day by day in UTC and by event time, against a count of the updates that were sent."""

import json
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from flask import Flask

from tests.callers import Caller
from tests.conftest import Callers, Publish

PATH = "/api/progress/stats/algebra/timeline"
MONDAY, TUESDAY, WEDNESDAY = "2026-03-02", "2026-03-03", "2026-03-04"


class Day(NamedTuple):
    """What a day counts, in the order of the contract."""

    active: int = 0
    started: int = 0
    completed: int = 0
    enrollments: int = 0
    seconds: int = 0


NOTHING = Day()


def send(caller: Caller, *updates: dict[str, Any]) -> None:
    response = caller.post("/api/progress/batch", json={"updates": updates})
    assert response.status_code == 200, response.text


def update(at: str, percentage: int = 50, seconds: int = 60, **others: Any) -> dict[str, Any]:
    """Return an update of sam about `sets`, at noon where only a day is given."""
    at = at if "T" in at else f"{at}T12:00:00Z"
    given = {"occurredAt": at, "progressPercentage": percentage, "timeSpentSeconds": seconds}
    return {"userId": "sam", "contentId": "sets", **given, **others}


def timeline(caller: Caller, first: str = "2026-02-01", last: str = "2026-03-31") -> dict[str, Day]:
    """Read the days on which something happened."""
    response = caller.get(PATH, query_string={"from": first, "to": last})
    assert response.status_code == 200, response.text
    document = response.get_json()
    days = {}
    for one in document["days"]:
        names = ["date", "activeLearners", "contentsStarted", "contentsCompleted", "enrollmentsCompleted"]
        assert list(one) == [*names, "timeSpentSeconds"]
        days[one["date"]] = Day(*list(one.values())[1:])
    begin, end = date.fromisoformat(first), date.fromisoformat(last)
    assert list(days) == [str(begin + timedelta(days=place)) for place in range((end - begin).days + 1)]
    return {day: counts for day, counts in days.items() if counts != NOTHING}


def day_of(caller: Caller, user_id: str) -> str:
    """Return the day on which a learner's enrollment was completed."""
    completed_at = caller.get(f"/api/enrollments/{user_id}/algebra").get_json()["completedAt"]
    return str(datetime.fromisoformat(completed_at).date())


@pytest.fixture
def algebra(publish: Publish, service: Callers) -> None:
    """A module, and another one in which much happens."""
    publish("algebra", ["sets", {"id": "maps", "weight": 2}, {"id": "extra", "weight": 0}])
    publish("biology", ["cells"])
    send(service(), *(update(day, 100, contentId="cells", userId=user) for day in (MONDAY, TUESDAY) for user in "ab"))


@pytest.mark.usefixtures("algebra")
@pytest.mark.parametrize("seed", range(3))
def test_every_day_is_what_a_count_of_the_updates_gives(seed: int, service: Callers, instructor: Callers) -> None:
    random = Random(seed)
    begin = datetime(2026, 2, 27, tzinfo=UTC)
    sent = [
        update(
            (begin + timedelta(hours=random.randrange(24 * 12))).isoformat(),
            random.choice([0, 50, 100]),
            random.choice([0, 7, 60]),
            userId=random.choice(["sam", "kim", "lee", "noa"]),
            contentId=random.choice(["sets", "maps", "extra"]),
        )
        for _ in range(40)
    ]
    for first in range(0, 40, 8):
        send(service(), *sent[first : first + 8])

    active: dict[str, set[str]] = defaultdict(set)
    seconds: dict[str, int] = defaultdict(int)
    starts: dict[tuple[str, str], str] = {}
    completions: dict[tuple[str, str], str] = {}
    enrollments: dict[str, str] = {}
    for one in sent:
        user_id, at = one["userId"], one["occurredAt"]
        key = user_id, one["contentId"]
        active[at[:10]].add(user_id)
        seconds[at[:10]] += one["timeSpentSeconds"]
        starts[key] = min(starts.get(key, at), at)
        if one["progressPercentage"] == 100:
            completions[key] = min(completions.get(key, at), at)
    for user_id in ("sam", "kim", "lee", "noa"):
        done = [completions.get((user_id, content_id)) for content_id in ("sets", "maps")]
        if None not in done:
            enrollments[user_id] = max(map(str, done))

    def on(day: str, instants: dict[Any, str]) -> int:
        return sum(at[:10] == day for at in instants.values())

    assert timeline(instructor()) == {
        day: Day(len(active[day]), on(day, starts), on(day, completions), on(day, enrollments), seconds[day])
        for day in sorted(active)
    }


@pytest.mark.usefixtures("algebra")
def test_a_learner_is_counted_once_a_day_however_often_they_come(service: Callers) -> None:
    send(service(), update(MONDAY), update(f"{MONDAY}T23:00:00Z", contentId="maps"), update(TUESDAY, userId="kim"))
    send(service(), update(f"{MONDAY}T00:00:00Z", seconds=1), update(MONDAY, userId="kim", seconds=0))

    assert timeline(service()) == {MONDAY: Day(2, 3, 0, 0, 121), TUESDAY: Day(1, 0, 0, 0, 60)}


@pytest.mark.usefixtures("algebra")
def test_an_earlier_update_that_arrives_late_moves_the_start_to_its_day(service: Callers) -> None:
    send(service(), update(WEDNESDAY))
    assert timeline(service()) == {WEDNESDAY: Day(1, 1, 0, 0, 60)}

    send(service(), update(MONDAY, seconds=5))
    assert timeline(service()) == {MONDAY: Day(1, 1, 0, 0, 5), WEDNESDAY: Day(1, 0, 0, 0, 60)}

    send(service(), update(TUESDAY, seconds=0))
    expected = {MONDAY: Day(1, 1, 0, 0, 5), TUESDAY: Day(1), WEDNESDAY: Day(1, 0, 0, 0, 60)}
    assert timeline(service()) == expected


@pytest.mark.usefixtures("algebra")
def test_a_completion_counts_once_on_the_day_of_the_earliest_update_that_completes(service: Callers) -> None:
    send(service(), update(TUESDAY, 100), update(WEDNESDAY, 100), update(WEDNESDAY, 100, contentId="maps"))
    assert timeline(service()) == {TUESDAY: Day(1, 1, 1, 0, 60), WEDNESDAY: Day(1, 1, 1, 1, 120)}

    send(service(), update(TUESDAY, 100, 0, contentId="maps"))
    assert timeline(service()) == {TUESDAY: Day(1, 2, 2, 1, 60), WEDNESDAY: Day(1, 0, 0, 0, 120)}

    send(service(), update(MONDAY, 100, 0))
    send(service(), update(MONDAY, 99, 0, contentId="maps"))
    assert timeline(service()) == {
        MONDAY: Day(1, 2, 1, 0, 0),
        TUESDAY: Day(1, 0, 1, 1, 60),
        WEDNESDAY: Day(1, 0, 0, 0, 120),
    }


@pytest.mark.usefixtures("algebra")
def test_an_offset_puts_an_update_on_its_day_in_utc(service: Callers) -> None:
    send(
        service(),
        update(f"{TUESDAY}T00:30:00+01:00", 100, 1),
        update(f"{MONDAY}T23:30:00-01:00", 100, 2, userId="kim"),
        update(f"{TUESDAY}T23:59:59.999999Z", 100, 4, userId="lee"),
        update(f"{TUESDAY}T14:00:00-10:00", 100, 8, userId="noa"),
    )

    assert timeline(service()) == {
        MONDAY: Day(1, 1, 1, 0, 1),
        TUESDAY: Day(2, 2, 2, 0, 6),
        WEDNESDAY: Day(1, 1, 1, 0, 8),
    }


@pytest.mark.usefixtures("algebra")
def test_what_is_imported_counts_on_its_own_day(app: Flask, service: Callers, tmp_path: Path) -> None:
    file = tmp_path / "updates.jsonl"
    lines = [update("1999-12-31", 100), update("2000-01-01", 100, contentId="maps"), update("2000-01-01", userId="kim")]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    imported = app.test_cli_runner().invoke(args=["progress", "import", "--updates", str(file)])

    assert imported.exit_code == 0, imported.output
    assert timeline(service(), "1999-12-01", "2000-01-31") == {
        "1999-12-31": Day(1, 1, 1, 0, 60),
        "2000-01-01": Day(2, 2, 1, 1, 120),
    }
    assert timeline(service()) == {}


@pytest.mark.usefixtures("algebra")
def test_without_an_event_time_it_is_today(service: Callers, student: Callers) -> None:
    response = student().post("/api/progress", json={"contentId": "sets", "timeSpentSeconds": 9})
    record = response.get_json()["progress"]
    completed = student().put(f"/api/progress/{record['id']}/complete").get_json()["progress"]
    days = [str(datetime.fromisoformat(one).date()) for one in (record["startedAt"], completed["completedAt"])]

    found = timeline(service(), days[0], days[1])

    assert found[days[0]][:2] == (1, 1)
    assert found[days[1]].completed == 1
    assert sum(one.seconds for one in found.values()) == 9


@pytest.mark.usefixtures("algebra")
def test_a_catalog_change_that_completes_enrollments_counts_on_the_day_of_the_change(
    service: Callers, publish: Publish
) -> None:
    for user_id, status in (("sam", "active"), ("kim", "paused"), ("lee", "dropped"), ("noa", "active")):
        send(service(), update(MONDAY, 99 if user_id == "noa" else 100, userId=user_id))
        service().put(f"/api/enrollments/{user_id}/algebra", json={"status": status})
    before = timeline(service())
    assert before == {MONDAY: Day(4, 4, 3, 0, 240)}

    publish("algebra", ["sets"])

    today = day_of(service(), "sam")
    assert day_of(service(), "kim") == today
    assert timeline(service(), today, today) == {today: Day(enrollments=2)}

    service().put("/api/enrollments/lee/algebra", json={"status": "active"})
    last = day_of(service(), "lee")
    publish("algebra", ["sets", "maps"])
    completed = Counter([today, today, last])
    assert timeline(service(), today, last) == {day: Day(enrollments=count) for day, count in completed.items()}
    assert timeline(service()) == before


@pytest.mark.usefixtures("algebra")
def test_a_content_that_is_retired_keeps_what_happened(service: Callers, publish: Publish) -> None:
    send(service(), update(MONDAY, 100), update(MONDAY, contentId="maps"))
    before = timeline(service())

    publish("algebra", ["maps"])
    send(service(), update(TUESDAY, userId="kim"))

    assert timeline(service()) == before | {TUESDAY: Day(1, 1, 0, 0, 60)}


@pytest.mark.usefixtures("algebra")
@pytest.mark.parametrize("path", ["/api/progress/sam/algebra", "/api/progress/sam"])
def test_a_reset_and_an_erasure_take_the_days_of_the_learner_out(path: str, service: Callers) -> None:
    send(service(), update(MONDAY, 100, userId="kim"), update(TUESDAY, userId="kim"))
    before = timeline(service())
    send(service(), update(MONDAY, 100), update(TUESDAY, 100, contentId="maps"), update(WEDNESDAY, contentId="extra"))
    assert timeline(service())[TUESDAY] == Day(2, 1, 1, 1, 120)

    assert service().delete(path).status_code == 204
    assert timeline(service()) == before

    send(service(), update(WEDNESDAY))
    assert timeline(service()) == before | {WEDNESDAY: Day(1, 1, 0, 0, 60)}


@pytest.mark.usefixtures("algebra")
def test_the_reset_of_another_module_takes_nothing_out(service: Callers) -> None:
    send(service(), update(MONDAY), update(MONDAY, contentId="cells"))

    assert service().delete("/api/progress/sam/biology").status_code == 204

    assert timeline(service()) == {MONDAY: Day(1, 1, 0, 0, 60)}


@pytest.mark.usefixtures("algebra")
def test_a_refused_batch_leaves_no_trace(service: Callers) -> None:
    refused = service().post("/api/progress/batch", json={"updates": [update(MONDAY), update(MONDAY, contentId="x")]})

    assert refused.status_code == 422
    assert timeline(service()) == {}


@pytest.mark.usefixtures("algebra")
def test_both_ends_are_included(service: Callers) -> None:
    send(service(), *map(update, ("2026-03-01", MONDAY, TUESDAY, WEDNESDAY, "2026-03-05")))

    assert list(timeline(service(), MONDAY, WEDNESDAY)) == [MONDAY, TUESDAY, WEDNESDAY]
    assert list(timeline(service(), TUESDAY, TUESDAY)) == [TUESDAY]


@pytest.mark.usefixtures("algebra")
@pytest.mark.parametrize(
    ("first", "last", "days"),
    [
        ("2026-01-01", "2026-12-31", 365),
        ("2024-01-01", "2024-12-31", 366),
        ("2025-12-31", "2026-12-31", 366),
        ("2024-02-28", "2024-03-01", 3),
        ("0001-01-01", "0001-01-01", 1),
        ("9999-01-01", "9999-12-31", 365),
    ],
)
def test_every_day_asked_for_has_an_entry(first: str, last: str, days: int, service: Callers) -> None:
    response = service().get(PATH, query_string={"from": first, "to": last})

    assert response.status_code == 200
    assert [len(response.get_json()["days"]), response.get_json()["days"][-1]["date"]] == [days, last]


BAD_QUERIES: list[dict[str, str]] = [
    {},
    {"from": MONDAY},
    {"to": MONDAY},
    {"from": TUESDAY, "to": MONDAY},
    {"from": "2026-01-01", "to": "2027-01-02"},
    {"from": "2024-01-01", "to": "2025-01-01"},
    {"from": "0001-01-01", "to": "9999-12-31"},
    {"from": MONDAY, "to": TUESDAY, "day": MONDAY},
    *(
        {"from": MONDAY, "to": TUESDAY} | {end: day}
        for end in ("from", "to")
        for day in (
            *("", "today", "2026-3-2", "20260302", "2026-02-30", "2026-13-01", "0000-01-01", "2026-W10-1"),
            *("2026-03-02T00:00:00Z", " 2026-03-02", "2026-03-02\n", "٢٠٢٦-٠٣-٠٢", "10000-01-01", "-001-01-01"),
        )
    ),
]


@pytest.mark.usefixtures("algebra")
def test_a_bad_range_is_refused(service: Callers) -> None:
    for query in BAD_QUERIES:
        response = service().get(PATH, query_string=query)
        assert (response.status_code, response.mimetype) == (400, "application/problem+json"), query
        assert response.get_json()["type"].endswith("malformed-request")
    assert service().get(f"{PATH}?from={MONDAY}&to={TUESDAY}&to={TUESDAY}").status_code == 400


@pytest.mark.usefixtures("algebra")
def test_only_those_who_may_see_a_module_learn_whether_it_exists(
    service: Callers, admin: Callers, instructor: Callers, student: Callers
) -> None:
    query = {"from": MONDAY, "to": MONDAY}
    callers = {service(): 404, admin(): 404, instructor(): 403, student(): 403}
    for caller, status in callers.items():
        assert caller.get(PATH.replace("algebra", "alchemy"), query_string=query).status_code == status
    for stranger in (instructor("otto"), student()):
        assert stranger.get(PATH, query_string=query).status_code == 403
    assert instructor().get(PATH, query_string=query).status_code == 200
