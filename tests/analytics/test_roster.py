"""A module's learners, page by page and as a table, against the enrollments sorted and filtered in plain Python."""

import base64
import json
from collections.abc import Callable, Iterator
from contextvars import Context
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, TypeAlias
from urllib.parse import quote

import pytest
from werkzeug.http import parse_options_header

from progress_service.analytics import roster
from tests.callers import Caller
from tests.conftest import Callers, Publish
from tests.progress.sending import refusal

SORTS = ["userId", "progress", "-progress", "lastActivity", "-lastActivity"]
STATUSES = ["active", "paused", "dropped", "completed"]
PATH = "/api/progress/stats/algebra/learners"
FILE = f"{PATH}.csv"
HEADER = (
    "userId,moduleId,status,progressPercentage,completedContents,totalContents,"
    "timeSpentSeconds,enrolledAt,completedAt,lastActivityAt,lastContentId,counted\r\n"
)

Document: TypeAlias = dict[str, Any]

# Learner, status, percentage of `sets` (a third of the module), days since the last activity and the enrollment.
# Several share a percentage or a time, and identifiers are sorted by code point.
CLASS: list[tuple[str, str, int, float | None, float]] = [
    ("Zoe", "active", 100, 12, 50),
    ("a-b", "active", 100, 12, 50),
    ("a.b", "active", 50, 12, 50),
    ("a_b", "paused", 50, 2, 50),
    ("ann", "paused", 100, 30, 50),
    ("b10", "paused", 0, 2, 3),
    ("b9", "active", 0, 2, 3),
    ("9", "active", 99, 1, 3),
    ("bea", "dropped", 50, 30, 50),
    ("cal", "dropped", 0, None, 50),
    ("dan", "completed", 100, 12, 50),
    ("eve", "completed", 100, 2, 50),
    ("fay", "active", 0, None, 50),
    ("gus", "active", 0, None, 3),
    ("hal", "paused", 0, None, 12),
    ("z~ivy", "active", 0, None, 50),
]


def days_ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


def enroll(caller: Caller, user_id: str, **fields: Any) -> None:
    response = caller.put(f"/api/enrollments/{user_id}/algebra", json=fields)
    assert response.status_code in {200, 201}, response.text


def send(caller: Caller, user_id: str, content_id: str, percentage: int, days: float = 0, **others: Any) -> None:
    update = {
        "userId": user_id,
        "contentId": content_id,
        "progressPercentage": percentage,
        "occurredAt": days_ago(days),
    }
    response = caller.post("/api/progress", json=update | others)
    assert response.status_code in {200, 201}, response.text


def gather(service: Caller, publish: Publish) -> list[str]:
    """Enroll the class in a module, and others in another one; return who is in the class."""
    publish("algebra", ["sets", {"id": "maps", "weight": 2}])
    publish("biology", ["cells"])
    hour_ago = datetime.now(UTC) - timedelta(hours=1)  # so that days ago are the same instant for all
    updates: list[Document] = [
        {"userId": user_id, "contentId": "cells", "progressPercentage": 33} for user_id in ("noah", "ann")
    ]
    for user_id, status, percentage, last, enrolled in CLASS:
        given = {"status": status} if status in {"paused", "dropped"} else {}
        enroll(service, user_id, enrolledAt=(hour_ago - timedelta(days=enrolled)).isoformat(), **given)
        if last is not None:
            one = {
                "userId": user_id,
                "occurredAt": (hour_ago - timedelta(days=last)).isoformat(),
                "timeSpentSeconds": 60,
            }
            updates.append(one | {"contentId": "sets", "progressPercentage": percentage})
            if status == "completed":
                updates.append(one | {"contentId": "maps", "progressPercentage": 100})
    response = service.post("/api/progress/batch", json={"updates": updates})
    assert response.status_code == 200, response.text
    return [user_id for user_id, *_ in CLASS]


