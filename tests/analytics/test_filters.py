"""The roster with filters that find few learners, against a recount from what each learner sees of the module."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, NamedTuple

import pytest

from progress_service.analytics import roster
from tests.analytics.test_roster import FILE, PATH, SORTS, STATUSES, Document, names, pages, read
from tests.callers import Caller
from tests.conftest import Callers, Publish
from tests.progress.sending import refusal

CONTENTS = ["sets", "maps", "rings", "old"]
LEARNERS = [f"{letter}{number}" for number in range(12) for letter in "bZ_a"]
CONTENT_STATUSES = ["not_started", "in_progress", "completed", "excused"]
TOGETHER = "Must be given together with {}."
LOOKED_AT = [0, 7, roster.MOST_LOOKED_AT]
"""How many learners a page may look at in its order, before it goes by the filters: none, some, all of them."""


class Facts(NamedTuple):
    """What the roster shows of a learner, and the status of each content, from answers about that learner alone."""

    item: Document
    contents: dict[str, str]


def learn(service: Caller, publish: Publish, chance: random.Random) -> None:
    """Let many learners be at different places of a module, whose last content is then retired."""
    publish("algebra", CONTENTS)
    publish("biology", ["cells"])
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    days = [now - timedelta(days=days) for days in (0, 1, 6, 8, 30, 400)]
    updates = [
        {"userId": user_id, "contentId": content_id, "occurredAt": chance.choice(days).isoformat()}
        | {"progressPercentage": chance.choice([50, 100, 100])}
        for user_id in LEARNERS
        for content_id in chance.sample([*CONTENTS, "cells"], chance.choice([0, 1, 2, 3, 5, 5]))
    ]
    assert service.post("/api/progress/batch", json={"updates": updates}).status_code == 200
    for user_id in LEARNERS:
        status = chance.choice(["active", "active", "active", "paused", "dropped"])
        given = {"status": status, "counted": chance.random() < 0.8}
        assert service.put(f"/api/enrollments/{user_id}/algebra", json=given).status_code in {200, 201}
        for content_id in CONTENTS:
            if chance.random() < 0.1:
                path = f"/api/progress/{user_id}/algebra/{content_id}/excuse"
                assert service.put(path).status_code == 200
    publish("algebra", CONTENTS[:-1])


def facts(service: Caller) -> list[Facts]:
    """Read each learner's own answers, one by one."""
    found = []
    for user_id in LEARNERS:
        enrollment = service.get(f"/api/enrollments/{user_id}/algebra").get_json()
        exported = service.get(f"/api/progress/{user_id}/export").get_json()
        (last,) = [one["lastContentId"] for one in exported["enrollments"] if one["moduleId"] == "algebra"]
        reached = {one["contentId"]: one["status"] for one in exported["records"] if one["moduleId"] == "algebra"}
        shown = service.get(f"/api/progress/{user_id}/algebra").get_json()["contents"]
        assert {one["contentId"]: one["status"] for one in shown}.items() <= (
            dict.fromkeys(CONTENTS, "not_started") | reached
        ).items()
        found.append(Facts({**enrollment, "lastContentId": last}, reached))
    return found


def meant(everybody: list[Facts], sort: str = "userId", **filters: Any) -> list[Document]:
    """Filter and sort as the contract says."""
    now = datetime.now(UTC)

    def passes(one: Facts) -> Iterator[bool]:
        item, unfinished = one.item, one.item["status"] in {"active", "paused"}
        last = datetime.fromisoformat(item["lastActivityAt"] or item["enrolledAt"])
        if "status" in filters:
            yield item["status"] == filters["status"]
        if "inactiveDays" in filters:
            yield unfinished and last <= now - timedelta(days=filters["inactiveDays"])
        if "maxProgress" in filters:
            yield item["progressPercentage"] <= filters["maxProgress"]
        if "stalledOn" in filters:
            content_id, days = filters["stalledOn"], filters.get("stalledDays", 7)
            yield item["lastContentId"] == content_id and one.contents[content_id] != "excused"
            yield unfinished and item["counted"] and last <= now - timedelta(days=days)
        if "contentId" in filters:
            yield one.contents.get(filters["contentId"], "not_started") == filters["contentStatus"]
        if "userIds" in filters:
            yield item["userId"] in filters["userIds"].split(",")
        if "completedSince" in filters:
            completed_at = item["completedAt"]
            since = datetime.fromisoformat(filters["completedSince"])
            yield completed_at is not None and datetime.fromisoformat(completed_at) >= since

    def key(one: Document) -> tuple[Any, ...]:
        keys = {"userId": "", "progress": one["progressPercentage"], "lastActivity": one["lastActivityAt"] or ""}
        return keys[sort.removeprefix("-")], one["userId"]

    items = [one.item for one in everybody if all(passes(one))]
    return sorted(items, key=key, reverse=sort.startswith("-"))


