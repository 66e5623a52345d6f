"""The header Idempotency-Key: a request takes effect once, and its repeats get the answer that it got."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import Connection, Engine, event, func, select, text, update
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from progress_service.store.database import db
from progress_service.store.models import Enrollment, StoredAnswer
from tests.callers import Caller
from tests.conftest import Callers, Listen, Publish, application, applications
from tests.waiting import PATIENCE_SECONDS, wait_until

THREADS = 12
UPDATE = {"userId": "sam", "contentId": "sums", "progressPercentage": 40, "timeSpentSeconds": 60}
LONG_AGO = "2026-01-01T00:00:00Z"
ALGEBRA = {"title": "Algebra", "contents": [{"id": "sums", "title": "Sums", "type": "video", "weight": 3}]}

REQUESTS: dict[str, tuple[str, str, Any]] = {
    "a first update": ("POST", "/api/progress", UPDATE | {"contentId": "shapes"}),
    "an update": ("POST", "/api/progress", UPDATE),
    "a batch": ("POST", "/api/progress/batch", {"updates": [UPDATE, UPDATE | {"userId": "lee"}]}),
    "a completion": ("PUT", "/api/progress/{record}/complete", {"timeSpentSeconds": 5}),
    "a completion without a body": ("PUT", "/api/progress/{record}/complete", None),
    "a publication": ("PUT", "/api/catalog/modules/algebra", ALGEBRA),
    "a first publication": ("PUT", "/api/catalog/modules/calculus", {"title": "Calculus", "contents": []}),
    "an enrollment": ("PUT", "/api/enrollments/lee/algebra", {"status": "paused"}),
    "a change of an enrollment": ("PUT", "/api/enrollments/sam/algebra", {"status": "dropped"}),
    "a credit": ("PUT", "/api/enrollments/sam/algebra", {"status": "completed"}),
    "an excuse": ("PUT", "/api/progress/sam/algebra/shapes/excuse", None),
    "a merge": ("POST", "/api/progress/sam/merge", {"into": "lee"}),
}


@pytest.fixture(scope="module")
def patient_app() -> Iterator[Callable[[str], Flask]]:
    # All repeats may wait, which half of a pool may; the others soon give up where a machine is busy.
    patient = dict.fromkeys(("POOL_TIMEOUT", "LOCK_TIMEOUT", "STATEMENT_TIMEOUT"), PATIENCE_SECONDS)
    with applications(POOL_SIZE=2 * THREADS + 2, **patient) as made:
        yield made


@pytest.fixture
def app(database_url: str, patient_app: Callable[[str], Flask]) -> Flask:
    return patient_app(database_url)


@pytest.fixture
def engine(app: Flask) -> Engine:
    with app.app_context():
        return db.engine


@pytest.fixture
def record(publish: Publish, service: Callers) -> str:
    """Sam has begun the sums, and somebody else something else; return the id of sam's record."""
    publish("algebra", ["sums", "shapes"])
    publish("biology", ["cells"])
    post(service(), {"userId": "kim", "contentId": "cells", "timeSpentSeconds": 7})
    return str(post(service(), {"userId": "sam", "contentId": "sums"}).get_json()["progress"]["id"])


def send(caller: Caller, method: str, path: str, body: Any, key: str | None = "key") -> TestResponse:
    headers = {} if key is None else {"Idempotency-Key": key}
    return caller.call(method, path, headers=headers, **({} if body is None else {"json": body}))


def post(caller: Caller, body: Any, key: str | None = None) -> TestResponse:
    response = send(caller, "POST", "/api/progress", body, key)
    assert response.status_code in {200, 201}, response.text
    return response


def is_replay(response: TestResponse) -> bool:
    return response.headers.get("Idempotency-Replayed") == "true"


def assert_replays(repeat: TestResponse, first: TestResponse) -> None:
    assert (repeat.status_code, repeat.data, repeat.content_type) == (first.status_code, first.data, first.content_type)
    assert is_replay(repeat)
    assert "Idempotency-Replayed" not in first.headers


def assert_reused(response: TestResponse) -> None:
    assert response.status_code == 422
    assert response.content_type == "application/problem+json"
    assert response.get_json()["type"].endswith("idempotency-key-reused")


def everything(engine: Engine) -> dict[str, list[str]]:
    """Return every row of the database."""
    with engine.connect() as connection:
        return {table.name: sorted(map(repr, connection.execute(select(table)))) for table in db.metadata.sorted_tables}


