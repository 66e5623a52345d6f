"""Prometheus itself accepts the metrics, the alerts and the dashboard, and the alerts fire when they should."""

import json
import subprocess
from pathlib import Path

from flask import Flask

from tests.callers import Caller
from tests.conftest import PROMTOOL, Callers, Publish
from tests.test_alerts import RULES, expressions


def promtool(*arguments: str | Path, given: str | None = None) -> None:
    """Run promtool, which must find nothing to say against what it is given."""
    done = subprocess.run([str(PROMTOOL), *arguments], input=given, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_the_alerts_fire_when_they_should() -> None:
    promtool("check", "rules", RULES)
    promtool("test", "rules", RULES.with_name("alerts_test.yml"))


def test_the_panels_ask_what_can_be_asked(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{place}", "expr": expression.replace("$__rate_interval", "5m")}
        for place, expression in enumerate(expressions())
    ]
    path = tmp_path / "panels.json"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # which is YAML too
    promtool("check", "rules", path)


def test_the_metrics_have_good_names(app: Flask, anonymous: Caller, service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    service().post("/api/progress", json={"userId": "sam", "contentId": "sets"})
    service().put("/api/webhooks/mails", json={"url": "https://hooks.example.org/"})
    app.test_cli_runner().invoke(args=["progress", "verify"])
    promtool("check", "metrics", given=anonymous.get("/metrics").text)