def enrollments(service: Caller, user_ids: list[str]) -> list[Document]:
    """Read the learners' enrollments one by one, as a roster shows them."""
    found = []
    for user_id in user_ids:
        enrollment = service.get(f"/api/enrollments/{user_id}/algebra").get_json()
        exported = service.get(f"/api/progress/{user_id}/export").get_json()["enrollments"]
        (last,) = [one["lastContentId"] for one in exported if one["moduleId"] == "algebra"]
        found.append({**enrollment, "lastContentId": last})
    return found


def listed(documents: list[Document], sort: str = "userId", **filters: Any) -> list[Document]:
    """Filter and sort enrollments as the contract says."""

    def is_meant(one: Document) -> bool:
        last_sign = datetime.fromisoformat(one["lastActivityAt"] or one["enrolledAt"])
        days = filters.get("inactiveDays")
        is_inactive = one["status"] in {"active", "paused"} and (
            days is None or last_sign <= datetime.now(UTC) - timedelta(days=days)
        )
        return (
            one["status"] == filters.get("status", one["status"])
            and (days is None or is_inactive)
            and one["progressPercentage"] <= float(filters.get("maxProgress", 100))
        )

    def key(one: Document) -> tuple[Any, ...]:
        keys = {"userId": "", "progress": one["progressPercentage"], "lastActivity": one["lastActivityAt"] or ""}
        return keys[sort.removeprefix("-")], one["userId"]

    return sorted(filter(is_meant, documents), key=key, reverse=sort.startswith("-"))


def read(caller: Caller, **query: Any) -> Document:
    response = caller.get(PATH, query_string=query)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def pages(caller: Caller, **query: Any) -> Iterator[list[Document]]:
    page = read(caller, **query)
    yield page["items"]
    while page["nextCursor"] is not None:
        page = read(caller, **query, cursor=page["nextCursor"])
        assert page["items"], "a cursor leads to somebody"
        yield page["items"]


def table(caller: Caller, **query: Any) -> str:
    response = caller.get(PATH, query_string=query, headers={"Accept": "text/csv"})
    assert response.status_code == 200, response.text
    assert response.mimetype == "text/csv"
    return str(response.text)


def names(items: list[Document]) -> list[str]:
    return [one["userId"] for one in items]


@pytest.mark.parametrize("sort", SORTS)
def test_every_filter_lists_the_learners_it_means_in_order_on_pages_and_in_the_table(
    sort: str, service: Callers, instructor: Callers, publish: Publish
) -> None:
    everybody = enrollments(service(), gather(service(), publish))
    assert {one["status"] for one in everybody} == set(STATUSES)

    for status, days, most in product([None, *STATUSES], [None, 10], [None, "0", "33.33"]):
        given = {"status": status, "inactiveDays": days, "maxProgress": most}
        filters = {name: value for name, value in given.items() if value is not None}
        expected = listed(everybody, sort, **filters)
        assert read(instructor(), sort=sort, limit=200, **filters) == {"items": expected, "nextCursor": None}, filters
        assert [one for page in pages(instructor(), sort=sort, limit=6, **filters) for one in page] == expected
        rows = table(instructor(), sort=sort, **filters).splitlines()[1:]
        assert [row.split(",")[0] for row in rows] == names(expected), filters


