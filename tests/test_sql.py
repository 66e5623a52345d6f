"""The SQL in docs/sql/ is the SQL that the service sends."""

from flask import Flask

from tests import sql
from tests.conftest import engine_of


def test_the_statements_in_the_repository_are_up_to_date(app: Flask) -> None:
    written = (sql.DIRECTORY / f"{engine_of(app).dialect.name}.sql").read_text()

    assert sql.written(app) == written, "run `make sql`"
