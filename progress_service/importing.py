"""Loading files of updates and enrollments in chunks, each applied once however often the file is given.

With each chunk, in its transaction, stands the digest of all that the file holds up to the chunk's end. A file that
begins with content whose digest is known resumes behind it: after an interruption, after a correction of a later
line, or when lines have been added.
"""

import csv
import gzip
import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from marshmallow import Schema, ValidationError
from sqlalchemy import Connection, insert, select

from progress_service import storage
from progress_service.errors import Fault
from progress_service.models import ImportedChunk
from progress_service.recorder import Refused
from progress_service.validation import Number, faults_of, parse_json, written_number

CHUNK_LINES = 1000


class Kind(NamedTuple):
    """What a file holds: its name, the schema of a line, and how loaded lines are stored."""

    name: str
    schema: Schema
    store: Callable[[Connection, Sequence[Any], datetime], None]


class BadLines(Exception):
    """Lines of a chunk are wrong; holds their numbers and faults. Nothing of the chunk is stored."""

    def __init__(self, *faults: tuple[int, Fault]) -> None:
        self.faults = faults


class Line(NamedTuple):
    """One line as read: the number it ends at, what it says, and the digest of all content up to its end."""

    number: int
    cells: dict[str, Any]
    digest: str


class Source:
    """A file of lines, plain or compressed by gzip: CSV with a header, or JSON objects."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path, self.kind = path, kind
        self._digest = hashlib.sha256()

    def count(self) -> int:
        """Return how many lines the file has."""
        return sum(1 for _ in self._decoded())

    def resume(self, known: set[str]) -> int:
        """Return how many lines of the file, from its first one, are stored already."""
        return max((n for n, _ in enumerate(self._decoded(), 1) if self._digest.hexdigest() in known), default=0)

    def lines(self) -> Iterator[Line]:
        """Read the file line by line; raises BadLines for one that is not of the file's form."""
        lines = self._decoded()
        first = next(lines, "")
        return self._objects(first, lines) if first.lstrip().startswith("{") else self._table(first, lines)

    def _decoded(self) -> Iterator[str]:
        self._digest = hashlib.sha256(self.kind.name.encode())
        with self.path.open("rb") as file:
            compressed = file.peek(2)[:2] == b"\x1f\x8b"
            for number, line in enumerate(gzip.GzipFile(fileobj=file) if compressed else file, 1):
                self._digest.update(line.rstrip(b"\r\n") + b"\n")  # the last line may have no end yet
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise BadLines((number, Fault("", "Is not UTF-8."))) from error

    def _objects(self, first: str, rest: Iterator[str]) -> Iterator[Line]:
        for number, line in enumerate(chain([first], rest), 1):
            if not line.strip():
                continue
            try:
                cells = parse_json(line.encode())
            except ValueError as error:
                raise BadLines((number, Fault("", "Is not JSON."))) from error
            yield Line(number, cells, self._digest.hexdigest())

    def _table(self, first: str, rest: Iterator[str]) -> Iterator[Line]:
        rows = csv.reader(chain([first], rest), strict=True)
        header = self._row(rows) or []
        while (row := self._row(rows)) is not None:
            if not row:
                continue
            if len(row) != len(header):
                detail = f"Has {len(row)} cells, where the header has {len(header)}."
                raise BadLines((rows.line_num, Fault("", detail)))
            cells = {name: self._cell(name, cell) for name, cell in zip(header, row, strict=True) if cell}
            yield Line(rows.line_num, cells, self._digest.hexdigest())

    def _row(self, rows: Any) -> list[str] | None:
        begins = rows.line_num + 1
        try:
            return next(rows, None)
        except csv.Error as error:
            raise BadLines((begins, Fault("", f"Is not CSV: {error}."))) from error

    def _cell(self, name: str, cell: str) -> Any:
        return written_number(cell) if isinstance(self.kind.schema.fields.get(name), Number) else cell


def run(source: Source, now: datetime) -> Iterator[tuple[int, int]]:
    """Import a file from where it was left, chunk by chunk; yield the last line done and how many were stored.

    Raises BadLines; the chunks before the bad one stay stored.
    """
    known = storage.read(lambda connection: set(connection.execute(select(ImportedChunk.digest)).scalars()))
    done = source.resume(known)
    yield done, 0
    lines = (line for line in source.lines() if line.number > done)
    while chunk := list(islice(lines, CHUNK_LINES)):
        yield chunk[-1].number, _store(source.kind, chunk, now)


def _store(kind: Kind, chunk: Sequence[Line], now: datetime) -> int:
    """Store a chunk's lines, all or none, unless another import has stored the same content meanwhile."""
    loaded: list[dict[str, Any]] = []
    faults: list[tuple[int, Fault]] = []
    for line in chunk:
        try:
            loaded.append(kind.schema.load(line.cells))
        except ValidationError as error:
            faults += [(line.number, fault) for fault in faults_of(error)]
    if faults:
        raise BadLines(*faults)
    applied = {"digest": chunk[-1].digest, "lines": chunk[-1].number, "imported_at": now}

    def work(connection: Connection) -> int:
        if connection.execute(select(ImportedChunk.lines).filter_by(digest=applied["digest"])).first():
            return 0
        connection.execute(insert(ImportedChunk).values(applied))
        kind.store(connection, loaded, now)
        return len(loaded)

    try:
        return storage.write(work)
    except Refused as refused:
        fault = Fault("", str(refused.__doc__))
        raise BadLines(*((chunk[place].number, fault) for place in refused.places)) from refused