def keys(engine: Engine) -> set[tuple[str, str]]:
    with engine.connect() as connection:
        return {(row.caller_id, row.key) for row in connection.execute(select(StoredAnswer))}


def time_of(engine: Engine, user_id: str) -> int:
    spent = select(func.coalesce(func.sum(Enrollment.time_spent_seconds), 0)).where(Enrollment.user_id == user_id)
    with engine.connect() as connection:
        return int(connection.execute(spent).scalar_one())


def age(engine: Engine, key: str, by: timedelta) -> None:
    with engine.begin() as connection:
        aged = update(StoredAnswer).where(StoredAnswer.key == key).values(stored_at=datetime.now(UTC) - by)
        assert connection.execute(aged).rowcount == 1


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_repeat_gets_the_first_answer_and_applies_nothing(
    kind: str, engine: Engine, service: Callers, publish: Publish, record: str
) -> None:
    method, path, body = REQUESTS[kind]
    path = path.format(record=record)
    first = send(service(), method, path, body)
    assert first.status_code in {200, 201, 204}, first.text
    # What has happened since is neither shown nor taken back by the repeats.
    publish("algebra", ["sums", "shapes", "proofs"])
    post(service(), UPDATE | {"timeSpentSeconds": 1})
    before = everything(engine)

    for _ in range(2):
        assert_replays(send(service(), method, path, body), first)
        assert everything(engine) == before


@pytest.mark.parametrize("kind", ["an update", "a batch", "a completion", "a publication", "an enrollment"])
def test_repeats_at_once_wait_for_the_first_and_get_its_answer(
    kind: str, engine: Engine, service: Callers, record: str
) -> None:
    method, path, body = REQUESTS[kind]
    start = Barrier(THREADS)

    def repeat(_: int) -> TestResponse:
        start.wait(PATIENCE_SECONDS)
        return send(service(), method, path.format(record=record), body)

    with ThreadPoolExecutor(THREADS) as threads:
        responses = list(threads.map(repeat, range(THREADS)))

    (first,) = (one for one in responses if not is_replay(one))
    assert first.status_code in {200, 201, 204}, first.text
    for one in responses:
        if one is not first:
            assert_replays(one, first)
    assert time_of(engine, "sam") == {"an update": 60, "a batch": 60, "a completion": 5}.get(kind, 0)
    assert keys(engine) == {("lms", "key")}


@pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
def test_repeats_wait_while_the_first_request_is_held_up(engine: Engine, service: Callers, record: str) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with ThreadPoolExecutor(THREADS) as threads:
        with engine.begin() as other:
            other.execute(text("LOCK TABLE enrollments IN EXCLUSIVE MODE"))
            requests = [threads.submit(post, service(), UPDATE, "key") for _ in range(THREADS)]
            wait_until(lambda: other.execute(waiting).scalar_one() >= THREADS)
            assert not any(request.done() for request in requests)
        responses = [request.result(PATIENCE_SECONDS) for request in requests]

    assert sum(map(is_replay, responses)) == THREADS - 1
    assert len({response.data for response in responses}) == 1
    assert time_of(engine, "sam") == 60


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/progress", b'{"userId": "sam", "contentId": "sums", "timeSpentSeconds": 61}'),
        ("POST", "/api/progress", b'{"userId": "sam", "contentId": "sums", "timeSpentSeconds": 60 }'),
        ("POST", "/api/progress/batch", b'{"updates": [{"userId": "sam", "contentId": "sums"}]}'),
        ("PUT", "/api/progress/{record}/complete", b'{"timeSpentSeconds": 60}'),
        ("PUT", "/api/enrollments/sam/algebra", b"{}"),
        ("PUT", "/api/catalog/modules/calculus", b'{"title": "Calculus", "contents": []}'),
    ],
    ids=["body", "a byte of the body", "batch", "completion", "enrollment", "publication"],
)
def test_a_key_that_was_given_to_another_request_is_refused(
    method: str, path: str, body: bytes, engine: Engine, service: Callers, record: str
) -> None:
    key = {"Idempotency-Key": "key", "Content-Type": "application/json"}
    said = b'{"userId": "sam", "contentId": "sums", "timeSpentSeconds": 60}'
    first = service().post("/api/progress", data=said, headers=key)
    before = everything(engine)

    assert_reused(service().call(method, path.format(record=record), data=body, headers=key))

    assert everything(engine) == before
    assert_replays(service().post("/api/progress", data=said, headers=key), first)


