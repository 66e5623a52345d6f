"""Import of files with updates or enrollments, in chunks. A chunk is applied once, however often a file is given.

Each chunk is stored with a digest of the names and values of all cells up to its end, which does not depend on the form
of the file. An import continues behind the last chunk whose digest is stored: after an interruption, after a correction
of a later line, or when lines have been added. Two chunks are stored at a time, and committed in their order.

Several imports may read the same file while it grows. A chunk ends behind each 1000th line, and where the file ends. So
what others have stored of a chunk are its first lines, or the lines of a chunk that goes on behind it. Of these there
is a short digest for each line.
"""

import codecs
import csv
import gc
import gzip
import hashlib
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from datetime import datetime
from decimal import Context, Decimal
from io import SEEK_END, BufferedReader, TextIOWrapper
from itertools import chain, islice
from textwrap import shorten
from typing import Any, BinaryIO, NamedTuple

from flask import current_app
from marshmallow import Schema, ValidationError
from sqlalchemy import Connection, func, insert, select

from progress_service.store import database
from progress_service.store.database import Outdated
from progress_service.store.models import ImportedChunk
from progress_service.store.recorder import Refused
from progress_service.store.statements import Statements
from progress_service.web.problems import REFUSALS, Fault
from progress_service.web.validation import (
    Instant,
    Number,
    Truth,
    faults_of,
    parse_first_json,
    parse_json,
    written_number,
)

CHUNK_LINES = 1000
LONGEST_LINE = 65_536
"""The most characters of a line, or of an object in a JSON array."""
WRITERS = 2
"""The number of chunks that are on their way to the database at a time."""
LONGEST_WAIT = 0.25
"""The most seconds that a chunk holds its locks while it waits for the chunk before it, which may need them.

Then the chunk gives them up, and is stored anew when the chunk before it is committed.
"""

SHORT_DIGEST = 8
"""The number of bytes that are stored of the digest up to each line."""

TRUTHS = {"true": True, "false": False}

_TOKEN = re.compile(r"[^ \t\r\n]")
_FOLLOWING = {"[": "{]", "{": ",]", ",": "{", "]": ""}
"""The signs that may follow each sign in a JSON array of objects; `{` stands for a complete object."""
_NUMBERS = Context(prec=100, traps=[])
_CANONICAL = json.JSONEncoder(sort_keys=True)


class Kind(NamedTuple):
    """A kind of file: its name, the schema of a line, and the function that stores loaded lines."""

    name: str
    schema: Schema
    store: Callable[[Connection, Sequence[Any], datetime], None]


class BadLines(Exception):
    """Lines of a chunk have faults, so that nothing of the chunk is stored; `faults` has the number of each line."""

    def __init__(self, *faults: tuple[int, Fault]) -> None:
        self.faults = faults


class Line(NamedTuple):
    """A line, or an object of a JSON array: its number, cells and pointer, and the digests of all content so far.

    The first digest is stored; earlier versions of the service have stored the others. `behind` is the first digest of
    the content before the line.
    """

    number: int
    cells: dict[str, Any]
    digests: Sequence[str]
    pointer: str
    behind: str

    @property
    def short_digest(self) -> bytes:
        return bytes.fromhex(self.digests[0])[:SHORT_DIGEST]


