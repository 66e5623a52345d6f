"""Servers stop, start and reload while others use them: nothing is refused, nothing is lost, nothing counts twice."""

import json
import os
import select
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from itertools import cycle
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from tests.callers import KEY, token
from tests.conftest import Callers, Publish, engine_of
from tests.test_serving import Server, gunicorn
from tests.waiting import PATIENCE_SECONDS, wait_until

UPDATE = {"contentId": "sets", "timeSpentSeconds": 1}
LEARNERS = ("sam", "kim", "lee", "ann")
SQLITE, POSTGRESQL = (pytest.mark.parametrize("usual_app", [name], indirect=True) for name in ("sqlite", "postgresql"))


@pytest.fixture(autouse=True)
def _algebra(publish: Publish) -> None:
    publish("algebra", ["sets", "maps"])


def kill_worker(server: Server) -> None:
    """Kill one of two workers, and wait until there is another."""
    killed = server.two_workers().pop()
    os.kill(killed, signal.SIGKILL)
    server.two_workers(killed)


def reload(server: Server) -> None:
    """Let a server replace both workers, and wait for that."""
    before = server.two_workers()
    os.kill(server.process.pid, signal.SIGHUP)
    server.two_workers(*before)


class Gateway:
    """Passes requests to the servers that are ready, on connections that it keeps open, and tries nothing twice."""

    def __init__(self, ports: list[int]) -> None:
        self.ready = set(ports)
        self._turns = cycle(ports)
        self._idle: dict[int, list[HTTPConnection]] = {port: [] for port in ports}

    def probe(self) -> None:
        """Ask each server whether it is ready."""
        for port, idle in self._idle.items():
            connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            status = 0
            with suppress(OSError, HTTPException):
                connection.request("GET", "/readyz")
                status = connection.getresponse().status
            connection.close()
            (self.ready.add if status == 200 else self.ready.discard)(port)
            while idle and port not in self.ready:
                idle.pop().close()

    def send(self, learner: str) -> int:
        """Pass on an update, and return the status of its answer."""
        port = next(port for port in self._turns if port in self.ready)
        connection = self._connection(port)
        headers = {"Authorization": f"Bearer {token(learner, 'student')}", "Content-Type": "application/json"}
        connection.request("POST", "/api/progress", '{"contentId": "sets", "timeSpentSeconds": 1}', headers)
        response = connection.getresponse()
        response.read()
        if response.getheader("Connection") == "close":
            connection.close()
        else:
            self._idle[port].append(connection)
        return response.status

    def _connection(self, port: int) -> HTTPConnection:
        """Return a connection: an idle one, unless the server has closed it."""
        with suppress(IndexError):
            while connection := self._idle[port].pop():
                if not select.select([connection.sock], [], [], 0)[0]:
                    return connection
                connection.close()
        return HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()


@contextmanager
def gateway_to(*servers: Server) -> Iterator[Gateway]:
    """A gateway that asks its servers 20 times a second."""
    gateway, over = Gateway([server.port for server in servers]), Event()

    def watch() -> None:
        while not over.wait(0.05):
            gateway.probe()

    watching = Thread(target=watch)
    watching.start()
    try:
        yield gateway
    finally:
        over.set()
        watching.join()
        gateway.close()