def test_a_key_that_was_given_to_another_record_or_module_is_refused(
    engine: Engine, service: Callers, record: str
) -> None:
    other = post(service(), UPDATE | {"contentId": "cells"}).get_json()["progress"]["id"]
    assert send(service(), "PUT", f"/api/progress/{record}/complete", None, "a").status_code == 200
    assert send(service(), "PUT", "/api/enrollments/lee/algebra", {}, "b").status_code == 201
    before = everything(engine)

    assert_reused(send(service(), "PUT", f"/api/progress/{other}/complete", None, "a"))
    assert_reused(send(service(), "PUT", "/api/enrollments/lee/biology", {}, "b"))

    assert everything(engine) == before


def test_a_key_is_its_callers_own(engine: Engine, service: Callers, student: Callers, record: str) -> None:
    callers = [service(), service("crm"), student(), student("kim")]
    responses = [
        post(caller, {"contentId": "sums", "timeSpentSeconds": 60, "userId": user_id}, "key")
        for caller, user_id in zip(callers, ["sam", "sam", "sam", "kim"], strict=True)
    ]

    assert not any(map(is_replay, responses))
    assert time_of(engine, "sam") == 180
    assert time_of(engine, "kim") == 67
    assert keys(engine) == {(caller.sub, "key") for caller in callers}


WITHDRAWN: dict[str, tuple[str, str, Any, int]] = {
    kind: (*request, 404 if "{record}" in request[1] else 403) for kind, request in REQUESTS.items()
} | {
    "an update with a time": ("POST", "/api/progress", UPDATE | {"userId": "kim", "occurredAt": LONG_AGO}, 403),
    "a batch with a time": (
        "POST",
        "/api/progress/batch",
        {"updates": [{"contentId": "sums", "occurredAt": LONG_AGO}]},
        403,
    ),
}


@pytest.mark.parametrize("kind", WITHDRAWN)
@pytest.mark.parametrize("role", ["student", "instructor"])
def test_nothing_is_replayed_to_who_has_lost_the_right_to_it(
    kind: str, role: str, engine: Engine, app: Flask, admin: Callers, record: str
) -> None:
    method, path, body, status = WITHDRAWN[kind]
    path = path.format(record=record)
    first = send(admin("kim"), method, path, body)
    assert first.status_code in {200, 201, 204}, first.text
    before = everything(engine)

    for key in ("key", None, "another"):
        refused = send(Caller(app, role, "kim"), method, path, body, key)
        assert (refused.status_code, refused.content_type) == (status, "application/problem+json"), refused.text
        assert not is_replay(refused)
    exported = Caller(app, role, "kim").get("/api/progress/kim/export")
    (answer,) = exported.get_json()["storedAnswers"]
    assert answer["idempotencyKey"] == "key"
    assert "sam" not in exported.text
    assert "lee" not in exported.text
    assert everything(engine) == before
    assert_replays(send(admin("kim"), method, path, body), first)


def test_the_right_to_ones_own_answers_outlives_a_record(
    engine: Engine, service: Callers, student: Callers, record: str
) -> None:
    path = f"/api/progress/{record}/complete"
    first = send(student(), "PUT", path, None)
    assert first.status_code == 200
    assert service().delete("/api/progress/sam/algebra").status_code == 204

    assert_replays(send(student(), "PUT", path, None), first)
    assert send(student(), "PUT", path, None, "another").status_code == 404


def test_keys_differ_in_every_character_and_case(engine: Engine, service: Callers, record: str) -> None:
    for key in ("key", "Key", "key.", "!", "~" * 255, "~" * 254, "a,b"):
        assert not is_replay(post(service(), UPDATE, key))
        assert is_replay(post(service(), UPDATE, key))
    assert time_of(engine, "sam") == 7 * 60


