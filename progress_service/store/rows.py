"""Many rows as one parameter of a statement: a JSON document (docs/decisions/0001-rows-as-json.md).

The statement is the same for one row and for a thousand, so it is compiled and planned once.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine


class Rows:
    """A table with the given columns, for one dialect, whose rows are a parameter of a statement."""

    def __init__(self, dialect: sa.Dialect, name: str, **columns: TypeEngine[Any]) -> None:
        self.name, self.columns = name, columns
        kinds = {key: kind.dialect_impl(dialect) for key, kind in columns.items()}
        document = sa.bindparam(name, type_=sa.String)
        if dialect.name == "postgresql":
            self._writers: list[Any] = []
            cell, elements = _postgresql_cell, sa.func.jsonb_array_elements(sa.cast(document, JSONB))
        else:
            self._writers = [kind.bind_processor(dialect) for kind in kinds.values()]
            cell, elements = _sqlite_cell, sa.func.json_each(document)
        value = elements.table_valued("value", name=f"{name}_json").c.value
        cells = [cell(value, place, kind).label(key) for place, (key, kind) in enumerate(kinds.items())]
        self.table = sa.select(*cells).subquery(name)
        self.c = self.table.c

    def __call__(self, rows: Iterable[Sequence[Any]]) -> dict[str, str]:
        """Return the parameter with the rows, each of which has the order of the columns."""
        given: list[Any] = [tuple(row) for row in rows]
        if any(len(row) != len(self.columns) for row in given):
            raise ValueError("a row does not fit the columns")
        if self._writers:
            given = [[w(v) if w else v for w, v in zip(self._writers, row, strict=True)] for row in given]
        return {self.name: msgspec.json.encode(given).decode()}


def _postgresql_cell(row: Any, place: int, kind: TypeEngine[Any]) -> sa.ColumnElement[Any]:
    written = sa.type_coerce(row.op("->>")(sa.literal_column(str(place))), sa.String)
    if not isinstance(kind, sa.String):
        return sa.cast(written, kind)
    return written.collate(kind.collation) if kind.collation else written


def _sqlite_cell(row: Any, place: int, kind: TypeEngine[Any]) -> sa.ColumnElement[Any]:
    return sa.type_coerce(sa.func.json_extract(row, sa.literal_column(f"'$[{place}]'")), kind)
