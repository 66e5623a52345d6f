"""The floor of the database: pgbench sends the statements that the service sends for an update of a record that exists.

The statements are taken from the server's log of such an update, except the settings at the begin of a transaction:
pgbench would send each setting by itself. Each statement becomes a prepared statement with the same parameters. In
place of the learner, the contents and the part of the tallies pgbench draws others, and the database gives the time.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from unittest.mock import patch

from flask import Flask
from sqlalchemy import NullPool, create_engine, func, make_url, select, text

from bench.school import MODULES, STARTED, STUDENTS, UPDATE, content, module, student
from bench.serving import migrate
from progress_service import create_app
from progress_service.store import recorder
from progress_service.store.database import db
from progress_service.store.models import Enrollment, ProgressRecord
from tests.callers import KEY, Caller
from tests.postgres import PostgresServer

DATABASE, SCRATCH = "floor", "scratch"

ENTRY = re.compile(r"^\d{4}-\d\d-\d\d \S+ \S+ \[\d+\] (\w+):  (.*?)(?=^\d{4}-\d\d-\d\d |\Z)", re.DOTALL | re.MULTILINE)
STATEMENT = re.compile(r"(?:statement|execute [^:]+): (.*)", re.DOTALL)
PARAMETER = re.compile(r"\$(\d+) = (?:'((?:[^']|'')*)'|NULL)")
TIME = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d(?::\d\d)?)"
RATE = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
DONE = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)


class Script(NamedTuple):
    """The script for pgbench, and the parameters that are the same in each transaction."""

    text: str
    constants: Mapping[str, str]

    def __str__(self) -> str:
        return "\n".join([*(f"-- {name} = {value}" for name, value in self.constants.items()), self.text])


# Numbers that occur nowhere else in the captured update. pgbench draws others in their place.
A_STUDENT, A_MODULE, A_CONTENT, ANOTHER, A_PART = "90017", "90023", "90031", "90047", "9059"
MARKS = {A_STUDENT: "student", A_MODULE: "module", A_CONTENT: "content", ANOTHER: "other", A_PART: "part"}
EITHER = re.compile(rf"{TIME}|\b(?:{'|'.join(MARKS)})\b")


def capture(server: PostgresServer) -> Script:
    """Send a learner's updates about two contents in turn to a new database; return the script of the last update."""
    url = make_url(server.url).set(database=SCRATCH).render_as_string(hide_password=False)
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {SCRATCH}"))
        migrate(url)
        connection.execute(text(f"ALTER DATABASE {SCRATCH} SET log_statement = 'all'"))
        app = create_app({"SQLALCHEMY_DATABASE_URI": url, "JWT_SECRET_KEY": KEY})
        app.logger.setLevel("WARNING")
        begins, since = server.log.stat().st_size, _update(app)
        connection.execute(text(f"DROP DATABASE {SCRATCH} WITH (FORCE)"))
    engine.dispose()
    with server.log.open() as log:
        log.seek(begins)
        return _script(_last_transaction(log.read()), since)


def _update(app: Flask) -> datetime:
    """Let the application record updates of two contents and again of the first; return when the last began."""
    contents = [content(A_MODULE, number) for number in (A_CONTENT, ANOTHER)]
    lessons = [{"id": content_id, "title": "Content", "type": "video"} for content_id in contents]
    path = f"/api/catalog/modules/{module(A_MODULE)}"
    Caller(app, "admin", "ada").put(path, json={"title": "Module", "contents": lessons})
    caller = Caller(app, "student", student(A_STUDENT))
    with patch.object(recorder, "randrange", return_value=int(A_PART)):
        for content_id in (*contents, contents[0]):
            now = datetime.now(UTC)
            response = caller.post("/api/progress", json={"contentId": content_id, **UPDATE})
    if response.status_code != 200:
        raise RuntimeError(response.text)
    with app.app_context():
        db.engine.dispose()
    return now


