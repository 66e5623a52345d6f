"""The SQL in docs/sql/ is the SQL that the service sends."""

from tests import sql
from tests.conftest import application, engine_of


def test_the_statements_in_the_repository_are_up_to_date(database_url: str) -> None:
    with application(database_url) as app:  # which has compiled none of them yet
        written = (sql.DIRECTORY / f"{engine_of(app).dialect.name}.sql").read_text()

        assert sql.written(app) == written, "run `make sql`"
