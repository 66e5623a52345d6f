"""What every test may ask for: a database of either kind, the application on it, and people who call it."""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from threading import Thread
from typing import Any, Literal, TypeAlias
from wsgiref.types import WSGIApplication

import psycopg
import pytest
from flask import Flask
from flask_migrate import upgrade
from hypothesis import settings
from sqlalchemy import Engine, create_engine, event, func, make_url, or_, select
from werkzeug.serving import make_server

from progress_service import create_app
from progress_service.demo import people
from progress_service.store import database
from progress_service.store.database import db
from progress_service.store.functions import first_open
from progress_service.store.models import Change, Tally, Verification
from progress_service.tallies import Counts, Group
from tests.browser import CHROMIUM
from tests.callers import KEY, WEBHOOK_KEY, Caller
from tests.deploy import NGINX, SYSTEMD_ANALYZE
from tests.postgres import POOLERS, postgres_server
from tests.waiting import wait_until

settings.register_profile("service", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.register_profile("long", settings.get_profile("service"), max_examples=1000)
settings.load_profile("service")

# Settings of the developer's own are not those of the tests.
for name in [name for name in os.environ if name.startswith("PROGRESS_")]:
    del os.environ[name]

DIALECTS = ["sqlite", "postgresql"]
PARTITIONED = "partitioned"
"""PostgreSQL with the tables of learners in partitions, as docs/scaling.md says."""
CORE = {"test_exactness", "test_moving", "tests.progress"}
"""Modules and packages with the tests of the core, which run on partitioned tables too."""

PROMTOOL = shutil.which("promtool")
NEEDED = {
    "browser": CHROMIUM,
    "deploy/test_gateway.py": NGINX,
    "deploy/test_pooler.py": POOLERS,
    "deploy/test_units.py": SYSTEMD_ANALYZE,
    "test_poolers.py": POOLERS,
    "test_promtool.py": PROMTOOL,
}
"""Tests that are left out where a program that they need is not installed."""
collect_ignore = [tests for tests, program in NEEDED.items() if not program]

MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # where SQLite need not wait for a disk

Callers: TypeAlias = Callable[..., Caller]
Publish: TypeAlias = Callable[..., dict[str, Any]]
Listen: TypeAlias = Callable[[Engine, Literal["before", "after"], Callable[[str], object]], None]
Statements: TypeAlias = Callable[[], AbstractContextManager[list[str]]]


SCALING = Path(__file__).parents[1] / "docs" / "scaling.md"

MEASURED_ON_SQLITE = {"test_headers.py", "test_rows.py", "test_sql.py", "test_statements.py"}
"""Files whose tests reach what only SQLite does."""


def pytest_xdist_auto_num_workers() -> int | None:
    """Run on all processors; but a database that is given cannot be divided among several workers."""
    return 0 if "TEST_DATABASE_URL" in os.environ else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs PostgreSQL, and measure the coverage of what runs on both databases on that one.

    To measure it nearly doubles the time of a test.
    """
    names = {item.nodeid for item in items}
    for item in items:
        parameters = (
            item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
        )
        servers = {"postgres_url", "server", "primary"}.intersection(getattr(item, "fixturenames", ()))
        if servers or {"postgresql", PARTITIONED} & set(map(str, parameters)):
            item.add_marker("postgresql")
        elif (
            item.path.name not in MEASURED_ON_SQLITE
            and "sqlite" in parameters
            and item.nodeid.replace("sqlite", "postgresql", 1) in names
        ):
            item.add_marker("no_cover")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on each kind of database, unless the test says on which."""
    chosen = (mark for mark in metafunc.definition.iter_markers("parametrize") if "usual_app" in mark.args[0])
    if "usual_app" in metafunc.fixturenames and not any(chosen):
        package, _, name = metafunc.module.__name__.rpartition(".")
        is_core = CORE & {package, name}
        metafunc.parametrize("usual_app", [*DIALECTS, PARTITIONED] if is_core else DIALECTS, indirect=True)


@contextmanager
def application(url: str, **settings: Any) -> Iterator[Flask]:
    """Make the application on a database, with other settings than usual, and close its connections.

    It does not purge now and then, so that each request sends the same statements always.
    """
    usual = {
        "SQLALCHEMY_DATABASE_URI": url,
        "JWT_SECRET_KEY": KEY,
        "TESTING": True,
        "PURGE_SECONDS": 0,
        "WEBHOOK_HOSTS": "hooks.example.org",
        "WEBHOOK_KEY": WEBHOOK_KEY,
    }
    app = create_app({**usual, **settings})
    try:
        yield app
    finally:
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()


@contextmanager
def served(app: WSGIApplication) -> Iterator[str]:
    """Serve an application on a port of this machine, and yield its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def engine_of(app: Flask) -> Engine:
    with app.app_context():
        return db.engine


def wait_until_settled(app: Flask) -> None:
    """Wait until no transaction delays the feed of changes; on PostgreSQL a server has some of its own."""
    unsettled = select(Change.id).where(Change.settled_after >= first_open()).limit(1)

    def is_settled() -> bool:
        with engine_of(app).connect() as connection:
            return connection.execute(unsettled).first() is None

    wait_until(is_settled)


@contextmanager
def applications(**settings: Any) -> Iterator[Callable[[str], Flask]]:
    """Make the application once for each database, so that its statements are compiled once."""
    with ExitStack() as made:
        yield cache(lambda url: made.enter_context(application(url, **settings)))


def examples(count: int) -> int:
    """Return how many examples of an expensive kind to try: so many of each 100 that the profile has."""
    return count * settings().max_examples // 100


def stored(app: Flask) -> dict[str, list[Any]]:
    """Read every row of every table, to prove what has changed and what has not; but not when it was verified.

    Of a tally, whose writers choose a part at random, it is the sum of the parts that counts, where it is not zero.
    """
    group = [getattr(Tally, name) for name in Group._fields]
    sums = [func.sum(getattr(Tally, name)) for name in Counts._fields]
    tallies = select(*group, *sums).group_by(*group).having(or_(*(total != 0 for total in sums)))
    with app.app_context(), db.engine.connect() as connection:
        tables = [table for table in db.metadata.sorted_tables if table is not Verification.__table__]
        rows = {table.name: connection.execute(table.select()) for table in tables}
        rows[Tally.__tablename__] = connection.execute(tallies)
        return {name: sorted(map(tuple, found), key=repr) for name, found in rows.items()}


def empty(app: Flask) -> None:
    """Delete every row of a database."""
    # Deleting takes 2 ms; truncating took 6, and copying a template database 28.
    with app.app_context(), db.engine.begin() as connection:
        for table in reversed(db.metadata.sorted_tables):
            connection.execute(table.delete())


def fill_demo(app: Flask, now: datetime | None = None) -> None:
    """Fill an empty database with the demo, as of now or of another time."""
    with app.app_context():
        database.write(partial(people.fill, now=now or datetime.now(UTC)))


@contextmanager
def database_beside(postgres_url: str, name: str, options: str = "") -> Iterator[str]:
    """Make an empty database on a server, and yield its URL."""
    url = make_url(postgres_url)
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.exec_driver_sql(f"CREATE DATABASE {name} {options}")
        yield url.set(database=name).render_as_string(hide_password=False)
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()


def migrate(url: str) -> None:
    """Bring a database to the newest migration."""
    with application(url) as app, app.app_context():
        upgrade()


def partition(url: str) -> None:
    """Partition the tables of learners, as docs/scaling.md says."""
    (script,) = re.findall(r"```sql\n(DO .+?)```", SCALING.read_text(), re.S)
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute(script)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL database that is not in any known state."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_postgresql(postgres_url: str) -> Iterator[Flask]:
    """The application on PostgreSQL."""
    migrate(postgres_url)
    with application(postgres_url) as app:
        yield app


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The application on SQLite."""
    url = f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/progress.db"
    migrate(url)
    with application(url) as app:
        yield app


@pytest.fixture(scope="session")
def migrated_partitioned(postgres_url: str) -> Iterator[Flask]:
    """The application on PostgreSQL with partitioned tables."""
    with database_beside(postgres_url, PARTITIONED) as url:
        migrate(url)
        with application(url) as app:
            partition(url)
            yield app


@pytest.fixture
def usual_app(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """The application with the usual settings, on a migrated database without a row.

    There is one for each kind of database: most of a test's time would go into compiling its statements again.
    """
    app: Flask = request.getfixturevalue(f"migrated_{request.param}")
    settings = dict(app.config)
    empty(app)
    yield app
    assert app.config == settings, "a test that needs other settings makes an application of its own"
    with app.app_context():
        engine = db.engine
    assert engine.pool.checkedout() == 0, "a connection was left open"  # type: ignore[attr-defined]


@pytest.fixture
def database_url(usual_app: Flask) -> str:
    """The URL of a migrated database without a row; whatever depends on it runs on both kinds."""
    return str(usual_app.config["SQLALCHEMY_DATABASE_URI"])


@pytest.fixture(params=DIALECTS)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without a table, for the migrations' own tests."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    with database_beside(request.getfixturevalue("postgres_url"), "empty") as url:
        yield url


@pytest.fixture
def app(usual_app: Flask) -> Flask:
    return usual_app


@pytest.fixture
def anonymous(app: Flask) -> Caller:
    """A caller without a token."""
    return Caller(app)


@pytest.fixture
def student(app: Flask) -> Callers:
    """Students by their id: `student()` is sam."""
    return lambda sub="sam": Caller(app, "student", sub)


@pytest.fixture
def instructor(app: Flask) -> Callers:
    """Instructors by their id: `instructor()` is ines, who teaches what `publish` publishes."""
    return lambda sub="ines": Caller(app, "instructor", sub)


@pytest.fixture
def admin(app: Flask) -> Callers:
    """Admins by their id: `admin()` is ada."""
    return lambda sub="ada": Caller(app, "admin", sub)


@pytest.fixture
def service(app: Flask) -> Callers:
    """The platform's services by their id: `service()` is lms."""
    return lambda sub="lms": Caller(app, "service", sub)


@pytest.fixture
def publish(admin: Callers) -> Publish:
    """Publish a module whose contents are ids, or say what is not as in a video called after its id."""

    def publish(
        module_id: str,
        contents: Iterable[str | dict[str, Any]],
        title: str | None = None,
        instructor_ids: Iterable[str] = ("ines",),
    ) -> dict[str, Any]:
        given = [{"id": content} if isinstance(content, str) else content for content in contents]
        module = {
            "title": title or module_id.title()[:200],
            "instructorIds": list(instructor_ids),
            "contents": [{"title": content["id"].title()[:200], "type": "video"} | content for content in given],
        }
        response = admin().put(f"/api/catalog/modules/{module_id}", json=module)
        assert response.status_code in {200, 201}, response.text
        return dict(response.get_json())

    return publish


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Call a hook with each statement before or after it is executed: `listen(engine, "before", hook)`."""
    listening: list[tuple[Engine, str, Callable[..., object]]] = []

    def listen(engine: Engine, when: Literal["before", "after"], hook: Callable[[str], object]) -> None:
        listening.append((engine, f"{when}_cursor_execute", lambda *execution: hook(execution[2])))
        event.listen(*listening[-1])

    yield listen
    for one in listening:
        event.remove(*one)


@pytest.fixture
def statements(app: Flask, listen: Listen) -> Statements:
    """Collect the SQL that the application sends: `with statements() as sent: …`, then `len(sent)`."""
    collecting: list[list[str]] = []

    def note(statement: str) -> None:
        for sent in collecting:
            sent.append(statement)

    with app.app_context():
        listen(db.engine, "before", note)

    @contextmanager
    def statements() -> Iterator[list[str]]:
        sent: list[str] = []
        collecting.append(sent)
        try:
            yield sent
        finally:
            collecting.remove(sent)

    return statements
