"""The tables can be divided by learner: every key of a learner's rows begins with the learner."""

import pytest
from flask import Flask
from sqlalchemy import Connection, ForeignKeyConstraint, PrimaryKeyConstraint, UniqueConstraint, inspect

from progress_service.store.database import db
from tests.callers import Caller
from tests.conftest import PARTITIONED, application, database_beside, engine_of, migrate, partition, stored

LEARNER, MODULE, PLATFORM = "with its learner", "with its module", "one for all"
PLACES = {
    "modules": PLATFORM,
    "module_instructors": PLATFORM,
    "contents": PLATFORM,
    "enrollments": LEARNER,
    "imported_enrollments": LEARNER,
    "progress_records": LEARNER,
    "sessions": LEARNER,
    "activity_days": LEARNER,
    "tallies": MODULE,
    "changes": PLATFORM,
    "webhooks": PLATFORM,
    "stored_answers": PLATFORM,
    "imported_chunks": PLATFORM,
    "arrivals": PLATFORM,
    "verifications": PLATFORM,
}
"""Where the rows of each table are, if there are several places."""
FIRST = {LEARNER: "user_id", MODULE: "module_id"}


def test_every_table_has_a_place() -> None:
    assert PLACES.keys() == db.metadata.tables.keys()


@pytest.mark.parametrize("name", [name for name, place in PLACES.items() if place in FIRST])
def test_keys_begin_with_what_places_a_row(name: str) -> None:
    table, first = db.metadata.tables[name], FIRST[PLACES[name]]
    for key in table.constraints:
        if isinstance(key, PrimaryKeyConstraint | UniqueConstraint):
            assert next(iter(key.columns)).name == first
        elif isinstance(key, ForeignKeyConstraint) and PLACES[key.referred_table.name] == LEARNER:
            assert (key.elements[0].parent.name, key.elements[0].column.name) == ("user_id", "user_id")
    assert not [index for index in table.indexes if index.unique]


def shape(connection: Connection, name: str) -> dict[str, object]:
    """Return what a table is, whether it is divided or not."""
    inspector = inspect(connection)
    return {
        "columns": [
            (column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(name)
        ],
        "defaults": {column["name"]: column["default"] for column in inspector.get_columns(name)},
        "primary key": inspector.get_pk_constraint(name),
        "checks": sorted(check["name"] or "" for check in inspector.get_check_constraints(name)),
        "foreign keys": sorted(
            (key["name"] or "", key["constrained_columns"], key["referred_table"], key["options"])
            for key in inspector.get_foreign_keys(name)
            if key["referred_table"] in PLACES  # and not one of its partitions
        ),
        "indexes": sorted((index["name"] or "", index["column_names"]) for index in inspector.get_indexes(name)),
    }


def test_partitioned_tables_are_as_they_were_and_hold_what_they_held(postgres_url: str) -> None:
    with database_beside(postgres_url, f"{PARTITIONED}_later") as url:
        migrate(url)
        with application(url) as app:
            fill(app)
            with engine_of(app).connect() as connection:
                shapes = {name: shape(connection, name) for name in PLACES}
            before = stored(app)
            partition(url)

            assert stored(app) == before
            with engine_of(app).connect() as connection:
                assert {name: shape(connection, name) for name in PLACES} == shapes
                kinds = connection.exec_driver_sql("SELECT relname FROM pg_class WHERE relkind = 'p'").scalars().all()
                learned = "SELECT count(DISTINCT tableoid) FROM enrollments"
                assert connection.exec_driver_sql(learned).scalar_one() > 1
            assert set(kinds) == {name for name, place in PLACES.items() if place == LEARNER}
            assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0


def fill(app: Flask) -> None:
    """Store rows in every table of learners."""
    service = Caller(app, "service", "lms")
    contents = [{"id": f"c{number}", "title": "A", "type": "video"} for number in range(3)]
    assert (
        service.put("/api/catalog/modules/algebra", json={"title": "Algebra", "contents": contents}).status_code == 201
    )
    updates = [
        {"userId": f"learner-{number}", "contentId": f"c{number % 3}", "timeSpentSeconds": 60, "session": "s1"}
        for number in range(20)
    ]
    assert service.post("/api/progress/batch", json={"updates": updates}).status_code == 200
