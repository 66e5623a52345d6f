"""OpenTelemetry's agent sees requests and their statements."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Publish
from tests.test_serving import gunicorn

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
AGENT = Path(sys.executable).with_name("opentelemetry-instrument")


def test_the_agent_sees_requests_and_all_kinds_of_statements(
    database_url: str, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("algebra", ["sets"])
    monkeypatch.setenv("PROGRESS_LOG_LEVEL", "error")
    for kind, exporter in (("TRACES", "console"), ("METRICS", "none"), ("LOGS", "none")):
        monkeypatch.setenv(f"OTEL_{kind}_EXPORTER", exporter)
    with gunicorn(database_url, workers=1, under=[str(AGENT)]) as server:
        caller = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        assert server.call("POST", "/api/progress", {"contentId": "sets"}, **caller)[0].status == 201
        status, output = server.stop()

    assert status == 0
    spans: list[dict[str, Any]] = [json.loads(text) for text in re.findall(r"^\{\n.*?^\}$", output, re.M | re.S)]
    (request,) = (span for span in spans if span["parent_id"] == f"0x{SPAN}")
    assert (request["name"], request["context"]["trace_id"]) == ("POST /api/progress", f"0x{TRACE}")
    statements = [
        span["attributes"].get("db.statement", "")
        for span in spans
        if (span["parent_id"], span["context"]["trace_id"]) == (request["context"]["span_id"], f"0x{TRACE}")
    ]
    for table in ("enrollments", "progress_records", "tallies"):  # by statements that go around SQLAlchemy
        assert [text for text in statements if f"INSERT INTO {table}" in text], table
    assert not [text for text in statements if "sam" in text]
    texts = [span["attributes"].get("db.statement") for span in spans]
    assert "SELECT version_num FROM alembic_version" in texts  # by SQLAlchemy, for the probe
