"""What an update costs if several share a transaction, without HTTP: in this process, through the write path."""

import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from bench.school import MODULES, STARTED, STUDENTS, content, student
from bench.serving import cpu_seconds
from progress_service import create_app
from progress_service.calculations import Update
from progress_service.store import database, recorder
from tests.callers import KEY

SIZES = (1, 2, 4, 8, 16, 32)


class Groups:
    """Updates of records that exist, drawn anew for each transaction."""

    def __init__(self, url: str) -> None:
        self._app = create_app({"SQLALCHEMY_DATABASE_URI": url, "JWT_SECRET_KEY": KEY})
        self._chance = random.Random(1)

    def measure(self, size: int, seconds: float, watched: Mapping[str, int]) -> dict[str, float]:
        """Write groups of this size for some seconds; return updates per second, and the CPU of each update."""
        cpu = {name: -cpu_seconds(pid) for name, pid in watched.items()} | {"serviceCpu": -time.process_time()}
        start = now = time.perf_counter()
        written = 0
        with self._app.app_context():
            while now < start + seconds:
                self._write(size)
                written += size
                now = time.perf_counter()
        cpu["serviceCpu"] += time.process_time()
        for name, pid in watched.items():
            cpu[name] += cpu_seconds(pid)
        return {"perSecond": written / (now - start), **{name: used / written for name, used in cpu.items()}}

    def _write(self, size: int) -> None:
        """Write updates of different students in one transaction, as requests that arrive together are."""
        now, draw = datetime.now(UTC), self._chance.randrange
        updates = [
            Update(student(n), content(draw(MODULES), draw(STARTED)), now, progress_percentage=40, time_spent_seconds=5)
            for n in self._chance.sample(range(1, STUDENTS + 1), size)
        ]
        database.write(partial(recorder.record, updates=updates, auto_enroll=True, now=now))
