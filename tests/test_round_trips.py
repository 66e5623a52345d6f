"""How often a request waits for PostgreSQL, counted by a proxy that stands before it."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from werkzeug.test import TestResponse

from tests.callers import Caller
from tests.conftest import application, empty
from tests.postgres import POOLERS, PostgresServer
from tests.proxy import Proxy
from tests.test_connections import server  # noqa: F401  a fixture

UPDATE = {"userId": "sam", "contentId": "sums", "progressPercentage": 40}
KEYED = {"Idempotency-Key": "one"}
Count = Callable[[Callable[[], TestResponse]], int]


@pytest.fixture(scope="module", params=["straight", *POOLERS])
def proxy(request: pytest.FixtureRequest, server: PostgresServer) -> Iterator[Proxy]:  # noqa: F811
    if request.param == "straight":
        with Proxy(server.url) as proxy:
            yield proxy
    else:
        with server.pooled(request.param) as url, Proxy(url) as proxy:
            yield proxy


@pytest.fixture
def service(proxy: Proxy, server: PostgresServer) -> Iterator[Caller]:  # noqa: F811
    with application(server.url) as app:
        empty(app)
    with application(proxy.url) as app:
        service = Caller(app, "service", "lms")
        contents = [{"id": name, "title": name, "type": "video"} for name in ("sums", "shapes")]
        module = {"title": "Algebra", "contents": contents, "instructorIds": ["ines"]}
        assert service.put("/api/catalog/modules/algebra", json=module).status_code == 201
        yield service


@pytest.fixture
def trips(proxy: Proxy) -> Count:
    """Tell how many round trips a call takes, which succeeds."""

    def count(call: Callable[[], TestResponse]) -> int:
        before = proxy.trips
        response = call()
        assert response.status_code in {200, 201, 204}, response.text
        return proxy.trips - before

    return count


def test_an_update_takes_two_and_a_key_one_more(service: Caller, trips: Count) -> None:
    post = partial(service.post, "/api/progress", json=UPDATE)

    assert trips(post) == 2
    assert trips(post) == 2
    assert trips(partial(post, headers=KEYED)) == 3
    assert trips(partial(post, headers=KEYED)) == 2  # its answer is stored
    assert trips(partial(service.post, "/api/progress", json={**UPDATE, "contentId": "shapes"})) == 2


def test_a_batch_takes_two_and_one_more_if_it_completes_an_enrollment(service: Caller, trips: Count) -> None:
    learners = [{**UPDATE, "userId": f"u{number}"} for number in range(300)]
    done = [{**UPDATE, "contentId": name, "progressPercentage": 100} for name in ("sums", "shapes")]

    assert trips(partial(service.post, "/api/progress/batch", json={"updates": learners})) == 2
    assert trips(partial(service.post, "/api/progress/batch", json={"updates": done})) == 3


def test_a_completion_takes_three(service: Caller, trips: Count) -> None:
    record_id = service.post("/api/progress", json=UPDATE).get_json()["progress"]["id"]

    assert trips(partial(service.put, f"/api/progress/{record_id}/complete")) == 3


def test_more_modules_than_are_locked_one_by_one_take_two_more(service: Caller, trips: Count) -> None:
    updates = []
    for number in range(51):
        content = {"id": f"c{number}", "title": "Content", "type": "video"}
        module = {"title": "Module", "contents": [content]}
        assert service.put(f"/api/catalog/modules/m{number}", json=module).status_code == 201
        updates.append({**UPDATE, "contentId": f"c{number}"})

    assert trips(partial(service.post, "/api/progress/batch", json={"updates": updates[:50]})) == 2
    assert trips(partial(service.post, "/api/progress/batch", json={"updates": updates})) == 4


def test_a_reset_and_an_enrollment_take_two(service: Caller, trips: Count) -> None:
    service.post("/api/progress", json=UPDATE)

    assert trips(partial(service.put, "/api/enrollments/kim/algebra", json={})) == 2
    assert trips(partial(service.delete, "/api/progress/sam/algebra")) == 2


def test_reads_of_one_statement_take_one_and_a_pooler_one_more(
    service: Caller,
    trips: Count,
    proxy: Proxy,
    server: PostgresServer,  # noqa: F811
) -> None:
    service.post("/api/progress", json=UPDATE)
    is_pooled = "6432" in str(proxy._behind)

    for path in ("/api/progress/sam", "/api/progress/sam/algebra"):
        assert trips(partial(service.get, path)) == 1 + is_pooled
