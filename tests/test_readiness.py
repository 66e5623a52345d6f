"""`/readyz` tells whether the service can do its work, and otherwise what keeps it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import make_url, text

from progress_service.store import locks
from progress_service.store.database import db
from progress_service.store.locks import MOST_LOCKS
from tests.callers import Caller
from tests.conftest import application
from tests.test_errors import assert_problem
from tests.test_migrating import NEWEST, REVISIONS, connected, later_version, run

CANNOT_REACH = "The database cannot be reached in time."
CANNOT_WRITE = "The database cannot be written to."


def reason(app: Flask) -> str:
    """Return why the service is not ready, as it answers; the process lives."""
    response = Caller(app).get("/readyz")
    problem = assert_problem(response, 503, "unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert Caller(app).get("/healthz").status_code == 200
    return str(problem["detail"])


@contextmanager
def at(app: Flask, revision: str) -> Iterator[None]:
    """Let the database say that it is at another revision."""
    statement = text("UPDATE alembic_version SET version_num = :revision")
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(statement, {"revision": revision})
    try:
        yield
    finally:
        with app.app_context(), db.engine.begin() as connection:
            connection.execute(statement, {"revision": NEWEST})


def test_the_service_is_ready_with_its_own_schema(anonymous: Caller) -> None:
    assert anonymous.get("/readyz").get_json() == {"status": "ready"}


@pytest.mark.parametrize("revision", ["9998", "9999", "9999_needs_0001", f"9999_needs_{NEWEST.partition('_')[0]}"])
def test_the_service_is_ready_with_a_later_schema(app: Flask, revision: str) -> None:
    with at(app, revision):
        assert Caller(app).get("/readyz").status_code == 200


def test_a_schema_may_say_that_it_needs_a_later_version(app: Flask) -> None:
    with at(app, "9999_needs_9998"):
        assert reason(app) == f"The schema is 9999_needs_9998, and this version is of {NEWEST}: install a later one."


@pytest.mark.parametrize("revision", ["0000", *REVISIONS[:-1]])
def test_the_service_is_not_ready_with_an_older_schema(app: Flask, revision: str) -> None:
    with at(app, revision):
        assert reason(app) == f"The schema is {revision} and this version needs {NEWEST}: run `flask db upgrade`."
    assert Caller(app).get("/readyz").status_code == 200


def test_the_service_is_not_ready_before_its_database_has_a_schema(empty_database_url: str) -> None:
    with application(empty_database_url) as app:
        assert reason(app) == "The database has no schema yet: run `flask db upgrade`."
        run(app, "upgrade")
        run(app, "downgrade", "base")
        assert reason(app) == "The database has no schema yet: run `flask db upgrade`."


def test_workers_stay_ready_while_a_later_version_migrates(empty_database_url: str, tmp_path: Path) -> None:
    with application(empty_database_url) as app:
        run(app, "upgrade")
        run(app, "upgrade", "-d", later_version(tmp_path, "ALTER TABLE modules ADD COLUMN colour VARCHAR(9)", "9999"))

        assert Caller(app).get("/readyz").status_code == 200


def test_the_service_is_not_ready_without_its_database(caplog: pytest.LogCaptureFixture) -> None:
    with application("postgresql+psycopg://u:s3cret@127.0.0.1:1/missing") as app:
        app.logger.addHandler(caplog.handler)
        assert reason(app) == CANNOT_REACH

    assert ("WARNING", f"not ready: {CANNOT_REACH}") in [(one.levelname, one.message) for one in caplog.records]
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


def test_the_service_is_not_ready_with_a_file_that_is_read_only(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/progress.db"
    with application(url) as app:
        run(app, "upgrade")
    with application(f"sqlite:///file:{tmp_path}/progress.db?mode=ro&uri=true") as app:
        assert reason(app) == CANNOT_WRITE


def test_a_probe_does_not_wait_for_a_writer_of_a_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/progress.db"
    with application(url, LOCK_TIMEOUT=3600) as app, connected(url) as writer:
        run(app, "upgrade")
        writer.exec_driver_sql("BEGIN IMMEDIATE")
        assert Caller(app).get("/readyz").status_code == 200


def test_a_probe_does_not_wait_for_a_change_of_the_whole_catalog(migrated_postgresql: Flask) -> None:
    with migrated_postgresql.app_context():
        engine = db.engine
    with engine.begin() as loading:
        locks.hold_modules(loading, [f"module-{number}" for number in range(MOST_LOCKS + 1)])
        assert Caller(migrated_postgresql).get("/readyz").status_code == 200


def test_the_service_is_not_ready_where_it_may_only_read(migrated_postgresql: Flask) -> None:
    with migrated_postgresql.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE reader LOGIN")
        connection.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    url = make_url(str(migrated_postgresql.config["SQLALCHEMY_DATABASE_URI"])).set(username="reader")
    try:
        with application(url.render_as_string(hide_password=False)) as app:
            assert reason(app) == CANNOT_WRITE
    finally:
        with migrated_postgresql.app_context(), db.engine.begin() as connection:
            connection.exec_driver_sql("DROP OWNED BY reader")
            connection.exec_driver_sql("DROP ROLE reader")


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_the_service_is_not_ready_where_nobody_may_write(empty_database_url: str) -> None:
    with application(empty_database_url) as app:
        run(app, "upgrade")
        with app.app_context(), db.engine.begin() as connection:
            connection.exec_driver_sql("ALTER DATABASE empty SET default_transaction_read_only = on")
    with application(empty_database_url) as app:
        assert reason(app) == CANNOT_WRITE
