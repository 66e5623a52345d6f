"""What Prometheus reads: every request counted once, by its route, in few series."""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client import Histogram, values
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text, update

from progress_service.operations import metrics
from progress_service.store.models import Change, Webhook
from tests.callers import Caller
from tests.conftest import Callers, Publish, application, engine_of, wait_until_settled

Counts = dict[tuple[str, ...], float]


def counted(caller: Caller) -> Counts:
    """Return how many requests of each kind there were."""
    response = caller.get("/metrics")
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain; version=")
    family, *_ = text_string_to_metric_families(response.text)
    assert (family.name, family.type) == ("http_request_duration_seconds", "histogram")
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
    stat = tmp_path.stat()
    metrics.share(str(tmp_path), stat.st_uid, stat.st_gid)
    yield Path(os.environ[metrics.DIRECTORY])
    metrics.end_sharing()


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
        "import os, time; from progress_service import metrics; lock = metrics._lock(metrics.Path(os.environ['D']))"
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
        metrics._remove_abandoned(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == kept
        assert (tmp_path / "others" / "histogram_1.db").exists()
    finally:
        owner.kill()
        owner.communicate()

    metrics._remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept - {"progress-workers-2-in-use"}


def worker_files(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let two workers count a request each, and return their files."""
    for worker in (1, 2):
        monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue(lambda worker=worker: worker))  # type: ignore[no-untyped-call]
        duration = Histogram(metrics.DURATION._name, "Time.", metrics.DURATION._labelnames, registry=None)
        duration.labels("GET", "/{}", 200).observe(0.01)
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


def figures(caller: Caller) -> dict[tuple[str, str], float]:
    """Return the figures of the journal, by name and webhook."""
    families = text_string_to_metric_families(caller.get("/metrics").text)
    samples = [sample for family in families if family.type == "gauge" for sample in family.samples]
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

    found = figures(anonymous)
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
        assert figures(anonymous)["changes_delay_seconds", ""] == pytest.approx(3600, abs=60)
    wait_until_settled(app)
    assert figures(anonymous)["changes_delay_seconds", ""] == 0


def test_requests_are_told_while_the_database_is_away(tmp_path: Path) -> None:
    with application(f"sqlite:///{tmp_path}/gone/progress.db") as app:
        caller = Caller(app)
        caller.get("/healthz")
        assert counted(caller)["GET", "/healthz", "200"] >= 1
        assert figures(caller) == {}
