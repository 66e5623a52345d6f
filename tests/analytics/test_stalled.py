"""Where unfinished learners have come to a stop: by the content of their last update, recounted in plain Python."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import pytest
from flask import Flask
from sqlalchemy import Connection

from progress_service.analytics import queries, roster
from progress_service.analytics.roster import Filters, Order
from progress_service.store import database
from tests.callers import Caller
from tests.conftest import Callers, Publish

CONTENTS = ["sets", "maps", "extra"]
STATUSES = ["active", "paused", "dropped", "completed"]
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
WEEK = timedelta(weeks=1)


class Stop(NamedTuple):
    """A learner's last update."""

    user_id: str
    content_id: str
    at: datetime
    status: str = "active"


def send(caller: Caller, *updates: dict[str, Any]) -> None:
    response = caller.post("/api/progress/batch", json={"updates": updates})
    assert response.status_code == 200, response.text


def update(user_id: str, content_id: str, at: datetime, percentage: int = 50) -> dict[str, Any]:
    at_text = at.isoformat()
    return {"userId": user_id, "contentId": content_id, "occurredAt": at_text, "progressPercentage": percentage}


def enroll(caller: Caller, user_id: str, status: str) -> None:
    response = caller.put(f"/api/enrollments/{user_id}/algebra", json={"status": status})
    assert response.status_code in {200, 201}, response.text


def stop(caller: Caller, stops: Sequence[Stop]) -> None:
    """Send the last updates, of those who have completed after all others, and give the learners their status."""
    completed = [one for one in stops if one.status == "completed"]
    earlier = [update(one.user_id, content, one.at - HOUR, 100) for one in completed for content in CONTENTS]
    send(caller, *earlier, *(update(*one[:3]) for one in stops))
    for one in stops:
        if one.status in {"paused", "dropped"}:
            enroll(caller, one.user_id, one.status)


def stalled(caller: Caller, **query: Any) -> dict[str, int]:
    """Read how many learners are stalled, by current content."""
    response = caller.get("/api/progress/stats/algebra", query_string=query)
    assert response.status_code == 200, response.text
    return {one["contentId"]: one["stalled"] for one in response.get_json()["contents"]}


def stalled_since(app: Flask, since: datetime) -> Mapping[str, int]:
    with app.app_context():
        found = database.read(lambda connection: queries.statistics(connection, "algebra", since))
    assert found
    return found.stalled


def listed_since(app: Flask, since: datetime) -> Counter[str]:
    """Count whom the roster lists as stalled, by content."""

    def listed(content_id: str, connection: Connection) -> int:
        filters = Filters(stop=roster.Stop(content_id, since))
        return len(roster.page(connection, "algebra", filters, Order.named("userId"), None, 200))

    with app.app_context():
        return Counter({content_id: database.read(partial(listed, content_id)) for content_id in CONTENTS})


def recount(stops: Sequence[Stop], since: datetime) -> Counter[str]:
    return Counter(one.content_id for one in stops if one.status in {"active", "paused"} and one.at <= since)


@pytest.fixture
def algebra(publish: Publish, service: Callers) -> None:
    """A module, somebody in it who was never active, and somebody who stopped in another module."""
    publish("algebra", ["sets", "maps", {"id": "extra", "weight": 0}])
    publish("biology", ["cells"])
    enroll(service(), "never", "active")
    send(service(), update("noah", "cells", MONDAY), update("s0", "cells", MONDAY))


@pytest.mark.usefixtures("algebra")
def test_each_content_counts_the_unfinished_who_stopped_there_so_long_ago(
    service: Callers, instructor: Callers
) -> None:
    now = datetime.now(UTC)
    ages = [timedelta(days=days) + side for days in (1, 7, 14, 365) for side in (-HOUR, HOUR)]
    places = product(ages, STATUSES)
    stops = [
        Stop(f"s{place}", CONTENTS[place * 7 % 3], now - age, status) for place, (age, status) in enumerate(places)
    ]
    stop(service(), stops)

    for days in (1, 7, 8, 365):
        expected = recount(stops, now - timedelta(days=days))
        assert stalled(instructor(), stalledDays=days) == {content: expected[content] for content in CONTENTS}
        roster = instructor().get(f"/api/progress/stats/algebra/learners?inactiveDays={days}&limit=200").get_json()
        listed = [one for one in roster["items"] if one["lastActivityAt"]]
        assert len(listed) == expected.total() > 0
    assert stalled(instructor()) == stalled(instructor(), stalledDays=7)


