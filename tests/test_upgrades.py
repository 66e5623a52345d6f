"""Databases with learners in them, brought from an older migration to the newest one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from click.testing import Result
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import IntegrityError

from progress_service import MIGRATIONS
from progress_service.calculations import COMMAND
from progress_service.store import corrections, database
from progress_service.store.database import db
from progress_service.store.learning import EnrollmentKey
from progress_service.tallies import Counts
from tests.callers import Caller
from tests.conftest import application

REVISIONS = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][::-1]
NEWEST = REVISIONS[-1]
ACTIVITY_BY_DAY = "0003"
"""The revision from which on days of activity are kept."""
STOPPING = {"0002", "0003", "0005"}
"""The revisions that workers of the version before must be stopped for: they do not keep what these bring."""

Rows = Mapping[str, list[dict[str, Any]]]
Columns = Mapping[str, set[str]]

PEOPLE = ["sam", "kim", "lee", "zoe", "max", "eva"]
ALGEBRA: list[dict[str, Any]] = [
    {"id": "sums", "title": "Sums", "type": "video"},
    {"id": "sets", "title": "Sets", "type": "video", "weight": 2, "completionThreshold": 80},
    {"id": "quiz", "title": "Quiz", "type": "quiz", "weight": 3, "passingScore": 60, "section": "End"},
    {"id": "extra", "title": "Extra", "type": "game", "weight": 0},
    {"id": "old", "title": "Old", "type": "video"},
]
BIOLOGY = [{"id": "cells", "title": "Cells", "type": "lab"}, {"id": "genes", "title": "Genes", "type": "lab"}]
UPDATES = [
    # Who, what, when, how far, for how long, and with which score of 20.
    ("sam", "old", "2025-12-28T23:59:59.999999Z", 100, 30, None),
    ("sam", "sums", "2025-12-29T00:00:00Z", 100, 60, None),
    ("sam", "sets", "2025-12-31T12:00:00Z", 85, 600, None),
    ("sam", "quiz", "2026-01-04T10:00:00Z", 100, 900, 20),
    ("sam", "cells", "2026-01-05T10:00:00Z", 50, 90, None),
    ("kim", "sums", "2026-01-05T11:00:00Z", 40, 45, None),
    ("kim", "quiz", "2026-01-11T23:59:59.999999Z", 100, 300, 11),
    ("kim", "extra", "2026-01-10T08:00:00Z", 100, 10, None),
    ("zoe", "sets", "2026-01-06T09:00:00Z", 79, 333, None),
    ("max", "old", "2026-01-07T09:00:00Z", 70, 20, None),
    ("max", "genes", "2026-01-08T09:00:00Z", 0, 0, None),
    ("eva", "sums", "2026-01-12T00:00:00Z", 99, 0, None),
    ("eva", "sums", "2026-01-13T09:00:00Z", 0, 15, None),
]
STATUSES = [("lee", "algebra", "paused"), ("zoe", "algebra", "dropped"), ("eva", "biology", "active")]

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
RECORD_ID = UUID("01a203a3-2361-7591-a50b-39eee47216aa")
EARLIER = [
    "INSERT INTO modules (id, title, total_weight, total_contents) VALUES ('algebra', 'Algebra', 2, 2)",
    """INSERT INTO contents (id, module_id, ordinal, title, type, weight, completion_threshold, retired)
       VALUES ('sums', 'algebra', 0, 'Sums', 'video', 1, 100, false),
              ('sets', 'algebra', 1, 'Sets', 'video', 1, 100, false)""",
    """INSERT INTO enrollments (user_id, module_id, status, weighted_sum, completed_contents, time_spent_seconds,
                                enrolled_at, last_activity_at)
       VALUES ('sam', 'algebra', 'active', 100, 1, 30, :at, :at), ('zoe', 'algebra', 'paused', 0, 0, 0, :at, NULL)""",
    """INSERT INTO progress_records (id, user_id, module_id, content_id, progress_percentage, furthest_percentage,
                                     time_spent_seconds, started_at, completed_at, last_activity_at)
       VALUES (:id, 'sam', 'algebra', 'sums', 100, 100, 30, :at, :at, :at)""",
]


def learn(app: Flask) -> None:
    """Let learners do, through the API, whatever the first version could record."""
    admin = Caller(app, "admin", "ada")

    def put(path: str, document: Any) -> None:
        assert admin.put(path, json=document).status_code in {200, 201}

    for module_id, contents in (("algebra", ALGEBRA), ("biology", BIOLOGY), ("chemistry", [])):
        put(f"/api/catalog/modules/{module_id}", {"title": module_id.title(), "contents": contents})
    for user_id, content_id, at, percentage, seconds, score in UPDATES:
        update = {"userId": user_id, "contentId": content_id, "occurredAt": at, "progressPercentage": percentage}
        update |= {"timeSpentSeconds": seconds} | ({"score": score, "maxScore": 20} if score is not None else {})
        assert admin.post("/api/progress", json=update).status_code in {200, 201}
    for user_id, module_id, status in STATUSES:
        put(f"/api/enrollments/{user_id}/{module_id}", {"status": status, "enrolledAt": "2025-12-01T00:00:00Z"})
    without = [content for content in ALGEBRA if content["id"] != "old"]
    put("/api/catalog/modules/algebra", {"title": "Algebra", "instructorIds": ["ines"], "contents": without})


def figures(app: Flask) -> dict[str, Any]:
    """Read whatever the API tells of modules and learners."""
    admin = Caller(app, "admin", "ada")
    modules = ["algebra", "biology", "chemistry"]
    paths = [
        path.format(module_id)
        for module_id in modules
        for path in (
            "/api/progress/stats/{}",
            "/api/progress/stats/{}/learners?sort=-progress",
            "/api/progress/stats/{}/timeline?from=2025-12-20&to=2026-01-20",
            "/api/catalog/modules/{}",
        )
    ]
    paths += [f"/api/progress/{user_id}" for user_id in PEOPLE]
    paths += [f"/api/progress/{user_id}/{module_id}" for user_id in PEOPLE for module_id in modules]
    answers = {path: admin.get(path).get_json() for path in paths}
    for answer in answers.values():
        answer.pop("requestId", None)  # of the problem that somebody is not enrolled
    return answers


def without_activity_by_day(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same figures, but those that only days of activity tell, where these were not kept."""
    nothing = {"activeLearners": 0, "timeSpentSeconds": 0}
    return {
        path: {"days": [day | nothing for day in answer["days"]]} if "days" in answer else answer
        for path, answer in answers.items()
    }


