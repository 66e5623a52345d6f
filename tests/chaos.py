"""Chaos: clients report progress while workers are killed and the database crashes, and nothing is lost or doubled.

`python -m tests.chaos --seconds 60` prints what happened, and its exit status is 1 where something has gone wrong.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from threading import Event, Lock
from typing import Any
from uuid import uuid4

from sqlalchemy import func, select

from progress_service.store import database, verification
from progress_service.store.models import StoredAnswer
from tests.callers import KEY, Caller, token
from tests.conftest import application, migrate
from tests.postgres import PostgresServer
from tests.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[1]
CLIENTS = 8
CONTENTS = {f"m{module}": [f"m{module}-c{content}" for content in range(5)] for module in range(3)}
LEARNERS = [f"learner-{number}" for number in range(30)]


@dataclass
class Report:
    """What happened, and what should not have happened."""

    seconds: float = 0.0
    answers: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    """Connections that broke before the answer came."""
    acknowledged: int = 0
    replayed: int = 0
    kills: int = 0
    crashes: int = 0
    tried_again: int = 0
    """Transactions that a worker has tried again."""
    recoveries: list[float] = field(default_factory=list)
    """Seconds from each start of the database to the first 2xx."""
    faults: list[str] = field(default_factory=list)
    time_of: Counter[str] = field(default_factory=Counter)
    """The seconds of each learner that were answered 2xx."""

    def __str__(self) -> str:
        answers = ", ".join(f"{status}: {count}" for status, count in sorted(self.answers.items()))
        recoveries = f"median {median(self.recoveries):.2f} s, longest {max(self.recoveries):.2f} s"
        return "\n".join(
            [
                f"{self.acknowledged} requests acknowledged in {self.seconds:.0f} s ({answers})",
                f"{self.kills} workers killed, {self.crashes} crashes of the database",
                f"{self.answers[503] + self.broken} retries ({self.broken} after broken connections), "
                f"{self.replayed} replays, {self.tried_again} transactions tried again",
                f"from a start of the database to the first 2xx: {recoveries}",
                *(self.faults or ["everything acknowledged is there exactly once"]),
            ]
        )


class Chaos:
    """A service with two workers on a durable database, and what is known about them."""

    def __init__(self, server: PostgresServer, gunicorn: subprocess.Popen[bytes], port: int, seed: int) -> None:
        self.server = server
        self.gunicorn = gunicorn
        self.port = port
        self.random = random.Random(seed)
        self.report = Report()
        self.over = Event()
        self._lock = Lock()
        self._started: float | None = None

    def run(self, seconds: float) -> None:
        """Let the clients work, and everything else fail, for so long."""
        began = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as threads:
            clients = [threads.submit(self._work, self.random.random()) for _ in range(CLIENTS)]
            try:
                self._destroy(began + seconds)
            finally:
                self.over.set()
            for client in clients:
                client.result()
        self.report.seconds = time.monotonic() - began

    def _destroy(self, end: float) -> None:
        """Let each kind of failure happen at least once."""
        while True:
            self._pause(1)
            self._kill()
            self._pause(1)
            self.server.crash()
            self.report.crashes += 1
            if self.random.random() < 0.5:
                self._kill()
            self._pause(0.3)
            with self._lock:
                self._started = time.monotonic()
            self.server.start()
            wait_until(lambda: self._started is None)  # until somebody is answered again
            self._pause(1)
            if time.monotonic() > end:
                return

    def _pause(self, seconds: float) -> None:
        time.sleep(self.random.uniform(seconds / 2, seconds * 1.5))

    def _kill(self) -> None:
        """Kill one of the workers, which are the only children of this gunicorn."""
        pid = self.gunicorn.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if workers:
            with suppress(ProcessLookupError):
                os.kill(int(self.random.choice(workers)), signal.SIGKILL)
                self.report.kills += 1

    def _work(self, seed: float) -> None:
        """Send requests, each with a key of its own, until it is over."""
        chance = random.Random(seed)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        with closing(connection):
            while not self.over.is_set():
                updates = [_update(chance) for _ in range(chance.choice([1, 1, 1, 5, 20]))]
                single = len(updates) == 1
                path = "/api/progress" if single else "/api/progress/batch"
                self._insist(connection, path, updates[0] if single else {"updates": updates}, updates)

    def _insist(self, connection: HTTPConnection, path: str, body: Any, updates: list[dict[str, Any]]) -> None:
        """Repeat a request until it is answered, and note what the answer promises."""
        headers = {
            "Authorization": f"Bearer {token('lms', 'service')}",
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid4()),
        }
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                connection.request("POST", path, json.dumps(body), headers)
                response = connection.getresponse()
                answer = response.read()
            except (OSError, HTTPException):
                connection.close()
                with self._lock:
                    self.report.broken += 1
                time.sleep(0.02)
                continue
            with self._lock:
                self._note(response.status, response.getheader("Idempotency-Replayed") == "true", answer, updates)
            if response.status != 503:
                return
            time.sleep(0.02)
        with self._lock:
            self.report.faults.append(f"{path} was not answered for {PATIENCE_SECONDS} s")

    def _note(self, status: int, replayed: bool, answer: bytes, updates: list[dict[str, Any]]) -> None:
        report = self.report
        report.answers[status] += 1
        report.replayed += replayed
        if status in {200, 201}:
            report.acknowledged += 1
            for update in updates:
                report.time_of[update["userId"]] += update["timeSpentSeconds"]
            if self._started is not None:
                report.recoveries.append(time.monotonic() - self._started)
                self._started = None
        elif status != 503:
            report.faults.append(f"answered {status}: {answer.decode()}")


def _update(chance: random.Random) -> dict[str, Any]:
    return {
        "userId": chance.choice(LEARNERS),
        "contentId": chance.choice(CONTENTS[chance.choice(list(CONTENTS))]),
        "progressPercentage": chance.choice([0, 10, 50, 90, 100]),
        "timeSpentSeconds": chance.randrange(100),
    }


def unleash(seconds: float, seed: int) -> Report:
    """Run it on a server, a database and a port of its own, and compare what is stored with what was acknowledged."""
    with PostgresServer(durable=True) as server, tempfile.TemporaryDirectory() as folder:
        migrate(server.url)
        with application(server.url) as app:
            service = Caller(app, "service", "lms")
            for module_id, ids in CONTENTS.items():
                contents = [{"id": one, "title": one, "type": "video"} for one in ids]
                path = f"/api/catalog/modules/{module_id}"
                assert service.put(path, json={"title": module_id, "contents": contents}).status_code == 201

            log = Path(folder) / "log"
            with served(server.url, log) as (gunicorn, port):
                chaos = Chaos(server, gunicorn, port, seed)
                chaos.run(seconds)
            report = chaos.report
            report.tried_again = log.read_text().count("transaction tried again")

            for user_id in LEARNERS:
                stored = service.get(f"/api/progress/{user_id}").get_json()["summary"]["timeSpentSeconds"]
                if stored != report.time_of[user_id]:
                    report.faults.append(f"{user_id} has {stored} s, acknowledged were {report.time_of[user_id]}")
            with app.app_context():
                report.faults += database.read(lambda connection: [str(one) for one in verification.drifts(connection)])
                count = select(func.count()).select_from(StoredAnswer)
                answers = database.read(lambda connection: connection.execute(count).scalar_one())
            if answers != report.acknowledged:
                report.faults.append(f"{answers} answers are stored, {report.acknowledged} were given")
            return report


@contextmanager
def served(url: str, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Serve with two workers on a free port of the loopback, in a process group of its own."""
    settings = {"PROGRESS_SQLALCHEMY_DATABASE_URI": url, "PROGRESS_JWT_SECRET_KEY": KEY, "WEB_CONCURRENCY": "2"}
    command = [sys.executable, "-m", "gunicorn", "-c", "python:progress_service.serving", "wsgi:app"]
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--bind", f"fd://{listener.fileno()}"],
            cwd=ROOT,
            env=os.environ | settings,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
        port = int(listener.getsockname()[1])
    try:
        _wait_until_ready(port)
        yield process, port
        process.terminate()
        process.wait(PATIENCE_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_ready(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    with closing(connection):
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"the service is not ready: {response.read().decode()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="for how long everything fails (default: 20)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of what is random")
    options = parser.parse_args()
    report = unleash(options.seconds, options.seed)
    print(f"seed {options.seed}\n{report}")
    sys.exit(bool(report.faults))


if __name__ == "__main__":
    main()
