"""Connections behave alike whatever stands between: through PgBouncer as it comes, and whatever a role or URL sets."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from progress_service.store.database import db
from tests.conftest import empty, migrate
from tests.postgres import POOLERS, PostgresServer
from tests.test_concurrency import *  # noqa: F403  the same tests, and fixtures, on another application

pytestmark = pytest.mark.no_cover


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        migrate(server.url)
        yield server


@pytest.fixture(scope="module", params=POOLERS)
def pooled_url(request: pytest.FixtureRequest, server: PostgresServer) -> Iterator[str]:
    with server.pooled(request.param) as url:
        yield url


@pytest.fixture
def usual_app(pooled_url: str, patient_app: Callable[[str], Flask]) -> Flask:
    app = patient_app(pooled_url)
    with app.app_context():
        db.engine.dispose()  # connections of the mode before are dead
    empty(app)
    return app
