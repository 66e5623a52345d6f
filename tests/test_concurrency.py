"""Requests at the same time: nothing is lost, doubled or stale, and nobody is told that the service has failed."""

import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPConnection
from io import BytesIO
from itertools import combinations_with_replacement, count
from pathlib import Path
from threading import Barrier, Event
from typing import Any, Literal, TypeVar

import pytest
from flask import Flask
from sqlalchemy import Connection, Engine, insert, select, text
from werkzeug.test import TestResponse

from progress_service import cli, importing
from progress_service.calculations import COMMAND, Update
from progress_service.store import corrections, database, publishing, recorder, verification
from progress_service.store.learning import EnrollmentChange, EnrollmentKey
from progress_service.store.locks import MOST_LOCKS
from progress_service.store.models import Change, Enrollment, ProgressRecord, Tally
from progress_service.store.publishing import PublishedContent, PublishedModule
from progress_service.tallies import NOTHING
from tests.callers import KEY, Caller, token
from tests.conftest import Callers, Listen, Publish, application, applications, engine_of, wait_until_settled
from tests.test_faults import waiting
from tests.test_stateful import Reader, Told
from tests.waiting import PATIENCE_SECONDS, wait_until

Result = TypeVar("Result")

THREADS = 8
NOW = datetime(2025, 1, 31, tzinfo=UTC)
TODAY = datetime.now(UTC).date()

# Beside the service's own recount, so that both cannot err in the same way.
STORED_AND_RECOUNTED = text("""
    SELECT e.user_id, e.module_id, e.weighted_sum, e.completed_contents, e.time_spent_seconds,
        coalesce(sum(CASE WHEN c.retired THEN 0 ELSE c.weight * r.progress_percentage END), 0),
        count(CASE WHEN c.weight > 0 AND NOT c.retired AND r.progress_percentage = 100 THEN 1 END),
        coalesce(sum(r.time_spent_seconds), 0)
    FROM enrollments e
    LEFT JOIN progress_records r ON r.user_id = e.user_id AND r.module_id = e.module_id
    LEFT JOIN contents c ON c.id = r.content_id
    GROUP BY e.user_id, e.module_id
    ORDER BY e.user_id, e.module_id
""")

on_postgresql = pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)


@pytest.fixture(scope="module")
def patient_app() -> Iterator[Callable[[str], Flask]]:
    # All writers but one may wait, which half of a pool may. SQLite gives its write lock to anybody who waits, in no
    # order: on a busy machine somebody may wait for long.
    patient = dict.fromkeys(("POOL_TIMEOUT", "LOCK_TIMEOUT", "STATEMENT_TIMEOUT"), PATIENCE_SECONDS)
    with applications(POOL_SIZE=2 * THREADS + 2, **patient) as made:
        yield made


@pytest.fixture
def app(database_url: str, patient_app: Callable[[str], Flask]) -> Iterator[Flask]:
    app = patient_app(database_url)
    yield app
    engine_of(app).dispose()  # in its mode "session", PgBouncer has no connection for others while these are open


@pytest.fixture
def engine(app: Flask) -> Engine:
    return engine_of(app)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool


def together(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Make all calls at the same time, each in a thread of its own, and return what they return."""
    start = Barrier(len(calls))

    def run(call: Callable[[], Result]) -> Result:
        start.wait(PATIENCE_SECONDS)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def until_done(work: Callable[[], object], others: Sequence[Callable[[], object]]) -> None:
    """Do the work, and the others over and over until it is done."""
    done = Event()

    def lead() -> None:
        try:
            work()
        finally:
            done.set()

    def repeat(other: Callable[[], object]) -> None:
        other()
        while not done.is_set():
            other()

    calls: list[Callable[[], object]] = [lead, *(partial(repeat, other) for other in others)]
    together(calls)


def post(caller: Caller, **update: Any) -> TestResponse:
    response: TestResponse = caller.post("/api/progress", json=update)
    assert response.status_code in {200, 201}, response.text
    return response


def batch(caller: Caller, updates: Sequence[dict[str, Any]]) -> Counter[str]:
    response: TestResponse = caller.post("/api/progress/batch", json={"updates": updates})
    assert response.status_code == 200, response.text
    counts = response.get_json()
    counts.pop("completions")
    return Counter(counts)


def put_module(caller: Caller, module_id: str, weights: dict[str, int]) -> TestResponse:
    contents = [{"id": one, "title": one, "type": "video", "weight": weight} for one, weight in weights.items()]
    response: TestResponse = caller.put(
        f"/api/catalog/modules/{module_id}", json={"title": module_id, "contents": contents}
    )
    return response


def view(caller: Caller, user_id: str, module_id: str) -> dict[str, Any]:
    response: TestResponse = caller.get(f"/api/progress/{user_id}/{module_id}")
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def drifts(app: Flask) -> list[verification.Drift]:
    with app.app_context():
        return database.read(lambda connection: list(verification.drifts(connection)))


def assert_exact(app: Flask, engine: Engine) -> int:
    """Compare everything stored with two recounts; return how many enrollments there are."""
    assert drifts(app) == []
    with engine.connect() as connection:
        rows = connection.execute(STORED_AND_RECOUNTED).all()
    assert [row[2:5] for row in rows] == [row[5:8] for row in rows]
    return len(rows)


def test_first_writes_of_one_record_at_once_make_one_record(
    app: Flask, engine: Engine, student: Callers, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sums", "shapes"])
    publish("biology", ["cells"])
    post(student("noise"), contentId="sums", timeSpentSeconds=7)
    for user_id in ("kim", "lee", "max", "sam"):  # nobody is enrolled yet
        responses = together(
            [
                partial(post, student(user_id), contentId="sums", timeSpentSeconds=seconds)
                for seconds in range(1, THREADS + 1)
            ]
        )

        assert Counter(one.status_code for one in responses) == {201: 1, 200: THREADS - 1}
        assert len({one.get_json()["progress"]["id"] for one in responses}) == 1
        seen = view(service(), user_id, "algebra")
        assert seen["contents"][0]["progress"]["timeSpentSeconds"] == seen["enrollment"]["timeSpentSeconds"] == 36
    assert assert_exact(app, engine) == 5


def test_first_updates_and_enrollments_of_one_learner_at_once_make_one_enrollment(
    app: Flask, engine: Engine, service: Callers, publish: Publish
) -> None:
    contents = [f"c{place}" for place in range(THREADS // 2)]
    publish("algebra", contents)
    publish("biology", ["cells"])

    def enroll() -> int:
        response = service().put("/api/enrollments/sam/algebra", json={})
        return int(response.status_code)

    def start(content_id: str) -> int:
        return post(service(), userId="sam", contentId=content_id, progressPercentage=100).status_code

    for _ in range(4):
        service().delete("/api/progress/sam")
        statuses = together([enroll] * len(contents) + [partial(start, one) for one in contents])

        assert Counter(statuses[: len(contents)]) <= Counter({201: 1, 200: len(contents)})
        assert statuses[len(contents) :] == [201] * len(contents)
        assert view(service(), "sam", "algebra")["enrollment"]["status"] == "completed"
        assert assert_exact(app, engine) == 1


def test_writers_of_one_learner_and_module_queue(
    app: Flask, engine: Engine, service: Callers, publish: Publish
) -> None:
    contents = ["sums", "shapes", "proofs"]
    publish("algebra", contents)
    publish("biology", ["cells"])
    post(service(), userId="kim", contentId="sums", timeSpentSeconds=1)
    rounds = range(10, 101, 10)

    def study(seconds: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        for percentage in rounds:
            content_id = contents[(seconds + percentage // 10) % len(contents)]
            update = {"userId": "sam", "progressPercentage": percentage, "timeSpentSeconds": seconds}
            counts += batch(service(), [update | {"contentId": content_id}])
        return counts

    counts = sum(together([partial(study, one) for one in range(1, THREADS + 1)]), Counter[str]())

    assert counts == {"received": THREADS * len(rounds), "started": 3, "completed": 3, "enrollmentsCompleted": 1}
    seen = view(service(), "sam", "algebra")
    assert seen["enrollment"]["status"] == "completed"
    assert seen["enrollment"]["progressPercentage"] == 100
    assert seen["enrollment"]["timeSpentSeconds"] == len(rounds) * sum(range(1, THREADS + 1))
    assert assert_exact(app, engine) == 2


def test_batches_about_the_same_learners_in_opposite_orders_all_succeed(
    app: Flask, engine: Engine, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sums", "shapes"])
    publish("biology", ["cells", "roots"])
    updates = [
        {"userId": f"u{learner}", "contentId": content_id, "timeSpentSeconds": 1}
        for learner in range(8)
        for content_id in ("sums", "cells", "shapes", "roots")
    ]

    def send(order: int) -> Counter[str]:
        mine = updates[::order] if abs(order) == 1 else random.Random(order).sample(updates, len(updates))
        return sum((batch(service(), mine) for _ in range(5)), Counter[str]())

    counts = sum(together([partial(send, one) for one in (1, -1, 1, -1, 2, 3)]), Counter[str]())

    assert counts == Counter(received=6 * 5 * len(updates), started=len(updates))
    assert {
        one["progress"]["timeSpentSeconds"]
        for learner in range(8)
        for module_id in ("algebra", "biology")
        for one in view(service(), f"u{learner}", module_id)["contents"]
    } == {30}
    assert assert_exact(app, engine) == 16


def test_totals_are_exact_at_every_moment_while_the_catalog_changes(
    app: Flask, engine: Engine, service: Callers, publish: Publish
) -> None:
    shapes = [{"a": 1, "b": 2, "c": 3}, {"a": 1}, {"c": 0, "b": 5}, {"b": 1, "c": 1, "a": 10_000}, {}, {"b": 7}]
    publish("algebra", ["a", "b", "c"])
    publish("biology", ["x", "y"])
    sent: list[dict[str, Any]] = []

    def republish() -> None:
        for _ in range(4):
            for place, shape in enumerate(shapes):
                assert put_module(service(), "algebra", shape).status_code == 200
                assert put_module(service(), "biology", {"x": place, "y": 1}).status_code == 200

    def stream() -> None:
        updates = [
            {
                "userId": f"u{random.randrange(6)}",
                "contentId": random.choice("abcxy"),
                "progressPercentage": random.choice([10, 60, 100]),
                "timeSpentSeconds": random.randrange(10),
            }
            for _ in range(random.choice([1, 4]))
        ]
        post(service(), **updates[0]) if len(updates) == 1 else batch(service(), updates)
        sent.extend(updates)

    def watch() -> None:
        assert drifts(app) == []
        seen = view(service(), f"u{random.randrange(6)}", "algebra")
        counted = [one for one in seen["contents"] if one["weight"]]
        total = sum(one["weight"] for one in counted)
        done = sum(one["weight"] * one["progress"]["progressPercentage"] for one in counted if one["progress"])
        if seen["enrollment"] and total:
            assert seen["enrollment"]["progressPercentage"] == done * 100 // total / 100

    until_done(republish, [stream, stream, stream, watch])

    assert assert_exact(app, engine) == len({(one["userId"], one["contentId"] in "abc") for one in sent})
    with engine.connect() as connection:
        times = connection.execute(text("SELECT user_id, sum(time_spent_seconds) FROM enrollments GROUP BY user_id"))
        assert {user_id: int(seconds) for user_id, seconds in times} == {
            user_id: sum(one["timeSpentSeconds"] for one in sent if one["userId"] == user_id)
            for user_id in {one["userId"] for one in sent}
        }


@pytest.mark.parametrize(
    "path",
    [
        "/api/progress/sam",
        "/api/progress/sam/algebra",
        "/api/progress/stats/algebra",
        "/api/progress/stats/algebra/learners",
        f"/api/progress/stats/algebra/timeline?from={TODAY}&to={TODAY + timedelta(2)}",
    ],
    ids=["dashboard", "module", "statistics", "roster", "timeline"],
)
def test_an_answer_is_of_one_moment_whatever_happens_between_its_statements(
    path: str, engine: Engine, listen: Listen, service: Callers, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums", "shapes"])
    post(service(), userId="sam", contentId="sums", progressPercentage=40, timeSpentSeconds=10)
    before = service().get(path).get_json()
    interfering = Event()

    def interfere(statement: str) -> None:
        if statement.startswith("SELECT") and not interfering.is_set():
            interfering.set()
            update = {"userId": "sam", "contentId": "sums", "progressPercentage": 100, "timeSpentSeconds": 10}
            pool.submit(post, service(), **update).result(PATIENCE_SECONDS)

    listen(engine, "after", interfere)

    assert service().get(path).get_json() == before
    assert service().get(path).get_json() != before


def test_resets_and_erasures_between_updates_leave_exact_totals(
    app: Flask, engine: Engine, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["a", "b"])
    publish("biology", ["x"])
    users = ["kim", "lee"]

    def take_away() -> None:
        for place in range(40):
            path = f"/api/progress/{users[place % 2]}" + ("/algebra" if place % 3 else "")
            assert service().delete(path).status_code == 204

    def study() -> None:
        response = post(service(), userId=random.choice(users), contentId=random.choice("abx"), timeSpentSeconds=1)
        record_id = response.get_json()["progress"]["id"]
        assert service().put(f"/api/progress/{record_id}/complete").status_code in {200, 404}

    def study_much() -> None:
        batch(
            service(),
            [{"userId": one, "contentId": content, "timeSpentSeconds": 1} for one in users for content in "xab"],
        )

    post(service(), userId="noise", contentId="a", timeSpentSeconds=5)
    until_done(take_away, [study, study, study_much, take_away])

    assert_exact(app, engine)
    for user_id in users:
        assert service().delete(f"/api/progress/{user_id}").status_code == 204
    assert assert_exact(app, engine) == 1
    assert view(service(), "noise", "algebra")["enrollment"]["timeSpentSeconds"] == 5


def traces(caller: Caller, user_id: str) -> dict[str, set[str]]:
    """Return of which modules each kind of trace of a learner is; an answer is kept under its module's name."""
    export = caller.get(f"/api/progress/{user_id}/export").get_json()
    kinds = ("enrollments", "records", "activityDays")
    answers = {one["idempotencyKey"] for one in export["storedAnswers"]}
    return {kind: {one["moduleId"] for one in export[kind]} for kind in kinds} | {"storedAnswers": answers}


def study_all(learner: Caller, contents: Sequence[str], key: str) -> None:
    updates = [{"contentId": one, "timeSpentSeconds": 1} for one in contents]
    response = learner.post("/api/progress/batch", json={"updates": updates}, headers={"Idempotency-Key": key})
    assert response.status_code == 200, response.text


def test_an_erasure_takes_all_of_a_batch_that_it_meets_or_nothing(
    app: Flask, engine: Engine, service: Callers, student: Callers, publish: Publish
) -> None:
    modules = {f"m{place}" for place in range(4)}
    for module_id in modules:
        publish(module_id, [f"content-of-{module_id}"])
    post(service(), userId="noise", contentId="content-of-m0", timeSpentSeconds=5)

    def study(place: int) -> None:
        time.sleep(random.uniform(0, 0.01))
        study_all(student(f"u{place}"), [f"content-of-{one}" for one in modules], "m0")

    def erase(place: int) -> None:
        time.sleep(random.uniform(0, 0.01))
        assert service().delete(f"/api/progress/u{place}").status_code == 204

    for place in range(30):
        if place % 2:
            post(service(), userId=f"u{place}", contentId="content-of-m1")
        together([partial(study, place), partial(erase, place)])

        found = traces(service(), f"u{place}")
        is_left = bool(found.pop("storedAnswers"))
        assert set(map(frozenset, found.values())) == {frozenset(modules if is_left else set())}, found
    assert_exact(app, engine)
    assert view(service(), "noise", "m0")["enrollment"]["timeSpentSeconds"] == 5


def test_a_new_content_that_two_modules_claim_at_once_goes_to_one_of_them(service: Callers, publish: Publish) -> None:
    publish("noise", ["other"])
    for place in range(6):
        ids = [f"left{place}", f"right{place}"]
        responses = together([partial(put_module, service(), one, {f"own-{one}": 1, f"c{place}": 1}) for one in ids])

        assert sorted(one.status_code for one in responses) == [201, 409]
        winner, loser = ids if responses[0].status_code == 201 else reversed(ids)
        assert service().get(f"/api/catalog/modules/{loser}").status_code == 404
        contents = service().get(f"/api/catalog/modules/{winner}").get_json()["contents"]
        assert [one["id"] for one in contents] == [f"own-{winner}", f"c{place}"]
        assert put_module(service(), f"third{place}", {f"own-{loser}": 1}).status_code == 201


def test_modules_that_claim_the_contents_of_each_other_are_both_refused(service: Callers, publish: Publish) -> None:
    before = [publish("left", ["l"]), publish("right", ["r"])]

    responses = together(
        [
            partial(put_module, service(), "left", {"l": 1, "r": 1}),
            partial(put_module, service(), "right", {"r": 1, "l": 1}),
        ]
    )

    assert [one.status_code for one in responses] == [409, 409]
    assert [service().get(f"/api/catalog/modules/{one}").get_json() for one in ("left", "right")] == before


# On PostgreSQL writers run side by side; these tests hold one transaction open and watch who waits for it.

WAITING = text(
    "SELECT count(*) FROM pg_locks WHERE locktype IN ('advisory', 'relation', 'transactionid') AND NOT granted"
)


@contextmanager
def held(engine: Engine, *works: Callable[[Connection], object]) -> Iterator[None]:
    """Do what is to be done in a transaction that stays open until the block ends."""
    with engine.begin() as connection:
        for work in works:
            work(connection)
        connection.execute(text("SELECT 1"))  # statements whose rows nobody wanted travel with it
        yield


@contextmanager
def held_before_its_tallies(
    engine: Engine, listen: Listen, pool: ThreadPoolExecutor, request: Callable[[], TestResponse]
) -> Iterator[Future[TestResponse]]:
    """Send a request that waits, until the block ends, with all its locks but those that it takes last."""
    arrived, released = Event(), Event()

    def hold(statement: str) -> None:
        if "INSERT INTO tallies" in statement and not arrived.is_set():
            arrived.set()
            assert released.wait(PATIENCE_SECONDS)

    listen(engine, "before", hold)
    sent = pool.submit(request)
    try:
        assert arrived.wait(PATIENCE_SECONDS)
        yield sent
    finally:
        released.set()


def wait_for_waiting(engine: Engine, request: Future[Any], waiters: int = 1) -> None:
    """Return when the request, the last of so many, waits for a lock; it must not end before."""
    until_waiting(engine, waiters, lambda: not request.done())


def until_waiting(engine: Engine, number: int, is_going_on: Callable[[], bool]) -> None:
    """Return when so many wait for a lock."""

    def wait() -> bool:
        assert is_going_on(), "nothing held it off"
        with engine.connect() as connection:
            return bool(connection.execute(WAITING).scalar_one() >= number)

    wait_until(wait)


def recorded(user_id: str, content_id: str, percentage: int) -> Callable[[Connection], object]:
    one = Update(user_id, content_id, NOW, progress_percentage=percentage, time_spent_seconds=10)
    return partial(recorder.record, updates=[one], auto_enroll=True, now=NOW)


def published(module_id: str, weights: dict[str, int]) -> Callable[[Connection], object]:
    contents = [PublishedContent(one, one, "video", None, weight, 100, None) for one, weight in weights.items()]
    module = PublishedModule(module_id, module_id, [], contents)
    return partial(publishing.publish, module=module, now=NOW, by=COMMAND)


@on_postgresql
def test_an_update_that_has_read_the_old_catalog_holds_off_the_catalog_change(
    app: Flask, engine: Engine, service: Callers, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums", "shapes"])
    publish("biology", ["cells"])
    with held(engine, recorded("sam", "sums", 100)):
        change = pool.submit(put_module, service(), "algebra", {"sums": 3, "shapes": 1})
        wait_for_waiting(engine, change)
        other = pool.submit(put_module, service(), "biology", {"cells": 2})
        assert other.result(PATIENCE_SECONDS).status_code == 200
        assert not change.done()

    assert change.result(PATIENCE_SECONDS).status_code == 200
    assert view(service(), "sam", "algebra")["enrollment"]["progressPercentage"] == 75
    assert assert_exact(app, engine) == 1


@on_postgresql
def test_a_catalog_change_holds_off_updates_which_then_read_the_new_catalog(
    app: Flask, engine: Engine, service: Callers, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums", "shapes"])
    publish("biology", ["cells"])
    post(service(), userId="sam", contentId="shapes", progressPercentage=100)
    with held(engine, published("algebra", {"sums": 3, "shapes": 1})):
        first = pool.submit(post, service(), userId="sam", contentId="sums", progressPercentage=50)
        wait_for_waiting(engine, first)
        other = pool.submit(post, service(), userId="sam", contentId="cells", progressPercentage=50)
        assert other.result(PATIENCE_SECONDS).status_code == 201
        assert view(service(), "sam", "algebra")["enrollment"]["progressPercentage"] == 50  # nobody waits to read
        assert not first.done()

    assert first.result(PATIENCE_SECONDS).get_json()["enrollment"]["progressPercentage"] == 62.5
    assert assert_exact(app, engine) == 2


@on_postgresql
def test_updates_of_one_module_wait_only_for_those_of_the_same_learner(
    app: Flask, engine: Engine, listen: Listen, service: Callers, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums", "shapes"])
    update = partial(post, service(), userId="sam", contentId="sums")
    with held_before_its_tallies(engine, listen, pool, update) as first:
        same = pool.submit(post, service(), userId="sam", contentId="shapes", timeSpentSeconds=15)
        wait_for_waiting(engine, same)
        other = pool.submit(post, service(), userId="kim", contentId="sums", timeSpentSeconds=5)
        assert other.result(PATIENCE_SECONDS).status_code == 201
        assert not same.done()
        assert not first.done()

    assert first.result(PATIENCE_SECONDS).status_code == 201
    assert same.result(PATIENCE_SECONDS).get_json()["enrollment"]["timeSpentSeconds"] == 15
    assert assert_exact(app, engine) == 2


@on_postgresql
def test_a_content_published_while_an_update_of_it_begins_is_counted_by_the_catalog_of_its_end(
    app: Flask, engine: Engine, listen: Listen, service: Callers, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["shapes"])
    changes: list[Future[TestResponse]] = []

    def interfere(statement: str) -> None:
        if "pg_advisory_xact_lock_shared" in statement and not changes:
            first = pool.submit(put_module, service(), "algebra", {"sums": 1, "shapes": 1})
            assert first.result(PATIENCE_SECONDS).status_code == 200
            changes.append(first)
        elif statement.startswith("SELECT") and "progress_records" in statement and len(changes) == 1:
            changes.append(pool.submit(put_module, service(), "algebra", {"sums": 3, "shapes": 1}))
            with suppress(AssertionError):  # when it has ended, the update had better not count by what it has read
                wait_for_waiting(engine, changes[1])

    listen(engine, "after", interfere)
    update = {"userId": "sam", "contentId": "sums", "progressPercentage": 100}
    response = service().post("/api/progress", json=update)

    assert response.status_code in {201, 422}
    assert [one.result(PATIENCE_SECONDS).status_code for one in changes] in ([200], [200, 200])
    assert_exact(app, engine)


@on_postgresql
def test_an_update_of_a_content_that_moves_meanwhile_is_recorded_where_it_arrives(
    app: Flask, engine: Engine, service: Callers, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums", "shapes"])
    post(service(), userId="sam", contentId="shapes", timeSpentSeconds=3)
    publish("algebra", ["sums"])
    with held(engine, published("geometry", {"shapes": 1})):
        updates = [
            pool.submit(post, service(), userId=one, contentId="shapes", progressPercentage=100, timeSpentSeconds=4)
            for one in ("sam", "kim")
        ]
        wait_for_waiting(engine, updates[1], 2)

    answers = [one.result(PATIENCE_SECONDS).get_json() for one in updates]
    assert [one["progress"]["moduleId"] for one in answers] == ["geometry"] * 2
    assert [one["enrollment"]["timeSpentSeconds"] for one in answers] == [7, 4]
    assert assert_exact(app, engine) == 3
    assert service().get("/api/enrollments/kim/algebra").status_code == 404


@on_postgresql
@pytest.mark.parametrize("content_id", ["shapes", "fresh"])
def test_of_two_modules_that_are_published_with_a_retired_or_new_content_the_later_is_refused(
    content_id: str, app: Flask, engine: Engine, service: Callers, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums", "shapes"])
    post(service(), userId="sam", contentId="shapes", timeSpentSeconds=3)
    publish("algebra", ["sums"])
    with held(engine, published("geometry", {content_id: 1})):
        second = pool.submit(put_module, service(), "arts", {content_id: 1})
        wait_for_waiting(engine, second)

    refused = second.result(PATIENCE_SECONDS)
    assert (refused.status_code, refused.get_json()["detail"]) == (409, "The content is current in module geometry.")
    assert_exact(app, engine)


@on_postgresql
def test_a_content_that_is_retired_while_it_begins_to_be_published_elsewhere_moves_there(
    app: Flask, engine: Engine, listen: Listen, service: Callers, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums", "shapes"])
    post(service(), userId="sam", contentId="sums", progressPercentage=10)
    post(service(), userId="sam", contentId="shapes", progressPercentage=100)
    retiring: list[Future[TestResponse]] = []

    def retire(statement: str) -> None:
        if statement.startswith("SELECT contents.id, contents.module_id, contents.retired") and not retiring:
            retiring.append(pool.submit(put_module, service(), "algebra", {"sums": 1}))
            assert retiring[0].result(PATIENCE_SECONDS).status_code == 200

    listen(engine, "after", retire)
    moved = put_module(service(), "geometry", {"shapes": 1})

    assert moved.status_code == 201
    assert view(service(), "sam", "geometry")["enrollment"]["status"] == "completed"
    assert view(service(), "sam", "algebra")["enrollment"]["progressPercentage"] == 10
    assert assert_exact(app, engine) == 2


@on_postgresql
def test_an_update_that_finds_no_enrollment_holds_off_the_one_that_comes_while_it_is_refused(
    app: Flask, database_url: str, engine: Engine, listen: Listen, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums"])
    enrolling: list[Future[TestResponse]] = []

    def enroll(statement: str) -> None:
        if statement.startswith("INSERT INTO enrollments") and not enrolling:
            caller = Caller(app, "service", "lms")
            enrolling.append(pool.submit(caller.put, "/api/enrollments/sam/algebra", json={}))
            wait_for_waiting(engine, enrolling[0])

    with application(database_url, AUTO_ENROLL=False) as strict:
        listen(engine_of(strict), "after", enroll)
        response = Caller(strict, "service", "lms").post("/api/progress", json={"userId": "sam", "contentId": "sums"})

    assert response.status_code == 403
    assert enrolling[0].result(PATIENCE_SECONDS).status_code == 201
    assert assert_exact(app, engine) == 1


@on_postgresql
def test_an_update_that_waits_for_an_erasure_does_not_enroll_the_learner_again_unasked(
    app: Flask, database_url: str, engine: Engine, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums"])
    with engine.begin() as connection:
        recorded("sam", "sums", 40)(connection)
    with application(database_url, AUTO_ENROLL=False) as strict:
        update = {"userId": "sam", "contentId": "sums"}
        with held(engine, partial(corrections.erase, user_id="sam", by=COMMAND, now=NOW)):
            late = pool.submit(Caller(strict, "service", "lms").post, "/api/progress", json=update)
            wait_for_waiting(engine, late)

        response = late.result(PATIENCE_SECONDS)
        assert response.status_code == 403
        assert response.get_json()["type"].endswith("not-enrolled")
    assert assert_exact(app, engine) == 0


@on_postgresql
def test_completing_a_record_that_was_just_replaced_by_another_is_refused(
    app: Flask, engine: Engine, service: Callers, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums"])
    record_id = post(service(), userId="sam", contentId="sums").get_json()["progress"]["id"]
    reset = partial(corrections.reset, key=EnrollmentKey("sam", "algebra"), by=COMMAND, now=NOW)
    with held(engine, reset, recorded("sam", "sums", 40)):
        late = pool.submit(service().put, f"/api/progress/{record_id}/complete")
        wait_for_waiting(engine, late)

    assert late.result(PATIENCE_SECONDS).status_code == 404
    assert view(service(), "sam", "algebra")["contents"][0]["progress"]["progressPercentage"] == 40
    assert assert_exact(app, engine) == 1


@on_postgresql
def test_a_reset_that_meets_an_erasure_leaves_what_comes_afterwards(
    app: Flask, engine: Engine, service: Callers, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums"])
    with engine.begin() as connection:
        recorded("sam", "sums", 100)(connection)
    with held(engine, partial(corrections.erase, user_id="sam", by=COMMAND, now=NOW), recorded("sam", "sums", 40)):
        late = pool.submit(service().delete, "/api/progress/sam/algebra")
        with engine.connect() as watch:  # it waits for a moment, and then in a transaction that begins after that
            wait_until(lambda: late.done() or waiting(watch) == 1)

    assert late.result(PATIENCE_SECONDS).status_code == 204
    # What it waited for is gone, and it has not locked what is there instead.
    assert view(service(), "sam", "algebra")["contents"][0]["progress"]["progressPercentage"] == 40
    assert assert_exact(app, engine) == 1


@on_postgresql
@pytest.mark.parametrize("when", ["before", "after"])
def test_whatever_a_learner_sends_while_they_are_erased_goes_whole_or_stays_whole(
    when: Literal["before", "after"],
    app: Flask,
    engine: Engine,
    listen: Listen,
    service: Callers,
    student: Callers,
    publish: Publish,
    pool: ThreadPoolExecutor,
) -> None:
    modules = ["sets", "maps", "rings"]
    for module_id in modules:
        publish(module_id, [f"content-of-{module_id}"])
    left, listings, late = iter(modules), count(), list[Future[None]]()

    def interfere(sent: str) -> None:
        if not sent.startswith("SELECT enrollments.module_id") or not (module_id := next(left, None)):
            return
        sending = pool.submit(study_all, student("sam"), [f"content-of-{module_id}"], module_id)
        if next(listings) % 2:  # the learner's modules are listed again when nobody may enroll the learner any more
            late.append(sending)
            wait_for_waiting(engine, sending)
        else:
            sending.result(PATIENCE_SECONDS)

    listen(engine, when, interfere)
    assert service().delete("/api/progress/sam").status_code == 204

    assert [one.result(PATIENCE_SECONDS) for one in late] == [None]
    found = traces(service(), "sam")
    assert when == "after" or found["records"] == {"maps"}
    assert len(set(map(frozenset, found.values()))) == 1, found
    assert_exact(app, engine)


@on_postgresql
@pytest.mark.parametrize("taking_away", ["erase", "merge"])
def test_who_is_being_enrolled_is_erased_and_merged_afterwards(
    taking_away: str, app: Flask, engine: Engine, service: Callers, publish: Publish, pool: ThreadPoolExecutor
) -> None:
    publish("algebra", ["sums"])
    with held(engine, recorded("sam", "sums", 100)):
        if taking_away == "erase":
            request = pool.submit(service().delete, "/api/progress/sam")
        else:
            request = pool.submit(service().post, "/api/progress/sam/merge", json={"into": "kim"})
        wait_for_waiting(engine, request)

    assert request.result(PATIENCE_SECONDS).status_code == 204
    assert traces(service(), "sam")["records"] == set()
    assert traces(service(), "kim")["records"] == ({"algebra"} if taking_away == "merge" else set())
    reader = Reader(app)
    reader.read_on()
    assert reader.told == known(engine)
    assert_exact(app, engine)


def damage(engine: Engine) -> None:
    """Let totals and tallies drift, as a fault of the service might."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE enrollments SET time_spent_seconds = time_spent_seconds + 7"))
        connection.execute(text("UPDATE enrollments SET weighted_sum = weighted_sum + 1"))
        connection.execute(text("DELETE FROM tallies WHERE kind IN ('status', 'day', 'content')"))


def test_repairs_at_once_repair_once(
    app: Flask, engine: Engine, database_url: str, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sums", "shapes"])
    publish("biology", ["cells"])
    contents = ("sums", "shapes", "cells")
    batch(service(), [{"userId": f"u{n}", "contentId": one} for n in range(5) for one in contents])
    statistics = service().get("/api/progress/stats/algebra").get_json()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM tallies"))
    nothing = NOTHING._asdict()
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "progress", "verify", "--repair"]
    env = os.environ | {"PROGRESS_SQLALCHEMY_DATABASE_URI": database_url, "PROGRESS_JWT_SECRET_KEY": KEY}
    with ExitStack() as running:
        with engine.connect() as connection:
            # A tally that each of them is about to make: they stop where they have counted, to go on together.
            connection.execute(
                insert(Tally).values(module_id="algebra", kind="content", item="shapes", part=0, **nothing)
            )
            repairs = [
                running.enter_context(subprocess.Popen(command, env=env, stdout=subprocess.PIPE)) for _ in range(3)
            ]
            for repair in repairs:
                assert repair.stdout
                assert b"algebra" in repair.stdout.readline()
            if connection.dialect.name == "postgresql":
                until_waiting(engine, 3, lambda: not any(repair.poll() for repair in repairs))
            connection.rollback()
        assert [repair.communicate()[0].splitlines()[-1][-14:] for repair in repairs] == [b" are repaired."] * 3

    assert service().get("/api/progress/stats/algebra").get_json() == statistics
    assert assert_exact(app, engine) == 10


def known(engine: Engine) -> Told:
    """Return what a reader of the journal must know."""
    record = ProgressRecord
    owner = record.user_id, record.content_id
    with engine.connect() as connection:
        enrollments = connection.execute(select(Enrollment)).all()
        completed = connection.execute(select(*owner).where(record.completed_at.is_not(None))).all()
        excused = connection.execute(select(*owner).where(record.excused_at.is_not(None))).all()
    return Told(
        {(one.user_id, one.module_id): (one.status, one.counted) for one in enrollments},
        {(one.user_id, one.content_id) for one in completed},
        {(one.user_id, one.content_id) for one in excused},
    )


CONTENTS = {"algebra": ["a", "b", "c"], "biology": ["x", "y"]}
OPERATIONS = {
    "report": ["update", "complete"],
    "batch": ["batch"],
    "enroll": ["enroll", "credit"],
    "excuse": ["excuse", "withdraw excuse"],
    "correct": ["remove", "correct"],
    "withdraw": ["reset", "withdraw"],
    "erase": ["erase"],
    "merge": ["merge"],
    "publish": ["publish"],
    "import": ["import updates", "import enrollments"],
    "repair": ["repair"],
}
IMPORTED: dict[str, tuple[importing.Kind, list[dict[str, Any]]]] = {
    "import updates": (cli.UPDATES, [{"userId": who, "contentId": one} for one in "abcxy" for who in ("kim", "lee")]),
    "import enrollments": (
        cli.ENROLLMENTS,
        [
            {"userId": who, "moduleId": module_id, "status": status}
            for status in ("paused", "dropped", "active")
            for module_id in ("algebra", "biology")
            for who in ("kim", "lee")
        ],
    ),
}
"""Files that grow."""
PAIRS = [pair for pair in combinations_with_replacement(OPERATIONS, 2) if pair != ("repair", "repair")]


def perform(kind: str, app: Flask, service: Caller) -> None:
    """Do something of a kind to one of two learners and one of two modules; nobody may be told that it has failed."""
    operation = random.choice(OPERATIONS[kind])
    learner, other = random.sample(["kim", "lee"], 2)
    module_id = random.choice(list(CONTENTS))
    content_id = random.choice(CONTENTS[module_id])
    enrollment, module = f"/api/enrollments/{learner}/{module_id}", f"/api/progress/{learner}/{module_id}"
    update = {"userId": learner, "progressPercentage": random.choice([60, 100]), "timeSpentSeconds": 3}
    session = {} if random.random() < 0.5 else {"session": "monday"}
    if operation == "repair":
        assert app.test_cli_runner().invoke(args=["progress", "verify", "--repair"]).exit_code in {0, 1}
        return
    if operation in IMPORTED:
        file_kind, lines = IMPORTED[operation]
        read = lines[: random.randint(1, len(lines))]
        source = importing.Source(BytesIO("\n".join(map(json.dumps, read)).encode()), file_kind)
        with app.app_context():
            list(importing.run(source, datetime.now(UTC)))
        return
    if operation in ("complete", "correct"):
        records = [one["progress"] for one in service.get(module).get_json()["contents"] if one["progress"]]
        record = f"/api/progress/{random.choice(records)['id']}" if records else "/api/progress/none"
    if operation == "update":
        response = service.post("/api/progress", json=update | session | {"contentId": content_id})
    elif operation == "batch":
        updates = [update | {"userId": one, "contentId": each} for one in (learner, other) for each in "abcxy"]
        random.shuffle(updates)
        response = service.post("/api/progress/batch", json={"updates": updates})
    elif operation == "complete":
        response = service.put(record + "/complete")
    elif operation == "enroll":
        given = {"status": random.choice(["active", "paused", "dropped"]), "counted": random.random() < 0.7}
        response = service.put(enrollment, json=given)
    elif operation == "credit":
        response = service.put(enrollment, json={"status": "completed", "completedAt": "2025-01-31T12:00:00Z"})
    elif operation == "excuse":
        response = service.put(f"{module}/{content_id}/excuse")
    elif operation == "withdraw excuse":
        response = service.delete(f"{module}/{content_id}/excuse")
    elif operation == "remove":
        response = service.delete(f"{module}/{content_id}")
    elif operation == "correct":
        given = {"progressPercentage": random.choice([30, 100]), "timeSpentSeconds": random.randrange(5)}
        response = service.patch(record, json=given)
    elif operation == "reset":
        response = service.delete(module)
    elif operation == "withdraw":
        response = service.delete(enrollment)
    elif operation == "erase":
        response = service.delete(f"/api/progress/{learner}")
    elif operation == "merge":
        response = service.post(f"/api/progress/{learner}/merge", json={"into": other})
    else:
        assert operation == "publish"
        contents = [
            {"id": one, "title": one, "type": "video", "completionThreshold": random.choice([60, 100])}
            for one in random.sample("abcxy", 2)
        ]
        response = service.put(f"/api/catalog/modules/{module_id}", json={"title": "A", "contents": contents})
    # A content may have moved, or be current elsewhere; a record may be gone.
    refusals = {"report": 404, "excuse": 404, "correct": 404, "publish": 409}
    assert response.status_code in {200, 201, 204, refusals.get(kind)}, (operation, response.text)


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_whatever_meets_whatever_every_figure_is_exact_afterwards_and_the_journal_tells_it_in_order(
    left: str, right: str, app: Flask, engine: Engine, service: Callers, publish: Publish
) -> None:
    for module_id, ids in CONTENTS.items():
        publish(module_id, ids)
    perform("batch", app, service())
    repairing = "repair" in (left, right)
    if repairing:
        damage(engine)
    calls = [partial(perform, one, app, service()) for one in (left, right)]

    together(calls if repairing else 2 * calls)

    assert drifts(app) == []
    if "merge" not in (left, right):  # after a merge, what was told of the first is told of the second
        reader = Reader(app)
        reader.read_on()
        assert reader.told == known(engine)


SETTLED = text("""
    SELECT settled_after, id, user_id FROM changes
    WHERE settled_after < CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT)
        AND (settled_after, id) > (:settled_after, :id)
    ORDER BY settled_after, id LIMIT 20
""")


class Feed:
    """A reader of all changes who goes on from the last place."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.place = {"settled_after": -1, "id": 0}
        self.ids: list[int] = []
        self.ids_of: dict[str, list[int]] = defaultdict(list)

    def read_on(self) -> int:
        """Read a page, and return how many changes it has."""
        with self.engine.connect() as connection:
            page = connection.execute(SETTLED, self.place).all()
        for settled_after, number, user_id in page:
            self.place = {"settled_after": settled_after, "id": number}
            self.ids.append(number)
            self.ids_of[user_id].append(number)
        return len(page)


@on_postgresql
def test_who_reads_on_while_others_write_gets_every_change_once_and_those_of_a_learner_in_order(
    app: Flask, engine: Engine, publish: Publish
) -> None:
    learners = [f"u{place}" for place in range(6)]
    for user_id in learners:  # each has a module, so that the tallies of one do not hold up another
        publish(f"module-of-{user_id}", [f"{user_id}-{number}" for number in range(60)])
    feed = Feed(engine)
    numbers = iter(range(60))

    def write() -> None:
        # Transactions that overlap in every way: each tells of some learners in turn, and waits for others.
        for number in numbers:
            in_transaction(app, partial(complete_in_turn, number=number))

    def complete_in_turn(connection: Connection, number: int) -> None:
        connection.execute(text("SELECT pg_current_xact_id()"))
        for user_id in sorted(random.sample(learners, 3)):
            recorded(user_id, f"{user_id}-{number}", 100)(connection)

    until_done(partial(together, [write] * 5), [feed.read_on])
    wait_until_settled(app)
    while feed.read_on():
        pass

    with engine.connect() as connection:
        written = connection.execute(select(Change.id)).scalars().all()
    assert sorted(feed.ids) == sorted(written)
    assert sum(len(feed.ids_of[user_id]) for user_id in learners) == len(learners) + 3 * 60
    assert all(ids == sorted(ids) for ids in feed.ids_of.values())


@on_postgresql
def test_a_change_can_be_read_once_its_transaction_has_ended_although_nobody_writes_any_more(
    app: Flask, engine: Engine, publish: Publish
) -> None:
    publish("algebra", ["sums", "shapes"])
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_current_xact_id()"))
        in_transaction(app, recorded("kim", "sums", 100))
        recorded("sam", "sums", 100)(connection)
        feed = Feed(engine)
        feed.read_on()
        assert not feed.ids_of.keys() & {"kim", "sam"}

    wait_until_settled(app)
    feed.read_on()
    assert {user_id: len(ids) for user_id, ids in feed.ids_of.items() if user_id} == {"kim": 2, "sam": 2}


@contextmanager
def served(database_url: str, log: Path) -> Iterator[int]:
    """Serve on a free port of the loopback with two worker processes, and return the port."""
    settings = {
        "PROGRESS_SQLALCHEMY_DATABASE_URI": database_url,
        "PROGRESS_JWT_SECRET_KEY": KEY,
        "WEB_CONCURRENCY": "2",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "python:progress_service.serving", "wsgi:app"]
    access = ["--access-logfile", "-", "--access-logformat", "served by %(p)s"]
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *access, "--bind", f"fd://{listener.fileno()}"],
            env=os.environ | settings,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
        )
        port = int(listener.getsockname()[1])
    try:
        yield port
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


MANY = [f"module{number}" for number in range(MOST_LOCKS + 1)]
"""More modules than a transaction locks one by one; each has a content of its name, and another one."""


def publish_many(weight: int) -> Callable[[Connection], object]:
    contents = {
        module_id: [
            PublishedContent(one, one, "video", None, each, 100, None)
            for one, each in ((module_id, weight), (f"{module_id}-more", 1))
        ]
        for module_id in MANY
    }
    modules = [PublishedModule(module_id, module_id, [], contents[module_id]) for module_id in MANY]
    return partial(publishing.publish_all, modules=modules, now=NOW, by=COMMAND)


def update_many(user_id: str, content_ids: Sequence[str] = MANY) -> Callable[[Connection], object]:
    updates = [Update(user_id, one, NOW, progress_percentage=100) for one in content_ids]
    return partial(recorder.record, updates=updates, auto_enroll=True, now=NOW)


def in_transaction(app: Flask, work: Callable[[Connection], object]) -> None:
    with app.app_context():
        database.write(work)


@on_postgresql
def test_a_transaction_takes_no_more_locks_for_more_modules(app: Flask, engine: Engine) -> None:
    # Those of tables and indexes are as many as there are, for one module too.
    mine = text("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype <> 'relation'")
    works: list[Callable[[Connection], object]] = [
        publish_many(1),
        publish_many(3),
        update_many("sam"),
        partial(recorder.enroll, changes=[EnrollmentChange("kim", one) for one in MANY], by=COMMAND, now=NOW),
        partial(corrections.merge, user_id="kim", into="eva", by=COMMAND, now=NOW),
        partial(corrections.erase, user_id="sam", by=COMMAND, now=NOW),
    ]
    for work in works:
        with engine.begin() as connection:
            work(connection)
            assert connection.execute(mine).scalar_one() <= MOST_LOCKS
    assert assert_exact(app, engine) == len(MANY)


@on_postgresql
@pytest.mark.parametrize("other", [publish_many(2), published("module7", {"module7": 2})])
def test_many_updates_hold_off_catalog_changes_and_no_updates(
    app: Flask,
    engine: Engine,
    service: Callers,
    publish: Publish,
    pool: ThreadPoolExecutor,
    other: Callable[[Connection], object],
) -> None:
    publish("biology", ["cells"])
    in_transaction(app, publish_many(1))
    with held(engine, update_many("sam")):
        change = pool.submit(in_transaction, app, other)
        wait_for_waiting(engine, change)
        assert post(service(), userId="kim", contentId="cells").status_code == 201
        assert not change.done()

    change.result(PATIENCE_SECONDS)
    assert assert_exact(app, engine) == len(MANY) + 1


@on_postgresql
@pytest.mark.parametrize("change", [publish_many(3), published("module7", {"module7": 3, "module7-more": 1})])
def test_many_updates_wait_for_a_catalog_change_and_read_the_new_catalog(
    app: Flask, engine: Engine, service: Callers, pool: ThreadPoolExecutor, change: Callable[[Connection], object]
) -> None:
    in_transaction(app, publish_many(1))
    with held(engine, change):
        updates = pool.submit(in_transaction, app, update_many("sam"))
        wait_for_waiting(engine, updates)

    updates.result(PATIENCE_SECONDS)
    assert view(service(), "sam", "module7")["enrollment"]["progressPercentage"] == 75
    assert assert_exact(app, engine) == len(MANY)


@on_postgresql
@pytest.mark.parametrize("work", [update_many("sam", ["module7"]), published("module7", {"module7": 2})])
def test_a_change_of_many_modules_waits_for_whoever_has_begun(
    app: Flask, engine: Engine, service: Callers, pool: ThreadPoolExecutor, work: Callable[[Connection], object]
) -> None:
    in_transaction(app, publish_many(1))
    with held(engine, work):
        change = pool.submit(in_transaction, app, publish_many(3))
        wait_for_waiting(engine, change)

    change.result(PATIENCE_SECONDS)
    document = service().get("/api/catalog/modules/module7").get_json()
    assert [one["weight"] for one in document["contents"]] == [3, 1]
    assert_exact(app, engine)


@on_postgresql
def test_whoever_comes_while_many_modules_change_waits_and_reads_the_new_catalog(
    app: Flask, engine: Engine, service: Callers, pool: ThreadPoolExecutor
) -> None:
    in_transaction(app, publish_many(1))
    for learner in ("sam", "kim", "eva"):
        post(service(), userId=learner, contentId="module7", progressPercentage=50)
    requests: dict[str, Callable[[], Any]] = {
        "update": partial(post, service(), userId="sam", contentId="module7", progressPercentage=100),
        "enrollment": partial(service().put, "/api/enrollments/ann/module7", json={}),
        "reset": partial(service().delete, "/api/progress/kim/module7"),
        "erasure": partial(service().delete, "/api/progress/eva"),
        "change": partial(put_module, service(), "module8", {"module8": 5}),
        "repair": partial(in_transaction, app, partial(verification.repair_tallies, module_id="module7")),
    }
    with held(engine, publish_many(3)):
        waiting: dict[str, Future[Any]] = {}
        for number, (name, request) in enumerate(requests.items(), 1):
            waiting[name] = pool.submit(request)
            wait_for_waiting(engine, waiting[name], number)
        assert view(service(), "sam", "module7")["enrollment"]["progressPercentage"] == 25  # nobody waits to read

    answers = {name: one.result(PATIENCE_SECONDS) for name, one in waiting.items()}
    assert answers["update"].get_json()["enrollment"]["progressPercentage"] == 75
    assert [answers[name].status_code for name in ("enrollment", "reset", "erasure", "change")] == [201, 204, 204, 200]
    assert service().get("/api/catalog/modules/module8").get_json()["contents"][0]["weight"] == 5
    assert assert_exact(app, engine) == 3


def send(port: int, update: dict[str, Any]) -> tuple[int, str]:
    """Send an update over the network; return the status and the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    headers = {"Authorization": f"Bearer {token('lms', 'service')}", "Content-Type": "application/json"}
    with closing(connection):
        connection.request("POST", "/api/progress", json.dumps(update), headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


def test_worker_processes_share_nothing_but_the_database(
    app: Flask, engine: Engine, database_url: str, service: Callers, publish: Publish, tmp_path: Path
) -> None:
    publish("algebra", ["sums", "shapes"])
    log = tmp_path / "log"
    places = count(1)

    def both_have_served() -> int:
        place = next(places)
        update = {"userId": f"u{place}", "contentId": "sums", "timeSpentSeconds": 3, "progressPercentage": 100}
        answers = together([partial(send, port, update)] * THREADS)
        assert Counter(status for status, _ in answers) == {201: 1, 200: THREADS - 1}, answers
        assert view(service(), f"u{place}", "algebra")["enrollment"]["timeSpentSeconds"] == 3 * THREADS
        workers = set(re.findall(r"served by (\S+)", log.read_text()))
        return place if place >= 5 and len(workers) == 2 else 0

    with served(database_url, log) as port:
        assert wait_until(both_have_served) == assert_exact(app, engine)
