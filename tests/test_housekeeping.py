"""What is kept for some time only goes afterwards, by itself, and no request feels it."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, Engine, event, func, insert, select, update

from progress_service.calculations import COMMAND, Update
from progress_service.store import corrections, database, housekeeping, journal, recorder
from progress_service.store.housekeeping import STEP, Purged
from progress_service.store.journal import CONTENT_COMPLETED, ERASED, PUBLISHED
from progress_service.store.learning import EnrollmentKey
from progress_service.store.models import Base, Change, Session, StoredAnswer
from tests.callers import Caller
from tests.conftest import Callers, Publish, application, empty, engine_of
from tests.progress.sending import send
from tests.waiting import wait_until

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
KEPT = {
    StoredAnswer: timedelta(hours=24),
    Session: timedelta(days=30),
    Change: timedelta(days=365, hours=1),
}
"""For how long the rows of each table are kept."""


@pytest.fixture(autouse=True)
def _record(publish: Publish, service: Callers) -> None:
    """Let sam have a record, to which sessions may belong."""
    publish("algebra", ["sets", "maps"])
    send(service(), "sets", userId="sam")


@pytest.fixture
def housekept(database_url: str) -> Iterator[Flask]:
    """An application that purges after a write, and then rests for a day."""
    with application(database_url, PURGE_SECONDS=86_400) as app:
        yield app


def store(engine: Engine, *ages: timedelta, now: datetime = NOW, names: Sequence[str] = ()) -> None:
    """Store an answer, a session and a change that is no history, for each age."""
    names = names or [str(age) for age in ages]
    rows: dict[type[Base], list[dict[str, Any]]] = {StoredAnswer: [], Session: [], Change: []}
    for name, age in zip(names, ages, strict=True):
        answer = {"caller_id": "lms", "key": name, "fingerprint": "", "status": 200, "body": b"{}"}
        session = {"user_id": "sam", "content_id": "sets", "session": name[-64:], "time_spent_seconds": 1}
        change = {"type": ERASED, "time": NOW, "user_id": name, "by_role": "command", "data": "{}"}
        rows[StoredAnswer].append(answer | {"stored_at": now - age})
        rows[Session].append(session | {"received_at": now - age})
        rows[Change].append(change | {"recorded_at": now - age, "settled_after": 0, "is_history": False})
    with engine.begin() as connection:
        for model, added in rows.items():
            connection.execute(insert(model), added)


def left(engine: Engine) -> dict[str, set[timedelta]]:
    """Return the ages of the rows that can expire, by table."""
    ats = {StoredAnswer: StoredAnswer.stored_at, Session: Session.received_at, Change: Change.recorded_at}
    with engine.connect() as connection:
        return {
            model.__tablename__: {NOW - at for (at,) in connection.execute(select(column)) if at <= NOW}
            for model, column in ats.items()
        }


def count(engine: Engine) -> Purged:
    """Count the rows that can expire, but for what tells of the catalog."""
    with engine.connect() as connection:
        numbers = [
            connection.execute(select(func.count()).select_from(StoredAnswer)).scalar_one(),
            connection.execute(select(func.count()).select_from(Session)).scalar_one(),
            connection.execute(select(func.count()).where(~Change.is_history, Change.type != PUBLISHED)).scalar_one(),
        ]
    return Purged(*numbers)


def purge(app: Flask, most: int = 1000, now: datetime = NOW) -> Purged:
    with app.app_context():
        return database.write(partial(housekeeping.purge, now=now, most=most))


def write(app: Flask) -> None:
    """Send an ordinary write, which stores nothing that expires."""
    send(Caller(app, "service", "lms"), "sets", userId="sam", timeSpentSeconds=1)


def test_what_is_as_old_as_it_is_kept_goes_and_what_is_younger_stays(app: Flask) -> None:
    engine = engine_of(app)
    ages = {age for kept in KEPT.values() for age in (kept - MOMENT, kept, kept + MOMENT)}
    store(engine, *ages)

    assert purge(app) == Purged(answers=8, sessions=5, changes=2)

    assert left(engine) == {model.__tablename__: {age for age in ages if age < kept} for model, kept in KEPT.items()}
    assert purge(app) == Purged(0, 0, 0)


def test_settings_say_for_how_long_sessions_and_changes_are_kept(database_url: str) -> None:
    with application(database_url, SESSION_DAYS=2, CHANGES_DAYS=3) as app:
        store(engine_of(app), *(timedelta(days=days, hours=1) for days in range(5)))

        assert purge(app) == Purged(answers=4, sessions=3, changes=2)


def test_the_history_of_an_enrollment_stays_however_old_until_it_is_withdrawn(app: Flask, service: Callers) -> None:
    send(service(), "sets", userId="sam", progressPercentage=100)
    with engine_of(app).begin() as connection:
        connection.execute(update(Change).filter_by(user_id="sam").values(recorded_at=NOW - timedelta(days=4000)))

    assert purge(app).changes == 0
    assert len(service().get("/api/progress/sam/algebra/history").get_json()["changes"]) == 2

    with app.app_context():
        withdraw = partial(corrections.withdraw, key=EnrollmentKey("sam", "algebra"), by=COMMAND)
        database.write(partial(withdraw, now=NOW - timedelta(days=400)))
    assert purge(app).changes == 3
    assert count(engine_of(app)).changes == 0


def test_the_oldest_go_first_and_no_more_than_allowed(app: Flask) -> None:
    days = [timedelta(days=day) for day in (400, 600, 500, 700)]
    store(engine_of(app), *days)

    assert purge(app, most=3) == Purged(3, 3, 3)

    assert left(engine_of(app)) == {model.__tablename__: {timedelta(days=400)} for model in KEPT}


def test_the_command_deletes_everything_that_has_expired_and_says_how_much(app: Flask) -> None:
    now = datetime.now(UTC)
    store(engine_of(app), *(timedelta(days=400, minutes=nth) for nth in range(2500)), now=now)
    store(engine_of(app), timedelta(days=300), timedelta(days=1), timedelta(hours=23), now=now)
    invoke = app.test_cli_runner().invoke

    result = invoke(args=["progress", "purge"])

    assert (result.exit_code, result.output) == (0, "2502 stored answers, 2501 sessions, 2500 changes deleted.\n")
    assert count(engine_of(app)) == Purged(1, 2, 3)
    assert invoke(args=["progress", "purge"]).output == "0 stored answers, 0 sessions, 0 changes deleted.\n"


def test_the_former_name_of_the_command_still_works_and_is_not_shown(app: Flask) -> None:
    invoke = app.test_cli_runner().invoke

    assert invoke(args=["progress", "purge-keys"]).output == "0 stored answers, 0 sessions, 0 changes deleted.\n"
    assert "purge-keys" not in invoke(args=["progress", "--help"]).output


def test_writes_delete_what_has_expired_in_small_steps_and_then_the_worker_rests(housekept: Flask) -> None:
    engine = engine_of(housekept)
    store(engine, *(timedelta(days=400, minutes=nth) for nth in range(2 * STEP + 1)))

    write(housekept)
    assert count(engine) == Purged(*3 * [STEP + 1])

    def is_clean() -> bool:
        write(housekept)
        left = count(engine)
        assert {STEP + 1, 1, 0} >= set(left), "each step is of one size"
        return not any(left)

    wait_until(is_clean)
    store(engine, timedelta(days=400))
    for _ in range(3):
        write(housekept)
    assert count(engine) == Purged(1, 1, 1)


def test_reads_and_refused_requests_purge_nothing(housekept: Flask) -> None:
    store(engine_of(housekept), timedelta(days=400))
    caller = Caller(housekept, "service", "lms")

    assert caller.get("/api/progress/sam").status_code == 200
    assert caller.call("HEAD", "/api/progress/sam").status_code == 200
    assert caller.post("/api/progress", json={"userId": "sam", "contentId": "unknown"}).status_code == 422

    assert count(engine_of(housekept)) == Purged(1, 1, 1)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/progress", {"userId": "sam", "contentId": "sets"}),
        ("POST", "/api/progress/batch", {"updates": [{"userId": "sam", "contentId": "sets"}]}),
        ("PUT", "/api/enrollments/sam/algebra", {}),
        ("PUT", "/api/catalog/modules/algebra", {"title": "Algebra", "contents": []}),
        ("DELETE", "/api/progress/nobody", None),
    ],
)
def test_every_kind_of_write_purges(method: str, path: str, body: Any, housekept: Flask) -> None:
    store(engine_of(housekept), timedelta(days=400))

    assert Caller(housekept, "service", "lms").call(method, path, json=body).status_code in {200, 204}

    assert count(engine_of(housekept)) == Purged(0, 0, 0)


def test_the_answer_is_sent_before_anything_is_purged(housekept: Flask) -> None:
    store(engine_of(housekept), timedelta(days=400))
    body = {"userId": "sam", "contentId": "sets"}

    response = Caller(housekept, "service", "lms").call("POST", "/api/progress", json=body, buffered=False)

    assert response.get_json()["progress"]["userId"] == "sam"
    assert count(engine_of(housekept)) == Purged(1, 1, 1)
    response.close()
    assert count(engine_of(housekept)) == Purged(0, 0, 0)


def test_no_write_purges_where_that_is_left_to_the_command(database_url: str) -> None:
    with application(database_url, PURGE_SECONDS=0) as app:
        store(engine_of(app), timedelta(days=400))

        write(app)

        assert count(engine_of(app)) == Purged(1, 1, 1)


def test_a_purge_that_fails_is_logged_and_fails_no_request(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with application(database_url, PURGE_SECONDS=86_400, LOG_FORMAT="text") as app:
        store(engine_of(app), timedelta(days=400))
        app.config["SESSION_DAYS"] = 10**9  # which no setting can be

        for status in ("active", "paused"):
            response = Caller(app, "service", "lms").put("/api/enrollments/sam/algebra", json={"status": status})
            assert (response.status_code, response.get_json()["status"]) == (200, status)

        warnings = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
        assert [line.partition(" - ")[2] for line in warnings] == ["nothing is purged after OverflowError"]
        assert engine_of(app).pool.checkedout() == 0  # type: ignore[attr-defined]
        assert count(engine_of(app)) == Purged(1, 1, 1)


@pytest.mark.parametrize("is_purged", [False, True])
def test_a_session_is_forgotten_on_time_whether_it_is_purged_or_not(is_purged: bool, app: Flask) -> None:
    def sit(seconds: int, now: datetime) -> int:
        told = Update("sam", "sets", now, time_spent_seconds=seconds, session="evening")
        with app.app_context():
            recorded = database.write(partial(recorder.record, updates=[told], auto_enroll=True, now=now))
        return recorded.steps[0].record.time_spent_seconds

    assert sit(50, NOW - timedelta(days=60)) == 50
    assert sit(60, NOW - timedelta(days=30)) == 110, "it was forgotten"
    assert sit(70, NOW - MOMENT) == 120, "it is known"
    if is_purged:
        assert purge(app).sessions == 0
        assert purge(app, now=NOW - MOMENT + timedelta(days=30)).sessions == 1
    assert sit(80, NOW - MOMENT + timedelta(days=30)) == 200


@pytest.mark.parametrize("is_purged", [False, True])
def test_a_merge_knows_of_no_session_that_is_forgotten(is_purged: bool, app: Flask, service: Callers) -> None:
    def sit(learner: str, seconds: int, now: datetime) -> None:
        told = Update(learner, "sets", now, time_spent_seconds=seconds, session="evening")
        with app.app_context():
            database.write(partial(recorder.record, updates=[told], auto_enroll=True, now=now))

    sit("kim", 50, NOW - timedelta(days=30))
    sit("sam", 60, NOW - MOMENT)
    sit("lee", 70, NOW - timedelta(days=30) + MOMENT)
    if is_purged:
        assert purge(app).sessions == 1
    with app.app_context():
        for learner in ("kim", "lee"):
            database.write(partial(corrections.merge, user_id=learner, into="sam", by=COMMAND, now=NOW))
    assert service().get("/api/progress/sam").get_json()["summary"]["timeSpentSeconds"] == 50 + 70


def plans(engine: Engine, work: Callable[[Connection], object]) -> dict[str, str]:
    """Do the work, and return the plan of each deletion and change in it."""
    sent: list[tuple[str, Any]] = []
    is_sqlite = engine.dialect.name == "sqlite"

    def note(*execution: Any) -> None:
        sent.append(execution[2:4])

    event.listen(engine, "before_cursor_execute", note)
    with engine.begin() as connection:
        work(connection)
        event.remove(engine, "before_cursor_execute", note)
        if not is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # which tables without rows would get
        explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
        return {
            sql: str(connection.exec_driver_sql(explain + sql, parameters).all())
            for sql, parameters in sent
            if "DELETE" in sql or "UPDATE" in sql
        }


def test_what_is_deleted_is_found_by_an_index(app: Flask) -> None:
    with app.app_context():
        found = plans(engine_of(app), partial(housekeeping.purge, now=NOW, most=STEP))
        indexes = ("ix_stored_answers_stored_at", "ix_sessions_received_at", "ix_changes_purge")
        assert [index in plan for index, plan in zip(indexes, found.values(), strict=True)] == [True] * 3, found

        found = plans(engine_of(app), partial(journal.forget, user_id="sam"))
        indexes = ("ix_changes_history", "ix_changes_merged", "ix_changes_by_another")
        assert [index in plan for index, plan in zip(indexes, found.values(), strict=True)] == [True] * 3, found


class TestOnPostgreSQL:
    """Several workers purge at the same time, and requests run meanwhile."""

    @pytest.fixture(autouse=True)
    def app(self, migrated_postgresql: Flask) -> Flask:
        empty(migrated_postgresql)
        return migrated_postgresql

    def test_rows_that_others_hold_are_left_without_waiting(self, app: Flask) -> None:
        engine = engine_of(app)
        store(engine, *(timedelta(days=400 + day) for day in range(3)), names=["one", "two", "three"])
        held = {"stored_answers": "key = 'two'", "sessions": "session = 'two'", "changes": "user_id = 'two'"}

        with engine.begin() as other:
            for table, row in held.items():
                assert len(other.exec_driver_sql(f"SELECT FROM {table} WHERE {row} FOR UPDATE").all()) == 1
            assert purge(app) == Purged(2, 2, 2)
        assert purge(app) == Purged(1, 1, 1)

    def test_two_that_purge_at_once_delete_different_rows(self, app: Flask) -> None:
        engine = engine_of(app)
        store(engine, *(timedelta(days=400 + day) for day in range(5)))

        with app.app_context(), engine.begin() as other:
            assert housekeeping.purge(other, now=NOW, most=3) == Purged(3, 3, 3)
            assert purge(app, most=3) == Purged(2, 2, 2)

    def test_a_session_that_is_told_again_meanwhile_stays(self, app: Flask) -> None:
        engine = engine_of(app)
        store(engine, timedelta(days=400))

        with engine.begin() as other:
            other.execute(update(Session).values(received_at=NOW))
            assert purge(app).sessions == 0
        assert purge(app).sessions == 0
        assert count(engine).sessions == 1


def test_changes_of_the_catalog_are_no_history(app: Flask) -> None:
    changes = [
        journal.Change(PUBLISHED, NOW, COMMAND, module_id="algebra"),
        journal.Change(CONTENT_COMPLETED, NOW, COMMAND, "sam", "algebra", "sets"),
    ]
    with app.app_context():
        database.write(partial(journal.write, changes=changes, now=NOW - KEPT[Change]))

    assert purge(app).changes == 1
