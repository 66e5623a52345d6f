"""Real faults of the database: requests end in bounded time, are not applied by halves, and go on when it is back."""

import json
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Event, Semaphore
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import Connection, event, make_url, text
from werkzeug.test import TestResponse

from progress_service.store import connections, database
from progress_service.store.database import db
from tests.callers import Caller
from tests.conftest import Listen, application, empty, engine_of, migrate
from tests.postgres import POOLERS, PostgresServer
from tests.waiting import PATIENCE_SECONDS, wait_until

POOL_SIZE = 4
LONG_SECONDS = 1 + connections.GRACE_SECONDS + 0.5
"""Longer than an answer is waited for, if a statement may take a second."""
PATIENT = {"POOL_SIZE": POOL_SIZE, "LOCK_TIMEOUT": PATIENCE_SECONDS, "STATEMENT_TIMEOUT": PATIENCE_SECONDS}
UPDATE = {"userId": "sam", "contentId": "sums", "progressPercentage": 40, "timeSpentSeconds": 60}

on_postgresql = pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("usual_app", ["sqlite"], indirect=True)


@contextmanager
def school(url: str, **settings: Any) -> Iterator[tuple[Flask, Caller]]:
    """Make the application with two modules, in which sam and kim have begun, and somebody who calls it."""
    with application(url, **settings) as app:
        service = Caller(app, "service", "lms")
        for module_id, content_id in {"algebra": "sums", "biology": "cells"}.items():
            contents = [{"id": content_id, "title": content_id, "type": "video"}]
            module = {"title": module_id, "contents": contents}
            assert service.put(f"/api/catalog/modules/{module_id}", json=module).status_code == 201
        for user_id in ("sam", "kim"):
            assert post(service, userId=user_id, progressPercentage=0).status_code == 201
        yield app, service


def post(caller: Caller, **others: Any) -> TestResponse:
    response: TestResponse = caller.post("/api/progress", json=UPDATE | others)
    return response


def assert_unavailable(response: TestResponse) -> None:
    assert response.status_code == 503, response.text
    assert response.content_type == "application/problem+json"
    assert response.get_json()["type"].endswith("unavailable")
    assert int(response.headers["Retry-After"]) > 0


def assert_unavailable_within(seconds: float, call: Callable[[], TestResponse]) -> None:
    """Give the call many times what it may take, for a machine that is busy, but less than any other timeout."""
    began = time.monotonic()
    assert_unavailable(call())
    assert time.monotonic() - began < 20 * seconds


def time_of(caller: Caller, user_id: str = "sam") -> int:
    return int(caller.get(f"/api/progress/{user_id}").get_json()["summary"]["timeSpentSeconds"])


def use_the_whole_pool(service: Caller, size: int = POOL_SIZE, of: str | None = None) -> None:
    """Call so many at once that the pool keeps as many connections as it may, to the primary or to replicas."""
    start = Barrier(size)
    with service.app.app_context():
        engine = db.engines[of]

    def hold(_: int) -> None:
        with engine.connect():
            start.wait(PATIENCE_SECONDS)

    with ThreadPoolExecutor(size) as threads:
        list(threads.map(hold, range(size)))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(durable=True) as server:
        migrate(server.url)
        yield server


def clear(server: PostgresServer) -> None:
    with application(server.url) as app:
        empty(app)


@pytest.mark.parametrize("ends", [PostgresServer.crash, PostgresServer.stop])
def test_the_service_outlives_a_database_that_goes_away_and_comes_back(
    ends: Callable[[PostgresServer], None], server: PostgresServer
) -> None:
    clear(server)
    with school(server.url, POOL_SIZE=POOL_SIZE) as (_, service):
        assert post(service).status_code == 200
        use_the_whole_pool(service)

        ends(server)
        try:
            for _ in range(2):
                assert_unavailable_within(1, lambda: post(service))
                assert_unavailable_within(1, lambda: service.get("/api/progress/sam"))
                assert_unavailable_within(1, lambda: service.get("/readyz"))
                assert service.get("/healthz").status_code == 200
        finally:
            server.start()

        # Not one of the connections that have died in the pool reaches a caller.
        assert [post(service).status_code for _ in range(POOL_SIZE + 1)] == [200] * (POOL_SIZE + 1)
        assert service.get("/readyz").status_code == 200
        assert time_of(service) == (POOL_SIZE + 3) * 60
        assert time_of(service, "kim") == 60


