"""The SQL that the service sends, written to docs/sql/ for readers: `python -m tests.sql`.

Operations run on a small catalog, and listeners collect their statements. Each is named after the attribute of
`Statements` or after the function that sends it, and has the purpose from that docstring.
"""

import inspect
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from textwrap import fill
from threading import get_ident
from types import FrameType
from typing import Any, TypeAlias

import sqlglot
from flask import Flask
from sqlalchemy import event

from progress_service.store.direct import DirectStatement
from progress_service.store.statements import Statements
from tests.callers import Caller
from tests.conftest import application, engine_of, migrate, wait_until_settled
from tests.postgres import postgres_server

DIRECTORY = Path(__file__).parents[1] / "docs/sql"
INTRODUCTION = """\
-- The statements that the service sends on {}, operation by operation, in their order.
-- `make sql` writes this file, and a test holds it to the code. A statement that is sent again is only named.
-- sqlglot has formatted them, and writes all casts in one form. A name in brackets or a ? stands for a parameter.
"""
SILENT = {f"progress_service.{name}" for name in ("store.direct", "store.database", "store.together", "web.endpoint")}
"""Modules that pass on statements of others."""
GRAMMARS = {"sqlite": "sqlite", "postgresql": "postgres"}
"""The names of the dialects in sqlglot."""
ENDS = ("COMMIT", "ROLLBACK")
COMMANDS = ("BEGIN", "COMMIT", "PRAGMA", "ROLLBACK", "SELECT set_config(")
CATALOG: dict[str, Any] = {
    "title": "Algebra",
    "instructorIds": ["ines"],
    "contents": [{"id": name, "title": name, "type": "video"} for name in ("sets", "maps", "rings")],
}


Sent: TypeAlias = tuple[str, str, str]
"""A statement, its name and its purpose."""


