"""What Prometheus reads: every request counted once, by its route, in few series."""

import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client import values
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection, text, update

from progress_service import figures
from progress_service.figures import Figures
from progress_service.operations import sharing
from progress_service.store import database
from progress_service.store.models import Change, Enrollment, StoredAnswer, Webhook
from tests.callers import Caller, bearing, token
from tests.conftest import Callers, Publish, application, engine_of, migrate, wait_until_settled
from tests.test_migrating import NEWEST
from tests.test_readiness import at
from tests.test_serving import Server, gunicorn
from tests.waiting import PATIENCE_SECONDS, wait_until

Counts = dict[tuple[str, ...], float]


def families(text: str) -> dict[str, Metric]:
    """Parse what Prometheus reads; every metric is told once."""
    found = list(text_string_to_metric_families(text))
    by_name = {family.name: family for family in found}
    assert len(by_name) == len(found)
    return by_name


def counted(caller: Caller) -> Counts:
    """Return how many requests of each kind there were."""
    response = caller.get("/metrics")
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain; version=")
    family = families(response.text)["http_request_duration_seconds"]
    assert family.type == "histogram"
    samples = [sample for sample in family.samples if sample.name.endswith("_count")]
    return {tuple(sample.labels[name] for name in ("method", "route", "status")): sample.value for sample in samples}


