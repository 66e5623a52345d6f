"""What the guides show happens so: their files, scripts and commands are run, and the answers are as they say."""

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest
from flask import Flask
from sqlalchemy import select, update
from werkzeug.datastructures import Headers
from werkzeug.test import run_wsgi_app

from progress_service.changes.delivering import Deliverer
from progress_service.store.models import Webhook
from tests.callers import KEY, Caller, token
from tests.conftest import Publish, application, engine_of, served, wait_until_settled
from tests.guides import BLOCK, FILE, GUIDES, files
from tests.test_serving import is_free
from tests.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[1]
CALLING = ("certificates", "copy", "player", "quizzes")
"""The guides whose programs call the service, or are called; `tests/browser/test_player.py` has the player."""
SECTIONS = {
    f"{path.stem}: {title}": text.split("\n## ")[0] + section
    for path in sorted(GUIDES.glob("*.md"))
    if path.stem not in CALLING
    for text in [path.read_text()]
    for title, section in re.findall(r"^## (.+)\n((?:.*\n(?!## ))*)", text, re.M)
    if "```" in section
}
"""The sections of each guide that show something, after what the guide says to all of them."""
ANSWER = re.compile(r"`GET (\S+)`")


def holds(document: Any, shown: Any) -> bool:
    """Tell whether a document has everything that is shown of it."""
    if isinstance(shown, dict):
        return isinstance(document, dict) and all(holds(document.get(name), value) for name, value in shown.items())
    if isinstance(shown, list):
        return isinstance(document, list) and len(document) == len(shown) and all(map(holds, document, shown))
    return bool(document == shown)


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_guide_leads_where_it_says(section: str, app: Flask, database_url: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PROGRESS_SQLALCHEMY_DATABASE_URI": database_url,
        "PROGRESS_JWT_SECRET_KEY": KEY,
    }
    done: Counter[str] = Counter()
    for introduction, language, content in BLOCK.findall(section):
        if language == "sh":
            command = ["sh", "-e", "-c", content]
            ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
            done["commands"] += 1
        elif answer := ANSWER.search(introduction):
            document = Caller(app, "service", "lms").get(answer[1]).get_json()
            assert holds(document, json.loads(content)), document
            done["answers"] += 1
        else:
            named = FILE.search(introduction)
            assert named, f"nothing says what is to be done with {content}"
            (tmp_path / named[1]).write_text(content)
            done["files"] += 1

    assert min(done[kind] for kind in ("files", "commands", "answers")) >= 1
    assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0


Run = Callable[..., "subprocess.Popen[bytes]"]


@contextmanager
def programs(guide: str, app: WSGIApplication, directory: Path) -> Iterator[Run]:
    """Serve the application, write the programs of a guide, and return what starts one."""
    for name, content in files(guide).items():
        (directory / name).write_text(content)
    with served(app) as address:
        environment = os.environ | {"API": address, "TOKEN": token("lms", "service")}
        yield lambda *command: subprocess.Popen([sys.executable, *command], cwd=directory, env=environment)


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def finish(caller: Caller, user_id: str) -> None:
    update = {"userId": user_id, "contentId": "sets", "progressPercentage": 100, "occurredAt": "2026-01-31T12:00:00Z"}
    assert caller.post("/api/progress", json=update).status_code == 201


@pytest.mark.slow
def test_certificates_are_issued_once_although_messages_come_again(
    database_url: str, publish: Publish, tmp_path: Path
) -> None:
    publish("algebra", ["sets"])
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with (
        application(database_url, WEBHOOK_HOSTS=f"http://127.0.0.1:{port}") as app,
        programs("certificates", app, tmp_path) as run,
    ):
        service = Caller(app, "service", "lms")
        assert run("subscribe.py", str(port)).wait(PATIENCE_SECONDS) == 0
        with engine_of(app).connect() as connection:
            begun = connection.execute(select(Webhook.settled_after, Webhook.change_id)).one()
        for user_id in ("sam", "kim"):
            finish(service, user_id)
        wait_until_settled(app)
        receiver = run("receiver.py", str(port))
        try:
            wait_until(lambda: not is_free(port))
            for _ in range(2):
                with engine_of(app).begin() as connection:
                    connection.execute(
                        update(Webhook).values(settled_after=begun.settled_after, change_id=begun.change_id)
                    )
                with app.app_context():
                    Deliverer(app).run(once=True)
            assert service.get("/api/webhooks/certificates").get_json()["pending"] == 0
        finally:
            receiver.terminate()
            receiver.wait(PATIENCE_SECONDS)
    assert rows(tmp_path / "certificates.db", "SELECT * FROM certificates ORDER BY user") == [
        ("kim", "algebra", "2026-01-31"),
        ("sam", "algebra", "2026-01-31"),
    ]
    assert rows(tmp_path / "certificates.db", "SELECT count(*) FROM seen") == [(2,)]


