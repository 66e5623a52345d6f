"""`make run`: one process that fills a database once, says what to try, and serves."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import takewhile
from pathlib import Path
from string import Template
from typing import Any
from urllib.request import Request, urlopen

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask

from tests.conftest import Callers, Publish, empty, fill_demo, stored
from tests.test_serving import ROOT, Server, environment, lives
from tests.waiting import PATIENCE_SECONDS

MAKE_RUN = [sys.executable, "-m", "progress_service.demo"]


@contextmanager
def demo(**settings: str) -> Iterator[tuple[Server, str]]:
    """Start the demo, and yield it with what it has printed before it serves; whatever is left of it is killed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        MAKE_RUN,
        cwd=ROOT,
        env=environment(PORT=str(port), WEB_CONCURRENCY="1", **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    server = Server(port, process)
    try:
        assert process.stdout
        printed = "".join(takewhile(lambda line: "Starting gunicorn" not in line, process.stdout))
        server.wait_until_it_answers()
        yield server, printed
    finally:
        if lives(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def requests(printed: str) -> list[list[str]]:
    """Return the words of the curl commands, as a shell would pass them on."""
    tokens = dict(re.findall(r"^(\w+)=(\S+)$", printed, re.M))
    return [shlex.split(Template(line).substitute(tokens)) for line in re.findall("^curl .+$", printed, re.M)]


def send(request: list[str]) -> tuple[int, Any]:
    """Send what a curl command says, and return the status and the document of the answer."""
    options = list(zip(request[1:-1:2], request[2:-1:2], strict=True))
    headers = dict(value.split(": ") for option, value in options if option == "-H")
    body = next((value.encode() for option, value in options if option == "-d"), None)
    with urlopen(Request(request[-1], body, headers), timeout=PATIENCE_SECONDS) as answer:
        return answer.status, json.load(answer)


def test_the_demo_has_learners_of_every_kind_and_all_figures_are_right(
    app: Flask, instructor: Callers, student: Callers
) -> None:
    fill_demo(app)
    for module_id, enrolled in (("sql-basics", 41), ("git-basics", 20)):
        statistics = instructor().get(f"/api/progress/stats/{module_id}").get_json()
        assert statistics["learners"]["enrolled"] == enrolled
        assert sum(content["stalled"] for content in statistics["contents"]) >= 5
    statistics = instructor().get("/api/progress/stats/sql-basics").get_json()
    assert all(statistics["learners"].values()), "active, paused, dropped, completed, started and not started"
    assert [content["excused"] for content in statistics["contents"]] == [0, 0, 1, 0]
    roster = instructor().get("/api/progress/stats/sql-basics/learners?limit=200").get_json()["items"]
    assert [learner["userId"] for learner in roster if not learner["counted"]] == ["ines"]
    assert len({learner["progressPercentage"] for learner in roster}) > 20
    dashboard = student().get("/api/progress/me").get_json()
    assert dashboard["continue"]["contentId"] == "sql-select"
    assert len(dashboard["modules"]) == 2

    verified = app.test_cli_runner().invoke(args=["progress", "verify"])
    assert verified.stdout == "0 figures differ from their recount.\n"


def test_the_demo_is_the_same_on_every_day_and_at_every_hour(app: Flask, instructor: Callers) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    seen = []
    for now in (today, today - timedelta(microseconds=1)):
        empty(app)
        fill_demo(app, now)
        seen.append(instructor().get("/api/progress/stats/sql-basics?stalledDays=60").get_json())
    assert seen[0] == seen[1]


def test_a_database_with_a_learner_stays_as_it_is(app: Flask, publish: Publish, student: Callers) -> None:
    publish("algebra", ["sets"])
    student().post("/api/progress", json={"contentId": "sets"})
    before = stored(app)
    fill_demo(app)
    assert stored(app) == before


def test_filling_again_changes_nothing_that_users_have_done(app: Flask, service: Callers) -> None:
    fill_demo(app)
    service().put("/api/catalog/modules/sql-basics", json={"title": "SQL", "contents": []})
    service().delete("/api/progress/sam")
    before = stored(app)
    fill_demo(app)
    assert stored(app) == before


def test_the_demo_prints_requests_that_succeed_and_stops_when_it_is_told_to(empty_database_url: str) -> None:
    with demo(PROGRESS_SQLALCHEMY_DATABASE_URI=empty_database_url) as (server, printed):
        assert f"http://127.0.0.1:{server.port}/docs" in printed
        answers = [send(request) for request in requests(printed)]
        assert [status for status, _ in answers] == [201, 200, 200, 200, 200]
        (_, reported), (_, dashboard), (_, batch), (_, statistics), (_, module) = answers
        assert reported["progress"]["contentId"] == dashboard["continue"]["contentId"] == "sql-joins"
        assert batch["received"] == 2
        assert statistics["learners"]["enrolled"] == 41
        assert module["enrollment"]["userId"] == "sam"

        assert server.stop()[0] == 0
        assert not lives(server.process.pid)
        assert server.shared_directories() == []
    with demo(PROGRESS_SQLALCHEMY_DATABASE_URI=empty_database_url) as (_, printed):
        assert [send(request)[0] for request in requests(printed)] == [200] * 5


def test_the_readme_shows_the_first_request_and_its_answer(app: Flask, student: Callers) -> None:
    readme = (ROOT / "README.md").read_text()
    request, answer = (json.loads(text) for text in re.findall(r"^(\{.+?\})\n```$", readme, re.M | re.S))
    fill_demo(app)
    answered = student().post("/api/progress", json=request)
    assert answered.status_code == 201
    without = partial(re.sub, r'"(id|\w+At)": "[^"]+"', "")
    assert without(json.dumps(answered.get_json())) == without(json.dumps(answer))


def test_the_demo_prints_the_command_that_writes_a_report(tmp_path: Path) -> None:
    key = tmp_path / "development.key"
    key.write_text("0" * 64 + "\n")
    settings = {"PROGRESS_JWT_SECRET_KEY": "", "PROGRESS_SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/progress.db"}
    with demo(**settings, PROGRESS_JWT_SECRET_KEY_FILE=str(key)) as (_, printed):
        (command,) = re.findall("^(.+) > report.html$", printed, re.M)
        page = subprocess.check_output(command, shell=True, cwd=ROOT, env=os.environ | settings)
    assert b"SQL from the ground up" in page


def test_without_a_secret_the_demo_prints_no_tokens(tmp_path: Path) -> None:
    public = rsa.generate_private_key(65537, 2048).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    settings = {"PROGRESS_JWT_SECRET_KEY": "", "PROGRESS_SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/progress.db"}
    with demo(**settings, PROGRESS_JWT_PUBLIC_KEY=pem) as (server, printed):
        assert f"http://127.0.0.1:{server.port}/docs" in printed
        assert requests(printed) == []


def test_a_port_that_is_taken_is_named_before_anything_else_happens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = environment(f"sqlite:///{tmp_path}/progress.db", PORT=str(port))
        run = subprocess.run(MAKE_RUN, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"Error: Port {port} cannot be used: Address already in use. Try another: make run PORT=...\n"
    assert list(tmp_path.iterdir()) == []
