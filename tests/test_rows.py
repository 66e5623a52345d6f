"""Values of every type of column survive the way into a statement and back, one row or a thousand."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    SmallInteger,
    String,
    Uuid,
    bindparam,
    func,
    insert,
    literal,
    select,
)

from progress_service.store.database import db
from progress_service.store.direct import DirectStatement
from progress_service.store.models import IDENTIFIER, Module, UtcDateTime
from progress_service.store.rows import Rows

KINDS: dict[str, Any] = {
    "place": BigInteger(),
    "identifier": IDENTIFIER,
    "text": String(255),
    "moment": UtcDateTime(),
    "key": Uuid(),
    "flag": Boolean(),
    "small": SmallInteger(),
    "big": BigInteger(),
}
PLAIN = {
    "identifier": "sam",
    "text": "plain",
    "moment": datetime(2025, 1, 31, 12, 30, tzinfo=UTC),
    "key": UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    "flag": True,
    "small": 7,
    "big": 11,
}
EDGES: dict[str, list[Any]] = {
    "identifier": ["A.b_c:d@e|f+g~h-i", "0", "null"],
    "text": [
        "",
        "it's \"quoted\" and `ticked` ''twice''",
        'back\\slash, {brace, "inner"}, [bracket], $1, %s, %(name)s, :name',
        "NULL",
        "null",
        '{"a": 1}',
        "12",
        "true",
        "line\nfeed\r\n\ttab \u2028 \x01",
        "Grüße, Ωμέγα, 漢字, שלום, 🎓👩\u200d🏫, e\u0301",
        "x" * 255,
    ],
    "moment": [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2025, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2025, 3, 30, 2, 30, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        datetime(2025, 1, 1, tzinfo=timezone(timedelta(hours=-11))),
    ],
    "key": [UUID(int=0), UUID(int=2**128 - 1)],
    "flag": [False],
    "small": [0, 32767, -32768],
    "big": [0, 2**53 + 1, 2**63 - 1, -(2**63)],
}
ROWS: list[dict[str, Any]] = [
    PLAIN,
    dict.fromkeys(PLAIN),
    *(PLAIN | {name: None} for name in PLAIN),
    *(PLAIN | {name: value} for name, edges in EDGES.items() for value in edges),
    *(dict.fromkeys(PLAIN) | {name: value} for name, edges in EDGES.items() for value in edges),
]


@pytest.fixture
def connection(app: Flask) -> Iterator[Connection]:
    with app.app_context(), db.engine.connect() as connection:
        yield connection


def sent_and_received(connection: Connection, values: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    rows = Rows(connection.dialect, "given", **KINDS)
    given = [(place, *value.values()) for place, value in enumerate(values)]
    return DirectStatement(select(rows.table).order_by(rows.c.place)).run(connection, **rows(given))


def test_one_row_comes_back_as_it_was_given(connection: Connection) -> None:
    for value in ROWS:
        (received,) = sent_and_received(connection, [value])

        assert received == (0, *value.values())
        assert [type(one) for one in received[1:]] == [type(one) for one in value.values()]


def test_a_thousand_rows_come_back_as_they_were_given(connection: Connection) -> None:
    values = [ROWS[place % len(ROWS)] for place in range(1000)]

    received = sent_and_received(connection, values)

    assert received == [(place, *value.values()) for place, value in enumerate(values)]


def test_a_column_of_nothing_but_null_stays_null(connection: Connection) -> None:
    nothing = dict.fromkeys(PLAIN)

    assert sent_and_received(connection, [nothing] * 1000) == [(place, *nothing.values()) for place in range(1000)]


def test_times_come_back_in_utc(connection: Connection) -> None:
    moments = [PLAIN | {"moment": moment} for moment in EDGES["moment"]]

    assert {row[3].tzinfo for row in sent_and_received(connection, moments)} == {UTC}


def test_no_rows_are_an_empty_table(connection: Connection) -> None:
    rows = Rows(connection.dialect, "given", **KINDS)

    assert sent_and_received(connection, []) == []
    assert DirectStatement(select(func.count()).select_from(rows.table)).run(connection, **rows([])) == [(0,)]


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_statement_can_insert_the_rows_and_take_other_parameters_too(connection: Connection, count: int) -> None:
    rows = Rows(connection.dialect, "given", id=IDENTIFIER, title=String(200))
    chosen = select(rows.c.id, rows.c.title, func.length(rows.c.title), literal(0)).where(
        rows.c.id != bindparam("left_out", type_=IDENTIFIER)
    )
    statement = insert(Module).from_select(["id", "title", "total_weight", "total_contents"], chosen)

    given = rows((f"m{place}", "Größe'") for place in range(count))
    DirectStatement(statement).run(connection, left_out="m0", **given)

    stored = set(connection.execute(select(Module.id, Module.title, Module.total_weight)))
    assert stored == {(f"m{place}", "Größe'", 6) for place in range(1, count)}


@pytest.mark.parametrize("row", [("m1",), ("m1", "One", "more")])
def test_a_row_that_does_not_fit_the_columns_is_an_error(connection: Connection, row: tuple[str, ...]) -> None:
    rows = Rows(connection.dialect, "given", id=IDENTIFIER, title=String(200))

    for given in ([row], [("m0", "Zero"), row]):
        with pytest.raises(ValueError, match="fit"):
            rows(given)
