"""Another server takes over: nothing that was answered is lost, and nobody has to restart the service."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from threading import Event
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.callers import Caller
from tests.conftest import application, migrate
from tests.postgres import PostgresServer
from tests.test_faults import POOL_SIZE, post, school, time_of, use_the_whole_pool
from tests.waiting import wait_until

LEARNERS = ["sam", "kim", "lee", "max"]
HASTY = {"STATEMENT_TIMEOUT": 1, "CONNECT_TIMEOUT": 2}


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    with PostgresServer(durable=True) as primary:
        migrate(primary.url)
        yield primary


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A server that follows the primary one, which waits for it with every commit."""
    with PostgresServer(durable=True, follows=primary) as standby:
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        wait_until(lambda: primary.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)])
        yield standby


def url_of(*servers: PostgresServer) -> str:
    return f"postgresql://postgres@{','.join(quote(str(server.directory), '') for server in servers)}/postgres"


@contextmanager
def crashed(server: PostgresServer) -> Iterator[None]:
    server.crash()
    yield


@pytest.mark.parametrize("fails", [crashed, PostgresServer.frozen])
def test_nothing_answered_is_lost_when_a_standby_takes_over_under_load(
    fails: Callable[[PostgresServer], AbstractContextManager[None]], primary: PostgresServer, standby: PostgresServer
) -> None:
    over = Event()
    answers: Counter[int] = Counter()

    def is_applied(caller: Caller, user_id: str, headers: dict[str, str]) -> bool:
        update = {"userId": user_id, "contentId": "sums", "timeSpentSeconds": 1}
        status = caller.post("/api/progress", json=update, headers=headers).status_code
        answers[status] += 1
        assert status in {200, 201, 503}
        return status != 503

    def work(caller: Caller, user_id: str) -> int:
        """Send updates of a second each until it is over, each until it is applied; return how many it were."""
        done = 0
        while not over.is_set():
            wait_until(partial(is_applied, caller, user_id, {"Idempotency-Key": str(uuid4())}))
            done += 1
        return done

    def more(status: int, count: int) -> Callable[[], bool]:
        before = answers[status]
        return lambda: answers[status] >= before + count

    # The first server stays away until the end: it would take updates, too, if it came back.
    with school(url_of(primary, standby), POOL_SIZE=POOL_SIZE, **HASTY) as (_, service), ExitStack() as failure:
        before = {user_id: time_of(service, user_id) for user_id in LEARNERS}
        with ThreadPoolExecutor(len(LEARNERS)) as threads:
            working = {user_id: threads.submit(work, service, user_id) for user_id in LEARNERS}
            try:
                wait_until(more(200, 50))
                failure.enter_context(fails(primary))
                wait_until(more(503, 10))
                standby.execute("SELECT pg_promote()")
                wait_until(more(200, 50))
            finally:
                over.set()
        assert {user_id: time_of(service, user_id) - before[user_id] for user_id in LEARNERS} == {
            user_id: one.result() for user_id, one in working.items()
        }


def test_a_commit_that_waits_for_a_silent_standby_is_given_up_and_counts_once(
    primary: PostgresServer, standby: PostgresServer
) -> None:
    with school(primary.url, **HASTY) as (_, service):

        def send() -> int:
            update = {"userId": "sam", "contentId": "sums", "timeSpentSeconds": 60}
            response = service.post("/api/progress", json=update, headers={"Idempotency-Key": "a-key"})
            return int(response.status_code)

        with standby.frozen():
            assert send() == 503
            assert send() == 503
            assert time_of(service) == 60
        wait_until(lambda: send() == 200)
        assert time_of(service) == 120


def test_connections_to_a_standby_are_left_as_soon_as_the_primary_server_is_back(
    primary: PostgresServer, standby: PostgresServer
) -> None:
    with school(url_of(primary, standby) + "?target_session_attrs=any", POOL_SIZE=POOL_SIZE) as (_, service):
        primary.crash()
        for _ in range(2):
            use_the_whole_pool(service)
            assert time_of(service) == 60
            assert post(service).status_code == 503

        primary.start()
        wait_until(lambda: primary.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)])
        assert [post(service).status_code for _ in range(2 * POOL_SIZE)] == [200] * 2 * POOL_SIZE
        assert time_of(service) == (2 * POOL_SIZE + 1) * 60


def test_connections_to_a_standby_can_write_as_soon_as_it_is_promoted(
    primary: PostgresServer, standby: PostgresServer
) -> None:
    with school(primary.url), application(url_of(standby), POOL_SIZE=POOL_SIZE) as app:
        caller = Caller(app, "service", "lms")
        wait_until(lambda: time_of(caller) == 60)
        use_the_whole_pool(caller)
        assert post(caller).status_code == 503

        primary.crash()
        standby.execute("SELECT pg_promote()")
        assert [post(caller).status_code for _ in range(2 * POOL_SIZE)] == [200] * 2 * POOL_SIZE
