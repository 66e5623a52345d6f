"""What docs/operating.md says of roles of PostgreSQL: the service does its work without a right to change tables."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError
from werkzeug.test import TestResponse

from tests.callers import Caller
from tests.conftest import application, engine_of, migrate
from tests.postgres import PostgresServer
from tests.sql import Operations
from tests.test_documents import OPERATING, section
from tests.test_migrating import later_version

NEW, EXISTING = re.findall(r"```sql\n(.*?)```", section(OPERATING, "Roles of PostgreSQL"), re.DOTALL)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def url_of(server: PostgresServer, role: str, database: str = "progress") -> str:
    url = make_url(server.url).set(username=role, database=database)
    return url.render_as_string(hide_password=False)


def psql(server: PostgresServer, script: str, database: str = "postgres") -> None:
    arguments = ("-h", str(server.directory), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-q", "-f", "-", database)
    server.output("psql", *arguments, stdin=script)


def work(app: Flask) -> None:
    """Do everything that the service can be asked for."""
    for title, call in Operations(app):
        done = call()
        if isinstance(done, TestResponse):
            assert done.status_code < 300, (title, done.text)
        else:
            assert isinstance(done, Result)
            assert done.exception is None or isinstance(done.exception, SystemExit), title
            assert "Error: " not in done.output, title
    assert "changes_delay_seconds" in Caller(app).get("/metrics").text
    for command in (["progress", "verify"], ["progress", "settle"]):
        assert app.test_cli_runner().invoke(args=command).exit_code == 0


def test_the_lesser_role_does_everything_but_migrations(
    server: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    psql(server, NEW)
    migrate(url_of(server, "progress_owner"))
    with application(url_of(server, "progress_server")) as app:
        work(app)
        with pytest.raises(ProgrammingError, match="permission denied"), engine_of(app).begin() as connection:
            connection.execute(text("CREATE TABLE another (id int)"))
        with pytest.raises(ProgrammingError, match="must be owner"), engine_of(app).begin() as connection:
            connection.execute(text("ALTER TABLE modules ADD COLUMN another int"))

        later = later_version(tmp_path, "CREATE TABLE later (id int)", "9998")
        refused = app.test_cli_runner().invoke(args=["db", "upgrade", "-d", str(later)])
        assert refused.exit_code == 1
        assert "permission denied for schema public" in caplog.messages[-1]
        assert caplog.messages[-1].endswith("Nothing has changed: run it as the role that owns the tables.")

        with application(url_of(server, "progress_owner")) as owners:
            assert owners.test_cli_runner().invoke(args=["db", "upgrade", "-d", str(later)]).exit_code == 0
        with engine_of(app).begin() as connection:
            connection.execute(text("INSERT INTO later VALUES (1)"))


def test_a_dump_is_restored_by_the_lesser_role(server: PostgresServer, tmp_path: Path) -> None:
    psql(server, NEW)
    migrate(url_of(server, "progress_owner"))
    migrate(f"sqlite:///{tmp_path}/progress.db")
    with application(f"sqlite:///{tmp_path}/progress.db") as app:
        module = {"title": "Algebra", "contents": [{"id": "sums", "title": "Sums", "type": "video"}]}
        assert Caller(app, "admin", "ada").put("/api/catalog/modules/algebra", json=module).status_code == 201
        assert app.test_cli_runner().invoke(args=["progress", "dump", f"{tmp_path}/dump"]).exit_code == 0
    with application(url_of(server, "progress_server")) as app:
        restored = app.test_cli_runner().invoke(args=["progress", "restore", f"{tmp_path}/dump"])
        assert restored.exit_code == 0, restored.output


def test_the_rights_can_be_given_to_tables_that_are_there(server: PostgresServer) -> None:
    roles, rights = NEW.split("\\connect progress\n")
    psql(server, roles)
    migrate(url_of(server, "progress_owner"))
    psql(server, rights + EXISTING, "progress")
    with application(url_of(server, "progress_server")) as app:
        work(app)
