"""Single updates that arrive together share a transaction, and each is answered as if it had come alone."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from threading import Event
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from progress_service.store import database, locks, together, verification
from tests.callers import Caller
from tests.conftest import Callers, Publish, application, engine_of
from tests.waiting import PATIENCE_SECONDS, wait_until

on_postgresql = pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
THREADS = 12

Call = Callable[[], TestResponse]


@pytest.fixture
def app(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    monkeypatch.setattr(together, "LONGEST_WAIT", PATIENCE_SECONDS)
    with application(database_url, POOL_SIZE=THREADS + 2) as app:
        yield app


@pytest.fixture
def engine(app: Flask) -> Engine:
    return engine_of(app)


@pytest.fixture
def waiting(app: Flask, service: Callers, publish: Publish) -> Callable[[Sequence[Call]], list[TestResponse]]:
    """Make calls that wait in a queue for a transaction that is held until all are there, in their order."""
    publish("held", ["first"])

    def answered(calls: Sequence[Call]) -> list[TestResponse]:
        with ThreadPoolExecutor(len(calls) + 1) as threads, held(app) as (begun, queued):
            leader = threads.submit(service().post, "/api/progress", json={"userId": "max", "contentId": "first"})
            assert begun.wait(PATIENCE_SECONDS)
            sent: list[Future[TestResponse]] = []
            for number, call in enumerate(calls, 1):
                sent.append(threads.submit(call))
                queued(number)
        assert leader.result(PATIENCE_SECONDS).status_code in {200, 201}
        return [one.result(PATIENCE_SECONDS) for one in sent]

    return answered


@contextmanager
def held(app: Flask) -> Iterator[tuple[Event, Callable[[int], None]]]:
    """Hold the next commit; yield the event of its begin, and a function that waits until so many calls queue."""
    begun, released = Event(), Event()

    def hold(_: Connection) -> None:
        if not begun.is_set():
            begun.set()
            assert released.wait(PATIENCE_SECONDS)

    def queued(number: int) -> None:
        wait_until(lambda: sum(len(queue._waiting) for queue in app.extensions["together"].values()) >= number)

    event.listen(engine_of(app), "commit", hold)
    try:
        yield begun, queued
    finally:
        released.set()


def post(caller: Caller, user_id: str, content_id: str, key: str | None = None, **update: Any) -> Call:
    headers = {"Idempotency-Key": key} if key else {}
    body = {"userId": user_id, "contentId": content_id, **update}
    return partial(caller.post, "/api/progress", json=body, headers=headers)


UPDATES: list[dict[str, Any]] = [
    {"occurredAt": "2026-03-01T12:00:00Z", "progressPercentage": 40, "timeSpentSeconds": 5, "position": "here"},
    {"occurredAt": "2026-03-01T12:00:01Z", "progressPercentage": 100, "timeSpentSeconds": 7},
    {"occurredAt": "2026-03-01T12:00:02Z", "progressPercentage": 100, "score": 1, "maxScore": 4},
    {"occurredAt": "2026-03-01T12:00:03Z", "score": 4, "maxScore": 4},
]


def calls(school: str, service: Caller, student: Caller) -> list[Call]:
    """Return calls of all kinds, about one module, in an order in which some depend on others."""
    videos, quiz = f"{school}-video", f"{school}-quiz"
    one, more, failed, passed = UPDATES
    return [
        post(service, f"{school}-sam", videos, f"{school}-key", **one),
        post(service, f"{school}-sam", videos, **more),
        post(service, f"{school}-sam", f"{school}-unknown", **one),
        post(student, f"{school}-kim", videos, progressPercentage=3),
        post(service, f"{school}-sam", quiz, **failed),
        post(service, f"{school}-kim", quiz, f"{school}-other", **failed),
        post(service, f"{school}-sam", quiz, **passed),
        post(service, f"{school}-sam", videos, **one),
        post(service, f"{school}-kim", videos, **more),
        post(service, f"{school}-sam", videos, f"{school}-key", **one),
        post(service, f"{school}-sam", videos, f"{school}-key", **more),
    ]


def shown(response: TestResponse, school: str) -> tuple[int, str | None, Any]:
    """Return what an answer says, without the names of a school and without ids."""
    text = response.text.replace(f"{school}-", "")
    document = response.json if response.json is not None else {}
    for name in (document.get("progress", {}).get("id"), document.get("requestId")):
        text = text.replace(str(name), "id") if name else text
    return response.status_code, response.headers.get("Idempotency-Replayed"), text


def test_each_is_answered_as_if_it_had_come_alone(
    app: Flask, service: Callers, student: Callers, publish: Publish, waiting: Callable[..., list[TestResponse]]
) -> None:
    for school in ("alone", "group"):
        publish(school, [f"{school}-video", {"id": f"{school}-quiz", "type": "quiz", "passingScore": 50}])
    alone = [shown(call(), "alone") for call in calls("alone", service(), student("alone-sam"))]

    together = [shown(answer, "group") for answer in waiting(calls("group", service(), student("group-sam")))]

    assert [status for status, *_ in together] == [201, 200, 422, 403, 201, 201, 200, 200, 201, 201, 422]
    assert together == [(status, replayed, text.replace('"alone"', '"group"')) for status, replayed, text in alone]
    with app.app_context():
        assert database.read(lambda connection: list(verification.drifts(connection))) == []


def test_many_take_one_transaction(
    engine: Engine, service: Callers, publish: Publish, waiting: Callable[..., list[TestResponse]]
) -> None:
    publish("algebra", ["sums"])
    committed: list[Connection] = []
    event.listen(engine, "commit", lambda connection: committed.append(connection))

    answers = waiting([post(service(), f"u{number}", "sums", f"k{number}") for number in range(10)])

    assert {answer.status_code for answer in answers} == {201}
    assert len(committed) == 2  # the one that was held, and that of all others


def test_each_tells_of_the_whole_transaction(
    service: Callers,
    publish: Publish,
    waiting: Callable[[Sequence[Call]], list[TestResponse]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish("algebra", ["sums"])
    answers = waiting([post(service(), f"u{number}", "sums") for number in range(3)] + [post(service(), "u", "none")])
    assert [answer.status_code for answer in answers] == [201, 201, 201, 422]

    names = ("progress.group", "progress.retries", "progress.database.statements", "progress.database.duration")
    told = [tuple(map(vars(record)["fields"].get, names)) for record in caplog.records if "fields" in vars(record)]
    leader, *group = [figures for figures in told if figures[0]]
    assert leader[:2] == (1, 0)
    assert group == [group[0]] * 4
    assert group[0][:2] == (3, 1)
    assert group[0][2] > leader[2]
    assert group[0][3] > 0


def test_those_who_go_alone_tell_of_another_try(
    engine: Engine,
    service: Callers,
    publish: Publish,
    waiting: Callable[[Sequence[Call]], list[TestResponse]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish("algebra", ["sums"])
    begun = count()

    @event.listens_for(engine, "begin")
    def fail(_: Connection) -> None:
        if next(begun) == 1:  # the group's
            raise database.Outdated

    waiting([post(service(), f"u{number}", "sums") for number in range(3)])

    fields = [vars(record)["fields"] for record in caplog.records if "fields" in vars(record)]
    told = [(one["progress.group"], one["progress.retries"]) for one in fields if "progress.group" in one]
    assert told == [(1, 0)] + [(1, 1)] * 3


def test_completions_share_a_transaction_too_and_each_refusal_is_its_own(
    app: Flask, service: Callers, student: Callers, publish: Publish
) -> None:
    publish("algebra", ["sums", {"id": "quiz", "passingScore": 50}])
    ids = [
        post(service(), user_id, content_id)().get_json()["progress"]["id"]
        for user_id, content_id in (("sam", "sums"), ("kim", "quiz"), ("eva", "sums"))
    ]
    unknown = "01890a5d-ac96-774b-bcce-b302099a8057"

    def complete(caller: Caller, record_id: str) -> Call:
        return partial(caller.put, f"/api/progress/{record_id}/complete")

    with ThreadPoolExecutor(6) as threads, held(app) as (begun, queued):
        first = threads.submit(complete(service(), ids[0]))
        assert begun.wait(PATIENCE_SECONDS)
        sent = []
        for number, call in enumerate(
            (
                complete(service(), ids[1]),
                complete(service(), unknown),
                complete(student("eva"), ids[2]),
                complete(student("sam"), ids[2]),
                complete(service(), "no-uuid"),
            ),
            1,
        ):
            sent.append(threads.submit(call))
            queued(number)

    assert first.result(PATIENCE_SECONDS).status_code == 200
    assert [one.result(PATIENCE_SECONDS).status_code for one in sent] == [409, 404, 200, 404, 404]


@on_postgresql
def test_a_module_that_a_catalog_change_holds_holds_up_no_other(
    app: Flask, engine: Engine, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sums"])
    publish("biology", ["cells"])
    others = [post(service(), f"u{number}", "cells") for number in range(5)]

    with ThreadPoolExecutor(7) as threads, engine.begin() as change:
        locks.hold_modules(change, ["algebra"])
        with held(app) as (begun, queued):
            leader = threads.submit(post(service(), "max", "cells"))
            assert begun.wait(PATIENCE_SECONDS)
            sent = [threads.submit(call) for call in (post(service(), "sam", "sums"), *others)]
            queued(len(sent))
        first, *rest = sent
        assert {answer.result(PATIENCE_SECONDS).status_code for answer in (leader, *rest)} == {201}
        assert not first.done()
        change.rollback()
    assert first.result(PATIENCE_SECONDS).status_code == 201


def test_a_commit_that_fails_fails_for_all_and_counts_nothing_twice(
    app: Flask, engine: Engine, service: Callers, publish: Publish, waiting: Callable[..., list[TestResponse]]
) -> None:
    publish("algebra", ["sums"])
    group = [post(service(), "sam", "sums", f"k{number}", timeSpentSeconds=1) for number in range(5)]
    before = None

    @event.listens_for(engine, "commit")
    def fail(connection: Connection) -> None:
        nonlocal before
        if before is None:
            before = 1  # the transaction that is held commits
        elif before == 1:
            before = 2
            raise OperationalError("COMMIT", {}, Exception("the disk is full"))

    answers = waiting(group)

    assert {answer.status_code for answer in answers} == {503}
    repeats = [call() for call in group]
    assert sorted(answer.status_code for answer in repeats) == [200, 200, 200, 200, 201]
    assert repeats[-1].get_json()["progress"]["timeSpentSeconds"] == 5


def test_who_has_waited_for_long_goes_alone_unless_a_group_has_begun(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "LONGEST_WAIT", 0)
    begun, free, gone, led, grouped, asked = (Event() for _ in range(6))
    may_ask, has_asked = {"second": led, "third": grouped}, {"alone": gone, "third": asked}
    groups: list[list[str]] = []

    def work(_: Connection, items: Sequence[str]) -> list[str]:
        groups.append(list(items))
        if items == ["first"]:
            begun.set()
            assert free.wait(PATIENCE_SECONDS)
        elif len(items) == 2:
            grouped.set()
            assert asked.wait(PATIENCE_SECONDS)
        return [item.upper() for item in items]

    queue = together.Together[str, str](work, lambda item: item)
    leave = queue._leave

    def ask_to_leave(member: Any) -> bool:
        """Let the second ask when it leads, and the third when it is in a group."""
        if moment := may_ask.get(member.item):
            assert moment.wait(PATIENCE_SECONDS)
        left = leave(member)
        if moment := has_asked.get(member.item):
            moment.set()
        return left

    def write(item: str) -> str:
        with app.app_context():
            return queue.write(item)

    monkeypatch.setattr(queue, "_leave", ask_to_leave)
    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(write, "first")]
        assert begun.wait(PATIENCE_SECONDS)
        sent.append(threads.submit(write, "alone"))
        assert gone.wait(PATIENCE_SECONDS)
        for number, item in enumerate(("second", "third"), 1):
            sent.append(threads.submit(write, item))
            wait_until(lambda number=number: len(queue._waiting) == number)  # type: ignore[misc]
        free.set()
        assert sent[0].result(PATIENCE_SECONDS) == "FIRST"
        led.set()
        assert [one.result(PATIENCE_SECONDS) for one in sent] == ["FIRST", "ALONE", "SECOND", "THIRD"]
    assert sorted(groups) == [["alone"], ["first"], ["second", "third"]]