@pytest.mark.parametrize(
    ("status", "method", "path", "body"),
    [
        (400, "POST", "/api/progress", [UPDATE]),
        (400, "POST", "/api/progress?unknown=1", UPDATE),
        (403, "POST", "/api/progress", UPDATE | {"userId": "kim"}),
        (404, "PUT", "/api/progress/nothing/complete", {}),
        (409, "PUT", "/api/progress/{exam}/complete", {"score": 1, "maxScore": 10}),
        (422, "POST", "/api/progress", UPDATE | {"timeSpentSeconds": -1}),
        (422, "POST", "/api/progress", UPDATE | {"contentId": "nowhere"}),
        (422, "POST", "/api/progress/batch", {"updates": [UPDATE, UPDATE | {"contentId": "nowhere"}]}),
    ],
)
def test_a_refusal_stores_nothing_and_the_corrected_request_has_the_key(
    status: int, method: str, path: str, body: Any, engine: Engine, student: Callers, publish: Publish, record: str
) -> None:
    publish("chemistry", [{"id": "exam", "passingScore": 50}])
    exam = post(student(), {"contentId": "exam"}).get_json()["progress"]["id"]
    before = everything(engine)

    for _ in range(2):
        refused = send(student(), method, path.format(exam=exam), body)
        assert refused.status_code == status
        assert not is_replay(refused)
        assert everything(engine) == before

    assert not is_replay(post(student(), UPDATE, "key"))
    assert is_replay(post(student(), UPDATE, "key"))
    assert time_of(engine, "sam") == 60


@pytest.mark.parametrize(
    ("kind", "key"),
    [("an update", key) for key in ("", " ", "a b", "x" * 256, "caf\xe9", "a\tb", "\x7f")]
    + [(kind, "a b") for kind in ("a batch", "a completion", "a publication", "an enrollment")],
)
def test_a_key_of_another_form_is_malformed(kind: str, key: str, engine: Engine, service: Callers, record: str) -> None:
    method, path, body = REQUESTS[kind]
    before = everything(engine)

    for given in (body, {"surplus": 1}):
        response = send(service(), method, path.format(record=record), given, key)
        assert response.status_code == 400
        assert response.get_json()["type"].endswith("malformed-request")
    assert everything(engine) == before


def test_a_key_is_good_for_24_hours(engine: Engine, service: Callers, record: str) -> None:
    first = post(service(), UPDATE, "key")
    post(service(), UPDATE, "other")
    age(engine, "key", timedelta(hours=23, minutes=59))
    assert_replays(post(service(), UPDATE, "key"), first)
    assert_reused(send(service(), "PUT", "/api/enrollments/lee/algebra", {}))

    age(engine, "key", timedelta(hours=24))
    again = send(service(), "PUT", "/api/enrollments/lee/algebra", {})
    assert again.status_code == 201
    assert_replays(send(service(), "PUT", "/api/enrollments/lee/algebra", {}), again)
    assert is_replay(post(service(), UPDATE, "other"))
    assert time_of(engine, "sam") == 120


def test_purging_keys_removes_those_that_no_repeat_can_use(
    app: Flask, engine: Engine, service: Callers, record: str
) -> None:
    for key, hours in {"young": 0, "old": 23.9, "older": 24, "oldest": 1000}.items():
        post(service(), UPDATE, key)
        age(engine, key, timedelta(hours=hours))
    before = time_of(engine, "sam")

    assert app.test_cli_runner().invoke(args=["progress", "purge"]).exit_code == 0

    assert keys(engine) == {("lms", "young"), ("lms", "old")}
    assert time_of(engine, "sam") == before


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_purging_keys_has_the_time_of_commands(empty_database_url: str) -> None:
    slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.2); RETURN NULL; END'"
    trigger = "CREATE TRIGGER slow BEFORE DELETE ON stored_answers EXECUTE FUNCTION slow()"
    with application(empty_database_url, STATEMENT_TIMEOUT=1) as app:
        with app.app_context():
            upgrade()
            with db.engine.begin() as connection:
                connection.exec_driver_sql(slow)
                connection.exec_driver_sql(trigger)

        assert app.test_cli_runner().invoke(args=["progress", "purge"]).exit_code == 0


def test_erasing_a_learner_erases_the_answers_that_are_theirs_or_name_them(
    engine: Engine, service: Callers, student: Callers, admin: Callers, record: str
) -> None:
    theirs = [
        (student(), "POST", "/api/progress", UPDATE),
        (student(), "POST", "/api/progress/batch", {"updates": [UPDATE]}),
        (service(), "POST", "/api/progress", UPDATE),
        (service(), "PUT", f"/api/progress/{record}/complete", None),
        (admin(), "PUT", "/api/enrollments/sam/algebra", {"status": "paused"}),
        (admin(), "PUT", "/api/catalog/modules/algebra", ALGEBRA | {"instructorIds": ["ines", "sam"]}),
    ]
    others = [
        (student("kim"), "POST", "/api/progress", UPDATE | {"userId": "kim"}),
        (service(), "POST", "/api/progress", UPDATE | {"userId": "samantha"}),
        (service(), "POST", "/api/progress/batch", {"updates": [UPDATE]}),
        (service(), "PUT", "/api/catalog/modules/algebra", ALGEBRA | {"instructorIds": ["samantha", "Sam", "s_m"]}),
        (admin(), "PUT", "/api/enrollments/lee/algebra", {}),
    ]
    for place, request in enumerate([*theirs, *others]):
        assert send(*request, key=f"key{place}").status_code in {200, 201}

    assert service().delete("/api/progress/sam").status_code == 204

    assert keys(engine) == {(caller.sub, f"key{place}") for place, (caller, *_) in enumerate(others, len(theirs))}
    assert b"sam" not in b"".join(bodies(engine)).replace(b"samantha", b"")
    assert not is_replay(send(*theirs[0], key="key0"))
    assert time_of(engine, "sam") == 60