@pytest.mark.usefixtures("algebra")
def test_weeks_that_are_over_and_the_one_of_the_instant_add_up_to_the_microsecond(app: Flask, service: Callers) -> None:
    edges = [MONDAY + week * WEEK + side for week in (-1, 0, 1) for side in (-TICK, 0 * TICK, TICK)]
    edges += [MONDAY + timedelta(days=3, hours=7), MONDAY - 60 * WEEK, datetime(1970, 1, 1, tzinfo=UTC)]
    stops = [Stop(f"s{place}", CONTENTS[place % 2], at) for place, at in enumerate(edges)]
    stop(service(), stops)

    for since in {edge + side for edge in edges for side in (-TICK, 0 * TICK, TICK)}:
        assert stalled_since(app, since) == listed_since(app, since) == recount(stops, since), since


@pytest.mark.usefixtures("algebra")
def test_an_offset_does_not_put_a_stop_into_another_week(app: Flask, service: Callers) -> None:
    for user_id, at in (("sam", "2026-03-02T01:00:00+02:00"), ("kim", "2026-03-01T23:00:00-02:00")):
        send(service(), update(user_id, "sets", MONDAY) | {"occurredAt": at})

    assert stalled_since(app, MONDAY) == {"sets": 1}
    assert stalled_since(app, MONDAY + timedelta(hours=1)) == {"sets": 2}


@pytest.mark.usefixtures("algebra")
def test_the_stop_is_the_latest_by_event_time_and_of_equal_times_the_one_applied_later(service: Callers) -> None:
    send(service(), update("sam", "sets", MONDAY), update("sam", "maps", MONDAY - TICK))
    assert stalled(service()) == {"sets": 1, "maps": 0, "extra": 0}

    send(service(), update("sam", "maps", MONDAY))
    assert stalled(service()) == {"sets": 0, "maps": 1, "extra": 0}

    send(service(), update("sam", "sets", MONDAY, 100), update("sam", "extra", MONDAY))
    assert stalled(service()) == {"sets": 0, "maps": 0, "extra": 1}

    send(service(), update("sam", "sets", MONDAY - WEEK), update("sam", "maps", MONDAY + TICK))
    assert stalled(service()) == {"sets": 0, "maps": 1, "extra": 0}

    send(service(), update("sam", "maps", datetime.now(UTC)))
    assert stalled(service()) == {"sets": 0, "maps": 0, "extra": 0}


@pytest.mark.usefixtures("algebra")
def test_who_drops_out_or_completes_or_is_reset_or_erased_is_not_stalled(service: Callers, publish: Publish) -> None:
    stop(service(), [Stop(user_id, "maps", MONDAY) for user_id in ("sam", "kim", "lee", "noa")])
    nobody = dict.fromkeys(CONTENTS, 0)
    assert stalled(service()) == nobody | {"maps": 4}

    enroll(service(), "sam", "paused")
    assert stalled(service()) == nobody | {"maps": 4}
    enroll(service(), "sam", "dropped")
    assert stalled(service()) == nobody | {"maps": 3}
    enroll(service(), "sam", "active")
    assert stalled(service()) == nobody | {"maps": 4}

    send(service(), *(update("kim", content, MONDAY - WEEK, 100) for content in CONTENTS))
    assert stalled(service()) == nobody | {"maps": 3}
    assert service().delete("/api/progress/kim/algebra").status_code == 204
    assert stalled(service()) == nobody | {"maps": 3}
    assert service().delete("/api/progress/lee/algebra").status_code == 204
    assert stalled(service()) == nobody | {"maps": 2}
    assert service().delete("/api/progress/noa").status_code == 204
    assert stalled(service()) == nobody | {"maps": 1}

    send(service(), update("sam", "sets", MONDAY - WEEK, 100))
    publish("algebra", ["sets", {"id": "maps", "weight": 0}])
    assert stalled(service()) == {"sets": 0, "maps": 0}


@pytest.mark.usefixtures("algebra")
def test_a_retired_content_is_not_listed_until_it_returns(service: Callers, publish: Publish) -> None:
    stop(service(), [Stop("sam", "maps", MONDAY), Stop("kim", "maps", MONDAY - WEEK), Stop("lee", "sets", MONDAY)])

    publish("algebra", ["sets"])
    assert stalled(service()) == {"sets": 1}
    send(service(), update("lee", "maps", MONDAY + TICK))
    assert stalled(service()) == {"sets": 0}

    publish("algebra", ["maps", "sets"])
    assert stalled(service()) == {"maps": 3, "sets": 0}


@pytest.mark.usefixtures("algebra")
def test_a_bad_number_of_days_is_refused(service: Callers) -> None:
    for days in ("0", "366", "-1", "1.5", "abc", "", "07", "\u0667"):
        response = service().get("/api/progress/stats/algebra", query_string={"stalledDays": days})
        assert (response.status_code, response.mimetype) == (400, "application/problem+json"), days
        assert response.get_json()["type"].endswith("malformed-request")
    assert service().get("/api/progress/stats/algebra?stalledDays=7&stalledDays=7").status_code == 400
