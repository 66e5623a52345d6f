"""What Prometheus reads: every request counted once, by its route, in few series."""

from pathlib import Path

import pytest
from flask import Flask
from prometheus_client import values
from prometheus_client.parser import text_string_to_metric_families

from progress_service import metrics
from tests.callers import Caller
from tests.conftest import Callers, Publish

Counts = dict[tuple[str, str, str], float]


def counted(caller: Caller) -> Counts:
    """Return how many requests of each kind there were."""
    response = caller.get("/metrics")
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain; version=")
    (family,) = text_string_to_metric_families(response.text)
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


def test_workers_share_a_directory_that_is_new_and_goes_with_them(
    tmp_path: Path, anonymous: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    (tmp_path / "progress-metrics-1").mkdir()
    stat = tmp_path.stat()

    metrics.share(str(tmp_path), stat.st_uid, stat.st_gid)
    (_, directory) = sorted(tmp_path.iterdir(), key=lambda path: len(path.name))
    assert list(directory.iterdir()) == []
    assert anonymous.get("/metrics").data == b"", "no worker has counted anything"
    metrics.end_sharing()

    assert [path.name for path in tmp_path.iterdir()] == ["progress-metrics-1"]
    assert counted(anonymous)