def choices(chance: random.Random) -> Iterator[Document]:
    """Yield each filter by itself, and then several filters together."""
    since = [(datetime.now(UTC) - timedelta(days=days)).isoformat() for days in (0.5, 7, 100)]
    filters: list[Callable[[], Document]] = [
        lambda: {"stalledOn": chance.choice(CONTENTS)},
        lambda: {"stalledOn": chance.choice(CONTENTS), "stalledDays": chance.choice([1, 7, 30, 365])},
        lambda: {"contentId": chance.choice(CONTENTS), "contentStatus": chance.choice(CONTENT_STATUSES)},
        lambda: {"userIds": ",".join([*chance.sample(LEARNERS, 20), "unknown", "me", LEARNERS[0], LEARNERS[0]])},
        lambda: {"completedSince": chance.choice(since)},
    ]
    others: list[Callable[[], Document]] = [
        lambda: {"status": chance.choice(STATUSES)},
        lambda: {"inactiveDays": chance.choice([0, 1, 7])},
        lambda: {"maxProgress": chance.choice([0, 50, 66.66])},
    ]
    for content_id in CONTENTS:
        yield {"stalledOn": content_id}
        yield from ({"contentId": content_id, "contentStatus": status} for status in CONTENT_STATUSES)
    yield from ({"completedSince": time} for time in since)
    yield from (other() for other in others)
    for _ in range(25):
        chosen: Document = {}
        for one in [*chance.sample(filters, chance.randint(1, 2)), *chance.sample(others, chance.randint(0, 2))]:
            chosen |= one()
        yield chosen