class Source:
    """A file or pipe that is read once: CSV with a header, or JSON objects in lines or in an array; plain or gzip.

    A last line without a line end may be incomplete. It is left out, and `left` is its number, unless the file is
    `complete` or nothing could follow in the line.
    """

    def __init__(self, file: BinaryIO, kind: Kind, *, complete: bool = False) -> None:
        self.kind, self.complete = kind, complete
        self.left: int | None = None
        self.size: int | None = None
        """The bytes of the file; None if their number is not known."""
        if file.seekable():
            begin = file.tell()
            self.size = file.seek(0, SEEK_END) or None
            file.seek(begin)
        self._file = file
        self._number, self._has_end, self._is_last = 0, True, False
        self._digest = hashlib.sha256(kind.name.encode())
        # Earlier versions took digests of the bytes of the lines, and of a byte order mark.
        self._bytes_digests = [hashlib.sha256(kind.name.encode() + mark) for mark in (b"", codecs.BOM_UTF8)]

    @property
    def position(self) -> int:
        """The number of bytes that are read or, if `size` is not known, of lines."""
        if self.size is None:
            return self._number
        return self.size if self._file.closed else self._file.tell()

    def lines(self) -> Iterator[Line]:
        """Read the file line by line. Raises BadLines for a line that does not have the form of the file."""
        pieces = self._pieces()
        first = next((piece for piece in pieces if not piece.isspace()), None)
        if first is None:
            raise BadLines((1, Fault("", "Holds nothing: neither a header nor JSON.")))
        pieces = chain([first], pieces)
        match first.lstrip()[0]:
            case "[":
                return self._array(pieces)
            case "{":
                return self._objects(self._complete_lines(pieces))
            case _:
                return self._table(self._complete_lines(pieces))

    def _pieces(self) -> Iterator[str]:
        """Read the text line by line; a line that is too long is read in pieces."""
        with ExitStack() as opened:
            file = opened.enter_context(BufferedReader(self._file))  # type: ignore[type-var]  # it has the methods that are called
            is_gzip = file.peek(1)[:1] == b"\x1f"  # no text begins so; a pipe may not have a second byte yet
            binary = gzip.GzipFile(fileobj=file) if is_gzip else file
            text = TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline="")
            opened.enter_context(text)
            while piece := text.readline(LONGEST_LINE):
                self._number += self._has_end
                self._has_end = piece.endswith(("\n", "\r"))
                self._is_last = not self._has_end and len(piece) < LONGEST_LINE
                try:
                    piece.encode()
                except UnicodeEncodeError as error:
                    if self._may_be_half:
                        self.left = self._number
                        return
                    raise BadLines((self._number, Fault("", "Is not UTF-8."))) from error
                yield piece

    def _complete_lines(self, pieces: Iterator[str]) -> Iterator[str]:
        for line in pieces:
            if not self._has_end and not self._is_last:
                raise BadLines((self._number, Fault("", f"Must have less than {LONGEST_LINE} characters.")))
            written = line if line.endswith("\r") else line.rstrip("\r\n") + "\n"
            for digest in self._bytes_digests:
                digest.update(written.encode())
            yield line

    @property
    def _may_be_half(self) -> bool:
        """Whether the line that was read last may continue; the first line is always taken, since it shows the form."""
        return self._is_last and not self.complete and self._number > 1

    def _objects(self, lines: Iterator[str]) -> Iterator[Line]:
        for line in lines:
            if line.isspace():
                continue
            try:
                cells = parse_json(line.encode())
            except ValueError as error:
                if self._may_be_half:
                    self.left = self._number
                    return
                raise BadLines((self._number, Fault("", "Is not JSON."))) from error
            yield self._line(cells)

    def _array(self, pieces: Iterator[str]) -> Iterator[Line]:
        text, place, expected, begun = "", 0, "[", 0
        for piece in pieces:
            text, at = text + piece, 0
            while found := _TOKEN.search(text, at):
                token, at = found[0], found.start()
                if token not in expected:
                    raise BadLines((self._number, Fault(f"/{place}", "Is not an object of a JSON array.")))
                if token == "{":
                    begun = begun or self._number
                    try:
                        cells, at = parse_first_json(text, at)
                    except ValueError as error:
                        if len(text) - at < LONGEST_LINE:
                            break
                        raise BadLines((begun, Fault(f"/{place}", "Is not JSON."))) from error
                    yield self._line(cells, f"/{place}")
                    place, begun = place + 1, 0
                else:
                    at += 1
                expected = _FOLLOWING[token]
            else:
                at = len(text)
            text = text[at:]
        if expected:
            raise BadLines((begun or self._number, Fault(f"/{place}", "Is not a whole JSON array.")))

    def _table(self, lines: Iterator[str]) -> Iterator[Line]:
        rows = csv.reader(lines, strict=True)
        header = self._row(rows) or []
        self._check(header)
        while (row := self._row(rows)) is not None:
            if self._may_be_half and not self._is_complete(header, row):
                self.left = self._number
                return
            if not any(row):
                continue
            if len(row) != len(header):
                detail = f"Has {len(row)} cells, where the header has {len(header)}."
                raise BadLines((self._number, Fault("", detail)))
            cells = {name: self._cell(name, cell) for name, cell in zip(header, row, strict=True) if cell}
            if "" in cells:
                raise BadLines((self._number, Fault("", "Has a cell where the header has none.")))
            yield self._line(cells)

    def _row(self, rows: Any) -> list[str] | None:
        begins = self._number + bool(rows.line_num)  # the first line has been read
        try:
            return next(rows, None)
        except csv.Error as error:
            if self._may_be_half and self._number == begins:
                self.left = self._number
                return None
            raise BadLines((begins, Fault("", f"Is not CSV: {error}."))) from error

    def _check(self, header: Sequence[str]) -> None:
        fields = self.kind.schema.fields
        given = Counter(name for name in header if name)
        wrong = {
            "missing": [name for name, field in fields.items() if field.required and name not in given],
            "repeated": [name for name, times in given.items() if times > 1],
            "unknown": [name for name in given if name not in fields],
        }
        if any(wrong.values()):
            listed = "; ".join(f"{fault}: {', '.join(map(repr, names))}" for fault, names in wrong.items() if names)
            detail = shorten(f"Is not a header of {self.kind.name}. Columns {listed}", 500, placeholder=" …")
            raise BadLines((self._number, Fault("", detail)))

    def _is_complete(self, header: Sequence[str], row: Sequence[str]) -> bool:
        """Tell whether a row is surely complete: it has all cells, and the last is a time, which cannot continue."""
        field = self.kind.schema.fields.get(header[-1])
        if len(row) != len(header) or not isinstance(field, Instant):
            return False
        try:
            return field.deserialize(row[-1]) is not None
        except ValidationError:
            return False

    def _cell(self, name: str, cell: str) -> Any:
        match self.kind.schema.fields.get(name):
            case Number():
                return written_number(cell)
            case Truth():
                return TRUTHS.get(cell.lower(), cell)
        return cell

    def _line(self, cells: Any, pointer: str = "") -> Line:
        behind = self._digest.hexdigest()
        self._digest.update(_meaning(cells))
        digests = [digest.hexdigest() for digest in (self._digest, *self._bytes_digests)]
        return Line(self._number, cells, digests, pointer, behind)