@contextmanager
def connected(app: Flask) -> Iterator[Connection]:
    with app.app_context(), db.engine.begin() as connection:
        yield connection


def columns(app: Flask) -> Columns:
    with connected(app) as connection:
        inspector = inspect(connection)
        return {
            name: {column["name"] for column in inspector.get_columns(name)} for name in inspector.get_table_names()
        }


def store(app: Flask, rows: Rows, names: Columns) -> None:
    """Insert rows by statements that name only these columns, as a version does that knows no others."""
    with connected(app) as connection:
        for model in db.metadata.sorted_tables:
            known = [
                sa.column(column.name, column.type) for column in model.c if column.name in names.get(model.name, ())
            ]
            chosen = [{column.name: row[column.name] for column in known} for row in rows[model.name]]
            if known and chosen:
                connection.execute(sa.table(model.name, *known).insert(), chosen)


def go_up(app: Flask, start: str, end: str = NEWEST) -> None:
    """Migrate step by step."""
    with app.app_context():
        for revision in REVISIONS[REVISIONS.index(start) : REVISIONS.index(end) + 1]:
            upgrade(revision=revision)


def kept(tallies: list[dict[str, Any]], names: set[str]) -> list[tuple[Any, ...]]:
    """Return the parts of tallies that are not 0 in some columns, with these columns only."""
    key = ("module_id", "kind", "item", "part")
    chosen = [{name: tally[name] for name in (*key, *sorted(names))} for tally in tallies]
    return sorted(tuple(tally.values()) for tally in chosen if any(tally[name] for name in names))


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=arguments)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rows, dict[str, Any]]:
    """What the newest version stores of some learners, and what it tells of them."""
    with application(f"sqlite:///{tmp_path_factory.mktemp('learned')}/progress.db") as app:
        go_up(app, REVISIONS[0])
        learn(app)
        with connected(app) as connection:
            rows = {
                table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
                for table in db.metadata.sorted_tables
            }
        return rows, figures(app)


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_figures_of_a_database_of_any_revision_are_right_after_the_upgrade(
    empty_database_url: str, revision: str, learned: tuple[Rows, dict[str, Any]]
) -> None:
    rows, expected = learned
    with application(empty_database_url) as app:
        go_up(app, REVISIONS[0], revision)
        names = columns(app)
        store(app, rows, names)
        go_up(app, revision)

        assert figures(app) == (without_activity_by_day(expected) if revision < ACTIVITY_BY_DAY else expected)
        verified = run(app, "progress", "verify")
        assert (verified.exit_code, verified.stdout) == (0, "0 figures differ from their recount.\n")
        with connected(app) as connection:
            stored = [dict(row) for row in connection.execute(db.metadata.tables["tallies"].select()).mappings()]
        if revision >= ACTIVITY_BY_DAY:
            known = set(Counts._fields) & names["tallies"]
            assert kept(stored, known) == kept(rows["tallies"], known), "right ones are left as they are"


