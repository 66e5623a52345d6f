"""The alerts and the dashboard ask for metrics that there are, and each alert has its section of the runbook."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

import pytest
from flask import Flask

from tests.callers import Caller
from tests.conftest import Callers, Publish
from tests.test_documents import OPERATING, ROOT, code, section, table
from tests.test_metrics import families

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "progress.json").read_text())
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ALERTS = re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\n      - |\Z)", RULES.read_text(), re.S)
FAMILY = r"\b(?:http|progress|process|changes|webhook)_\w+"


def panels() -> Iterator[dict[str, Any]]:
    """Yield the panels that show something."""
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> list[str]:
    """Return what the panels ask Prometheus."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


@pytest.fixture
def exposed(app: Flask, anonymous: Caller, service: Callers, publish: Publish) -> dict[str, str]:
    """The names of all metrics, with their types."""
    publish("algebra", ["sets"])
    app.test_cli_runner().invoke(args=["progress", "verify"])
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in families(anonymous.get("/metrics").text).values()
    }


def samples_of(metrics: dict[str, str]) -> set[str]:
    """Return the names under which the values of metrics can be asked for."""
    histograms = {name for name, type_ in metrics.items() if type_ == "histogram"}
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    return metrics.keys() - histograms | parts


def named(texts: Iterable[str]) -> set[str]:
    """Return the names of metrics in some expressions."""
    return {name for text in texts for name in re.findall(FAMILY, re.sub(r'"[^"]*"', "", text))}


def test_rules_and_dashboard_ask_for_metrics_that_there_are(exposed: dict[str, str]) -> None:
    asked_by_rules = named(re.findall(r"expr: \|\n((?: {10}.*\n)+)", RULES.read_text()))
    assert len(ALERTS) > 10
    assert len(asked_by_rules) > 10
    assert asked_by_rules <= samples_of(exposed)
    assert named(expressions()) <= samples_of(exposed)


def test_the_dashboard_shows_every_metric(exposed: dict[str, str]) -> None:
    shown = named(expressions())
    unseen = {name for name in exposed if not {name, f"{name}_bucket", f"{name}_count"} & shown}
    assert unseen == set()


def test_every_metric_is_documented(exposed: dict[str, str]) -> None:
    rows = table(section(OPERATING, "Metrics and probes"))
    assert {name for first, *_ in rows for name in code(first)} == exposed.keys()


def test_the_dashboard_belongs_to_no_installation_and_panels_do_not_overlap() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    asked = [part["datasource"] for panel in panels() for part in (panel, *panel["targets"])]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in asked)
    assert not {"uid", "gnetId"} & DASHBOARD.keys()
    for one, other in combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(set(titles)) == len(titles)


def test_every_alert_has_its_section_of_the_runbook() -> None:
    names = [name for name, _ in ALERTS]
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.M) == names
    for name, text in ALERTS:
        assert f"runbook: docs/runbook.md#{name.lower()}" in text
        assert re.search(r"severity: (page|ticket)\n", text)
        for word in ("**Means.**", "**Look at**", "**Do"):
            assert word in section(RUNBOOK, name), (name, word)


def test_what_the_runbook_calls_a_panel_is_one() -> None:
    quoted = set(re.findall(r'"([A-Z0-9][^"]*)"', RUNBOOK))
    assert quoted
    assert quoted <= {panel["title"] for panel in panels()}


def test_every_alert_is_seen_to_fire() -> None:
    cases = RULES.with_name("alerts_test.yml").read_text()
    assert [name for name, _ in ALERTS if name not in cases] == []