def _meaning(cells: Any) -> bytes:
    """Write equal cells of lines equally: in order of their names, and 33.70 as 33.7.

    All lists and objects are written alike, since a line with a list or an object is refused.
    """

    def plain(cell: Any) -> Any:
        if type(cell) in (int, Decimal):
            return [str(_NUMBERS.normalize(cell))]
        return cell if cell is None or isinstance(cell, str | bool) else []

    meaning = {name: plain(cell) for name, cell in cells.items()} if isinstance(cells, dict) else {}
    return _CANONICAL.encode(meaning).encode() + b"\n"


def run(source: Source, now: datetime) -> Iterator[int]:
    """Import a file from where an earlier import ended; yield the number of lines stored from each chunk.

    While the database works for a chunk, the next one is prepared; chunks are committed in their order. Raises
    BadLines; the chunks before the bad chunk stay stored.
    """
    gc.freeze()  # to look for garbage in all that was loaded before would take an eighth of the time
    begun: deque[Future[int]] = deque()
    writers = min(WRITERS, current_app.config["POOL_SIZE"])
    with ThreadPoolExecutor(writers) as executor:
        for future in _begin(source, now, executor):
            begun.append(future)
            if len(begun) > writers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def _begin(source: Source, now: datetime, executor: Executor) -> Iterator[Future[int]]:
    """Read the file, and begin to store each chunk; if the file cannot be read, the last one fails with the error."""
    known = database.read(lambda connection: set(connection.execute(select(ImportedChunk.digest)).scalars()))
    nothing = before = executor.submit(int)
    ahead: list[Line] = []
    passed = 0
    try:
        lines = source.lines()
        while ahead := [*ahead, *islice(lines, CHUNK_LINES - len(ahead))]:
            # If a chunk that begins here is stored, its end is among these lines, since no chunk is longer.
            if stored := _stored(ahead, known):
                yield nothing
            else:
                chunk = ahead[: CHUNK_LINES - passed % CHUNK_LINES]
                yield (before := executor.submit(copy_context().run, _store, source.kind, chunk, now, before))
                stored = len(chunk)
            passed, ahead = passed + stored, ahead[stored:]
    except Exception as error:
        failed = Future[int]()
        failed.set_exception(error)
        yield failed