@pytest.mark.parametrize("seed", [1, 2])
def test_each_filter_finds_the_learners_it_means_in_every_order_on_pages_and_in_the_table(
    seed: int, service: Callers, instructor: Callers, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    learn(service(), publish, chance)
    everybody = facts(service())
    found = []

    for filters in choices(chance):
        sort = chance.choice(SORTS)
        expected = meant(everybody, sort, **filters)
        found.append(len(expected))
        for most, limit in zip(LOOKED_AT, (200, 1 + len(expected) // 3, 1 + len(expected) // 3), strict=True):
            monkeypatch.setattr(roster, "MOST_LOOKED_AT", most)
            assert [one for page in pages(instructor(), sort=sort, limit=limit, **filters) for one in page] == expected
        table = instructor().get(FILE, query_string={"sort": sort, **filters})
        assert [row.split(",")[0] for row in table.text.splitlines()[1:]] == names(expected), filters
    assert sum(1 for number in found if number) > len(found) / 3, "many filters find somebody"


@pytest.mark.parametrize("sort", SORTS)
def test_pages_of_one_learner_join_to_the_whole_list_of_a_filter(
    sort: str, service: Callers, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(service(), publish, random.Random(3))
    everybody = facts(service())

    chosen: list[Document] = [
        {"contentId": "sets", "contentStatus": "not_started"},
        {"contentId": "sets", "contentStatus": "in_progress"},
        {"userIds": ",".join(LEARNERS)},
    ]
    for filters, most in product(chosen, LOOKED_AT):
        monkeypatch.setattr(roster, "MOST_LOOKED_AT", most)
        found = list(pages(service(), sort=sort, limit=1, **filters))
        expected = meant(everybody, sort, **filters)
        assert found == [[one] for one in expected]
        assert len(expected) > 2


def test_a_module_that_lost_its_weight_is_filtered_and_sorted_as_it_is_shown(
    service: Callers, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(service(), publish, random.Random(4))
    publish("algebra", [])
    everybody = facts(service())
    assert {one.item["progressPercentage"] for one in everybody} == {0, 100}

    for sort in SORTS:
        for filters in ({"userIds": ",".join(LEARNERS[:30])}, {"contentId": "old", "contentStatus": "completed"}):
            for looked_at, most in product(LOOKED_AT, (99.99, 100)):
                monkeypatch.setattr(roster, "MOST_LOOKED_AT", looked_at)
                expected = meant(everybody, sort, **filters, maxProgress=most)
                found = list(pages(service(), sort=sort, limit=4, **filters, maxProgress=most))
                assert [one for page in found for one in page] == expected


@pytest.mark.parametrize("days", [1, 7, 30])
def test_as_many_are_listed_as_the_statistics_count_as_stalled(days: int, service: Callers, publish: Publish) -> None:
    learn(service(), publish, random.Random(5))

    statistics = service().get(f"/api/progress/stats/algebra?stalledDays={days}").get_json()
    counted = {one["contentId"]: one["stalled"] for one in statistics["contents"]}

    assert sum(counted.values())
    assert counted == {
        content_id: len(read(service(), stalledOn=content_id, stalledDays=days, limit=200)["items"])
        for content_id in counted
    }


def test_the_days_of_stalled_learners_are_7_if_none_are_given(service: Callers, publish: Publish) -> None:
    learn(service(), publish, random.Random(6))

    for content_id in CONTENTS:
        assert read(service(), stalledOn=content_id) == read(service(), stalledOn=content_id, stalledDays=7)


@pytest.mark.parametrize("sort", SORTS)
def test_of_the_days_of_two_filters_both_hold(sort: str, service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    for days in (2, 5, 9):
        at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        update = {"userId": f"since-{days}", "contentId": "sets", "occurredAt": at}
        assert service().post("/api/progress", json=update).status_code == 201

    for inactive, stalled in ((7, 1), (1, 7)):
        found = read(service(), sort=sort, inactiveDays=inactive, stalledOn="sets", stalledDays=stalled)
        assert names(found["items"]) == ["since-9"]


def test_the_time_of_completion_is_inclusive_to_the_microsecond(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    at = "2026-03-01T12:00:00.000001Z"
    update = {"userId": "sam", "contentId": "sets", "progressPercentage": 100, "occurredAt": at}
    assert service().post("/api/progress", json=update).status_code == 201

    for since, expected in (
        (at, ["sam"]),
        ("2026-03-01T13:00:00.000001+01:00", ["sam"]),
        ("2026-03-01T12:00:00Z", ["sam"]),
        ("2026-03-01T12:00:00.000002Z", []),
        ("2026-03-01T11:00:00.000002-01:00", []),
    ):
        assert names(read(service(), completedSince=since)["items"]) == expected


def test_a_parameter_that_means_nothing_alone_needs_the_other_one(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])

    for query, missing in (
        ({"contentId": "sets"}, {"contentStatus": "contentId"}),
        ({"contentStatus": "completed"}, {"contentId": "contentStatus"}),
        ({"stalledDays": "7"}, {"stalledOn": "stalledDays"}),
        ({"stalledDays": "7", "contentId": "sets"}, {"stalledOn": "stalledDays", "contentStatus": "contentId"}),
    ):
        for path in (PATH, FILE):
            response = service().get(path, query_string=query)
            assert refusal(response) == (400, "malformed-request", {f"/{name}" for name in missing})
            told = {error["pointer"]: error["detail"] for error in response.get_json()["errors"]}
            assert told == {f"/{name}": TOGETHER.format(given) for name, given in missing.items()}


def test_a_filter_by_a_content_that_is_not_the_modules_is_not_found(
    service: Callers, instructor: Callers, publish: Publish
) -> None:
    learn(service(), publish, random.Random(7))

    for content_id in ("cells", "unknown"):
        for query, wrong in (
            ({"stalledOn": content_id}, {"/stalledOn"}),
            ({"contentId": content_id, "contentStatus": "not_started"}, {"/contentId"}),
            ({"contentId": content_id, "contentStatus": "completed", "stalledOn": "sets"}, {"/contentId"}),
            ({"contentId": "sets", "contentStatus": "completed", "stalledOn": content_id}, {"/stalledOn"}),
        ):
            for path in (PATH, FILE):
                assert refusal(instructor().get(path, query_string=query)) == (404, "not-found", wrong)
    assert instructor("otto").get(PATH, query_string={"stalledOn": "unknown"}).status_code == 403


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("stalledOn", ["", "a b", ".a", "x" * 256]),
        ("contentId", ["", "a,b", "é", "x" * 256]),
        ("contentStatus", ["", "active", "COMPLETED", "started"]),
        ("stalledDays", ["0", "366", "7.0", ""]),
        ("userIds", ["", ",", "sam,", ",sam", "sam,,kim", "sam, kim", "sam;kim", ".", "x" * 256, ",".join("a" * 201)]),
        (
            "completedSince",
            ["", "2026-01-31", "2026-01-31T12:00:00", "now", "1969-12-31T23:59:59Z", "2999-01-01T00:00Z"],
        ),
    ],
)
def test_a_filter_that_is_not_well_formed_is_refused(
    name: str, values: list[str], service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    fine = {"stalledOn": "sets", "contentId": "sets", "contentStatus": "completed", "stalledDays": "7"}

    for value in values:
        response = service().get(PATH, query_string=fine | {name: value})
        assert refusal(response) == (400, "malformed-request", {f"/{name}"}), value


def test_two_hundred_learners_may_be_asked_for(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    group = [f"{number:036}" for number in range(200)]
    updates = [{"userId": user_id, "contentId": "sets"} for user_id in [*group, "another"]]
    assert service().post("/api/progress/batch", json={"updates": updates}).status_code == 200

    page = read(service(), userIds=",".join(reversed(group)), limit=200)

    assert names(page["items"]) == group
    assert page["nextCursor"] is None
