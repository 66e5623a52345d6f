"""What the guides show happens so: their files, scripts and commands are run, and the answers are as they say."""

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from progress_service.changes.delivering import Deliverer
from progress_service.store.models import Webhook
from tests.callers import KEY, Caller, token
from tests.conftest import Publish, application, engine_of, served, wait_until_settled
from tests.guides import BLOCK, FILE, GUIDES, files

ROOT = Path(__file__).parents[1]
CALLING = ("certificates", "copy", "player")
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
def programs(guide: str, app: Flask, directory: Path) -> Iterator[Run]:
    """Serve the application, write the programs of a guide, and return what starts one."""
    for name, content in files(guide).items():
        (directory / name).write_text(content)
    with served(app) as address:
        environment = os.environ | {"API": address, "TOKEN": token("lms", "service")}
        yield lambda *command: subprocess.Popen([sys.executable, *command], cwd=directory, env=environment)


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def wait_for(port: int) -> None:
    """Wait until a program listens on a port."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nobody listens"
            time.sleep(0.02)


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
        assert run("subscribe.py", str(port)).wait(60) == 0
        with engine_of(app).connect() as connection:
            begun = connection.execute(select(Webhook.settled_after, Webhook.change_id)).one()
        for user_id in ("sam", "kim"):
            finish(service, user_id)
        wait_until_settled(app)
        receiver = run("receiver.py", str(port))
        try:
            wait_for(port)
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
            receiver.wait(60)
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
                assert run("poller.py").wait(60) == 0
            assert [user for (user,) in rows(tmp_path / "copy.db", completed)] == expected
            for path in ("kim/algebra", "lee"):
                assert service.delete(f"/api/progress/{path}").status_code == 204
            assert service.delete("/api/enrollments/tom/algebra").status_code == 204
            assert service.post("/api/progress/sam/merge", json={"into": "ann"}).status_code == 204
