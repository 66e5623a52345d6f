"""What Prometheus is told: the figures of all workers, and what the database says.

Under gunicorn each worker keeps its figures in files, and the worker that is asked adds up the files of all workers.
The worker that is asked also reads the database.
"""

import os
import platform
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import NamedTuple

from flask import Flask, Response, current_app, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from progress_service import facts, figures
from progress_service.operations.sharing import DIRECTORY, Processes, Workers, alive
from progress_service.store import database, housekeeping, revisions, verification, webhooks
from progress_service.store.verification import Verified
from progress_service.store.webhooks import Pending, StoredWebhook


def register(app: Flask) -> None:
    """Count every request by its method, route and status; all requests without a route count as one route."""
    app.before_request(_begin)
    app.after_request(_observe)
    app.teardown_request(_end)


def _begin() -> None:
    figures.own().in_flight.inc()


def _observe(response: Response) -> Response:
    known, own = facts.current(), figures.own()
    labels = (request.method, request.url_rule.rule) if request.url_rule else ("any", "unmatched")
    own.duration_of(*labels, response.status_code).observe(time.perf_counter() - known.began)
    if known.problem:
        own.problems.labels(known.problem, known.cause).inc()
    if "Idempotency-Replayed" in response.headers:
        own.replays.inc()
    return response


def _end(_: BaseException | None) -> None:
    figures.own().in_flight.dec()


def exposition() -> bytes:
    """Return the figures of all workers, or of this process if it is alone, in the format of Prometheus."""
    if DIRECTORY in os.environ:
        counted = CollectorRegistry()
        counted.register(Workers())
    else:
        counted = figures.own().registry
    asked = CollectorRegistry()
    for collector in (Build(), Processes(), Database()):
        asked.register(collector)
    return generate_latest(counted) + generate_latest(asked)


class Asked(Collector):
    """What is found out when it is asked for."""

    def describe(self) -> Iterable[Metric]:
        return []  # so that nothing is found out twice


class Build(Asked):
    """What is served: its version and Python, the schema that it needs, and the connections that it may have."""

    def collect(self) -> Iterable[Metric]:
        schema = revisions.known()
        labels = {"version": version("progress-service"), "python": platform.python_version(), "schema": schema}
        yield _info("progress_build_info", "This version, its Python, and the newest schema that it knows.", labels)
        most = alive() * current_app.config["POOL_SIZE"]
        yield _gauge("progress_pool_connections_limit", "Connections that all workers may have.", most)


class Stored(NamedTuple):
    """What the database says."""

    answers: int
    verified: Verified | None
    delayed_since: datetime | None
    waiting: list[tuple[StoredWebhook, Pending]]


class Database(Asked):
    """The state of the database; nothing while it cannot be read."""

    def collect(self) -> Iterable[Metric]:
        try:
            schema = database.probe(revisions.of) or "none"
            yield _info("progress_database_info", "The schema of the database.", {"schema": schema})
            stored = database.probe(_read)
        except SQLAlchemyError as error:
            current_app.logger.warning("the database cannot be read: %s", type(error).__name__)
            return
        now = datetime.now(UTC)
        yield _gauge("progress_stored_answers", "Stored answers, as last estimated by PostgreSQL.", stored.answers)
        if stored.verified:
            at, drifts = stored.verified
            yield _gauge("progress_verified_timestamp_seconds", "When the figures were last verified.", at.timestamp())
            yield _gauge("progress_verified_drifts", "Figures that differed then from their recount.", drifts)
        delay = _age(stored.delayed_since, now)
        yield _gauge("changes_delay_seconds", "Age of the oldest change that waits for an open transaction.", delay)
        for name, description, value in WEBHOOK_FIGURES:
            family = GaugeMetricFamily(f"webhook_{name}", description, labels=["webhook"])
            for webhook, pending in stored.waiting:
                family.add_metric([webhook.id], value(webhook, pending, now))
            yield family


def _read(connection: Connection) -> Stored:
    return Stored(
        housekeeping.count_answers(connection),
        verification.last(connection),
        webhooks.delayed_since(connection),
        [(webhook, webhooks.pending(connection, webhook)) for webhook in webhooks.listed(connection)],
    )


def _gauge(name: str, description: str, value: float) -> Metric:
    return GaugeMetricFamily(name, description, value=value)


def _info(name: str, description: str, labels: dict[str, str]) -> Metric:
    family = GaugeMetricFamily(name, description, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0


WEBHOOK_FIGURES: list[tuple[str, str, Callable[[StoredWebhook, Pending, datetime], float]]] = [
    ("pending_changes", "Changes that wait for it, of the next 10,000.", lambda _, pending, now: pending.number),
    (
        "pending_seconds",
        "Age of the oldest change that waits for it; 0: none waits.",
        lambda _, pending, now: _age(pending.since, now),
    ),
    (
        "failing_seconds",
        "For how long no try has succeeded; 0: the last has.",
        lambda webhook, _, now: _age(webhook.failing_since, now),
    ),
    (
        "active",
        "Whether it is told of changes: 1, or 0 if it is paused or given up.",
        lambda webhook, *_: webhook.active,
    ),
]
"""The figures of each webhook: name, description, and how it is calculated."""
