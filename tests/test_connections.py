"""Connections are the same whatever a role, the URL or the environment sets, and keep what they give."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from os import SEEK_END
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.callers import Caller
from tests.conftest import application, empty, migrate
from tests.postgres import POOLERS, PostgresServer
from tests.test_faults import POOL_SIZE, assert_unavailable_within, held, post, school, time_of, use_the_whole_pool

HOSTILE = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "1000",
    "DateStyle": "'SQL, DMY'",
    "TimeZone": "'Asia/Kathmandu'",
    "default_transaction_isolation": "serializable",
    "log_statement": "'all'",
}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        migrate(server.url)
        yield server


@pytest.fixture(scope="module", params=["straight", *POOLERS])
def url(request: pytest.FixtureRequest, server: PostgresServer) -> Iterator[str]:
    """The URL of a database, as it is and through PgBouncer; its role sets everything differently."""
    for name, value in HOSTILE.items():
        server.execute(f"ALTER ROLE postgres SET {name} = {value}")
    if request.param == "straight":
        yield server.url
    else:
        with server.pooled(request.param) as pooled:
            yield pooled
    server.execute("ALTER ROLE postgres RESET ALL")


@pytest.fixture(autouse=True)
def emptied(server: PostgresServer) -> None:
    with application(server.url) as app:
        empty(app)


def test_times_are_read_whatever_a_role_sets(url: str) -> None:
    at = "2026-03-01T20:30:00Z"
    with school(url) as (_, service):
        assert post(service, occurredAt=at).status_code == 200
        assert post(service, userId="noise").status_code == 201

        assert service.get("/api/progress/sam").get_json()["continue"]["lastActivityAt"] > at
        (record,) = (one["progress"] for one in service.get("/api/progress/sam/algebra").get_json()["contents"])
        assert record["startedAt"] == at
        exported = service.get("/api/progress/sam/export").get_json()
        assert "2026-03-01" in [one["date"] for one in exported["activityDays"]]
        days = service.get("/api/progress/stats/algebra/timeline?from=2026-03-01&to=2026-03-02").get_json()["days"]
        assert [day["contentsStarted"] for day in days] == [1, 0]


def test_figures_are_repaired_whatever_a_role_sets(url: str, server: PostgresServer) -> None:
    with school(url) as (app, service):
        assert post(service, userId="lee", progressPercentage=100, occurredAt="2026-03-01T20:30:00Z").status_code == 201
        path = "/api/progress/stats/algebra/timeline?from=2026-03-01&to=2026-03-02"
        before = service.get(path).get_json()
        server.execute("DELETE FROM tallies")
        server.execute("UPDATE enrollments SET last_activity_at = NULL, last_content_id = NULL")

        assert app.test_cli_runner().invoke(args=["progress", "verify", "--repair"]).exit_code == 1
        assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0
        assert service.get(path).get_json() == before
        (module,) = service.get("/api/progress/lee").get_json()["modules"]
        assert module["lastActivityAt"] == "2026-03-01T20:30:00Z"


def test_timeouts_hold_whatever_a_role_sets(url: str) -> None:
    with school(url, LOCK_TIMEOUT=1) as (app, service):
        with held(app, "SELECT FROM enrollments WHERE user_id = 'sam' FOR UPDATE"):
            assert_unavailable_within(1, lambda: post(service))
            assert time_of(service) == 60
        with application(url, LOCK_TIMEOUT=30, STATEMENT_TIMEOUT=1) as hasty:
            reader = Caller(hasty, "service", "lms")
            with held(app, "LOCK TABLE enrollments IN ACCESS EXCLUSIVE MODE"):
                assert_unavailable_within(1, lambda: reader.get("/api/progress/sam"))
                assert_unavailable_within(1, lambda: reader.get("/api/progress/stats/algebra/learners"))


def test_a_transaction_through_a_pooler_begins_with_its_settings(url: str, server: PostgresServer) -> None:
    with school(url) as (_, service), sent(server) as messages:
        calls = partial(post, service), partial(service.get, "/api/progress/stats/algebra/learners")
        for call in calls:
            messages()
            assert call().status_code == 200
            begin, *statements, commit = messages()
            assert (begin, commit) == ("BEGIN", "COMMIT")
            assert set(statements) <= {"WITH", "SELECT", "INSERT"}
        alone = ["SELECT"] if url == server.url else ["BEGIN", "SELECT", "SELECT", "COMMIT"]
        assert time_of(service) == 120
        assert messages() == alone
        assert service.get("/api/progress/stats/algebra").status_code == 200
        assert messages() == alone


MESSAGE = re.compile(r"LOG:  (?:statement|execute [^:]+): (\w+)")


@contextmanager
def sent(server: PostgresServer) -> Iterator[Callable[[], list[str]]]:
    """Give a function that tells how the messages begin that clients have sent since it was last called."""
    with server.log.open() as log:
        log.seek(0, SEEK_END)
        yield lambda: MESSAGE.findall(log.read())


@pytest.mark.parametrize("by_url", [True, False], ids=["by the URL", "by the environment"])
def test_a_search_path_that_is_given_is_kept(
    by_url: bool, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = "-csearch_path=elsewhere"
    server.execute("CREATE SCHEMA elsewhere")
    url = make_url(server.url)
    if by_url:
        url = url.update_query_dict({"options": given})
    else:
        monkeypatch.setenv("PGOPTIONS", given)
    try:
        migrate(url.render_as_string(hide_password=False))
        with school(url.render_as_string(hide_password=False)) as (_, service):
            assert post(service).status_code == 200
        assert server.execute("SELECT count(*) FROM elsewhere.progress_records") == [(2,)]
        assert server.execute("SELECT count(*) FROM public.progress_records") == [(0,)]
    finally:
        server.execute("DROP SCHEMA elsewhere CASCADE")


def test_commands_and_tables_do_their_work(url: str, server: PostgresServer, tmp_path: Path) -> None:
    server.execute("CREATE DATABASE fresh")
    fresh = make_url(url).set(database="fresh").render_as_string(hide_password=False)
    migrate(fresh)
    updates = tmp_path / "updates.csv"
    updates.write_text("userId,contentId,timeSpentSeconds\n" + "".join(f"u{one},sums,1\n" for one in range(2500)))
    with school(fresh) as (app, service):
        imported = app.test_cli_runner().invoke(args=["progress", "import", "--updates", str(updates)])
        assert imported.exit_code == 0, imported.output
        table = service.get("/api/progress/stats/algebra/learners", headers={"Accept": "text/csv"})
        assert len(table.text.splitlines()) == 2503
        assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0
    server.execute("DROP DATABASE fresh WITH (FORCE)")


def test_connections_that_were_opened_only_to_read_are_left(url: str, server: PostgresServer) -> None:
    with school(url) as (_, service), application(url, POOL_SIZE=POOL_SIZE) as app:
        caller = Caller(app, "service", "lms")
        with read_only(server):
            use_the_whole_pool(caller)
            assert_unavailable_within(1, lambda: post(caller))
            assert time_of(caller) == 60
            use_the_whole_pool(caller)

        assert [post(caller).status_code for _ in range(2 * POOL_SIZE)] == [200] * 2 * POOL_SIZE
        assert time_of(service) == (2 * POOL_SIZE + 1) * 60


@contextmanager
def read_only(server: PostgresServer) -> Iterator[None]:
    """Let connections read only, as operators do before they move a database; those that write are ended."""
    server.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
    server.execute(f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE {others}")
    try:
        yield
    finally:
        server.execute("BEGIN READ WRITE; ALTER DATABASE postgres RESET default_transaction_read_only; COMMIT")
