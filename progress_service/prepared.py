"""Statements that are compiled once and run by the driver itself.

SQLAlchemy writes the SQL and owns connections and transactions. To execute a small statement through it costs as much
again as the driver takes, so what runs in most requests goes around that part alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Dialect

Row = tuple[Any, ...]
Processor = Callable[[Any], Any]


class Prepared:
    """A statement with named parameters, for any dialect."""

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._compiled: dict[str, Compiled] = {}

    def run(self, connection: Connection, **parameters: Any) -> list[Row]:
        """Run the statement in the connection's transaction, and return its rows.

        Other statements' parameters may be among its own. Raises what SQLAlchemy raises for the driver's errors.
        """
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = Compiled(self._statement, dialect)
        with _translating(connection) as driver:
            return compiled.run(driver, parameters)


def say(connection: Connection, sql: str) -> None:
    """Send a command that has no parameters and no answer."""
    with _translating(connection) as driver:
        driver.execute(sql)


class Compiled:
    """A statement as one driver takes it, with what its values go through on their way there and back."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self._order = compiled.positiontup
        self._writers: list[tuple[str, Processor]] = []
        self._constants: dict[str, Any] = {}
        for bind, name in compiled.bind_names.items():
            writer = bind.type.dialect_impl(dialect).bind_processor(dialect)
            if not bind.required:
                self._constants[name] = writer(bind.value) if writer else bind.value
            elif writer:
                self._writers.append((name, writer))
        columns = list(statement.exported_columns)
        readers = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        self._readers = [(place, reader) for place, reader in enumerate(readers) if reader]
        self._answers = bool(columns)

    def run(self, driver: Any, parameters: dict[str, Any]) -> list[Row]:
        given = self._constants | parameters
        for name, writer in self._writers:
            given[name] = writer(given[name])
        cursor = driver.execute(self.sql, [given[name] for name in self._order] if self._order else given)
        found: list[Row] = cursor.fetchall() if self._answers else []
        return [self._read(row) for row in found] if self._readers else found

    def _read(self, row: Row) -> Row:
        values = list(row)
        for place, reader in self._readers:
            values[place] = reader(values[place])
        return tuple(values)


@contextmanager
def _translating(connection: Connection) -> Iterator[Any]:
    """Give the driver's connection, and let SQLAlchemy handle its errors as those of its own statements."""
    try:
        yield connection.connection.driver_connection
    except connection.dialect.loaded_dbapi.Error as error:
        connection._handle_dbapi_exception(error, None, None, None, None)