def bodies(engine: Engine) -> list[bytes]:
    with engine.connect() as connection:
        return list(connection.execute(select(StoredAnswer.body)).scalars())


def test_resetting_a_module_keeps_what_has_taken_effect(engine: Engine, service: Callers, record: str) -> None:
    first = post(service(), UPDATE, "key")
    assert service().delete("/api/progress/sam/algebra").status_code == 204

    assert_replays(post(service(), UPDATE, "key"), first)
    assert time_of(engine, "sam") == 0


@pytest.mark.parametrize("key", ["key", "not a key"])
def test_a_key_is_without_effect_where_nothing_is_posted_or_put(
    key: str, engine: Engine, service: Callers, record: str
) -> None:
    first = send(service(), "GET", "/api/progress/sam", None, key)
    post(service(), UPDATE)
    second = send(service(), "GET", "/api/progress/sam", None, key)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.get_json()["summary"]["timeSpentSeconds"] == 0
    assert second.get_json()["summary"]["timeSpentSeconds"] == 60

    for _ in range(2):
        assert send(service(), "DELETE", "/api/progress/sam/algebra", None, key).status_code == 204
        assert time_of(engine, "sam") == 0
        sams = post(service(), UPDATE).get_json()["progress"]["id"]
        assert send(service(), "PATCH", f"/api/progress/{sams}", {"timeSpentSeconds": 1}, key).status_code == 200
        assert time_of(engine, "sam") == 1

    assert not is_replay(second)
    assert keys(engine) == set()


def fail_to_commit(engine: Engine, listen: Listen, failing: list[str]) -> None:
    @event.listens_for(engine, "commit")
    def fail(_: Connection) -> None:
        if failing:
            raise OperationalError("COMMIT", {}, Exception("the disk is full"))


def fail_to_store_the_answer(engine: Engine, listen: Listen, failing: list[str]) -> None:
    def fail(statement: str) -> None:
        if failing and statement.startswith("INSERT INTO stored_answers"):
            raise OperationalError(statement, {}, Exception("the disk is full"))

    listen(engine, "before", fail)


@pytest.mark.parametrize("fail", [fail_to_commit, fail_to_store_the_answer])
@pytest.mark.parametrize("kind", ["a first update", "a batch", "a completion", "a publication", "an enrollment"])
def test_the_effect_and_its_answer_are_stored_together_or_not_at_all(
    kind: str, fail: Callable[..., None], engine: Engine, listen: Listen, service: Callers, record: str
) -> None:
    method, path, body = REQUESTS[kind]
    path = path.format(record=record)
    before = everything(engine)
    failing: list[str] = []
    fail(engine, listen, failing)
    failing.append("until it is cleared")

    assert send(service(), method, path, body).status_code == 503
    failing.clear()
    assert everything(engine) == before

    repeat = send(service(), method, path, body)
    assert repeat.status_code in {200, 201}
    assert everything(engine) != before
    assert_replays(send(service(), method, path, body), repeat)


def test_a_repeat_after_a_commit_whose_answer_was_lost_gets_the_answer(
    engine: Engine, service: Callers, record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, commit = engine.dialect.loaded_dbapi, engine.dialect.do_commit

    def commit_and_vanish(connection: Any) -> None:
        commit(connection)
        raise driver.OperationalError("the server has gone away")

    monkeypatch.setattr(engine.dialect, "do_commit", commit_and_vanish)
    assert send(service(), "POST", "/api/progress", UPDATE).status_code == 503
    monkeypatch.undo()

    assert is_replay(post(service(), UPDATE, "key"))
    assert time_of(engine, "sam") == 60