def _stored(lines: Sequence[Line], known: Set[str]) -> int:
    """Return how many of the first lines are stored: all up to the last digest that is known."""
    return max((n for n, line in enumerate(lines, 1) if not known.isdisjoint(line.digests)), default=0)


def _store(kind: Kind, chunk: Sequence[Line], now: datetime, before: Future[int]) -> int:
    """Store all lines of a chunk or none, after the chunk before; raise its error if that chunk is not stored.

    Leave out those that other imports have stored. Return how many lines are stored.
    """
    loaded: list[dict[str, Any]] = []
    faults: list[tuple[int, Fault]] = []
    for line in chunk:
        try:
            loaded.append(kind.schema.load(line.cells))
        except ValidationError as error:
            faults += [(line.number, Fault(line.pointer + fault.pointer, fault.detail)) for fault in faults_of(error)]
    if faults:
        raise BadLines(*faults)

    def work(connection: Connection) -> int:
        stored = _look(connection, chunk)
        added = chunk[stored:]
        if not added:
            return 0
        try:
            kind.store(connection, loaded[stored:], now)
        except Refused as refused:
            detail = REFUSALS[type(refused)].detail
            bad = [added[place] for place in refused.places]
            raise BadLines(*((line.number, Fault(line.pointer, detail)) for line in bad)) from refused
        before.result(LONGEST_WAIT)
        # Whoever stores some of these lines locks the same enrollments: they have stored them by now, or wait.
        if _look(connection, chunk) != stored:
            raise Outdated
        _note(connection, added, now)
        return len(added)

    try:
        return database.write(work)
    except TimeoutError:
        before.result()
        return database.write(work)


def _look(connection: Connection, chunk: Sequence[Line]) -> int:
    """Return how many of the first lines of a chunk are stored."""
    sql = Statements.of(connection)
    ends = select(ImportedChunk.digest).where(ImportedChunk.digest.in_(select(sql.ids.c.id)))
    stored = _stored(chunk, set(connection.execute(ends, sql.ids((line.digests[0],) for line in chunk)).scalars()))
    if stored == len(chunk):
        return stored
    place = (len(chunk) - stored - 1) * SHORT_DIGEST
    at_last = func.substr(ImportedChunk.line_digests, place + 1, SHORT_DIGEST)
    longer = select(ImportedChunk.lines).filter_by(behind=chunk[stored].behind)
    is_within = connection.execute(longer.where(at_last == chunk[-1].short_digest)).first()
    return len(chunk) if is_within else stored


def _note(connection: Connection, lines: Sequence[Line], now: datetime) -> None:
    """Note that the lines of a chunk are stored."""
    stored = {
        "digest": lines[-1].digests[0],
        "lines": lines[-1].number,
        "imported_at": now,
        "behind": lines[0].behind,
        "line_digests": b"".join(line.short_digest for line in lines),
    }
    connection.execute(insert(ImportedChunk).values(stored))
