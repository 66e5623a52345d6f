"""Statements that are compiled once and run by the driver itself.

To read a row takes 60 microseconds by `Connection.execute` and 25 by the driver, so the statements of most requests use
the driver. SQLAlchemy still writes their SQL, owns connections and transactions, and tells its listeners of these
statements as of its own (`before_cursor_execute`, `after_cursor_execute`). On PostgreSQL they travel together (see
`pipeline`), and listeners are told when a statement is queued and when it is answered, without a cursor.

The rule in this package: upper-case constants and attributes of `Statements` are such statements; everything else goes
through `Connection.execute`.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

from sqlalchemy import Connection, Dialect, Table, insert

from progress_service.store.pipeline import PipelinedConnection, Row, Travelling


class DirectStatement:
    """A statement with named parameters, for any dialect."""

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def run(self, connection: Connection, **parameters: Any) -> list[Row]:
        """Run the statement in the connection's transaction, and return its rows.

        Parameters of other statements are ignored. Raises SQLAlchemy's exceptions.
        """
        return self.send(connection, **parameters)()

    def send(self, connection: Connection, **parameters: Any) -> Callable[[], list[Row]]:
        """Run the statement before all that are sent later; return a function that waits for its rows.

        On PostgreSQL it travels with the next one that is waited for, or with COMMIT, which raises its error too.
        """
        compiled = self.compiled(connection.dialect)
        given = compiled.written(parameters)
        rows = _send(connection, compiled.sql, given, numbered=compiled.numbered, answers=compiled.answers)
        return lambda: compiled.read(rows())

    def compiled(self, dialect: Dialect) -> "_Compiled":
        """Return the statement as a dialect's driver takes it."""
        if dialect.name not in self._compiled:
            self._compiled[dialect.name] = _Compiled(self._statement, dialect)
        return self._compiled[dialect.name]


def send_command(connection: Connection, sql: str) -> None:
    """Send a command that has no parameters and no answer; on PostgreSQL it travels with the next statement."""
    _send(connection, sql, [], numbered=sql)


def insert_many(connection: Connection, table: Table, names: Sequence[str], rows: Iterable[Row]) -> None:
    """Insert rows, which have the order of the named columns; on PostgreSQL by COPY. Raises SQLAlchemy's exceptions.

    COPY takes a third of the time of INSERT.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, PipelinedConnection):
        connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
        return
    dialect = connection.dialect
    writers = [table.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in names]
    quoted = map(dialect.identifier_preparer.quote, names)
    _raising(connection, _copy, driver, f"COPY {table.name} ({', '.join(quoted)}) FROM STDIN", writers, rows)


def _copy(driver: PipelinedConnection, sql: str, writers: Sequence[Any], rows: Iterable[Row]) -> list[Row]:
    driver.send()
    with driver.cursor() as cursor, cursor.copy(sql) as copy:
        for row in rows:
            copy.write_row(
                [writer(v) if writer and v is not None else v for writer, v in zip(writers, row, strict=True)]
            )
    return []


class _Compiled:
    """A statement as a driver takes it, with the conversions of its parameters and columns."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self._order = compiled.positiontup if dialect.positional else list(compiled.bind_names.values())
        places = {name: f"${place}" for place, name in enumerate(self._order, 1)}
        self.numbered = self.sql if dialect.positional else self.sql % places
        """The statement with $1, $2 … in place of names."""
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

    def written(self, parameters: dict[str, Any]) -> list[Any]:
        """Return the parameters in their order, as the driver takes them."""
        given = self._constants | parameters
        for name, writer in self._writers:
            given[name] = writer(given[name])
        return [given[name] for name in self._order]

    def read(self, rows: list[Row]) -> list[Row]:
        """Return the rows with values of the columns' types."""
        return [self._read(row) for row in rows] if self._readers else rows

    def _read(self, row: Row) -> Row:
        values = list(row)
        for place, reader in self._readers:
            values[place] = reader(values[place])
        return tuple(values)


def _send(
    connection: Connection, sql: str, parameters: list[Any], *, numbered: str, answers: bool = False
) -> Callable[[], list[Row]]:
    """Give a statement to the driver; return a function that waits for its rows."""
    driver: Any = connection.connection.driver_connection
    context = SimpleNamespace()  # where a listener may keep values between the two calls

    def tell(when: Literal["before", "after"], cursor: Any = None) -> None:
        for listener in getattr(connection.dispatch, f"{when}_cursor_execute"):
            listener(connection, cursor, sql, parameters, context, False)

    if isinstance(driver, PipelinedConnection):
        tell("before")
        travelling = Travelling(numbered, parameters, partial(tell, "after"))
        driver.queue(travelling)
        return partial(_raising, connection, driver.rows, travelling)
    rows = _raising(connection, _execute, driver, sql, parameters, answers, tell)
    return lambda: rows


def _execute(
    driver: Any, sql: str, parameters: list[Any], answers: bool, tell: Callable[[Any, Any], None]
) -> list[Row]:
    # An open cursor in the traceback of an error would be reset by the garbage collector, in any thread, which on
    # SQLite waits, and all threads with it, while the connection waits for a lock.
    with closing(driver.cursor()) as cursor:
        tell("before", cursor)
        cursor.execute(sql, parameters)
        rows: list[Row] = cursor.fetchall() if answers else []
        tell("after", cursor)
    return rows


def _raising(connection: Connection, call: Callable[..., list[Row]], *arguments: Any) -> list[Row]:
    """Call the driver; SQLAlchemy handles errors, and interruptions, as those of its own statements."""
    try:
        return call(*arguments)
    except BaseException as error:
        connection._handle_dbapi_exception(error, None, None, None, None)