@pytest.mark.parametrize("sort", SORTS)
def test_pages_of_any_size_join_to_the_same_list(
    sort: str, service: Callers, instructor: Callers, publish: Publish
) -> None:
    expected = listed(enrollments(service(), gather(service(), publish)), sort)

    for limit in (1, 2, 5, len(CLASS) - 1, len(CLASS), 200):
        found = list(pages(instructor(), sort=sort, limit=limit))
        assert [one for page in found for one in page] == expected
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert len(found) == -(-len(CLASS) // limit)


def test_without_a_limit_a_page_has_fifty_learners_by_their_id(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    updates = [{"userId": f"u{place:02}", "contentId": "sets"} for place in reversed(range(51))]
    assert service().post("/api/progress/batch", json={"updates": updates}).status_code == 200

    first = read(service())

    assert names(first["items"]) == [f"u{place:02}" for place in range(50)]
    assert names(read(service(), cursor=first["nextCursor"])["items"]) == ["u50"]


@pytest.mark.parametrize("sort", SORTS)
def test_who_stays_as_they_are_is_listed_once_whatever_others_do_between_the_pages(
    sort: str, service: Callers, instructor: Callers, publish: Publish
) -> None:
    user_ids = gather(service(), publish)
    moving = {"Zoe", "a.b", "ann", "b9", "bea", "fay", "hal", "eve"}
    staying = listed([one for one in enrollments(service(), user_ids) if one["userId"] not in moving], sort)
    changes: Iterator[Callable[[], object]] = iter(
        [
            lambda: send(service(), "Zoe", "maps", 70),
            lambda: enroll(service(), "0new"),
            lambda: service().delete("/api/progress/eve"),
            lambda: enroll(service(), "a.b", status="dropped"),
            lambda: send(service(), "m-new", "sets", 50, days=12),
            lambda: service().delete("/api/progress/ann/algebra"),
            lambda: send(service(), "fay", "sets", 100, days=12),
            lambda: service().delete("/api/progress/b9"),
            lambda: enroll(service(), "zz-new", status="paused"),
            lambda: enroll(service(), "bea", status="active"),
            lambda: send(service(), "hal", "maps", 100),
        ]
    )
    found = []
    for page in pages(instructor(), sort=sort, limit=2):
        found += page
        next(changes, lambda: None)()

    new = {"0new", "m-new", "zz-new"}
    assert [one for one in found if one["userId"] not in moving | new] == staying
    if sort == "userId":  # which never changes
        assert names(found) == sorted(set(names(found)))


@pytest.mark.parametrize("sort", SORTS)
def test_the_next_page_begins_behind_learners_who_are_gone(sort: str, service: Callers, publish: Publish) -> None:
    expected = listed(enrollments(service(), gather(service(), publish)), sort)

    for first in range(0, 15, 5):
        page = read(service(), sort=sort, limit=5)
        assert page["items"] == expected[first : first + 5]
        for user_id in names(page["items"]):
            assert service().delete(f"/api/progress/{user_id}").status_code == 204
        rest = read(service(), sort=sort, cursor=page["nextCursor"])
        assert rest == {"items": expected[first + 5 :], "nextCursor": None}


def test_who_was_never_active_stands_as_if_before_all_others(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    for user_id, days in (("kim", 3), ("sam", 1)):
        send(service(), user_id, "sets", 50, days)
    for user_id in ("zoe", "ann"):
        enroll(service(), user_id)

    assert names(read(service(), sort="lastActivity")["items"]) == ["ann", "zoe", "kim", "sam"]
    assert names(read(service(), sort="-lastActivity")["items"]) == ["sam", "kim", "zoe", "ann"]


@pytest.mark.parametrize("status", STATUSES)
def test_inactivity_is_that_of_the_unfinished_counted_from_activity_or_else_from_the_enrollment(
    status: str, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    minute = 1 / 24 / 60
    for user_id, last, enrolled in [
        ("active-just", 7 - minute, 300),
        ("active-long", 7 + minute, 1),
        ("never-just", None, 7 - minute),
        ("never-long", None, 7 + minute),
    ]:
        if status == "completed" and last is None:
            continue
        enroll(service(), user_id, enrolledAt=days_ago(enrolled))
        if last is not None:
            send(service(), user_id, "sets", 100 if status == "completed" else 50, last)
        if status in {"paused", "dropped"}:
            enroll(service(), user_id, status=status)

    expected = ["active-long", "never-long"] if status in {"active", "paused"} else []
    assert names(read(service(), inactiveDays=7)["items"]) == expected
    assert names(read(service(), inactiveDays=7, status=status)["items"]) == expected
    assert names(read(service(), inactiveDays=8)["items"]) == []


@pytest.mark.parametrize(
    ("weights", "percentage", "includes", "excludes"),
    [
        ([1, 2], 100, ["33.33", "33.34", "33.339", "100", "33.330"], ["33.32", "33.329", "33", "0"]),
        ([1, 6], 100, ["14.28", "1.428e1", "1428E-2"], ["14.27", "14.2799", "1e-5"]),
        ([1, 1], 33, ["16.5", "16.50", "16.51"], ["16.49", "16"]),
        ([1, 9999], 99, ["0", "0.00"], []),
        ([1, 9999], 100, ["0.01"], ["0", "0.009"]),
        ([9999, 1], 100, ["99.99", "100"], ["99.98", "99"]),
        ([1, 0], 99, ["99", "99.00"], ["98.99"]),
        ([1, 0], 100, ["100", "100.00"], ["99.99", "99." + "9" * 30]),
        ([0, 0], 100, ["0", "50", "100"], []),
    ],
)
def test_the_most_progress_is_inclusive_of_the_percentage_as_shown(
    weights: list[int],
    percentage: int,
    includes: list[str],
    excludes: list[str],
    service: Callers,
    publish: Publish,
) -> None:
    publish("algebra", [{"id": name, "weight": weight} for name, weight in zip(["sets", "maps"], weights, strict=True)])
    send(service(), "sam", "sets", percentage)

    assert [most for most in includes + excludes if read(service(), maxProgress=most)["items"]] == includes


def test_a_module_without_weight_lists_its_learners_at_zero(service: Callers, publish: Publish) -> None:
    publish("algebra", [{"id": "sets", "weight": 0}])
    for user_id, percentage in (("sam", 100), ("kim", 50)):
        send(service(), user_id, "sets", percentage)

    for sort, expected in (("progress", ["kim", "sam"]), ("-progress", ["sam", "kim"])):
        assert [names(page) for page in pages(service(), sort=sort, limit=1)] == [[one] for one in expected]
    assert {one["progressPercentage"] for one in read(service())["items"]} == {0}


@pytest.mark.parametrize("sort", SORTS)
def test_who_completed_a_module_that_lost_its_weight_is_listed_at_100_and_others_at_0(
    sort: str, service: Callers, publish: Publish
) -> None:
    everybody = gather(service(), publish)
    publish("algebra", [])
    shown = enrollments(service(), everybody)
    assert {one["progressPercentage"] for one in shown} == {0, 100}

    for most in (None, "0", "99.99", "100"):
        filters = {} if most is None else {"maxProgress": most}
        for limit in (1, 5, 200):
            found = [one for page in pages(service(), sort=sort, limit=limit, **filters) for one in page]
            assert found == listed(shown, sort, **filters)


def test_a_module_without_learners_has_an_empty_roster(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    publish("biology", ["cells"])
    send(service(), "sam", "cells", 50)

    assert read(service()) == {"items": [], "nextCursor": None}
    assert table(service()) == HEADER


BAD_QUERIES: list[Any] = [
    *({"limit": limit} for limit in ("0", "201", "abc", "-1", "1.0", "", "+5", "٣", "1e2")),
    *({"sort": sort} for sort in ("", "name", "-userId", "progress,userId", "PROGRESS")),
    *({"status": status} for status in ("", "finished", "ACTIVE")),
    *({"inactiveDays": days} for days in ("", "-1", "1.5", "abc", "9999999999", "1" * 5000)),
    *(
        {"maxProgress": most}
        for most in ("", "-1", "100.01", "101", "NaN", "Infinity", "1e3", "1e99999999999999999999", "014", "33,3", "٣")
    ),
    {"page": "2"},
    {"cursor": ""},
    [("limit", "1"), ("limit", "2")],
]


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_a_bad_parameter_is_refused(accept: str, service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])

    for query in BAD_QUERIES:
        response = service().get(PATH, query_string=query, headers={"Accept": accept})
        assert (response.status_code, response.mimetype) == (400, "application/problem+json"), query
        assert response.get_json()["type"].endswith("malformed-request")


def test_the_limits_of_a_page_are_themselves_allowed(service: Callers, publish: Publish) -> None:
    small_class(service(), publish)

    assert [len(read(service(), limit=limit)["items"]) for limit in (1, 200)] == [1, 3]


def written(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()


def taken_apart(cursor: str) -> list[Any]:
    return list(json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))))


BAD_CURSORS = [
    *("", "abc", "é", "=", "====", "a b", "%00", "AAAA", "_____", "null", "[]", "A" * 100_000),
    *map(written, [None, 1, "", "abcd", [], {}, [1, 2, 3, 4], [[]] * 4, {"a": 1, "b": 2, "c": 3, "d": 4}]),
    base64.b64encode(b"[" * 50_000).decode(),
    base64.b64encode(b'["userId",false,null,"\xff"]').decode(),
    base64.b64encode(b'["userId",false,null,"\\ud800"]').decode(),
]


@pytest.mark.parametrize("sort", SORTS)
def test_a_cursor_that_was_not_given_for_this_order_is_refused(sort: str, service: Callers, publish: Publish) -> None:
    gather(service(), publish)
    cursors = {one: read(service(), sort=one, limit=12)["nextCursor"] for one in SORTS}
    good = taken_apart(cursors.pop(sort))
    wrong = [good[:-1], [*good, None], good[::-1], [*good[:-1], None], [*good[:-1], "not an id"], [*good[:-1], 7]]
    if sort != "userId":
        keys: list[Any] = ["", "soon", [], {}, 1.5, "2026-01-01T00:00:00", "2026-01-01"]
        wrong += [[*good[:-2], key, good[-1]] for key in keys]

    for cursor in [*cursors.values(), *BAD_CURSORS, *map(written, wrong), written(good)[:-2]]:
        response = service().get(PATH, query_string={"sort": sort, "cursor": cursor})
        assert response.status_code == 400, cursor[:200]
        assert response.get_json()["type"].endswith("malformed-request")
    assert read(service(), sort=sort, cursor=written(good))["items"], "the one that was given is good"


@pytest.mark.parametrize("sort", SORTS)
def test_no_cursor_that_somebody_makes_is_an_error_of_the_service(
    sort: str, service: Callers, publish: Publish
) -> None:
    gather(service(), publish)
    good = taken_apart(read(service(), sort=sort, limit=12)["nextCursor"])
    strange: list[Any] = [None, True, 0, -1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 10**40, 0.5, "", "x" * 500]
    strange += [
        f"{time}{offset}"
        for time in ("0001-01-01T00:00:00", "9999-12-31T23:59:59.999999")
        for offset in ("Z", "+23:59", "-23:59")
    ]
    strange += ["2026-01-01T00:00:00+00:00:00.000001", "\0", "'", [], {}]

    for place, value in product(range(len(good)), strange):
        cursor = written([*good[:place], value, *good[place + 1 :]])
        response = service().get(PATH, query_string={"sort": sort, "cursor": cursor})
        assert response.status_code in {200, 400}, (place, value)


def test_only_those_who_may_see_a_module_learn_whether_it_exists(
    service: Callers, admin: Callers, instructor: Callers, student: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    unknown = PATH.replace("algebra", "alchemy")

    for accept in ("application/json", "text/csv"):
        callers = {service(): 404, admin(): 404, instructor(): 403, student(): 403}
        for caller, status in callers.items():
            assert caller.get(unknown, headers={"Accept": accept}).status_code == status
        for stranger in (instructor("otto"), student()):
            assert stranger.get(PATH, headers={"Accept": accept}).status_code == 403
        assert instructor().get(PATH, headers={"Accept": accept}).status_code == 200


def small_class(service: Caller, publish: Publish) -> None:
    publish("algebra", ["sets", {"id": "maps", "weight": 2}])
    enroll(service, "ann", enrolledAt="2026-01-02T03:04:05Z")
    enroll(service, "ben", enrolledAt="2026-01-02T03:04:05.25+02:00", status="paused", counted=False)
    send(service, "ben", "sets", 100, occurredAt="2026-02-01T00:00:00.999999+01:00", timeSpentSeconds=61)
    send(service, "cyd", "maps", 100, occurredAt="2026-02-01T12:00:00Z")
    send(service, "cyd", "sets", 100, occurredAt="2026-02-03T12:00:00Z", timeSpentSeconds=14400)


def test_the_table_has_the_fields_of_enrollments_in_order_and_one_line_for_each(
    service: Callers, publish: Publish
) -> None:
    small_class(service(), publish)

    response = service().get(PATH, headers={"Accept": "text/csv"})

    assert response.content_type.startswith("text/csv")
    assert response.data == HEADER.encode() + (
        b"ann,algebra,active,0.0,0,2,0,2026-01-02 03:04:05,,,,true\r\n"
        b"ben,algebra,paused,33.33,1,2,61,2026-01-02 01:04:05,,2026-01-31 23:00:00,sets,false\r\n"
        b"cyd,algebra,completed,100.0,2,2,14400,2026-02-01 12:00:00,2026-02-03 12:00:00,2026-02-03 12:00:00,"
        b"sets,true\r\n"
    )
    assert list(read(service())["items"][0]) == HEADER.strip().split(",")


def test_the_table_is_whole_where_it_has_more_rows_than_are_read_at_a_time(
    service: Callers, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = enrollments(service(), gather(service(), publish))
    whole = {sort: table(service(), sort=sort) for sort in SORTS}

    for size in (1, 3, 8, len(CLASS)):
        monkeypatch.setattr(roster, "PAGE", size)
        for sort in SORTS:
            assert table(service(), sort=sort) == whole[sort]
    rows = [row.split(",")[0] for row in whole["-lastActivity"].splitlines()[1:]]
    assert rows == names(listed(everybody, "-lastActivity"))


@pytest.mark.parametrize("accept", [None, "application/json", "text/html", "text/csv;q=0"])
def test_the_file_is_the_same_table_whatever_the_caller_prefers(
    accept: str | None, service: Callers, instructor: Callers, publish: Publish
) -> None:
    gather(service(), publish)

    for query in ({}, {"sort": "-lastActivity", "status": "active"}, {"inactiveDays": 10, "maxProgress": 20}):
        response = instructor().get(FILE, query_string=query, headers={"Accept": accept} if accept else {})
        assert (response.status_code, response.text) == (200, table(service(), **query))
        assert response.content_type == "text/csv; charset=utf-8; header=present"
        assert "Vary" not in response.headers


def test_a_table_is_named_after_its_module(service: Callers, publish: Publish) -> None:
    name = "A-z_0.9:@|+~'"
    publish(name, ["sets"])

    for path, accept in (("learners", "text/csv"), ("learners.csv", "*/*")):
        response = service().get(f"/api/progress/stats/{quote(name)}/{path}", headers={"Accept": accept})
        assert response.headers["Content-Disposition"] == f'attachment; filename="{name}-learners.csv"'
        kind, parameters = parse_options_header(response.headers["Content-Disposition"])
        assert (kind, parameters) == ("attachment", {"filename": f"{name}-learners.csv"})


def test_a_refused_table_is_a_problem_and_no_file(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])

    for path, status in ((f"{FILE}?status=finished", 400), (FILE.replace("algebra", "alchemy"), 404)):
        response = service().get(path)
        assert (response.status_code, response.mimetype) == (status, "application/problem+json")
        assert "Content-Disposition" not in response.headers


@pytest.mark.parametrize("query", [{"limit": 50}, {"cursor": "x"}, {"limit": 0, "cursor": "x"}])
def test_a_table_has_no_pages(query: dict[str, Any], service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])

    for path in (PATH, FILE):
        response = service().get(path, query_string=query, headers={"Accept": "text/csv"})
        assert refusal(response) == (400, "malformed-request", {f"/{name}" for name in query})
        told = {error["detail"] for error in response.get_json()["errors"]}
        assert told == {"A table has no pages: it takes no limit and no cursor."}


def test_everything_that_is_wrong_with_a_query_is_named_at_once(
    service: Callers, instructor: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    query = "status=finished&inactiveDays=x&page=2&limit=1&limit=2&cursor=x"

    for caller in (service(), instructor("otto")):
        response = caller.get(f"{PATH}?{query}", headers={"Accept": "text/csv"})
        wrong = {"/status", "/inactiveDays", "/page", "/limit", "/cursor"}
        assert refusal(response) == (400, "malformed-request", wrong)


PREFERENCES = {
    None: "application/json",
    "*/*": "application/json",
    "application/*": "application/json",
    "application/json;q=1": "application/json",
    "application/json, text/csv": "application/json",
    "application/json;q=0.5, text/csv;q=0.4": "application/json",
    "text/html": "application/json",
    "text/csv": "text/csv",
    "TEXT/CSV": "text/csv",
    "text/csv;q=0.5": "text/csv",
    "text/csv, */*;q=0.1": "text/csv",
    "application/json;q=0.4, text/csv;q=0.5": "text/csv",
    "text/csv; charset=utf-8": "text/csv",
    "text/csv; charset=utf-8; header=present": "text/csv",
    'text/csv;header=present;charset="UTF-8";q=0.3': "text/csv",
    "text/csv ; header=absent": "text/csv",
    "text/*": "text/csv",
    "text/*;q=0.5, application/json;q=0.4": "text/csv",
    "text/html, text/csv; charset=utf-8;q=0.9, */*;q=0.8": "text/csv",
    "text/csv; charset=utf-8, application/json": "application/json",
    "text/csv; charset=utf-8;q=0.4, application/json;q=0.5": "application/json",
    "text/csv; charset=utf-8;q=0": "application/json",
    "text/csv;q=0, text/*": "application/json",
    "text/csv2; charset=utf-8": "application/json",
    "text": "application/json",
}


def test_the_table_is_for_those_who_prefer_it(service: Callers, publish: Publish) -> None:
    small_class(service(), publish)

    for accept, expected in PREFERENCES.items():
        response = service().get(PATH, headers={"Accept": accept} if accept else {})
        assert (response.status_code, response.mimetype) == (200, expected), accept
        assert response.headers["Vary"] == "Accept"


@pytest.mark.parametrize("lines_read", [1, 3])
def test_the_table_is_of_one_moment_whatever_is_written_while_it_is_read(
    lines_read: int, service: Callers, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather(service(), publish)
    monkeypatch.setattr(roster, "PAGE", 2)
    before = table(service(), sort="progress")
    response = service().get(PATH, query_string={"sort": "progress"}, headers={"Accept": "text/csv"}, buffered=False)
    parts = response.iter_encoded()
    text = b"".join(next(parts) for _ in range(lines_read))

    def write() -> None:
        send(service(), "Zoe", "maps", 70)
        service().delete("/api/progress/eve")
        enroll(service(), "fay", status="dropped")
        enroll(service(), "new")
        publish("algebra", [{"id": "sets", "weight": 100}, "maps", "more"])

    Context().run(write)  # as another request: the one that is answered has its own context
    text += b"".join(parts)
    response.close()

    assert text.decode() == before
    assert table(service(), sort="progress") != before
