"""How many requests of each kind there were and how long they took, for Prometheus.

Under gunicorn each worker keeps its figures in a file of its own, and whichever is asked adds up the files of all.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from flask import Flask, Response, current_app, g, request
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the directory of these files, as the library knows it."""
PREFIX = "progress-workers-"
"""How the names of these directories begin; whoever uses one holds a lock on it, which ends with the process."""

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
    workers.register(Workers())
    return generate_latest(workers)


class Workers(Collector):
    """The figures of all workers but those whose files cannot be read: they were killed, or begin just now."""

    def collect(self) -> Iterable[Metric]:
        files = map(str, Path(os.environ[DIRECTORY]).glob("*.db"))
        merged: Iterable[Metric] = MultiProcessCollector.merge(  # type: ignore[no-untyped-call]
            [file for file in files if _is_readable(file)]
        )
        return merged


def _is_readable(file: str) -> bool:
    """Tell whether all of a file is figures; the library trusts its own, and would fail at others, or read for ever."""
    end = 0
    try:
        if not os.path.getsize(file):
            return False
        for *_, place in MmapedDict.read_all_values_from_file(file):  # type: ignore[no-untyped-call]
            if place <= end:
                raise ValueError("not forward")
            end = place
        MultiProcessCollector.merge([file])  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever bytes that mean nothing lead to
        current_app.logger.warning("figures of a worker cannot be read: %s", type(error).__name__)
        return False
    return True


def share(parent: str | None, user: int, group: int) -> None:
    """Let the workers that this process begins, which run as somebody, add up their figures, but not earlier ones."""
    _remove_abandoned(Path(parent or tempfile.gettempdir()))
    # It has its name only when it is locked: without the lock it would be taken for abandoned.
    made = Path(tempfile.mkdtemp(dir=parent))
    os.chown(made, user, group)
    with suppress(OSError):  # where there are no locks, nothing is removed either
        _lock(made)
    os.environ[DIRECTORY] = str(made.rename(made.with_name(f"{PREFIX}{os.getpid()}-{made.name}")))
    # The library has chosen between one process and several when it was imported.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def end_sharing() -> None:
    """Remove what the workers have left."""
    shutil.rmtree(os.environ.pop(DIRECTORY))


def _remove_abandoned(parent: Path) -> None:
    """Remove what processes have left that were killed."""
    for directory in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is in use, or somebody else's
            lock = _lock(directory)
            try:
                shutil.rmtree(directory)
            finally:
                os.close(lock)


def _lock(directory: Path) -> int:
    """Lock a directory until this process ends and those that it begins; raises OSError where others hold it."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        raise
    return opened
