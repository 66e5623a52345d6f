"""Functions of both benches: serve the service, call it, run its commands, and look at its processes."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from flask_migrate import upgrade
from sqlalchemy import Connection, create_engine

from progress_service import create_app
from progress_service.store import verification
from progress_service.store.database import db
from tests.callers import KEY, token
from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 120
WORKERS = 2
TICKS = os.sysconf("SC_CLK_TCK")


class Service:
    """A gunicorn that serves on its own port."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self.workers = _children(pid)

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)


def bearer(sub: str, role: str) -> str:
    """Return an Authorization header that lasts as long as a bench may take."""
    return f"Bearer {token(sub, role, exp=datetime.now(UTC) + timedelta(days=1))}"


def headers(role: str) -> dict[str, str]:
    return {"Authorization": bearer("bench", role), "Content-Type": "application/json"}


CALLERS = {role: headers(role) for role in ("admin", "service")}


def call(connection: HTTPConnection, path: str, body: Any = None, method: str = "", role: str = "service") -> Any:
    """Send a request, expect it to succeed, and return the answer."""
    sent = None if body is None else json.dumps(body)
    connection.request(method or ("POST" if sent else "GET"), path, sent, CALLERS[role])
    response = connection.getresponse()
    answer = response.read()
    if response.status >= 300:
        raise RuntimeError(f"{path}: {response.status} {answer.decode()}")
    return json.loads(answer)


@contextmanager
def served(url: str, app: str = "wsgi:app", **settings: str) -> Iterator[Service]:
    """Serve a database with two workers, as in production, if no settings are given."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "-c", "python:progress_service.serving", app]
    settings = environment(url) | {"PORT": str(port), "WEB_CONCURRENCY": str(WORKERS)} | settings
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=settings, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait_until_it_answers(port, process)
            yield Service(port, process.pid)
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def environment(url: str) -> dict[str, str]:
    """Return the settings of a service on this database."""
    return os.environ | {"PROGRESS_SQLALCHEMY_DATABASE_URI": url, "PROGRESS_JWT_SECRET_KEY": KEY}


def _wait_until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    def answers() -> bool:
        if process.poll() is not None:
            raise RuntimeError("gunicorn has ended")
        try:
            call(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS), "/readyz")
        except ConnectionRefusedError:
            return False
        return len(_children(process.pid)) == WORKERS

    wait_until(answers)


def run_command(url: str, *command: str) -> float:
    """Run a `flask` command of the service on a database; return how many seconds it took."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *command],
        cwd=ROOT,
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}")
    return time.perf_counter() - start


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Connect to a database as the service does, for statements of its own."""
    app = create_app({"SQLALCHEMY_DATABASE_URI": url, "JWT_SECRET_KEY": KEY})
    with app.app_context():
        with db.engine.connect() as connection:
            yield connection
        db.engine.dispose()


def migrate(url: str) -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": url, "JWT_SECRET_KEY": KEY})
    with app.app_context():
        upgrade(str(ROOT / "migrations"))
        db.engine.dispose()


def verify(url: str) -> None:
    """Raise RuntimeError unless every total equals its recount."""
    engine = create_engine(url)
    with engine.connect() as connection:
        drift = next(verification.drifts(connection), None)
    engine.dispose()
    if drift:
        raise RuntimeError(f"differs from its recount: {drift}")


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Print on standard error how long the block took."""
    start = time.perf_counter()
    yield
    print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its descendants, including those that have ended."""
    while True:
        try:
            return _cpu_seconds(pid)
        except (OSError, ValueError):
            continue  # a descendant has ended meanwhile, and counts for its parent now


def _cpu_seconds(pid: int) -> float:
    # The clock of a process, see clock_getcpuclockid(3), is a thousand times finer than the figure in /proc.
    own = time.clock_gettime(~pid << 3 | 2)
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = (int(after_name[13]) + int(after_name[14])) / TICKS
    return own + ended + sum(_cpu_seconds(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory(pid: int, name: str, source: str = "status") -> float:
    """Return a figure of a process, in megabytes."""
    found = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/{source}").read_text().splitlines()[1:])
    return int(found[name].split()[0]) / 1024
