"""Databases with learners in them, brought from an older migration to the newest one."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from flask_migrate import downgrade, upgrade
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from progress_service.extensions import db
from tests.callers import Caller
from tests.conftest import application

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


def stored_by_an_earlier_version(sqlite: bool) -> None:
    at, record_id = (f"{AT:%Y-%m-%d %H:%M:%S.%f}", RECORD_ID.hex) if sqlite else (AT, RECORD_ID)
    with db.engine.begin() as connection:
        for statement in EARLIER:
            known = {"at": at, "id": record_id}
            connection.execute(text(statement), {name: known[name] for name in known if f":{name}" in statement})


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_what_an_earlier_version_stored_is_kept_and_counted(empty_database_url: str, revision: str) -> None:
    with application(empty_database_url) as app:
        with app.app_context():
            upgrade(revision=revision)
            stored_by_an_earlier_version(sqlite=empty_database_url.startswith("sqlite"))
            upgrade()
        repaired = app.test_cli_runner().invoke(args=["progress", "verify", "--repair"])
        assert repaired.exit_code == 1
        assert "status active learners is 0, recounted 1" in repaired.output
        assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0

        statistics = Caller(app, "admin", "ada").get("/api/progress/stats/algebra").get_json()
        assert statistics["learners"]["enrolled"] == 2
        assert statistics["averageProgressPercentage"] == 25
        assert [content["stalled"] for content in statistics["contents"]] == [1, 0]
        (sam,) = Caller(app, "student", "sam").get("/api/progress/me").get_json()["modules"]
        assert (sam["progressPercentage"], sam["timeSpentSeconds"]) == (50, 30)

        with app.app_context():
            downgrade(revision=revision)
            with db.engine.connect() as connection:
                assert connection.execute(text("SELECT count(*) FROM progress_records")).scalar() == 1


def test_foreign_keys_are_checked_again_after_a_migration(empty_database_url: str) -> None:
    with application(empty_database_url) as app, app.app_context():
        upgrade()
        with db.engine.connect() as connection, pytest.raises(IntegrityError):
            connection.execute(text("INSERT INTO module_instructors VALUES ('nowhere', 'ines', 0)"))