@pytest.mark.slow
def test_a_copy_that_is_polled_has_what_the_service_has(app: Flask, publish: Publish, tmp_path: Path) -> None:
    publish("algebra", ["sets"])
    service = Caller(app, "service", "lms")
    completed = "SELECT user FROM completed ORDER BY user"
    with programs("copy", app, tmp_path) as run:
        for user_id in ("eva", "kim", "lee", "sam", "tom"):
            finish(service, user_id)
        for expected in (["eva", "kim", "lee", "sam", "tom"], ["ann", "eva"]):
            for _ in range(2):
                wait_until_settled(app)
                assert run("poller.py").wait(PATIENCE_SECONDS) == 0
            assert [user for (user,) in rows(tmp_path / "copy.db", completed)] == expected
            for path in ("kim/algebra", "lee"):
                assert service.delete(f"/api/progress/{path}").status_code == 204
            assert service.delete("/api/enrollments/tom/algebra").status_code == 204
            assert service.post("/api/progress/sam/merge", json={"into": "ann"}).status_code == 204


@pytest.mark.slow
def test_a_quiz_has_the_best_of_its_attempts_as_they_are_graded_now(
    app: Flask, publish: Publish, tmp_path: Path
) -> None:
    publish("algebra", [{"id": "sets-quiz", "type": "quiz", "passingScore": 60}, {"id": "maps-quiz", "type": "quiz"}])
    service = Caller(app, "service", "lms")
    lost: list[str] = []

    def losing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer; but the first answer to each request is lost on the way, or is another one."""
        answer, status, headers = run_wsgi_app(app, environ, buffered=True)
        request = str(environ.get("HTTP_IDEMPOTENCY_KEY", environ["PATH_INFO"]))
        if request not in lost:
            lost.append(request)
            if request == "a1/1":
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            status, headers = "503 Service Unavailable", Headers({"Retry-After": "0"})
        start_response(status, list(headers))
        return answer

    def record() -> list[Any]:
        content = service.get("/api/progress/sam/algebra").get_json()["contents"][0]
        fields = ("status", "progressPercentage", "scorePercentage", "timeSpentSeconds", "completedAt")
        return [content["progress"][name] for name in fields]

    with programs("quizzes", losing, tmp_path) as run:

        def finished(name: str, points: str, hour: str) -> None:
            command = ("finished.py", name, "sam", "sets-quiz", points, "10", "300", f"2026-01-31T{hour}:00:00Z")
            assert run(*command).wait(PATIENCE_SECONDS) == 0

        finished("a1", "4", "08")
        assert record() == ["in_progress", 99, 40, 300, None]
        finished("a2", "8", "09")
        assert record() == ["completed", 100, 80, 600, "2026-01-31T09:00:00Z"]
        assert run("regrade.py", "a2", "5").wait(PATIENCE_SECONDS) == 0
        assert record() == ["in_progress", 99, 50, 600, None]
        assert run("regrade.py", "a1", "7").wait(PATIENCE_SECONDS) == 0
        assert record() == ["completed", 100, 70, 600, "2026-01-31T08:00:00Z"]
    assert lost[:3] == ["a1/1", "a2/1", "a2/2"]


@pytest.mark.slow
def test_the_night_reports_what_was_left_over_and_sets_aside_what_is_wrong(
    app: Flask, publish: Publish, tmp_path: Path
) -> None:
    publish("algebra", ["sets-quiz"])
    attempts = [(f"a{number}", f"learner-{number}", "sets-quiz") for number in range(1200)]
    attempts[7] = ("a7", "learner-7", "lost-quiz")
    with programs("quizzes", app, tmp_path) as run:
        assert run("quizzes.py").wait(PATIENCE_SECONDS) == 0
        with closing(sqlite3.connect(tmp_path / "quizzes.db")) as store, store:
            columns = "id, learner, quiz, points, maximum, seconds, finished"
            values = "?, ?, ?, 6, 10, 60, '2026-01-31T12:00:00Z'"
            store.executemany(f"INSERT INTO attempts ({columns}) VALUES ({values})", attempts)
        for _ in range(2):
            assert run("night.py").wait(PATIENCE_SECONDS) == 0

    refused = "SELECT id, refusal FROM attempts WHERE reported = 0"
    assert rows(tmp_path / "quizzes.db", refused) == [("a7", "The content is not in the catalog.")]
    days = (
        Caller(app, "admin", "ada").get("/api/progress/stats/algebra/timeline?from=2026-01-31&to=2026-01-31").get_json()
    )
    assert days["days"][0]["contentsCompleted"] == 1199
    assert days["days"][0]["timeSpentSeconds"] == 1199 * 60
