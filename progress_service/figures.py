"""What is counted and timed while the service works, for the metrics. What commands do is counted for nobody."""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values

disable_created_metrics()  # type: ignore[no-untyped-call]  # figures of several workers have none

SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Figures:
    """The figures of a process; docs/operating.md ("Metrics and probes") says what each means."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.duration = Histogram(
            "http_request_duration_seconds",
            "Time from a request's arrival until its answer begins.",
            ["method", "route", "status"],
            buckets=SECONDS,
            registry=registry,
        )
        self.duration_of = cache(self.duration.labels)
        self.in_flight = Gauge(
            "progress_requests_in_flight",
            "Requests that have arrived and have no answer yet.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.problems = Counter(
            "progress_problems",
            "Answers that are problems, by the type of the exception that was the cause.",
            ["problem", "cause"],
            registry=registry,
        )
        self.replays = Counter(
            "progress_replays", "Repeated requests that were answered with a stored answer.", registry=registry
        )
        self.updates = Counter("progress_updates", "Updates that were committed.", registry=registry)
        self.changes = Counter(
            "progress_changes", "Lines of the journal that were committed.", ["type"], registry=registry
        )
        self.batches = Histogram(
            "progress_batch_updates", "Updates of each batch that was committed.", buckets=SIZES, registry=registry
        )
        self.groups = Histogram(
            "progress_group_requests",
            "Requests of each transaction for updates and completions.",
            buckets=SIZES,
            registry=registry,
        )
        self.retries = Counter(
            "progress_transaction_retries",
            "Transactions that were tried again, by the type of the exception that was the cause.",
            ["cause"],
            registry=registry,
        )
        self.connections = Gauge(
            "progress_pool_connections_in_use",
            "Connections to the database that threads have.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.pool_wait = Histogram(
            "progress_pool_wait_seconds",
            "Time until a thread has a connection to the database, or is refused one.",
            buckets=SECONDS,
            registry=registry,
        )
        self.key_fetches = Counter(
            "progress_token_key_fetches", "Tries to fetch the identity provider's keys.", ["outcome"], registry=registry
        )
        self.keys_fetched = Gauge(
            "progress_token_keys_fetched_timestamp_seconds",
            "When a worker last fetched the identity provider's keys; 0: none has.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.purged = Counter(
            "progress_purged_rows", "Rows that were kept for their time and deleted.", ["kind"], registry=registry
        )
        self.purge_failures = Counter("progress_purge_failures", "Steps of the purge that failed.", registry=registry)


_own = Figures()


def own() -> Figures:
    """Return the figures of this process."""
    return _own


def begin(number: int) -> None:
    """Begin the figures of a worker in its files, which others read; those of the last one with its number go on."""
    global _own
    # The library chose memory when it was imported, since there was no directory for files.
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
    _own = Figures()
