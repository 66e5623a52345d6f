"""Reads come from replicas, which may be behind: callers see their own writes, and the primary helps out."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from threading import Event
from typing import Any

import pytest
from flask import Flask, request_finished
from werkzeug.test import TestResponse

from progress_service import facts
from progress_service.config import REPLICA, REPLICA_SECONDS, ConfigurationError
from progress_service.facts import Facts
from progress_service.store import together
from progress_service.store.database import db
from tests.callers import Caller
from tests.conftest import Listen, application, empty, migrate
from tests.postgres import POOLERS, PostgresServer
from tests.proxy import Proxy
from tests.test_failover import url_of
from tests.test_faults import POOL_SIZE, post, school, time_of, use_the_whole_pool
from tests.waiting import PATIENCE_SECONDS, wait_until

POSITION = "Progress-Position"
READS = [
    "/api/progress/sam",
    "/api/progress/sam/algebra",
    "/api/progress/stats",
    "/api/progress/stats/algebra",
    "/api/progress/stats/algebra/learners",
    "/api/progress/stats/algebra/matrix",
    "/api/progress/stats/algebra/timeline?from=2026-11-01&to=2026-11-30",
    "/api/progress/stats/algebra/report",
]
"""What replicas answer."""
OTHERS = [
    "/api/progress/sam/export",
    "/api/progress/sam/algebra/history",
    "/api/progress/stats/algebra/learners.csv",
    "/api/enrollments/sam/algebra",
    "/api/catalog/modules",
    "/api/changes",
    "/readyz",
]
"""What the primary answers always."""


class Reader(Caller):
    """Somebody who knows whether their calls were answered by a replica."""

    def __init__(self, app: Flask) -> None:
        super().__init__(app, "service", "lms")
        self.seen: list[Facts] = []
        request_finished.connect(self._see, app)

    def _see(self, *_: Any, **__: Any) -> None:
        self.seen.append(facts.current())

    def look(self) -> list[bool]:
        """Tell of each call since the last look whether a replica has answered."""
        seen, self.seen = self.seen, []
        return [one.is_from_replica for one in seen]


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    with PostgresServer(durable=True) as primary:
        migrate(primary.url)
        yield primary


@pytest.fixture(scope="module")
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    with PostgresServer(durable=True, follows=primary) as standby:
        yield standby


@pytest.fixture
def service(primary: PostgresServer, standby: PostgresServer) -> Iterator[Reader]:
    """Somebody who reads from the standby, however far it is behind."""
    with reading(primary.url, standby.url) as service:
        catch_up(primary, standby)
        yield service


@contextmanager
def reading(url: str, replica: str, **settings: Any) -> Iterator[Reader]:
    """Make the application with a replica and sam, who has spent a minute on it; yield somebody who calls it."""
    with application(url) as app:
        empty(app)
    given = {"REPLICA_LAG_SECONDS": 3600, "LOG_FORMAT": "json", **settings}
    with school(url, SQLALCHEMY_REPLICA_URI=replica, **given) as (app, _):
        yield Reader(app)


def catch_up(primary: PostgresServer, standby: PostgresServer) -> None:
    """Wait until a standby has replayed all that the primary has written."""
    ((position,),) = primary.execute("SELECT pg_current_wal_insert_lsn()")
    wait_until(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") == [(True,)])


@contextmanager
def paused(standby: PostgresServer) -> Iterator[None]:
    """Let a standby replay nothing for a while."""
    standby.execute("SELECT pg_wal_replay_pause()")
    wait_until(lambda: standby.execute("SELECT pg_get_wal_replay_pause_state()") == [("paused",)])
    try:
        yield
    finally:
        standby.execute("SELECT pg_wal_replay_resume()")


def configure(standby: PostgresServer, change: str) -> None:
    standby.execute(f"ALTER SYSTEM {change}")
    standby.execute("SELECT pg_reload_conf()")


def follow(standby: PostgresServer, source: str) -> None:
    """Let a standby follow another server, or none."""
    configure(standby, f"SET primary_conninfo = '{source}'")


def seen(caller: Caller, position: str) -> int:
    """Return the seconds of sam that a caller sees who has a position."""
    response = caller.get("/api/progress/sam", headers={POSITION: position})
    assert response.status_code == 200, response.text
    return int(response.get_json()["summary"]["timeSpentSeconds"])


def test_dashboards_and_statistics_come_from_the_replica_and_are_those_of_the_primary(
    service: Reader,
    primary: PostgresServer,
) -> None:
    service.look()
    found = {path: service.get(path) for path in READS}
    assert service.look() == [True] * len(READS)
    with application(primary.url) as app:
        asked = Caller(app, "service", "lms")
        for path, response in found.items():
            assert (response.status_code, response.get_json(silent=True)) == (
                200,
                asked.get(path).get_json(silent=True),
            )


def test_everything_else_comes_from_the_primary(service: Reader) -> None:
    service.look()
    for path in OTHERS:
        assert service.get(path).status_code == 200
    assert service.get(READS[4], headers={"Accept": "text/csv"}).status_code == 200
    post(service)
    assert not any(service.look())


def test_a_read_with_the_position_of_a_write_shows_the_write(
    service: Reader,
    primary: PostgresServer,
    standby: PostgresServer,
) -> None:
    with paused(standby):
        position = post(service).headers[POSITION]
        service.look()
        assert time_of(service) == 60
        assert seen(service, position) == 120
        assert time_of(service) == 60
        assert service.look() == [True, False, True]
    catch_up(primary, standby)
    assert seen(service, position) == 120
    assert service.look() == [True]


def test_a_read_waits_for_the_replica(
    primary: PostgresServer,
    standby: PostgresServer,
) -> None:
    patient = reading(primary.url, standby.url, REPLICA_WAIT_MILLISECONDS=10_000)
    with patient as service, ThreadPoolExecutor(1) as thread:
        catch_up(primary, standby)
        with paused(standby):
            position = post(service).headers[POSITION]
            service.look()
            answer = thread.submit(seen, service, position)
            looks = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%pg_is_in_recovery%has_position%'"
            wait_until(lambda: standby.execute(looks) == [(True,)])
        assert answer.result() == 120
        assert service.look() == [True]


def test_what_was_published_is_found_with_its_position(service: Reader, standby: PostgresServer) -> None:
    with paused(standby):
        module = {"title": "New", "contents": []}
        published = service.put("/api/catalog/modules/new", json=module)
        headers = {POSITION: published.headers[POSITION]}
        assert service.get("/api/progress/stats/new").status_code == 404
        assert service.get("/api/progress/stats/new", headers=headers).status_code == 200


def test_the_answer_of_every_write_has_a_position_and_later_ones_a_later_one(service: Reader) -> None:
    key = {"Idempotency-Key": "one"}
    update = {"userId": "sam", "contentId": "sums"}
    first = service.post("/api/progress", json=update, headers=key)
    record = first.get_json()["progress"]["id"]
    answered = [
        first,
        service.post("/api/progress/batch", json={"updates": [update]}),
        service.put(f"/api/progress/{record}/complete"),
        service.patch(f"/api/progress/{record}", json={"timeSpentSeconds": 1}),
        service.put("/api/enrollments/kim/biology", json={}),
        service.post("/api/progress", json=update, headers=key),
        service.delete("/api/progress/sam/algebra"),
        service.delete("/api/progress/sam"),
    ]
    assert [one.status_code for one in answered] == [200, 200, 200, 200, 201, 200, 204, 204]
    assert answered[5].headers["Idempotency-Replayed"] == "true"
    positions = [[int(part, 16) for part in one.headers[POSITION].split("/")] for one in answered]
    assert positions == sorted(positions)
    assert POSITION not in service.post("/api/progress", json={}).headers


def test_updates_that_share_a_transaction_all_have_a_position(
    service: Reader, standby: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "LONGEST_WAIT", PATIENCE_SECONDS)  # so that nobody goes alone while a disk is slow
    with paused(standby), ThreadPoolExecutor(16) as threads:
        answered = list(threads.map(lambda _: post(service), range(64)))
        assert all(POSITION in one.headers for one in answered)
        assert seen(service, answered[-1].headers[POSITION]) >= 120


def test_an_update_is_recorded_once_although_its_position_cannot_be_read(primary: PostgresServer) -> None:
    function = "FUNCTION pg_current_wal_insert_lsn()"
    primary.execute("CREATE ROLE narrow LOGIN IN ROLE pg_read_all_data, pg_write_all_data")
    primary.execute(f"REVOKE EXECUTE ON {function} FROM PUBLIC")
    url = primary.url.replace("postgres@", "narrow@")
    try:
        with reading(url, primary.url) as service:
            response = post(service)
            assert (response.status_code, POSITION in response.headers) == (200, False)
            assert time_of(service) == 120
    finally:
        primary.execute(f"GRANT EXECUTE ON {function} TO PUBLIC")


def test_a_replica_that_lags_is_not_read(
    primary: PostgresServer,
    standby: PostgresServer,
) -> None:
    with reading(primary.url, standby.url, REPLICA_LAG_SECONDS=0) as service:
        catch_up(primary, standby)
        service.look()
        wait_until(lambda: time_of(service) == 60 and service.look()[-1])  # the age of the last write says nothing
        with paused(standby):
            post(service)
            position = post(service, userId="kim").headers[POSITION]
            wait_until(lambda: standby.execute(f"SELECT pg_last_wal_receive_lsn() >= '{position}'") == [(True,)])
            service.look()
            assert time_of(service) == 120
            assert service.look() == [False]


def test_a_replica_that_has_lost_its_primary_is_not_read(
    primary: PostgresServer,
    standby: PostgresServer,
) -> None:
    with reading(primary.url, standby.url, REPLICA_LAG_SECONDS=0) as service:
        catch_up(primary, standby)
        ((source,),) = standby.execute("SHOW primary_conninfo")
        try:
            follow(standby, "host=/nowhere")
            wait_until(lambda: standby.execute("SELECT pid FROM pg_stat_wal_receiver") == [])
            post(service)
            service.look()
            assert time_of(service) == 120
            assert service.look() == [False]
        finally:
            follow(standby, source.replace("'", "''"))


@pytest.mark.parametrize("ends", [PostgresServer.crash, PostgresServer.stop])
def test_a_replica_that_goes_is_done_without_and_read_again_when_it_is_back(
    ends: Callable[[PostgresServer], None],
    service: Reader,
    standby: PostgresServer,
) -> None:
    ends(standby)
    try:
        post(service)
        service.look()
        assert [time_of(service) for _ in range(3)] == [120] * 3
        tried = [one.spent.retries.total() for one in service.seen]
        assert tried in ([1, 0, 0], [1, 1, 0])  # a connection is lost, or another one is refused
        assert service.look() == [False] * 3
    finally:
        standby.start()
    wait_until(lambda: time_of(service) == 120 and service.look()[-1])


def test_a_replica_that_falls_silent_is_done_without_and_read_again_when_it_speaks(
    service: Reader,
    standby: PostgresServer,
) -> None:
    use_the_whole_pool(service, POOL_SIZE, of=REPLICA)
    with standby.frozen():
        post(service)
        service.look()
        assert [time_of(service) for _ in range(3)] == [120] * 3
        assert [one.spent.retries.total() for one in service.seen] == [1, 0, 0]
        assert service.look() == [False] * 3
    wait_until(lambda: time_of(service) == 120 and service.look()[-1])


def test_a_replica_that_has_begun_to_answer_has_as_much_time_as_the_primary(
    service: Reader, standby: PostgresServer, listen: Listen
) -> None:
    with ExitStack() as silence, ThreadPoolExecutor(1) as thread:

        def fall_silent(statement: str) -> None:
            """Let the read of a dashboard, which follows the look, take longer than a look may."""
            if "FROM enrollments" in statement:
                silence.enter_context(standby.frozen())
                begun.set()

        begun = Event()
        with service.app.app_context():
            listen(db.engines[REPLICA], "before", fall_silent)
        service.look()
        answer = thread.submit(time_of, service)
        assert begun.wait(PATIENCE_SECONDS)
        with suppress(FutureTimeoutError):
            answer.result(REPLICA_SECONDS + 1)
        assert not answer.done()
        silence.close()
        assert answer.result(PATIENCE_SECONDS) == 60
        assert service.look() == [True]


def test_a_read_that_the_replica_cancels_is_read_on_the_primary(
    service: Reader,
    primary: PostgresServer,
    standby: PostgresServer,
    listen: Listen,
) -> None:
    conflicts = iter([True])

    def vacuum(statement: str) -> None:
        """Remove rows that the snapshot of a read shows, once."""
        if "FROM modules" in statement and next(conflicts, False):
            primary.execute("DELETE FROM activity_days")
            primary.execute("VACUUM (TRUNCATE false) activity_days")
            catch_up(primary, standby)

    with service.app.app_context():
        listen(db.engines[REPLICA], "after", vacuum)
    configure(standby, "SET max_standby_streaming_delay = '100ms'")
    service.look()
    assert service.get(READS[6]).status_code == 200
    assert next(conflicts, None) is None
    assert service.look() == [False]
    configure(standby, "RESET max_standby_streaming_delay")  # else any vacuum may cancel a read
    assert time_of(service) == 60
    assert service.look() == [True]


def test_several_statements_read_one_snapshot_of_the_replica(
    service: Reader, primary: PostgresServer, standby: PostgresServer, listen: Listen
) -> None:
    changes = iter([True])

    def change(statement: str) -> None:
        """Change what the next statement of a read shows, once."""
        if "FROM modules" in statement and next(changes, False):
            primary.execute("UPDATE enrollments SET time_spent_seconds = 999")
            catch_up(primary, standby)

    with service.app.app_context():
        listen(db.engines[REPLICA], "after", change)
    service.look()
    shown = [service.get(READS[4]).get_json()["items"] for _ in range(2)]
    assert [{learner["timeSpentSeconds"] for learner in learners} for learners in shown] == [{60}, {999}]
    assert service.look() == [True, True]


def test_a_role_that_only_reads_is_enough_for_replicas(primary: PostgresServer, standby: PostgresServer) -> None:
    primary.execute("CREATE ROLE reader LOGIN IN ROLE pg_read_all_data")
    replica = standby.url.replace("postgres@", "reader@")
    with reading(primary.url, replica, REPLICA_LAG_SECONDS=0) as service:
        catch_up(primary, standby)
        wait_until(lambda: time_of(service) == 60 and service.look()[-1])
        assert [service.get(path).status_code for path in READS] == [200] * len(READS)


def test_what_a_replica_refuses_is_read_on_the_primary(primary: PostgresServer, standby: PostgresServer) -> None:
    primary.execute("CREATE ROLE blind LOGIN")
    with reading(primary.url, standby.url.replace("postgres@", "blind@")) as service:
        catch_up(primary, standby)
        assert [service.get(path).status_code for path in READS] == [200] * len(READS)
        assert service.look() == [False] * len(READS)


def test_a_replica_that_is_promoted_takes_over() -> None:
    with PostgresServer(durable=True) as primary:
        migrate(primary.url)
        standby = PostgresServer(durable=True, follows=primary)
        with standby, reading(url_of(primary, standby), standby.url) as service:
            catch_up(primary, standby)
            assert time_of(service) == 60
            primary.crash()
            assert time_of(service) == 60
            standby.execute("SELECT pg_promote()")
            wait_until(lambda: post(service).status_code == 200)
            service.look()
            assert time_of(service) == 120
            assert service.look() == [False]


@pytest.mark.parametrize("mode", POOLERS)
def test_a_replica_may_be_behind_a_pooler(
    mode: str,
    primary: PostgresServer,
    standby: PostgresServer,
) -> None:
    with standby.pooled(mode) as pooled, reading(primary.url, pooled) as service:
        catch_up(primary, standby)
        service.look()
        assert [service.get(path).status_code for path in READS] == [200] * len(READS)
        assert service.look() == [True] * len(READS)
        with paused(standby):
            assert seen(service, post(service).headers[POSITION]) == 120


def test_a_position_takes_no_round_trip_and_a_replica_one(primary: PostgresServer, standby: PostgresServer) -> None:
    with Proxy(primary.url) as before, Proxy(standby.url) as behind, reading(before.url, behind.url) as service:
        catch_up(primary, standby)
        time_of(service)  # which connects

        def trips(proxy: Proxy, call: Callable[[], TestResponse]) -> int:
            begun = proxy.trips
            assert call().status_code == 200
            return proxy.trips - begun

        assert trips(before, partial(post, service)) == 2
        assert trips(behind, partial(service.get, "/api/progress/sam")) == 2
        assert trips(before, partial(service.get, "/api/progress/sam")) == 0


@pytest.mark.parametrize("position", ["", "1", "0/G", "0/1 ", "123456789/0", "0/0/0"])
def test_what_is_no_position_is_refused(position: str, app: Flask) -> None:
    response = Caller(app, "service", "lms").get("/api/progress/sam", headers={POSITION: position})
    assert response.status_code == 400
    assert response.get_json()["type"].endswith("malformed-request")


def test_without_replicas_there_are_no_positions_and_any_is_reached(database_url: str) -> None:
    with school(database_url) as (_, service):
        assert POSITION not in post(service).headers
        assert seen(service, "FFFFFFFF/FFFFFFFF") == 120


def test_replicas_are_of_postgresql(database_url: str) -> None:
    with (
        pytest.raises(ConfigurationError, match="PROGRESS_SQLALCHEMY_REPLICA_URI needs PostgreSQL"),
        application(database_url, SQLALCHEMY_REPLICA_URI="sqlite:///replica.db"),
    ):
        pass
