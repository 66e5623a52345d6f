"""Dumps: all of an installation as JSON lines, from one snapshot of either database, to be restored into either.

The first line tells what was dumped, and how many rows of each table follow. Then each table has a line with its name
and its columns, and a line for each row. The last line has the digest of all lines before it.

A dump is restored in chunks, each in a transaction, which also notes how much of the dump is restored. So what was
interrupted goes on from there.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from importlib.metadata import version
from io import BufferedReader
from types import GenericAlias
from typing import Annotated, Any, BinaryIO, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import JSON, Column, Connection, Table, func, select
from sqlalchemy.exc import DataError, IntegrityError

from progress_service.store import arrivals, database, revisions
from progress_service.store.arrivals import TABLES, NotEmpty, Overtaken, Restored
from progress_service.store.direct import insert_many
from progress_service.store.functions import first_open
from progress_service.store.models import UtcDateTime

CHUNK_ROWS, CHUNK_BYTES = 10_000, 8 * 2**20
"""A chunk ends with the row that brings it to so many rows or bytes."""
READ_ROWS = 1000
"""How many rows a dump has in memory."""
LONGEST_LINE = 64 * 2**20
OTHER_DUMP = (
    "The database has begun to be restored from another dump: go on with that one, or begin with an empty database."
)
Parsed = TypeVar("Parsed")


class Line(Struct, tag_field="line", forbid_unknown_fields=True):
    """A line that is not a row."""


class Begin(Line, tag="dump"):
    """What was dumped; `first_open` is the first transaction that had not ended (see `functions`)."""

    form: Annotated[int, Meta(ge=1, le=1)]
    version: str
    schema: str
    time: Annotated[datetime, Meta(tz=True)]
    first_open: int
    rows: dict[str, int]


class Rows(Line, tag="rows"):
    """The rows of a table follow."""

    table: str
    columns: list[str]


class End(Line, tag="end"):
    """The digest of all lines before this one."""

    sha256: str


class Piece(NamedTuple):
    """A part of a dump, and how many rows it has."""

    rows: int
    text: bytes


class Refused(Exception):
    """A dump cannot be made or restored; the text tells people why, in a line."""


def check_schema(connection: Connection) -> None:
    """Raise Refused unless the database has the tables of this version, no less and no more."""
    revision, newest = revisions.of(connection), revisions.known()
    if revision != newest:
        is_later = f"The schema is {revision}, and this version is of {newest}: install a later one."
        raise Refused(revisions.fault(revision, newest) or is_later)


def count(connection: Connection) -> dict[str, int]:
    """Count the rows of each table that is dumped. Raises Refused if the database has another schema."""
    check_schema(connection)
    counts = (select(func.count()).select_from(table).scalar_subquery() for table in TABLES.values())
    return dict(zip(TABLES, connection.execute(select(*counts)).one(), strict=True))


def dump(connection: Connection, rows: dict[str, int], now: datetime) -> Iterator[Piece]:
    """Dump all tables that the snapshot of the connection has, with these numbers of rows."""
    encode, digest = msgspec.json.Encoder().encode_lines, hashlib.sha256()
    first: int = connection.execute(select(first_open())).scalar_one()

    def pieces() -> Iterator[Piece]:
        yield Piece(0, encode([Begin(1, version("progress-service"), revisions.known(), now, first, rows)]))
        for name, table in TABLES.items():
            yield Piece(0, encode([Rows(name, table.columns.keys())]))
            for found in connection.execution_options(yield_per=READ_ROWS).execute(table.select()).partitions():
                yield Piece(len(found), encode(list(map(tuple, found))))

    for piece in pieces():
        digest.update(piece.text)
        yield piece
    yield Piece(0, encode([End(digest.hexdigest())]))


class Restoration:
    """A dump that is restored from a file or pipe, plain or gzip. Everything here raises Refused."""

    def __init__(self, file: BinaryIO) -> None:
        plain = BufferedReader(file)  # type: ignore[type-var]  # it has the methods that are called
        self._file = gzip.GzipFile(fileobj=plain) if plain.peek(1)[:1] == b"\x1f" else plain
        self._lines, self._digest, self._restored = 0, hashlib.sha256(), Restored(0, "")
        try:
            self._begin = msgspec.json.decode(self._read(), type=Begin)
        except (msgspec.MsgspecError, Refused) as error:
            raise Refused("This is no dump.") from error
        newest = revisions.known()
        if self._begin.schema != newest:
            way = f"restore it with version {self._begin.version}, and then run `flask db upgrade` of this one"
            raise Refused(f"The dump is of schema {self._begin.schema}, and this version of {newest}: {way}.")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def rows(self) -> int:
        """The number of all rows."""
        return sum(self._begin.rows.values())

    def run(self) -> Iterator[int]:
        """Restore what is not restored yet; yield how many rows each step has passed.

        Until all is restored, the database is not ready to be served.
        """
        try:
            database.read(check_schema)
            first, first_open = self._here, self._begin.first_open
            self._restored = database.write(partial(arrivals.begin, first=first, first_open=first_open))
            for name, number in self._begin.rows.items():
                yield from self._restore_table(name, number)
            self._check_end()
            database.write(partial(arrivals.end, last=self._restored))
        except NotEmpty as error:
            raise Refused(f"The database is not empty: it has {', '.join(error.tables)}.") from error
        except Overtaken as error:
            raise Refused("Another restore into this database is under way.") from error
        except (IntegrityError, DataError) as error:
            detail = str(error.orig).partition("\n")[0]
            raise Refused(f"Rows behind line {self._restored.lines} cannot be stored: {detail}.") from error

    def _restore_table(self, name: str, number: int) -> Iterator[int]:
        header, table = self._parse(self._read(), msgspec.json.Decoder(Rows)), TABLES.get(name)
        if table is None or header.table != name or set(header.columns) != set(table.columns.keys()):
            raise Refused(f"Line {self._lines} does not begin the rows of a table of this version.")
        decoder = _decoder(table.c[column] for column in header.columns)
        while number:
            rows, passed = self._read_chunk(number, decoder)
            if rows:
                self._store(table, header.columns, rows)
            number -= passed
            yield passed

    def _store(self, table: Table, names: Sequence[str], rows: Sequence[Any]) -> None:
        here = self._here

        def work(connection: Connection) -> None:
            arrivals.go_on(connection, self._restored, here)
            insert_many(connection, table, names, rows)

        database.write(work)
        self._restored = here

    def _read_chunk(self, most: int, decoder: msgspec.json.Decoder[Any]) -> tuple[list[Any], int]:
        """Read the rows of a chunk, and tell how many were passed with those that are restored already."""
        rows: list[Any] = []
        passed = size = 0
        while passed < most and len(rows) < CHUNK_ROWS and size < CHUNK_BYTES:
            line = self._read()
            passed += 1
            if self._lines > self._restored.lines:
                rows.append(self._parse(line, decoder))
                size += len(line)
        return rows, passed

    def _check_end(self) -> None:
        digest = self._here.digest
        end = self._parse(self._read(), msgspec.json.Decoder(End))
        if self._lines <= self._restored.lines:
            raise Refused(OTHER_DUMP)
        if end.sha256 != digest or self._read_text():
            raise Refused("The dump has changed since it was made: begin anew with an empty database.")

    @property
    def _here(self) -> Restored:
        return Restored(self._lines, self._digest.hexdigest())

    def _read(self) -> bytes:
        """Read the next line, and compare with what is restored of these lines."""
        line = self._read_text()
        if not line.endswith(b"\n"):
            raise Refused(self._cut_off)
        self._digest.update(line)
        self._lines += 1
        if self._lines == self._restored.lines and self._here != self._restored:
            raise Refused(OTHER_DUMP)
        return line

    def _read_text(self) -> bytes:
        try:
            return self._file.readline(LONGEST_LINE)
        except (EOFError, OSError, zlib.error) as error:
            raise Refused(self._cut_off) from error

    @property
    def _cut_off(self) -> str:
        return f"The dump is cut off behind line {self._lines}."

    def _parse(self, line: bytes, decoder: msgspec.json.Decoder[Parsed]) -> Parsed:
        try:
            return decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise Refused(f"Line {self._lines} is not of a dump: {error}.") from error


def _decoder(columns: Iterable[Column[Any]]) -> msgspec.json.Decoder[Any]:
    row: Any = GenericAlias(tuple, tuple(map(_type, columns)))
    return msgspec.json.Decoder(row)


def _type(column: Column[Any]) -> Any:
    """Return the type of a column's values."""
    match column.type:
        case UtcDateTime():
            kind: Any = Annotated[datetime, Meta(tz=True)]
        case JSON():
            kind = Any
        case other:
            kind = other.python_type
    return kind | None if column.nullable else kind
