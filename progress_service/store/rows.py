"""Many rows as one parameter of a statement: a JSON document (docs/decisions/0001-rows-as-json.md).

The statement is the same for one row and for a thousand, so it is compiled and planned once.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Dialect,
    FromClause,
    String,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine


class Rows:
    """A table with the given columns, for one dialect, whose rows are a parameter of a statement."""

    def __init__(self, dialect: Dialect, name: str, **columns: TypeEngine[Any]) -> None:
        self.columns = columns
        self.name = name
        self._writers: list[Any] = []
        if dialect.name != "postgresql":
            self._writers = [kind.dialect_impl(dialect).bind_processor(dialect) for kind in columns.values()]
        table = _postgresql_table if dialect.name == "postgresql" else _sqlite_table
        self.table = table(name, {key: kind.dialect_impl(dialect) for key, kind in columns.items()})
        self.c = self.table.c

    def __call__(self, rows: Iterable[Sequence[Any]]) -> dict[str, str]:
        """Return the parameter with the rows, each of which has the order of the columns."""
        given: list[Any] = [tuple(row) for row in rows]
        if any(len(row) != len(self.columns) for row in given):
            raise ValueError("a row does not fit the columns")
        if self._writers:
            given = [[w(v) if w else v for w, v in zip(self._writers, row, strict=True)] for row in given]
        return {self.name: msgspec.json.encode(given).decode()}


def _postgresql_table(name: str, columns: dict[str, TypeEngine[Any]]) -> FromClause:
    each = func.jsonb_array_elements(cast(bindparam(name, type_=String), JSONB)).table_valued(
        "value", name=f"{name}_json"
    )

    def cell(place: int, kind: TypeEngine[Any]) -> ColumnElement[Any]:
        written = type_coerce(each.c.value.op("->>")(literal_column(str(place))), String)
        if not isinstance(kind, String):
            return cast(written, kind)
        return written.collate(kind.collation) if kind.collation else written

    return select(*(cell(place, kind).label(key) for place, (key, kind) in enumerate(columns.items()))).subquery(name)


def _sqlite_table(name: str, columns: dict[str, TypeEngine[Any]]) -> FromClause:
    each = func.json_each(bindparam(name, type_=String)).table_valued("value", name=f"{name}_json")

    def cell(place: int, kind: TypeEngine[Any]) -> ColumnElement[Any]:
        return type_coerce(func.json_extract(each.c.value, literal_column(f"'$[{place}]'")), kind)

    return select(*(cell(place, kind).label(key) for place, (key, kind) in enumerate(columns.items()))).subquery(name)
