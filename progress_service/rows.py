"""Many rows as the input of one statement.

PostgreSQL takes an array for each column, SQLite one JSON document: neither has a parameter for each value, so the
statement is the same, and is compiled and planned once, whether there is one row or a thousand.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    CursorResult,
    Dialect,
    Executable,
    FromClause,
    String,
    bindparam,
    column,
    func,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine


class Rows:
    """A table of parameters with the given columns, for one dialect."""

    def __init__(self, dialect: Dialect, **columns: TypeEngine[Any]) -> None:
        self.columns = columns
        self._writers: list[Any] = []
        self.table = self._arrays() if dialect.name == "postgresql" else self._document(dialect)
        self.c = self.table.c

    def run(
        self, connection: Connection, statement: Executable, rows: Iterable[Sequence[Any]], **others: Any
    ) -> CursorResult[Any]:
        """Execute a statement over these rows, each in the order of the columns."""
        return connection.execute(statement, self._parameters(list(rows)) | others)

    def _parameters(self, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        if self._writers:
            return {
                "rows": json.dumps(
                    [[w(v) if w else v for w, v in zip(self._writers, row, strict=True)] for row in rows]
                )
            }
        values = zip(*rows, strict=True) if rows else [()] * len(self.columns)
        return {f"rows_{name}": list(values) for name, values in zip(self.columns, values, strict=True)}

    def _arrays(self) -> FromClause:
        arrays = [bindparam(f"rows_{name}", type_=ARRAY(kind)) for name, kind in self.columns.items()]
        names = [column(name, kind) for name, kind in self.columns.items()]
        return func.unnest(*arrays).table_valued(*names, name="incoming").render_derived()

    def _document(self, dialect: Dialect) -> FromClause:
        kinds = [kind.dialect_impl(dialect) for kind in self.columns.values()]
        self._writers = [kind.bind_processor(dialect) for kind in kinds]
        each = func.json_each(bindparam("rows", type_=String)).table_valued("value")
        return select(
            *(
                type_coerce(func.json_extract(each.c.value, f"$[{place}]"), kind).label(name)
                for place, (name, kind) in enumerate(self.columns.items())
            )
        ).subquery("incoming")
