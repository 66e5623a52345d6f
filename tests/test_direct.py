"""Statements that the driver runs behave as those that SQLAlchemy executes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, bindparam, func, insert, literal, select
from sqlalchemy.exc import IntegrityError

from progress_service.store.database import db
from progress_service.store.direct import DirectStatement, execute_command
from progress_service.store.models import ImportedChunk, Module

ADD = DirectStatement(
    insert(Module)
    .values(id=bindparam("id"), title=bindparam("title"), total_weight=3, total_contents=1)
    .returning(Module.title)
)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def connection(app: Flask) -> Iterator[Connection]:
    with app.app_context(), db.engine.connect() as connection, connection.begin():
        yield connection


def test_parameters_and_constants_go_in_and_rows_come_out(connection: Connection) -> None:
    assert ADD.run(connection, id="algebra", title="Algebra", left="over") == [("Algebra",)]
    assert ADD.run(connection, id="biology", title="Biology") == [("Biology",)]

    counted = DirectStatement(
        select(func.count(), literal("modules")).select_from(Module).where(Module.total_weight == 3)
    )
    assert counted.run(connection) == [(2, "modules")]


def test_values_are_written_and_read_by_the_types_of_their_columns(connection: Connection) -> None:
    values: dict[str, Any] = {column.name: bindparam(column.name) for column in ImportedChunk.__table__.columns}
    add = DirectStatement(insert(ImportedChunk).values(values))
    find = DirectStatement(
        select(ImportedChunk.imported_at).where(ImportedChunk.imported_at == bindparam("imported_at"))
    )
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))

    assert add.run(connection, digest="0", lines=1, imported_at=elsewhere) == []
    ((found,),) = find.run(connection, imported_at=elsewhere)
    assert (found, found.tzinfo) == (NOON, UTC)


def test_an_error_of_the_driver_is_raised_as_sqlalchemys(connection: Connection) -> None:
    ADD.run(connection, id="algebra", title="Algebra")

    with pytest.raises(IntegrityError):
        ADD.run(connection, id="algebra", title="Once more")


def test_a_command_is_said_to_the_driver(connection: Connection) -> None:
    ADD.run(connection, id="algebra", title="Algebra")

    execute_command(connection, "ROLLBACK")
    assert DirectStatement(select(Module.id)).run(connection) == []
