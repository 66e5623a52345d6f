"""How the service's answers scale: the same requests to a module of a thousand learners and to one of a million.

    python -m bench.scale                    # some minutes
    python -m bench.scale --large 20000      # a look at whether it runs

Ratios matter, since a slow or busy machine distorts them least; `README.md` explains each of them.
"""

import argparse
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from itertools import count, product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from sqlalchemy import Connection, create_engine, text

from bench.serving import CALLERS, ROOT, Service, call, connected, memory, migrate, served, timed, verify
from progress_service.analytics import queries, roster
from progress_service.analytics.roster import Filters, Order, Stage, Stop
from progress_service.analytics.schemas import CONTENT_STATUSES, MOST_USER_IDS
from progress_service.calculations import ACTIVE, COMPLETED
from progress_service.store import recount
from tests.postgres import PostgresServer

FEW, MEDIUM, LARGE = "few", "medium", "large"
CONTENTS = 10
WEIGHT, THRESHOLD = 10, 90
STALLED_DAYS, INACTIVE_DAYS, MAX_PROGRESS = 7, 14, 45
MOST_WEIGHTED_SUM = ((100 * MAX_PROGRESS + 1) * WEIGHT * CONTENTS - 1) // 100

ROUNDS = 7
REQUESTS = 15
"""In a round, of each kind and module."""
WRITERS = 8
WRITING_SECONDS = 4.0

FLAT, NEARLY_FLAT, FREE = 1.3, 1.5, 0.9
"""The most growth of a latency from a thousand learners to a million, and the least throughput of a single module."""
MEMORY_MEGABYTES, STALLED_MILLISECONDS = 32.0, 50.0

