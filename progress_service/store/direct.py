"""Statements that are compiled once and run by the driver itself.

To read a row takes 60 microseconds by `Connection.execute` and 25 by the driver, so the statements of most requests use
the driver. SQLAlchemy still writes their SQL, owns connections and transactions, and tells its listeners of these
statements as of its own (`before_cursor_execute`, `after_cursor_execute`).

The rule in this package: upper-case constants and attributes of `Statements` are such statements; everything else goes
through `Connection.execute`.
"""

from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Dialect

Row = tuple[Any, ...]


class DirectStatement:
    """A statement with named parameters, for any dialect."""

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def run(self, connection: Connection, **parameters: Any) -> list[Row]:
        """Run the statement in the connection's transaction, and return its rows.

        Parameters of other statements are ignored. Raises SQLAlchemy's exceptions.
        """
        compiled = self.compiled(connection.dialect)
        return compiled.read(_execute(connection, compiled.sql, compiled.written(parameters), answers=compiled.answers))

    def compiled(self, dialect: Dialect) -> "_Compiled":
        """Return the statement as a dialect's driver takes it."""
        if dialect.name not in self._compiled:
            self._compiled[dialect.name] = _Compiled(self._statement, dialect)
        return self._compiled[dialect.name]


def execute_command(connection: Connection, sql: str) -> None:
    """Send a command that has no parameters and no answer."""
    _execute(connection, sql)


class _Compiled:
    """A statement as a driver takes it, with the conversions of its parameters and columns."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self._order = compiled.positiontup
        self._writers: list[tuple[str, Callable[[Any], Any]]] = []
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
        self.answers = bool(columns)

    def written(self, parameters: dict[str, Any]) -> Any:
        """Return the parameters as the driver takes them."""
        given = self._constants | parameters
        for name, writer in self._writers:
            given[name] = writer(given[name])
        return [given[name] for name in self._order] if self._order else given

    def read(self, rows: list[Row]) -> list[Row]:
        """Return the rows with values of the columns' types."""
        return [self._read(row) for row in rows] if self._readers else rows

    def _read(self, row: Row) -> Row:
        values = list(row)
        for place, reader in self._readers:
            values[place] = reader(values[place])
        return tuple(values)


def _execute(connection: Connection, sql: str, *parameters: Any, answers: bool = False) -> list[Row]:
    """Let the driver execute a statement and fetch its rows, and tell SQLAlchemy's listeners before and after."""
    driver: Any = connection.connection.driver_connection
    context = SimpleNamespace()  # where a listener may keep values between the two calls
    try:
        # An open cursor in the traceback of an error would be reset by the garbage collector, in any thread, which on
        # SQLite waits, and all threads with it, while the connection waits for a lock.
        with closing(driver.cursor()) as cursor:
            for listener in connection.dispatch.before_cursor_execute:
                listener(connection, cursor, sql, parameters, context, False)
            cursor.execute(sql, *parameters)
            rows: list[Row] = cursor.fetchall() if answers else []
            for listener in connection.dispatch.after_cursor_execute:
                listener(connection, cursor, sql, parameters, context, False)
    except connection.dialect.loaded_dbapi.Error as error:  # SQLAlchemy handles it as an error of its own statements
        connection._handle_dbapi_exception(error, None, None, None, None)
    return rows