@pytest.mark.parametrize("lost", [["algebra", "biology"], ["biology"]])
def test_tallies_that_an_earlier_run_of_a_migration_left_empty_are_filled(
    empty_database_url: str, lost: list[str], learned: tuple[Rows, dict[str, Any]]
) -> None:
    rows, expected = learned
    left = [tally for tally in rows["tallies"] if tally["module_id"] not in lost]
    with application(empty_database_url) as app:
        go_up(app, REVISIONS[0], "0003")
        store(app, {**rows, "tallies": left}, columns(app))
        go_up(app, "0003")

        assert figures(app) == expected
        assert run(app, "progress", "verify").exit_code == 0


@pytest.mark.parametrize(("revision", "following"), [pair for pair in pairwise(REVISIONS) if pair[1] not in STOPPING])
def test_the_version_of_a_revision_works_on_with_the_next_schema(
    empty_database_url: str, revision: str, following: str, learned: tuple[Rows, dict[str, Any]]
) -> None:
    rows, expected = learned
    with application(empty_database_url) as app:
        go_up(app, REVISIONS[0], revision)
        names, keys = columns(app), unique_keys(app)
        go_up(app, following, following)
        store(app, rows, names)
        assert not [table for table in keys if keys[table] - unique_keys(app)[table]], "upserts name them"
        go_up(app, following)

        assert figures(app) == expected
        assert run(app, "progress", "verify").exit_code == 0


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_postgresql_still_knows_what_columns_hold_whose_type_has_changed(
    empty_database_url: str, learned: tuple[Rows, dict[str, Any]]
) -> None:
    known = text("SELECT tablename, attname FROM pg_stats WHERE tablename = 'enrollments' OR tablename = 'modules'")
    rows, _ = learned
    with application(empty_database_url) as app:
        go_up(app, REVISIONS[0], "0003")
        store(app, rows, columns(app))
        with connected(app) as connection:
            connection.execute(text("ANALYZE"))
            before = set(connection.execute(known).all())
        go_up(app, "0003")

        with connected(app) as connection:
            assert ("enrollments", "user_id") in before
            assert before <= set(connection.execute(known).all())


