"""gunicorn serves the application, and stops when it is told to."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from itertools import islice
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from urllib.request import urlopen

import pytest
from flask import Flask
from sqlalchemy import text

from progress_service import processors
from progress_service.store.database import db
from tests.callers import KEY, token
from tests.conftest import Callers, Publish
from tests.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[1]
GUNICORN = [sys.executable, "-m", "gunicorn", "-c", "python:progress_service.serving"]


def environment(database_url: str = "sqlite:///:memory:", **others: str) -> dict[str, str]:
    settings = {"PROGRESS_SQLALCHEMY_DATABASE_URI": database_url, "PROGRESS_JWT_SECRET_KEY": KEY}
    return os.environ | settings | others


class Server:
    """A gunicorn on a port of its own."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.port = port
        self.process = process

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[HTTPResponse, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        headers |= {"Authorization": f"Bearer {token('sam', 'student')}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response, json.loads(response.read())
        finally:
            connection.close()

    def metrics(self) -> list[str]:
        """Return the lines that Prometheus would read."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE_SECONDS) as response:
            return list(response.read().decode().splitlines())

    def shared_directories(self) -> list[Path]:
        """Return where the workers keep their figures."""
        parents = {Path("/dev/shm"), Path(gettempdir())}
        return [found for parent in parents for found in parent.glob(f"progress-workers-{self.process.pid}-*")]

    def wait_until_it_answers(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, "gunicorn has ended"
            try:
                self.call("GET", "/readyz")
            except ConnectionRefusedError:
                return False
            return True

        wait_until(answers)

    def stop(self) -> tuple[int, str]:
        """Stop the server; return its exit status and what it has written."""
        self.process.terminate()
        output, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, output

    def workers(self) -> list[int]:
        """Return the ids of the processes that serve."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def two_workers(self, *ended: int) -> set[int]:
        """Return the ids of two workers as soon as there are two, and none of those that have ended or will."""

        def found() -> set[int]:
            workers = set(self.workers())
            return workers if len(workers) == 2 and workers.isdisjoint(ended) else set()

        return wait_until(found)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS).close()
    except ConnectionError as error:  # it is reset if who listens ends just then
        return isinstance(error, ConnectionRefusedError)
    return False


@contextmanager
def gunicorn(
    database_url: str,
    workers: int = 2,
    app: str = "wsgi:app",
    port: int | None = None,
    under: Sequence[str] = (),
    **settings: str,
) -> Iterator[Server]:
    """Start a server; whatever is left of it at the end is killed."""
    port = port or free_port()
    process = subprocess.Popen(
        [*under, *GUNICORN, app],
        cwd=ROOT,
        env=environment(database_url, PORT=str(port), WEB_CONCURRENCY=str(workers), **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    server = Server(port, process)
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        if lives(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for directory in server.shared_directories():  # which a server that was killed could not remove
            shutil.rmtree(directory)


def lives(group: int) -> bool:
    """Tell whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def printed(*options: str, **variables: str) -> dict[str, str]:
    """Return the configuration of a gunicorn that is started so."""
    env = {name: text for name, text in os.environ.items() if name not in ("PORT", "WEB_CONCURRENCY")}
    command = [*GUNICORN, "--print-config", *options, "wsgi:app"]
    done = subprocess.run(
        command, cwd=ROOT, env=env | {"PROGRESS_JWT_SECRET_KEY": KEY} | variables, capture_output=True, check=True
    )
    return dict(re.findall(r"^(\w+) += (.*)$", done.stdout.decode(), re.M))


def test_gunicorn_is_configured_by_the_settings() -> None:
    usual = printed(PORT="")
    assert (
        usual.items()
        >= {
            "bind": "['127.0.0.1:8000']",
            "workers": str(processors.usable() + 1),
            "threads": "16",
            "timeout": "30",
            "keepalive": "75",
            "graceful_timeout": "30",
            "forwarded_allow_ips": "['127.0.0.1', '::1']",
        }.items()
    )

    given = {
        "PORT": "8123",
        "WEB_CONCURRENCY": "5",
        "PROGRESS_BIND": "0.0.0.0,[::1],unix:/run/progress.sock",
        "PROGRESS_POOL_SIZE": "3",
        "PROGRESS_CLIENT_TIMEOUT": "11",
        "PROGRESS_KEEPALIVE_TIMEOUT": "0",
        "PROGRESS_GRACEFUL_TIMEOUT": "22",
        "PROGRESS_FORWARDED_ALLOW_IPS": "10.0.0.0/8",
    }
    expected = {
        "bind": "['0.0.0.0:8123', '[::1]:8123', 'unix:/run/progress.sock']",
        "workers": "5",
        "threads": "3",
        "timeout": "11",
        "keepalive": "0",
        "graceful_timeout": "22",
        "forwarded_allow_ips": "['10.0.0.0/8']",
    }
    assert printed(**given).items() >= expected.items()

    options = ("--bind", "127.0.0.1:9", "--threads", "2", "--timeout", "7", "--workers", "1")
    winning = {"bind": "['127.0.0.1:9']", "threads": "2", "timeout": "7", "workers": "1"}
    assert printed(*options, **given).items() >= (expected | winning).items()


@pytest.mark.parametrize(
    ("key", "status", "named"),
    [(KEY, 0, set()), ("", 78, {"PROGRESS_JWT_SECRET_KEY", "PROGRESS_JWT_PUBLIC_KEY"})],
)
def test_gunicorn_accepts_the_configuration_and_without_a_key_says_which_settings_to_give(
    key: str, status: int, named: set[str]
) -> None:
    env = environment(PROGRESS_JWT_SECRET_KEY=key)
    check = subprocess.run([*GUNICORN, "--check-config", "wsgi:app"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (check.returncode, check.stdout) == (status, "")
    assert bool(check.stderr) == bool(named)
    assert {name for name in named if name in check.stderr} == named


def test_a_server_answers_many_at_once_exactly_and_stops_without_leaving_anything(
    database_url: str, publish: Publish, student: Callers
) -> None:
    publish("algebra", ["intro", "outro"])
    update = {"contentId": "intro", "progressPercentage": 40, "timeSpentSeconds": 60}
    with gunicorn(database_url) as server:
        response, document = server.call("POST", "/api/progress", update, **{"X-Request-ID": "the-first"})
        assert (response.status, response.headers["X-Request-ID"]) == (201, "the-first")
        assert response.headers.get_all("Server") == ["progress-service"]
        assert document["enrollment"]["progressPercentage"] == 20
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(lambda _: server.call("POST", "/api/progress", update), range(40)))
        assert [response.status for response, _ in answers] == [200] * 40
        assert server.call("GET", "/api/progress/me")[1]["summary"]["timeSpentSeconds"] == 41 * 60

        group = "%2C".join(f"{place:036}" for place in range(200))
        response, _ = server.call("GET", f"/api/progress/stats/algebra/learners?userIds={group}")
        assert response.status == 403, "the line is not too long for gunicorn"

        updates = 'http_request_duration_seconds_count{method="POST",route="/api/progress",status="200"} 40.0'
        assert [updates in server.metrics() for _ in range(9)] == [True] * 9, "whichever worker is asked"
        assert len(server.shared_directories()) == 1

        status, output = server.stop()
        assert status == 0
        assert server.shared_directories() == []
        assert not lives(server.process.pid)
        with pytest.raises(ConnectionRefusedError):
            server.call("GET", "/healthz")
    assert len([line for line in output.splitlines() if '"the-first"' in line and "POST /api/progress" in line]) == 1
    assert output.count("2 workers x 16 threads, at most 32 connections to the database") == 1
    assert "Traceback" not in output
    assert "Warning" not in output
    assert student().get("/api/progress/me").get_json()["summary"]["timeSpentSeconds"] == 41 * 60


def test_what_a_killed_server_has_left_goes_when_another_starts(database_url: str) -> None:
    with gunicorn(database_url) as living, gunicorn(database_url) as killed:
        os.killpg(killed.process.pid, signal.SIGKILL)
        killed.process.communicate(timeout=PATIENCE_SECONDS)  # until its workers, which hold the lock too, have ended
        assert len(killed.shared_directories()) == 1
        with gunicorn(database_url) as another:
            assert [len(one.shared_directories()) for one in (living, killed, another)] == [1, 0, 1]
            assert any("http_request_duration_seconds_count" in line for line in living.metrics())


@pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
def test_a_locked_row_for_which_many_wait_holds_up_nobody_else(
    usual_app: Flask, database_url: str, publish: Publish, service: Callers
) -> None:
    publish("algebra", ["intro", "outro"])
    update = {"contentId": "intro", "timeSpentSeconds": 60}
    assert service().post("/api/progress", json=update | {"userId": "sam"}).status_code == 201
    with usual_app.app_context():
        engine = db.engine
    patient: dict[str, Any] = {"PROGRESS_LOCK_TIMEOUT": "60", "PROGRESS_STATEMENT_TIMEOUT": "60"}
    with gunicorn(database_url, workers=1, **patient) as server, ThreadPoolExecutor(24) as clients:
        with engine.begin() as connection:
            connection.execute(text("SELECT FROM enrollments WHERE user_id = 'sam' FOR UPDATE"))
            updates = [clients.submit(server.call, "POST", "/api/progress", update) for _ in range(24)]
            refused = [one.result()[0] for one in islice(as_completed(updates, PATIENCE_SECONDS), 16)]
            assert {response.status for response in refused} == {503}
            assert all(int(response.headers["Retry-After"]) > 0 for response in refused)
            for path in ("/healthz", "/readyz", "/api/progress/me") * 4:
                assert server.call("GET", path)[0].status == 200
            assert sum(not one.done() for one in updates) == 8, "half of the threads wait"
        statuses = [one.result(PATIENCE_SECONDS)[0].status for one in updates]
    assert sorted(statuses) == [200] * 8 + [503] * 16
    assert service().get("/api/progress/sam").get_json()["summary"]["timeSpentSeconds"] == 9 * 60
