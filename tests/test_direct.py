"""Statements that the driver runs behave as those that SQLAlchemy executes."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, String, bindparam, column, func, insert, literal, select, table
from sqlalchemy.exc import DBAPIError, IntegrityError

from progress_service.store.database import db
from progress_service.store.direct import DirectStatement, send_command
from progress_service.store.models import ImportedChunk, Module
from tests.test_faults import execute
from tests.waiting import wait_until

ADD = DirectStatement(
    insert(Module)
    .values(id=bindparam("id"), title=bindparam("title"), total_weight=3, total_contents=1)
    .returning(Module.title)
)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def connection(app: Flask) -> Iterator[Connection]:
    with app.app_context(), db.engine.connect() as connection:
        connection.begin()
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

    assert add.run(connection, digest="0", lines=1, imported_at=elsewhere, behind=None, line_digests=None) == []
    ((found,),) = find.run(connection, imported_at=elsewhere)
    assert (found, found.tzinfo) == (NOON, UTC)


def test_an_error_of_the_driver_is_raised_as_sqlalchemys(connection: Connection) -> None:
    ADD.run(connection, id="algebra", title="Algebra")

    with pytest.raises(IntegrityError):
        ADD.run(connection, id="algebra", title="Once more")


def test_statements_of_sqlalchemy_come_after_what_was_sent_before(connection: Connection) -> None:
    ADD.send(connection, id="algebra", title="Algebra")

    assert connection.execute(select(Module.title)).all() == [("Algebra",)]
    connection.rollback()
    assert connection.execute(select(Module.title)).all() == []


def test_what_is_sent_waits_for_nothing_and_its_rows_come_later(connection: Connection) -> None:
    first = ADD.send(connection, id="algebra", title="Algebra")
    second = ADD.send(connection, id="biology", title="Biology")

    assert [second(), first(), first()] == [[("Biology",)], [("Algebra",)], [("Algebra",)]]


def test_what_was_sent_in_vain_is_forgotten_with_its_transaction(connection: Connection) -> None:
    ADD.send(connection, id="algebra", title="Algebra")
    connection.rollback()
    connection.begin()

    assert DirectStatement(select(Module.id)).run(connection) == []


def test_more_than_a_socket_takes_at_once_goes_and_comes(connection: Connection) -> None:
    given = "x" * 5_000_000
    echo = DirectStatement(select(bindparam("given", type_=String)))

    assert echo.run(connection, given=given) == [(given,)]
    assert [rows() for rows in [echo.send(connection, given=given) for _ in range(3)]] == [[(given,)]] * 3


def test_after_an_error_the_same_statements_serve(app: Flask) -> None:
    nowhere = DirectStatement(select(column("x")).select_from(table("nowhere")))
    with app.app_context():
        for _ in range(2):
            with db.engine.connect() as connection, connection.begin() as transaction:
                ADD.send(connection, id="algebra", title="Algebra")
                with pytest.raises(DBAPIError):
                    nowhere.run(connection)
                transaction.rollback()
        with db.engine.connect() as connection, connection.begin() as transaction:
            assert ADD.run(connection, id="algebra", title="Algebra") == [("Algebra",)]
            transaction.rollback()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Heed interruptions, which programs in the background do not."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
def test_a_connection_that_is_interrupted_while_it_waits_is_not_used_again(app: Flask, database_url: str) -> None:
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg\\_sleep(%'"

    def interrupt() -> None:
        wait_until(lambda: bool(execute(database_url, sleeping)))
        os.kill(os.getpid(), signal.SIGINT)

    with app.app_context(), ThreadPoolExecutor(1) as thread:
        with db.engine.connect() as connection, connection.begin() as transaction:
            driver = connection.connection.driver_connection
            thread.submit(interrupt)
            with pytest.raises(KeyboardInterrupt):
                DirectStatement(select(func.pg_sleep(60))).run(connection)
            assert driver is not None
            assert driver.closed
            transaction.rollback()
        with db.engine.connect() as connection, connection.begin():
            assert DirectStatement(select(literal(1))).run(connection) == [(1,)]


def test_a_command_is_said_to_the_driver(connection: Connection) -> None:
    ADD.run(connection, id="algebra", title="Algebra")

    send_command(connection, "ROLLBACK")
    assert DirectStatement(select(Module.id)).run(connection) == []
