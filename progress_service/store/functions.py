"""SQL functions and conditions that the two databases write differently, or that several statements share."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, String, case, cast, func, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class utc_day(FunctionElement[str]):  # noqa: N801  named like an SQL function
    """The UTC day of a time, as text."""

    type = String()
    inherit_cache = True


class utc_week(FunctionElement[str]):  # noqa: N801
    """The Monday of a time's week in UTC, as text."""

    type = String()
    inherit_cache = True


class settled_after(FunctionElement[int]):  # noqa: N801
    """The last transaction that has to end before a change that is written now has its place among all changes.

    On PostgreSQL that is this transaction, or a later one that has ended: so the changes of a transaction that waited
    for another one come later, and do not wait for a transaction that never comes. SQLite writes one transaction after
    another. What was brought from elsewhere (see `models.Arrival`) comes before all of them.
    """

    type = BigInteger()
    inherit_cache = True


class first_open(FunctionElement[int]):  # noqa: N801
    """The first transaction that has not ended. On SQLite none is under way that others could see."""

    type = BigInteger()
    inherit_cache = True


class json_text(FunctionElement[str]):  # noqa: N801
    """A JSON object of names and values in turn, as text."""

    type = String()
    inherit_cache = True


ORDER_OFFSET = "coalesce((SELECT max(order_offset) FROM arrivals), 0)"


@compiles(settled_after, "postgresql")
def _postgresql_settled_after(element: settled_after, compiler: Any, **kwargs: Any) -> str:
    of_ended = "CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT) - 1"
    return f"greatest({of_ended}, CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)) + {ORDER_OFFSET}"


@compiles(settled_after, "sqlite")
def _sqlite_settled_after(element: settled_after, compiler: Any, **kwargs: Any) -> str:
    return ORDER_OFFSET


@compiles(first_open, "postgresql")
def _postgresql_first_open(element: first_open, compiler: Any, **kwargs: Any) -> str:
    return f"(CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT) + {ORDER_OFFSET})"


@compiles(first_open, "sqlite")
def _sqlite_first_open(element: first_open, compiler: Any, **kwargs: Any) -> str:
    return f"(1 + {ORDER_OFFSET})"


@compiles(json_text, "postgresql")
def _postgresql_json(element: json_text, compiler: Any, **kwargs: Any) -> str:
    return f"CAST(json_build_object({compiler.process(element.clauses, **kwargs)}) AS TEXT)"


@compiles(json_text, "sqlite")
def _sqlite_json(element: json_text, compiler: Any, **kwargs: Any) -> str:
    return f"json_object({compiler.process(element.clauses, **kwargs)})"


@compiles(utc_day, "postgresql")
def _postgresql_day(element: utc_day, compiler: Any, **kwargs: Any) -> str:
    return f"to_char(timezone('UTC', {compiler.process(element.clauses, **kwargs)}), 'YYYY-MM-DD')"


@compiles(utc_day, "sqlite")
def _sqlite_day(element: utc_day | utc_week, compiler: Any, **kwargs: Any) -> str:
    # The text as it is stored: SQLite's date functions round a day's last half millisecond into the next day.
    return f"substr({compiler.process(element.clauses, **kwargs)}, 1, 10)"


@compiles(utc_week, "postgresql")
def _postgresql_week(element: utc_week, compiler: Any, **kwargs: Any) -> str:
    return f"to_char(date_trunc('week', timezone('UTC', {compiler.process(element.clauses, **kwargs)})), 'YYYY-MM-DD')"


@compiles(utc_week, "sqlite")
def _sqlite_week(element: utc_week, compiler: Any, **kwargs: Any) -> str:
    return f"date({_sqlite_day(element, compiler, **kwargs)}, 'weekday 0', '-6 days')"


def item_of(period: Any, content_id: Any) -> ColumnElement[str]:
    """Return the item of a group of a week or day and a content (see `tallies.item_of`)."""
    item: ColumnElement[str] = period + " " + content_id
    return item


def content_of(item: Any) -> ColumnElement[str]:
    """Return the content that is named in the item of a group of a week or day."""
    return func.substr(item, literal_column(str(len("2026-01-31 ") + 1)))


def earlier_of(time: Any, other: Any) -> ColumnElement[Any]:
    """Return the earlier of two times; either may be null."""
    return case((time.is_(None), other), (other < time, other), else_=time)


def one_of(column: Any, words: Collection[str]) -> ColumnElement[bool]:
    """Compare with words that stand in the statement, since the length of a list of parameters is not known yet."""
    condition: ColumnElement[bool] = column.in_([literal_column(f"'{word}'") for word in words])
    return condition


def summed_to_int(total: Any) -> ColumnElement[int]:
    """Make a sum an integer, since PostgreSQL returns a decimal; the sum of no rows is 0."""
    return cast(func.coalesce(total, 0), BigInteger)
