"""How fast the service is, beside a route that uses no database and beside the database without a service.

    python -m bench.speed                                                     # everything, some ten minutes
    python -m bench.speed --only post --concurrency 8 --databases postgresql  # some of it, within a minute

`README.md` explains the figures and how to read them.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import create_engine

from bench import report, scale
from bench.distance import distant
from bench.floor import Floor, capture
from bench.groups import SIZES, Groups
from bench.load import answer_size, drive
from bench.school import MODULES, STARTED, TEACHER, TOKENS, UPDATE, VIEWERS, School, content, module, reads, request
from bench.serving import ROOT, Service, cpu_seconds, environment, memory, migrate, served, timed, verify
from tests.conftest import partition
from tests.postgres import PostgresServer

POSTGRESQL, SQLITE = DATABASES = ("postgresql", "sqlite")
MOST_BATCHES = 8
"""The most clients that send batches: more of them meet each other's tallies, and some are refused with 503."""
DISTANT = "post-repeated"
"""The kind of request that is also measured with a database at a distance."""
PACKAGES = ("flask", "flask-jwt-extended", "pyjwt", "marshmallow", "sqlalchemy", "psycopg", "msgspec", "gunicorn")
IMPORT_WSGI = "import time; start = time.perf_counter(); import wsgi; print(time.perf_counter() - start)"

PGBENCH_TIMES = 3
"""How much longer than others pgbench runs: its connections are new each time, and plan their statements anew."""

STUDENT_TOKENS = list(TOKENS.values())
READS = {
    "dashboard": ("/api/progress/me", STUDENT_TOKENS),
    "module": (f"/api/progress/me/{module(0)}", STUDENT_TOKENS[:VIEWERS]),
    "statistics": (f"/api/progress/stats/{module(0)}", [TEACHER]),
}


class Kind(NamedTuple):
    """A kind of request: a function that makes enough for some seconds, and the status of their answers."""

    name: str
    requests: Callable[[School, float], list[bytes]]
    status: int = 200
    once: bool = False


def always(name: str, requests: list[bytes]) -> Kind:
    return Kind(name, lambda *_: requests)


KINDS = [
    Kind("post-repeated", lambda school, _: school.repeats()),
    Kind("post-new", School.starts, 201, once=True),
    Kind("complete", School.completes, once=True),
    Kind("batch-100", lambda school, _: school.batches(100)),
    Kind("batch-500", lambda school, _: school.batches(500)),
    *(always(name, reads(*read)) for name, read in READS.items()),
]


class Subject(NamedTuple):
    """The receiver of requests: a service, and the server of its database, if there is one."""

    where: str
    service: Service
    school: School
    groups: Groups
    server: PostgresServer | None = None

    @property
    def watched(self) -> dict[str, int]:
        """The process of the database whose CPU is measured."""
        return {"databaseCpu": self.server.pid} if self.server else {}

    def wal_bytes(self) -> int:
        """Return how much PostgreSQL has written to its log since it began."""
        return int(self.server.execute("SELECT pg_current_wal_lsn() - '0/0'")[0][0]) if self.server else 0


class Figure(NamedTuple):
    """A figure of every round: its name, its place, and the number of clients, or 0."""

    what: str
    where: str
    clients: int
    measure: Callable[[], dict[str, float]]