@POSTGRESQL
@pytest.mark.slow
def test_servers_behind_a_gateway_restart_and_reload_one_by_one_and_every_update_counts_once(
    usual_app: Flask, database_url: str, service: Callers
) -> None:
    # Nobody reads what they write, so that they must not write much.
    settings: dict[str, Any] = {"PROGRESS_DRAIN_SECONDS": "5", "PROGRESS_LOG_LEVEL": "warning"}
    over = Event()

    def report(learner: str) -> list[int]:
        statuses = []
        while not over.wait(0.02):
            statuses.append(gateway.send(learner))
        return statuses

    with ExitStack() as stack:
        servers = [stack.enter_context(gunicorn(database_url, **settings)) for _ in range(2)]
        gateway = stack.enter_context(gateway_to(*servers))
        clients = stack.enter_context(ThreadPoolExecutor(len(LEARNERS)))
        stack.callback(over.set)
        reports = {learner: clients.submit(report, learner) for learner in LEARNERS}
        for server in servers:
            assert server.stop()[0] == 0
            assert gateway.ready == {one.port for one in servers} - {server.port}
            started = stack.enter_context(gunicorn(database_url, port=server.port, **settings))
            wait_until(lambda: len(gateway.ready) == 2)
            reload(started)
        over.set()
        sent = {learner: one.result(PATIENCE_SECONDS) for learner, one in reports.items()}

    for learner, statuses in sent.items():
        assert set(statuses) <= {200, 201}
        assert service().get(f"/api/progress/{learner}").get_json()["summary"]["timeSpentSeconds"] == len(statuses)


@SQLITE
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_drains_is_not_ready_and_does_everything_else_until_a_second_signal(
    end: signal.Signals, database_url: str
) -> None:
    with gunicorn(database_url, PROGRESS_DRAIN_SECONDS="3600") as server:
        server.process.terminate()
        wait_until(lambda: server.call("GET", "/readyz")[0].status == 503)
        kill_worker(server)

        for _ in range(10):
            response, problem = server.call("GET", "/readyz")
            assert (response.status, problem["detail"]) == (503, "The service is about to stop.")
            assert server.call("GET", "/healthz")[0].status == 200
        response, _ = server.call("POST", "/api/progress", UPDATE)
        assert (response.status, response.headers["Connection"]) == (201, "close")

        os.kill(server.process.pid, end)
        assert server.process.wait(PATIENCE_SECONDS) == 0


@POSTGRESQL
def test_a_server_that_stops_without_a_drain_finishes_what_it_has_taken(
    usual_app: Flask, database_url: str, service: Callers
) -> None:
    assert service().post("/api/progress", json=UPDATE | {"userId": "sam"}).status_code == 201
    with gunicorn(database_url, workers=1) as server, ThreadPoolExecutor(1) as client:
        idle = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)

        def answered() -> str | None:
            idle.request("GET", "/healthz")
            response = idle.getresponse()
            assert response.read() == b'{"status":"ok"}'
            return response.getheader("Connection")

        with engine_of(usual_app).begin() as connection:
            connection.execute(text("SELECT FROM enrollments WHERE user_id = 'sam' FOR UPDATE"))
            update = client.submit(server.call, "POST", "/api/progress", UPDATE)
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            wait_until(lambda: connection.execute(waiting).scalar())
            assert answered() == "keep-alive"
            server.process.terminate()
            wait_until(lambda: answered() == "close")
            assert not update.done()
        assert update.result(PATIENCE_SECONDS)[0].status == 200
        assert server.process.wait(PATIENCE_SECONDS) == 0
    assert service().get("/api/progress/sam").get_json()["summary"]["timeSpentSeconds"] == 2


@SQLITE
def test_after_hup_workers_have_the_secrets_that_files_hold_now_unless_these_are_wrong(
    database_url: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("another key, long enough for HS256 too")
    from_file: dict[str, Any] = {"PROGRESS_JWT_SECRET_KEY": "", "PROGRESS_JWT_SECRET_KEY_FILE": str(secret)}
    with gunicorn(database_url, **from_file) as server:
        assert server.call("GET", "/api/progress/me")[0].status == 401

        secret.write_text(KEY)
        reload(server)
        assert [server.call("GET", "/api/progress/me")[0].status for _ in range(6)] == [200] * 6

        secret.write_text("")
        reload(server)
        kill_worker(server)
        assert [server.call("GET", "/api/progress/me")[0].status for _ in range(6)] == [200] * 6
        _, output = server.stop()
    lines = [json.loads(line) for line in output.splitlines()]
    said = f"The settings stay as they were. PROGRESS_JWT_SECRET_KEY_FILE: '{secret}' is empty."
    assert [line["log.level"] for line in lines if line["message"] == said] == ["error"]