def unique_keys(app: Flask) -> dict[str, set[frozenset[str]]]:
    """Return the columns of each table that upserts may name; no version's upsert names a record's id."""
    with connected(app) as connection:
        inspector = inspect(connection)
        return {
            name: {
                frozenset(inspector.get_pk_constraint(name)["constrained_columns"]),
                *(frozenset(key["column_names"]) for key in inspector.get_unique_constraints(name)),
            }
            - ({frozenset({"id"})} if name == "progress_records" else set())
            for name in inspector.get_table_names()
        }


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_what_an_earlier_version_stored_is_kept_and_counted(empty_database_url: str, revision: str) -> None:
    is_sqlite = empty_database_url.startswith("sqlite")
    known = {"at": f"{AT:%Y-%m-%d %H:%M:%S.%f}" if is_sqlite else AT, "id": RECORD_ID.hex if is_sqlite else RECORD_ID}
    with application(empty_database_url) as app:
        go_up(app, REVISIONS[0], revision)
        with connected(app) as connection:
            for statement in EARLIER:
                connection.execute(text(statement), {name: known[name] for name in known if f":{name}" in statement})
        assert run(app, "db", "upgrade").exit_code == 0

        statistics = Caller(app, "admin", "ada").get("/api/progress/stats/algebra").get_json()
        assert statistics["learners"]["enrolled"] == 2
        assert statistics["averageProgressPercentage"] == 25
        assert [content["stalled"] for content in statistics["contents"]] == [1, 0]
        (sam,) = Caller(app, "student", "sam").get("/api/progress/me").get_json()["modules"]
        assert (sam["progressPercentage"], sam["timeSpentSeconds"]) == (50, 30)
        assert run(app, "progress", "verify").exit_code == 0

        assert run(app, "db", "downgrade", revision).exit_code == 0
        with connected(app) as connection:
            assert connection.execute(text("SELECT count(*) FROM progress_records")).scalar() == 1


def test_foreign_keys_are_checked_again_after_a_migration(empty_database_url: str) -> None:
    with application(empty_database_url) as app, app.app_context():
        upgrade()
        with db.engine.connect() as connection, pytest.raises(IntegrityError):
            connection.execute(text("INSERT INTO module_instructors VALUES ('nowhere', 'ines', 0)"))


def test_what_excuses_gave_is_taken_back_with_their_migration(
    empty_database_url: str, learned: tuple[Rows, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    rows, expected = learned
    with application(empty_database_url) as app:
        go_up(app, REVISIONS[0])
        store(app, {**rows, "changes": []}, columns(app))
        with app.app_context():
            for content_id in ("sums", "quiz", "extra"):
                excused = partial(corrections.excuse, content_id=content_id, by=COMMAND, now=AT)
                database.write(partial(excused, key=EnrollmentKey("kim", "algebra")))
        assert figures(app) != expected

        assert run(app, "db", "downgrade", "0004").exit_code == 1
        assert "3 excuses" in caplog.messages[-1]
        assert run(app, "db", "downgrade", "-x", "lose-data", "0004").exit_code == 0
        go_up(app, NEWEST)

        assert figures(app) == expected
        assert run(app, "progress", "verify").exit_code == 0


def test_an_earlier_version_reads_what_came_from_another_server_before_its_own_changes(empty_database_url: str) -> None:
    change = """INSERT INTO changes (id, settled_after, type, time, recorded_at, by_role, data, is_history)
        VALUES (:id, :place, 'module.published', :at, :at, 'command', '{}', false)"""
    at = f"{AT:%Y-%m-%d %H:%M:%S.%f}" if empty_database_url.startswith("sqlite") else AT
    with application(empty_database_url) as app:
        go_up(app, NEWEST)
        with connected(app) as connection:
            connection.execute(text("INSERT INTO arrivals (order_offset) VALUES (7), (9000)"))
            for number, place in ((1, 5000), (2, 8999), (3, 9002)):
                connection.execute(text(change), {"id": number, "place": place, "at": at})
        assert run(app, "db", "downgrade", "0006").exit_code == 0
        with connected(app) as connection:
            found = connection.execute(text("SELECT id, settled_after FROM changes ORDER BY settled_after, id")).all()
    assert found == [(1, 0), (2, 0), (3, 2)]