class Operations:
    """What the service is asked for, in an order in which each finds what it needs."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.service, self.instructor = Caller(app, "service", "lms"), Caller(app, "instructor", "ines")

    def __iter__(self) -> Iterator[tuple[str, Callable[[], object]]]:
        service, run = self.service, self.app.test_cli_runner().invoke
        module = {**CATALOG, "contents": CATALOG["contents"][:2]}
        heavier = {**module, "contents": [{**content, "weight": 2} for content in module["contents"]]}
        relaxed = {**heavier, "contents": [{**c, "completionThreshold": 50} for c in heavier["contents"]]}
        update = {"userId": "sam", "contentId": "sets", "progressPercentage": 40}
        done = [{"userId": "kim", "contentId": name, "progressPercentage": 100} for name in ("sets", "maps")]
        path = "/api/catalog/modules/algebra"
        yield "PUT /api/catalog/modules/{moduleId}, a new module", lambda: service.put(path, json=CATALOG)
        yield (
            "POST /api/progress, with an Idempotency-Key",
            lambda: service.post("/api/progress", json=update, headers={"Idempotency-Key": "one"}),
        )
        yield (
            "POST /api/progress, the same again",
            lambda: service.post("/api/progress", json=update, headers={"Idempotency-Key": "one"}),
        )
        yield "PUT /api/catalog/modules/{moduleId}, a content retired", lambda: service.put(path, json=module)
        moved = {**CATALOG, "contents": CATALOG["contents"][2:]}
        yield (
            "PUT /api/catalog/modules/{moduleId}, a content that moves",
            lambda: service.put("/api/catalog/modules/geometry", json=moved),
        )
        yield (
            "POST /api/progress/batch, which completes an enrollment",
            lambda: service.post("/api/progress/batch", json={"updates": done}),
        )
        yield "GET /api/progress/{userId}", lambda: service.get("/api/progress/sam")
        yield (
            "GET /api/progress/{userId}/{moduleId}, by an instructor",
            lambda: self.instructor.get("/api/progress/sam/algebra"),
        )
        yield "GET /api/progress/{userId}/{moduleId}/history", lambda: service.get("/api/progress/sam/algebra/history")
        yield "GET /api/changes", lambda: service.get("/api/changes?types=content.completed&moduleId=algebra")
        hook, url = "/api/webhooks/certificates", "https://hooks.example.org/progress"
        yield (
            "PUT /api/webhooks/{webhookId}, a new webhook",
            lambda: service.put(hook, json={"url": url, "types": ["content.completed"], "moduleIds": ["algebra"]}),
        )
        yield "PUT /api/webhooks/{webhookId}", lambda: service.put(hook, json={"url": url})
        yield "GET /api/webhooks/{webhookId}", lambda: service.get(hook)
        yield "GET /api/webhooks", lambda: service.get("/api/webhooks")
        yield "POST /api/webhooks/{webhookId}/secret", lambda: service.post(f"{hook}/secret")
        service.put(hook, json={"url": url, "types": ["learner.erased"]})
        service.put("/api/enrollments/eva/algebra", json={})
        wait_until_settled(self.app)
        yield "flask progress deliver --once, of nothing wanted", lambda: run(args=["progress", "deliver", "--once"])
        yield "DELETE /api/webhooks/{webhookId}", lambda: service.delete(hook)
        record_id = service.get("/api/progress/sam/algebra").get_json()["contents"][0]["progress"]["id"]
        yield "PUT /api/progress/{recordId}/complete", lambda: service.put(f"/api/progress/{record_id}/complete")
        yield "GET /api/progress/stats, by an instructor", lambda: self.instructor.get("/api/progress/stats?cursor=a")
        yield "GET /api/progress/stats/{moduleId}", lambda: service.get("/api/progress/stats/algebra")
        yield (
            "GET /api/progress/stats/{moduleId}/learners",
            lambda: service.get("/api/progress/stats/algebra/learners?sort=-lastActivity&status=active"),
        )
        yield (
            "GET /api/progress/stats/{moduleId}/learners, filtered",
            lambda: service.get(
                "/api/progress/stats/algebra/learners?sort=progress"
                "&stalledOn=maps&contentId=sets&contentStatus=in_progress&userIds=sam,kim"
            ),
        )
        yield (
            "GET /api/progress/stats/{moduleId}/learners, of a content",
            lambda: service.get(
                "/api/progress/stats/algebra/learners?sort=progress&contentId=sets&contentStatus=in_progress"
            ),
        )
        yield (
            "GET /api/progress/stats/{moduleId}/learners.csv",
            lambda: service.get("/api/progress/stats/algebra/learners.csv?status=active"),
        )
        yield "GET /api/progress/stats/{moduleId}/matrix", lambda: service.get("/api/progress/stats/algebra/matrix")
        yield (
            "GET /api/progress/stats/{moduleId}/matrix.csv",
            lambda: service.get("/api/progress/stats/algebra/matrix.csv"),
        )
        yield (
            "GET /api/progress/stats/{moduleId}/timeline",
            lambda: service.get("/api/progress/stats/algebra/timeline?from=2026-01-01&to=2026-01-31"),
        )
        yield (
            "GET /api/progress/stats/{moduleId}/report",
            lambda: service.get("/api/progress/stats/algebra/report"),
        )
        yield "GET /api/catalog/modules, by an instructor", lambda: self.instructor.get("/api/catalog/modules")
        yield "GET /api/catalog/modules/{moduleId}", lambda: service.get(path)
        yield "PUT /api/catalog/modules/{moduleId}, other weights", lambda: service.put(path, json=heavier)
        service.post("/api/progress", json={"userId": "eva", "contentId": "maps", "progressPercentage": 50})
        yield "PUT /api/catalog/modules/{moduleId}, a rule relaxed", lambda: service.put(path, json=relaxed)
        yield "GET /api/enrollments/{userId}/{moduleId}", lambda: service.get("/api/enrollments/sam/algebra")
        yield (
            "PUT /api/enrollments/{userId}/{moduleId}, no longer counted",
            lambda: service.put("/api/enrollments/sam/algebra", json={"counted": False}),
        )
        yield "GET /api/progress/{userId}/export", lambda: service.get("/api/progress/sam/export")
        lesson = "/api/progress/sam/algebra/maps"
        yield (
            "PATCH /api/progress/{recordId}",
            lambda: service.patch(f"/api/progress/{record_id}", json={"timeSpentSeconds": 60}),
        )
        yield (
            "PUT /api/progress/{userId}/{moduleId}/{contentId}/excuse",
            lambda: service.put(f"{lesson}/excuse"),
        )
        yield (
            "DELETE /api/progress/{userId}/{moduleId}/{contentId}/excuse",
            lambda: service.delete(f"{lesson}/excuse"),
        )
        yield (
            "DELETE /api/progress/{userId}/{moduleId}/{contentId}",
            lambda: service.delete("/api/progress/sam/algebra/sets"),
        )
        yield (
            "POST /api/progress/{userId}/merge",
            lambda: service.post("/api/progress/eva/merge", json={"into": "sam"}),
        )
        service.put("/api/enrollments/eva/algebra", json={})
        yield "DELETE /api/enrollments/{userId}/{moduleId}", lambda: service.delete("/api/enrollments/eva/algebra")
        yield "DELETE /api/progress/{userId}/{moduleId}", lambda: service.delete("/api/progress/kim/algebra")
        yield "DELETE /api/progress/{userId}", lambda: service.delete("/api/progress/sam")
        yield "GET /readyz", lambda: Caller(self.app).get("/readyz")
        with tempfile.NamedTemporaryFile() as file:
            file.write(b'{"userId": "kim", "moduleId": "algebra", "status": "paused"}\n')
            file.flush()
            yield (
                "flask progress import --enrollments",
                lambda: run(args=["progress", "import", "--enrollments", file.name]),
            )
        yield "flask progress verify", lambda: run(args=["progress", "verify"])
        with engine_of(self.app).begin() as connection:
            connection.exec_driver_sql("UPDATE enrollments SET time_spent_seconds = 7")
        yield "flask progress verify --repair, of a learner", lambda: run(args=["progress", "verify", "--repair"])
        with engine_of(self.app).begin() as connection:
            connection.exec_driver_sql("UPDATE modules SET total_weight = 7")
        yield "flask progress verify --repair, of a module", lambda: run(args=["progress", "verify", "--repair"])
        yield "flask progress purge", lambda: run(args=["progress", "purge"])


def written(app: Flask) -> str:
    """Return the text of the file for an application's database."""
    engine = engine_of(app)
    statements = Statements(engine.dialect)
    known = {
        direct.compiled(engine.dialect).sql: (f"statements.{name}", inspect.getdoc(attribute))
        for name, attribute in vars(Statements).items()
        if isinstance(attribute, cached_property)
        for direct in _direct(getattr(statements, name))
    }
    sent: dict[int, list[Sent]] = {}
    labels: dict[str, str] = {}
    numbers: Counter[str] = Counter()

    def note(_: object, __: object, sql: str, *___: object) -> None:
        name, purpose = known.get(sql) or _sender(inspect.currentframe())
        sent.setdefault(get_ident(), []).append((sql, name, purpose or ""))

    listening = [("before_cursor_execute", note)]
    listening += [(end, partial(note, None, None, end.upper())) for end in ("commit", "rollback")]
    for listener in listening:
        event.listen(engine, *listener)
    text = INTRODUCTION.format(engine.dialect.name)
    for title, call in Operations(app):
        sent.clear()
        call()
        text += f"\n\n-- {title}\n-- {'=' * len(title)}\n"
        for sql, name, purpose in chain.from_iterable(map(_without_polls, list(sent.values()))):
            if sql.startswith(COMMANDS):
                text += f"\n{sql};\n"
            elif sql in labels:
                text += f"\n-- {labels[sql]}, as above\n"
            else:
                numbers[name] += 1
                labels[sql] = name if numbers[name] == 1 else f"{name} ({numbers[name]})"
                text += f"\n{_head(labels[sql], purpose)}\n{_formatted(sql, engine.dialect.name)};\n"
    for listener in listening:
        event.remove(engine, *listener)
    return text