# A learner follows from a number. A twentieth has never begun; a tenth has paused, a tenth dropped, a tenth completed.
# They began within half a year, more of them lately, with a few hours for each content, each in another order.
LEARNERS = """
CREATE TEMP TABLE learners AS
SELECT module_id, module_id || '-' || lpad(n::text, 7, '0') AS user_id, n, n % 20 > 0 AS has_begun,
    CASE n % 10 WHEN 1 THEN 'paused' WHEN 2 THEN 'dropped' WHEN 3 THEN 'completed' ELSE 'active' END AS status,
    CAST(:now AS timestamptz)
        - 180 * power(n * 0.61803398875::float8 - floor(n * 0.61803398875::float8), 2) * interval '1 day' AS at
FROM unnest(CAST(:modules AS text[]), CAST(:sizes AS bigint[])) AS module(module_id, size)
CROSS JOIN generate_series(1, size) AS n
"""
RECORDS = f"""
INSERT INTO progress_records (id, user_id, module_id, content_id, progress_percentage, furthest_percentage,
    time_spent_seconds, score, max_score, started_at, completed_at, last_activity_at)
SELECT CAST(lpad(to_hex(CAST(1000 * extract(epoch FROM at) AS bigint)), 12, '0') || '7'
        || lpad(to_hex(row_number() OVER (ORDER BY at) & 4095), 3, '0') || '8'
        || lpad(to_hex(row_number() OVER (ORDER BY at) >> 12), 15, '0') AS uuid),
    user_id, module_id, content_id, CASE WHEN furthest >= {THRESHOLD} THEN 100 ELSE furthest END, furthest, spent,
    CASE WHEN is_scored THEN 10000 * furthest END, CASE WHEN is_scored THEN 1000000 END,
    at, CASE WHEN furthest >= {THRESHOLD} THEN at END, at
FROM (
    SELECT user_id, module_id, content.id AS content_id, 60 + (n + ordinal) % 600 AS spent,
        ordinal = {CONTENTS - 1} AS is_scored, at - (n + ordinal) % {CONTENTS} * interval '7 hours' AS at,
        CASE WHEN status = 'completed' THEN 100
            WHEN ordinal = 0 THEN n * 7919 % 50
            ELSE least(100, (n * 7919 + ordinal * 104729) % 101 * (n % 13) / 6) END AS furthest
    FROM learners JOIN contents AS content USING (module_id) WHERE has_begun
) AS update ORDER BY at
"""
ENROLLMENTS = f"""
INSERT INTO enrollments (user_id, module_id, status, weighted_sum, completed_contents, time_spent_seconds, enrolled_at,
    completed_at, last_activity_at, last_content_id)
SELECT user_id, module_id, status, coalesce({WEIGHT} * percentages, 0), coalesce(completed, 0), coalesce(spent, 0),
    at - interval '5 days', CASE WHEN status = 'completed' THEN at END, CASE WHEN has_begun THEN at END,
    CASE WHEN has_begun THEN module_id || '-' || ({CONTENTS} - n % {CONTENTS}) % {CONTENTS} END
FROM learners LEFT JOIN (
    SELECT user_id, sum(progress_percentage) AS percentages, count(completed_at) AS completed,
        sum(time_spent_seconds) AS spent
    FROM progress_records GROUP BY user_id
) AS summed USING (user_id) ORDER BY at
"""
DAYS = """
INSERT INTO activity_days (user_id, module_id, day, time_spent_seconds)
SELECT user_id, module_id, CAST(timezone('UTC', started_at) AS date) AS day, sum(time_spent_seconds)
FROM progress_records GROUP BY user_id, module_id, day ORDER BY day
"""
# Writers have written to every part of every tally; a recount writes to a single part.
PARTS = """
INSERT INTO tallies SELECT module_id, kind, item, other, 0, 0, 0, 0, 0, 0, 0, 0
FROM tallies, generate_series(1, 7) AS other WHERE part = 0
"""
# What is kept for some time only, and has been.
EXPIRED = """
WITH answers AS (
    INSERT INTO stored_answers (caller_id, key, fingerprint, status, body, stored_at)
    SELECT 'expired', n, repeat('0', 64), 200, '{}', now() - interval '2 days' FROM generate_series(1, :number) AS n
), sittings AS (
    INSERT INTO sessions (user_id, content_id, session, time_spent_seconds, received_at)
    SELECT user_id, content_id, 'expired', 60, now() - interval '100 days' FROM progress_records LIMIT :number
)
INSERT INTO changes (settled_after, type, time, recorded_at, by_role, data, is_history)
SELECT 0, 'module.published', now(), now() - interval '1000 days', 'command', '{}', false
FROM generate_series(1, :number)
"""
EXPIRED_ROWS = 200_000
"""Of each kind: more than are purged while it is measured."""
FILLED = ("progress_records", "enrollments", "activity_days")


class Sizes(NamedTuple):
    """How many learners the modules have."""

    few: int
    large: int
    medium: int
    small: int
    small_modules: int

    def modules(self) -> dict[str, int]:
        """Return the number of learners of each module."""
        sizes = {FEW: self.few, MEDIUM: self.medium, LARGE: self.large}
        return sizes | {small_module(nth): self.small for nth in range(self.small_modules)}


class Measure(NamedTuple):
    """A kind of request that is sent to both modules; `path` and `body` make it for a module."""

    name: str
    target: float
    path: Callable[[str], str]
    body: Callable[[str], Any] | None = None


