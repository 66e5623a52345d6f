"""The `flask` commands that publish a catalog, make tokens and verify totals."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from sqlalchemy import make_url

import progress_service
from progress_service.store import database, publishing, verification
from progress_service.store.database import db
from progress_service.store.locks import MOST_LOCKS
from progress_service.store.verification import Verified
from progress_service.tallies import KINDS, Counts
from tests.callers import KEY, bearing
from tests.conftest import Callers, Listen, Publish, Statements, application, empty, stored
from tests.progress.sending import instant, moment, send
from tests.test_serving import ROOT, environment, free_port

REFUSED, MISUSED = 1, 2
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
SUMS = {"id": "sums", "title": "Sums", "type": "video"}
CELLS = {"id": "cells", "title": "Cells", "type": "quiz"}
ALGEBRA = {"id": "algebra", "title": "Algebra", "contents": [SUMS]}
BIOLOGY = {"id": "biology", "title": "Biology", "contents": [CELLS]}


def run(app: Flask, *arguments: object) -> Result:
    return app.test_cli_runner().invoke(args=[str(argument) for argument in arguments])


def load(app: Flask, tmp_path: Path, *modules: Mapping[str, Any]) -> Result:
    file = tmp_path / "catalog.json"
    file.write_text(json.dumps({"modules": modules}))
    return run(app, "catalog", "load", file)


def corrupt(app: Flask, table: str, key: Mapping[str, str], **figures: Any) -> None:
    """Change the figures of one row behind the service's back."""
    with app.app_context(), db.engine.begin() as connection:
        rows = db.metadata.tables[table]
        changed = connection.execute(rows.update().filter_by(**key).values(figures))
        assert changed.rowcount == 1


def drifts(verified: Result) -> list[str]:
    """Return the lines that name a drift; as many are counted at the end."""
    lines: list[str] = [line for line in verified.stdout.splitlines() if "recounted" in line]
    assert verified.stdout.splitlines()[-1].startswith(f"{len(lines)} figures differ")
    return lines


