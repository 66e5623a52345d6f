"""How `flask db` runs migrations: one run at a time, whole or not at all, with patience, and saying what it does."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from click.testing import Result
from flask import Flask
from flask_migrate import check, upgrade
from sqlalchemy import Connection, create_engine, inspect, text

from progress_service import MIGRATIONS
from progress_service.store.database import db
from tests.callers import Caller
from tests.conftest import application, database_beside
from tests.test_serving import ROOT, environment
from tests.waiting import wait_until

REVISIONS = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][::-1]
NEWEST = REVISIONS[-1]
LATER = '''
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade() -> None:
    op.execute("{statement}")


def downgrade() -> None:
    """Take nothing back."""
'''


def run(app: Flask, *arguments: object) -> Result:
    return app.test_cli_runner().invoke(args=["db", *map(str, arguments)])


def lines(result: Result) -> list[str]:
    """Return what a successful run has said, as far as the first colon of each line."""
    assert result.exit_code == 0, result.output
    return [line.partition(":")[0] for line in result.stdout.splitlines()]


def later_version(tmp_path: Path, statement: str, *revisions: str) -> Path:
    """Return the migrations of a version with later revisions, each of which executes a statement."""
    folder = tmp_path / "later"
    shutil.copytree(MIGRATIONS, folder)
    for before, revision in zip([NEWEST, *revisions], revisions, strict=False):
        migration = LATER.format(revision=revision, before=before, statement=statement)
        (folder / "versions" / f"{revision}.py").write_text(migration)
    return folder


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Connect without the application."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def revision_of(url: str) -> str | None:
    with connected(url) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return found


def wait_for(url: str, condition: str) -> None:
    """Wait until another connection of the database meets a condition of `pg_stat_activity`."""
    found = text(f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {condition}")
    with connected(url) as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        wait_until(lambda: connection.execute(found).scalar())


def test_a_run_says_which_revisions_it_has_applied_or_taken_back(empty_database_url: str) -> None:
    with application(empty_database_url) as app:
        assert lines(run(app, "upgrade", "0002")) == ["0001 applied", "0002 applied"]
        assert lines(run(app, "upgrade")) == [f"{revision} applied" for revision in REVISIONS[2:]]
        assert run(app, "upgrade").stdout == f"Nothing to do: the database is at {NEWEST}.\n"
        assert lines(run(app, "downgrade", "base")) == [f"{revision} taken back" for revision in REVISIONS[::-1]]
        assert run(app, "downgrade", "base").stdout == "Nothing to do: the database is at base.\n"
        assert run(app, "stamp", "head").stdout == ""


def test_of_several_runs_at_once_one_does_the_work_and_the_others_find_it_done(empty_database_url: str) -> None:
    with ThreadPoolExecutor(3) as threads:
        ended = list(threads.map(lambda _: upgrade_in_a_process(empty_database_url), range(3)))

    assert [(one.returncode, one.stderr) for one in ended] == [(0, "")] * 3
    last_lines = sorted(one.stdout.splitlines()[-1].partition(":")[0] for one in ended)
    assert last_lines == [f"{NEWEST} applied", "Nothing to do", "Nothing to do"]


def upgrade_in_a_process(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
    return subprocess.run(command, cwd=ROOT, env=environment(url), capture_output=True, text=True)


def test_a_run_that_fails_changes_nothing_and_says_why_in_a_line(
    empty_database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    twice = "INSERT INTO imported_chunks (digest, lines, imported_at) VALUES ('d', 1, '2026-01-01')"
    with application(empty_database_url) as app:
        failed = run(app, "upgrade", "-d", later_version(tmp_path, twice, "9998", "9999"))

    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "constraint" in caplog.messages[-1]
    assert "\n" not in caplog.messages[-1]
    with connected(empty_database_url) as connection:
        assert inspect(connection).get_table_names() == []


def test_a_downgrade_that_would_lose_data_says_so_and_wants_to_be_told(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    module = {"title": "Algebra", "contents": [{"id": "sums", "title": "Sums", "type": "video"}]}
    with application(empty_database_url) as app:
        run(app, "upgrade")
        admin = Caller(app, "admin", "ada")
        admin.put("/api/catalog/modules/algebra", json=module)
        for user_id in ("sam", "kim"):
            update = {"userId": user_id, "contentId": "sums", "progressPercentage": 50}
            assert admin.post("/api/progress", json=update, headers={"Idempotency-Key": user_id}).status_code == 201
        statistics = admin.get("/api/progress/stats/algebra").get_json()

        refused = run(app, "downgrade", "0001")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "2 days of activity, 2 answers kept for repeats" in caplog.messages[-1]
        assert "-x lose-data" in caplog.messages[-1]
        assert admin.get("/api/progress/stats/algebra").get_json() == statistics

        assert lines(run(app, "downgrade", "-x", "lose-data", "0001")) == [
            f"{one} taken back" for one in REVISIONS[:0:-1]
        ]
        assert lines(run(app, "upgrade")) == [f"{revision} applied" for revision in REVISIONS[1:]]
        assert admin.get("/api/progress/stats/algebra").get_json() == statistics


def test_a_downgrade_counts_those_again_whom_the_older_version_counts(empty_database_url: str) -> None:
    counted = text("SELECT sum(learners) FROM tallies WHERE kind = 'status'")
    with application(empty_database_url) as app:
        run(app, "upgrade")
        admin = Caller(app, "admin", "ada")
        admin.put("/api/catalog/modules/algebra", json={"title": "Algebra", "contents": []})
        for user_id, counts in {"sam": True, "ines": False}.items():
            assert admin.put(f"/api/enrollments/{user_id}/algebra", json={"counted": counts}).status_code == 201

        with connected(empty_database_url) as connection:
            assert connection.execute(counted).scalar() == 1
        assert run(app, "downgrade", "-x", "lose-data", "0003").exit_code == 0
        with connected(empty_database_url) as connection:
            assert connection.execute(counted).scalar() == 2


def test_an_older_version_leaves_a_later_schema_that_it_can_work_with_alone(
    empty_database_url: str, tmp_path: Path
) -> None:
    with application(empty_database_url) as app:
        run(app, "upgrade", "-d", later_version(tmp_path, "SELECT 1", "9999"))

        said = run(app, "upgrade").stdout
        assert said == f"Nothing to do: the database is at 9999, which is later than this version's {NEWEST}.\n"
        assert revision_of(empty_database_url) == "9999"


def test_an_older_version_refuses_a_schema_that_needs_a_later_one(
    empty_database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with application(empty_database_url) as app:
        run(app, "upgrade", "-d", later_version(tmp_path, "SELECT 1", "9998", "9999_needs_9998"))

        assert run(app, "upgrade").exit_code == 1
        assert "9999_needs_9998" in caplog.messages[-1]


def test_a_database_that_cannot_store_every_letter_is_refused(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
    with database_beside(postgres_url, "empty", options) as url, application(url) as app:
        assert run(app, "upgrade").exit_code == 1

    assert "SQL_ASCII" in caplog.messages[-1]


class TestOnPostgreSQL:
    @pytest.fixture
    def url(self, empty_database_url: str) -> str:
        return empty_database_url

    pytestmark = pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)

    def test_a_run_waits_for_another_one_however_long_and_says_so(self, url: str) -> None:
        with application(url, LOCK_TIMEOUT=1, STATEMENT_TIMEOUT=1, CATALOG_TIMEOUT=4) as app, connected(url) as other:
            other.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('flask db', 0))"))
            with ThreadPoolExecutor(1) as thread:
                running = thread.submit(run, app, "upgrade")
                wait_for(url, "wait_event = 'advisory' AND now() - query_start > interval '6.5 s'")
                other.rollback()
                assert lines(running.result()) == [
                    "Waiting for another run to end.",
                    *(f"{one} applied" for one in REVISIONS),
                ]

    def test_statements_have_the_time_of_commands(self, url: str, tmp_path: Path) -> None:
        slow = later_version(tmp_path, "SELECT pg_sleep(4)", "9999")
        with application(url, STATEMENT_TIMEOUT=1) as app:
            assert run(app, "upgrade", "-d", slow).exit_code == 0

    def test_a_statement_without_an_end_is_given_up(
        self, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        endless = later_version(tmp_path, "SELECT pg_sleep(3600)", "9999")
        with application(url, CATALOG_TIMEOUT=4) as app:
            assert run(app, "upgrade", "-d", endless).exit_code == 1

        assert "PROGRESS_CATALOG_TIMEOUT" in caplog.messages[-1]
        assert revision_of(url) is None

    def test_requests_that_have_begun_come_to_their_end_before_any_table_changes(self, url: str) -> None:
        with application(url) as app, connected(url) as request:
            run(app, "upgrade", "0003")
            request.execute(text("SELECT count(*) FROM modules"))
            with ThreadPoolExecutor(1) as thread:
                running = thread.submit(run, app, "upgrade")
                wait_for(url, "wait_event_type = 'Lock'")
                request.execute(text("LOCK TABLE enrollments, progress_records, tallies IN ROW EXCLUSIVE MODE"))
                request.commit()
                said = [line for line in lines(running.result()) if not line.startswith("A table is in use")]
                assert said == [f"{revision} applied" for revision in REVISIONS[3:]]

    def test_a_table_that_others_hold_is_waited_for_in_short_turns(self, url: str) -> None:
        with application(url) as app, connected(url) as other:
            run(app, "upgrade", "0003")
            other.execute(text("SELECT count(*) FROM modules"))
            with ThreadPoolExecutor(1) as thread:
                running = thread.submit(run, app, "upgrade")
                wait_for(url, "wait_event_type = 'Lock'")
                wait_for(url, "state = 'idle' AND query = 'ROLLBACK'")
                other.rollback()
                said = lines(running.result())
        assert said[0].startswith("A table is in use")
        assert said[-1] == f"{NEWEST} applied"

    def test_a_table_that_others_hold_for_long_ends_the_run_with_advice(
        self, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with application(url, CATALOG_TIMEOUT=3) as app, connected(url) as other:
            run(app, "upgrade", "0003")
            other.execute(text("SELECT count(*) FROM modules"))
            assert run(app, "upgrade").exit_code == 1

        assert "lock timeout" in caplog.messages[-1]
        assert "Nothing has changed" in caplog.messages[-1]
        assert revision_of(url) == "0003"


@pytest.mark.slow
def test_a_writer_that_does_not_end_ends_a_run_on_sqlite(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{tmp_path}/progress.db"
    with application(url, CATALOG_TIMEOUT=1) as app, connected(url) as other:
        run(app, "upgrade", "0003")
        other.exec_driver_sql("BEGIN IMMEDIATE")
        assert run(app, "upgrade").exit_code == 1

    assert "database is locked" in caplog.messages[-1]
    assert revision_of(url) == "0003"


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_indexes_that_were_built_before_are_found_and_built_again_if_that_was_interrupted(
    empty_database_url: str,
) -> None:
    stages = "ix_progress_records_module_id_content_id_user_id"
    completions = "ix_enrollments_module_id_completed_at_user_id"
    told = (ROOT / "docs/operating.md").read_text().split("```sql\n")[1].split("```")[0]

    def numbers(connection: Connection) -> list[int]:
        of_index = text("SELECT CAST(CAST(:name AS regclass) AS oid)")
        return [connection.execute(of_index, {"name": name}).scalar_one() for name in (stages, completions)]

    with application(empty_database_url) as app, app.app_context():
        upgrade(revision="0006")
        with db.engine.begin() as connection:
            for one in told.replace("CONCURRENTLY ", "").strip().rstrip(";").split(";"):
                connection.execute(text(one))
            before = numbers(connection)
            broken = text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = CAST(:name AS regclass)")
            connection.execute(broken, {"name": stages})
        upgrade(revision="0008")

        with db.engine.begin() as connection:
            after = numbers(connection)
        assert (after[0] == before[0], after[1] == before[1]) == (False, True)
        upgrade()
        check()