class Latency(NamedTuple):
    """Seconds that a request takes, by the medians of the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> "Latency":
        return cls(median(rounds), min(rounds), max(rounds))

    def __str__(self) -> str:
        return f"{1000 * self.median:6.1f} ({1000 * self.least:.1f}-{1000 * self.most:.1f})"


def small_module(nth: int) -> str:
    return f"small-{nth:02}"


def publish(service: Service, modules: Sequence[str]) -> None:
    connection = service.connect()
    for module in modules:
        call(connection, f"/api/catalog/modules/{module}", document(module), "PUT", "admin")


def document(module: str) -> dict[str, Any]:
    contents = [
        {"id": f"{module}-{nth}", "title": f"Lesson {nth}", "type": "video", "weight": WEIGHT}
        | {"completionThreshold": THRESHOLD}
        for nth in range(CONTENTS)
    ]
    return {"title": module.title(), "contents": contents}


def fill(connection: Connection, sizes: Sequence[int], modules: Sequence[str]) -> None:
    """Give the published modules learners, as if each had sent an update about each content."""
    send = connection.exec_driver_sql
    # The rows are consistent by themselves; to check ten million foreign keys would take longer than everything else.
    send("SET session_replication_role = replica")
    send("SET synchronous_commit = off")
    send("SET work_mem = '512MB'")
    send("SET maintenance_work_mem = '1GB'")
    connection.execute(text(LEARNERS), {"now": datetime.now(UTC), "modules": modules, "sizes": sizes})
    indexes = [index for table in FILLED for index in _take_indexes(connection, table)]
    for statement in (RECORDS, "ANALYZE progress_records", ENROLLMENTS, DAYS):
        connection.execute(text(statement))
    for index in indexes:
        connection.execute(text(index))
    send("DROP TABLE learners")
    for module in modules:
        recount.tallies(connection, module)
    send(PARTS)
    send("RESET ALL")
    send("VACUUM ANALYZE")
    send("CHECKPOINT")


def _take_indexes(connection: Connection, table: str) -> list[str]:
    """Drop a table's indexes, except keys that other tables refer to; return the statements that restore them."""
    made_again = []
    keys = (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint AS own WHERE conrelid = CAST(:name AS regclass)"
    )
    free = " AND contype IN ('p', 'u') AND NOT EXISTS (SELECT FROM pg_constraint WHERE confrelid = own.conrelid)"
    for name, definition in connection.execute(text(keys + free), {"name": table}).all():
        connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
        made_again.append(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
    others = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = :name AND indexname LIKE 'ix%'"
    for name, definition in connection.execute(text(others), {"name": table}).all():
        connection.execute(text(f"DROP INDEX {name}"))
        made_again.append(definition)
    return made_again


def measures(connection: Connection, sizes: Sizes) -> list[Measure]:
    """Return the requests to measure; requests about learners name another learner each time."""
    learners = {FEW: sizes.few, LARGE: sizes.large}
    chance = random.Random(1)

    def learner(module: str) -> str:
        # A learner who is active and has begun: their answers have the same size in both modules.
        return f"{module}-{10 * chance.randrange(learners[module] // 10) + 4:07}"

    def update(module: str) -> dict[str, Any]:
        content = f"{module}-{chance.randrange(CONTENTS)}"
        return {"userId": learner(module), "contentId": content, "progressPercentage": 10, "timeSpentSeconds": 5}

    since = datetime.now(UTC) - timedelta(days=INACTIVE_DAYS)
    everybody, lagging = Filters(), Filters(ACTIVE, since, MOST_WEIGHTED_SUM)
    helped = f"&status={ACTIVE}&inactiveDays={INACTIVE_DAYS}&maxProgress={MAX_PROGRESS}"
    pages = []
    for sort, (filters, query, name) in product(roster.SORTS, ((everybody, "", ""), (lagging, helped, ", filtered"))):
        first = f"/learners?sort={sort}{query}"
        last = {
            module: f"{first}&cursor={_cursor_of_last_page(connection, module, filters, Order.named(sort))}"
            for module in learners
        }
        pages.append(
            Measure(f"roster by {sort}{name}, first page", NEARLY_FLAT, _statistics(dict.fromkeys(last, first)))
        )
        pages.append(Measure(f"roster by {sort}{name}, last page", NEARLY_FLAT, _statistics(last)))
    today = datetime.now(UTC).date()
    days = f"from={today - timedelta(days=29)}&to={today}"
    return [
        Measure("statistics", FLAT, lambda module: f"/api/progress/stats/{module}"),
        *pages,
        Measure("timeline of 30 days", NEARLY_FLAT, lambda module: f"/api/progress/stats/{module}/timeline?{days}"),
        Measure("dashboard", NEARLY_FLAT, lambda module: f"/api/progress/{learner(module)}"),
        Measure("module of a learner", NEARLY_FLAT, lambda module: f"/api/progress/{learner(module)}/{module}"),
        Measure("one update", NEARLY_FLAT, lambda module: "/api/progress", update),
    ]


def _statistics(rest: dict[str, str]) -> Callable[[str], str]:
    """Return a path of statistics, whose end differs by module."""
    return lambda module: f"/api/progress/stats/{module}{rest[module]}"


def _cursor_of_last_page(connection: Connection, module: str, filters: Filters, order: Order) -> str:
    """Return the cursor of a client that has read to the last page of 50: the position of the 51st from the end."""
    backwards = order._replace(descending=not order.descending)
    page = roster.page(connection, module, filters, backwards, None, 51)
    return roster.encode(order, order.position(page[-1]))


def measure_latencies(service: Service, measures: Sequence[Measure]) -> dict[str, dict[str, Latency]]:
    """Send the requests in rounds, to both modules in turn, and drop the first round."""
    connection = service.connect()
    seconds: dict[str, dict[str, list[float]]] = {measure.name: {FEW: [], LARGE: []} for measure in measures}
    for _ in range(ROUNDS + 1):
        for measure in measures:
            times: dict[str, list[float]] = {FEW: [], LARGE: []}
            for nth in range(REQUESTS):
                for module in (FEW, LARGE) if nth % 2 else (LARGE, FEW):
                    path, body = measure.path(module), measure.body and measure.body(module)
                    role = "service" if body else "admin"
                    start = time.perf_counter()
                    call(connection, path, body, role=role)
                    times[module].append(time.perf_counter() - start)
            for module, taken in times.items():
                seconds[measure.name][module].append(median(taken))
    return {name: {module: Latency.of(taken[1:]) for module, taken in by.items()} for name, by in seconds.items()}


def measure_memory(service: Service) -> dict[str, float]:
    """Read the whole roster of the large module as CSV; return by how much a worker grew at its peak."""
    before = {worker: memory(worker, "VmRSS") for worker in service.workers}
    for worker in service.workers:
        Path(f"/proc/{worker}/clear_refs").write_text("5")  # the peak counts from now
    start = time.perf_counter()
    connection = service.connect()
    path = f"/api/progress/stats/{LARGE}/learners"
    connection.request("GET", path, headers=CALLERS["admin"] | {"Accept": "text/csv"})
    response = connection.getresponse()
    lines = 0
    while chunk := response.read(1 << 20):
        lines += chunk.count(b"\n")
    grown = max(memory(worker, "VmHWM") - before[worker] for worker in service.workers)
    return {"rows": lines - 1, "seconds": time.perf_counter() - start, "megabytes": grown}


def measure_writers(service: Service, sizes: Sizes) -> dict[str, list[float]]:
    """Let writers run on one module and on many in turn; return the updates in a second of each round."""
    spread = [small_module(nth) for nth in range(sizes.small_modules)]
    connections = [service.connect() for _ in range(WRITERS)]
    rates: dict[str, list[float]] = {"one": [], "many": []}
    for nth in range(ROUNDS + 1):
        for name in ("one", "many") if nth % 2 else ("many", "one"):
            rates[name].append(_write(connections, spread if name == "many" else spread[:1], sizes.small))
    return {name: taken[1:] for name, taken in rates.items()}


def measure_purging(connection: Connection, url: str, sizes: Sizes) -> dict[str, Any]:
    """Let writers run on a service that purges and on one that does not, in turn; return the updates in a second."""
    connection.execute(text(EXPIRED), {"number": EXPIRED_ROWS})
    modules = [small_module(nth) for nth in range(sizes.small_modules)]
    rates: dict[str, list[float]] = {"purging": [], "not purging": []}
    with served(url, PROGRESS_PURGE_SECONDS="1") as purging, served(url, PROGRESS_PURGE_SECONDS="0") as other:
        connections = {
            name: [service.connect() for _ in range(WRITERS)]
            for name, service in (("purging", purging), ("not purging", other))
        }
        for nth in range(ROUNDS + 1):
            for name in connections if nth % 2 else reversed(connections):
                rates[name].append(_write(connections[name], modules, sizes.small))
    left = connection.execute(text("SELECT count(*) FROM stored_answers WHERE caller_id = 'expired'")).scalar_one()
    return {"rows": EXPIRED_ROWS - left, **{name: taken[1:] for name, taken in rates.items()}}


def _write(connections: Sequence[HTTPConnection], modules: Sequence[str], learners: int) -> float:
    written = [0] * len(connections)
    deadline = time.perf_counter() + WRITING_SECONDS

    def work(writer: int) -> None:
        chance = random.Random()
        for nth in count(writer):
            if time.perf_counter() > deadline:
                break
            module = modules[nth % len(modules)]
            # A learner has one writer, so that only modules are shared.
            learner = writer + 1 + len(connections) * chance.randrange(learners // len(connections))
            update = {"userId": f"{module}-{learner:07}", "contentId": f"{module}-{nth % CONTENTS}"}
            call(connections[writer], "/api/progress", update | {"progressPercentage": nth % 90, "timeSpentSeconds": 5})
            written[writer] += 1

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(len(connections))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(written) / (time.perf_counter() - start)


def measure_changes(service: Service) -> dict[str, dict[str, float]]:
    """Publish the medium module again in several ways; return the time of each, and of other requests meanwhile."""
    module = document(MEDIUM)
    first, *others = module["contents"]
    changes = {
        "title": module | {"title": "Another"},
        "content added": module | {"contents": [*module["contents"], first | {"id": f"{MEDIUM}-added"}]},
        "weight changed": module | {"contents": [first | {"weight": 3 * WEIGHT}, *others]},
        "content retired": module | {"contents": others},
    }
    update = {"progressPercentage": 10, "timeSpentSeconds": 5}
    probes: dict[str, tuple[str, Any]] = {
        "healthz": ("/healthz", None),
        "readyz": ("/readyz", None),
        "other module": ("/api/progress", update | {"userId": f"{FEW}-0000004", "contentId": f"{FEW}-1"}),
    }
    figures = {}
    with ThreadPoolExecutor(len(probes) + WRITERS) as clients:
        for name, changed in changes.items():
            ended = threading.Event()

            def slowest(path: str, body: Any, ended: threading.Event = ended) -> float:
                connection, seconds = service.connect(), 0.0
                while not ended.is_set():
                    start = time.perf_counter()
                    call(connection, path, body)
                    seconds = max(seconds, time.perf_counter() - start)
                return seconds

            def refused(writer: int, ended: threading.Event = ended) -> float:
                connection, number = service.connect(), 0
                body = json.dumps(update | {"userId": f"{MEDIUM}-{10 * writer + 4:07}", "contentId": f"{MEDIUM}-1"})
                while not ended.is_set():
                    connection.request("POST", "/api/progress", body, CALLERS["service"])
                    response = connection.getresponse()
                    response.read()
                    number += response.status == 503
                    ended.wait(float(response.headers.get("Retry-After", 0)))
                return number

            others_see = {probe: clients.submit(slowest, *sent) for probe, sent in probes.items()}
            writers = [clients.submit(refused, writer) for writer in range(WRITERS)]
            start = time.perf_counter()
            call(service.connect(), f"/api/catalog/modules/{MEDIUM}", changed, "PUT", "admin")
            seconds = time.perf_counter() - start
            ended.set()
            figures[name] = {
                "seconds": seconds,
                "refused": sum(writer.result() for writer in writers),
                **{probe: client.result() for probe, client in others_see.items()},
            }
            publish(service, [MEDIUM])
    return figures


def measure_stalled(connection: Connection) -> Latency:
    """Read the statistics of the medium module, at the instant of a week for which this takes longest."""
    now = datetime.now(UTC)
    slowest = []
    for _ in range(ROUNDS):
        taken = []
        for days in range(STALLED_DAYS, STALLED_DAYS + 7):
            start = time.perf_counter()
            queries.statistics(connection, MEDIUM, now - timedelta(days=days))
            taken.append(time.perf_counter() - start)
        slowest.append(max(taken))
    return Latency.of(slowest)


def measure_filters(connection: Connection, sizes: Sizes) -> dict[str, dict[str, Latency]]:
    """Read the first page of the large module's learners with each filter, in each order."""
    now, content = datetime.now(UTC), f"{LARGE}-3"
    group = [f"{LARGE}-{1 + place * sizes.large // MOST_USER_IDS:07}" for place in range(MOST_USER_IDS)]
    filters = {
        f"stalledOn, {STALLED_DAYS} days": Filters(stop=Stop(content, now - timedelta(days=STALLED_DAYS))),
        **{f"contentStatus={status}": Filters(stage=Stage(content, status)) for status in CONTENT_STATUSES},
        f"userIds, {MOST_USER_IDS}": Filters(user_ids=group),
        "completedSince, a day ago": Filters(completed_since=now - timedelta(days=1)),
        "inactiveDays, 365": Filters(inactive_since=now - timedelta(days=365)),
        f"maxProgress, {MAX_PROGRESS}": Filters(most_weighted_sum=MOST_WEIGHTED_SUM),
        f"contentStatus=completed, maxProgress, {MAX_PROGRESS}": Filters(
            stage=Stage(content, COMPLETED), most_weighted_sum=MOST_WEIGHTED_SUM
        ),
    }

    def seconds(chosen: Filters, sort: str) -> float:
        start = time.perf_counter()
        roster.page(connection, LARGE, chosen, Order.named(sort), None, 51)
        return time.perf_counter() - start

    return {
        name: {sort: Latency.of([seconds(chosen, sort) for _ in range(ROUNDS + 1)][1:]) for sort in roster.SORTS}
        for name, chosen in filters.items()
    }


def run(url: str, sizes: Sizes, *, is_filled: bool) -> dict[str, Any]:
    """Fill the database, unless it is filled, and measure everything; return all figures."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, served(url) as service:
        if not is_filled:
            with timed("filled"):
                publish(service, list(sizes.modules()))
                fill(connection, list(sizes.modules().values()), list(sizes.modules()))
            with timed("every total equals its recount"):
                verify(url)
        with timed("latencies"):
            requests = measures(connection, sizes)
            latencies = measure_latencies(service, requests)
        with timed("stalled"), connected(url) as own:
            stalled = measure_stalled(own)
        with timed("filters"), connected(url) as own:
            filters = measure_filters(own, sizes)
        with timed("writers"):
            rates = measure_writers(service, sizes)
        with timed("catalog changes"):
            changes = measure_changes(service)
    with engine.connect() as connection, timed("purging"):
        purging = measure_purging(connection, url, sizes)
    with served(url) as service, timed("memory"):
        publish(service, [small_module(0)])  # so that a worker has loaded everything it needs
        memory = measure_memory(service)
    engine.dispose()
    return {
        "sizes": sizes._asdict(),
        "latencies": {
            measure.name: {"target": measure.target}
            | {module: latency._asdict() for module, latency in latencies[measure.name].items()}
            for measure in requests
        },
        "memory": memory,
        "updatesPerSecond": rates,
        "purging": purging,
        "stalled": stalled._asdict(),
        "filters": {name: {sort: latency._asdict() for sort, latency in by.items()} for name, by in filters.items()},
        "changes": changes,
    }


def table(figures: dict[str, Any]) -> str:
    """Write the figures beside their targets."""
    sizes, rates, memory = figures["sizes"], figures["updatesPerSecond"], figures["memory"]
    lines = [f"{'ms, median (least-most of rounds)':42}{sizes['few']:>22,}{sizes['large']:>22,}  ratio target"]
    for name, by in figures["latencies"].items():
        few, large = (Latency(**by[module]) for module in (FEW, LARGE))
        ratio, target = large.median / few.median, by["target"]
        lines.append(f"{name:42}{few!s:>22}{large!s:>22}{ratio:7.2f} {target:6}{_missed(ratio <= target)}")
    one, many = median(rates["one"]), median(rates["many"])
    kept = median(one / many for one, many in zip(rates["one"], rates["many"], strict=True))
    purging, other = (figures["purging"][name] for name in ("purging", "not purging"))
    slowed = median(one / another for one, another in zip(purging, other, strict=True))
    stalled = Latency(**figures["stalled"])
    lines += [
        "",
        f"{WRITERS} writers, updates in a second: {one:.0f} in one module ({min(rates['one']):.0f}-"
        f"{max(rates['one']):.0f}), {many:.0f} in {sizes['small_modules']} ({min(rates['many']):.0f}-"
        f"{max(rates['many']):.0f}): ratio {kept:.2f}, target {FREE}{_missed(kept >= FREE)}",
        f"{WRITERS} writers, updates in a second: {median(purging):.0f} ({min(purging):.0f}-{max(purging):.0f}) while"
        f" {figures['purging']['rows']:,} rows of each kind are purged, {median(other):.0f} ({min(other):.0f}-"
        f"{max(other):.0f}) on a service that does not: ratio {slowed:.2f}, target {FREE}{_missed(slowed >= FREE)}",
        f"roster as CSV: {memory['rows']:,} rows in {memory['seconds']:.0f} s, {memory['megabytes']:.1f} MB more,"
        f" target {MEMORY_MEGABYTES:g}{_missed(memory['megabytes'] <= MEMORY_MEGABYTES)}",
        f"stalled, of {sizes['medium']:,} learners: {stalled!s} ms,"
        f" target {STALLED_MILLISECONDS:g}{_missed(1000 * stalled.median <= STALLED_MILLISECONDS)}",
        f"roster of {sizes['large']:,} learners, first page in ms (least-most of rounds):",
        *(
            f"  {name}, by {sort}: {Latency(**latency)!s}"
            for name, by in figures["filters"].items()
            for sort, latency in by.items()
        ),
        *(
            f"{name}, of {sizes['medium']:,} learners: {seen['seconds']:.2f} s; meanwhile, slowest in ms:"
            f" /healthz {1000 * seen['healthz']:.0f}, /readyz {1000 * seen['readyz']:.0f}, an update of another module"
            f" {1000 * seen['other module']:.0f}; {seen['refused']:.0f} updates of the module refused"
            for name, seen in figures["changes"].items()
        ),
    ]
    return "\n".join(lines)


def _missed(is_met: bool) -> str:
    return "" if is_met else "  MISSED"


def report(figures: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
    print(table(figures))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="Measure how the service scales.")
    for name, learners in Sizes(1000, 1_000_000, 100_000, 400, 50)._asdict().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=learners, metavar="N")
    parser.add_argument("--filled", metavar="URL", help="a database that has been filled before, with the same sizes")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "instance" / "scale.json", help="where to write all figures"
    )
    parser.add_argument("--hold", action="store_true", help="keep the database, until Enter, for a look at it")
    arguments = vars(parser.parse_args())
    url, path, is_held = (arguments.pop(name) for name in ("filled", "json", "hold"))
    sizes = Sizes(**arguments)
    if url:
        report(run(url, sizes, is_filled=True), path)
    else:
        with PostgresServer(durable=True) as server:
            migrate(server.url)
            report(run(server.url, sizes, is_filled=False), path)
            if is_held:
                input(f"Enter ends {server.url} ")


if __name__ == "__main__":
    main()