def test_every_request_is_counted_by_its_route(
    app: Flask, anonymous: Caller, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    before = counted(anonymous)

    for learner in ("lea", "sam"):
        service().post("/api/progress", json={"userId": learner, "contentId": "sets"})
        service().get(f"/api/progress/{learner}?status=active")
        anonymous.get(f"/api/progress/{learner}")
        for method in ("GET", "BREW", learner.upper()):
            service().call(method, f"/{learner}")
            service().call(method, "/api/progress")
    service().post("/api/progress", json={"contentId": "sets"})

    after = counted(anonymous)
    assert {kind: after[kind] - before.get(kind, 0) for kind in after if after[kind] != before.get(kind, 0)} == {
        ("POST", "/api/progress", "201"): 2,
        ("POST", "/api/progress", "422"): 1,
        ("GET", "/api/progress/<user_id>", "200"): 2,
        ("GET", "/api/progress/<user_id>", "401"): 2,
        ("any", "unmatched", "404"): 6,
        ("any", "unmatched", "405"): 6,
        ("GET", "/metrics", "200"): 1,
    }


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory that workers share their figures in."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setattr(figures, "_own", figures.own())
    stat = tmp_path.stat()
    sharing.begin(str(tmp_path), stat.st_uid, stat.st_gid)
    yield Path(os.environ[sharing.DIRECTORY])
    sharing.end()


def test_workers_share_a_directory_that_is_new_and_goes_with_them(
    shared: Path, tmp_path: Path, anonymous: Caller
) -> None:
    assert list(tmp_path.iterdir()) == [shared]
    assert list(shared.iterdir()) == []
    assert "http_request" not in anonymous.get("/metrics").text, "no worker has counted anything"
    shutil.rmtree(shared)  # there is a file in it if no test before this has called a route
    assert "http_request" not in anonymous.get("/metrics").text, "somebody has cleaned up"
    shared.mkdir()


def test_what_was_left_by_the_killed_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    for name in ("progress-workers-1-abandoned", "progress-workers-2-in-use", "progress-workers-2", "others"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "histogram_1.db").touch()
    (tmp_path / "progress-workers-3-no-directory").touch()
    (tmp_path / "progress-workers-4-elsewhere").symlink_to(tmp_path / "others")
    command = (
        "import os, time; from progress_service.operations import sharing;"
        " lock = sharing._lock(sharing.Path(os.environ['D']))"
    )
    kept = {"progress-workers-2-in-use", "progress-workers-3-no-directory", "progress-workers-4-elsewhere", "others"}
    owner = subprocess.Popen(
        [sys.executable, "-c", f"{command}; print('locked', flush=True); time.sleep(600)"],
        env=os.environ | {"D": str(tmp_path / "progress-workers-2-in-use")},
        stdout=subprocess.PIPE,
    )
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"locked\n"
        sharing._remove_abandoned(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == kept
        assert (tmp_path / "others" / "histogram_1.db").exists()
    finally:
        owner.kill()
        owner.communicate()

    sharing._remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept - {"progress-workers-2-in-use"}


def worker_files(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let two workers count a request each, and return their files."""
    for worker in (1, 2):
        monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue(lambda worker=worker: worker))  # type: ignore[no-untyped-call]
        Figures().duration.labels("GET", "/{}", 200).observe(0.01)
    return sorted(directory.glob("histogram_*.db"))


FIGURES = struct.pack("ii", 4096, 0)
"""The head of a file that says how many bytes of it are figures."""

BROKEN = {
    "of no bytes": b"",
    "cut in its head": b"\x01\x00",
    "cut in a key": FIGURES + struct.pack("i", 200) + b'["http_request',
    "all zeros but for its length": FIGURES + bytes(8192),
    "that leads back": FIGURES + bytes(24) + struct.pack("i", -28) + bytes(8192),
    "that leads nowhere": FIGURES + struct.pack("i", 2**30) + bytes(8192),
    "of noise": bytes(range(255, -1, -1)) * 64,
    "of another kind": struct.pack("ii", 40, 0) + struct.pack("i", 4) + b"true" + bytes(8192),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_cannot_be_read_leaves_the_figures_of_the_others(
    kind: str, shared: Path, anonymous: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = worker_files(shared, monkeypatch)
    assert counted(anonymous)["GET", "/{}", "200"] == 2

    files[0].write_bytes(BROKEN[kind])
    assert counted(anonymous)["GET", "/{}", "200"] == 1
    files[0].unlink()
    files[0].symlink_to("vanished")
    assert counted(anonymous)["GET", "/{}", "200"] == 1


def told(caller: Caller) -> dict[tuple[str, str], float]:
    """Return the figures of the journal, by name and webhook."""
    found = families(caller.get("/metrics").text).values()
    samples = [
        sample for family in found if family.name.startswith(("changes_", "webhook_")) for sample in family.samples
    ]
    return {(sample.name, sample.labels.get("webhook", "")): sample.value for sample in samples}


def test_what_waits_for_webhooks_is_told_with_its_age(
    app: Flask, anonymous: Caller, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    for name, body in (("all", {}), ("paused", {"active": False}), ("others", {"types": ["learner.erased"]})):
        webhook = {"url": "https://hooks.example.org/", **body}
        assert service().put(f"/api/webhooks/{name}", json=webhook).status_code == 201
    service().put("/api/enrollments/sam/algebra", json={})
    wait_until_settled(app)
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    with engine_of(app).begin() as connection:
        connection.execute(update(Change).where(Change.user_id == "sam").values(recorded_at=hour_ago))
        failing = update(Webhook).where(Webhook.id == "all")
        connection.execute(failing.values(failing_since=hour_ago, next_try_at=hour_ago))

    found = told(anonymous)
    assert found.pop(("webhook_pending_seconds", "all")) == pytest.approx(3600, abs=60)
    assert found.pop(("webhook_pending_seconds", "paused")) == pytest.approx(3600, abs=60)
    assert found.pop(("webhook_failing_seconds", "all")) == pytest.approx(3600, abs=60)
    assert found == {
        ("changes_delay_seconds", ""): 0,
        ("webhook_pending_changes", "all"): 1,
        ("webhook_pending_changes", "paused"): 1,
        ("webhook_pending_changes", "others"): 0,
        ("webhook_pending_seconds", "others"): 0,
        ("webhook_failing_seconds", "paused"): 0,
        ("webhook_failing_seconds", "others"): 0,
        ("webhook_active", "all"): 1,
        ("webhook_active", "paused"): 0,
        ("webhook_active", "others"): 1,
    }


@pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
def test_how_long_an_open_transaction_delays_the_feed_is_told(
    app: Flask, anonymous: Caller, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    wait_until_settled(app)
    with engine_of(app).connect() as connection, connection.begin():
        connection.execute(text("SELECT pg_current_xact_id()"))
        service().put("/api/enrollments/sam/algebra", json={})
        with engine_of(app).begin() as other:
            hour_ago = datetime.now(UTC) - timedelta(hours=1)
            other.execute(update(Change).where(Change.user_id == "sam").values(recorded_at=hour_ago))
        assert told(anonymous)["changes_delay_seconds", ""] == pytest.approx(3600, abs=60)
    wait_until_settled(app)
    assert told(anonymous)["changes_delay_seconds", ""] == 0


def test_requests_are_told_while_the_database_is_away(tmp_path: Path) -> None:
    with application(f"sqlite:///{tmp_path}/gone/progress.db") as app:
        caller = Caller(app)
        caller.get("/healthz")
        assert counted(caller)["GET", "/healthz", "200"] >= 1
        assert told(caller) == {}


Sample = tuple[str, frozenset[tuple[str, str]]]


def samples(caller: Caller) -> dict[Sample, float]:
    """Return every sample that Prometheus would read."""
    found = families(caller.get("/metrics").text).values()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value for family in found for sample in family.samples
    }


@contextmanager
def grows(caller: Caller, *names: str) -> Iterator[dict[str, float]]:
    """Yield a dictionary that in the end has by how much samples have grown, written as Prometheus writes them."""
    before, by = samples(caller), dict[str, float]()
    yield by
    for (name, labels), value in samples(caller).items():
        growth = value - before.get((name, labels), 0)
        if growth and name.startswith(names):
            text = ",".join(f'{label}="{given}"' for label, given in sorted(labels))
            by[f"{name}{{{text}}}" if text else name] = growth


def value_of(caller: Caller, name: str) -> float:
    """Return the value of a sample without labels."""
    return samples(caller)[name, frozenset()]


UPDATE = {"contentId": "sets", "progressPercentage": 100}


def test_what_was_committed_is_counted_once(anonymous: Caller, service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets", "sums"])
    key = {"Idempotency-Key": "sam-1"}
    both = [{"userId": name, **UPDATE} for name in ("kim", "lea")]
    with grows(
        anonymous, "progress_updates", "progress_changes", "progress_replays", "progress_batch", "progress_group"
    ) as by:
        for _ in range(3):
            service().post("/api/progress", json={"userId": "sam", **UPDATE}, headers=key)
        service().post("/api/progress/batch", json={"updates": both})
        service().post("/api/progress/batch", json={"updates": [*both, {"userId": "lea", "contentId": "unknown"}]})
        publish("algebra", ["sets"])

    assert by.pop("progress_batch_updates_sum") == 2
    assert by.pop("progress_group_requests_sum") == 3
    assert {name: growth for name, growth in by.items() if "bucket" not in name} == {
        "progress_updates_total": 3,
        "progress_replays_total": 2,
        'progress_changes_total{type="enrollment.created"}': 3,
        'progress_changes_total{type="content.completed"}': 3,
        'progress_changes_total{type="enrollment.completed"}': 3,
        'progress_changes_total{type="module.published"}': 1,
        "progress_batch_updates_count": 1,
        "progress_group_requests_count": 3,
    }


def test_problems_are_counted_by_their_cause(app: Flask, anonymous: Caller, service: Callers) -> None:
    expired = token("sam", "student", exp=datetime.now(UTC) - timedelta(hours=1))
    with grows(anonymous, "progress_problems") as by:
        anonymous.get("/api/progress/sam")
        bearing(app, f"Bearer {expired}").get("/api/progress/sam")
        bearing(app, f"Bearer {expired[:-9]}AAAAAAAAA").get("/api/progress/sam")
        service().post("/api/progress", json={"userId": "sam", "contentId": "unknown"})
    assert by == {
        'progress_problems_total{cause="",problem="unauthorized"}': 1,
        'progress_problems_total{cause="ExpiredSignatureError",problem="unauthorized"}': 1,
        'progress_problems_total{cause="InvalidSignatureError",problem="unauthorized"}': 1,
        'progress_problems_total{cause="UnknownContent",problem="unknown-content"}': 1,
    }


def test_retries_are_counted_by_their_cause_and_what_was_not_committed_is_not(
    database_url: str, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    with application(database_url, LOCK_TIMEOUT=1) as app, engine_of(app).connect() as other:
        service = Caller(app, "service", "lms")
        assert service.post("/api/progress", json={"userId": "sam", **UPDATE}).status_code == 201
        cause = {"sqlite": "OperationalError", "postgresql": "LockNotAvailable"}[other.dialect.name]
        with grows(Caller(app), "progress_transaction", "progress_problems", "progress_changes") as by, other.begin():
            other.execute(update(Enrollment).values(enrolled_at=datetime.now(UTC)))
            answer = service.put("/api/enrollments/sam/algebra", json={"counted": False})
            assert answer.status_code == 503
    assert by == {
        f'progress_transaction_retries_total{{cause="{cause}"}}': 1,
        f'progress_problems_total{{cause="{cause}",problem="unavailable"}}': 1,
    }


def test_every_connection_of_the_pool_is_counted_and_so_is_who_gets_none(postgres_url: str) -> None:
    migrate(postgres_url)
    with application(postgres_url, POOL_SIZE=2, POOL_TIMEOUT=0) as app:
        caller = Caller(app, "service", "lms")
        assert value_of(caller, "progress_pool_connections_limit") == 2
        with grows(caller, "progress_pool", "progress_problems") as by, ExitStack() as held:
            for _ in range(2):
                held.enter_context(engine_of(app).connect())
            assert caller.get("/api/catalog/modules").status_code == 503
        assert by['progress_problems_total{cause="TimeoutError",problem="unavailable"}'] == 1
        assert by["progress_pool_wait_seconds_count"] > 0
        assert by["progress_pool_wait_seconds_sum"] > 0
        found: list[float] = []

        def look(_: Connection) -> None:
            found.append(figures.own().connections._value.get())

        with app.app_context():
            database.read(look)
        assert found == [1]
        assert value_of(caller, "progress_pool_connections_in_use") == 0


def test_a_request_is_in_flight_until_it_is_answered(anonymous: Caller) -> None:
    anonymous.get("/nowhere")
    assert value_of(anonymous, "progress_requests_in_flight") == 1, "it is the scrape itself"


def test_versions_and_schemas_are_told(app: Flask, anonymous: Caller) -> None:
    def told_of(name: str) -> dict[str, str]:
        (labels,) = (dict(labels) for found, labels in samples(anonymous) if found == name)
        return labels

    schema = {"schema": NEWEST}
    assert told_of("progress_build_info") == {
        "version": version("progress-service"),
        "python": platform.python_version(),
        **schema,
    }
    assert told_of("progress_database_info") == schema
    with at(app, "0001"):
        assert told_of("progress_database_info") == {"schema": "0001"}
        assert told_of("progress_build_info").items() > schema.items()


def test_the_last_verification_is_told(app: Flask, anonymous: Caller, service: Callers, publish: Publish) -> None:
    assert "progress_verified_timestamp_seconds" not in anonymous.get("/metrics").text
    publish("algebra", ["sets"])
    service().post("/api/progress", json={"userId": "sam", **UPDATE})
    with engine_of(app).begin() as connection:
        connection.execute(update(Enrollment).values(time_spent_seconds=7))
    app.test_cli_runner().invoke(args=["progress", "verify", "--repair"])
    assert value_of(anonymous, "progress_verified_drifts") > 0
    app.test_cli_runner().invoke(args=["progress", "verify"])
    assert value_of(anonymous, "progress_verified_drifts") == 0
    now = datetime.now(UTC).timestamp()
    assert value_of(anonymous, "progress_verified_timestamp_seconds") == pytest.approx(now, abs=60)


def test_stored_answers_and_what_is_purged_are_counted(database_url: str, anonymous: Caller, publish: Publish) -> None:
    publish("algebra", ["sets"])
    with application(database_url, PURGE_SECONDS=1) as app:
        service, kinds = Caller(app, "service", "lms"), ("progress_purge",)
        service.post("/api/progress", json={"userId": "sam", **UPDATE}, headers={"Idempotency-Key": "sam-1"})
        with engine_of(app).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
        assert value_of(anonymous, "progress_stored_answers") == 1
        with engine_of(app).begin() as connection:
            connection.execute(update(StoredAnswer).values(stored_at=datetime.now(UTC) - timedelta(days=2)))
    with application(database_url, PURGE_SECONDS=1) as app, grows(anonymous, *kinds) as by:
        Caller(app, "service", "lms").post("/api/progress", json={"userId": "sam", **UPDATE})
    assert by == {'progress_purged_rows_total{kind="answers"}': 1}


def test_what_processes_use_is_told(anonymous: Caller) -> None:
    assert value_of(anonymous, "progress_workers") == 1
    assert value_of(anonymous, "process_resident_memory_bytes") > 2**24
    assert 0 < value_of(anonymous, "process_open_fds") < value_of(anonymous, "process_max_fds")
    assert value_of(anonymous, "process_cpu_seconds_total") == pytest.approx(sum(os.times()[:4]), abs=1)


@pytest.mark.parametrize("usual_app", ["sqlite"], indirect=True)
def test_what_a_killed_worker_was_doing_is_forgotten_and_what_it_did_stays_in_no_more_files(
    app: Flask, database_url: str, publish: Publish
) -> None:
    publish("algebra", ["sets"])

    def read(server: Server, *names: str) -> list[float]:
        figures = dict(line.rsplit(" ", 1) for line in server.metrics() if not line.startswith("#"))
        return [float(figures[name]) for name in names]

    doing = ("progress_requests_in_flight", "progress_pool_connections_in_use", "progress_workers")
    with gunicorn(database_url) as server, ThreadPoolExecutor() as client:
        assert server.call("POST", "/api/progress", UPDATE)[0].status == 201
        wait_until(lambda: read(server, "progress_workers") == [2])
        (directory,) = server.shared_directories()
        files = set(directory.iterdir())
        with engine_of(app).begin():  # which holds the only lock
            cut = client.submit(server.call, "POST", "/api/progress", UPDATE)
            wait_until(lambda: read(server, *doing) == [2, 1, 2], lambda: read(server, *doing))
            killed = server.two_workers()
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises((ConnectionError, HTTPException)):
                cut.result(PATIENCE_SECONDS)
            server.two_workers(*killed)
            wait_until(lambda: read(server, *doing) == [1, 0, 2], lambda: read(server, *doing))
        assert set(directory.iterdir()) == files
        updates, seconds = read(server, "progress_updates_total", "process_cpu_seconds_total")
        assert updates == 1
        assert seconds > 0