class Bench:
    """The services and the databases, and the process that sends the load."""

    def __init__(
        self,
        options: argparse.Namespace,
        subjects: Sequence[Subject],
        distant: Sequence[Subject],
        ceiling: Service,
        floor: Floor | None,
    ) -> None:
        self._options, self._subjects, self._distant, self._floor = options, subjects, distant, floor
        self._ceiling = subjects[0]._replace(where="", service=ceiling, server=None)
        self._load = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def run(self) -> list[dict[str, Any]]:
        """Measure every figure in turn, round after round, and drop the first round."""
        figures = list(self._figures())
        rounds: list[list[dict[str, float]]] = []
        with self._load:
            for nth in range(self._options.rounds + 1):
                with timed(f"round {nth} of {self._options.rounds}"):
                    rounds.append([figure.measure() for figure in figures])
        return [
            {"what": figure.what, "where": figure.where, "clients": figure.clients, "rounds": taken}
            for figure, *taken in zip(figures, *rounds[1:], strict=True)
        ]

    def _figures(self) -> Iterator[Figure]:
        """Yield the figures in the order of a round: each near those that it is compared with."""
        kinds = [kind for kind in KINDS if self._wants(kind.name)]
        yardsticks = {name for kind in kinds for name in report.YARDSTICKS[kind.name]}
        ceilings = [kind for kind in self._ceilings() if kind.name in yardsticks or self._wants(kind.name)]
        has_floor = self._floor and (report.FLOOR in yardsticks or self._wants(report.FLOOR))
        for clients in self._options.concurrency:
            for kind in ceilings:
                yield self._figure(kind, self._ceiling, clients)
            if has_floor:
                yield Figure(report.FLOOR, "", clients, partial(self._transact, clients))
            for kind in kinds:
                if kind.name.startswith("batch") and clients > MOST_BATCHES:
                    continue
                for subject in (*self._subjects, *(self._distant if kind.name == DISTANT else ())):
                    yield self._figure(kind, subject, clients)
        for size in filter(lambda size: self._wants(report.GROUP.format(size)), SIZES):
            for subject in self._subjects:
                yield Figure(report.GROUP.format(size), subject.where, 1, partial(self._write, size, subject))
        if self._wants(report.IMPORT):
            for subject in self._subjects:
                yield Figure(report.IMPORT, subject.where, 0, subject.school.import_updates)
        if self._wants(report.START):
            yield Figure(report.START, "", 0, import_wsgi)

    def _wants(self, name: str) -> bool:
        return re.search(self._options.only, name) is not None

    def _ceilings(self) -> Iterator[Kind]:
        """Yield requests for answers of the same size, by the same callers, that need no database."""
        bodies = [
            {"contentId": content(nth, ordinal), **UPDATE} for nth in range(MODULES) for ordinal in range(STARTED)
        ]
        posts = [request("POST", "/ceiling", token, bodies[n % len(bodies)]) for n, token in TOKENS.items()]
        yield always(report.CEILING.format("post"), posts)
        for name, (path, tokens) in READS.items():
            size = answer_size(self._subjects[0].service.port, reads(path, tokens)[0])
            yield always(report.CEILING.format(name), reads(f"/ceiling/{size}", tokens))

    def _figure(self, kind: Kind, subject: Subject, clients: int) -> Figure:
        return Figure(kind.name, subject.where, clients, partial(self._send, kind, subject, clients))

    def _send(self, kind: Kind, subject: Subject, clients: int) -> dict[str, float]:
        """Send requests from the other process; return what was measured."""
        seconds, service = self._options.seconds, subject.service
        requests = kind.requests(subject.school, seconds)
        watched = {"serviceCpu": service.pid} | subject.watched
        written = subject.wal_bytes()
        load = self._load.submit(
            drive, service, requests, clients, seconds, kind.status, once=kind.once, watched=watched
        ).result()
        if kind.once:
            del requests[: load.answers]
        used = {**load.cpu_seconds, "walBytes": subject.wal_bytes() - written} if subject.server else load.cpu_seconds
        per_answer = {name: amount / load.answers for name, amount in used.items()}
        return {"perSecond": load.answers / load.seconds, "p50": load.p50, "p99": load.p99, **per_answer}

    def _write(self, size: int, subject: Subject) -> dict[str, float]:
        """Write groups of updates in this process."""
        return subject.groups.measure(size, self._options.seconds, subject.watched)

    def _transact(self, clients: int) -> dict[str, float]:
        """Let pgbench do the work of an update."""
        assert self._floor
        before = cpu_seconds(self._floor.server.pid)
        done, per_second = self._floor.run(clients, PGBENCH_TIMES * self._options.seconds)
        return {"perSecond": per_second, "databaseCpu": (cpu_seconds(self._floor.server.pid) - before) / done}