def _without_polls(statements: Sequence[Sent]) -> Iterator[Sent]:
    """Leave out each transaction that is the same as the one before it, as of a thread that looks for work."""
    transaction: list[Sent] = []
    before: list[Sent] = []
    for statement in statements:
        transaction.append(statement)
        if statement[0] in ENDS:
            if transaction != before:
                yield from transaction
            transaction, before = [], transaction
    yield from transaction


def _direct(attribute: object) -> list[DirectStatement]:
    return [
        one for one in (attribute if isinstance(attribute, list) else [attribute]) if isinstance(one, DirectStatement)
    ]


def _sender(frame: FrameType | None) -> tuple[str, str | None]:
    """Return the name and the docstring of the function of the package that sends a statement."""
    while frame:
        module, name = frame.f_globals["__name__"], frame.f_code.co_qualname.partition(".<locals>")[0]
        if module.startswith("progress_service.") and module not in SILENT:
            function = frame.f_globals.get(name)
            return f"{module.removeprefix('progress_service.')}.{name}", inspect.getdoc(function)
        frame = frame.f_back
    return "database", None


def _head(label: str, purpose: str) -> str:
    summary = purpose.partition("\n\n")[0].replace("\n", " ")
    head = f"{label}: {summary}" if summary else label
    return fill(head, 118, initial_indent="-- ", subsequent_indent="-- ")


def _formatted(sql: str, dialect: str) -> str:
    grammar = GRAMMARS[dialect]
    return sql if sql.startswith("LOCK") else sqlglot.transpile(sql, read=grammar, write=grammar, pretty=True)[0]


def main() -> None:
    logging.disable(logging.INFO)
    DIRECTORY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, postgres_server() as postgres_url:
        for dialect, url in (("sqlite", f"sqlite:///{directory}/progress.db"), ("postgresql", postgres_url)):
            migrate(url)
            with application(url) as app:
                (DIRECTORY / f"{dialect}.sql").write_text(written(app))


if __name__ == "__main__":
    main()
