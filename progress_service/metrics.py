"""How many requests of each kind there were and how long they took, for Prometheus.

Under gunicorn each worker keeps its figures in a file of its own, and whichever is asked adds up the files of all.
"""

import os
import shutil
import tempfile
import time

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the directory of these files, as the library knows it."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # as it is among several workers
REGISTRY = CollectorRegistry()
DURATION = Histogram(
    "http_request_duration_seconds",
    "Time from a request's arrival until its answer begins.",
    ["method", "route", "status"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)


def register(app: Flask) -> None:
    """Count every request by its method, route and status; those without a route together, whatever they ask for."""
    app.after_request(_observe)


def _observe(response: Response) -> Response:
    kind = (request.method, request.url_rule.rule) if request.url_rule else ("any", "unmatched")
    DURATION.labels(*kind, response.status_code).observe(time.perf_counter() - g.began)
    return response


def exposition() -> bytes:
    """Write the figures of all workers, or of this process where it is alone, as Prometheus reads them."""
    if DIRECTORY not in os.environ:
        return generate_latest(REGISTRY)
    workers = CollectorRegistry()
    MultiProcessCollector(workers)  # type: ignore[no-untyped-call]
    return generate_latest(workers)


def share(parent: str | None, user: int, group: int) -> None:
    """Let the workers that this process begins, which run as somebody, add up their figures, but not earlier ones."""
    os.environ[DIRECTORY] = tempfile.mkdtemp(prefix=f"progress-metrics-{os.getpid()}-", dir=parent)
    os.chown(os.environ[DIRECTORY], user, group)
    # The library has chosen between one process and several when it was imported.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def end_sharing() -> None:
    """Remove what the workers have left."""
    shutil.rmtree(os.environ.pop(DIRECTORY))
