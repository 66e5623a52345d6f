"""What docs/operating.md says of backups: what was answered is there again, and every figure is right."""

import re
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import NamedTuple

import pytest
from flask import Flask

from tests.callers import Caller
from tests.conftest import application, migrate, wait_until_settled
from tests.postgres import PostgresServer
from tests.test_documents import OPERATING, section
from tests.test_faults import school, time_of
from tests.waiting import wait_until

LEARNERS = ["ann", "bob", "eva"]
BACKUP = section(OPERATING, "Backup")


def blocks(language: str) -> list[str]:
    """Return the code of a language in the chapter."""
    return re.findall(rf"```{language}\n(.*?)```", BACKUP, re.DOTALL)


def settings(text: str, backup: Path, **others: str) -> dict[str, str]:
    """Return the settings of a block, with another folder than /backup."""
    told = dict(re.findall(r"^ *(\w+) = '?(.*?)'?$", text.replace("/backup", str(backup)), re.M))
    assert others.keys() <= told.keys()
    return told | others


class Sent(NamedTuple):
    """When an update of a second was sent, and when its answer was here."""

    at: float
    answered_at: float


class Load:
    """Learners who report a second again and again."""

    def __init__(self) -> None:
        self.sent: dict[str, list[Sent]] = {user_id: [] for user_id in LEARNERS}

    @contextmanager
    def on(self, caller: Caller) -> Iterator[None]:
        over = Event()

        def work(user_id: str) -> None:
            while not over.is_set():
                begun = time.time()
                update = {"userId": user_id, "contentId": "sums", "timeSpentSeconds": 1}
                assert caller.post("/api/progress", json=update).status_code in {200, 201}
                self.sent[user_id].append(Sent(begun, time.time()))

        with ThreadPoolExecutor(len(LEARNERS)) as threads:
            working = [threads.submit(work, user_id) for user_id in LEARNERS]
            try:
                yield
            finally:
                over.set()
            for one in working:
                one.result()

    def more(self, number: int = 20) -> None:
        """Wait until each learner has reported so many times more."""
        before = {user_id: len(sent) for user_id, sent in self.sent.items()}
        wait_until(lambda: all(len(sent) >= before[user_id] + number for user_id, sent in self.sent.items()))

    def check(self, caller: Caller, *, answered_before: float, sent_before: float) -> None:
        """Check that what was answered in time is there, and nothing that was sent too late."""
        for user_id, sent in self.sent.items():
            answered = sum(one.answered_at < answered_before for one in sent)
            begun = sum(one.at < sent_before for one in sent)
            assert 0 < answered <= time_of(caller, user_id) <= begun < len(sent)


def command(app: Flask, *arguments: str) -> None:
    result = app.test_cli_runner().invoke(args=["progress", *arguments])
    assert result.exit_code == 0, result.output


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    with PostgresServer(durable=True) as primary:
        backup = primary.directory / "backup"
        for name, value in settings(blocks("ini")[0], backup).items():
            primary.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        primary.make(backup / "wal")
        primary.stop()
        primary.start()
        migrate(primary.url)
        yield primary


def test_a_postgresql_under_load_is_brought_back_to_a_moment_and_then_to_a_later_one(primary: PostgresServer) -> None:
    backup, load = primary.directory / "backup", Load()
    program, *arguments = blocks("sh")[0].replace("/backup", str(backup)).split()
    with school(primary.url) as (app, service):
        with load.on(service):
            load.more()
            address = ("-h", str(primary.directory), "-U", "postgres")
            primary.output(program, *arguments, *address)
            moments = []
            for _ in range(2):
                load.more()
                moments += primary.execute("SELECT now()::text, extract(epoch FROM now())::float8")
            load.more()
        wait_until_settled(app)
        feed = service.get("/api/changes?limit=1000").get_json()
        ((last,),) = primary.execute("SELECT pg_walfile_name(pg_switch_wal())")
        wait_until(lambda: (backup / "wal" / last).exists())
        primary.crash()

    for moment, seconds in moments:
        recovery = settings(blocks("ini")[1], backup, recovery_target_time=moment)
        with PostgresServer(durable=True, backup=backup / "base", settings=recovery) as restored:
            wait_until(lambda: restored.execute("SELECT pg_is_in_recovery()") == [(False,)])
            with application(restored.url) as app:
                command(app, "settle")
                command(app, "verify")
                caller = Caller(app, "service", "lms")
                load.check(caller, answered_before=seconds, sent_before=seconds)
                update = {"userId": "new", "contentId": "sums", "progressPercentage": 100}
                assert caller.post("/api/progress", json=update).status_code == 201
                wait_until_settled(app)
                new = caller.get(f"/api/changes?after={feed['cursor']}").get_json()["changes"]
                assert {change["userId"] for change in new} == {"new"}


def vacuum(database: Path, copy: Path) -> None:
    (statement,) = blocks("sql")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(statement.replace("/backup/progress.db", str(copy)))


def test_a_sqlite_is_copied_while_it_serves(tmp_path: Path) -> None:
    load, database, copy = Load(), tmp_path / "progress.db", tmp_path / "copy.db"
    migrate(f"sqlite:///{database}")
    with school(f"sqlite:///{database}") as (_, service), load.on(service):
        load.more()
        begun = time.time()
        vacuum(database, copy)
        ended = time.time()
        load.more()

    with application(f"sqlite:///{copy}") as app:
        command(app, "settle")
        command(app, "verify")
        load.check(Caller(app, "service", "lms"), answered_before=begun, sent_before=ended)