def _last_transaction(log: str) -> list[tuple[str, dict[str, str | None]]]:
    """Return the statements of the last transaction that was committed, each with its parameters by number."""
    sent: list[tuple[str, dict[str, str | None]]] = []
    for kind, message in ENTRY.findall(log):
        if kind == "LOG" and (statement := STATEMENT.match(message)):
            sent.append((" ".join(statement[1].split()), {}))
        elif kind == "DETAIL" and sent:
            parameters = (found.groups() for found in PARAMETER.finditer(message))
            sent[-1][1].update({number: text and text.replace("''", "'") for number, text in parameters})
    names = [statement.split()[0].upper() for statement, _ in sent]
    last = len(names) - 1 - names[::-1].index("COMMIT")
    first = last - names[last::-1].index("BEGIN")
    return sent[first : last + 1]


def _script(transaction: list[tuple[str, dict[str, str | None]]], since: datetime) -> Script:
    constants: dict[str, str] = {}
    lines = [
        f"\\set student random(1, {STUDENTS})",
        f"\\set module random(0, {MODULES - 1})",
        f"\\set content random(0, {STARTED - 1})",
        f"\\set other mod(:content + 1, {STARTED})",
        f"\\set part random(0, {recorder.TALLY_PARTS - 1})",
    ]
    for statement, parameters in transaction:
        drawn = {number: _drawn(value, since) for number, value in parameters.items()}
        for number, value in parameters.items():
            if value is not None and not drawn[number]:
                name = f"constant{len(constants)}"
                constants[name], drawn[number] = value, f":{name}"
        lines.append(_filled(statement.split("; SET ")[0], drawn))
    return Script("\n".join(lines) + "\n", constants)


def _filled(statement: str, expressions: Mapping[str, str]) -> str:
    return re.sub(r"\$(\d+)", lambda place: expressions[place[1]] or "NULL", statement) + ";"


def _drawn(value: str | None, since: datetime) -> str:
    """Return a parameter as an expression in which marks are variables; nothing where it has none."""
    parts, end = [], 0
    for found in EITHER.finditer(value or ""):
        if found[0] in MARKS:
            variable = f":{MARKS[found[0]]}"
        elif datetime.fromisoformat(found[0]) >= since:
            variable = "now()"
        else:
            continue
        parts += [_quoted(found.string[end : found.start()]), variable]
        end = found.end()
    return f"({' || '.join([*parts, _quoted(found.string[end:])])})" if parts else ""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class Floor:
    """A copy of the service's database for pgbench alone, which does not keep totals right."""

    def __init__(self, server: PostgresServer, script: Script) -> None:
        """Copy the database, which nobody may use meanwhile; raises RuntimeError unless the script updates records."""
        self.server, self._script = server, script
        url = make_url(server.url)
        engine = create_engine(url.set(database="template1"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {DATABASE} TEMPLATE {url.database} STRATEGY file_copy"))
        engine.dispose()
        self._engine = create_engine(url.set(database=DATABASE), poolclass=NullPool)
        self._check()

    def run(self, concurrency: int, seconds: float) -> tuple[int, float]:
        """Run transactions for a time, rounded to seconds; return their number, and their number in a second."""
        return self._run(concurrency, "-T", str(max(1, round(seconds))))

    def _run(self, concurrency: int, *limit: str) -> tuple[int, float]:
        url = self._engine.url
        address = ["-h", str(url.query["host"]), "-p", str(url.query["port"]), "-U", str(url.username)]
        defined = [f"-D{name}={value}" for name, value in self._script.constants.items()]
        options = ["-n", "-M", "prepared", "-c", str(concurrency), *limit, *defined, "-f", "-"]
        output = self.server.output("pgbench", *address, *options, str(url.database), stdin=self._script.text)
        (done,), (rate,) = DONE.findall(output), RATE.findall(output)
        return int(done), float(rate)

    def _check(self) -> None:
        before, now = self._counts(), datetime.now(UTC)
        done, _ = self._run(1, "-t", "50")
        after = self._counts()
        if before != after:
            raise RuntimeError(f"pgbench does not only update: there were {before} rows, there are {after}")
        with self._engine.connect() as connection:
            for model in (ProgressRecord, Enrollment):
                changed = connection.scalar(select(func.count()).where(model.last_activity_at >= now))
                if not changed or changed < done / 2:
                    raise RuntimeError(f"pgbench changes {changed} rows of {model.__tablename__} in {done} updates")

    def _counts(self) -> list[int | None]:
        with self._engine.connect() as connection:
            return [
                connection.scalar(select(func.count()).select_from(model)) for model in (ProgressRecord, Enrollment)
            ]