def import_wsgi() -> dict[str, float]:
    """Return how many seconds the import of the served application takes."""
    printed = subprocess.run(
        [sys.executable, "-c", IMPORT_WSGI], cwd=ROOT, env=environment("sqlite://"), check=True, capture_output=True
    )
    return {"seconds": float(printed.stdout)}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Make and fill the databases, serve them, and measure everything; return all figures."""
    with ExitStack() as stack:
        subjects, away, floor = list[Subject](), list[Subject](), None
        for where in options.databases:
            server = stack.enter_context(PostgresServer(durable=True)) if where == POSTGRESQL else None
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url = server.url if server else f"sqlite:///{folder}/progress.db"
            school = School(url)
            with timed(f"filled {where}"):
                migrate(url)
                if server and options.records:
                    fill_up(url, options.records)
                school.fill()
            if server and options.partitions:
                with timed("partitioned the tables of learners"):
                    partition(url)
                school.analyze()
            if server:
                floor = Floor(server, capture(server))
            subjects.append(Subject(where, stack.enter_context(served(url)), school, Groups(url), server))
            if server and options.distance:
                service = stack.enter_context(served(stack.enter_context(distant(url, options.distance / 1000))))
                away.append(subjects[-1]._replace(where=f"{options.distance:g} ms away", service=service))
        ceiling = stack.enter_context(served(subjects[0].school.url, "bench.ceiling:app"))
        figures = Bench(options, subjects, away, ceiling, floor).run()
        workers = {subject.where: [_memory(pid) for pid in subject.service.workers] for subject in subjects}
        for subject in subjects:
            verify(subject.school.url)
        return {
            "machine": machine(),
            "options": {name: value for name, value in vars(options).items() if name != "json"},
            "figures": figures,
            "workers": workers,
        }


def fill_up(url: str, records: int) -> None:
    """Put this number of records of other learners, in another module, into the same tables."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, served(url) as service:
        scale.publish(service, [scale.LARGE])
        scale.fill(connection, [records // scale.CONTENTS], [scale.LARGE])
    engine.dispose()


def _memory(pid: int) -> dict[str, float]:
    return {"rss": memory(pid, "VmRSS"), "pss": memory(pid, "Pss", "smaps_rollup")}


def machine() -> dict[str, Any]:
    """Return the facts by which figures of two runs may differ."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        "measuredAt": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description="Measure how fast the service is.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each figure is measured (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for how long each time (default: 1)")
    parser.add_argument("--concurrency", type=_numbers, default=[1, 8, 32, 64], help="clients (default: 1,8,32,64)")
    parser.add_argument("--databases", type=_names, default=list(DATABASES), help="default: postgresql,sqlite")
    parser.add_argument("--only", default="", metavar="PATTERN", help="only figures with such names")
    parser.add_argument(
        "--distance", type=float, default=1.0, metavar="MS", help="of another PostgreSQL, there and back (default: 1)"
    )
    parser.add_argument("--records", type=int, default=0, metavar="N", help="more records in the tables of PostgreSQL")
    parser.add_argument("--partitions", action="store_true", help="divide PostgreSQL's tables of learners")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "instance" / "speed.json", help="where to write all figures"
    )
    parser.add_argument("--script", action="store_true", help="only print the script for pgbench")
    options = parser.parse_args()
    if options.script:
        with PostgresServer() as server:
            print(capture(server))
        return
    del options.script
    path = options.json
    figures = measure(options)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
    print(report.table(figures))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _names(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(DATABASES):
        raise argparse.ArgumentTypeError(f"must be of {', '.join(DATABASES)}")
    return names


if __name__ == "__main__":
    main()