COMMANDS = {
    **dict.fromkeys(["catalog load {}"], json.dumps(ALGEBRA)),
    **dict.fromkeys(["progress import --updates {}"], "userId,contentId\nsam,sums\n"),
    **dict.fromkeys(["catalog dump", "progress dump -", "progress verify", "progress purge", "progress settle"], ""),
    **dict.fromkeys(["progress report algebra", "progress deliver --once"], ""),
}
"""Commands that use the database, each with the content of its file."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_ends_with_one_line_if_the_database_is_away_or_not_migrated(
    command: str, tmp_path: Path, empty_database_url: str
) -> None:
    (tmp_path / "file").write_text(COMMANDS[command])
    away, refused = {
        "sqlite": (f"sqlite:///{tmp_path}/gone/progress.db", "unable to open database file"),
        "postgresql": (f"postgresql://sam:s3cret@127.0.0.1:{free_port()}/progress", "Connection refused"),
    }[make_url(empty_database_url).get_backend_name()]
    for url, said in ((away, refused), (empty_database_url, "no such table|does not exist|no schema")):
        with application(url) as app:
            result = run(app, *command.format(tmp_path / "file").split())
        assert (result.exit_code, type(result.exception)) == (REFUSED, SystemExit)
        (line,) = (line for line in result.stderr.splitlines() if "Error" in line)
        assert re.match(f"Error: .*({said})", line)
        assert "s3cret" not in result.output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("progress verify", "file is not a database"),
        ("db upgrade", "file is not a database"),
        ("catalog dump /dev/full", "No space left on device"),
        ("progress dump /dev/full", "No space left on device"),
        ("progress dump /dev/full/dump", "Not a directory"),
    ],
)
def test_a_command_ends_with_one_line_if_a_file_cannot_be_used(
    command: str, said: str, tmp_path: Path, app: Flask
) -> None:
    (tmp_path / "progress.db").write_text("no database")
    url = app.config["SQLALCHEMY_DATABASE_URI"] if "dump" in command else f"sqlite:///{tmp_path}/progress.db"
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *command.split()],
        cwd=ROOT,
        env=environment(url),
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (REFUSED, "")
    (line,) = (line for line in done.stderr.splitlines() if line != "dump")  # the name of a progress bar
    assert re.search(f"Error: .*{said}", line)


class TestCatalogLoad:
    def test_all_modules_of_a_file_are_published_and_others_stay(
        self, app: Flask, tmp_path: Path, publish: Publish, admin: Callers
    ) -> None:
        chemistry = publish("chemistry", ["atoms"])
        quiz = CELLS | {"section": "One", "weight": 3, "completionThreshold": 80, "passingScore": 66.66}
        result = load(app, tmp_path, BIOLOGY | {"instructorIds": ["ines"], "contents": [quiz]}, ALGEBRA)
        assert (result.exit_code, result.stdout) == (0, "2 modules, 2 contents published.\n")
        defaults = {"section": None, "weight": 1, "completionThreshold": 100, "passingScore": None}
        for expected in (
            ALGEBRA | {"instructorIds": [], "contents": [SUMS | defaults]},
            BIOLOGY | {"instructorIds": ["ines"], "contents": [quiz]},
            chemistry,
        ):
            assert admin().get(f"/api/catalog/modules/{expected['id']}").get_json() == expected

    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    def test_a_file_or_a_pipe_may_have_a_byte_order_mark(
        self, app: Flask, tmp_path: Path, admin: Callers, mark: bytes
    ) -> None:
        text = mark + json.dumps({"modules": [ALGEBRA]}).encode()
        file, pipe = tmp_path / "catalog.json", tmp_path / "pipe"
        file.write_bytes(text)
        os.mkfifo(pipe)
        with ThreadPoolExecutor(1) as writer:
            writer.submit(pipe.write_bytes, text)
            results = [run(app, "catalog", "load", pipe), run(app, "catalog", "load", file)]
        runner = app.test_cli_runner()
        results.append(runner.invoke(args=["catalog", "load", "-"], input=text))
        assert [result.stdout for result in results] == ["1 modules, 1 contents published.\n"] * 3
        assert admin().get("/api/catalog/modules/algebra").get_json()["contents"][0]["id"] == "sums"

    def test_what_was_read_of_a_module_can_be_loaded(self, app: Flask, tmp_path: Path, admin: Callers) -> None:
        load(app, tmp_path, BIOLOGY, ALGEBRA | {"instructorIds": ["zoe", "ines"]})
        before = stored(app)
        read = tmp_path / "algebra.json"
        read.write_bytes(admin().get("/api/catalog/modules/algebra").get_data())
        result = run(app, "catalog", "load", read)
        assert (result.exit_code, result.stdout) == (0, "1 modules, 1 contents published.\n"), result.output
        assert stored(app) == before

    def test_modules_that_are_as_the_file_says_are_left_alone(
        self, app: Flask, tmp_path: Path, statements: Statements
    ) -> None:
        quiz = CELLS | {"section": "One", "weight": 3, "completionThreshold": 80, "passingScore": 66.66}
        taught = BIOLOGY | {"instructorIds": ["zoe", "ines"], "contents": [quiz]}
        load(app, tmp_path, ALGEBRA, taught)
        for changed in (
            {},
            {"title": "Life"},
            {"instructorIds": ["ines", "zoe"]},
            {"contents": [quiz | {"weight": 2}]},
        ):
            with statements() as sent:
                assert load(app, tmp_path, ALGEBRA, taught | changed).exit_code == 0
            written = [one for one in sent if "UPDATE modules SET title" in one]
            assert len(written) == len(changed)

    @pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
    def test_updates_run_on_while_many_new_modules_are_loaded(
        self, app: Flask, tmp_path: Path, publish: Publish, service: Callers, listen: Listen
    ) -> None:
        publish("chemistry", ["atoms"])
        answered: list[int] = []

        def interfere(statement: str) -> None:
            if statement.startswith("INSERT INTO modules") and not answered:
                with ThreadPoolExecutor(1) as pool:
                    sent = pool.submit(service().post, "/api/progress", json={"userId": "sam", "contentId": "atoms"})
                    answered.append(sent.result(30).status_code)

        with app.app_context():
            listen(db.engine, "after", interfere)
        many = [{"id": f"m{n}", "title": "M", "contents": [SUMS | {"id": f"c{n}"}]} for n in range(MOST_LOCKS + 1)]
        chemistry = {"id": "chemistry", "title": "Chemistry", "instructorIds": ["ines"]}
        atoms = {"id": "atoms", "title": "Atoms", "type": "video"}
        assert load(app, tmp_path, *many, chemistry | {"contents": [atoms]}).exit_code == 0
        assert answered == [201]

    def test_the_demo_catalog_can_be_published_again_and_again(self, app: Flask, admin: Callers) -> None:
        file = Path(progress_service.__file__).parent / "demo_catalog.json"
        published: list[Any] = []
        for _ in range(2):
            assert run(app, "catalog", "load", file).exit_code == 0
            published.append(stored(app))
        assert published[0] == published[1]
        assert admin().get("/api/catalog/modules").get_json()["modules"][1]["totalContents"] == 4

    def test_a_content_left_out_is_retired_and_enrollments_follow_at_once(
        self, app: Flask, tmp_path: Path, student: Callers
    ) -> None:
        load(app, tmp_path, ALGEBRA | {"contents": [SUMS, SUMS | {"id": "roots"}]}, BIOLOGY)
        send(student(), "sums", progressPercentage=100)
        send(student("nora"), "cells", progressPercentage=50)
        assert load(app, tmp_path, ALGEBRA).exit_code == 0
        (sams,) = student().get("/api/progress/me").get_json()["modules"]
        (noras,) = student("nora").get("/api/progress/me").get_json()["modules"]
        assert (sams["status"], sams["progressPercentage"], sams["totalContents"]) == ("completed", 100, 1)
        assert (noras["status"], noras["progressPercentage"], noras["totalContents"]) == ("active", 50, 1)

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            (b"", "JSON"),
            (b'{"modules": [', "JSON"),
            (b'{"modules": [NaN]}', "JSON"),
            (b'{"modules": ["\xff"]}', "JSON"),
            (b"[]", "refused"),
            (b"{}", "/modules"),
            (b'{"modules": {}}', "/modules"),
            (b'{"modules": ["algebra"]}', "/modules/0"),
            (b'{"modules": [], "version": 2}', "/version"),
        ],
    )
    def test_a_file_that_is_no_catalog_is_refused(
        self, app: Flask, tmp_path: Path, publish: Publish, content: bytes, named: str
    ) -> None:
        publish("chemistry", ["atoms"])
        before = stored(app)
        file = tmp_path / "catalog.json"
        file.write_bytes(content)
        result = run(app, "catalog", "load", file)
        assert (result.exit_code, stored(app)) == (REFUSED, before)
        assert named in result.stderr

    @pytest.mark.parametrize(
        ("wrong", "pointers"),
        [
            ({"id": "../etc"}, {"/id"}),
            ({"id": "export"}, {"/id"}),
            ({"title": "x" * 201, "level": 3}, {"/title", "/level"}),
            ({"instructorIds": ["ines", "me"]}, {"/instructorIds/1"}),
            ({"contents": [CELLS, CELLS | {"weight": "2"}]}, {"/contents/1/weight"}),
            ({"contents": [{"id": "cells", "type": "A quiz"}]}, {"/contents/0/title", "/contents/0/type"}),
            ({"contents": [CELLS, CELLS]}, {"/contents/1/id"}),
        ],
    )
    def test_every_wrong_field_is_named_and_no_module_is_published(
        self, app: Flask, tmp_path: Path, publish: Publish, wrong: dict[str, Any], pointers: set[str]
    ) -> None:
        publish("chemistry", ["atoms"])
        before = stored(app)
        result = load(app, tmp_path, ALGEBRA, BIOLOGY | wrong)
        assert (result.exit_code, stored(app)) == (REFUSED, before)
        for pointer in pointers:
            assert f"/modules/1{pointer}: " in result.stderr
        assert "/modules/0" not in result.stderr

    @pytest.mark.parametrize("place", ["another file", "the same file"])
    def test_a_content_that_belongs_elsewhere_is_named_and_no_module_is_published(
        self, app: Flask, tmp_path: Path, publish: Publish, place: str
    ) -> None:
        publish("zoology", ["cells"] if place == "another file" else ["bees"])
        before = stored(app)
        thief = {"id": "botany", "title": "Botany", "contents": [SUMS | {"id": "roots"}, CELLS]}
        others = [] if place == "another file" else [BIOLOGY]
        result = load(app, tmp_path, ALGEBRA, *others, thief)
        assert (result.exit_code, stored(app)) == (REFUSED, before)
        assert "botany" in result.stderr
        assert "cells" in result.stderr
        assert "roots" not in result.stderr


class TestCatalogDump:
    def test_what_is_dumped_can_be_loaded(
        self, app: Flask, tmp_path: Path, publish: Publish, admin: Callers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(publishing, "READ_TOGETHER", 2)
        rich = {"section": "Ünit 1 🎓", "weight": 3, "completionThreshold": 80, "passingScore": 66.66}
        publish("biology", [{"id": "cells", **rich}, "genes", "gone"], instructor_ids=["zoe", "ines"])
        publish("biology", ["genes", {"id": "cells", **rich}], instructor_ids=["zoe", "ines"])
        for module_id in ("Zoology", "algebra", "chemistry", "void"):
            publish(module_id, [] if module_id == "void" else [f"{module_id}-sums"], instructor_ids=[])
        before, file = stored(app), tmp_path / "catalog.json"

        dumped = run(app, "catalog", "dump")
        assert dumped.exit_code == 0, dumped.output
        document = json.loads(dumped.stdout)
        ids = ["Zoology", "algebra", "biology", "chemistry", "void"]
        assert document == {"modules": [admin().get(f"/api/catalog/modules/{one}").get_json() for one in ids]}

        assert run(app, "catalog", "dump", file).exit_code == 0
        assert file.read_text() == dumped.stdout
        assert run(app, "catalog", "load", file).stdout == "5 modules, 5 contents published.\n"
        assert stored(app) == before
        empty(app)
        assert json.loads(run(app, "catalog", "dump").stdout) == {"modules": []}
        assert run(app, "catalog", "load", file).exit_code == 0
        assert run(app, "catalog", "dump").stdout == dumped.stdout


class TestToken:
    @pytest.mark.parametrize(
        ("role", "own_dashboard", "others_dashboard", "catalog_write"),
        [
            ("student", 200, 403, 403),
            ("instructor", 200, 403, 403),
            ("auditor", 200, 200, 403),
            ("admin", 200, 200, 201),
            ("service", 200, 200, 201),
        ],
    )
    def test_a_token_is_accepted_and_has_the_rights_of_its_role(
        self, app: Flask, role: str, own_dashboard: int, others_dashboard: int, catalog_write: int
    ) -> None:
        result = run(app, "token", "--sub", "kim.lee@example.org", "--role", role)
        assert result.exit_code == 0, result.output
        kim = bearing(app, f"Bearer {result.stdout.strip()}")
        dashboard = kim.get("/api/progress/me")
        assert dashboard.status_code == own_dashboard
        assert dashboard.get_json()["userId"] == "kim.lee@example.org"
        assert kim.get("/api/progress/sam").status_code == others_dashboard
        module = {"title": "Algebra", "contents": []}
        assert kim.put("/api/catalog/modules/algebra", json=module).status_code == catalog_write

    @pytest.mark.parametrize(("option", "seconds"), [((), 3600), (("--expires", 90), 90)])
    def test_a_token_lives_as_long_as_it_is_told(self, app: Flask, option: tuple[object, ...], seconds: int) -> None:
        result = run(app, "token", "--sub", "kim", "--role", "student", *option)
        assert result.exit_code == 0, result.output
        claims = jwt.decode(result.stdout.strip(), KEY, algorithms=["HS256"])
        assert claims["exp"] - claims["iat"] == seconds

    @pytest.mark.parametrize(
        "options",
        [
            *(("--sub", sub, "--role", "student") for sub in ("", "me", "stats", ".kim", "kim lee", "k" * 256, "zoë")),
            ("--sub", "kim", "--role", "teacher"),
            ("--sub", "kim", "--role", "student", "--expires", "0"),
            ("--sub", "kim"),
            ("--role", "student"),
        ],
    )
    def test_no_token_is_made_that_the_service_would_not_accept(self, app: Flask, options: tuple[str, ...]) -> None:
        result = run(app, "token", *options)
        assert (result.exit_code, result.stdout) == (MISUSED, "")
        assert "Usage: " in result.stderr

    @pytest.mark.parametrize("claim", ["https://example.org/role", "realm_access.roles"])
    def test_a_token_gives_its_role_in_the_claim_that_is_configured(self, claim: str, database_url: str) -> None:
        with application(database_url, ROLE_CLAIM=claim) as app:
            result = run(app, "token", "--sub", "kim", "--role", "admin")
            kim = bearing(app, f"Bearer {result.stdout.strip()}")
            assert kim.get("/api/progress/sam").status_code == 200

    @pytest.mark.parametrize("claim", ["email", "https://example.org/uid", "ext.user.id"])
    def test_a_token_names_the_caller_in_the_claim_that_is_configured(self, claim: str, database_url: str) -> None:
        with application(database_url, USER_CLAIM=claim) as app:
            result = run(app, "token", "--sub", "kim", "--role", "student")
            kim = bearing(app, f"Bearer {result.stdout.strip()}")
            assert kim.get("/api/progress/me").get_json()["userId"] == "kim"

    def test_a_token_gives_its_role_by_a_name_of_the_providers(self, database_url: str) -> None:
        names = '{"admin": "student", "progress/admin": "admin", "support": "auditor"}'
        with application(database_url, ROLE_NAMES=names) as app:
            for role, status in [("admin", 204), ("auditor", 403), ("student", 403), ("service", 204)]:
                result = run(app, "token", "--sub", "kim", "--role", role)
                kim = bearing(app, f"Bearer {result.stdout.strip()}")
                assert kim.delete("/api/progress/sam").status_code == status, role

    def test_no_token_is_made_where_the_key_is_not_a_development_key(self, database_url: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        public = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        settings = {"JWT_SECRET_KEY": None, "JWT_PUBLIC_KEY": public, "JWT_ALGORITHM": "ES256"}
        with application(database_url, **settings) as app:
            result = run(app, "token", "--sub", "kim", "--role", "admin")
        assert (result.exit_code, result.stdout) == (REFUSED, "")
        assert "PROGRESS_JWT_SECRET_KEY" in result.stderr


class TestVerify:
    SAM = {"user_id": "sam", "module_id": "algebra"}
    NEVER_ACTIVE = {"user_id": "kim", "module_id": "algebra"}
    FINISHED = {"user_id": "nora", "module_id": "algebra"}
    NO_ACTIVITY = {"last_activity_at": None, "last_content_id": None}

    @pytest.fixture(autouse=True)
    def _progress(self, publish: Publish, service: Callers) -> None:
        """Learners in every state: sam is half through, and around him are all who could be mistaken for drift."""
        quiz = {"id": "quiz", "weight": 2, "passingScore": 50}
        publish("algebra", ["intro", quiz, {"id": "extra", "weight": 0}, "old"])
        publish("biology", ["cells"])
        publish("nothing", [])
        service().put("/api/enrollments/kim/algebra", json={"status": "paused"})
        service().put("/api/enrollments/drew/algebra", json={"status": "dropped"})
        done = [
            {"contentId": "old", "progressPercentage": 50, "timeSpentSeconds": 7},
            {"contentId": "extra", "progressPercentage": 100, "timeSpentSeconds": 1},
            {"contentId": "intro", "progressPercentage": 100, "timeSpentSeconds": 60},
        ]
        begun = {"contentId": "quiz", "progressPercentage": 30}
        finished = {"contentId": "quiz", "progressPercentage": 100, "score": 3, "maxScore": 4}
        learners = {
            "sam": [*done, begun],
            "nora": [*done, finished, {"contentId": "cells", "progressPercentage": 100}],
            "drew": [*done, finished],
        }
        dated = [
            {"userId": learner, "occurredAt": moment()} | update
            for learner, updates in learners.items()
            for update in updates
        ]
        assert service().post("/api/progress/batch", json={"updates": dated}).status_code == 200
        publish("algebra", ["intro", quiz, {"id": "extra", "weight": 0}])  # "old" is retired, and nora completes
        publish("biology", ["cells", "genes"])  # nora stays completed, at 50 per cent

    def test_true_totals_are_found_true(self, app: Flask) -> None:
        before = stored(app)
        for options in ((), ("--repair",)):
            result = run(app, "progress", "verify", *options)
            assert result.exit_code == 0, result.output
            assert result.stdout.startswith("0 figures differ")
            assert stored(app) == before

    def test_the_last_result_is_kept(self, app: Flask) -> None:
        def last() -> Verified | None:
            with app.app_context():
                return database.read(verification.last)

        assert last() is None
        began = datetime.now(UTC)
        corrupt(app, "enrollments", self.NEVER_ACTIVE, completed_contents=1)
        for options, drifted in ((), True), (("--repair",), True), ((), False):
            found = run(app, "progress", "verify", *options)
            kept = last()
            assert kept is not None
            assert kept.drifts == len(drifts(found))
            assert bool(kept.drifts) == drifted
            assert began < kept.at < datetime.now(UTC)
            began = kept.at

    @pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
    def test_a_replica_can_be_verified_too(self, app: Flask, database_url: str) -> None:
        read_only = make_url(database_url).update_query_dict({"options": "-cdefault_transaction_read_only=on"})
        with application(read_only.render_as_string(hide_password=False)) as replica:
            found = run(replica, "progress", "verify")
        assert (found.exit_code, found.stdout) == (0, "0 figures differ from their recount.\n")
        assert "ReadOnlySqlTransaction" in found.stderr

    @pytest.mark.parametrize(
        ("table", "key", "wrong", "right"),
        [
            ("enrollments", SAM, {"weighted_sum": 161}, {"weighted_sum": 160}),
            ("enrollments", SAM, {"completed_contents": 0}, {"completed_contents": 1}),
            ("enrollments", SAM, {"time_spent_seconds": 61}, {"time_spent_seconds": 68}),
            ("enrollments", SAM, {"last_activity_at": LONG_AGO}, {"last_activity_at": instant(moment())}),
            ("enrollments", SAM, {"last_content_id": "cells"}, {"last_content_id": "quiz"}),
            ("enrollments", SAM, NO_ACTIVITY, {"last_activity_at": instant(moment()), "last_content_id": "quiz"}),
            ("enrollments", NEVER_ACTIVE, {"weighted_sum": 100}, {"weighted_sum": 0}),
            ("enrollments", NEVER_ACTIVE, {"last_activity_at": LONG_AGO, "last_content_id": "quiz"}, NO_ACTIVITY),
            ("enrollments", FINISHED, {"completed_contents": 3}, {"completed_contents": 2}),
            ("modules", {"id": "algebra"}, {"total_weight": 4}, {"total_weight": 3}),
            ("modules", {"id": "algebra"}, {"total_contents": 1}, {"total_contents": 2}),
            ("modules", {"id": "nothing"}, {"total_weight": 5}, {"total_weight": 0}),
        ],
    )
    def test_a_total_that_has_drifted_is_named_with_both_values_and_repaired(
        self, app: Flask, table: str, key: dict[str, str], wrong: dict[str, Any], right: dict[str, Any]
    ) -> None:
        before = stored(app)
        corrupt(app, table, key, **wrong)
        corrupted = stored(app)
        found = run(app, "progress", "verify")
        assert found.exit_code == REFUSED
        assert stored(app) == corrupted
        module = f"module {key.get('module_id') or key['id']}"
        whose = f"{module} learner {key['user_id']}" if "user_id" in key else module
        named = {f"{whose}: {figure} is {wrong[figure]}, recounted {right[figure]}" for figure in wrong}
        # What is counted from a wrong total seems to have drifted too.
        listed = {line for line in drifts(found) if not line.startswith(tuple(f"{module}: {kind} " for kind in KINDS))}
        assert listed == named

        repaired = run(app, "progress", "verify", "--repair")
        assert (repaired.exit_code, stored(app)) == (REFUSED, before)
        assert drifts(repaired) == drifts(found)
        assert run(app, "progress", "verify").exit_code == 0

    @pytest.mark.parametrize(
        ("group", "figure", "right"),
        [
            ("status active", "learners", 1),
            ("status dropped", "started", 1),
            ("status completed", "time_spent_seconds", 68),
            ("status paused", "weighted_sum", 0),
            ("percentage 53", "learners", 1),
            ("percentage 54", "learners", 0),
            ("content quiz", "started", 3),
            ("content old", "completed", 0),
            ("content intro", "time_spent_seconds", 180),
            ("content quiz", "scored", 2),
            ("content quiz", "score_hundredths", 15_000),
            ("content never", "started", 0),
            ("last_week 2024-01-01 quiz", "learners", 1),
            ("last_week 2024-01-01 intro", "learners", 0),
            ("day 2024-01-05", "learners", 3),
            ("day 2024-01-05", "started", 12),
            ("day 2024-01-05", "completed", 8),
            ("day 2024-01-05", "enrollments_completed", 0),
            ("day 2024-01-06", "time_spent_seconds", 0),
        ],
    )
    def test_a_tally_that_has_drifted_is_named_with_both_values_and_repaired(
        self, app: Flask, group: str, figure: str, right: int
    ) -> None:
        before = stored(app)
        kind, _, item = group.partition(" ")
        part = {"module_id": "algebra", "kind": kind, "item": item, "part": 99}
        with app.app_context(), db.engine.begin() as connection:
            counts = Counts()._replace(**{figure: -7})
            connection.execute(db.metadata.tables["tallies"].insert().values(**part, **counts._asdict()))
        found = run(app, "progress", "verify")
        assert found.exit_code == REFUSED
        assert drifts(found) == [f"module algebra: {group} {figure} is {right - 7}, recounted {right}"]

        repaired = run(app, "progress", "verify", "--repair")
        assert (repaired.exit_code, stored(app)) == (REFUSED, before)
        assert drifts(repaired) == drifts(found)
        assert run(app, "progress", "verify").exit_code == 0

    def test_tallies_that_are_gone_are_counted_again(self, app: Flask) -> None:
        before = stored(app)
        with app.app_context(), db.engine.begin() as connection:
            connection.execute(db.metadata.tables["tallies"].delete())
        found = drifts(run(app, "progress", "verify"))
        assert "module algebra: status active learners is 0, recounted 1" in found
        assert "module biology: content cells started is 0, recounted 1" in found
        assert run(app, "progress", "verify", "--repair").exit_code == REFUSED
        assert stored(app) == before
        assert run(app, "progress", "verify").exit_code == 0

    def test_days_of_activity_and_stored_answers_are_facts_that_no_repair_changes(
        self, app: Flask, service: Callers
    ) -> None:
        body, keyed = {"userId": "sam", "contentId": "cells"}, {"Idempotency-Key": "k"}
        assert service().post("/api/progress", json=body, headers=keyed).status_code == 201
        corrupt(app, "activity_days", self.SAM, time_spent_seconds=69)
        corrupt(app, "stored_answers", {"key": "k"}, body=b"{}")
        before = stored(app)

        found = run(app, "progress", "verify", "--repair")

        assert drifts(found) == ["module algebra: day 2024-01-05 time_spent_seconds is 204, recounted 205"]
        assert run(app, "progress", "verify").exit_code == 0
        after = stored(app)
        assert {name for name in after if after[name] != before[name]} == {"tallies"}

    def test_an_enrollment_that_should_be_completed_is_found_and_completed(self, app: Flask, service: Callers) -> None:
        corrupt(app, "enrollments", self.FINISHED, status="paused", completed_at=None)
        found = run(app, "progress", "verify")
        assert found.exit_code == REFUSED
        assert "module algebra learner nora: status is paused, recounted completed\n" in found.stdout

        began = datetime.now(UTC)
        assert run(app, "progress", "verify", "--repair").exit_code == REFUSED
        enrollment = service().get("/api/enrollments/nora/algebra").get_json()
        assert enrollment["status"] == "completed"
        assert began <= instant(enrollment["completedAt"]) <= datetime.now(UTC)
        assert service().get("/api/enrollments/drew/algebra").get_json()["status"] == "dropped"
        assert run(app, "progress", "verify").exit_code == 0

    def test_one_repair_suffices_where_a_wrong_total_of_the_module_has_kept_enrollments_open(
        self, app: Flask, student: Callers, service: Callers
    ) -> None:
        corrupt(app, "modules", {"id": "algebra"}, total_contents=3)
        send(student(), "quiz", progressPercentage=100, score=1, maxScore=1)
        assert service().get("/api/enrollments/sam/algebra").get_json()["status"] == "active"
        assert run(app, "progress", "verify", "--repair").exit_code == REFUSED
        assert service().get("/api/enrollments/sam/algebra").get_json()["status"] == "completed"
        assert run(app, "progress", "verify").exit_code == 0

    def test_every_drift_of_every_module_is_listed_counted_and_repaired(self, app: Flask) -> None:
        before = stored(app)
        corrupt(app, "enrollments", self.SAM, weighted_sum=0, time_spent_seconds=0)
        corrupt(app, "enrollments", self.NEVER_ACTIVE, time_spent_seconds=1)
        corrupt(app, "enrollments", {"user_id": "nora", "module_id": "biology"}, completed_contents=0)
        corrupt(app, "modules", {"id": "biology"}, total_weight=9)
        found = run(app, "progress", "verify")
        assert sorted(line.partition(" is ")[0] for line in drifts(found)) == [
            "module algebra learner kim: time_spent_seconds",
            "module algebra learner sam: time_spent_seconds",
            "module algebra learner sam: weighted_sum",
            # What is counted from these seems to have drifted too.
            "module algebra: percentage 0 learners",
            "module algebra: percentage 53 learners",
            "module algebra: status active time_spent_seconds",
            "module algebra: status active weighted_sum",
            "module algebra: status paused time_spent_seconds",
            "module biology learner nora: completed_contents",
            "module biology: percentage 11 learners",
            "module biology: percentage 50 learners",
            "module biology: total_weight",
        ]
        assert run(app, "progress", "verify", "--repair").exit_code == REFUSED
        assert stored(app) == before
        assert run(app, "progress", "verify").exit_code == 0
