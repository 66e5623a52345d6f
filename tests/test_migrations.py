"""The migrations make the tables that the models describe, and the tables refuse states that must not be."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import check, downgrade, upgrade
from sqlalchemy import CheckConstraint, Connection, ForeignKeyConstraint, Table, UniqueConstraint, inspect
from sqlalchemy.exc import IntegrityError

from progress_service import MIGRATIONS
from progress_service.store.database import db
from progress_service.tallies import KINDS, Counts
from tests.conftest import application

AT = datetime(2025, 1, 31, 12, 30, tzinfo=UTC)
EARLIER = datetime(2025, 1, 30, tzinfo=UTC)
TABLES = db.metadata.tables

# What is stored before each test, in an order that foreign keys allow.
STORED: list[tuple[str, dict[str, Any]]] = [
    ("modules", {"id": "algebra", "title": "Algebra", "total_weight": 1, "total_contents": 1}),
    ("modules", {"id": "biology", "title": "Biology", "total_weight": 1, "total_contents": 1}),
    ("module_instructors", {"module_id": "algebra", "user_id": "ines", "ordinal": 0}),
    ("contents", {
        "id": "sums", "module_id": "algebra", "ordinal": 0, "title": "Sums", "type": "video", "section": None,
        "weight": 1, "completion_threshold": 100, "passing_score": None, "retired": False,
    }),
    ("contents", {
        "id": "cells", "module_id": "biology", "ordinal": 0, "title": "Cells", "type": "quiz", "section": "One",
        "weight": 1, "completion_threshold": 80, "passing_score": 5000, "retired": False,
    }),
    ("enrollments", {
        "user_id": "sam", "module_id": "algebra", "status": "active", "weighted_sum": 40, "completed_contents": 0,
        "time_spent_seconds": 60, "enrolled_at": AT, "completed_at": None, "last_activity_at": AT,
        "last_content_id": "sums", "enrolled_by_update": True, "counted": True, "last_is_excused": False,
        "credited": False,
    }),
    ("enrollments", {
        "user_id": "kim", "module_id": "algebra", "status": "active", "weighted_sum": 0, "completed_contents": 0,
        "time_spent_seconds": 0, "enrolled_at": AT, "completed_at": None, "last_activity_at": None,
        "last_content_id": None, "enrolled_by_update": False, "counted": True, "last_is_excused": False,
        "credited": False,
    }),
    ("progress_records", {
        "id": UUID(int=1), "user_id": "sam", "module_id": "algebra", "content_id": "sums", "progress_percentage": 40,
        "furthest_percentage": 40, "time_spent_seconds": 60, "score": None, "max_score": None, "position": None,
        "position_at": None, "started_at": AT, "completed_at": None, "last_activity_at": AT, "reached_at": None,
        "passed_at": None, "excused_at": None,
    }),
    ("imported_enrollments", {
        "user_id": "sam", "module_id": "algebra", "status_told_at": AT, "enrolled_at_told_at": AT,
        "counted_told_at": AT, "completed_at_told_at": AT,
    }),
    ("sessions", {
        "user_id": "sam", "content_id": "sums", "session": "s1", "time_spent_seconds": 60, "received_at": AT,
    }),
    ("activity_days", {"user_id": "sam", "module_id": "algebra", "day": AT.date(), "time_spent_seconds": 60}),
    ("tallies", {
        "module_id": "algebra", "kind": "day", "item": "2025-01-31", "part": 0, "learners": 1, "started": 1,
        "completed": 0, "enrollments_completed": 0, "time_spent_seconds": 60, "weighted_sum": 0, "scored": 0,
        "score_hundredths": 0,
    }),
    ("stored_answers", {
        "caller_id": "lms", "key": "k1", "fingerprint": "f1", "status": 200, "body": b"{}", "learner_id": "sam",
        "stored_at": AT,
    }),
    ("imported_chunks", {"digest": "d1", "lines": 1, "imported_at": AT, "behind": "d0", "line_digests": b"d1"}),
    ("arrivals", {"order_offset": 7, "digest": None, "lines": None}),
    ("verifications", {"verified_at": AT, "drifts": 0}),
    ("changes", {
        "id": 1, "settled_after": 7, "type": "enrollment.created", "time": AT, "recorded_at": AT, "user_id": "sam",
        "module_id": "algebra", "content_id": None, "by_sub": "lms", "by_role": "service", "data": "{}",
        "is_history": True,
    }),
    ("webhooks", {
        "id": "certificates", "url": "https://hooks.example.org/", "types": ["learner.erased"], "module_ids": None,
        "active": True, "secret": "s1", "previous_secret": None, "previous_until": None, "settled_after": 7,
        "change_id": 1, "failing_since": None, "next_try_at": None, "last_status": 204, "leased_by": None,
        "leased_until": None,
    }),
]  # fmt: skip
# What makes of the last stored row of a table another that is as fine.
NEW: dict[str, dict[str, Any]] = {
    "modules": {"id": "chemistry"},
    "module_instructors": {"user_id": "ivan"},
    "contents": {"id": "atoms"},
    "enrollments": {"user_id": "lee"},
    "progress_records": {"id": UUID(int=2), "user_id": "kim"},
    "activity_days": {"day": EARLIER.date()},
    "tallies": {"part": 1},
    "stored_answers": {"key": "k2"},
    "imported_chunks": {"digest": "d2"},
    "arrivals": {"order_offset": 8},
    "verifications": {"verified_at": EARLIER},
    "imported_enrollments": {"user_id": "kim"},
    "sessions": {"session": "s2"},
    "changes": {"id": 2},
    "webhooks": {"id": "mails"},
}
FINE = {table: row | NEW[table] for table, row in STORED}

# What to change in a fine row, so that it breaks one constraint and no other.
BAD_ROWS: list[tuple[str, dict[str, Any]]] = [
    ("pk_modules", {"id": "biology"}),
    ("ck_modules_totals", {"total_contents": 2}),
    ("ck_modules_totals", {"total_contents": -1}),
    ("pk_module_instructors", {"user_id": "ines"}),
    ("fk_module_instructors_module_id", {"module_id": "geometry"}),
    ("pk_contents", {"id": "cells"}),
    ("pk_contents", {"id": "sums"}),
    ("fk_contents_module_id", {"module_id": "geometry"}),
    ("ck_contents_weight", {"weight": -1}),
    ("ck_contents_weight", {"weight": 10_001}),
    ("ck_contents_completion_threshold", {"completion_threshold": 0}),
    ("ck_contents_completion_threshold", {"completion_threshold": 101}),
    ("ck_contents_passing_score", {"passing_score": -1}),
    ("ck_contents_passing_score", {"passing_score": 10_001}),
    ("pk_enrollments", {"user_id": "sam"}),
    ("fk_enrollments_module_id", {"module_id": "geometry"}),
    ("ck_enrollments_status", {"status": "lost"}),
    ("ck_enrollments_status", {"status": ""}),
    ("ck_enrollments_completed_at", {"status": "completed"}),
    ("ck_enrollments_completed_at", {"completed_at": AT}),
    ("ck_enrollments_totals", {"weighted_sum": -1}),
    ("ck_enrollments_totals", {"completed_contents": -1}),
    ("ck_enrollments_totals", {"time_spent_seconds": -1}),
    ("ck_enrollments_last_content_id", {"last_activity_at": AT}),
    ("ck_enrollments_last_content_id", {"last_content_id": "sums"}),
    ("pk_progress_records", {"user_id": "sam"}),
    ("fk_progress_records_user_id_module_id", {"user_id": "lee"}),
    ("fk_progress_records_user_id_module_id", {"module_id": "biology", "content_id": "cells"}),
    ("fk_progress_records_module_id_content_id", {"content_id": "cells"}),
    ("fk_progress_records_module_id_content_id", {"content_id": "shapes"}),
    ("ck_progress_records_furthest_percentage", {"furthest_percentage": -1, "progress_percentage": -1}),
    ("ck_progress_records_furthest_percentage", {"furthest_percentage": 101, "progress_percentage": 99}),
    ("ck_progress_records_progress_percentage", {"progress_percentage": 41}),
    ("ck_progress_records_progress_percentage", {"progress_percentage": 39}),
    ("ck_progress_records_progress_percentage", {"furthest_percentage": 100, "progress_percentage": 100}),
    ("ck_progress_records_progress_percentage", {"completed_at": AT}),
    ("ck_progress_records_time_spent_seconds", {"time_spent_seconds": -1}),
    ("ck_progress_records_score", {"score": 1}),
    ("ck_progress_records_score", {"max_score": 1}),
    ("ck_progress_records_score", {"score": -1, "max_score": 1}),
    ("ck_progress_records_score", {"score": 2, "max_score": 1}),
    ("ck_progress_records_max_score", {"score": 0, "max_score": 0}),
    ("ck_progress_records_max_score", {"score": 0, "max_score": 10**10 + 1}),
    ("ck_progress_records_position", {"position": "page 3"}),
    ("ck_progress_records_position", {"position_at": AT}),
    ("ck_progress_records_last_activity_at", {"last_activity_at": EARLIER}),
    ("ck_progress_records_progress_percentage", {"excused_at": AT}),
    ("ck_progress_records_started_at", {"started_at": None}),
    ("ck_progress_records_started_at", {"started_at": None, "last_activity_at": None}),
    ("ck_progress_records_started_at", {"last_activity_at": None, "excused_at": AT, "progress_percentage": 100}),
    ("pk_imported_enrollments", {"user_id": "sam"}),
    ("fk_imported_enrollments_user_id_module_id", {"user_id": "lee"}),
    ("pk_sessions", {"session": "s1"}),
    ("fk_sessions_user_id_content_id", {"content_id": "cells"}),
    ("ck_sessions_time_spent_seconds", {"time_spent_seconds": -1}),
    ("ck_sessions_time_spent_seconds", {"time_spent_seconds": 86_401}),
    ("pk_activity_days", {"day": AT.date()}),
    ("fk_activity_days_user_id_module_id", {"user_id": "lee"}),
    ("fk_activity_days_user_id_module_id", {"module_id": "biology"}),
    ("ck_activity_days_time_spent_seconds", {"time_spent_seconds": -1}),
    ("pk_tallies", {"part": 0}),
    ("fk_tallies_module_id", {"module_id": "geometry"}),
    ("ck_tallies_kind", {"kind": "month"}),
    ("ck_tallies_kind", {"kind": ""}),
    ("pk_stored_answers", {"key": "k1"}),
    ("pk_imported_chunks", {"digest": "d1"}),
    ("pk_arrivals", {"order_offset": 7}),
    ("ck_arrivals_digest", {"digest": "d1"}),
    ("ck_arrivals_digest", {"lines": 1}),
    ("pk_verifications", {"verified_at": AT}),
    ("ck_verifications_drifts", {"drifts": -1}),
    ("pk_changes", {"id": 1}),
    ("ck_changes_type", {"type": "enrollment.lost"}),
    ("pk_webhooks", {"id": "certificates"}),
    ("ck_webhooks_previous_secret", {"previous_secret": "s0"}),
    ("ck_webhooks_previous_secret", {"previous_until": AT}),
    ("ck_webhooks_failing_since", {"failing_since": AT}),
    ("ck_webhooks_failing_since", {"next_try_at": AT}),
    ("ck_webhooks_leased_by", {"leased_by": UUID(int=1)}),
    ("ck_webhooks_leased_by", {"leased_until": AT}),
]  # fmt: skip

# The ends of every range, which the tables must let pass.
EXTREME_ROWS: list[tuple[str, dict[str, Any]]] = [
    ("modules", {"total_weight": 0, "total_contents": 0}),
    ("contents", {"weight": 0, "completion_threshold": 1, "passing_score": 0, "retired": True}),
    ("contents", {"weight": 10_000, "completion_threshold": 100, "passing_score": 10_000}),
    ("enrollments", {"status": "completed", "completed_at": EARLIER}),
    ("enrollments", {"status": "paused", "time_spent_seconds": 2**63 - 1}),
    ("enrollments", {"status": "dropped", "last_activity_at": AT, "last_content_id": "sums"}),
    ("progress_records", {"furthest_percentage": 0, "progress_percentage": 0, "time_spent_seconds": 0}),
    ("progress_records", {"furthest_percentage": 100, "progress_percentage": 99}),
    ("progress_records", {"furthest_percentage": 0, "progress_percentage": 100, "completed_at": EARLIER}),
    ("progress_records", {"score": 0, "max_score": 1}),
    ("progress_records", {"score": 10**10, "max_score": 10**10}),
    ("progress_records", {"position": "", "position_at": EARLIER}),
    ("progress_records", {"started_at": EARLIER}),
    ("progress_records", {
        "started_at": None, "last_activity_at": None, "excused_at": AT, "furthest_percentage": 0,
        "progress_percentage": 100,
    }),
    ("imported_enrollments", {"status_told_at": None, "enrolled_at_told_at": EARLIER}),
    ("imported_enrollments", {"counted_told_at": None, "completed_at_told_at": None}),
    ("imported_chunks", {"behind": None, "line_digests": None}),
    ("sessions", {"time_spent_seconds": 0}),
    ("sessions", {"time_spent_seconds": 86_400}),
    ("activity_days", {"time_spent_seconds": 0}),
    ("activity_days", {"time_spent_seconds": 2**63 - 1}),
    # A part of a tally may lack what another part has.
    ("tallies", dict.fromkeys(Counts._fields, -1)),
    ("tallies", dict.fromkeys(Counts._fields, 2**63 - 1)),
    *(("tallies", {"kind": kind, "item": f"2025-01-27 {255 * 'x'}"}) for kind in KINDS),
    ("webhooks", {"url": 2000 * "x", "types": None, "module_ids": ["algebra", "biology"], "active": False}),
    ("webhooks", {"previous_secret": "s0", "previous_until": AT, "failing_since": EARLIER, "next_try_at": AT}),
    ("webhooks", {"last_status": None, "leased_by": UUID(int=1), "leased_until": AT}),
    ("stored_answers", {"fingerprint": 64 * "f", "body": b"", "learner_id": None}),
]  # fmt: skip


@pytest.fixture
def connection(app: Flask) -> Iterator[Connection]:
    """A connection that sees the stored rows, and undoes what a test adds."""
    with app.app_context(), db.engine.connect() as connection:
        for table, row in STORED:
            connection.execute(TABLES[table].insert(), row)
        yield connection


def refusal(connection: Connection, table: str, row: dict[str, Any]) -> psycopg.Error | sqlite3.Error:
    """Insert a row that is not let in, and return what the database says."""
    before = connection.execute(TABLES[table].select()).all()
    with pytest.raises(IntegrityError) as raised, connection.begin_nested():
        connection.execute(TABLES[table].insert(), row)
    assert connection.execute(TABLES[table].select()).all() == before
    assert isinstance(raised.value.orig, psycopg.Error | sqlite3.Error)
    return raised.value.orig


def constraints(table: Table) -> set[str]:
    kinds = (CheckConstraint, UniqueConstraint, ForeignKeyConstraint)
    return {str(one.name) for one in table.constraints if isinstance(one, kinds)} | {str(table.primary_key.name)}


def unnamed_key(connection: Connection, table: Table) -> set[str]:
    """Return the primary key if the database gives it no name, as SQLite if it counts up by itself."""
    is_unnamed = connection.dialect.name == "sqlite" and table.dialect_options["sqlite"]["autoincrement"]
    return {str(table.primary_key.name)} if is_unnamed else set()


def migrated_constraints(connection: Connection, table: str) -> set[str | None]:
    inspector = inspect(connection)
    found = [
        *inspector.get_check_constraints(table),
        *inspector.get_unique_constraints(table),
        *inspector.get_foreign_keys(table),
        inspector.get_pk_constraint(table),
    ]
    return {one["name"] for one in found if one["name"]}


def test_migrations_go_up_down_and_up_again(empty_database_url: str) -> None:
    with application(empty_database_url) as app, app.app_context():
        for _ in range(2):
            upgrade()
            check()
            assert set(inspect(db.engine).get_table_names()) == {*TABLES, "alembic_version"}
            upgrade()

            downgrade(revision="base")
            assert set(inspect(db.engine).get_table_names()) == {"alembic_version"}


def test_revisions_are_numbered_and_what_one_needs_the_later_ones_need_too() -> None:
    revisions = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][::-1]
    numbers, _, needs = zip(*(revision.partition("_needs_") for revision in revisions), strict=True)
    assert numbers == tuple(f"{place:04}" for place in range(1, len(revisions) + 1))
    assert list(needs) == sorted(needs)
    assert not [number for number, needed in zip(numbers, needs, strict=True) if needed >= number]


def test_check_finds_a_database_that_is_not_migrated(empty_database_url: str) -> None:
    with application(empty_database_url) as app, app.app_context(), pytest.raises(SystemExit):
        check()


def test_migrated_tables_have_the_constraints_of_the_models_by_name(connection: Connection) -> None:
    for name, table in TABLES.items():
        assert migrated_constraints(connection, name) == constraints(table) - unnamed_key(connection, table)


def test_every_constraint_has_a_bad_row_here() -> None:
    assert {name for name, _ in BAD_ROWS} == set[str]().union(*map(constraints, TABLES.values())) - {
        "uq_contents_module_id_id"  # only gives foreign keys something to point to: the id alone is unique
    }


@pytest.mark.parametrize(("constraint", "changes"), BAD_ROWS)
def test_a_bad_row_is_refused(connection: Connection, constraint: str, changes: dict[str, Any]) -> None:
    (table,) = (name for name in TABLES if constraint in constraints(TABLES[name]))
    error = refusal(connection, table, FINE[table] | changes)

    if isinstance(error, psycopg.Error):
        assert error.diag.constraint_name == constraint
    elif constraint.startswith("ck_"):
        assert str(error) == f"CHECK constraint failed: {constraint}"
    else:
        assert str(error).startswith("FOREIGN KEY" if constraint.startswith("fk_") else "UNIQUE")


def test_a_row_without_a_value_that_it_needs_is_refused(connection: Connection) -> None:
    for table in TABLES:
        for column in TABLES[table].columns:
            if not column.nullable and column is not TABLES[table].autoincrement_column:
                error = str(refusal(connection, table, FINE[table] | {column.name: None}))

                assert f"{table}.{column.name}" in error or f'"{column.name}" of relation "{table}"' in error


def test_fine_rows_are_let_in_up_to_the_ends_of_every_range(connection: Connection) -> None:
    for table, changes in [*((table, {}) for table in TABLES), *EXTREME_ROWS]:
        row = FINE[table] | changes
        with connection.begin_nested() as savepoint:
            connection.execute(TABLES[table].insert(), row)

            stored = connection.execute(TABLES[table].select().filter_by(**NEW[table])).one()._asdict()
            assert stored == row, f"STORED must give each column of {table} a value"
            savepoint.rollback()
