"""The number and the durations of requests, for Prometheus, and how far others are behind the journal.

Under gunicorn each worker keeps its figures in a file, and the worker that is asked adds up the files of all workers.
The figures of the journal are read from the database by the worker that is asked.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from flask import Flask, Response, current_app, request
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest, values
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from progress_service import facts
from progress_service.store import database, webhooks
from progress_service.store.webhooks import Pending, StoredWebhook

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the directory of these files, which the library reads."""
PREFIX = "progress-workers-"
"""The prefix of the names of these directories. The process that uses a directory locks it until it ends."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # figures of several workers have none
REGISTRY = CollectorRegistry()
DURATION = Histogram(
    "http_request_duration_seconds",
    "Time from a request's arrival until its answer begins.",
    ["method", "route", "status"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)


def register(app: Flask) -> None:
    """Count every request by its method, route and status; all requests without a route count as one route."""
    app.after_request(_observe)


def _observe(response: Response) -> Response:
    labels = (request.method, request.url_rule.rule) if request.url_rule else ("any", "unmatched")
    DURATION.labels(*labels, response.status_code).observe(time.perf_counter() - facts.current().began)
    return response


def exposition() -> bytes:
    """Return the figures of all workers, or of this process if it is alone, in the format of Prometheus."""
    if DIRECTORY not in os.environ:
        requests = generate_latest(REGISTRY)
    else:
        workers = CollectorRegistry()
        workers.register(Workers())
        requests = generate_latest(workers)
    journal = CollectorRegistry()
    journal.register(Journal())
    return requests + generate_latest(journal)


class Journal(Collector):
    """How far the feed of changes and the webhooks are behind; nothing while the database cannot be read."""

    def describe(self) -> Iterable[Metric]:
        return []  # so that the database is not read twice

    def collect(self) -> Iterable[Metric]:
        try:
            delayed_since, waiting = database.read(_read_journal)
        except SQLAlchemyError as error:
            current_app.logger.warning("the journal cannot be read: %s", type(error).__name__)
            return
        now = datetime.now(UTC)
        delay = GaugeMetricFamily(
            "changes_delay_seconds", "Age of the oldest change that waits for an open transaction."
        )
        delay.add_metric([], _age(delayed_since, now))
        yield delay
        for name, description, value in WEBHOOK_FIGURES:
            family = GaugeMetricFamily(f"webhook_{name}", description, labels=["webhook"])
            for webhook, pending in waiting:
                family.add_metric([webhook.id], value(webhook, pending, now))
            yield family


def _read_journal(connection: Connection) -> tuple[datetime | None, list[tuple[StoredWebhook, Pending]]]:
    waiting = [(webhook, webhooks.pending(connection, webhook)) for webhook in webhooks.listed(connection)]
    return webhooks.delayed_since(connection), waiting


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


class Workers(Collector):
    """The figures of all workers with readable files; workers that were killed or just begin may have none."""

    def collect(self) -> Iterable[Metric]:
        files = map(str, Path(os.environ[DIRECTORY]).glob("*.db"))
        merged: Iterable[Metric] = MultiProcessCollector.merge(  # type: ignore[no-untyped-call]
            [file for file in files if _is_readable(file)]
        )
        return merged


def _is_readable(file: str) -> bool:
    """Tell whether a file holds only figures; with other content the library would fail, or read for ever."""
    end = 0
    try:
        if not os.path.getsize(file):
            return False
        for *_, place in MmapedDict.read_all_values_from_file(file):  # type: ignore[no-untyped-call]
            if place <= end:
                raise ValueError("an entry does not end behind the last")
            end = place
        MultiProcessCollector.merge([file])  # type: ignore[no-untyped-call]
    except Exception as error:  # any error that meaningless bytes lead to
        current_app.logger.warning("figures of a worker cannot be read: %s", type(error).__name__)
        return False
    return True


def share(parent: str | None, user: int, group: int) -> None:
    """Make a directory that the workers of this process, which run as a user and a group, share for their figures."""
    _remove_abandoned(Path(parent or tempfile.gettempdir()))
    # The directory is locked before it gets its name: unlocked, it would be removed as abandoned.
    made = Path(tempfile.mkdtemp(dir=parent))
    os.chown(made, user, group)
    with suppress(OSError):  # a file system without locks, where no directory is removed either
        _lock(made)
    os.environ[DIRECTORY] = str(made.rename(made.with_name(f"{PREFIX}{os.getpid()}-{made.name}")))
    # The library chose between one process and several when it was imported.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def end_sharing() -> None:
    """Remove the files of the workers."""
    shutil.rmtree(os.environ.pop(DIRECTORY))


def _remove_abandoned(parent: Path) -> None:
    """Remove the directories of processes that were killed."""
    for directory in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is in use, or belongs to another user
            lock = _lock(directory)
            try:
                shutil.rmtree(directory)
            finally:
                os.close(lock)


def _lock(directory: Path) -> int:
    """Lock a directory until this process and its children end. Raises OSError if another process holds the lock."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        raise
    return opened