@pytest.mark.parametrize("by", ["setting", "URL", "environment"])
def test_a_database_that_accepts_connections_and_says_nothing_is_not_waited_for(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "environment":
        monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/postgres"
        url += "?connect_timeout=2" if by == "URL" else ""
        with application(url, CONNECT_TIMEOUT=2 if by == "setting" else PATIENCE_SECONDS) as app:
            assert_unavailable_within(2, lambda: post(Caller(app, "service", "lms")))


@pytest.mark.parametrize("mode", ["straight", *POOLERS])
def test_a_database_that_falls_silent_is_given_up_and_used_again_when_it_speaks(
    mode: str, server: PostgresServer
) -> None:
    clear(server)
    settings = {"POOL_SIZE": POOL_SIZE, "STATEMENT_TIMEOUT": 1, "CONNECT_TIMEOUT": 2}
    url = nullcontext(server.url) if mode == "straight" else server.pooled(mode)
    with url as database_url, school(database_url, **settings) as (_, service):
        use_the_whole_pool(service)
        with server.frozen():
            assert_unavailable_within(8, lambda: post(service))
            assert_unavailable_within(8, lambda: service.get("/api/progress/sam"))
            assert_unavailable_within(8, lambda: service.get("/readyz"))
            assert service.get("/metrics").status_code == 200
            assert service.get("/healthz").status_code == 200

        wait_until(lambda: service.get("/readyz").status_code == 200)
        assert [post(service).status_code for _ in range(POOL_SIZE + 1)] == [200] * (POOL_SIZE + 1)
        assert time_of(service) == (POOL_SIZE + 2) * 60


def test_a_probe_does_not_wait_as_long_as_a_statement_may_take(server: PostgresServer) -> None:
    with application(server.url, STATEMENT_TIMEOUT=3600, CONNECT_TIMEOUT=2) as app:
        caller = Caller(app)
        assert caller.get("/readyz").status_code == 200
        with server.frozen():
            assert_unavailable_within(8, lambda: caller.get("/readyz"))


def test_a_connection_that_may_be_lost_is_not_asked_for_long(server: PostgresServer) -> None:
    clear(server)
    with school(server.url, STATEMENT_TIMEOUT=3600, CONNECT_TIMEOUT=2, POOL_SIZE=2) as (app, service):
        use_the_whole_pool(service, 2)
        with engine_of(app).connect() as connection:
            connection.invalidate()  # so that the other is asked first
        with server.frozen():
            assert_unavailable_within(8, lambda: service.get("/api/progress/sam"))


@pytest.mark.parametrize("path", ["/api/progress", "/api/progress/batch"])
def test_what_a_silent_database_commits_late_counts_once(path: str, server: PostgresServer, listen: Listen) -> None:
    clear(server)
    body = UPDATE if path == "/api/progress" else {"updates": [UPDATE]}
    with school(server.url, STATEMENT_TIMEOUT=1, CONNECT_TIMEOUT=2) as (app, service), ExitStack() as silence:
        falling = ["once"]

        def fall_silent(statement: str) -> None:
            if "INSERT INTO tallies" in statement and falling:
                falling.pop()
                silence.enter_context(server.frozen())

        def send() -> TestResponse:
            response: TestResponse = service.post(path, json=body, headers={"Idempotency-Key": "a-key"})
            return response

        listen(engine_of(app), "before", fall_silent)
        assert_unavailable(send())
        assert not falling
        silence.close()
        wait_until(lambda: send().status_code == 200)
        assert send().headers["Idempotency-Replayed"] == "true"
        assert time_of(service) == 120


def test_only_one_thread_waits_for_a_database_that_accepts_no_connection() -> None:
    size = 8
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(size) as threads:
        url = f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/postgres"
        with application(url, CONNECT_TIMEOUT=2, POOL_SIZE=size) as app:
            caller = Caller(app, "service", "lms")
            assert_unavailable(post(caller))
            for response in threads.map(lambda _: caller.get("/api/progress/sam"), range(size)):
                assert_unavailable(response)
        silent.setblocking(False)
        tried = 0
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                tried += 1
        assert 1 < tried < size


@on_postgresql
def test_connections_that_were_closed_while_they_were_idle_are_replaced_unnoticed(database_url: str) -> None:
    with school(named(database_url), POOL_SIZE=POOL_SIZE) as (_, service):
        use_the_whole_pool(service)
        close_connections(database_url)

        assert [post(service).status_code for _ in range(POOL_SIZE)] == [200] * POOL_SIZE
        close_connections(database_url)
        assert time_of(service) == (POOL_SIZE + 1) * 60


def named(url: str) -> str:
    """Return a URL whose connections can be told from those of others."""
    return make_url(url).update_query_dict({"application_name": "school"}).render_as_string(hide_password=False)


def close_connections(url: str) -> None:
    """Close those that `named` has named, and return when they are gone."""
    close = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'school'"
    with application(url) as app, app.app_context(), db.engine.connect() as connection:
        closed = connection.execute(text(close)).scalars().all()
    assert closed
    assert all(closed)


@on_postgresql
def test_a_cut_connection_costs_one_and_the_limit_holds(database_url: str) -> None:
    def opened() -> set[int]:
        found = execute(database_url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'school'")
        return {pid for (pid,) in found}

    def cut(pid: int) -> None:
        execute(database_url, f"SELECT pg_terminate_backend({pid}, 60000)")

    with school(named(database_url), POOL_SIZE=POOL_SIZE, POOL_TIMEOUT=PATIENCE_SECONDS) as (_, service):
        use_the_whole_pool(service)
        before = opened()
        cut(min(before))
        assert [post(service).status_code for _ in range(2 * POOL_SIZE)] == [200] * 2 * POOL_SIZE
        assert (len(before), len(opened() - before), len(opened())) == (POOL_SIZE, 1, POOL_SIZE)

        over = Event()
        with ThreadPoolExecutor(POOL_SIZE) as threads:
            work = [threads.submit(repeat, over, service, user_id) for user_id in ("sam", "kim", "lee", "max")]
            try:
                for _ in range(50):
                    pids = opened()
                    assert len(pids) <= POOL_SIZE
                    cut(max(pids, default=0))
            finally:
                over.set()
            answers = Counter(status for one in work for status in one.result(PATIENCE_SECONDS))
        assert set(answers) <= {200, 201, 503}  # a commit that is cut is not answered
        assert answers[200] > answers[503]
        # The last may have been cut while it was idle: then nobody knows before it is used.
        assert [post(service).status_code for _ in range(POOL_SIZE)] == [200] * POOL_SIZE
        use_the_whole_pool(service)
        assert len(opened()) == POOL_SIZE


def repeat(over: Event, caller: Caller, user_id: str) -> list[int]:
    """Send updates until it is over; return how they were answered."""
    statuses = []
    while not over.is_set():
        statuses.append(post(caller, userId=user_id).status_code)
    return statuses


def test_a_column_that_gets_another_type_under_prepared_statements_is_not_noticed(server: PostgresServer) -> None:
    paths = ["sam", "sam/algebra", "sam/export", "stats/algebra", "stats/algebra/learners"]
    columns = [
        ("contents", "title"),
        ("modules", "title"),
        ("enrollments", "user_id"),
        ("progress_records", "position"),
    ]
    clear(server)
    with school(server.url, POOL_SIZE=8) as (_, service):

        def call() -> set[int]:
            statuses = [service.get(f"/api/progress/{path}").status_code for path in paths]
            return {*statuses, post(service).status_code}

        use_the_whole_pool(service, 8)
        for _ in range(8 * 6):  # each connection prepares what it has executed five times
            assert call() == {200}
        for table, column in columns:
            execute(server.url, f"ALTER TABLE {table} ALTER {column} TYPE varchar(400)")
        assert [call() for _ in range(8)] == [{200}] * 8


def execute(url: str, command: str) -> list[Any]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(command)
        return cursor.fetchall() if cursor.description else []


@on_postgresql
def test_a_connection_that_breaks_in_the_middle_is_tried_again_and_applied_once(
    database_url: str, listen: Listen
) -> None:
    with school(named(database_url)) as (app, service):
        breaking = ["once"]

        def disconnect(statement: str) -> None:
            if statement.startswith("INSERT INTO enrollments") and breaking:
                breaking.pop()
                close_connections(database_url)

        listen(engine_of(app), "before", disconnect)
        assert post(service).status_code == 200
        assert not breaking
        assert time_of(service) == 120


@on_postgresql
def test_a_connection_that_breaks_before_what_travels_with_the_commit_is_not_tried_again(
    database_url: str, listen: Listen
) -> None:
    with school(named(database_url)) as (app, service):
        breaking = ["once"]

        def disconnect(statement: str) -> None:
            if "INSERT INTO tallies" in statement and breaking:
                breaking.pop()
                close_connections(database_url)

        listen(engine_of(app), "before", disconnect)
        assert_unavailable(post(service))
        assert not breaking
        assert time_of(service) == 60
        assert post(service).status_code == 200
        assert time_of(service) == 120


@on_postgresql
def test_a_connection_that_breaks_before_the_commit_leaves_nothing_and_is_not_tried_again(database_url: str) -> None:
    with school(named(database_url)) as (app, service):
        breaking = ["once"]

        @event.listens_for(engine_of(app), "commit")
        def disconnect(_: Connection) -> None:
            if breaking:
                breaking.pop()
                close_connections(database_url)

        assert_unavailable(post(service))
        assert time_of(service) == 60
        assert post(service).status_code == 200
        assert time_of(service) == 120


@pytest.mark.parametrize("times", [1, database.ATTEMPTS + 1])
def test_what_was_locked_too_early_is_locked_again_a_few_times(
    times: int, database_url: str, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LONGEST_PAUSE", 0)
    with school(database_url) as (app, service):
        left = [database.Outdated()] * times

        def change_the_catalog(statement: str) -> None:
            if "INSERT INTO tallies" in statement and left:
                raise left.pop()

        listen(engine_of(app), "before", change_the_catalog)
        if times > database.ATTEMPTS:
            assert_unavailable(post(service))
            assert time_of(service) == 60
        assert post(service).status_code == 200
        assert time_of(service) == 120


@on_postgresql
def test_who_waits_too_long_for_a_connection_of_the_pool_is_turned_away(database_url: str) -> None:
    with school(database_url, POOL_SIZE=1, POOL_TIMEOUT=1) as (app, service):
        with engine_of(app).connect():
            assert_unavailable_within(1, lambda: post(service))
            assert_unavailable_within(1, lambda: service.get("/api/progress/sam"))
        assert post(service).status_code == 200
        assert time_of(service) == 120


@on_postgresql
def test_a_table_takes_one_connection_until_it_ends_or_is_given_up(database_url: str) -> None:
    path = "/api/progress/stats/algebra/learners"
    table = {"headers": {"Accept": "text/csv"}}
    with school(database_url, POOL_SIZE=1, POOL_TIMEOUT=1) as (_, service):
        whole = service.get(path, **table)
        assert whole.status_code == 200
        assert len(whole.text.splitlines()) == 3
        assert service.call("HEAD", path, **table).status_code == 200

        begun = service.get(path, buffered=False, **table)
        try:
            assert begun.status_code == 200
            assert_unavailable_within(1, lambda: service.get(path, **table))
        finally:
            begun.close()
        assert service.get(path, **table).text == whole.text
        assert service.get(path).status_code == 200


@on_postgresql
def test_a_table_has_more_time_than_other_requests(database_url: str) -> None:
    path = "/api/progress/stats/algebra/learners"
    timeouts = {"STATEMENT_TIMEOUT": 1, "LOCK_TIMEOUT": 30, "CATALOG_TIMEOUT": 60}
    with (
        school(database_url, **timeouts) as (app, service),
        held(app, "SELECT 1") as other,  # soon enough, since a table must be read on within 2 s
        ThreadPoolExecutor(1) as thread,
    ):
        table = service.get(path, buffered=False, headers={"Accept": "text/csv"})
        other.execute(text("LOCK TABLE enrollments IN ACCESS EXCLUSIVE MODE"))
        read = thread.submit(table.get_data)
        wait_until(lambda: read.done() or waits_long(app))
        other.rollback()
        assert len(read.result(PATIENCE_SECONDS).splitlines()) == 3
        table.close()


@on_postgresql
@pytest.mark.parametrize(
    "timeouts",
    [{"LOCK_TIMEOUT": 1, "STATEMENT_TIMEOUT": 30}, {"LOCK_TIMEOUT": 30, "STATEMENT_TIMEOUT": 1}],
    ids=["lock", "statement"],
)
def test_who_waits_too_long_for_a_learner_is_turned_away(database_url: str, timeouts: dict[str, int]) -> None:
    batch = {"updates": [UPDATE | {"userId": "kim"}, UPDATE]}
    with school(database_url, **timeouts) as (app, service):
        with held(app, "SELECT FROM enrollments WHERE user_id = 'sam' FOR UPDATE"):
            assert_unavailable_within(1, lambda: post(service))
            assert_unavailable_within(1, lambda: service.post("/api/progress/batch", json=batch))
            assert_unavailable_within(1, lambda: service.delete("/api/progress/sam/algebra"))
            assert post(service, userId="kim").status_code == 200
            assert time_of(service) == 60
        assert post(service).status_code == 200
        assert (time_of(service), time_of(service, "kim")) == (120, 120)


@on_postgresql
def test_who_reads_too_long_is_turned_away(database_url: str) -> None:
    with school(database_url, STATEMENT_TIMEOUT=1, LOCK_TIMEOUT=30) as (app, service):
        with held(app, "LOCK TABLE enrollments IN ACCESS EXCLUSIVE MODE"):
            assert_unavailable_within(1, lambda: service.get("/api/progress/sam"))
            assert_unavailable_within(1, lambda: service.get("/api/progress/stats/algebra/learners"))
        assert time_of(service) == 60


@on_postgresql
def test_a_catalog_change_has_more_time_than_other_requests(database_url: str) -> None:
    module = {"title": "Algebra", "contents": [{"id": "sums", "title": "Sums", "type": "video", "weight": 2}]}
    timeouts = {"STATEMENT_TIMEOUT": 1, "LOCK_TIMEOUT": 30, "CATALOG_TIMEOUT": 60}
    with school(database_url, **timeouts) as (app, service), ThreadPoolExecutor(1) as thread:
        with held(app, "LOCK TABLE contents IN SHARE MODE"):
            change = thread.submit(service.put, "/api/catalog/modules/algebra", json=module)
            wait_until(lambda: change.done() or waits_long(app))
        assert change.result(PATIENCE_SECONDS).status_code == 200


@contextmanager
def held(app: Flask, statement: str) -> Iterator[Connection]:
    """Hold what a statement locks, on a connection of its own, until the block ends."""
    url = app.config["SQLALCHEMY_DATABASE_URI"]
    with application(url) as other, engine_of(other).begin() as connection:
        connection.execute(text(statement))
        yield connection


def waits_long(app: Flask) -> bool:
    """Tell whether somebody waits for a lock for longer than a statement of a second would be waited for."""
    waited = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND now() - query_start > :long"
    with engine_of(app).begin() as watch:
        return bool(watch.execute(text(waited), {"long": timedelta(seconds=LONG_SECONDS)}).scalar())


def waiting(connection: Connection, seconds: float = 0.3) -> int:
    """Count those who wait for a lock, and not only for as long as every request does."""
    begun = "SELECT count(*) FROM pg_locks WHERE clock_timestamp() - waitstart > make_interval(secs => :seconds)"
    return int(connection.execute(text(begun), {"seconds": seconds}).scalar_one())


HELD = {
    "a learner": "SELECT FROM enrollments WHERE user_id = 'sam' FOR UPDATE",
    "a module": "SELECT pg_advisory_xact_lock(hashtextextended('algebra', 0))",
    "a key": "SELECT pg_advisory_xact_lock(hashtext('lms'), hashtext('a-key'))",
}


@on_postgresql
@pytest.mark.parametrize("lock", HELD)
def test_who_waits_leaves_half_of_the_threads_to_those_who_need_not(database_url: str, lock: str) -> None:
    keyed = {"Idempotency-Key": "a-key"}
    with school(database_url, **PATIENT) as (app, service):

        def send() -> TestResponse:
            return service.post("/api/progress", json=UPDATE, headers=keyed if lock == "a key" else {})

        with ThreadPoolExecutor(2) as threads:
            with held(app, HELD[lock]) as other:
                patient = [threads.submit(send) for _ in range(2)]
                wait_until(lambda: waiting(other) == 2)
                for _ in range(3):
                    assert_unavailable(send())
                assert post(service, userId="kim", contentId="cells").status_code == 201
                for path in ("/healthz", "/readyz", "/api/progress/sam", "/api/progress/stats/algebra"):
                    assert service.get(path).status_code == 200
                assert not any(one.done() for one in patient)
            assert [one.result(PATIENCE_SECONDS).status_code for one in patient] == [200, 200]
        assert time_of(service) == (120 if lock == "a key" else 180)
        assert send().status_code == 200


@on_postgresql
def test_who_waits_to_read_leaves_half_of_the_threads_too(database_url: str) -> None:
    paths = ("/api/progress/sam", "/api/progress/stats/algebra/learners")  # of one statement, and of several
    with school(database_url, **PATIENT) as (app, service), ThreadPoolExecutor(2) as threads:
        with held(app, "LOCK TABLE enrollments IN ACCESS EXCLUSIVE MODE") as other:
            patient = [threads.submit(service.get, path) for path in paths]
            wait_until(lambda: waiting(other) == 2)
            for path in paths:
                assert_unavailable(service.get(path))
            assert service.get("/readyz").status_code == 200
            assert not any(one.done() for one in patient)
        assert [one.result(PATIENCE_SECONDS).status_code for one in patient] == [200, 200]


@on_postgresql
def test_a_command_waits_as_long_as_a_catalog_change_may_take(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "updates.jsonl"
    file.write_text(json.dumps(UPDATE))
    arguments = ["progress", "import", "--updates", str(file)]
    with school(database_url, LOCK_TIMEOUT=1, STATEMENT_TIMEOUT=1) as (app, service), ThreadPoolExecutor(1) as thread:
        with held(app, HELD["a learner"]) as other:
            command = thread.submit(app.test_cli_runner().invoke, args=arguments)
            wait_until(lambda: command.done() or waiting(other, LONG_SECONDS) == 1)
        assert command.result(PATIENCE_SECONDS).exit_code == 0
        assert time_of(service) == 120


@on_postgresql
def test_the_loser_of_a_deadlock_is_tried_again(database_url: str) -> None:
    batch = {"updates": [UPDATE, UPDATE | {"userId": "kim"}]}
    lock = "SELECT FROM enrollments WHERE user_id = '{}' FOR UPDATE"
    deadlocks = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    with school(database_url) as (app, service), ThreadPoolExecutor(1) as thread:
        with engine_of(app).connect() as connection:
            before = connection.execute(deadlocks).scalar_one()
        with held(app, lock.format("sam")) as other:
            other.execute(text("SET LOCAL deadlock_timeout = '60s'"))  # so that it is the service that loses
            other.execute(text("SET LOCAL lock_timeout = '30s'"))
            request = thread.submit(service.post, "/api/progress/batch", json=batch)
            wait_until(lambda: waiting(other) == 1)
            other.execute(text(lock.format("kim")))
        assert request.result(PATIENCE_SECONDS).status_code == 200
        assert (time_of(service), time_of(service, "kim")) == (120, 120)
        with engine_of(app).connect() as connection:
            wait_until(lambda: connection.execute(deadlocks).scalar_one() > before)


Failing = Callable[..., AbstractContextManager[Callable[[], int]]]
ENDING = "PERFORM pg_terminate_backend(pg_backend_pid())"


@pytest.fixture
def failing(usual_app: Flask) -> Failing:
    """Let the next writes of a record fail in the database with an SQLSTATE; tells how many were tried.

    They fail when they are written, or `late`, during COMMIT; or there is something else that happens instead.
    """
    engine = engine_of(usual_app)

    @contextmanager
    def failing(
        sqlstate: str, times: int, *, late: bool = False, instead: str | None = None
    ) -> Iterator[Callable[[], int]]:
        fail = instead or f"RAISE EXCEPTION USING ERRCODE = '{sqlstate}'"
        constraint, deferred = ("CONSTRAINT", "DEFERRABLE INITIALLY DEFERRED") if late else ("", "")
        script = f"""
            CREATE SEQUENCE tries;
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('tries') <= {times} THEN {fail}; END IF;
                RETURN NULL;
            END $$;
            CREATE {constraint} TRIGGER fail AFTER INSERT OR UPDATE ON progress_records
                {deferred} FOR EACH ROW EXECUTE FUNCTION fail();
        """

        def tried() -> int:
            with engine.connect() as connection:
                return int(connection.execute(text("SELECT last_value FROM tries")).scalar_one())

        with engine.begin() as connection:
            connection.execute(text(script))
        try:
            yield tried
        finally:
            with engine.begin() as connection:
                connection.execute(text("DROP FUNCTION fail CASCADE; DROP SEQUENCE tries"))

    return failing


@on_postgresql
@pytest.mark.parametrize("late", [False, True], ids=["in a statement", "during COMMIT"])
@pytest.mark.parametrize(
    "sqlstate", sorted(database.TRANSIENT_SQLSTATES | connections.UNFIT_SQLSTATES | {database.LOCK_NOT_AVAILABLE})
)
def test_a_lost_race_is_tried_again_and_applied_once(
    database_url: str, sqlstate: str, late: bool, failing: Failing
) -> None:
    with school(database_url) as (_, service):
        with failing(sqlstate, 2, late=late) as tried:
            assert post(service, contentId="cells").status_code == 201
            assert tried() == 3
        assert time_of(service) == 120


@on_postgresql
@pytest.mark.parametrize("late", [False, True], ids=["with the last statement", "during COMMIT"])
@pytest.mark.parametrize("path", ["/api/progress", "/api/progress/batch"])
def test_a_connection_that_the_server_ends_at_the_end_is_not_tried_again(
    database_url: str, path: str, late: bool, failing: Failing
) -> None:
    body = UPDATE if path == "/api/progress" else {"updates": [UPDATE]}
    with school(database_url) as (_, service):
        with failing("", 1, late=late, instead=ENDING) as tried:
            assert_unavailable(service.post(path, json=body))
            assert tried() == 1
        assert time_of(service) == 60
        assert post(service).status_code == 200
        assert time_of(service) == 120


@on_postgresql
@pytest.mark.parametrize(
    ("sqlstate", "status", "tries"),
    [
        ("40001", 503, database.ATTEMPTS),
        ("40P01", 503, database.ATTEMPTS),
        ("25006", 503, database.ATTEMPTS),
        ("53100", 503, 1),
        ("23514", 500, 1),
    ],
    ids=["races lost for ever", "deadlocks for ever", "nobody may write", "a full disk", "a broken constraint"],
)
def test_what_cannot_be_helped_is_tried_a_bounded_number_of_times(
    database_url: str, sqlstate: str, status: int, tries: int, failing: Failing
) -> None:
    with school(database_url) as (_, service):
        with failing(sqlstate, 100) as tried:
            response = post(service)
            assert response.status_code == status
            assert "Retry-After" in response.headers or status == 500
            assert tried() == tries + 1  # together with others that might have waited, and then alone
        assert time_of(service) == 60
        assert post(service).status_code == 200


@on_sqlite
def test_on_sqlite_who_waits_too_long_for_another_writer_is_turned_away(database_url: str) -> None:
    with school(database_url, LOCK_TIMEOUT=1) as (_, service):
        with writing(database_url):
            assert_unavailable_within(1, lambda: post(service))
            assert time_of(service) == 60  # nobody waits to read
        assert post(service).status_code == 200
        assert time_of(service) == 120


@on_sqlite
def test_on_sqlite_writers_wait_for_one_another(database_url: str) -> None:
    begun = Semaphore(0)
    with school(database_url, LOCK_TIMEOUT=PATIENCE_SECONDS) as (app, service), ThreadPoolExecutor(4) as threads:
        event.listen(engine_of(app), "checkout", lambda *_: begun.release())
        with writing(database_url):
            requests = [threads.submit(post, service) for _ in range(4)]
            assert all(begun.acquire(timeout=PATIENCE_SECONDS) for _ in requests)
            assert not any(request.done() for request in requests)
        assert [request.result(PATIENCE_SECONDS).status_code for request in requests] == [200] * 4
        assert time_of(service) == 300


@on_sqlite
def test_on_sqlite_too_half_of_the_threads_are_left_to_those_who_need_not_wait(database_url: str) -> None:
    with school(database_url, **PATIENT) as (app, service):
        with ThreadPoolExecutor(2) as threads:
            with writing(database_url):
                patient = [threads.submit(post, service) for _ in range(2)]
                # Both wait for long as soon as no place is left; to try a place would take it.
                wait_until(lambda: app.extensions[database.PLACES]._value == 0)
                assert_unavailable(post(service))
                assert service.get("/readyz").status_code == 200
                assert time_of(service) == 60
                assert not any(one.done() for one in patient)
            assert [one.result(PATIENCE_SECONDS).status_code for one in patient] == [200, 200]
        assert time_of(service) == 180


@contextmanager
def writing(url: str) -> Iterator[None]:
    """Hold the write lock of a SQLite database, as another process would."""
    connection = sqlite3.connect(make_url(url).database or "", isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()
